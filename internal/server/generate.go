package server

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	mathrand "math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"kvasir/internal/llm"
	"kvasir/internal/wire/openai"
)

const (
	internalMessage = "internal error; the server's log has the details under this X-Request-Id"
	codeTimeout     = "timeout"
)

var errTimeout = errors.New("server: request timeout")

// A generation is one call of the Generator, from the decoded request to the last event.
type generation struct {
	x        *exchange
	call     *openai.Call
	head     openai.Head
	out      llm.Stream // nil until the Generator has accepted the request
	response *openai.Response
	ttft     time.Duration
	cache    string      // hit, partial or miss; "" before the first event
	last     []time.Time // by choice: its newest event
	finished int         // choices
}

// generate answers the generating routes.
func (s *Server) generate(x *exchange, e openai.Endpoint) *llm.Error {
	if !s.gate.enter() {
		x.w.Header().Set("Connection", "close")
		return &llm.Error{Kind: llm.KindUnavailable, Code: "shutting_down", Message: "the server is shutting down", RetryAfter: 1}
	}
	defer s.gate.leave()
	s.metrics.running.Inc()
	defer s.metrics.running.Dec()
	if !s.gen.Ready() {
		return &llm.Error{Kind: llm.KindUnavailable, Code: "starting", Message: "the model is still loading", RetryAfter: 1}
	}
	if !x.checkContentType() {
		return nil
	}
	body, release, lerr := x.body()
	if lerr != nil {
		return lerr
	}
	call, err := openai.Decode(e, body)
	release()
	if err != nil {
		return s.explain(x, x.r.Context(), err)
	}
	g := &generation{x: x, call: call}
	if lerr := g.prepare(); lerr != nil {
		return lerr
	}
	ctx, cancel := s.requestContext(x.r.Context())
	defer cancel()
	if err := g.run(ctx); err != nil {
		return s.explain(x, ctx, err)
	}
	return nil
}

// requestContext ends with the caller, with the server, or with the request timeout.
func (s *Server) requestContext(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	release := context.AfterFunc(s.base, func() { cancel(errShutdown) })
	done := func() { release(); cancel(nil) }
	if s.o.RequestTimeout <= 0 {
		return ctx, done
	}
	ctx, cancelTimeout := context.WithTimeoutCause(ctx, s.o.RequestTimeout, errTimeout)
	return ctx, func() { cancelTimeout(); done() }
}

// prepare fills in what only the server knows.
func (g *generation) prepare() *llm.Error {
	s, r := g.x.s, &g.call.Request
	models := s.gen.Models()
	i := slices.IndexFunc(models, func(m llm.ModelInfo) bool { return serves(m, r.Model) })
	if i < 0 && s.o.DefaultModel != "" {
		// From here on it is a request for the default model, and the response says so.
		if i = slices.IndexFunc(models, func(m llm.ModelInfo) bool { return serves(m, s.o.DefaultModel) }); i >= 0 {
			r.Model = s.o.DefaultModel
		}
	}
	if i < 0 {
		return unknownModel(models, r.Model)
	}
	prefix := "cmpl-"
	if g.call.Endpoint == openai.Chat {
		prefix = "chatcmpl-"
	}
	r.ID = prefix + rand.Text()
	r.Tenant = g.x.tenant
	if !g.call.HasSeed {
		r.Sampling.Seed = mathrand.Uint64()
	}
	digest := models[i].Digest
	g.head = openai.Head{ID: r.ID, Model: r.Model, Created: g.x.start.Unix(), Fingerprint: "kvasir-" + s.o.Version + "-" + digest[:min(8, len(digest))]}
	g.last = make([]time.Time, g.call.Choices())
	g.x.gen = g
	return nil
}

func serves(m llm.ModelInfo, name string) bool {
	return m.ID == name || slices.Contains(m.Aliases, name)
}

func unknownModel(models []llm.ModelInfo, name string) *llm.Error {
	var names []string
	for _, m := range models {
		names = append(append(names, m.ID), m.Aliases...)
	}
	return &llm.Error{Kind: llm.KindNotFound, Param: "model", Message: "the model " + quoteShort(name) + " is not served here; served: " + strings.Join(names, ", ")}
}

// run drives the stream. The header is written with the first event: until then an error can still have its own status, and what
// was reused is known by then.
func (g *generation) run(ctx context.Context) error {
	out, err := g.x.s.gen.Generate(ctx, &g.call.Request)
	if err != nil {
		return err
	}
	g.out = out
	defer func() {
		out.Close()
		g.x.s.metrics.generationTokens.Add(float64(out.Usage().CompletionTokens))
	}()
	for first := true; ; first = false {
		ev, err := out.Next(ctx)
		if err != nil && err != io.EOF {
			return err
		}
		if first {
			g.begin()
		}
		if err == io.EOF {
			return g.end()
		}
		if err := g.event(ev); err != nil {
			return err
		}
	}
}

// begin notes the time to the first token and writes the header of a stream.
func (g *generation) begin() {
	g.ttft = time.Since(g.x.start)
	usage, decisions := g.out.Usage(), g.out.Decisions()
	g.cache = cacheState(usage, len(g.call.Request.Prompts))
	g.x.s.metrics.observeFirst(g.cache, g.ttft, usage, decisions)
	h := g.x.w.Header()
	h.Set("Kvasir-Cache", cacheHeader(g.cache, usage, decisions))
	if !g.call.Stream {
		g.response = openai.NewResponse(g.call)
		return
	}
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the events back
	g.x.stream = openai.NewStream(g.call, g.head)
	g.x.header(http.StatusOK)
}

