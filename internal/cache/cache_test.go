package cache

import (
	"errors"
	"runtime"
	"slices"
	"testing"

	"kvasir/internal/llm"
)

// seq returns the ids [from, to).
func seq(from, to int32) []int32 {
	var s []int32
	for ; from < to; from++ {
		s = append(s, from)
	}
	return s
}

func must(t *testing.T, w *world, root byte, prompt []int32) *actor {
	t.Helper()
	a, err := w.begin("s", root, prompt, false)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// put stores tokens by a sequence that computes and ends.
func put(t *testing.T, w *world, root byte, tokens []int32) {
	t.Helper()
	a := must(t, w, root, tokens)
	w.run(1000)
	w.end(a)
}

func TestDecision(t *testing.T) {
	type stored struct {
		root   byte
		tokens []int32
	}
	abc := stored{0, seq(1, 11)} // blocks 1-4, 5-8, tail 9-10
	for _, tt := range []struct {
		name   string
		stored []stored
		prompt []int32
		reused int
		reason string
	}{
		{"empty cache", nil, seq(1, 6), 0, llm.ReasonNeverSeen},
		{"same prompt", []stored{abc}, seq(1, 11), 9, llm.ReasonFull},
		{"one more", []stored{abc}, seq(1, 12), 10, llm.ReasonFull},
		{"two more", []stored{abc}, seq(1, 13), 10, llm.ReasonExtended},
		{"ends at a block", []stored{abc}, seq(1, 9), 7, llm.ReasonFull},
		{"one behind a block", []stored{abc}, seq(1, 10), 8, llm.ReasonFull},
		{"inside the first block", []stored{abc}, seq(1, 4), 2, llm.ReasonFull},
		{"one token, stored", []stored{abc}, seq(1, 2), 0, llm.ReasonFull},
		{"one token, not stored", []stored{abc}, seq(2, 3), 0, llm.ReasonNeverSeen},
		{"diverges in a block", []stored{abc}, []int32{1, 2, 3, 4, 5, 6, 99, 8, 9}, 6, llm.ReasonDiverged},
		{"diverges at a block", []stored{abc}, []int32{1, 2, 3, 4, 99, 98}, 4, llm.ReasonDiverged},
		{"diverges in the tail", []stored{abc}, []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 99, 98}, 9, llm.ReasonDiverged},
		{"diverges at once", []stored{abc}, []int32{99, 1, 2}, 0, llm.ReasonNeverSeen},
		{"ends with full blocks", []stored{{0, seq(1, 9)}}, seq(1, 13), 8, llm.ReasonExtended},
		{"other root", []stored{{1, seq(1, 11)}}, seq(1, 11), 0, llm.ReasonNeverSeen},
		{"longest of several", []stored{{0, []int32{1, 2, 9}}, {0, []int32{1, 2, 3, 9}}, {0, []int32{1, 2, 2}}}, seq(1, 6), 3, llm.ReasonDiverged},
		{"prefix of a stored tail and more", []stored{{0, []int32{1, 2}}, {0, []int32{1, 2, 7}}}, []int32{1, 2, 8, 8}, 2, llm.ReasonDiverged},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, 32, 4)
			for _, s := range tt.stored {
				put(t, w, s.root, s.tokens)
			}
			a := must(t, w, 0, tt.prompt)
			want := llm.Decision{PromptTokens: len(tt.prompt), Reused: tt.reused, Reason: tt.reason}
			if d := a.s.Decision(); d != want {
				t.Errorf("%+v, want %+v", d, want)
			}
			before := w.computed
			w.run(3)
			if n := w.computed - before; n != len(tt.prompt)-tt.reused {
				t.Errorf("computed %d tokens, want %d", n, len(tt.prompt)-tt.reused)
			}
		})
	}
}

