package server

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kvasir/internal/llm"
)

const (
	chatBody       = `{"model":"smol","messages":[{"role":"user","content":"my secret prompt"}]}`
	completionBody = `{"model":"smol","prompt":"my secret prompt"}`
	streamBody     = `{"model":"smol","prompt":"my secret prompt","stream":true,"stream_options":{"include_usage":true}}`
)

// call asks the handler without a network. header is "Name: value" pairs.
func call(h http.Handler, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Host = "localhost:8080"
	for _, kv := range header {
		k, v, _ := strings.Cut(kv, ": ")
		if k == "Host" {
			r.Host = v
		} else {
			r.Header.Set(k, v)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

type errorBody struct {
	Error struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
	} `json:"error"`
}

// wantError checks status and OpenAI's error shape with all four keys.
func wantError(t *testing.T, w *httptest.ResponseRecorder, status int, code, message string) {
	t.Helper()
	var keys struct {
		Error map[string]any `json:"error"`
	}
	var e errorBody
	if err := errors.Join(json.Unmarshal(w.Body.Bytes(), &keys), json.Unmarshal(w.Body.Bytes(), &e)); err != nil {
		t.Errorf("%d %q: %v", w.Code, w.Body, err)
		return
	}
	got := ""
	if e.Error.Code != nil {
		got = *e.Error.Code
	}
	if w.Code != status || got != code || !strings.Contains(e.Error.Message, message) || len(keys.Error) != 4 || e.Error.Type == "" {
		t.Errorf("got %d %s; want %d, code %q, message with %q", w.Code, w.Body, status, code, message)
	}
	if ct := w.Header().Get("Content-Type"); ct != "application/json" {
		t.Errorf("content type %q", ct)
	}
}

func handler(g Generator, o Options) http.Handler {
	if o.Log == nil {
		o.Log = quiet()
	}
	return New(g, o).Handler()
}

func TestRoutes(t *testing.T) {
	h := handler(newFake(always(hello())), Options{})
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"GET", "/health", 200, `{"status":"ok"}`},
		{"HEAD", "/health", 200, ``},
		{"GET", "/ready", 200, `{"status":"ready"}`},
		{"GET", "/v1/models", 200, `"id":"org/smol","object":"model","created":7`},
		{"GET", "/v1/models/smol", 200, `{"id":"smol","object":"model"`},
		{"GET", "/v1/models/org/smol", 200, `{"id":"org/smol"`},
		{"GET", "/v1/models/org%2Fsmol", 200, `{"id":"org/smol"`},
		{"GET", "/metrics", 200, "kvasir_requests_total"},
	} {
		if w := call(h, c.method, c.path, ""); w.Code != c.status || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
		}
	}
	wantError(t, call(h, "GET", "/v1/models/other", ""), 404, "model_not_found", "served: smol, org/smol")
	wantError(t, call(h, "GET", "/v1/nothing", ""), 404, "unknown_url", "/v1/completions")
	wantError(t, call(h, "POST", "/", ""), 404, "unknown_url", "")
	for path, allow := range map[string]string{"/v1/completions": "POST", "/v1/chat/completions": "POST", "/v1/models": "GET, HEAD", "/health": "GET, HEAD", "/metrics": "GET, HEAD"} {
		w := call(h, "DELETE", path, "")
		wantError(t, w, 405, "method_not_allowed", "DELETE")
		if got := w.Header().Get("Allow"); got != allow {
			t.Errorf("%s: Allow: %q", path, got)
		}
	}
}

