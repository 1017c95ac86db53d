package sched_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/sched"
)

// copying is a text that repeats what followed the last two tokens, with a surprise now and then; novel never repeats.
func copying(tokens []int32) int32 {
	n := len(tokens)
	h := uint64(0)
	for _, t := range tokens[max(0, n-2):] {
		h = sched.FakeHash(h, t)
	}
	if all := hashOf(tokens); all%9 == 0 {
		h = all
	}
	return int32(h >> 40 % 50)
}

func novel(tokens []int32) int32 { return int32(hashOf(tokens) >> 44) }

func hashOf(tokens []int32) uint64 {
	h := uint64(0)
	for _, t := range tokens {
		h = sched.FakeHash(h, t)
	}
	return h
}

// A fakeRig is a scheduler over a Fake.
type fakeRig struct {
	*sched.Scheduler
	f *sched.Fake
	t *testing.T
}

func newFakeRig(t *testing.T, blocks, blockSize, rows int, text func([]int32) int32, o sched.Options) *fakeRig {
	c := cache.New(cache.Config{Blocks: blocks, BlockSize: blockSize})
	r := &fakeRig{f: sched.NewFake(blocks, blockSize, rows, text), t: t}
	if o.MaxBatch == 0 {
		o.MaxBatch = 16
	}
	if o.Now == nil {
		o.Now = sched.Ticks(time.Millisecond)
	}
	o.MaxQueue = 10000
	r.Scheduler = sched.New(r.f, c, o)
	t.Cleanup(func() {
		r.Close(context.Background())
		if err := c.Check(); err != nil {
			t.Error(err)
		}
		if s := c.Stats(); s.Held != 0 {
			t.Errorf("at the end %+v", s)
		}
	})
	return r
}

// job makes a job that generates up to n tokens, ends at a token end (-1: none), and holds all that it is given against the fake's text. Its
// tokens are complete when the channel is closed.
func (r *fakeRig) job(root cache.Key, prompt []int32, n int, end int32) (*sched.Job, *[]int32, chan error) {
	tokens := slices.Clone(prompt)
	done := make(chan error, 1)
	j := &sched.Job{Root: root, Prompt: prompt, Limit: len(prompt) + n}
	j.Next = func(logits []float32, pos int) (int32, bool, error) {
		hash, tok := sched.FakeLogits(logits)
		if pos != len(tokens) || hash != hashOf(tokens) || tok != r.f.Text(tokens) {
			r.t.Errorf("position %d of %d: logits of other tokens", pos, len(tokens))
		}
		tokens = append(tokens, tok)
		return tok, tok == end || len(tokens) == len(prompt)+n, nil
	}
	j.Done = func(err error) { done <- err; close(done) }
	return j, &tokens, done
}

// run generates n tokens and returns them.
func (r *fakeRig) run(root cache.Key, prompt []int32, n int) []int32 {
	r.t.Helper()
	j, tokens, done := r.job(root, prompt, n, -1)
	if err := r.Submit(j); err != nil {
		r.t.Fatal(err)
	}
	if err := <-done; err != nil {
		r.t.Fatal(err)
	}
	return (*tokens)[len(prompt):]
}

func ints(n int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(1000 + i)
	}
	return ids
}