// TestSamePromptTogether: the prompt is computed once, and its last token by each.
func TestSamePromptTogether(t *testing.T) {
	for _, n := range []int{1, 3, 4, 5, 8, 30, 32, 33} {
		for _, chunk := range []int{1, 3, 4, 100} {
			w := newWorld(t, 64, 4)
			for range 8 {
				must(t, w, 0, seq(0, int32(n)))
			}
			w.run(chunk)
			if want := n + 7; w.computed != want {
				t.Errorf("%d tokens in chunks of %d: computed %d, want %d", n, chunk, w.computed, want)
			}
			for _, a := range w.live[1:] {
				if d := a.s.Decision(); d.Reused != n-1 || d.Joined != n-1 || d.Reason != llm.ReasonFull {
					t.Errorf("%d tokens: %+v", n, d)
				}
			}
			if st := w.c.Stats(); st.Held > (n-1)/4+8+1 {
				t.Errorf("%d tokens: %d blocks are held, the prompt is not shared", n, st.Held)
			}
		}
	}
}

// TestChat: the next turn reuses the earlier prompt and all generated tokens but the last, which has no KV.
func TestChat(t *testing.T) {
	w := newWorld(t, 32, 4)
	a := must(t, w, 0, seq(1, 7))
	w.run(100)
	for tok := range int32(7) {
		if err := w.append(a, 100+tok); err != nil {
			t.Fatal(err)
		}
		if tok < 6 {
			w.advance(a, 1)
		}
	}
	// Meanwhile others see the prompt to its last token, and generated tokens in full blocks only: 6 + 2 + 4 of the 12 computed.
	turn := append(slices.Clone(a.tokens), 200, 201)
	if d := w.c.Match(rootKey(0), turn); d.Reused != 12 || d.Joined != 0 || d.Reason != llm.ReasonExtended {
		t.Errorf("while generating: %+v", d)
	}
	w.end(a)
	b := must(t, w, 0, turn)
	if d := b.s.Decision(); d.Reused != 12 || d.Reason != llm.ReasonExtended {
		t.Errorf("next turn: %+v", d)
	}
}

// TestTailGrows: while a prompt's tail block fills with generated tokens, others copy the prompt's part of it, and the data stays theirs.
func TestTailGrows(t *testing.T) {
	w := newWorld(t, 32, 4)
	a := must(t, w, 0, seq(1, 7)) // tail 5, 6
	b := must(t, w, 0, []int32{1, 2, 3, 4, 5, 6, 60, 61})
	if d := b.s.Decision(); d.Reused != 6 || d.Joined != 6 {
		t.Errorf("join: %+v", d)
	}
	w.step(a, 100)
	for tok := range int32(3) {
		if err := w.append(a, 100+tok); err != nil {
			t.Fatal(err)
		}
		w.advance(a, 1)
	}
	// a's block is now 5 6 100 101, b has not copied yet, and a ends before it does.
	w.end(a)
	w.run(100)
	if d := b.s.Decision(); d.Reused != 6 || w.computed != 9+2 {
		t.Errorf("%+v, computed %d", d, w.computed)
	}
	if d := w.c.Match(rootKey(0), []int32{1, 2, 3, 4, 5, 6, 100, 101, 102, 103}); d.Reused != 9 {
		t.Errorf("a left %+v", d)
	}
}

// TestOwnerCancelled: of those who wait, the first to be polled computes what is left, and the others wait for it.
func TestOwnerCancelled(t *testing.T) {
	for computed := range 13 {
		w := newWorld(t, 64, 4)
		a := must(t, w, 0, seq(0, 13))
		b := must(t, w, 0, append(seq(0, 13), 50, 51))
		c := must(t, w, 0, append(seq(0, 12), 60))
		d := must(t, w, 0, append(seq(0, 13), 50, 52)) // joins b's part, too
		w.step(a, computed)
		w.end(a)
		if st := w.poll(c); st == Waiting {
			t.Errorf("after %d: c waits for nobody", computed)
		}
		w.run(3)
		// 12 common tokens once; then c: 60; b: 12, 50, 51; d: 52.
		if want := 12 + 1 + 3 + 1; w.computed != want {
			t.Errorf("after %d: computed %d, want %d", computed, w.computed, want)
		}
		for _, s := range []*actor{b, c, d} {
			w.end(s)
		}
	}
}

// TestWaiterOutlivesChain: a waits for nobody, b for a, c for b; all but c end, in each order.
func TestWaiterOutlivesChain(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		w := newWorld(t, 64, 4)
		chain := []*actor{must(t, w, 0, seq(0, 9)), must(t, w, 0, seq(0, 17)), must(t, w, 0, seq(0, 25))}
		for _, i := range order {
			w.end(chain[i])
		}
		w.run(100)
		if w.computed != 25 {
			t.Errorf("order %v: computed %d", order, w.computed)
		}
	}
}

