package openaigo

import (
	"context"
	"io"
	"sync"
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
func (g *fakeGenerator) Ready() bool             { return true }

func (g *fakeGenerator) last(t *testing.T) *llm.Request {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.requests) == 0 {
		t.Fatal("the generator was not asked")
	}
	return g.requests[len(g.requests)-1]
}

// A step is what one call of Next does: give an event or an error, or wait for the end of the context.
type step struct {
	event   llm.Event
	err     error
	forever bool
}

func text(s string) step        { return step{event: llm.Event{Text: s}} }
func finish(reason string) step { return step{event: llm.Event{Finish: reason}} }

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
	if ctx.Err() != nil {
		return llm.Event{}, ctx.Err()
	}
	s.steps = s.steps[1:]
	return st.event, st.err
}

func (s *fakeStream) Usage() llm.Usage          { return s.usage }
func (s *fakeStream) Decisions() []llm.Decision { return s.decisions }
func (s *fakeStream) Timings() llm.Timings      { return llm.Timings{} }
func (s *fakeStream) Close()                    { s.once.Do(func() { close(s.closed) }) }

// fakeKeys has keys as a map.
type fakeKeys map[string]string

func (k fakeKeys) Tenant(key string) (string, bool) { t, ok := k[key]; return t, ok }

// one is a script that gives every request this stream and hands it out.
func one(s *fakeStream) func(*llm.Request) (*fakeStream, error) {
	s.closed, s.once = make(chan struct{}), new(sync.Once)
	return func(*llm.Request) (*fakeStream, error) { return s, nil }
}
