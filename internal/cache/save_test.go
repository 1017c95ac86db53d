package cache

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// A lowerTier is what the scripts play: it takes blocks, holds them for a while, and keeps some.
type lowerTier struct {
	open                 []openSave
	kept                 map[Key]bool
	done, later, orphans int
}

type openSave struct {
	*Save
	rows []uint64
}

// saves takes a block or gives one back, sometimes. What is held must not change, and must be what its ids say.
func (w *world) saves(r *rand.Rand) {
	if !w.c.saving {
		return
	}
	for _, o := range w.tier.open {
		if !slices.Equal(o.rows, w.kv[o.Block][:len(o.Tokens)]) {
			w.fatalf("block %d of a save has changed", o.Block)
		}
	}
	if r.IntN(3) == 0 {
		w.take()
	}
	if len(w.tier.open) > 0 && r.IntN(3) == 0 {
		w.giveBack(r.IntN(len(w.tier.open)), Outcome(max(0, r.IntN(6)-3)))
	}
}

func (w *world) take() bool {
	s := w.c.NextSave()
	if s == nil {
		return false
	}
	w.log = append(w.log, "save")
	if s.Key != Chain(s.Parent, nil, s.Tokens) || len(s.Tokens) == 0 {
		w.fatalf("wrong save %+v", s)
	}
	// The rows are those of the ids on the way from the root.
	var path []int32
	for n := s.node; n != nil; n = n.parent {
		path = slices.Concat(n.tokens, path)
	}
	for i := range s.Tokens {
		at := len(path) - len(s.Tokens) + i + 1
		if w.kv[s.Block][i] != row(s.Root[0], path[:at]) {
			w.fatalf("save of other rows: %+v", s)
		}
	}
	w.tier.open = append(w.tier.open, openSave{s, slices.Clone(w.kv[s.Block][:len(s.Tokens)])})
	w.verify()
	return true
}

func (w *world) giveBack(i int, o Outcome) {
	s := w.tier.open[i]
	w.tier.open = slices.Delete(w.tier.open, i, i+1)
	w.log = append(w.log, "saved")
	if w.tier.kept == nil {
		w.tier.kept = map[Key]bool{}
	}
	switch {
	case o == SaveDone && s.Parent != s.Root && !w.tier.kept[s.Parent]:
		o = SaveOrphan
		w.tier.orphans++
	case o == SaveDone:
		w.tier.kept[s.Key] = true
		w.tier.done++
	default:
		w.tier.later++
	}
	w.c.Saved(s.Save, o)
	w.verify()
}

// saveAll gives all back. What then waits is taken until nothing does: a tier that takes everything has, in the end, every block with all before it.
func (w *world) saveAll() {
	for len(w.tier.open) > 0 {
		w.giveBack(0, SaveDone)
	}
	for n := 0; w.take(); n++ {
		if n > 10_000 {
			w.fatalf("saving does not end")
		}
		w.giveBack(0, SaveDone)
	}
}

// Blocks are to be saved once, after those before them; tails when their sequence ends; what was loaded, not at all.
func TestSaveOrder(t *testing.T) {
	w := newWorld(t, 20, 4)
	w.c.saving = true
	lengths := func() (n []int) {
		for s := w.c.NextSave(); s != nil; s = w.c.NextSave() {
			n = append(n, len(s.Tokens))
			defer w.c.Saved(s, SaveDone)
		}
		return n
	}
	a, err := w.begin("a", 1, []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, false)
	if err != nil {
		t.Fatal(err)
	}
	w.run(5)
	if n := lengths(); !slices.Equal(n, []int{4, 4}) {
		t.Errorf("while it runs: %v", n)
	}
	w.end(a)
	if n := lengths(); !slices.Equal(n, []int{2}) {
		t.Errorf("at the end: %v", n)
	}
	b, err := w.begin("b", 2, []int32{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, false)
	if err != nil {
		t.Fatal(err)
	}
	w.poll(b)
	for i := range 6 {
		w.kv[b.s.Table()[i/4]][i%4] = row(2, b.tokens[:i+1])
		w.ever[prefix(2, b.tokens[:i+1])] = true
	}
	w.c.Loaded(b.s, 6)
	w.run(5)
	w.end(b)
	if n := lengths(); !slices.Equal(n, []int{4, 2}) {
		t.Errorf("with 6 loaded: %v", n)
	}
	if w.c.Unsaved() != 0 {
		t.Errorf("%d wait", w.c.Unsaved())
	}
}
