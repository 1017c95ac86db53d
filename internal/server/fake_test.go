package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"kvasir/internal/llm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeGenerator answers with scripted streams and remembers what it was asked.
type fakeGenerator struct {
	mu       sync.Mutex
	requests []*llm.Request
	script   func(r *llm.Request) (*fakeStream, error)
	starting atomic.Bool
	models   []llm.ModelInfo
}

func newFake(script func(r *llm.Request) (*fakeStream, error)) *fakeGenerator {
	return &fakeGenerator{script: script, models: []llm.ModelInfo{{ID: "smol", Aliases: []string{"org/smol"}, Created: 7, Context: 2048, Digest: "0123456789abcdef"}}}
}

// always is a script that gives each request the same events.
func always(s fakeStream) func(*llm.Request) (*fakeStream, error) {
	return func(*llm.Request) (*fakeStream, error) {
		c := s
		c.closed, c.once = make(chan struct{}), new(sync.Once)
		return &c, nil
	}
}

func (g *fakeGenerator) Generate(_ context.Context, r *llm.Request) (llm.Stream, error) {
	g.mu.Lock()
	g.requests = append(g.requests, r)
	g.mu.Unlock()
	s, err := g.script(r)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (g *fakeGenerator) Models() []llm.ModelInfo { return g.models }
func (g *fakeGenerator) Ready() bool             { return !g.starting.Load() }

func (g *fakeGenerator) last(t *testing.T) *llm.Request {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.requests) == 0 {
		t.Fatal("the generator was not asked")
	}
	return g.requests[len(g.requests)-1]
}

// A step is what one call of Next does: wait for a channel, then give an event, an error or a panic.
type step struct {
	wait    <-chan struct{}
	event   llm.Event
	err     error
	panic   string
	forever bool
}

func text(s string) step                   { return step{event: llm.Event{Text: s}} }
func finish(reason string) step            { return step{event: llm.Event{Finish: reason}} }
func after(c <-chan struct{}, s step) step { s.wait = c; return s }

// never is a step that only the end of the context ends.
func never() step { return step{forever: true} }

type fakeStream struct {
	steps     []step
	usage     llm.Usage
	decisions []llm.Decision
	closed    chan struct{} // closed by Close
	once      *sync.Once
}

// hello says "Hello" in two pieces, with 8 of 10 prompt tokens cached.
func hello() fakeStream {
	return fakeStream{steps: []step{text("Hel"), text("lo"), finish("stop")}, usage: llm.Usage{PromptTokens: 10, CachedTokens: 8, CompletionTokens: 2},
		decisions: []llm.Decision{{PromptTokens: 10, Reused: 8, Joined: 3, Reason: llm.ReasonDiverged}}}
}

func (s *fakeStream) Next(ctx context.Context) (llm.Event, error) {
	if len(s.steps) == 0 {
		return llm.Event{}, io.EOF
	}
	st := s.steps[0]
	if st.forever {
		<-ctx.Done()
	}
	if st.wait != nil {
		select {
		case <-st.wait:
		case <-ctx.Done():
			return llm.Event{}, ctx.Err()
		}
	}
	if ctx.Err() != nil {
		return llm.Event{}, ctx.Err()
	}
	s.steps = s.steps[1:]
	if st.panic != "" {
		panic(st.panic)
	}
	return st.event, st.err
}

func (s *fakeStream) Usage() llm.Usage          { return s.usage }
func (s *fakeStream) Decisions() []llm.Decision { return s.decisions }
func (s *fakeStream) Timings() llm.Timings      { return llm.Timings{} }
func (s *fakeStream) Close()                    { s.once.Do(func() { close(s.closed) }) }

// fakeKeys has keys as a map.
type fakeKeys map[string]string

func (k fakeKeys) Tenant(key string) (string, bool) { t, ok := k[key]; return t, ok }

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *logBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// pipeListener is a network in memory, whose time a synctest bubble controls. A write blocks until the other side reads.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8080} }

func (l *pipeListener) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	}
}

// running is a server on a pipeListener with a client; both end with the test.
type running struct {
	*Server
	ln     *pipeListener
	client *http.Client
	served chan error
	cancel context.CancelFunc
}

func start(t *testing.T, g Generator, o Options) *running {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet()
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Server: New(g, o), ln: newPipeListener(), served: make(chan error, 1), cancel: cancel}
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return r.ln.dial() }}
	r.client = &http.Client{Transport: tr}
	go func() { r.served <- r.Serve(ctx, r.ln) }()
	t.Cleanup(func() {
		tr.CloseIdleConnections()
		cancel()
		if err := <-r.served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}
