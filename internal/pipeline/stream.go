package pipeline

import (
	"context"
	"io"
	"sync"

	"kvasir/internal/llm"
	"kvasir/internal/sched"
)

// stream collects the events of all choices of a request. The step loop writes and never waits: what a slow reader has
// not taken is kept, and is bounded by the request's token limits.
type stream struct {
	sched  *sched.Scheduler
	jobs   []*sched.Job
	prompt []int // tokens of each prompt
	n      int   // choices a prompt

	mu         sync.Mutex
	events     []llm.Event
	taken      int            // of events
	decisions  []llm.Decision // one a prompt, of its first choice
	decided    []bool         // the decision is final: the choice has a token, or has ended
	undecided  int            // prompts
	completion int
	open       int // choices that have not ended
	err        error
	ready      chan struct{} // has room for one
}

func newStream(s *sched.Scheduler, prompts []int, n int) *stream {
	st := &stream{sched: s, prompt: prompts, n: n, open: len(prompts) * n, ready: make(chan struct{}, 1),
		decided: make([]bool, len(prompts)), undecided: len(prompts)}
	for _, p := range prompts {
		st.decisions = append(st.decisions, llm.Decision{PromptTokens: p})
	}
	return st
}

func (s *stream) signal() {
	select {
	case s.ready <- struct{}{}:
	default:
	}
}

func (s *stream) started(choice int, d llm.Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if choice%s.n == 0 {
		s.decisions[choice/s.n] = d
	}
}

// push adds an event and counts the tokens that were generated for it.
func (s *stream) push(e llm.Event) {
	s.mu.Lock()
	s.events = append(s.events, e)
	s.mu.Unlock()
	s.signal()
}

// count adds a generated token of the choice. Its prompt's decision does not change any more.
func (s *stream) count(choice int) {
	s.mu.Lock()
	s.completion++
	s.decide(choice)
	s.mu.Unlock()
}

// decide notes that the decision of the choice's prompt is final. mu is held.
func (s *stream) decide(choice int) {
	if i := choice / s.n; choice%s.n == 0 && !s.decided[i] {
		s.decided[i] = true
		s.undecided--
	}
}

func (s *stream) ended(choice int, err error) {
	s.mu.Lock()
	s.open--
	s.decide(choice)
	if err != nil && s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.signal()
}

// Next implements llm.Stream. Until it is final what is reused of every prompt, which in a call of more prompts than run at
// once may be late, events are held back: the header that comes before them says it.
func (s *stream) Next(ctx context.Context) (llm.Event, error) {
	for {
		s.mu.Lock()
		if s.taken < len(s.events) && s.undecided == 0 {
			e := s.events[s.taken]
			s.events[s.taken] = llm.Event{}
			if s.taken++; s.taken > len(s.events)/2 { // the space is used again; usually there is nothing left to move
				n := copy(s.events, s.events[s.taken:])
				clear(s.events[n:])
				s.events, s.taken = s.events[:n], 0
			}
			s.mu.Unlock()
			return e, nil
		}
		err, open := s.err, s.open
		s.mu.Unlock()
		if err != nil {
			return llm.Event{}, asError(err)
		}
		if open == 0 {
			return llm.Event{}, io.EOF
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return llm.Event{}, &llm.Error{Kind: llm.KindCanceled, Message: "the request was canceled"}
		}
	}
}

// Usage implements llm.Stream.
func (s *stream) Usage() llm.Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := llm.Usage{CompletionTokens: s.completion}
	for i, d := range s.decisions {
		u.PromptTokens += s.prompt[i]
		u.CachedTokens += d.Reused
		u.LoadedTokens += d.Loaded
	}
	return u
}

// Decisions implements llm.Stream.
func (s *stream) Decisions() []llm.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]llm.Decision(nil), s.decisions...)
}

// Timings implements llm.Stream: those of the choice that took longest in each part.
func (s *stream) Timings() llm.Timings {
	var t llm.Timings
	for _, j := range s.jobs {
		u := j.Timings()
		t.Queue = max(t.Queue, u.Queue)
		t.Prefill = max(t.Prefill, u.Prefill)
		t.Decode = max(t.Decode, u.Decode)
	}
	return t
}

// Close implements llm.Stream.
func (s *stream) Close() {
	for _, j := range s.jobs {
		j.Cancel()
	}
	s.sched.Wake()
}
