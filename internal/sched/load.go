package sched

import (
	"errors"
	"sync"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/llm"
	"kvasir/internal/store"
)

// LoadMode says when KV is loaded from a lower tier instead of computed.
type LoadMode int

// The modes.
const (
	LoadAuto   LoadMode = iota // where it is expected to be quicker, and as long as it is
	LoadAlways                 // whatever is there
	LoadNever
)

const (
	// A load may take this share of the time of computing the same longer than what it has brought so far is worth, or as long as the first block
	// should take. It is what a request loses at most, since then it computes.
	loadSlack = 0.03
	loadLeast = 300e-6 // seconds that any load takes
	// A load that brings nothing for so long is given up in every mode.
	loadStall = 5 * time.Second
	// So long the loop waits at its end for a tier to take what is not saved, from the last that it took.
	saveStall = 5 * time.Second
	saveMost  = 15 * time.Second // and in all

	// Saves at a time; their blocks cannot be evicted. Writing takes processor time, and what it takes from one worker of a step all others wait for.
	// So it waits until nothing was computed for a moment; while there is no such moment it goes slowly, unless much has come together.
	savesMost = 8
	savesIdle = 2
	saveQuiet = 20 * time.Millisecond
	saveAfter = time.Second // without such a moment
	savePace  = 25 * time.Millisecond
)

// A loading is the KV of one job on its way from a lower tier into the job's blocks. It implements store.Sink.
type loading struct {
	s        *Scheduler
	first    int     // block
	from, to int     // tokens
	table    []int32 // of the sequence
	begun    time.Time
	expected float64 // seconds, as the tier said
	each     float64 // the same for a block

	// Held for reading while a block is written into, so that stop waits for that and nothing is written afterwards.
	mu      sync.RWMutex
	stopped bool

	state    sync.Mutex
	got      []bool // by block, from first
	row      int    // of these, the first without a gap
	started  time.Time
	progress time.Time // latest block, or begun
	ended    bool
	err      error
}

// Wanted implements store.Sink.
func (l *loading) Wanted() bool {
	l.mu.RLock()
	stopped := l.stopped
	l.mu.RUnlock()
	l.state.Lock()
	if !stopped && l.started.IsZero() {
		l.started = time.Now()
		l.progress = l.started
	}
	l.state.Unlock()
	return !stopped
}

// Put implements store.Sink.
func (l *loading) Put(block int, kv []byte) {
	l.mu.RLock()
	if !l.stopped {
		size := l.s.cache.BlockSize()
		lo, hi := max(l.from, block*size), min(l.to, (block+1)*size)
		l.s.engine.Fill(l.table[block], kv, lo-block*size, hi-block*size)
	}
	l.mu.RUnlock()
	l.state.Lock()
	l.got[block-l.first] = true
	for l.row < len(l.got) && l.got[l.row] {
		l.row++
	}
	l.progress = time.Now()
	l.state.Unlock()
}

// End implements store.Sink.
func (l *loading) End(err error) {
	l.state.Lock()
	l.ended, l.err = true, err
	l.state.Unlock()
	l.s.signal()
}

// stop ends the loading; when it returns nothing is written any more. It returns how many tokens, from the first of the sequence, are there then.
func (l *loading) stop() int {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	l.state.Lock()
	defer l.state.Unlock()
	if l.row == 0 {
		return l.from
	}
	return min(l.to, (l.first+l.row)*l.s.cache.BlockSize())
}

// patience says for how much longer the loading is worth waiting for; 0 if it is not any more. rowTime is what computing a token takes.
func (l *loading) patience(mode LoadMode, rowTime float64, now time.Time) time.Duration {
	l.state.Lock()
	defer l.state.Unlock()
	limit := loadStall - now.Sub(l.progress)
	if mode == LoadAuto && rowTime > 0 {
		worth := func(tokens int) float64 { return rowTime * float64(tokens) }
		slack := max(loadSlack*worth(l.to-l.from), 1.5*l.each) + loadLeast
		var left float64
		if l.started.IsZero() { // others are loaded before it
			left = 2*l.expected + slack - now.Sub(l.begun).Seconds()
		} else {
			have := 0
			if l.row > 0 {
				have = min(l.to, (l.first+l.row)*l.s.cache.BlockSize()) - l.from
			}
			left = worth(have) + slack - now.Sub(l.started).Seconds()
		}
		limit = min(limit, time.Duration(left*1e9))
	}
	return max(0, limit)
}