// TestPreempt: a preempted sequence begins again with what it generated and computes nothing twice but the last token.
func TestPreempt(t *testing.T) {
	w := newWorld(t, 32, 4)
	a := must(t, w, 0, seq(0, 10))
	w.run(100)
	for tok := range int32(5) {
		if err := w.append(a, 100+tok); err != nil {
			t.Fatal(err)
		}
		w.run(1)
	}
	tokens := a.tokens
	w.end(a)
	b := must(t, w, 0, tokens)
	w.run(100)
	if d := b.s.Decision(); d.Reused != 14 || w.computed != 15+1 {
		t.Errorf("%+v, computed %d", d, w.computed)
	}
}

func TestNoCache(t *testing.T) {
	w := newWorld(t, 32, 4)
	put(t, w, 0, seq(0, 10))
	a, err := w.begin("private", 0, seq(0, 20), true)
	if err != nil {
		t.Fatal(err)
	}
	w.run(7)
	if err := w.append(a, 1); err != nil {
		t.Fatal(err)
	}
	w.run(7)
	before := w.c.Stats()
	w.end(a)
	if d := w.c.Match(rootKey(0), seq(0, 20)); d.Reused != 10 {
		t.Errorf("a sequence without cache left something: %+v", d)
	}
	if st := w.c.Stats(); st.Free != before.Free+6 || st.QueriesTokens != 10 {
		t.Errorf("%+v then %+v", before, st)
	}
}

func TestNoSpace(t *testing.T) {
	w := newWorld(t, 4, 4)
	if _, err := w.begin("long", 0, seq(0, 17), false); !errors.Is(err, ErrTooLong) {
		t.Errorf("17 tokens in 4 blocks: %v", err)
	}
	if _, err := w.begin("empty", 0, nil, false); !errors.Is(err, ErrEmpty) {
		t.Errorf("no tokens: %v", err)
	}
	a := must(t, w, 0, seq(0, 12))
	w.run(100)
	if _, err := w.begin("b", 0, seq(50, 58), false); !errors.Is(err, ErrNoSpace) {
		t.Errorf("8 tokens in 1 block: %v", err)
	}
	b := must(t, w, 0, seq(50, 53))
	if err := w.append(a, 1); !errors.Is(err, ErrNoSpace) {
		t.Errorf("append: %v", err)
	}
	w.end(b)
	for i := range int32(4) {
		if err := w.append(a, i); err != nil {
			t.Errorf("append %d: %v", i, err)
		}
	}
	if err := w.append(a, 4); !errors.Is(err, ErrTooLong) {
		t.Errorf("append beyond all blocks: %v", err)
	}
}

// TestCopyGivesWay: a prompt that fits the pool runs even if the source of its copy must be evicted for it.
func TestCopyGivesWay(t *testing.T) {
	w := newWorld(t, 4, 4)
	put(t, w, 0, seq(0, 14))
	prompt := append(seq(0, 13), 99, 98)
	a := must(t, w, 0, prompt)
	if d := a.s.Decision(); d.Reused != 12 || d.Reason != llm.ReasonExtended {
		t.Errorf("%+v", d)
	}
	w.run(100)
}

// TestEviction: the least recently used goes first, from its tail.
func TestEviction(t *testing.T) {
	w := newWorld(t, 8, 4)
	put(t, w, 0, append(seq(0, 8), 10, 11, 12, 13)) // blocks A B C
	put(t, w, 0, append(seq(0, 8), 20, 21, 22, 23)) // block D below A B
	put(t, w, 0, seq(30, 38))                       // blocks E F
	left := func() []int {
		var n []int
		for _, p := range [][]int32{append(seq(0, 8), 10, 11, 12, 13, 0), append(seq(0, 8), 20, 21, 22, 23, 0), append(seq(30, 38), 0)} {
			n = append(n, w.c.Match(rootKey(0), p).Reused)
		}
		return n
	}
	for i, want := range [][]int{{12, 12, 8}, {8, 12, 8}, {8, 8, 8}, {4, 4, 8}, {0, 0, 8}, {0, 0, 4}} {
		if got := left(); !slices.Equal(got, want) {
			t.Errorf("after %d evictions: left %v, want %v", i, got, want)
		}
		if i == 0 { // fill the two free blocks for good
			must(t, w, 1, []int32{1})
			must(t, w, 2, []int32{1})
		}
		must(t, w, byte(10+i), []int32{1})
	}
	if st := w.c.Stats(); st.Evicted != 6 || st.Free != 0 || st.Cached != 0 || st.Held != 8 {
		t.Errorf("%+v", st)
	}
}

