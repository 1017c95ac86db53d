package cache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kvasir/internal/llm"
)

// A world is a cache with a fake KV store: the row of a token is a hash of the root and of all tokens up to it, as real KV depends on them, so
// wrong data is seen, not only a wrong count. Every operation is followed by a check of all books and all rows that anybody may read.
type world struct {
	t    testing.TB
	c    *Cache
	kv   [][]uint64
	log  []string
	live []*actor

	computed int // tokens
	garbage  uint64
	mirror   map[Key]Event // full blocks by the events
	lastSeq  uint64
	ever     map[string]bool // prefixes computed at any time
	stored   map[string]bool // prefixes that ended sequences have left, if nothing was evicted
	exact    int             // lookups that the reference predicted to the token
	lookups  int
	reasons  map[string]int
	drafted  int
	followed int
	lossy    bool  // something computed may be lost for a rare reason
	vocab    int32 // tokens are below it; 0 if that is not so
	tier     lowerTier
}

// An actor is a sequence and what the scheduler knows of it.
type actor struct {
	name    string
	s       *Sequence
	root    byte
	tokens  []int32
	prompt  int
	noCache bool
	copy    *Copy // asked for and not done
	covered bool  // the whole prompt was known when it was matched, so its last block is private
}

func newWorld(t testing.TB, blocks, blockSize int) *world {
	w := &world{t: t, kv: make([][]uint64, blocks), mirror: map[Key]Event{}, ever: map[string]bool{}, stored: map[string]bool{}, reasons: map[string]int{}}
	for i := range w.kv {
		w.kv[i] = make([]uint64, blockSize)
	}
	w.c = New(Config{Blocks: blocks, BlockSize: blockSize, OnEvent: w.event})
	return w
}

func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(w.log, "\n"))
}

func (w *world) event(e Event) {
	if w.lastSeq++; e.Seq != w.lastSeq {
		w.fatalf("event %d after %d", e.Seq, w.lastSeq-1)
	}
	if e.Key != Chain(e.Parent, nil, e.Tokens) {
		w.fatalf("event with a wrong key: %+v", e)
	}
	_, known := w.mirror[e.Key]
	_, parent := w.mirror[e.Parent]
	if e.Kind == Stored {
		if known || !parent && e.Parent != e.Root {
			w.fatalf("stored twice or before its parent: %+v", e)
		}
		w.mirror[e.Key] = e
		return
	}
	if !known {
		w.fatalf("removed and not stored: %+v", e)
	}
	delete(w.mirror, e.Key)
	for _, other := range w.mirror {
		if other.Parent == e.Key {
			w.fatalf("removed before its child: %+v", e)
		}
	}
}

func rootKey(root byte) Key { return Key{root, 1} }

// row is what the KV of the last token is.
func row(root byte, tokens []int32) uint64 {
	h := uint64(14695981039346656037) ^ uint64(root)
	for _, t := range tokens {
		h = (h ^ uint64(t)) * 1099511628211
	}
	return h
}

func prefix(root byte, tokens []int32) string {
	p := []byte{root}
	for _, t := range tokens {
		p = append(p, byte(t))
	}
	return string(p)
}

// fresh fills blocks that were handed out with garbage.
func (w *world) fresh(a *actor) {
	for _, b := range a.s.TakeFresh() {
		for r := range w.kv[b] {
			w.garbage++
			w.kv[b][r] = w.garbage
		}
	}
}