func TestCompletionAndChat(t *testing.T) {
	g := newFake(always(hello()))
	h := handler(g, Options{Version: "1.2"})
	w := call(h, "POST", "/v1/completions", completionBody)
	var c struct {
		ID, Object, Model string
		Created           int64
		Fingerprint       string `json:"system_fingerprint"`
		Choices           []struct {
			Text   string
			Finish string `json:"finish_reason"`
		}
		Usage map[string]any
	}
	if err := json.Unmarshal(w.Body.Bytes(), &c); err != nil || w.Code != 200 {
		t.Fatal(w.Code, w.Body, err)
	}
	if c.Object != "text_completion" || !strings.HasPrefix(c.ID, "cmpl-") || c.Model != "smol" || c.Created == 0 || c.Fingerprint != "kvasir-1.2-01234567" ||
		c.Choices[0].Text != "Hello" || c.Choices[0].Finish != "stop" {
		t.Errorf("%+v", c)
	}
	want := map[string]any{"prompt_tokens": 10.0, "completion_tokens": 2.0, "total_tokens": 12.0, "prompt_tokens_details": map[string]any{"cached_tokens": 8.0}}
	if d := cmp.Diff(want, c.Usage); d != "" {
		t.Error(d)
	}
	if got := w.Header().Get("Kvasir-Cache"); got != "partial; cached=8/10; reason=diverged; joined=3" {
		t.Errorf("Kvasir-Cache: %q", got)
	}
	if got := w.Header().Get("X-Request-Id"); !strings.HasPrefix(got, "req_") {
		t.Errorf("X-Request-Id: %q", got)
	}
	first := g.last(t)
	if first.ID != c.ID || first.Tenant != "default" || first.Sampling.Seed == 0 {
		t.Errorf("request %+v", first)
	}
	w = call(h, "POST", "/v1/chat/completions", strings.Replace(chatBody, "{", `{"seed":0,`, 1))
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"message":{"role":"assistant","content":"Hello","refusal":null}`) || !strings.Contains(w.Body.String(), `"id":"chatcmpl-`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if s := g.last(t).Sampling.Seed; s != 0 {
		t.Errorf("seed 0 became %d", s)
	}
}

func TestStream(t *testing.T) {
	g := newFake(always(hello()))
	w := call(handler(g, Options{Version: "1"}), "POST", "/v1/completions", streamBody)
	r := g.last(t)
	_, created, _ := strings.Cut(w.Body.String(), `"created":`)
	created, _, _ = strings.Cut(created, ",")
	head := `data: {"id":"` + r.ID + `","object":"text_completion","created":` + created + `,"model":"smol","system_fingerprint":"kvasir-1-01234567","choices":[`
	want := head + `{"index":0,"text":"Hel","logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n" +
		head + `{"index":0,"text":"lo","logprobs":null,"finish_reason":null}],"usage":null}` + "\n\n" +
		head + `{"index":0,"text":"","logprobs":null,"finish_reason":"stop"}],"usage":null}` + "\n\n" +
		head + `],"usage":{"prompt_tokens":10,"completion_tokens":2,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":8}}}` + "\n\n" +
		"data: [DONE]\n\n"
	if d := cmp.Diff(want, w.Body.String()); d != "" {
		t.Error(d)
	}
	h := w.Header()
	h.Del("X-Request-Id")
	if d := cmp.Diff(http.Header{"Content-Type": {"text/event-stream"}, "Cache-Control": {"no-cache"}, "X-Accel-Buffering": {"no"}, "Kvasir-Cache": {"partial; cached=8/10; reason=diverged; joined=3"}}, h); d != "" {
		t.Error(d)
	}
	if w.Code != 200 || !w.Flushed {
		t.Errorf("status %d, flushed %v", w.Code, w.Flushed)
	}
}

