package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// An HTTP target is a server that speaks OpenAI's /v1/completions with streaming.
type HTTP struct {
	name, base, model, key string
	client                 *http.Client

	mu              sync.Mutex
	server, version string
	refused         map[string]bool // fields that the server does not take
}

// optional fields of a request, and what a reader of the figures must know if a server refuses one. Measuring goes on without it.
var optional = map[string]string{
	"ignore_eos":     "no ignore_eos: generation ends where the model ends it",
	"stream_options": "no stream_options: tokens are counted by events",
}

// ParseHTTP makes a target from NAME=URL, NAME=URL#MODEL, URL or URL#MODEL; a URL without a name is its own. URL is the server's address, with or
// without /v1. Without a model Model must be called before the first completion. key is sent as bearer token unless empty.
func ParseHTTP(spec, key string) (*HTTP, error) {
	name, addr, found := strings.Cut(spec, "=")
	if !found || strings.Contains(name, "://") {
		name, addr = "", spec
	}
	u, err := url.Parse(addr)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", spec, err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q: want NAME=URL or NAME=URL#MODEL with a URL like http://127.0.0.1:8080", spec)
	}
	model := u.Fragment
	u.Fragment, u.RawFragment = "", ""
	base := strings.TrimSuffix(strings.TrimSuffix(u.String(), "/"), "/v1")
	if name == "" {
		name = u.Host
	}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.MaxIdleConnsPerHost, tr.MaxConnsPerHost = 256, 0
	tr.IdleConnTimeout = 2 * time.Second // shorter than any server's own, so that no request meets a connection that is being closed
	tr.DisableCompression = true         // a compressed stream comes in lumps
	return &HTTP{name: name, base: base, model: model, key: key, client: &http.Client{Transport: tr}, refused: map[string]bool{}}, nil
}

// Close drops idle connections.
func (h *HTTP) Close() { h.client.CloseIdleConnections() }

// Model takes the first model that the server lists, unless one was named.
func (h *HTTP) Model(ctx context.Context) error {
	if h.model != "" {
		return nil
	}
	resp, err := h.do(ctx, http.MethodGet, "/v1/models", nil)
	if err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	defer resp.Body.Close()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&list); err != nil {
		return fmt.Errorf("%s: /v1/models: %w", h.name, err)
	}
	if len(list.Data) == 0 || list.Data[0].ID == "" {
		return fmt.Errorf("%s: /v1/models lists no model; name one with URL#MODEL", h.name)
	}
	h.model = list.Data[0].ID
	return nil
}

// Describe implements Target.
func (h *HTTP) Describe() Description {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Description{Name: h.name, Kind: "http", URL: h.base, Model: h.model, Server: h.server, Version: h.version}
}

// A statusError is an answer other than 200.
type statusError struct {
	call   string
	code   int
	status string
	body   string // its beginning
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: %s: %s", e.call, e.status, strings.TrimSpace(e.body))
}

// do sends a request and returns a response with status 200; any other is a statusError.
func (h *HTTP) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	// A server may close an idle connection just when it is used again. The empty key is not sent; it tells the transport that the request can
	// be sent anew.
	req.Header["Idempotency-Key"] = nil
	if h.key != "" {
		req.Header.Set("Authorization", "Bearer "+h.key)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 400)) // what came is enough for the message
		return nil, &statusError{method + " " + path, resp.StatusCode, resp.Status, string(b)}
	}
	return resp, nil
}

// request is the body of a call without the fields that the server refused, and the notes on these.
func (h *HTTP) request(c Call) (body []byte, notes []string, err error) {
	fields := map[string]any{"model": h.model, "prompt": c.Prompt, "max_tokens": c.MaxTokens, "temperature": 0, "stream": true,
		"ignore_eos": true, "stream_options": map[string]bool{"include_usage": true}}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range h.refused {
		delete(fields, name)
		notes = append(notes, optional[name])
	}
	body, err = json.Marshal(fields)
	return body, notes, err
}