// TestDeduplicate: two sequences come to the same block by different ways; one block stays. The first of them has its prompt's tail in the tree.
func TestDeduplicate(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		w := newWorld(t, 32, 4)
		s := []*actor{must(t, w, 0, seq(0, 6)), must(t, w, 0, seq(0, 6))}
		w.run(100)
		for tok := int32(6); tok < 9; tok++ {
			for _, i := range order {
				if err := w.append(s[i], tok); err != nil {
					t.Fatal(err)
				}
				w.advance(s[i], 1)
			}
		}
		st, ta, tb := w.c.Stats(), s[0].s.Table(), s[1].s.Table()
		if st.Deduplicated != 1 || st.Held != 4 || st.Cached != 0 || !slices.Equal(ta[:2], tb[:2]) || ta[2] == tb[2] {
			t.Errorf("order %v: %+v, tables %v %v", order, st, ta, tb)
		}
		w.end(s[0])
		w.end(s[1])
		// Three blocks for nine tokens, though two sequences computed the last two.
		if st := w.c.Stats(); st.Cached != 3 || st.Held != 0 {
			t.Errorf("order %v: %+v", order, st)
		}
	}
}

// TestFreshIsOwned: a block that was given up is not handed to the scheduler to be zeroed any more.
func TestFreshIsOwned(t *testing.T) {
	c := New(Config{Blocks: 16, BlockSize: 4})
	var s [2]*Sequence
	for i := range s {
		var err error
		if s[i], err = c.Begin(Key{}, seq(0, 8), false); err != nil {
			t.Fatal(err)
		}
	}
	for i := range s {
		if st, _, _ := c.Poll(s[i]); st == NeedsCopy {
			c.CopyDone(s[i])
			c.Poll(s[i])
		}
		c.Advance(s[i], s[i].Len()-s[i].Computed())
	}
	if f := s[0].TakeFresh(); !slices.Equal(f, s[0].Table()) {
		t.Errorf("fresh %v of %v", f, s[0].Table())
	}
	if f := s[1].TakeFresh(); len(f) != 0 || c.Stats().Deduplicated != 1 {
		t.Errorf("fresh %v of %v, whose last block is shared", f, s[1].Table())
	}
}

// TestUseIsRemembered: being copied from is a use, and a use lasts until End.
func TestUseIsRemembered(t *testing.T) {
	gone := func(w *world, p []int32) bool {
		must(t, w, 9, []int32{1})
		return w.c.Match(rootKey(0), p).Reused == 0
	}
	w := newWorld(t, 4, 4)
	put(t, w, 0, seq(10, 14))
	put(t, w, 0, seq(20, 24))
	put(t, w, 0, []int32{10, 11, 99}) // copies from the first and leaves a third
	must(t, w, 8, []int32{1})         // the last free block
	if !gone(w, seq(20, 26)) {
		t.Error("the block that was not used stays")
	}
	w = newWorld(t, 2, 4)
	long := must(t, w, 0, seq(10, 14))
	put(t, w, 0, seq(20, 24))
	w.run(100)
	w.end(long)
	if !gone(w, seq(20, 26)) {
		t.Error("the block that was last used by a long sequence is gone")
	}
}

// TestSupersede: a stored tail that a longer one contains does not keep its block.
func TestSupersede(t *testing.T) {
	w := newWorld(t, 32, 4)
	put(t, w, 0, []int32{1})
	put(t, w, 0, []int32{1, 2, 2})
	put(t, w, 0, []int32{1, 1, 1, 1})
	put(t, w, 0, []int32{1, 2, 3})
	put(t, w, 0, []int32{1, 2, 3, 4})
	put(t, w, 0, []int32{1, 2})
	if st := w.c.Stats(); st.Cached != 3 { // 1111, 122, 1234
		t.Errorf("%+v", st)
	}
}