// verify checks the books, every row that a live sequence claims, every row of the trees, and the mirror that the events made.
func (w *world) verify() {
	w.t.Helper()
	if err := w.c.Check(); err != nil {
		w.fatalf("%v", err)
	}
	b := w.c.blockSize
	for _, a := range w.live {
		table := a.s.Table()
		for i := range a.s.Computed() {
			if w.kv[table[i/b]][i%b] != row(a.root, a.tokens[:i+1]) {
				w.fatalf("%s claims %d computed, row %d is of other tokens", a.name, a.s.Computed(), i)
			}
		}
	}
	full := 0
	var walk func(root byte, n *node, before []int32)
	walk = func(root byte, n *node, before []int32) {
		tokens := slices.Concat(before, n.tokens)
		for i := range int(n.filled) {
			if w.kv[n.block][i] != row(root, tokens[:len(before)+i+1]) {
				w.fatalf("node %v row %d is of other tokens", tokens, i)
			}
		}
		if n.block != noBlock && n.ready() && n.full(b) {
			full++
			if e, ok := w.mirror[n.key]; !ok || !slices.Equal(e.Tokens, n.tokens) || e.Root != rootKey(root) {
				w.fatalf("events do not have %v", tokens)
			}
		}
		for _, c := range n.children {
			walk(root, c, tokens)
		}
	}
	for key, n := range w.c.roots {
		walk(key[0], n, nil)
	}
	if full != len(w.mirror) {
		w.fatalf("%d full blocks stored, %d by the events", full, len(w.mirror))
	}
}

// expect returns between which counts a match of the prompt must be: lower from what nothing has given a reason to lose, upper from all that was
// ever computed or is being computed. It uses prefixes only, no tree.
func (w *world) expect(root byte, prompt []int32, self *actor) (lower, upper int) {
	low, high := w.stored, w.ever
	for _, a := range w.live {
		if a == self || !a.s.matched || a.noCache || a.root != root {
			continue
		}
		k := common(a.tokens, prompt)
		upper = max(upper, min(k, max(a.prompt, a.s.Computed())))
		sure := a.prompt
		if a.covered {
			sure = (a.prompt - 1) / w.c.blockSize * w.c.blockSize
		}
		lower = max(lower, min(k, max(sure, a.s.linked*w.c.blockSize)))
	}
	for n := 1; n <= len(prompt); n++ {
		p := prefix(root, prompt[:n])
		if low[p] {
			lower = max(lower, n)
		}
		if high[p] {
			upper = max(upper, n)
		}
	}
	if w.lossy || w.c.counters.Evicted > 0 || len(w.c.free) <= len(prompt)/w.c.blockSize+1 {
		lower = 0 // something was lost, or the source of a copy may have to be evicted
	}
	return lower, upper
}

// matched checks a decision against the reference, which was asked before.
func (w *world) matched(a *actor, lower, upper int) {
	w.t.Helper()
	a.covered = upper == len(a.tokens)
	if a.noCache {
		if d := a.s.Decision(); d.Reused != 0 || d.Reason != llm.ReasonDisabled {
			w.fatalf("%s without cache: %+v", a.name, d)
		}
		return
	}
	limit := len(a.tokens) - 1
	d := a.s.Decision()
	if d.Reused < min(lower, limit) || d.Reused > min(upper, limit) || d.Joined > d.Reused || d.PromptTokens != len(a.tokens) {
		w.fatalf("%s: %+v, the reference says %d to %d", a.name, d, lower, upper)
	}
	if (d.Reason == llm.ReasonFull) != (d.Reused == limit && (limit > 0 || d.Reason != llm.ReasonNeverSeen)) {
		w.fatalf("%s: %+v", a.name, d)
	}
	w.lookups++
	if min(lower, limit) != min(upper, limit) {
		return
	}
	w.exact++
	if w.vocab == 0 || lower == 0 && upper > 0 || d.Reused == limit {
		return
	}
	want := llm.ReasonNeverSeen
	if d.Reused > 0 {
		want = llm.ReasonExtended
		for t := range w.vocab {
			if other := append(slices.Clone(a.tokens[:d.Reused]), t); t != a.tokens[d.Reused] {
				if low, high := w.expect(a.root, other, a); low == len(other) {
					want = llm.ReasonDiverged
				} else if high == len(other) && want == llm.ReasonExtended {
					return // the reference does not know
				}
			}
		}
	}
	if d.Reason != want {
		w.fatalf("%s: %+v, the reference says %s", a.name, d, want)
	}
	w.reasons[want]++
}