func TestCacheHeader(t *testing.T) {
	d := func(reason string) llm.Decision { return llm.Decision{Reason: reason} }
	for _, c := range []struct {
		u       llm.Usage
		ds      []llm.Decision
		prompts int
		want    string
	}{
		{llm.Usage{PromptTokens: 10}, []llm.Decision{d("never_seen")}, 1, "miss; cached=0/10; reason=never_seen"},
		{llm.Usage{PromptTokens: 1}, []llm.Decision{d("never_seen")}, 1, "miss; cached=0/1; reason=never_seen"},
		{llm.Usage{PromptTokens: 10, CachedTokens: 9}, []llm.Decision{d("full")}, 1, "hit; cached=9/10; reason=full"},
		{llm.Usage{PromptTokens: 10, CachedTokens: 8}, []llm.Decision{d("full"), d("full")}, 2, "hit; cached=8/10; reason=full"},
		{llm.Usage{PromptTokens: 10, CachedTokens: 7}, []llm.Decision{d("full"), d("extended")}, 2, "partial; cached=7/10; reason=full+extended"},
		{llm.Usage{PromptTokens: 10}, nil, 1, "miss; cached=0/10"},
	} {
		if got := cacheHeader(cacheState(c.u, c.prompts), c.u, c.ds); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestGeneratorErrors: whether the error comes from Generate or with the first event, the caller sees its status and shape.
func TestGeneratorErrors(t *testing.T) {
	for _, c := range []struct {
		err        error
		status     int
		code       string
		message    string
		retryAfter string
	}{
		{llm.Invalid("prompt", "token 99999 is not in the vocabulary"), 400, "", "vocabulary", ""},
		{&llm.Error{Kind: llm.KindContextLength, Message: "5000 tokens, 2048 fit"}, 400, "context_length_exceeded", "5000", ""},
		{&llm.Error{Kind: llm.KindOverloaded, Message: "the queue is full", RetryAfter: 7}, 429, "rate_limit_exceeded", "queue", "7"},
		{&llm.Error{Kind: llm.KindUnavailable, Message: "no"}, 503, "unavailable", "no", "1"},
		{errors.Join(errors.New("outer"), &llm.Error{Kind: llm.KindForbidden, Message: "not you"}), 403, "", "not you", ""},
		{errors.New("secret path /x"), 500, "", "X-Request-Id", ""},
		{&llm.Error{Kind: llm.KindInternal, Message: "secret path /x"}, 500, "", "X-Request-Id", ""},
	} {
		var logs logBuffer
		o := Options{Log: slog.New(slog.NewTextHandler(&logs, nil))}
		early := call(handler(newFake(func(*llm.Request) (*fakeStream, error) { return nil, c.err }), o), "POST", "/v1/completions", streamBody)
		late := call(handler(newFake(always(fakeStream{steps: []step{{err: c.err}}})), o), "POST", "/v1/chat/completions", chatBody)
		for _, w := range []*httptest.ResponseRecorder{early, late} {
			wantError(t, w, c.status, c.code, c.message)
			if got := w.Header().Get("Retry-After"); got != c.retryAfter {
				t.Errorf("%v: Retry-After %q", c.err, got)
			}
			if strings.Contains(w.Body.String(), "secret") {
				t.Errorf("an internal error's text was sent: %s", w.Body)
			}
		}
		if c.status == 500 && strings.Count(logs.String(), "secret path /x") != 2 {
			t.Errorf("the log lacks the internal error: %s", logs.String())
		}
	}
}

func TestErrorMidStream(t *testing.T) {
	for name, s := range map[string]step{
		"error":      {err: &llm.Error{Kind: llm.KindUnavailable, Message: "went away"}},
		"panic":      {panic: "boom"},
		"choice":     {event: llm.Event{Choice: 1, Text: "x"}},
		"unfinished": {err: io.EOF},
	} {
		g := newFake(always(fakeStream{steps: []step{text("a"), s}}))
		srv := New(g, Options{Log: quiet()})
		w := call(srv.Handler(), "POST", "/v1/completions", streamBody)
		events := strings.Split(strings.TrimSuffix(w.Body.String(), "\n\n"), "\n\n")
		if w.Code != 200 || len(events) != 2 || !strings.HasPrefix(events[1], `data: {"error":{"message":"`) {
			t.Errorf("%s: %d %q", name, w.Code, events)
		}
		status := "500"
		if name == "error" {
			status = "503"
		}
		if m := call(srv.Handler(), "GET", "/metrics", "").Body.String(); !strings.Contains(m, `kvasir_requests_total{endpoint="/v1/completions",status="`+status+`"} 1`) {
			t.Errorf("%s: the metrics do not count a %s", name, status)
		}
		w = call(srv.Handler(), "POST", "/v1/completions", completionBody)
		if w.Code != 500 && w.Code != 503 {
			t.Errorf("%s, not streamed: %d %s", name, w.Code, w.Body)
		}
		if idle := srv.gate.drain(); !isClosed(idle) {
			t.Errorf("%s: the gate still counts a request", name)
		}
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestPanic(t *testing.T) {
	var logs logBuffer
	h := handler(newFake(func(*llm.Request) (*fakeStream, error) { panic("boom") }), Options{Log: slog.New(slog.NewTextHandler(&logs, nil))})
	wantError(t, call(h, "POST", "/v1/completions", completionBody), 500, "", "internal error")
	if !strings.Contains(logs.String(), "boom") || !strings.Contains(logs.String(), "server_test.go") {
		t.Errorf("the log lacks the panic: %s", logs.String())
	}
}

func TestRequestErrors(t *testing.T) {
	h := handler(newFake(always(hello())), Options{MaxBody: 200})
	wantError(t, call(h, "POST", "/v1/completions", `{"model":"smol","prompt":"x","n":0}`), 400, "", "n is out of range")
	wantError(t, call(h, "POST", "/v1/completions", `{"model":"gpt-9","prompt":"x"}`), 404, "model_not_found", `"gpt-9" is not served here; served: smol, org/smol`)
	wantError(t, call(h, "POST", "/v1/completions", `{`), 400, "", "not valid JSON")
	wantError(t, call(h, "POST", "/v1/completions", ``), 400, "", "not valid JSON")
	big := `{"model":"smol","prompt":"` + strings.Repeat("x", 200) + `"}`
	wantError(t, call(h, "POST", "/v1/completions", big), 413, "request_too_large", "200 bytes (--max-body)")
	r := httptest.NewRequest("POST", "/v1/completions", io.MultiReader(strings.NewReader(big))) // no Content-Length
	r.Host, r.ContentLength = "localhost", -1
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	wantError(t, w, 413, "request_too_large", "200 bytes")
	for typ, status := range map[string]int{"application/json": 200, "application/json; charset=utf-8": 200, "application/vnd.x+json": 200, "": 200,
		"text/plain": 415, "application/x-www-form-urlencoded": 415, "multipart/form-data; boundary=x": 415, ";": 415} {
		w := call(h, "POST", "/v1/completions", completionBody, "Content-Type: "+typ)
		if w.Code != status {
			t.Errorf("Content-Type %q: %d", typ, w.Code)
		}
		if status == 415 {
			wantError(t, w, 415, "unsupported_media_type", "application/json")
		}
	}
	wantError(t, call(h, "POST", "/v1/completions", completionBody, "Content-Encoding: gzip"), 415, "unsupported_media_type", "gzip")
}

func TestNotReady(t *testing.T) {
	g := newFake(always(hello()))
	g.starting.Store(true)
	h := handler(g, Options{})
	if w := call(h, "GET", "/ready", ""); w.Code != 503 || w.Body.String() != `{"status":"starting"}` || w.Header().Get("Retry-After") != "1" {
		t.Errorf("/ready: %d %s", w.Code, w.Body)
	}
	if w := call(h, "GET", "/health", ""); w.Code != 200 {
		t.Errorf("/health: %d", w.Code)
	}
	wantError(t, call(h, "POST", "/v1/completions", completionBody), 503, "starting", "loading")
}

func TestAuth(t *testing.T) {
	g := newFake(always(hello()))
	h := handler(g, Options{Keys: fakeKeys{"k1": "alice", "k2": "bob"}, AdminKey: "root"})
	wantError(t, call(h, "POST", "/v1/completions", completionBody), 401, "invalid_api_key", "Authorization: Bearer")
	w := call(h, "POST", "/v1/chat/completions", chatBody, "Authorization: Bearer nope-key")
	wantError(t, w, 401, "invalid_api_key", "not valid")
	if w.Header().Get("WWW-Authenticate") != "Bearer" || strings.Contains(w.Body.String(), "nope-key") {
		t.Errorf("%v %s", w.Header(), w.Body)
	}
	wantError(t, call(h, "GET", "/v1/models", ""), 401, "invalid_api_key", "")
	wantError(t, call(h, "GET", "/v1/models/smol", "", "Authorization: Basic k1"), 401, "invalid_api_key", "")
	wantError(t, call(h, "GET", "/metrics", ""), 401, "invalid_api_key", "admin key")
	wantError(t, call(h, "GET", "/metrics", "", "Authorization: Bearer k1"), 401, "invalid_api_key", "admin key")
	for path, want := range map[string]int{"/health": 200, "/ready": 200} {
		if w := call(h, "GET", path, ""); w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if w := call(h, "GET", "/metrics", "", "Authorization: Bearer root"); w.Code != 200 {
		t.Errorf("/metrics with the admin key: %d", w.Code)
	}
	for key, tenant := range map[string]string{"k1": "alice", "k2": "bob"} {
		if w := call(h, "POST", "/v1/completions", `{"model":"smol","prompt":"x","user":"mallory"}`, "Authorization: bearer "+key); w.Code != 200 {
			t.Errorf("%s: %d", key, w.Code)
		}
		if got := g.last(t).Tenant; got != tenant {
			t.Errorf("%s: tenant %q", key, got)
		}
	}
	wantError(t, call(handler(g, Options{Keys: fakeKeys{}}), "GET", "/metrics", ""), 403, "admin_key_required", "--admin-key")
}

func TestHosts(t *testing.T) {
	for _, c := range []struct {
		addr    string
		allowed []string
		host    string
		ok      bool
	}{
		{"127.0.0.1:8080", nil, "localhost:8080", true},
		{"127.0.0.1:8080", nil, "LOCALHOST", true},
		{"127.0.0.1:8080", nil, "localhost.", true},
		{"127.0.0.1:8080", nil, "app.localhost:1", true},
		{"127.0.0.1:8080", nil, "127.0.0.1:8080", true},
		{"127.0.0.1:8080", nil, "[::1]:8080", true},
		{"127.0.0.1:8080", nil, "[::1]", true},
		{"127.0.0.1:8080", nil, "evil.example:8080", false},
		{"127.0.0.1:8080", nil, "localhost.evil.example", false},
		{"127.0.0.1:8080", nil, "127.0.0.1.evil.example", false},
		{"127.0.0.1:8080", nil, "notlocalhost", false},
		{"127.0.0.1:8080", nil, "2130706433", false},
		{"0.0.0.0:8080", nil, "192.168.1.5:8080", true},
		{"0.0.0.0:8080", nil, "box.lan:8080", false},
		{"box.lan:8080", nil, "Box.Lan:8080", true},
		{":8080", []string{"Box.lan"}, "box.lan:99", true},
		{":8080", []string{"box.lan:80"}, "box.lan:80", true},
		{":8080", []string{"box.lan:80"}, "box.lan:99", false},
		{":8080", []string{"box.lan"}, "10.0.0.1", true},
		{":8080", []string{"*"}, "anything.example", true},
		{":8080", nil, "*", false},
		{":8080", nil, "", true}, // HTTP/1.0
	} {
		h := handler(newFake(always(hello())), Options{Addr: c.addr, AllowedHosts: c.allowed})
		w := call(h, "GET", "/v1/models", "", "Host: "+c.host)
		if c.ok && w.Code != 200 {
			t.Errorf("%+v: %d %s", c, w.Code, w.Body)
		}
		if !c.ok {
			wantError(t, w, 403, "host_not_allowed", "--allowed-hosts")
		}
	}
}

func TestOrigins(t *testing.T) {
	for _, c := range []struct {
		allowed      []string
		origin, host string
		ok           bool
	}{
		{nil, "http://localhost:8080", "localhost:8080", true},
		{nil, "http://127.0.0.1:8080", "127.0.0.1:8080", true},
		{nil, "http://[::1]:8080", "[::1]:8080", true},
		{nil, "http://localhost:3000", "localhost:8080", false},
		{nil, "http://localhost:8080", "127.0.0.1:8080", false},
		{nil, "http://10.0.0.1:8080", "10.0.0.1:8080", false},
		{nil, "https://evil.example", "localhost:8080", false},
		{nil, "null", "localhost:8080", false},
		{nil, "ftp://localhost:8080", "localhost:8080", false},
		{[]string{"https://App.example/"}, "https://app.example", "localhost:8080", true},
		{[]string{"https://app.example"}, "http://app.example", "localhost:8080", false},
		{[]string{"https://app.example"}, "https://app.example.evil.example", "localhost:8080", false},
		{[]string{"vscode-webview://x"}, "vscode-webview://x", "localhost:8080", true},
		{[]string{"*"}, "null", "localhost:8080", true},
	} {
		h := handler(newFake(always(hello())), Options{AllowedOrigins: c.allowed})
		w := call(h, "POST", "/v1/completions", completionBody, "Origin: "+c.origin, "Host: "+c.host)
		allow := w.Header().Get("Access-Control-Allow-Origin")
		if c.ok && (w.Code != 200 || allow != c.origin || w.Header().Get("Vary") != "Origin") {
			t.Errorf("%+v: %d %v", c, w.Code, w.Header())
		}
		if !c.ok {
			wantError(t, w, 403, "origin_not_allowed", "--allowed-origins")
			if allow != "" {
				t.Errorf("%+v: Access-Control-Allow-Origin: %s", c, allow)
			}
		}
	}
}

func TestPreflight(t *testing.T) {
	h := handler(newFake(always(hello())), Options{AllowedOrigins: []string{"https://app.example"}, Keys: fakeKeys{}})
	w := call(h, "OPTIONS", "/v1/chat/completions", "", "Origin: https://app.example", "Access-Control-Request-Method: POST",
		"Access-Control-Request-Headers: authorization, x-stainless-lang", "Access-Control-Request-Private-Network: true")
	got := maps.Clone(w.Header())
	delete(got, "X-Request-Id")
	want := http.Header{"Vary": {"Origin"}, "Access-Control-Allow-Origin": {"https://app.example"}, "Access-Control-Expose-Headers": {"X-Request-Id, Kvasir-Cache, Retry-After"},
		"Access-Control-Allow-Methods": {"POST"}, "Access-Control-Allow-Headers": {"authorization, x-stainless-lang"}, "Access-Control-Max-Age": {"600"}, "Access-Control-Allow-Private-Network": {"true"}}
	if d := cmp.Diff(want, got); d != "" || w.Code != 204 {
		t.Errorf("%d %s", w.Code, d)
	}
	wantError(t, call(h, "OPTIONS", "/v1/completions", "", "Origin: https://evil.example", "Access-Control-Request-Method: POST"), 403, "origin_not_allowed", "")
	wantError(t, call(h, "OPTIONS", "/v1/completions", ""), 405, "method_not_allowed", "")
}

func TestRequestID(t *testing.T) {
	h := handler(newFake(always(hello())), Options{})
	for in, keep := range map[string]bool{"abc-1_2.X": true, "": false, "a b": false, "a\"b": false, strings.Repeat("x", 65): false, strings.Repeat("x", 64): true, "é": false} {
		got := call(h, "GET", "/health", "", "X-Request-Id: "+in).Header().Get("X-Request-Id")
		if (got == in) != keep || got == "" {
			t.Errorf("%q: %q", in, got)
		}
	}
}

func TestLogAndMetrics(t *testing.T) {
	var logs logBuffer
	s := hello()
	h := handler(newFake(always(s)), Options{Log: slog.New(slog.NewJSONHandler(&logs, nil)), Keys: fakeKeys{"sk-key": "alice"}, AdminKey: "root"})
	auth := "Authorization: Bearer sk-key"
	call(h, "POST", "/v1/completions", streamBody, auth)
	call(h, "POST", "/v1/chat/completions", chatBody, auth)
	call(h, "POST", "/v1/chat/completions", `{"model":"smol","messages":[{"role":"my secret prompt","content":""}]}`, auth)
	call(h, "GET", "/nowhere/my", "")
	if s := logs.String(); strings.Contains(s, "secret") || strings.Contains(s, "Hello") || strings.Contains(s, "sk-key") {
		t.Errorf("the log has a prompt, a text or a key: %s", s)
	}
	lines := strings.Split(strings.TrimSpace(logs.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), logs.String())
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]any{"msg": "request", "path": "/v1/completions", "status": 200.0, "tenant": "alice", "model": "smol", "stream": true, "prompt_tokens": 10.0, "cached_tokens": 8.0, "completion_tokens": 2.0, "cache": "partial"} {
		if line[k] != v {
			t.Errorf("%s: got %v, want %v", k, line[k], v)
		}
	}
	for _, k := range []string{"id", "request", "ttft", "duration", "time"} {
		if line[k] == nil {
			t.Errorf("the line lacks %s", k)
		}
	}
	m := call(h, "GET", "/metrics", "", "Authorization: Bearer root").Body.String()
	for _, want := range []string{
		`kvasir_requests_total{endpoint="/v1/completions",status="200"} 1`, `kvasir_requests_total{endpoint="/v1/chat/completions",status="200"} 1`,
		`kvasir_requests_total{endpoint="/v1/chat/completions",status="400"} 1`, `kvasir_requests_total{endpoint="other",status="404"} 1`,
		"kvasir_prompt_tokens_total 20", "kvasir_prefix_cache_queries_total 20", "kvasir_prefix_cache_hits_total 16", "kvasir_generation_tokens_total 4",
		`kvasir_time_to_first_token_seconds_count{cache="partial"} 2`, `kvasir_time_to_first_token_seconds_count{cache="hit"} 0`,
		"kvasir_inter_token_latency_seconds_count 2", "kvasir_request_duration_seconds_count 2", "kvasir_requests_running 0",
	} {
		if !strings.Contains(m, want+"\n") {
			t.Errorf("the metrics lack %s", want)
		}
	}
}
