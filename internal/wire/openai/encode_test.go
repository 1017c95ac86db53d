package openai

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kvasir/internal/llm"
)

var head = Head{ID: "id-1", Model: `m"x`, Created: 12, Fingerprint: "fp"}

func token(text string, lp float32, top ...llm.TokenLogprob) llm.TokenInfo {
	return llm.TokenInfo{TokenLogprob: llm.TokenLogprob{Bytes: []byte(text), Logprob: lp}, Top: top}
}

func alt(text string, lp float32) llm.TokenLogprob {
	return llm.TokenLogprob{Bytes: []byte(text), Logprob: lp}
}

// stream encodes the events and returns the data of each server-sent event.
func stream(t *testing.T, c *Call, u llm.Usage, events ...llm.Event) []string {
	t.Helper()
	e := NewStream(c, head)
	var out []byte
	for _, ev := range events {
		out = e.AppendEvent(out, ev)
	}
	return sseData(t, string(e.AppendEnd(out, u)))
}

func sseData(t *testing.T, s string) []string {
	t.Helper()
	parts := strings.Split(s, "\n\n")
	if parts[len(parts)-1] != "" {
		t.Fatalf("the stream does not end with an empty line: %q", s)
	}
	parts = parts[:len(parts)-1]
	for i, p := range parts {
		data, ok := strings.CutPrefix(p, "data: ")
		if !ok || strings.Contains(data, "\n") {
			t.Fatalf("not one data line: %q", p)
		}
		if data != "[DONE]" && !json.Valid([]byte(data)) {
			t.Fatalf("not JSON: %q", data)
		}
		parts[i] = data
	}
	return parts
}

func TestStreamExactly(t *testing.T) {
	usage := llm.Usage{PromptTokens: 9, CachedTokens: 8, CompletionTokens: 2}
	c := mustDecode(t, Chat, base[Chat]+`,"stream":true,"n":2}`)
	h := `{"id":"id-1","object":"chat.completion.chunk","created":12,"model":"m\"x","system_fingerprint":"fp","choices":[`
	got := stream(t, c, usage, llm.Event{Text: "a\n"}, llm.Event{}, llm.Event{Choice: 1, Text: "é", Finish: "length"}, llm.Event{Finish: "stop"})
	if d := cmp.Diff([]string{
		h + `{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}`,
		h + `{"index":0,"delta":{"content":"a\n"},"logprobs":null,"finish_reason":null}]}`,
		h + `{"index":1,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}]}`,
		h + `{"index":1,"delta":{"content":"é"},"logprobs":null,"finish_reason":null}]}`,
		h + `{"index":1,"delta":{},"logprobs":null,"finish_reason":"length"}]}`,
		h + `{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}`,
		`[DONE]`,
	}, got); d != "" {
		t.Error(d)
	}
	c = mustDecode(t, Completions, base[Completions]+`,"stream":true,"stream_options":{"include_usage":true}}`)
	h = `{"id":"id-1","object":"text_completion","created":12,"model":"m\"x","system_fingerprint":"fp","choices":[`
	got = stream(t, c, usage, llm.Event{Text: "a"}, llm.Event{Text: "b", Finish: "stop"})
	if d := cmp.Diff([]string{
		h + `{"index":0,"text":"a","logprobs":null,"finish_reason":null}],"usage":null}`,
		h + `{"index":0,"text":"b","logprobs":null,"finish_reason":"stop"}],"usage":null}`,
		h + `],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"prompt_tokens_details":{"cached_tokens":8}}}`,
		`[DONE]`,
	}, got); d != "" {
		t.Error(d)
	}
}

// halves has a character in two tokens, as byte-level tokenizers make them.
var halves = []llm.Event{
	{Text: "é", Tokens: []llm.TokenInfo{token("\xc3", -0.5, alt("\xc3", -0.5), alt("\xe2", -1), alt("a", -2)), token("\xa9", 0, alt("\xa9", 0))}},
	{Text: "x", Tokens: []llm.TokenInfo{token("x", float32(math.Inf(-1)), alt("y", -0.25))}},
	{Finish: "length"},
}

