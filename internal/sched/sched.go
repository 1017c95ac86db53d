package sched

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/draft"
	"kvasir/internal/engine"
	"kvasir/internal/store"
)

// Engine is what the loop needs of package engine.
type Engine interface {
	Step(*engine.Batch) error
	Logits(i int) []float32
	Copy(dst, src int32, tokens int)
	MaxRows() int
	// For lower tiers, from other goroutines too: the bytes of a whole block, and its first rows into dst and from src.
	Bytes(block int32) []byte
	Extract(dst []byte, block int32, tokens int)
	Fill(block int32, src []byte, from, to int)
}

// Options of New.
type Options struct {
	// MaxQueue is how many calls of Submit may wait, beside those that can run at once. A tenant of which nothing waits is
	// let in beyond it, up to twice as many in all, so that one tenant cannot lock out the others.
	MaxQueue int
	MaxBatch int // sequences that are computed at once, at most one less than the rows of a step
	// StepTarget bounds a step while streams are running, so that their inter-token latency stays bounded; IdleTarget
	// bounds it while only prompts are computed, so that a newcomer does not wait long. Zero: 20 and 60 ms.
	StepTarget, IdleTarget time.Duration
	NoDrafts               bool             // never compute guessed tokens (see package draft)
	Now                    func() time.Time // the clock that steps are measured with; nil: time.Now
	Log                    *slog.Logger

	Tier    store.Tier // below memory; nil: none. The cache must have been made with Saving then
	Load    LoadMode
	RowTime float64 // seconds that computing a prompt token takes, until it is measured; 0: not known
}

// Scheduler runs the step loop of one engine and one cache, both of which it owns.
type Scheduler struct {
	engine Engine
	cache  *cache.Cache
	o      Options

	mu      sync.Mutex
	inbox   []*Job
	waiting int            // jobs submitted and not running, those of inbox included
	calls   int            // calls of Submit that have such jobs
	tenants map[string]int // the same, by tenant
	closed  bool
	abort   bool // Close ran out of time
	stats   Stats
	back    []saved // from the tier
	reads   int     // saves whose block the tier is reading
	noReads bool    // it is to begin no more
	busy    error   // from flush
	wake    chan struct{}
	done    chan struct{}

	// Owned by the loop.
	queue   []*Job // arrived, not admitted
	running []*Job // admitted, oldest first
	clock   uint64
	rowTime float64 // seconds a prefill row takes, smoothed; 0 before the first
	batch   engine.Batch
	parts   []part
	decodes int            // the first parts: decoding jobs
	prompts []*Job         // of the current plan
	load    map[string]int // running sequences by tenant, of the current pick
	spec    speculator
	tiers   tiers
}

// A part is what one job gets of the current step.
type part struct {
	job    *Job
	rows   int     // without the draft
	draft  []int32 // guessed tokens behind them; the job's drafter owns it
	given  int     // of it, while rows are shared out
	logits int     // index of its first logit row, -1 if the prompt is not complete yet
}

// Stats is a snapshot of the loop after its latest step.
type Stats struct {
	Waiting, Running int
	Steps            int64
	PrefillTokens    int64 // computed rows that were not decode
	DecodeTokens     int64 // computed rows of one token a step, without drafts
	DraftTokens      int64 // computed rows of guessed tokens
	AcceptedTokens   int64 // guessed tokens that the model chose too
	Preemptions      int64
	LoadedTokens     int64 // prompt tokens whose KV came from a lower tier
	LoadsDone        int64 // loads that brought all that was found
	LoadsSlow        int64 // loads given up because computing was quicker, or that brought nothing for too long
	LoadsFailed      int64 // loads that a fault ended
	LoadsDeclined    int64 // loads not begun because computing was quicker
	Unsaved          int   // blocks that a lower tier has not taken yet
	Cache            cache.Stats
}

// New starts the loop.
func New(e Engine, c *cache.Cache, o Options) *Scheduler {
	s := newScheduler(e, c, o)
	go s.loop()
	return s
}

