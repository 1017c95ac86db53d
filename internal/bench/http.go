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
	return &HTTP{name: name, base: base, model: model, key: key, client: &http.Client{Transport: tr}}, nil
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

// do sends a request and returns a response with status 200; any other is an error with the beginning of its body.
func (h *HTTP) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if h.key != "" {
		req.Header.Set("Authorization", "Bearer "+h.key)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 400))
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, strings.TrimSpace(string(b)))
	}
	return resp, nil
}

// Complete implements Target over a streamed /v1/completions.
func (h *HTTP) Complete(ctx context.Context, c Call) (Result, error) {
	body, err := json.Marshal(map[string]any{
		"model": h.model, "prompt": c.Prompt, "max_tokens": c.MaxTokens, "temperature": 0, "ignore_eos": true,
		"stream": true, "stream_options": map[string]bool{"include_usage": true},
	})
	if err != nil {
		return Result{}, err
	}
	start := time.Now()
	resp, err := h.do(ctx, http.MethodPost, "/v1/completions", body)
	if err != nil {
		return Result{}, err
	}
	defer resp.Body.Close()
	if t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); t != "text/event-stream" {
		return Result{}, fmt.Errorf("the answer is %q, not an event stream", resp.Header.Get("Content-Type"))
	}
	res, fingerprint, err := readStream(resp.Body, start, time.Now)
	if err != nil {
		return Result{}, err
	}
	h.mu.Lock()
	h.server, h.version = resp.Header.Get("Server"), fingerprint
	h.mu.Unlock()
	return res, nil
}

// chunk is what is read of a streamed completion. llama.cpp reports reuse in timings if not in usage.
type chunk struct {
	Fingerprint string `json:"system_fingerprint"`
	Choices     []struct {
		Text string `json:"text"`
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

// readStream reads server-sent events up to [DONE]. now is asked once for each chunk that has a choice. Without usage in the stream the
// chunks are counted as tokens.
func readStream(r io.Reader, start time.Time, now func() time.Time) (res Result, fingerprint string, err error) {
	res.CachedTokens = -1
	cached := -1
	chunks := 0
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 0, 64<<10), maxLine)
	for sc.Scan() {
		data, ok := bytes.CutPrefix(sc.Bytes(), []byte("data:"))
		if !ok {
			continue // a comment, another field, or the end of an event
		}
		data = bytes.TrimSpace(data)
		if bytes.Equal(data, []byte("[DONE]")) {
			if chunks == 0 {
				return res, fingerprint, errors.New("the stream ended without a token")
			}
			if res.CompletionTokens == 0 {
				res.CompletionTokens = chunks
			}
			if res.CachedTokens < 0 {
				res.CachedTokens = cached
			}
			return res, fingerprint, nil
		}
		var e chunk
		if err := json.Unmarshal(data, &e); err != nil {
			return res, fingerprint, fmt.Errorf("an event of the stream: %w", err)
		}
		if len(e.Error) > 0 && !bytes.Equal(e.Error, []byte("null")) {
			return res, fingerprint, fmt.Errorf("the stream broke off: %.400s", e.Error)
		}
		if len(e.Choices) > 0 {
			res.Last = now().Sub(start)
			if chunks == 0 {
				res.First = res.Last
			}
			chunks++
		}
		if e.Fingerprint != "" {
			fingerprint = e.Fingerprint
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
		return res, fingerprint, err
	}
	return res, fingerprint, fmt.Errorf("the stream broke off before [DONE]: %w", io.ErrUnexpectedEOF)
}
