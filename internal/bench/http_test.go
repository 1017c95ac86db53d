package bench

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestReadStream(t *testing.T) {
	const usage = `data: {"choices":[],"usage":{"prompt_tokens":70,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":64}}}` + "\n\n"
	for _, c := range []struct {
		name, stream string
		want         Result
		fingerprint  string
	}{
		{"usage at the end", "data: {\"system_fingerprint\":\"fp1\",\"choices\":[{\"text\":\"a\"}],\"usage\":null}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n" + usage + "data: [DONE]\n\n",
			Result{First: 1 * time.Second, Last: 3 * time.Second, PromptTokens: 70, CompletionTokens: 5, CachedTokens: 64}, "fp1"},
		{"CRLF, comments, other fields, no space", ": ping\r\n\r\nevent: x\r\nid: 1\r\ndata:{\"choices\":[{\"text\":\"a\"}]}\r\n\r\n: ping\r\n\r\n" + usage + "data:[DONE]\r\n\r\n",
			Result{First: 1 * time.Second, Last: 1 * time.Second, PromptTokens: 70, CompletionTokens: 5, CachedTokens: 64}, ""},
		{"no usage", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: [DONE]\n\n",
			Result{First: 1 * time.Second, Last: 2 * time.Second, CompletionTokens: 2, CachedTokens: -1}, ""},
		{"usage without details, timings", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1},\"timings\":{\"cache_n\":7}}\n\ndata: [DONE]\n\n",
			Result{First: 1 * time.Second, Last: 2 * time.Second, PromptTokens: 9, CompletionTokens: 1, CachedTokens: 7}, ""},
		{"nothing cached is not unknown", "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":0}},\"timings\":{\"cache_n\":7}}\n\ndata: [DONE]\n\n",
			Result{First: 1 * time.Second, Last: 1 * time.Second, PromptTokens: 9, CompletionTokens: 1, CachedTokens: 0}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Unix(100, 0)
			clock := start
			got, fp, err := readStream(strings.NewReader(c.stream), start, func() time.Time { clock = clock.Add(time.Second); return clock })
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want || fp != c.fingerprint {
				t.Errorf("got %+v %q, want %+v %q", got, fp, c.want, c.fingerprint)
			}
		})
	}
}

func TestReadStreamErrors(t *testing.T) {
	for _, c := range []struct {
		name, stream, want string
		is                 error
	}{
		{"broken off", "data: {\"choices\":[{\"text\":\"a\"}]}\n\n", "before [DONE]", io.ErrUnexpectedEOF},
		{"error event", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"error\":{\"message\":\"out of blocks\"}}\n\n", "out of blocks", nil},
		{"no token", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n", "without a token", nil},
		{"not JSON", "data: <html>\n\n", "an event of the stream", nil},
		{"endless line", "data: " + strings.Repeat("x", maxLine+1), "too long", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := readStream(strings.NewReader(c.stream), time.Now(), time.Now)
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func FuzzReadStream(f *testing.F) {
	f.Add("data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n")
	f.Add(": c\r\ndata:{\"error\":null}\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		res, _, err := readStream(strings.NewReader(s), time.Now(), time.Now)
		if err == nil && !strings.Contains(s, "[DONE]") {
			t.Errorf("%q ended well: %+v", s, res)
		}
	})
}

func TestParseHTTP(t *testing.T) {
	for _, c := range []struct{ spec, name, url, model string }{
		{"a=http://127.0.0.1:8080#smol", "a", "http://127.0.0.1:8080", "smol"},
		{"a=http://127.0.0.1:8080/v1/", "a", "http://127.0.0.1:8080", ""},
		{"http://127.0.0.1:8080", "127.0.0.1:8080", "http://127.0.0.1:8080", ""},
		{"https://llm.example/v1#org/model", "llm.example", "https://llm.example", "org/model"},
		{"http://127.0.0.1/x?a=b#m", "127.0.0.1", "http://127.0.0.1/x?a=b", "m"},
	} {
		h, err := ParseHTTP(c.spec, "")
		if err != nil {
			t.Errorf("%s: %v", c.spec, err)
			continue
		}
		if d := h.Describe(); d.Name != c.name || d.URL != c.url || d.Model != c.model || d.Kind != "http" {
			t.Errorf("%s: %+v", c.spec, d)
		}
	}
	for _, bad := range []string{"", "a", "a=", "a=localhost:8080", "a=ftp://x", "a=http://", "a=http://[::1"} {
		if _, err := ParseHTTP(bad, ""); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestHTTPModelAndKey(t *testing.T) {
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		switch r.URL.Path {
		case "/v1/models":
			io.WriteString(w, `{"data":[{"id":"first"},{"id":"second"}]}`)
		default:
			http.Error(w, `{"error":{"message":"no such key"}}`, http.StatusUnauthorized)
		}
	}))
	defer srv.Close()
	h, err := ParseHTTP("x="+srv.URL, "sekrit")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if err := h.Model(context.Background()); err != nil || h.Describe().Model != "first" {
		t.Fatalf("%v, model %q", err, h.Describe().Model)
	}
	_, err = h.Complete(context.Background(), Call{Prompt: "a", MaxTokens: 1})
	if err == nil || !strings.Contains(err.Error(), "401") || !strings.Contains(err.Error(), "no such key") {
		t.Errorf("a refused call gave %v", err)
	}
	if want := "GET /v1/models Bearer sekrit|POST /v1/completions Bearer sekrit"; strings.Join(got, "|") != want {
		t.Errorf("requests %q, want %q", got, want)
	}
}

func TestHTTPNotAStream(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"choices":[{"text":"a"}]}`)
	}))
	defer srv.Close()
	h, err := ParseHTTP("x="+srv.URL+"#m", "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Complete(context.Background(), Call{Prompt: "a", MaxTokens: 1}); err == nil || !strings.Contains(err.Error(), "event stream") {
		t.Errorf("got %v", err)
	}
}