func TestMisusePanics(t *testing.T) {
	c := New(Config{Blocks: 4, BlockSize: 4})
	s, err := c.Begin(Key{}, seq(0, 3), false)
	if err != nil {
		t.Fatal(err)
	}
	panics := func(what string, f func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s does not panic", what)
			}
		}()
		f()
	}
	panics("Advance before Ready", func() { c.Advance(s, 1) })
	panics("Append before Ready", func() { _ = c.Append(s, 1) })
	panics("CopyDone without a copy", func() { c.CopyDone(s) })
	if st, _, err := c.Poll(s); st != Ready || err != nil {
		t.Fatal(st, err)
	}
	panics("Advance beyond Len", func() { c.Advance(s, 4) })
	c.End(s)
	c.End(s)
	panics("Poll after End", func() { _, _, _ = c.Poll(s) })
	if err := c.Check(); err != nil {
		t.Error(err)
	}
}

// TestCheckFinds: Check is no use if it cannot fail.
func TestCheckFinds(t *testing.T) {
	for name, breakIt := range map[string]func(c *Cache, s *Sequence){
		"leaked block":     func(c *Cache, s *Sequence) { c.free = c.free[1:] },
		"block used twice": func(c *Cache, s *Sequence) { c.free[0] = s.table[0] },
		"reference":        func(c *Cache, s *Sequence) { s.nodes[0].refs++ },
		"cached count":     func(c *Cache, s *Sequence) { c.cached++ },
		"order":            func(c *Cache, s *Sequence) { slices.Reverse(s.top.children) },
		"heap":             func(c *Cache, s *Sequence) { c.evictable = nil },
		"filled":           func(c *Cache, s *Sequence) { s.nodes[0].filled-- },
		"key":              func(c *Cache, s *Sequence) { s.nodes[0].key[3]++ },
		"computed":         func(c *Cache, s *Sequence) { s.computed++ },
		"tokens":           func(c *Cache, s *Sequence) { s.tokens[2]++ },
	} {
		w := newWorld(t, 16, 4)
		put(t, w, 0, seq(50, 60))
		a := must(t, w, 0, seq(0, 10))
		w.run(100)
		breakIt(w.c, a.s)
		if w.c.Check() == nil {
			t.Errorf("%s: Check finds nothing", name)
		}
	}
}

// warm returns a cache with 5,000 cached blocks of 32 tokens, some of which hold the 2,000-token prompt that is returned.
func warm(tb testing.TB) (*Cache, []int32) {
	c := New(Config{Blocks: 6000, BlockSize: 32})
	compute := func(p []int32) {
		s, err := c.Begin(Key{1}, p, false)
		if err != nil {
			tb.Fatal(err)
		}
		cycle(tb, c, s)
	}
	prompt := seq(0, 2000)
	compute(prompt)
	for i := int32(0); c.Stats().Cached < 5000; i++ {
		// Half go on behind a part of the prompt, half begin by themselves.
		p := seq(1e6*(i+1), 1e6*(i+1)+320)
		if i%2 == 0 {
			p = append(slices.Clone(prompt[:i*7%2000]), p...)
		}
		compute(p)
	}
	return c, prompt
}

// cycle takes s from Begin to End.
func cycle(tb testing.TB, c *Cache, s *Sequence) {
	st, _, err := c.Poll(s)
	if st == NeedsCopy {
		c.CopyDone(s)
		st, _, err = c.Poll(s)
	}
	if st != Ready || err != nil {
		tb.Fatal(st, err)
	}
	c.Advance(s, s.Len()-s.Computed())
	c.End(s)
}

// BenchmarkWarm is the whole book-keeping of a warm 2,000-token prompt.
func BenchmarkWarm(b *testing.B) {
	c, prompt := warm(b)
	b.ReportAllocs()
	for b.Loop() {
		s, err := c.Begin(Key{1}, prompt, false)
		if err != nil {
			b.Fatal(err)
		}
		if s.Decision().Reused != 1999 {
			b.Fatal(s.Decision())
		}
		cycle(b, c, s)
	}
}