// Random scripts over texts that repeat a lot: sequences end at limits, at tokens and by cancellation, KV is scarce. Every token is the one that
// the text has there, from the logits of exactly the tokens before it, with drafts and without.
func TestDraftsChangeNothing(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -seed %d", seed)
	scripts := 60
	if testing.Short() {
		scripts = 20
	}
	var sum sched.Stats
	for script := range scripts {
		rnd := rand.New(rand.NewPCG(seed, uint64(script)))
		bs := []int{1, 4, 32}[rnd.IntN(3)]
		blocks := (170 + rnd.IntN(400)) / bs
		r := newFakeRig(t, blocks, bs, 8+rnd.IntN(120), copying, sched.Options{MaxBatch: 1 + rnd.IntN(12), NoDrafts: rnd.IntN(5) == 0})
		var family [][]int32
		var open []func()
		for range 50 {
			var prompt []int32
			if len(family) > 0 && rnd.IntN(4) > 0 {
				f := family[rnd.IntN(len(family))]
				prompt = append(prompt, f[:rnd.IntN(len(f)+1)]...)
			}
			prompt = append(prompt, randTokens(rnd, 1+rnd.IntN(30), 50)...)
			n := 1 + rnd.IntN(90)
			if room := (blocks-1)*bs - n; len(prompt) > room {
				prompt = prompt[:room]
			}
			j, tokens, done := r.job(cache.Key{byte(rnd.IntN(3))}, prompt, n, rnd.Int32N(200))
			j.NoCache = rnd.IntN(8) == 0
			if rnd.IntN(6) == 0 { // at some token, from the loop or beside it
				next, left := j.Next, rnd.IntN(20)
				beside := rnd.IntN(2) == 0
				j.Next = func(logits []float32, pos int) (int32, bool, error) {
					if left--; left == 0 {
						if beside {
							go j.Cancel()
						} else {
							j.Cancel()
						}
					}
					return next(logits, pos)
				}
			}
			if err := r.Submit(j); err != nil {
				t.Fatal(err)
			}
			open = append(open, func() {
				if err := <-done; err != nil && !errors.Is(err, sched.ErrCanceled) {
					t.Errorf("script %d: %v", script, err)
				}
				family = append(family, *tokens)
			})
			for len(open) > rnd.IntN(12) {
				i := rnd.IntN(len(open))
				open[i]()
				open = slices.Delete(open, i, i+1)
			}
		}
		for _, f := range open {
			f()
		}
		if t.Failed() {
			return
		}
		st := r.Stats()
		sum.DraftTokens += st.DraftTokens
		sum.AcceptedTokens += st.AcceptedTokens
		sum.Preemptions += st.Preemptions
		sum.DecodeTokens += st.DecodeTokens
		sum.Cache.Evicted += st.Cache.Evicted
	}
	t.Logf("%+v", sum)
	if sum.AcceptedTokens < 100 || sum.DraftTokens-sum.AcceptedTokens < 100 || sum.Preemptions == 0 || sum.Cache.Evicted == 0 {
		t.Error("something that should have happened has not: this test means little")
	}
}

// A repeated request gets its draft from the cached text of its own root, in one draft a few tokens. The same request under another root is
// computed as if the first had never been there: the same steps, the same rows.
func TestDraftsKeepRootsApart(t *testing.T) {
	prompt := ints(100)
	shapes := func(warm bool) ([][]sched.Shape, sched.Stats) {
		r := newFakeRig(t, 200, 32, 64, novel, sched.Options{})
		r.run(rootB, ints(90), 40)
		if warm {
			r.run(rootA, prompt, 300)
			before := r.Stats()
			r.run(rootA, prompt, 300)
			after := r.Stats()
			if n := after.AcceptedTokens - before.AcceptedTokens; n < 200 {
				t.Errorf("the same request again: %d guesses accepted", n)
			}
			if n := after.Steps - before.Steps; n > 120 {
				t.Errorf("the same request again: %d steps for 300 tokens", n)
			}
		}
		steps, before := len(r.f.Batches()), r.Stats()
		r.run(rootB, prompt, 300)
		st := r.Stats()
		st.DraftTokens -= before.DraftTokens
		st.AcceptedTokens -= before.AcceptedTokens
		return r.f.Batches()[steps:], st
	}
	alone, a := shapes(false)
	beside, b := shapes(true)
	if !slices.EqualFunc(alone, beside, func(x, y []sched.Shape) bool { return slices.Equal(x, y) }) {
		t.Error("the steps show what another root has")
	}
	if a.DraftTokens != b.DraftTokens || a.AcceptedTokens != b.AcceptedTokens {
		t.Errorf("%d drafted and %d accepted, with another root's text %d and %d", a.DraftTokens, a.AcceptedTokens, b.DraftTokens, b.AcceptedTokens)
	}
}

// What was generated lately serves another prompt of the same root, and of no other.
func TestDraftsFromEarlierText(t *testing.T) {
	counter := func(tokens []int32) int32 { return tokens[len(tokens)-1] + 1 }
	r := newFakeRig(t, 200, 32, 64, counter, sched.Options{})
	r.run(rootA, ints(50), 300)
	if n := r.Stats().DraftTokens; n != 0 {
		t.Errorf("%d guesses out of nothing", n)
	}
	r.run(rootB, []int32{5, 6, 7, 1080, 1081, 1082}, 100)
	if n := r.Stats().DraftTokens; n != 0 {
		t.Errorf("%d guesses out of another root's text", n)
	}
	r.run(rootA, []int32{5, 6, 7, 1080, 1081, 1082}, 100)
	if n := r.Stats().AcceptedTokens; n < 60 {
		t.Errorf("%d guesses accepted", n)
	}
}

