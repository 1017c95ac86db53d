package sched

import (
	"errors"
	"runtime/debug"
	"slices"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/engine"
)

// admit moves jobs from the queue to running while there is room: the tenant with the fewest running sequences first,
// then in order of arrival. Nobody overtakes a job that waits for KV.
func (s *Scheduler) admit() {
	for len(s.queue) > 0 && len(s.running) < s.o.MaxBatch {
		i := s.pick()
		j := s.queue[i]
		seq, err := s.cache.Begin(j.Root, j.tokens, j.NoCache)
		if errors.Is(err, cache.ErrNoSpace) {
			return
		}
		s.queue = slices.Delete(s.queue, i, i+1)
		s.leaveQueue(j)
		if err != nil {
			s.finish(j, err)
			continue
		}
		j.seq, j.ready, j.looked = seq, false, false
		j.report(seq.Decision())
		s.running = append(s.running, j)
	}
}

// pick is the index of the job to admit next.
func (s *Scheduler) pick() int {
	clear(s.load)
	for _, j := range s.running {
		s.load[j.Tenant]++
	}
	best := 0
	for i, j := range s.queue {
		b := s.queue[best]
		if l, m := s.load[j.Tenant], s.load[b.Tenant]; l < m || l == m && j.arrival < b.arrival {
			best = i
		}
	}
	return best
}

// resolve looks whether the blocks that jobs wait for are there, oldest first, and copies partly shared blocks.
func (s *Scheduler) resolve() {
	for i := 0; i < len(s.running); i++ {
		j := s.running[i]
		if j.loading != nil && s.loaded(j) {
			j.ready = true
		}
		for !j.ready && j.loading == nil {
			state, cp, err := s.cache.Poll(j.seq)
			if err != nil { // its blocks went away and there is no room for new ones: wait in the queue again
				s.requeue(j)
				i--
				break
			}
			j.report(j.seq.Decision()) // the match may be a new one
			if state == cache.Waiting {
				break
			}
			if state == cache.NeedsCopy {
				s.engine.Copy(int32(cp.Dst), int32(cp.Src), cp.Tokens)
				s.cache.CopyDone(j.seq)
				continue
			}
			if !j.looked {
				j.looked = true
				if s.look(j) {
					break
				}
			}
			j.ready = true
		}
	}
}

// requeue gives up a running job's blocks, keeping those that are complete in the cache, and queues it again.
func (s *Scheduler) requeue(j *Job) {
	s.remove(j)
	s.dropLoad(j)
	s.cache.End(j.seq)
	j.seq = nil
	s.queue = append(s.queue, j)
	s.enterQueue(j)
}

// plan fills the batch: every decoding job gets its row and perhaps some for a draft, then prompts share the rows that fit the time target: a
// quarter for the oldest, the rest for those with the least left, so that a warm prompt is not held up by a cold one.
func (s *Scheduler) plan() {
	s.parts, s.prompts = s.parts[:0], s.prompts[:0]
	for _, j := range s.running {
		switch {
		case !j.ready:
		case j.decoding(): // New made sure that there are rows for MaxBatch of these
			s.parts = append(s.parts, part{job: j, rows: 1})
		default:
			s.prompts = append(s.prompts, j)
		}
	}
	decodes := len(s.parts)
	s.decodes = decodes
	budget := 0
	if len(s.prompts) > 0 {
		budget = s.rowBudget(decodes)
	}
	budget -= s.draft(budget)
	if len(s.prompts) > 0 {
		// The oldest prompt is sure of a share, or a flow of short ones would hold up a long one, and those that wait for
		// its blocks, for ever.
		s.parts = append(s.parts, part{job: s.prompts[0], rows: min(s.prompts[0].remaining(), (budget+3)/4)})
		budget -= s.parts[decodes].rows
	}
	slices.SortStableFunc(s.prompts, func(a, b *Job) int { return a.remaining() - b.remaining() })
	for i, j := range s.prompts {
		left := j.remaining()
		if j == s.parts[decodes].job {
			left -= s.parts[decodes].rows
		}
		n := min(left, (budget+len(s.prompts)-i-1)/(len(s.prompts)-i))
		if n == 0 {
			continue
		}
		budget -= n
		if j == s.parts[decodes].job {
			s.parts[decodes].rows += n
		} else {
			s.parts = append(s.parts, part{job: j, rows: n})
		}
	}
	s.batch.Tokens, s.batch.Segs = s.batch.Tokens[:0], s.batch.Segs[:0]
	logits := 0
	for i := range s.parts {
		p := &s.parts[i]
		j, pos := p.job, p.job.seq.Computed()
		j.started.CompareAndSwap(0, j.since())
		seg := engine.Segment{Start: len(s.batch.Tokens), N: p.rows + len(p.draft), Pos: pos, Table: j.seq.Table(), Adapters: j.Adapters}
		p.logits = -1
		if p.rows == j.remaining() {
			seg.Logits, p.logits = 1+len(p.draft), logits
			logits += seg.Logits
		}
		s.batch.Tokens = append(append(s.batch.Tokens, j.tokens[pos:pos+p.rows]...), p.draft...)
		s.batch.Segs = append(s.batch.Segs, seg)
	}
}