// BenchmarkCold is that of a 2,000-token prompt that is nowhere, and whose 63 blocks must be evicted for.
func BenchmarkCold(b *testing.B) {
	c, prompt := warm(b)
	b.ReportAllocs()
	for b.Loop() {
		prompt[0]++
		prompt = append(prompt[:0:0], prompt...)
		prompt[0] += 1 << 20
		s, err := c.Begin(Key{1}, prompt, false)
		if err != nil {
			b.Fatal(err)
		}
		cycle(b, c, s)
	}
}

// BenchmarkBlockMemory reports what the books of one cached block of 32 tokens take.
func BenchmarkBlockMemory(b *testing.B) {
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		c, _ := warm(b)
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(c.Stats().Cached), "B/block")
	}
}

// What a draft guessed wrong is found by nobody, wherever the sequence stands in its block, and leaves nothing when it ends.
func TestWrongDraftIsNeverStored(t *testing.T) {
	for start := 1; start <= 9; start++ {
		for guessed := 1; guessed <= 9; guessed++ {
			for right := range guessed + 1 {
				w := newWorld(t, 20, 4)
				a := must(t, w, 0, seq(0, int32(start)))
				w.poll(a)
				w.advance(a, start-1)
				guesses := seq(100, 100+int32(guessed))
				w.draft(a, guesses, right, 0)
				known := slices.Clone(a.tokens)
				w.end(a)
				wrong := append(slices.Concat(seq(0, int32(start)), guesses), 1)
				if d := w.c.Match(rootKey(0), wrong); d.Reused > len(known) || d.Reused < len(known)-1 {
					t.Fatalf("start %d, %d guessed, %d right: %d tokens found", start, guessed, right, d.Reused)
				}
			}
		}
	}
}

func TestReserveTakesFreeBlocksOnly(t *testing.T) {
	w := newWorld(t, 6, 4)
	put(t, w, 0, seq(50, 58)) // two blocks cached
	a := must(t, w, 0, seq(0, 5))
	w.poll(a)
	w.advance(a, 4)
	for _, tt := range []struct{ n, keep, room int }{{3, 9, 3}, {4, 2, 3}, {4, 1, 4}, {20, 1, 7}, {20, 0, 11}} {
		if got := w.c.Reserve(a.s, tt.n, tt.keep); got != tt.room {
			t.Errorf("room for %d of %d when %d blocks are to stay free, want %d", got, tt.n, tt.keep, tt.room)
		}
		w.verify()
		w.c.Unreserve(a.s)
	}
	// A sequence that ends with what it reserved loses nothing.
	w.c.Reserve(a.s, 11, 0)
	w.fresh(a)
	w.end(a)
	if st := w.c.Stats(); st.Held != 0 || st.Evicted != 0 {
		t.Errorf("%+v", st)
	}
}

func TestFollowing(t *testing.T) {
	w := newWorld(t, 40, 4)
	put(t, w, 0, seq(0, 15))
	put(t, w, 1, seq(0, 40)) // of another root
	at := func(n int32, more ...int32) *actor {
		a := must(t, w, 0, append(seq(0, n), more...))
		w.run(100)
		return a
	}
	for n := int32(1); n < 15; n++ {
		a := at(n)
		if got := w.c.Following(a.s, nil, 5); !slices.Equal(got, seq(n, min(n+5, 15))) {
			t.Errorf("behind %d tokens: %v", n, got)
		}
		w.end(a)
	}
	for _, a := range []*actor{at(15), at(5, 77), at(0, 1)} {
		if got := w.c.Following(a.s, nil, 5); len(got) > 0 {
			t.Errorf("behind %v: %v", a.tokens, got)
		}
		w.end(a)
	}
	// Of two ways on, the one used last.
	put(t, w, 0, append(seq(0, 8), 90, 91, 92))
	a := at(8)
	if got := w.c.Following(a.s, []int32{1}, 3); !slices.Equal(got, []int32{1, 90, 91, 92}) {
		t.Errorf("%v", got)
	}
}
