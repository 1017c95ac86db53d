package engine_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"kvasir/internal/engine"
	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/model"
	"kvasir/internal/store"
	"kvasir/internal/testmodel"
)

// tinyModel writes a small random model.
func tinyModel(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(path, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	return path
}

func ramp(start, n int) []int32 {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(3 + (start*37+i*11)%500)
	}
	return v
}

func TestOptions(t *testing.T) {
	f, err := gguf.Open(tinyModel(t))
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(f, model.Options{Path: kernel.Go, BlockSize: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for name, c := range map[string]struct {
		bytes int
		o     engine.Options
		ok    bool
	}{
		"fine":         {m.Layout.BlockBytes(), engine.Options{Threads: 2, MaxRows: 1}, true},
		"small blocks": {m.Layout.BlockBytes() / 2, engine.Options{Threads: 1, MaxRows: 1}, false},
		"no threads":   {m.Layout.BlockBytes(), engine.Options{MaxRows: 1}, false},
		"no rows":      {m.Layout.BlockBytes(), engine.Options{Threads: 1}, false},
	} {
		mem, err := store.NewMemory(2, c.bytes)
		if err != nil {
			t.Fatal(err)
		}
		e, err := engine.New(m, mem, c.o)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if e != nil {
			if e.MaxRows() != c.o.MaxRows {
				t.Errorf("%d rows, want %d", e.MaxRows(), c.o.MaxRows)
			}
			e.Close()
		}
		mem.Close()
	}
}

// A batch that is refused changes nothing: the next good one has the logits that it would have had.
func TestRefusedBatchChangesNothing(t *testing.T) {
	r := open(t, tinyModel(t), kernel.Available()[0], 2, 64, 4, 2)
	tokens := ramp(1, 50)
	want := digest(r.run(t, tokens, 0, 64))
	r.run(t, tokens[:30], 0, 64)
	seg := func(n, pos, blocks, logits int) []engine.Segment {
		return []engine.Segment{{N: n, Pos: pos, Table: r.table(0)[:blocks], Logits: logits}}
	}
	two := func(start int) []engine.Segment {
		return []engine.Segment{{N: 2, Table: r.table(0)}, {Start: start, N: 2, Table: r.table(1)}}
	}
	for what, b := range map[string]*engine.Batch{
		"negative position": {Tokens: ramp(9, 2), Segs: seg(2, -1, 4, 1)},
		"negative logits":   {Tokens: ramp(9, 2), Segs: seg(2, 0, 4, -1)},
		"empty segment":     {Tokens: ramp(9, 2), Segs: seg(0, 0, 4, 0)},
		"no segment":        {Tokens: ramp(9, 2)},
		"gap":               {Tokens: ramp(9, 5), Segs: two(3)},
		"overlap":           {Tokens: ramp(9, 3), Segs: two(1)},
		"second table":      {Tokens: ramp(9, 4), Segs: append(seg(2, 0, 4, 1), engine.Segment{Start: 2, N: 2, Pos: 31, Table: r.table(1)[:1]})},
		"late bad token":    {Tokens: append(ramp(9, 3), 512), Segs: seg(4, 0, 4, 1)},
	} {
		if err := r.Step(b); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if got := digest(r.run(t, tokens, 30, 64)); got != want {
		t.Error("a refused batch left a trace")
	}
}

// Logits come in the batch's order, for as many of a segment's last rows as it wants.
func TestLogitRows(t *testing.T) {
	r := open(t, tinyModel(t), kernel.Available()[0], 2, 64, 4, 3)
	a, b, c := ramp(1, 20), ramp(2, 5), ramp(3, 7)
	row := func(tokens []int32) string { return digest(r.run(t, tokens, 0, 64)) }
	want := []string{row(a[:18]), row(a[:19]), row(a), row(c)}
	err := r.Step(&engine.Batch{Tokens: slices.Concat(a, b, c), Segs: []engine.Segment{
		{N: 20, Table: r.table(0), Logits: 3}, {Start: 20, N: 5, Table: r.table(1)}, {Start: 25, N: 7, Table: r.table(2), Logits: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		if digest(r.Logits(i)) != w {
			t.Errorf("row %d is another one", i)
		}
	}
}

// Copy takes over the KV of exactly the first n tokens of a block, clears the rest and leaves the source alone; what is
// computed after it equals what is computed after these tokens themselves.
func TestCopy(t *testing.T) {
	for _, blockSize := range []int{32, 64} {
		f, err := gguf.Open(tinyModel(t))
		if err != nil {
			t.Fatal(err)
		}
		m, err := model.Load(f, model.Options{Path: kernel.Available()[0], BlockSize: blockSize})
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		mem, err := store.NewMemory(4, m.Layout.BlockBytes())
		if err != nil {
			t.Fatal(err)
		}
		defer mem.Close()
		e, err := engine.New(m, mem, engine.Options{Threads: 1, MaxRows: 2 * blockSize})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		step := func(tokens []int32, pos int, table ...int32) string {
			t.Helper()
			if err := e.Step(&engine.Batch{Tokens: tokens, Segs: []engine.Segment{{N: len(tokens), Pos: pos, Table: table, Logits: 1}}}); err != nil {
				t.Fatal(err)
			}
			return digest(e.Logits(0))
		}
		source := ramp(1, blockSize)
		step(source, 0, 0)
		before := slices.Clone(mem.Block(0))
		for n := 0; n <= blockSize; n++ {
			for i, b := 0, mem.Block(1); i < len(b); i++ {
				b[i] = 0x3c00 // 1
			}
			e.Copy(1, 0, n)
			if !slices.Equal(mem.Block(0), before) {
				t.Fatalf("block size %d: copying %d tokens changed the source", blockSize, n)
			}
			// Everything but n rows of K and V is zero, and these rows are the source's.
			kept, same := 0, 0
			for i, v := range mem.Block(1) {
				if v != 0 {
					kept++
					if v == before[i] {
						same++
					}
				}
			}
			if most := n * m.Layout.TokenBytes() / 2; kept != same || kept > most || kept < most*9/10 {
				t.Fatalf("block size %d, %d tokens: %d values, %d of them the source's, of %d", blockSize, n, kept, same, most)
			}
			rest := ramp(5, 20)
			got := step(rest, n, 1, 2)
			if want := step(slices.Concat(source[:n], rest), 0, 3, 2); got != want {
				t.Errorf("block size %d: after a copy of %d tokens the logits differ", blockSize, n)
			}
		}
	}
}

// What a step computes does not depend on the block ids of its table.
func TestBlockOrder(t *testing.T) {
	r := open(t, tinyModel(t), kernel.Available()[0], 2, 128, 8, 1)
	tokens := ramp(4, 120)
	want := digest(r.run(t, tokens, 0, 128))
	for _, table := range [][]int32{{3, 2, 1, 0}, {7, 0, 5, 1}, {4, 6, 2, 3}} {
		if err := r.Step(&engine.Batch{Tokens: tokens, Segs: []engine.Segment{{N: 120, Table: table, Logits: 1}}}); err != nil {
			t.Fatal(err)
		}
		if digest(r.Logits(0)) != want {
			t.Error(fmt.Sprint("blocks ", table, ": logits differ"))
		}
	}
}