// Rows that a step computes at least, whatever the target: fewer would waste the weights that are read for them.
const (
	minRowsBeside = 8   // beside running streams
	minRowsAlone  = 128 // with prompts alone
)

// rowBudget is how many prompt rows the step may have.
func (s *Scheduler) rowBudget(decodes int) int {
	most := s.engine.MaxRows() - decodes // at least 1, see New
	target, least := s.o.IdleTarget, minRowsAlone
	if decodes > 0 {
		target, least = s.o.StepTarget, minRowsBeside
	}
	if s.rowTime == 0 {
		return min(least, most)
	}
	left := target.Seconds() - s.spec.cost.Seconds(decodes, 0)
	return min(max(int(left/s.rowTime), least), most)
}

// measure counts the step's rows and learns from its time: what decoding takes, from steps that do nothing else, and what a prompt row takes, from
// the time that others take beyond that.
func (s *Scheduler) measure(d time.Duration) {
	drafts := 0
	for _, p := range s.parts[:s.decodes] {
		drafts += len(p.draft)
	}
	all := len(s.batch.Tokens)
	rows := all - s.decodes - drafts
	s.mu.Lock()
	s.stats.Steps++
	s.stats.DecodeTokens += int64(s.decodes)
	s.stats.DraftTokens += int64(drafts)
	s.stats.PrefillTokens += int64(rows)
	s.mu.Unlock()
	if rows == 0 {
		s.spec.cost.Observe(s.decodes, drafts, d.Seconds())
	} else {
		s.spec.cost.AtMost(s.decodes, drafts, d.Seconds())
	}
	if rows < minRowsBeside {
		return
	}
	// Rows share the reading of the weights, so that decoding may have taken less than it does alone: an even share bounds it.
	t := max(d.Seconds()-s.spec.cost.Seconds(s.decodes, drafts), d.Seconds()*float64(rows)/float64(all)/2) / float64(rows)
	if s.rowTime == 0 {
		s.rowTime = t
	}
	s.rowTime += (t - s.rowTime) / 4
}

// deliver records what the step computed and lets each complete job choose its next token.
func (s *Scheduler) deliver() {
	for i := range s.parts {
		s.cache.Advance(s.parts[i].job.seq, s.parts[i].rows)
	}
	for i := range s.parts {
		// A job without a sequence was preempted a moment ago in favour of an older one: it computes this token again.
		if p := &s.parts[i]; p.logits >= 0 && p.job.seq != nil {
			s.choose(p)
		}
	}
}

// next asks the job for its token. A panic there is that job's failure alone.
func (s *Scheduler) next(j *Job, logits []float32) (tok int32, done bool, err error) {
	defer func() {
		if r := recover(); r != nil {
			s.o.Log.Error("choosing a token panicked", "panic", r, "stack", string(debug.Stack()))
			err = errors.New("internal error while choosing a token")
		}
	}()
	return j.Next(logits, len(j.tokens))
}

// extend gives the job room for its next token, taking it from the newest job when there is none.
func (s *Scheduler) extend(j *Job, tok int32) {
	for {
		err := s.cache.Append(j.seq, tok)
		if err == nil {
			return
		}
		if !errors.Is(err, cache.ErrNoSpace) { // Limit is beyond what the budget can hold
			s.remove(j)
			s.finish(j, err)
			return
		}
		victim := s.running[len(s.running)-1]
		s.mu.Lock()
		s.stats.Preemptions++
		s.mu.Unlock()
		s.requeue(victim)
		if victim == j { // its token is in j.tokens: it is part of the prompt next time
			return
		}
	}
}
