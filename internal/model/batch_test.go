package model_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/model"
	"kvasir/internal/team"
	"kvasir/internal/testmodel"
)

// blocks is KV memory.
type blocks [][]uint16

func (b blocks) Block(id int32) []uint16 { return b[id] }

// newBlocks makes blocks that hold ones: what a step leaves unwritten is finite, but is not what attention may count.
func newBlocks(n int, l model.Layout) blocks {
	b := make(blocks, n)
	for i := range b {
		b[i] = slices.Repeat([]uint16{0x3c00}, l.BlockBytes()/2)
	}
	return b
}

// shapes are the ways in which heads, panels and blocks lie to each other: a KV head's share of a row that is whole
// quantisation blocks and one that is not, groups of 1 and of 8, fewer panels than workers, weights as int8 and as floats; windows
// shorter than a split, longer than one, and of whole tiles; more and fewer experts than rows.
var shapes = []struct {
	testmodel.Config
	blockSize int
}{
	{testmodel.Config{Embd: 64, FF: 96, Heads: 4, KVHeads: 2, HeadSize: 32, Type: gguf.Q8_0}, 32},
	{testmodel.Config{Embd: 32, FF: 32, Heads: 2, KVHeads: 2, HeadSize: 80, Type: gguf.Q4_0}, 64},
	{testmodel.Config{Embd: 96, FF: 64, Heads: 8, KVHeads: 1, HeadSize: 16, Type: gguf.F16}, 96},
	{testmodel.Config{Embd: 64, FF: 64, Heads: 3, KVHeads: 1, HeadSize: 96, Type: gguf.Q4_1}, 1024},
	{testmodel.Config{Embd: 32, FF: 64, Heads: 6, KVHeads: 2, HeadSize: 48, Type: gguf.F32, TiedHead: true}, 128},
	{testmodel.Config{Embd: 64, FF: 32, Heads: 1, KVHeads: 1, HeadSize: 64, Type: gguf.Q5_0}, 256},
	{testmodel.Config{Embd: 64, FF: 64, Heads: 4, KVHeads: 1, HeadSize: 32, Type: gguf.Q8_0, Arch: "gemma3", Window: 40}, 32},
	{testmodel.Config{Embd: 64, FF: 32, Heads: 4, KVHeads: 2, HeadSize: 64, Type: gguf.Q5_0, Arch: "gemma3", Window: 291}, 64},
	{testmodel.Config{Embd: 32, FF: 32, Heads: 2, KVHeads: 2, HeadSize: 32, Type: gguf.F32, Arch: "gemma3", Window: 64}, 128},
	{testmodel.Config{Embd: 64, FF: 32, Heads: 4, KVHeads: 2, HeadSize: 32, Type: gguf.Q4_0, Arch: "qwen3moe", Experts: 20, Used: 3}, 32},
	{testmodel.Config{Embd: 32, FF: 64, Heads: 2, KVHeads: 1, HeadSize: 64, Type: gguf.F16, Arch: "qwen3moe", Experts: 3, Used: 2}, 64},
	{testmodel.Config{Embd: 256, FF: 256, Heads: 8, KVHeads: 2, HeadSize: 32, Type: gguf.Q4_K, Better: gguf.Q6_K}, 32},
	{testmodel.Config{Embd: 256, FF: 256, Heads: 4, KVHeads: 2, HeadSize: 64, Type: gguf.IQ4_XS, Better: gguf.Q3_K}, 64},
	{testmodel.Config{Embd: 32, FF: 64, Heads: 2, KVHeads: 1, HeadSize: 32, Type: gguf.MXFP4}, 32},
}

// Batches of segments of any length, at any depth, on any number of workers, give the bits of one row at a time: logits, and
// K and V. Several sequences share the blocks of a prefix.
func TestForwardEqualsRowByRow(t *testing.T) {
	for i, s := range shapes {
		t.Run(fmt.Sprintf("%s %d×%d over %d, %v, blocks of %d", s.Arch, s.Heads, s.HeadSize, s.KVHeads, s.Type, s.blockSize), func(t *testing.T) {
			s.Layers, s.Vocab, s.Ctx, s.RopeBase, s.Seed = 3, testmodel.MinVocab, 2048, 10000, uint64(i)
			f, err := gguf.Parse(testmodel.Build(s.Config))
			if err != nil {
				t.Fatal(err)
			}
			m, err := model.Load(f, model.Options{Path: kernel.Available()[0], BlockSize: s.blockSize})
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			compareForward(t, m, rand.New(rand.NewPCG(uint64(i), 5)))
		})
	}
}

