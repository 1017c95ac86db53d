// Package sched owns the step loop: it admits sequences, joins them to prefixes that are being computed, builds mixed
// batches of prefill and decode, and gives up the newest sequence when KV runs out.
package sched

import (
	"errors"
	"sync/atomic"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/draft"
	"kvasir/internal/engine"
	"kvasir/internal/llm"
	"kvasir/internal/store"
)

// Errors of Submit and of a job's Done.
var (
	ErrQueueFull = errors.New("the queue is full")
	ErrClosed    = errors.New("the server is shutting down")
	ErrCanceled  = errors.New("canceled")
)

// A Job is one sequence to compute: a prompt and a function that chooses each next token. The caller fills the exported
// fields and does not change them after Submit. The functions run on the step loop, must be quick and must not call
// back into the scheduler.
type Job struct {
	Tenant string // for fair admission
	Root   cache.Key
	Prompt []int32 // at least one token
	// Adapters that change the model for this sequence, in order. Root must differ from that of every other list.
	Adapters []engine.AdapterUse
	NoCache  bool

	// Limit is how many tokens the sequence may hold, prompt included. Next is told by its position; it must say done
	// at the latest for the token at position Limit-1.
	Limit int

	// Started is called once, before anything is computed, with what is reused. A later Started (the sequence was
	// waiting for blocks whose owner went away) replaces it; none comes after the first Next.
	Started func(llm.Decision)
	// Next chooses the token at the given position from the logits, which are valid only during the call. A step may bring
	// several: it is called for one position after the other, and never for one that depends on a guess.
	Next func(logits []float32, position int) (token int32, done bool, err error)
	// Done is called exactly once, last: nil after Next said done, else ErrCanceled, ErrClosed or what went wrong.
	Done func(error)

	canceled atomic.Bool

	// Owned by the loop.
	arrival  uint64
	tokens   []int32 // prompt and generated
	seq      *cache.Sequence
	ready    bool // no longer waiting for blocks of others, nor for a lower tier
	looked   bool // in the lower tier
	sampled  bool // Next has been called
	drafter  *draft.Drafter
	decision llm.Decision // as reported
	call     *call
	loading  *loading    // from a lower tier
	found    store.Found // what loading is about

	submitted time.Time
	// Nanoseconds after submitted, 0 if not reached yet: first step that computes it, first token, latest token.
	started, first, last atomic.Int64
}

// Cancel makes the loop drop the job before its next step. Safe to call at any time, more than once.
func (j *Job) Cancel() { j.canceled.Store(true) }

// Timings of the job so far. Safe to call at any time after Submit.
func (j *Job) Timings() llm.Timings {
	const ns = 1e-9
	var t llm.Timings
	started, first, last := j.started.Load(), j.first.Load(), j.last.Load()
	if started > 0 {
		t.Queue = float64(started) * ns
	}
	if first > 0 {
		t.Prefill = float64(first-started) * ns
		t.Decode = float64(last-first) * ns
	}
	return t
}

// report tells the caller what is reused. Once something was computed for the job, a further match finds its own work too:
// that is not reuse, and the first report stays unless the new match is worse.
func (j *Job) report(d llm.Decision) {
	if j.sampled || j.started.Load() != 0 && d.Reused >= j.decision.Reused || d == j.decision {
		return
	}
	j.decision = d
	if j.Started != nil {
		j.Started(d)
	}
}

// since is the time from submission to now, never 0.
func (j *Job) since() int64 { return max(1, time.Since(j.submitted).Nanoseconds()) }

// remaining is how many tokens must be computed before the next one can be chosen.
func (j *Job) remaining() int { return j.seq.Len() - j.seq.Computed() }

// decoding says that only the latest token of the job, chosen by Next, is to be computed.
func (j *Job) decoding() bool { return j.sampled && j.remaining() == 1 }