func TestLogprobs(t *testing.T) {
	want := []string{
		`{"tokens":["�","�"],"token_logprobs":[-0.5,0],"top_logprobs":[{"�":-0.5,"a":-2},{"�":0}],"text_offset":[0,1]}`,
		`{"tokens":["x"],"token_logprobs":[-9999.0],"top_logprobs":[{"y":-0.25,"x":-9999.0}],"text_offset":[1]}`,
	}
	c := mustDecode(t, Completions, base[Completions]+`,"stream":true,"logprobs":2}`)
	got := stream(t, c, llm.Usage{}, halves...)
	for i, w := range want {
		if !strings.Contains(got[i], `"logprobs":`+w+`,"finish_reason":null`) {
			t.Errorf("got %s\nwant %s", got[i], w)
		}
	}
	r := NewResponse(c)
	for _, ev := range halves {
		r.Add(ev)
	}
	body := string(r.Append(nil, head, llm.Usage{}))
	if w := `"text":"éx","logprobs":{"tokens":["�","�","x"],"token_logprobs":[-0.5,0,-9999.0],"top_logprobs":[{"�":-0.5,"a":-2},{"�":0},{"y":-0.25,"x":-9999.0}],"text_offset":[0,1,1]},"finish_reason":"length"`; !strings.Contains(body, w) {
		t.Errorf("got %s\nwant %s", body, w)
	}
	if got := string(appendLogprob(nil, float32(math.NaN()))) + string(appendTopMap(nil, token("a", float32(math.NaN())))); got != "nullnull" {
		t.Errorf("no log-probability: %s", got)
	}

	c = mustDecode(t, Chat, base[Chat]+`,"stream":true,"logprobs":true,"top_logprobs":2}`)
	got = stream(t, c, llm.Usage{}, halves[1:]...)
	w := `"delta":{"content":"x"},"logprobs":{"content":[{"token":"x","logprob":-9999.0,"bytes":[120],"top_logprobs":[{"token":"y","logprob":-0.25,"bytes":[121]}]}],"refusal":null},"finish_reason":null`
	if !strings.Contains(got[1], w) {
		t.Errorf("got %s\nwant %s", got[1], w)
	}
}

func TestAppendModels(t *testing.T) {
	got := string(AppendModels(nil, []llm.ModelInfo{{ID: "a", Aliases: []string{"b/c"}, Created: 5, Context: 2048}, {ID: "d"}}))
	want := `{"object":"list","data":[{"id":"a","object":"model","created":5,"owned_by":"kvasir","max_model_len":2048},` +
		`{"id":"b/c","object":"model","created":5,"owned_by":"kvasir","max_model_len":2048},{"id":"d","object":"model","created":0,"owned_by":"kvasir","max_model_len":0}]}`
	if got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if got := string(AppendModels(nil, nil)); got != `{"object":"list","data":[]}` {
		t.Error(got)
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		err    llm.Error
		status int
		body   string
	}{
		{llm.Error{Kind: llm.KindInternal, Message: "x"}, 500, `"type":"server_error","param":null,"code":null`},
		{llm.Error{Kind: llm.KindInvalid, Param: "n", Message: "x"}, 400, `"type":"invalid_request_error","param":"n","code":null`},
		{llm.Error{Kind: llm.KindContextLength, Param: "messages"}, 400, `"type":"invalid_request_error","param":"messages","code":"context_length_exceeded"`},
		{llm.Error{Kind: llm.KindUnauthorized}, 401, `"type":"invalid_request_error","param":null,"code":"invalid_api_key"`},
		{llm.Error{Kind: llm.KindForbidden}, 403, `"type":"permission_error","param":null,"code":null`},
		{llm.Error{Kind: llm.KindNotFound, Param: "model"}, 404, `"type":"invalid_request_error","param":"model","code":"model_not_found"`},
		{llm.Error{Kind: llm.KindNotFound, Code: "unknown_url"}, 404, `"code":"unknown_url"`},
		{llm.Error{Kind: llm.KindTooLarge}, 413, `"code":"request_too_large"`},
		{llm.Error{Kind: llm.KindOverloaded}, 429, `"type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"`},
		{llm.Error{Kind: llm.KindUnavailable}, 503, `"type":"server_error","param":null,"code":"unavailable"`},
		{llm.Error{Kind: llm.KindCanceled}, 499, `"code":"canceled"`},
		{llm.Error{Kind: 99}, 500, `"type":"server_error"`},
	} {
		body := string(AppendError(nil, &c.err))
		if Status(c.err.Kind) != c.status || !strings.Contains(body, c.body) || !json.Valid([]byte(body)) {
			t.Errorf("%+v: %d %s", c.err, Status(c.err.Kind), body)
		}
	}
}

func TestStreamingDoesNotAllocate(t *testing.T) {
	c := mustDecode(t, Chat, base[Chat]+`,"stream":true}`)
	e := NewStream(c, head)
	buf := make([]byte, 0, 4096)
	ev := llm.Event{Text: " a \"quoted\" é\n"}
	if n := testing.AllocsPerRun(100, func() { buf = e.AppendEvent(buf[:0], ev) }); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	c, err := Decode(Chat, []byte(base[Chat]+`,"stream":true}`))
	if err != nil {
		b.Fatal(err)
	}
	e := NewStream(c, head)
	var buf []byte
	for b.Loop() {
		buf = e.AppendEvent(buf[:0], llm.Event{Text: " token"})
	}
}