// A job without cache neither uses the text of others nor leaves its own.
func TestDraftsWithoutCache(t *testing.T) {
	r := newFakeRig(t, 200, 32, 64, novel, sched.Options{})
	without := func() int64 {
		before := r.Stats().DraftTokens
		j, _, done := r.job(rootA, ints(100), 200, -1)
		j.NoCache = true
		if err := r.Submit(j); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return r.Stats().DraftTokens - before
	}
	if n := without(); n != 0 {
		t.Errorf("%d guesses out of nothing", n)
	}
	r.run(rootA, ints(100), 200)
	if n := r.Stats().DraftTokens; n != 0 {
		t.Errorf("%d guesses from a text that was not to be kept", n)
	}
	if n := without(); n != 0 {
		t.Errorf("%d guesses from the text of others", n)
	}
	r.run(rootA, ints(100), 200)
	if n := r.Stats().AcceptedTokens; n < 100 {
		t.Errorf("%d guesses accepted: this test means little", n)
	}
}

// loop is a text that repeats itself, the easiest to guess.
func loop(tokens []int32) int32 { return int32(len(tokens) % 7) }

// A draft never goes beyond the job's limit, and takes as many steps as its length allows.
func TestDraftsEndAtTheLimit(t *testing.T) {
	for n := 1; n < 60; n++ {
		r := newFakeRig(t, 20, 32, 64, loop, sched.Options{})
		r.run(rootA, []int32{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3}, n)
		for _, b := range r.f.Batches() {
			for _, g := range b {
				if g.Pos+g.N > 18+n-1 {
					t.Fatalf("%d tokens: a row at position %d, whose logits nobody may use", n, g.Pos+g.N-1)
				}
			}
		}
		st := r.Stats()
		if got := st.DecodeTokens + st.AcceptedTokens + 1; got != int64(n) {
			t.Errorf("%d tokens: counted %d", n, got)
		}
		if n > 30 && st.DecodeTokens > int64(n)/3 {
			t.Errorf("%d tokens in %d steps", n, st.DecodeTokens)
		}
	}
}

// With many streams nobody gets drafts, and a step of a few never has more rows than it may.
func TestDraftRows(t *testing.T) {
	for streams := 1; streams <= 16; streams++ {
		r := newFakeRig(t, 400, 32, 512, loop, sched.Options{})
		var jobs []*sched.Job
		var ends []chan error
		var first atomic.Int32
		all := make(chan struct{})
		for i := range streams {
			j, _, done := r.job(cache.Key{byte(i)}, []int32{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3}, 100, -1)
			next, once := j.Next, false
			j.Next = func(logits []float32, pos int) (int32, bool, error) {
				if !once {
					once = true
					if first.Add(1) == int32(streams) {
						close(all)
					}
				}
				return next(logits, pos)
			}
			jobs, ends = append(jobs, j), append(ends, done)
		}
		if err := r.Submit(jobs...); err != nil {
			t.Fatal(err)
		}
		for _, d := range ends {
			if err := <-d; err != nil {
				t.Fatal(err)
			}
		}
		most := 0
		for _, b := range r.f.Batches() {
			rows, decodes, drafts := 0, 0, 0
			for _, g := range b {
				rows += g.N
				if g.Pos >= 11 {
					decodes++
					drafts += g.N - 1
				}
			}
			if decodes < len(b) { // prompts beside
				continue
			}
			most = max(most, drafts)
			switch {
			case decodes == 1 && rows > 16, decodes > 1 && drafts > 0 && rows > 8:
				t.Fatalf("%d streams: a step of %d rows, %d of them drafts", streams, rows, drafts)
			}
		}
		if streams < 5 && most == 0 {
			t.Errorf("%d streams: no drafts", streams)
		}
	}
}

// Drafts take no block that somebody else could use: nothing is evicted or preempted that would not be without them.
func TestDraftsEvictNothing(t *testing.T) {
	for _, blocks := range []int{5, 6, 9, 30} {
		var want cache.Stats
		for _, off := range []bool{true, false} {
			r := newFakeRig(t, blocks, 32, 64, loop, sched.Options{NoDrafts: off})
			r.run(rootA, []int32{9, 9, 9, 9, 9, 9}, 50)
			r.run(rootB, []int32{0, 1, 2, 3, 4, 5, 6, 0, 1, 2, 3}, 3*32)
			r.Close(context.Background())
			st := r.Stats()
			if off {
				want = st.Cache
			} else if st.Cache != want || st.Preemptions != 0 || st.AcceptedTokens == 0 {
				t.Errorf("%d blocks: %+v, without drafts %+v", blocks, st, want)
			}
		}
	}
}