func (w *world) begin(name string, root byte, prompt []int32, noCache bool) (*actor, error) {
	w.t.Helper()
	w.log = append(w.log, fmt.Sprintf("begin %s root %d %v noCache %v", name, root, prompt, noCache))
	lower, upper := w.expect(root, prompt, nil)
	before, match := w.c.Stats(), w.c.Match(rootKey(root), prompt)
	s, err := w.c.Begin(rootKey(root), prompt, noCache)
	if err != nil {
		w.log = append(w.log, "  "+err.Error())
		if w.c.Stats() != before {
			w.fatalf("failed Begin changed the stats from %+v to %+v", before, w.c.Stats())
		}
		w.verify()
		return nil, err
	}
	a := &actor{name: name, s: s, root: root, tokens: slices.Clone(prompt), prompt: len(prompt), noCache: noCache}
	w.live = append(w.live, a)
	w.fresh(a)
	w.matched(a, lower, upper)
	if d := s.Decision(); !noCache && d != match && d.Reused >= match.Reused {
		w.fatalf("Match says %+v, Begin %+v", match, d)
	}
	w.verify()
	return a, nil
}

func (w *world) poll(a *actor) State {
	w.t.Helper()
	before := a.s.matched
	lower, upper := w.expect(a.root, a.tokens, a)
	st, cp, err := w.c.Poll(a.s)
	w.log = append(w.log, fmt.Sprintf("poll %s: %v %v %v", a.name, st, cp, err))
	w.fresh(a)
	if err != nil {
		if !errors.Is(err, ErrNoSpace) || st != Waiting || len(a.s.Table()) != 0 {
			w.fatalf("poll %s: %v %v", a.name, st, err)
		}
	} else if !before {
		w.matched(a, lower, upper)
	}
	if (st == NeedsCopy) != (cp != nil) {
		w.fatalf("poll %s: %v with copy %v", a.name, st, cp)
	}
	if a.copy = nil; cp != nil {
		c := *cp
		a.copy = &c
	}
	if st == Ready && a.s.Computed() < a.s.Decision().Reused {
		w.fatalf("%s is ready with %d computed of %d reused", a.name, a.s.Computed(), a.s.Decision().Reused)
	}
	w.verify()
	return st
}

func (w *world) copyDone(a *actor) {
	w.t.Helper()
	w.log = append(w.log, fmt.Sprintf("copy %s %+v", a.name, *a.copy))
	copy(w.kv[a.copy.Dst][:a.copy.Tokens], w.kv[a.copy.Src])
	a.copy = nil
	w.c.CopyDone(a.s)
	w.verify()
}

// advance computes n tokens as the engine would.
func (w *world) advance(a *actor, n int) {
	w.t.Helper()
	w.log = append(w.log, fmt.Sprintf("advance %s by %d from %d", a.name, n, a.s.Computed()))
	b := w.c.blockSize
	for i := a.s.Computed(); i < a.s.Computed()+n; i++ {
		w.kv[a.s.Table()[i/b]][i%b] = row(a.root, a.tokens[:i+1])
		if !a.noCache {
			w.ever[prefix(a.root, a.tokens[:i+1])] = true
		}
	}
	w.computed += n
	w.c.Advance(a.s, n)
	w.verify()
}

func (w *world) append(a *actor, token int32) error {
	w.t.Helper()
	before := w.c.Stats()
	err := w.c.Append(a.s, token)
	w.log = append(w.log, fmt.Sprintf("append %s %d: %v", a.name, token, err))
	if err == nil {
		a.tokens = append(a.tokens, token)
	} else if w.c.Stats() != before {
		w.fatalf("failed Append changed the stats")
	}
	w.fresh(a)
	if a.s.Len() != len(a.tokens) {
		w.fatalf("Len %d, want %d", a.s.Len(), len(a.tokens))
	}
	w.verify()
	return err
}