// event passes one event on.
func (g *generation) event(ev llm.Event) error {
	if ev.Choice < 0 || ev.Choice >= len(g.last) {
		return fmt.Errorf("server: event of choice %d of %d", ev.Choice, len(g.last))
	}
	if ev.Finish != "" {
		g.finished++
	}
	if ev.Text != "" || len(ev.Tokens) > 0 {
		now := time.Now()
		if last := g.last[ev.Choice]; !last.IsZero() {
			g.x.s.metrics.interToken.Observe(now.Sub(last).Seconds())
		}
		g.last[ev.Choice] = now
	}
	if g.response != nil {
		g.response.Add(ev)
		return nil
	}
	g.x.buf = g.x.stream.AppendEvent(g.x.buf[:0], ev)
	if len(g.x.buf) == 0 {
		return nil
	}
	return g.sent(g.x.send(g.x.buf))
}

// end completes the response.
func (g *generation) end() error {
	if g.finished != len(g.last) {
		return fmt.Errorf("server: the stream ended with %d of %d choices finished", g.finished, len(g.last))
	}
	usage := g.out.Usage()
	if g.response != nil {
		g.x.buf = g.response.Append(g.x.buf[:0], g.head, usage)
		return g.sent(g.x.sendJSON(http.StatusOK, g.x.buf))
	}
	g.x.buf = g.x.stream.AppendEnd(g.x.buf[:0], usage)
	return g.sent(g.x.send(g.x.buf))
}

// sent takes a failed write for what it is: the caller is gone or takes nothing.
func (g *generation) sent(err error) error {
	if err == nil {
		return nil
	}
	return &llm.Error{Kind: llm.KindCanceled, Code: "client_gone", Message: "writing to the client failed: " + err.Error()}
}

// explain turns an error into one that the caller may see, and logs what it may not.
func (s *Server) explain(x *exchange, ctx context.Context, err error) *llm.Error {
	canceled := &llm.Error{Kind: llm.KindCanceled, Code: "client_gone", Message: "the client closed the connection"}
	if x.r.Context().Err() != nil && s.base.Err() == nil {
		return canceled
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errShutdown):
		return &llm.Error{Kind: llm.KindUnavailable, Code: "shutting_down", Message: "the server is shutting down", RetryAfter: 1}
	case errors.Is(cause, errTimeout):
		return &llm.Error{Kind: llm.KindUnavailable, Code: codeTimeout, Message: "the request took longer than " + s.o.RequestTimeout.String() + " (--request-timeout)"}
	case cause != nil:
		return canceled
	}
	var known *llm.Error
	if errors.As(err, &known) && known.Kind != llm.KindInternal {
		return known
	}
	s.log.Error("internal error", "id", x.id, "path", x.path, "error", err.Error())
	return &llm.Error{Kind: llm.KindInternal, Message: internalMessage}
}

// cacheState says how much of the prompts was reused: hit is all but the last token of each, which is always computed.
func cacheState(u llm.Usage, prompts int) string {
	switch {
	case u.CachedTokens <= 0:
		return "miss"
	case u.CachedTokens >= u.PromptTokens-prompts:
		return "hit"
	}
	return "partial"
}

// cacheHeader is the Kvasir-Cache header: "partial; cached=12/34; reason=diverged". Several prompts have their different reasons
// joined with "+"; joined= counts those of the cached tokens that another request was computing, disk= those that were loaded from disk.
func cacheHeader(state string, u llm.Usage, decisions []llm.Decision) string {
	v := state + "; cached=" + strconv.Itoa(u.CachedTokens) + "/" + strconv.Itoa(u.PromptTokens)
	var reasons []string
	joined, loaded := 0, 0
	for _, d := range decisions {
		joined += d.Joined
		loaded += d.Loaded
		if d.Reason != "" && !slices.Contains(reasons, d.Reason) {
			reasons = append(reasons, d.Reason)
		}
	}
	if len(reasons) > 0 {
		v += "; reason=" + strings.Join(reasons, "+")
	}
	if joined > 0 {
		v += "; joined=" + strconv.Itoa(joined)
	}
	if loaded > 0 {
		v += "; disk=" + strconv.Itoa(loaded)
	}
	return v
}

// attrs is the generation's part of the log line. There is no prompt and no generated text in it.
func (g *generation) attrs() []slog.Attr {
	a := []slog.Attr{slog.String("model", g.call.Request.Model), slog.String("request", g.call.Request.ID), slog.Bool("stream", g.call.Stream)}
	if g.out != nil {
		u := g.out.Usage()
		a = append(a, slog.Int("prompt_tokens", u.PromptTokens), slog.Int("cached_tokens", u.CachedTokens), slog.Int("disk_tokens", u.LoadedTokens), slog.Int("completion_tokens", u.CompletionTokens))
	}
	if g.cache != "" {
		a = append(a, slog.String("cache", g.cache), slog.Duration("ttft", g.ttft))
	}
	return a
}