// newScheduler is New without the loop.
func newScheduler(e Engine, c *cache.Cache, o Options) *Scheduler {
	if o.StepTarget == 0 {
		o.StepTarget = 20 * time.Millisecond
	}
	if o.IdleTarget == 0 {
		o.IdleTarget = 60 * time.Millisecond
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	// A step must have a row for every running stream and one for a prompt.
	o.MaxBatch = max(1, min(o.MaxBatch, e.MaxRows()-1))
	o.MaxQueue = max(1, o.MaxQueue)
	s := &Scheduler{engine: e, cache: c, o: o, tenants: map[string]int{}, wake: make(chan struct{}, 1), done: make(chan struct{}),
		load: map[string]int{}, spec: speculator{archive: draft.NewArchive()}}
	s.stats.Cache = c.Stats()
	return s
}

// A call is what one Submit brought. It is taken whole: it must not fail for its own size.
type call struct {
	tenant  string
	waiting int // jobs
}

// Submit queues the jobs of one request, all of the same tenant. It fails at once if the queue is full or the scheduler is
// closed; Done is not called then.
func (s *Scheduler) Submit(jobs ...*Job) error {
	if len(jobs) == 0 {
		return nil
	}
	c := &call{tenant: jobs[0].Tenant}
	for _, j := range jobs {
		if len(j.Prompt) == 0 || j.Limit <= len(j.Prompt) || j.Tenant != c.tenant {
			return fmt.Errorf("sched: a prompt of %d tokens with a limit of %d, tenants %q and %q", len(j.Prompt), j.Limit, c.tenant, j.Tenant)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.full(c.tenant); err != nil {
		return err
	}
	now := time.Now()
	for _, j := range jobs {
		j.submitted, j.call = now, c
		s.waits(j, 1)
	}
	s.inbox = append(s.inbox, jobs...)
	s.signal()
	return nil
}

// Full says whether a Submit of the tenant would be refused now, for callers who can spare themselves work before it.
func (s *Scheduler) Full(tenant string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full(tenant)
}

func (s *Scheduler) full(tenant string) error {
	room := s.o.MaxQueue + max(0, s.o.MaxBatch-s.stats.Running)
	switch {
	case s.closed:
		return ErrClosed
	case s.calls < room, s.tenants[tenant] == 0 && s.calls < room+s.o.MaxQueue:
		return nil
	}
	return ErrQueueFull
}

// waits counts the job as waiting (d = 1) or not any more (-1). mu is held.
func (s *Scheduler) waits(j *Job, d int) {
	c := j.call
	before := c.waiting > 0
	c.waiting += d
	s.waiting += d
	if after := c.waiting > 0; after != before {
		s.calls += d
		if s.tenants[c.tenant] += d; s.tenants[c.tenant] == 0 {
			delete(s.tenants, c.tenant)
		}
	}
}

// leaveQueue is waits(j, -1), enterQueue waits(j, 1), for the loop.
func (s *Scheduler) leaveQueue(j *Job) {
	s.mu.Lock()
	s.waits(j, -1)
	s.mu.Unlock()
}

func (s *Scheduler) enterQueue(j *Job) {
	s.mu.Lock()
	s.waits(j, 1)
	s.mu.Unlock()
}

// Stats returns the latest snapshot.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.stats
	st.Waiting = s.waiting
	return st
}

// Wake makes an idle loop look at its jobs again, after Cancel.
func (s *Scheduler) Wake() { s.signal() }

func (s *Scheduler) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close refuses new jobs, lets the submitted ones finish until ctx ends, then cancels the rest, saves what a lower tier is to keep, and ends the loop.
// After ErrBusy the engine's memory must not be freed.
func (s *Scheduler) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	select {
	case <-s.done:
		return s.busy
	case <-ctx.Done():
	}
	s.mu.Lock()
	s.abort = true
	s.mu.Unlock()
	s.signal()
	<-s.done
	return errors.Join(ctx.Err(), s.busy)
}

// loop is the whole scheduler.
func (s *Scheduler) loop() {
	defer close(s.done)
	for s.receive() {
		s.round()
	}
}

// round drops what was canceled, admits, computes one step and hands out tokens.
func (s *Scheduler) round() {
	s.save(false)
	s.dropCanceled()
	s.admit()
	s.resolve()
	s.plan()
	s.publish()
	if len(s.parts) == 0 {
		if s.waitsForTier() {
			s.wait()
		} else {
			s.checkProgress()
		}
		return
	}
	start := s.o.Now()
	if err := s.engine.Step(&s.batch); err != nil {
		s.fail(err)
		return
	}
	s.measure(s.o.Now().Sub(start))
	s.deliver()
}

// receive takes submitted jobs into the queue and blocks while there is nothing to do. It returns false at the end.
func (s *Scheduler) receive() bool {
	for {
		s.mu.Lock()
		for _, j := range s.inbox {
			s.clock++
			j.arrival = s.clock
			j.tokens = append(make([]int32, 0, len(j.Prompt)+64), j.Prompt...)
			s.queue = append(s.queue, j)
		}
		s.inbox = s.inbox[:0]
		closed, abort := s.closed, s.abort
		s.mu.Unlock()
		if abort {
			for _, j := range s.queue {
				s.leaveQueue(j)
			}
			for _, j := range append(s.queue, s.running...) {
				s.finish(j, ErrClosed)
			}
			s.queue, s.running = nil, nil
		}
		if len(s.queue)+len(s.running) > 0 {
			return true
		}
		again := s.save(false)
		s.publish()
		if closed {
			err := s.flush()
			s.mu.Lock()
			s.busy = err
			s.mu.Unlock()
			s.publish()
			return false
		}
		if again == 0 {
			<-s.wake
		} else {
			s.pause(again)
		}
	}
}

// finish gives up what the job holds (publishing what is computed) and reports its end.
func (s *Scheduler) finish(j *Job, err error) {
	if j.seq != nil {
		s.dropLoad(j)
		s.cache.End(j.seq)
		j.seq = nil
	}
	s.spec.forget(j)
	j.Done(err)
}

func (s *Scheduler) dropCanceled() {
	keep := func(jobs []*Job, queued bool) []*Job {
		out := jobs[:0]
		for _, j := range jobs {
			if j.canceled.Load() {
				if queued {
					s.leaveQueue(j)
				}
				s.finish(j, ErrCanceled)
			} else {
				out = append(out, j)
			}
		}
		clear(jobs[len(out):])
		return out
	}
	s.queue, s.running = keep(s.queue, true), keep(s.running, false)
}

// fail ends every job of the step. A step fails only on malformed batches, which is a bug, so the jobs cannot go on.
func (s *Scheduler) fail(err error) {
	s.o.Log.Error("step failed", "err", err)
	for _, p := range s.parts {
		s.remove(p.job)
		s.finish(p.job, fmt.Errorf("computing failed: %w", err))
	}
}

func (s *Scheduler) remove(j *Job) {
	for i, r := range s.running {
		if r == j {
			s.running = append(s.running[:i], s.running[i+1:]...)
			return
		}
	}
}

// checkProgress is reached when jobs are there but none can be computed. Admission and joining make that impossible,
// unless the KV budget cannot hold a single prompt.
func (s *Scheduler) checkProgress() {
	if len(s.running) > 0 {
		j := s.running[len(s.running)-1]
		s.remove(j)
		s.finish(j, errors.New("internal error: the sequence waits for blocks that nobody computes"))
		return
	}
	if len(s.queue) > 0 {
		j := s.queue[0]
		s.queue = s.queue[1:]
		s.leaveQueue(j)
		s.finish(j, fmt.Errorf("the KV budget cannot hold %d tokens: %w", len(j.tokens), cache.ErrNoSpace))
	}
}

// publish makes the loop's numbers visible.
func (s *Scheduler) publish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Running = len(s.running)
	s.stats.Cache = s.cache.Stats()
	t := &s.tiers
	s.stats.LoadedTokens, s.stats.LoadsDone, s.stats.LoadsSlow, s.stats.LoadsFailed, s.stats.LoadsDeclined = t.tokens, t.done, t.slow, t.failed, t.declined
	s.stats.Unsaved = s.cache.Unsaved() + t.saving
}