// look starts loading what a lower tier has of the job's tokens beyond those that are there, if that is worth it. It returns false if not.
func (s *Scheduler) look(j *Job) bool {
	if s.o.Tier == nil || j.NoCache {
		return false
	}
	from := j.seq.Computed()
	// Also when nothing can be missing: the tier learns what is in use.
	f := s.o.Tier.Find(j.Root, j.tokens, from)
	if f.Tokens <= from {
		return false
	}
	n := float64(f.Tokens - from)
	switch {
	case s.o.Load == LoadNever:
		s.tiers.declined++
		return false
	case s.o.Load == LoadAuto && s.prefillTime() > 0 && f.Seconds+loadLeast > n*s.prefillTime():
		s.o.Tier.Declined()
		s.tiers.declined++
		s.reportTier(j, f, from, llm.ReasonRecomputed)
		return false
	}
	now := time.Now()
	j.loading = &loading{s: s, first: f.First, from: from, to: f.Tokens, table: append([]int32(nil), j.seq.Table()...), begun: now, progress: now,
		expected: f.Seconds, each: f.Each, got: make([]bool, f.Blocks)}
	j.found = f
	s.tiers.started++
	s.o.Tier.Load(f, j.loading)
	return true
}

// prefillTime is what computing a prompt token takes: measured, or what the caller of New took for likely.
func (s *Scheduler) prefillTime() float64 {
	if s.rowTime > 0 {
		return s.rowTime
	}
	return s.o.RowTime
}

// loaded looks after a loading job. It returns true when the loading is over and the rest is to be computed.
func (s *Scheduler) loaded(j *Job) bool {
	l := j.loading
	l.state.Lock()
	ended, err := l.ended, l.err
	l.state.Unlock()
	slow := false
	if !ended {
		if l.patience(s.o.Load, s.prefillTime(), time.Now()) > 0 {
			return false
		}
		slow = true
	}
	j.loading = nil
	to := l.stop()
	if to > l.from {
		s.cache.Loaded(j.seq, to-l.from)
		s.tiers.tokens += int64(to - l.from)
	}
	reason := ""
	switch {
	case to >= l.to:
		s.tiers.done++
	case slow:
		s.tiers.slow++
		reason = llm.ReasonRecomputed
	default:
		s.tiers.failed++
		reason = llm.ReasonLoadFailed
		s.o.Log.Debug("loading KV ended early", "tokens", to-l.from, "of", l.to-l.from, "err", err)
	}
	s.reportTier(j, j.found, to, reason)
	return true
}

// reportTier says that the job's first to tokens are there, those beyond what memory had from the tier. A reason says why not all that the tier has.
func (s *Scheduler) reportTier(j *Job, f store.Found, to int, reason string) {
	d := j.seq.Decision()
	if to > d.Reused {
		d.Loaded = to - d.Reused
		d.Reused = to
	}
	switch {
	case reason != "":
		d.Reason = reason
	case d.Reused >= len(j.tokens)-1:
		d.Reason = llm.ReasonFull
	case f.Continues:
		d.Reason = llm.ReasonDiverged
	default:
		d.Reason = llm.ReasonExtended
	}
	j.report(d)
}

// dropLoad ends what is being loaded for a job that gives up its blocks. What has come stays.
func (s *Scheduler) dropLoad(j *Job) {
	if l := j.loading; l != nil {
		j.loading = nil
		if to := l.stop(); to > l.from {
			s.cache.Loaded(j.seq, to-l.from)
		}
	}
}

// A saved is what came back from the tier.
type saved struct {
	save    *cache.Save
	outcome cache.Outcome
}

// tiers is what the loop keeps about lower tiers.
type tiers struct {
	saving   int       // saves that the tier has
	busy     time.Time // when something was computed last
	quiet    time.Time // when nothing had been computed for a moment last
	saved    time.Time // when the latest save was given to the tier
	started  int64
	done     int64
	slow     int64
	failed   int64
	declined int64
	tokens   int64
}

