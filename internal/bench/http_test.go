package bench

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStream(t *testing.T) {
	const usage = `data: {"choices":[],"usage":{"prompt_tokens":70,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":64}}}` + "\n\n"
	events := func(n int) (e []time.Duration) {
		for i := range n {
			e = append(e, time.Duration(i+1)*time.Second)
		}
		return e
	}
	for _, c := range []struct {
		name, stream string
		want         Result
		fingerprint  string
	}{
		{"usage at the end", "data: {\"system_fingerprint\":\"fp1\",\"choices\":[{\"text\":\"a\"}],\"usage\":null}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n" + usage + "data: [DONE]\n\n",
			Result{Events: events(2), Text: "ab", PromptTokens: 70, CompletionTokens: 5, CachedTokens: 64}, "fp1"},
		{"a token without text", "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"text\":\"é\",\"finish_reason\":\"length\"}]}\n\n" + usage + "data: [DONE]\n\n",
			Result{Events: events(2), Text: "é", PromptTokens: 70, CompletionTokens: 5, CachedTokens: 64}, ""},
		{"nothing but the end", "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\n" + usage + "data: [DONE]\n\n",
			Result{Events: events(1), PromptTokens: 70, CompletionTokens: 5, CachedTokens: 64}, ""},
		{"CRLF, comments, other fields, no space", ": ping\r\n\r\nevent: x\r\nid: 1\r\ndata:{\"choices\":[{\"text\":\"a\"}]}\r\n\r\n: ping\r\n\r\n" + usage + "data:[DONE]\r\n\r\n",
			Result{Events: events(1), Text: "a", PromptTokens: 70, CompletionTokens: 5, CachedTokens: 64}, ""},
		{"no usage", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\ndata: [DONE]\n\n",
			Result{Events: events(2), Text: "ab", CompletionTokens: 2, CachedTokens: -1, Notes: []string{"no usage: tokens are counted by events"}}, ""},
		{"usage without details, timings", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1},\"timings\":{\"cache_n\":7}}\n\ndata: [DONE]\n\n",
			Result{Events: events(2), Text: "a", PromptTokens: 9, CompletionTokens: 1, CachedTokens: 7}, ""},
		{"nothing cached is not unknown", "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"prompt_tokens_details\":{\"cached_tokens\":0}},\"timings\":{\"cache_n\":7}}\n\ndata: [DONE]\n\n",
			Result{Events: events(1), Text: "a", PromptTokens: 9, CompletionTokens: 1, CachedTokens: 0}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := time.Unix(100, 0)
			clock, called := start, 0
			s := stream{start: start, now: func() time.Time { clock = clock.Add(time.Second); return clock }, event: func() { called++ }}
			if err := s.read(strings.NewReader(c.stream)); err != nil {
				t.Fatal(err)
			}
			c.want.Start = start
			if d := cmp.Diff(c.want, s.res); d != "" || s.fingerprint != c.fingerprint || called != len(c.want.Events) {
				t.Errorf("%s; %q, %d events told", d, s.fingerprint, called)
			}
		})
	}
}

func TestStreamErrors(t *testing.T) {
	for _, c := range []struct {
		name, stream, want string
		is                 error
		events             int // that came before
	}{
		{"broken off", "data: {\"choices\":[{\"text\":\"a\"}]}\n\n", "before [DONE]", io.ErrUnexpectedEOF, 1},
		{"error event", "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"error\":{\"message\":\"out of blocks\"}}\n\n", "out of blocks", nil, 1},
		{"no token", "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n", "without a token", nil, 0},
		{"not JSON", "data: <html>\n\n", "an event of the stream", nil, 0},
		{"endless line", "data: " + strings.Repeat("x", maxLine+1), "too long", nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := stream{start: time.Now(), now: time.Now}
			err := s.read(strings.NewReader(c.stream))
			if err == nil || !strings.Contains(err.Error(), c.want) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if len(s.res.Events) != c.events {
				t.Errorf("%d events, want %d", len(s.res.Events), c.events)
			}
		})
	}
}

func FuzzReadStream(f *testing.F) {
	f.Add("data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n")
	f.Add(": c\r\ndata:{\"error\":null}\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		s := stream{start: time.Now(), now: time.Now}
		if err := s.read(strings.NewReader(in)); err == nil && (!strings.Contains(in, "[DONE]") || len(s.res.Events) == 0) {
			t.Errorf("%q ended well: %+v", in, s.res)
		}
	})
}

// A server that refuses an optional field is measured without it, and the notes say so.
func TestHTTPOptionalFields(t *testing.T) {
	var bodies []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(b))
		switch {
		case strings.Contains(string(b), "ignore_eos"):
			http.Error(w, `{"detail":"extra field ignore_eos"}`, http.StatusUnprocessableEntity)
		case strings.Contains(string(b), "stream_options"):
			http.Error(w, `{"error":"unknown field stream_options"}`, http.StatusBadRequest)
		default:
			w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
			io.WriteString(w, "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n")
		}
	}))
	defer srv.Close()
	h, err := ParseHTTP(srv.URL+"#m", "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for range 2 {
		r, err := h.Complete(context.Background(), Call{Prompt: "p", MaxTokens: 1})
		if err != nil {
			t.Fatal(err)
		}
		notes := strings.Join(r.Notes, "; ")
		for _, want := range []string{optional["ignore_eos"], optional["stream_options"]} {
			if !strings.Contains(notes, want) {
				t.Errorf("notes %q lack %q", notes, want)
			}
		}
	}
	if len(bodies) != 4 { // two refusals, then both calls
		t.Errorf("%d requests:\n%s", len(bodies), strings.Join(bodies, "\n"))
	}
}

// A server that closes a connection just when it is used again loses no call.
func TestHTTPClosedConnection(t *testing.T) {
	var mu sync.Mutex
	requests := map[string]int{} // by connection
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		requests[r.RemoteAddr]++
		again := requests[r.RemoteAddr] > 1
		mu.Unlock()
		if _, sent := r.Header["Idempotency-Key"]; sent {
			t.Error("the key was sent")
		}
		if again {
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			c.Close()
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n")
	}))
	defer srv.Close()
	h, err := ParseHTTP(srv.URL+"#m", "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for i := range 4 {
		if _, err := h.Complete(context.Background(), Call{Prompt: "p", MaxTokens: 1}); err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
}

// A stream that is cut off gives what came before, with the error.
func TestHTTPCanceled(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		io.WriteString(w, "data: {\"choices\":[{\"text\":\"a\"}]}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	h, err := ParseHTTP(srv.URL+"#m", "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, err := h.Complete(ctx, Call{Prompt: "p", MaxTokens: 9, Event: cancel})
	if !errors.Is(err, context.Canceled) || len(r.Events) != 1 || r.Text != "a" {
		t.Errorf("%v, %+v", err, r)
	}
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