// draft computes the last token of a and n guesses behind it in one step, as far as there is room, and then finds the first right of them right.
func (w *world) draft(a *actor, guesses []int32, right, keep int) {
	w.t.Helper()
	free, before := len(w.c.free), w.c.Stats()
	room := w.c.Reserve(a.s, len(guesses), keep)
	w.log = append(w.log, fmt.Sprintf("draft %s %v: room for %d, %d are right", a.name, guesses, room, right))
	if taken := free - len(w.c.free); taken > 0 && len(w.c.free) < keep || taken < 0 || w.c.Stats().Cached != before.Cached || w.c.Stats().Evicted != before.Evicted {
		w.fatalf("draft: %d blocks taken, %d were free, keep %d", taken, free, keep)
	}
	if b := w.c.blockSize; room < len(guesses) && (room < len(a.s.Table())*b-len(a.tokens) || len(w.c.free) > keep && len(a.s.Table()) < w.c.blocks) {
		w.fatalf("draft: room for %d of %d, %d blocks free", room, len(guesses), len(w.c.free))
	}
	w.fresh(a)
	w.verify()
	guesses = guesses[:room]
	tokens := slices.Concat(a.tokens, guesses)
	for i := a.s.Computed(); i < len(tokens); i++ {
		w.kv[a.s.Table()[i/w.c.blockSize]][i%w.c.blockSize] = row(a.root, tokens[:i+1])
	}
	w.verify() // nobody sees them
	w.accept(a)
	for i := range min(right, room) {
		if w.append(a, guesses[i]) != nil {
			w.fatalf("no space for a guess that has a row")
		}
		w.accept(a)
	}
	w.c.Unreserve(a.s)
	w.c.Unreserve(a.s)
	if n := len(a.s.Table()); n != (a.s.Len()+w.c.blockSize-1)/w.c.blockSize {
		w.fatalf("%d blocks for %d tokens", n, a.s.Len())
	}
	w.verify()
}

// accept advances a by one token whose row was computed before.
func (w *world) accept(a *actor) {
	w.t.Helper()
	if !a.noCache {
		w.ever[prefix(a.root, a.tokens[:a.s.Computed()+1])] = true
	}
	w.computed++
	w.c.Advance(a.s, 1)
	w.verify()
}

// following checks what goes on behind a's text against all prefixes that were ever computed or are begun.
func (w *world) following(a *actor, n int) (found bool) {
	w.t.Helper()
	before := w.c.Stats()
	more := w.c.Following(a.s, nil, n)
	w.log = append(w.log, fmt.Sprintf("following %s: %v", a.name, more))
	if len(more) > n || a.noCache && len(more) > 0 || w.c.Stats() != before {
		w.fatalf("following %s: %v", a.name, more)
	}
	for i := range more {
		p := slices.Concat(a.tokens, more[:i+1])
		known := w.ever[prefix(a.root, p)]
		for _, b := range w.live {
			known = known || b.root == a.root && !b.noCache && common(b.tokens, p) == len(p)
		}
		if !known {
			w.fatalf("following %s: nobody went on with %v", a.name, more[:i+1])
		}
	}
	return len(more) > 0
}

func (w *world) end(a *actor) {
	w.t.Helper()
	w.log = append(w.log, fmt.Sprintf("end %s computed %d of %d", a.name, a.s.Computed(), a.s.Len()))
	// What it leaves: all that it computed, but where another is computing the very same end of it at this moment.
	left, b, s := a.s.Computed(), w.c.blockSize, a.s
	if !a.noCache && s.matched {
		i := s.linked
		left = min(left, (i+1)*b)
		for ; left > i*b; left-- {
			e := s.parent(i).find(s.block(i, left))
			if e == nil || e.owner == nil || e.owner == s {
				break
			}
			if n := s.nodes[i]; n != nil && n.refs > 1 {
				w.lossy = true // a copy needs the block as it is
			}
		}
		for n := 1; n <= left; n++ {
			w.stored[prefix(a.root, a.tokens[:n])] = true
		}
	}
	w.live = slices.DeleteFunc(w.live, func(o *actor) bool { return o == a })
	w.c.End(a.s)
	w.c.End(a.s)
	w.verify()
}