// refuse reports whether err says that the server does not take an optional field, and leaves it out from now on.
func (h *HTTP) refuse(err error) bool {
	var e *statusError
	if !errors.As(err, &e) || e.code != http.StatusBadRequest && e.code != http.StatusUnprocessableEntity {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for name := range optional {
		if strings.Contains(e.body, name) && !h.refused[name] {
			h.refused[name] = true
			return true
		}
	}
	return false
}

// Complete implements Target over a streamed /v1/completions.
func (h *HTTP) Complete(ctx context.Context, c Call) (Result, error) {
	for {
		body, notes, err := h.request(c)
		if err != nil {
			return Result{}, err
		}
		start := time.Now()
		resp, err := h.do(ctx, http.MethodPost, "/v1/completions", body)
		if h.refuse(err) {
			continue
		}
		if err != nil {
			return Result{}, err
		}
		defer resp.Body.Close()
		if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t != "text/event-stream" {
			return Result{}, fmt.Errorf("the answer is %q, not an event stream", resp.Header.Get("Content-Type"))
		}
		s := stream{start: start, now: time.Now, event: c.Event}
		err = s.read(resp.Body)
		s.res.Notes = append(s.res.Notes, notes...)
		h.mu.Lock()
		h.server, h.version = resp.Header.Get("Server"), s.fingerprint
		h.mu.Unlock()
		return s.res, err
	}
}

// chunk is what is read of a streamed completion. llama.cpp reports reuse in timings if not in usage.
type chunk struct {
	Fingerprint string `json:"system_fingerprint"`
	Choices     []struct {
		Text   string  `json:"text"`
		Finish *string `json:"finish_reason"`
	} `json:"choices"`
	Usage *struct {
		Prompt     int `json:"prompt_tokens"`
		Completion int `json:"completion_tokens"`
		Details    *struct {
			Cached *int `json:"cached_tokens"`
		} `json:"prompt_tokens_details"`
	} `json:"usage"`
	Timings *struct {
		Cached *int `json:"cache_n"`
	} `json:"timings"`
	Error json.RawMessage `json:"error"`
}

// maxLine bounds a line of a stream.
const maxLine = 4 << 20

// A stream reads server-sent events up to [DONE].
type stream struct {
	start time.Time
	now   func() time.Time // asked once for each event that counts
	event func()           // called after that; may be nil

	res         Result
	fingerprint string
}

// read fills res, also with what came before an error. Without usage in the stream the events are counted as tokens. An event that brings
// nothing but the reason of the end is no token, unless there is no other.
func (s *stream) read(r io.Reader) error {
	res := &s.res
	res.Start, res.CachedTokens = s.start, -1
	cached := -1
	var text strings.Builder
	defer func() { res.Text = text.String() }()
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	for sc.Scan() {
		data, ok := bytes.CutPrefix(sc.Bytes(), []byte("data:"))
		if !ok {
			continue // a comment, another field, or the end of an event
		}
		data = bytes.TrimSpace(data)
		if bytes.Equal(data, []byte("[DONE]")) {
			if len(res.Events) == 0 {
				return errors.New("the stream ended without a token")
			}
			if res.CompletionTokens == 0 {
				res.CompletionTokens = len(res.Events)
				res.Notes = append(res.Notes, "no usage: tokens are counted by events")
			}
			if res.CachedTokens < 0 {
				res.CachedTokens = cached
			}
			return nil
		}
		var e chunk
		if err := json.Unmarshal(data, &e); err != nil {
			return fmt.Errorf("an event of the stream: %w", err)
		}
		if len(e.Error) > 0 && !bytes.Equal(e.Error, []byte("null")) {
			return fmt.Errorf("the stream broke off: %.400s", e.Error)
		}
		if len(e.Choices) > 0 {
			c := e.Choices[0]
			if ends := c.Text == "" && c.Finish != nil && *c.Finish != ""; !ends || len(res.Events) == 0 {
				res.Events = append(res.Events, s.now().Sub(s.start))
				if s.event != nil {
					s.event()
				}
			}
			text.WriteString(c.Text)
		}
		if e.Fingerprint != "" {
			s.fingerprint = e.Fingerprint
		}
		if u := e.Usage; u != nil {
			res.PromptTokens, res.CompletionTokens = u.Prompt, u.Completion
			if u.Details != nil && u.Details.Cached != nil {
				res.CachedTokens = *u.Details.Cached
			}
		}
		if e.Timings != nil && e.Timings.Cached != nil {
			cached = *e.Timings.Cached
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return fmt.Errorf("the stream broke off before [DONE]: %w", io.ErrUnexpectedEOF)
}
