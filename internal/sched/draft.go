package sched

import "kvasir/internal/draft"

// Rows that drafts may take.
const (
	maxRowsTogether = 8    // decode rows of a step with several streams, drafts included
	maxSlowdown     = 1.15 // of a step with several streams, by drafts: those that have none gain nothing
	leastGain       = 1.03 // in tokens a second, as estimated
	promptShare     = 16   // beside prompts, one in so many of the rows that they would get
	promptChance    = 0.3  // and only for guesses that are at least so likely
)

// Generated text shorter than leastArchived is not kept; leadIn is how much of what came before it is kept with it.
const leastArchived, leadIn = 8, 16

// A speculator guesses for the running jobs. What it does changes when a token comes, never which.
type speculator struct {
	cost    draft.Cost
	archive *draft.Archive
	idle    []*draft.Drafter // for the next jobs
	ahead   []int32
	chances [][]float32 // by part
	order   []int       // parts, in the order in which rows were given
}

// draft gives the decoding jobs of the plan, which are all of its parts so far, guesses to check. budget is how many rows prompts may get, 0 if
// there are none. It returns the rows that it took.
func (s *Scheduler) draft(budget int) (rows int) {
	decodes := len(s.parts)
	most := maxRowsTogether - decodes
	switch {
	case s.o.NoDrafts || decodes == 0:
		return 0
	case budget > 0:
		most = min(most, budget/promptShare)
	case decodes == 1:
		most = draft.MaxRows - 1
	}
	if most = min(most, s.engine.MaxRows()-decodes-min(budget, 1)); most <= 0 {
		return 0
	}
	p := &s.spec
	p.chances = p.chances[:0]
	for i := range s.parts {
		var c []float32
		s.parts[i].draft, c = s.guess(s.parts[i].job, most)
		p.chances = append(p.chances, c)
	}
	p.share(s.parts, most, budget > 0)
	// An Append takes at most one block of each running sequence; guesses leave that many alone, so that they cost nobody his place.
	for i := range s.parts {
		q := &s.parts[i]
		if len(q.draft) > 0 {
			q.draft = q.draft[:s.cache.Reserve(q.job.seq, len(q.draft), len(s.running))]
			rows += len(q.draft)
		}
	}
	return rows
}

// guess returns up to most tokens that may come next in the job, with their chances.
func (s *Scheduler) guess(j *Job, most int) ([]int32, []float32) {
	d := j.drafter
	if d == nil {
		if n := len(s.spec.idle); n > 0 {
			d, s.spec.idle = s.spec.idle[n-1], s.spec.idle[:n-1]
		} else {
			d = draft.NewDrafter()
		}
		j.drafter = d
	}
	var past *draft.Index
	if !j.NoCache {
		past = s.spec.archive.Index(j.Root)
	}
	if !d.Follow(j.tokens, past) {
		return nil, nil
	}
	if d.WantsAhead() {
		s.spec.ahead = s.cache.Following(j.seq, s.spec.ahead[:0], d.AheadMost())
		d.Offer(s.spec.ahead)
	}
	// The token at Limit-1 is the last: its own KV is not needed.
	return d.Draft(min(most, j.Limit-1-len(j.tokens)))
}

// share cuts the parts' drafts to the rows that pay: those most likely to be right, as long as they bring more tokens a second.
func (p *speculator) share(parts []part, most int, prompts bool) {
	decodes := len(parts)
	tokens := float64(decodes)
	best, give := tokens*leastGain, 0
	p.order = p.order[:0]
	for i := range parts {
		parts[i].given = 0
	}
	for drafts := 1; drafts <= most; drafts++ {
		at, chance := -1, float32(0)
		for i, c := range p.chances {
			if n := parts[i].given; n < len(c) && c[n] > chance {
				at, chance = i, c[n]
			}
		}
		if at < 0 || prompts && chance < promptChance {
			break
		}
		parts[at].given++
		p.order = append(p.order, at)
		tokens += float64(chance)
		if prompts { // among the many rows of such a step, one more costs little
			give = len(p.order)
			continue
		}
		cost := p.cost.Relative(decodes, drafts)
		if decodes > 1 && cost > maxSlowdown {
			break
		}
		if rate := tokens / cost; rate > best {
			best, give = rate, len(p.order)
		}
	}
	for _, at := range p.order[give:] {
		parts[at].given--
	}
	for i := range parts {
		parts[i].draft = parts[i].draft[:parts[i].given]
	}
}

// forget ends the guessing for a job. What it generated serves the tenant's next ones, as its KV does.
func (p *speculator) forget(j *Job) {
	if j.drafter == nil {
		return
	}
	if n := len(j.Prompt); !j.NoCache && len(j.tokens)-n >= leastArchived {
		p.archive.Add(j.Root, j.tokens[max(0, n-leadIn):])
	}
	j.drafter.Reset()
	if p.idle = append(p.idle, j.drafter); len(p.idle) > draft.MaxRows { // more do not draft at once
		p.idle = p.idle[:draft.MaxRows]
	}
	j.drafter = nil
}

// choose lets the job choose its next token, and, as long as that is what was guessed, the one after it: then the step has computed its KV, too.
func (s *Scheduler) choose(p *part) {
	j := p.job
	for i := 0; ; i++ {
		tok, done, err := s.next(j, s.engine.Logits(p.logits+i))
		j.sampled = true
		j.last.Store(j.since())
		j.first.CompareAndSwap(0, j.last.Load())
		hit := err == nil && i < len(p.draft) && tok == p.draft[i]
		if hit {
			s.countAccepted()
		}
		if done || err != nil {
			s.remove(j)
			s.finish(j, err)
			return
		}
		j.tokens = append(j.tokens, tok)
		s.extend(j, tok)
		if j.seq == nil { // it had to give up its place
			return
		}
		if !hit || j.canceled.Load() {
			break
		}
		s.cache.Advance(j.seq, 1)
	}
	s.cache.Unreserve(j.seq)
}

func (s *Scheduler) countAccepted() {
	s.mu.Lock()
	s.stats.AcceptedTokens++
	s.mu.Unlock()
}