func compareForward(t *testing.T, m *model.Model, rng *rand.Rand) {
	const sequences, maxRows, maxWorkers = 4, 300, 3
	bs := m.Layout.BlockSize
	shared := (256 + bs - 1) / bs * bs // tokens of the common prefix: at least a split
	// but the last sequence has a block less of it
	common := func(q int) int { return shared - q/(sequences-1)*bs }
	length := min(shared+300, m.Context)
	perSeq := (length + bs - 1) / bs

	tm := team.New(maxWorkers, nil)
	defer tm.Close()
	tokens := make([][]int32, sequences)
	for q := range tokens {
		tokens[q] = make([]int32, length)
		for p := range tokens[q] {
			if tokens[q][p] = int32(3 + rng.IntN(m.Vocab-3)); p < common(q) {
				tokens[q][p] = tokens[0][p]
			}
		}
	}

	// One row at a time, each sequence in blocks of its own.
	want := make([][][]float32, sequences)
	alone := newBlocks(sequences*perSeq, m.Layout)
	one := m.NewScratch(1, maxWorkers)
	for q := range tokens {
		table := make([]int32, perSeq)
		for i := range table {
			table[i] = int32(q*perSeq + i)
		}
		for p, id := range tokens[q] {
			b := &model.Batch{Tokens: []int32{id}, Segs: []model.Segment{{N: 1, Pos: p, Table: table, Logits: 1}}}
			if _, err := m.Forward(tm, 1, one, b, alone); err != nil {
				t.Fatal(err)
			}
			want[q] = append(want[q], slices.Clone(m.LogitRow(one, 0)))
		}
	}

	// The same in batches; the first sequence computes the prefix, the others have its blocks in their tables.
	mem := newBlocks(sequences*perSeq, m.Layout)
	ids := rng.Perm(sequences * perSeq)
	tables, done := make([][]int32, sequences), make([]int, sequences)
	for q := range tables {
		for i := range perSeq {
			id := int32(ids[q*perSeq+i])
			if i < common(q)/bs {
				id = int32(ids[i])
			}
			tables[q] = append(tables[q], id)
		}
		done[q] = common(q)
	}
	done[0] = 0
	s := m.NewScratch(maxRows, maxWorkers)
	for steps := 0; ; steps++ {
		b, prefix := &model.Batch{}, done[0] >= shared // which must be there before the step
		var wanted [][]float32
		var what []string
		for _, q := range rng.Perm(sequences) {
			n := min(1+rng.IntN(12), length-done[q])
			switch {
			case q > 0 && !prefix || rng.IntN(4) == 0:
				continue
			case rng.IntN(12) == 0: // a chunk of a prompt
				n = min(n+rng.IntN(120), length-done[q])
			case rng.IntN(3) == 0:
				n = min(1, n)
			}
			if n == 0 || len(b.Tokens)+n > maxRows {
				continue
			}
			logits := min(n, max(0, rng.IntN(n+3)-1))
			b.Segs = append(b.Segs, model.Segment{Start: len(b.Tokens), N: n, Pos: done[q], Table: tables[q], Logits: logits})
			b.Tokens = append(b.Tokens, tokens[q][done[q]:done[q]+n]...)
			done[q] += n
			for p := done[q] - logits; p < done[q]; p++ {
				wanted = append(wanted, want[q][p])
				what = append(what, fmt.Sprintf("sequence %d, position %d", q, p))
			}
		}
		if len(b.Segs) == 0 {
			if slices.Min(done) == length {
				break
			}
			continue
		}
		workers := 1 + rng.IntN(maxWorkers)
		if _, err := m.Forward(tm, workers, s, b, mem); err != nil {
			t.Fatal(err)
		}
		for i, w := range wanted {
			for j, v := range m.LogitRow(s, i) {
				if math.Float32bits(v) != math.Float32bits(w[j]) {
					t.Fatalf("step %d, %d workers, segments %+v: %s: logit %d is %v, want %v", steps, workers, b.Segs, what[i], j, v, w[j])
				}
			}
		}
	}
	got, ref := make([]uint16, m.Layout.BlockBytes()/2), make([]uint16, m.Layout.BlockBytes()/2)
	for q := range tables {
		for i, id := range tables[q] {
			n := min(bs, length-i*bs)
			m.Layout.CopyTokens(got, mem[id], n)
			m.Layout.CopyTokens(ref, alone[q*perSeq+i], n)
			if !slices.Equal(got, ref) {
				t.Errorf("sequence %d, block %d: K and V differ", q, i)
			}
		}
	}
}