// step moves a on by one operation of at most chunk tokens and reports whether it could.
func (w *world) step(a *actor, chunk int) bool {
	w.t.Helper()
	switch w.poll(a) {
	case NeedsCopy:
		w.copyDone(a)
		return true
	case Ready:
		n := min(chunk, a.s.Len()-a.s.Computed())
		w.advance(a, n)
		return n > 0
	}
	return false
}

// run polls and computes until all tokens of all live sequences are computed.
func (w *world) run(chunk int) {
	w.t.Helper()
	for progress := true; progress; {
		progress = false
		for _, a := range slices.Clone(w.live) {
			progress = w.step(a, chunk) || progress
		}
	}
	for _, a := range w.live {
		if a.s.Computed() != a.s.Len() {
			w.fatalf("%s is stuck at %d of %d", a.name, a.s.Computed(), a.s.Len())
		}
	}
}

// TestModel runs random scripts over a small vocabulary, so that prompts meet, join, diverge and repeat all the time.
func TestModel(t *testing.T) {
	modes := []struct {
		name              string
		blocks, blockSize int
		scripts           int
	}{
		{"roomy", 256, 4, 400},
		{"tight", 14, 4, 600},
		{"starved", 6, 4, 600},
		{"tokens", 40, 1, 200},
	}
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			exact, lookups, joined, rematched, drafted, followed := 0, 0, 0, 0, 0, 0
			var total Stats
			saved, later, orphans := 0, 0, 0
			reasons := map[string]int{}
			for seed := range uint64(m.scripts) {
				w := newWorld(t, m.blocks, m.blockSize)
				w.log = append(w.log, fmt.Sprintf("seed %d", seed))
				w.c.saving = seed%3 == 0
				j, r := script(w, rand.New(rand.NewPCG(seed, 1)))
				joined, rematched = joined+j, rematched+r
				exact, lookups = exact+w.exact, lookups+w.lookups
				drafted, followed = drafted+w.drafted, followed+w.followed
				for k, v := range w.reasons {
					reasons[k] += v
				}
				st := w.c.Stats()
				total.Evicted += st.Evicted
				total.Deduplicated += st.Deduplicated
				total.Copies += st.Copies
				total.Unsaved += st.Unsaved
				saved, later, orphans = saved+w.tier.done, later+w.tier.later, orphans+w.tier.orphans
			}
			t.Logf("%d lookups, %d predicted to the token, %d joins, %d matched again, %d drafts, %d continuations, %+v, %v", lookups, exact, joined, rematched, drafted, followed, total, reasons)
			t.Logf("%d saved, %d later, %d orphans", saved, later, orphans)
			if saved == 0 || later == 0 || orphans == 0 {
				t.Error("the scripts save nothing")
			}
			if drafted == 0 || followed == 0 {
				t.Error("the scripts have no drafts")
			}
			if len(reasons) != 3 || joined == 0 || rematched == 0 || total.Deduplicated == 0 || total.Copies == 0 && m.blockSize > 1 {
				t.Error("the scripts do not reach everything")
			}
			if m.name == "roomy" && exact*100 < lookups*97 {
				t.Error("the reference predicts too little")
			}
			if m.name != "roomy" && total.Evicted == 0 {
				t.Error("nothing was evicted")
			}
		})
	}
}