// save takes back what the tier has saved and gives it more. It returns after what time it wants to be called again, whatever happens; 0: then not.
func (s *Scheduler) save(end bool) time.Duration {
	if s.o.Tier == nil {
		return 0
	}
	s.mu.Lock()
	back := s.back
	s.back = nil
	s.mu.Unlock()
	for _, b := range back {
		s.cache.Saved(b.save, b.outcome)
		s.tiers.saving--
	}
	now := time.Now()
	most, again := s.saves(end, now)
	for s.tiers.saving < most {
		sv := s.cache.NextSave()
		if sv == nil {
			break
		}
		reads := false // of its block; under mu
		source := func(dst []byte) []byte {
			s.mu.Lock()
			if reads = !s.noReads; reads {
				s.reads++
			}
			s.mu.Unlock()
			if !reads {
				return nil
			}
			if len(sv.Tokens) == s.cache.BlockSize() {
				return s.engine.Bytes(sv.Block)
			}
			s.engine.Extract(dst, sv.Block, len(sv.Tokens))
			return dst
		}
		ok := s.o.Tier.Save(sv, source, func(o cache.Outcome) {
			s.mu.Lock()
			if reads {
				s.reads--
			}
			s.back = append(s.back, saved{sv, o})
			s.mu.Unlock()
			s.signal()
		})
		if !ok {
			s.cache.Saved(sv, cache.SaveLater)
			return time.Second
		}
		s.tiers.saving++
		s.tiers.saved = now
	}
	if s.cache.Unsaved() == 0 {
		return 0
	}
	return again
}

// saves is how many saves there may be at a time now, and after what time that should be asked again.
func (s *Scheduler) saves(end bool, now time.Time) (most int, again time.Duration) {
	t := &s.tiers
	if end {
		return savesMost, 0
	}
	if len(s.running)+len(s.queue) > 0 {
		t.busy = now
	}
	quiet := now.Sub(t.busy)
	if quiet >= saveQuiet {
		t.quiet = now
		return savesIdle, 0
	}
	left, all := s.cache.Unsaved(), s.cache.Blocks()
	switch {
	case left > all/8:
		most = savesMost
	case (left > all/32 || now.Sub(t.quiet) > saveAfter) && now.Sub(t.saved) >= savePace:
		most = t.saving + 1
	}
	return most, saveQuiet - quiet
}

// wait blocks until something may have changed for jobs that are loaded, or for blocks that are saved.
func (s *Scheduler) wait() {
	limit := time.Second
	now := time.Now()
	for _, j := range s.running {
		if j.loading != nil {
			limit = min(limit, j.loading.patience(s.o.Load, s.prefillTime(), now))
		}
	}
	s.pause(limit)
}

// pause blocks until somebody wakes the loop, for at most d.
func (s *Scheduler) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-s.wake:
	case <-t.C:
	}
}

// waitsForTier says whether time alone may bring a job further that nothing can be computed for.
func (s *Scheduler) waitsForTier() bool {
	for _, j := range s.running {
		if j.loading != nil {
			return true
		}
	}
	return s.tiers.saving > 0
}

// ErrBusy is returned by Close when the tier is still reading blocks, because a write hangs: their memory must stay.
var ErrBusy = errors.New("sched: the lower tier hangs in a write")

// flush saves what is not saved yet, at the end. When it returns nil, the tier reads no block any more.
func (s *Scheduler) flush() error {
	if s.o.Tier == nil {
		return nil
	}
	begin := time.Now()
	last, before := begin, -1
	for {
		s.save(true)
		left := s.cache.Unsaved() + s.tiers.saving
		if left == 0 {
			return nil
		}
		if left != before {
			last, before = time.Now(), left
		}
		if time.Since(last) > saveStall || time.Since(begin) > saveMost {
			s.o.Log.Warn("the disk cache did not take all in time", "blocks", left)
			break
		}
		s.pause(100 * time.Millisecond)
	}
	s.mu.Lock()
	s.noReads = true // what waits now gets nothing
	s.mu.Unlock()
	for time.Since(begin) < saveStall+saveMost {
		s.mu.Lock()
		reads := s.reads
		s.mu.Unlock()
		if reads == 0 {
			return nil
		}
		s.pause(100 * time.Millisecond)
	}
	return ErrBusy
}