// script runs random operations, then lets everything finish.
func script(w *world, r *rand.Rand) (joined, rematched int) {
	w.vocab = int32(2 + r.IntN(2))
	roots := 1 + r.IntN(2)
	var history [][]int32
	tokens := func(n int) []int32 {
		p := make([]int32, n)
		for i := range p {
			p[i] = r.Int32N(w.vocab)
		}
		return p
	}
	for op := range 60 {
		pick := func() *actor {
			if len(w.live) == 0 {
				return nil
			}
			return w.live[r.IntN(len(w.live))]
		}
		var a *actor
		w.saves(r)
		switch k := r.IntN(100); {
		case k < 22 && len(w.live) < 8:
			var p []int32
			if len(history) > 0 && r.IntN(3) > 0 {
				h := history[r.IntN(len(history))]
				p = append(p, h[:r.IntN(len(h)+1)]...)
			}
			p = append(p, tokens(r.IntN(10))...)
			if len(p) == 0 || len(p) > 40 {
				p = tokens(1 + r.IntN(12))
			}
			b, err := w.begin(fmt.Sprintf("s%d", op), byte(r.IntN(roots)), p, r.IntN(20) == 0)
			if err == nil {
				history = append(history, p)
				joined += min(1, b.s.Decision().Joined)
			} else if tooLong := len(p) > len(w.kv)*w.c.blockSize; errors.Is(err, ErrTooLong) != tooLong || !tooLong && !errors.Is(err, ErrNoSpace) {
				w.fatalf("begin: %v", err)
			} else if !tooLong && len(w.live)+len(w.tier.open) == 0 {
				w.fatalf("no space with nothing live")
			}
		case k < 50:
			if a = pick(); a != nil {
				before := a.s.matched
				w.poll(a)
				if !before && a.s.matched {
					rematched++
				}
			}
		case k < 58:
			if a = pick(); a != nil && a.copy != nil {
				w.copyDone(a)
			}
		case k < 80:
			if a = pick(); a != nil && a.s.ready() {
				if n := a.s.Len() - a.s.Computed(); n > 0 {
					w.advance(a, 1+r.IntN(n))
				}
			}
		case k < 86:
			if a = pick(); a != nil && a.s.ready() {
				if w.following(a, 1+r.IntN(12)) {
					w.followed++
				}
				switch n := a.s.Len() - a.s.Computed(); {
				case n > 1:
					w.advance(a, n-1)
				case n == 0:
					w.append(a, r.Int32N(w.vocab))
				}
				if a.s.Len()-a.s.Computed() == 1 {
					g := tokens(1 + r.IntN(7))
					w.draft(a, g, r.IntN(len(g)+1), r.IntN(3))
					w.drafted++
				}
			}
		case k < 93:
			if a = pick(); a != nil && a.s.ready() {
				err := w.append(a, r.Int32N(w.vocab))
				if err == nil && a.s.Len()-a.s.Computed() == 1 && r.IntN(2) == 0 {
					w.advance(a, 1)
				}
			}
		default:
			if a = pick(); a != nil {
				history = append(history, slices.Clone(a.tokens))
				w.end(a)
			}
		}
	}
	w.saveAll()
	// Either all but one end, and that one must go on alone; or all go on together, where only space may stop them.
	if len(w.live) > 0 && r.IntN(2) == 0 {
		last := w.live[r.IntN(len(w.live))]
		for _, i := range r.Perm(len(w.live)) {
			if a := w.live[i%len(w.live)]; a != last {
				w.end(a)
			}
		}
		for _, a := range slices.Clone(w.live) {
			if a != last {
				w.end(a)
			}
		}
		w.run(3)
	}
	for len(w.live) > 0 {
		progress := false
		for _, a := range slices.Clone(w.live) {
			progress = w.step(a, 1+r.IntN(4)) || progress
		}
		if !progress {
			w.end(w.live[0]) // finished, or preempted for space
		}
	}
	if st := w.c.Stats(); st.Held != 0 {
		w.fatalf("nothing is live, %d blocks are held", st.Held)
	}
	// What was computed before anything was evicted can be found again.
	for range 5 {
		if len(history) == 0 {
			break
		}
		h := history[r.IntN(len(history))]
		if a, err := w.begin("again", byte(r.IntN(roots)), h, false); err == nil {
			w.run(7)
			w.end(a)
		} else if !errors.Is(err, ErrTooLong) {
			w.fatalf("begin: %v", err)
		}
	}
	return joined, rematched
}
