package model_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/lora"
	"kvasir/internal/model"
	"kvasir/internal/team"
	"kvasir/internal/testmodel"
)

func parseAdapter(t *testing.T, b []byte) *lora.File {
	t.Helper()
	f, err := lora.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func adapt(t *testing.T, m *model.Model, f *lora.File) *model.Adapter {
	t.Helper()
	a, err := m.Adapt(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

// adapterShapes are models with all kinds of matrices, and adapters of all kinds for them.
var adapterShapes = []struct {
	testmodel.Config
	adapters [2]testmodel.Adapter
}{
	{testmodel.Config{Embd: 64, FF: 96, Heads: 4, KVHeads: 2, HeadSize: 32, Type: gguf.Q8_0}, [2]testmodel.Adapter{{Rank: 8, Alpha: 16, Type: gguf.F16}, {Rank: 1, Alpha: 1, Type: gguf.F32}}},
	{testmodel.Config{Embd: 96, FF: 64, Heads: 8, KVHeads: 1, HeadSize: 16, Type: gguf.F16}, [2]testmodel.Adapter{{Rank: 40, Alpha: 40, Type: gguf.BF16}, {Rank: 32, Alpha: 0, Type: gguf.Q8_0}}},
	{testmodel.Config{Embd: 32, FF: 32, Heads: 2, KVHeads: 2, HeadSize: 80, Type: gguf.Q4_0, TiedHead: true}, [2]testmodel.Adapter{{Rank: 64, Alpha: 32, Type: gguf.F32, Only: []string{"attn_v.weight", "ffn_down.weight"}}, {Rank: 16, Alpha: 16, Type: gguf.F16}}},
	{testmodel.Config{Embd: 64, FF: 64, Heads: 4, KVHeads: 2, HeadSize: 32, Type: gguf.F32, Arch: "qwen2"}, [2]testmodel.Adapter{{Rank: 4, Alpha: 8, Type: gguf.F32}, {Rank: 8, Alpha: 8, Type: gguf.F16, Only: []string{"output.weight"}}}},
	{testmodel.Config{Embd: 64, FF: 64, Heads: 4, KVHeads: 1, HeadSize: 32, Type: gguf.Q8_0, Arch: "gemma3", Window: 40}, [2]testmodel.Adapter{{Rank: 4, Alpha: 8, Type: gguf.F32}, {Rank: 8, Alpha: 8, Type: gguf.F16, Only: []string{"attn_q.weight", "attn_k.weight"}}}},
	{testmodel.Config{Embd: 64, FF: 32, Heads: 4, KVHeads: 2, HeadSize: 32, Type: gguf.Q4_0, Arch: "qwen3moe", Experts: 6, Used: 2}, [2]testmodel.Adapter{{Rank: 4, Alpha: 8, Type: gguf.F16}, {Rank: 8, Alpha: 8, Type: gguf.F32, Only: []string{"ffn_gate_inp.weight"}}}},
}

// adapterModels calls f with each of adapterShapes.
func adapterModels(t *testing.T, f func(t *testing.T, file []byte, adapters [2]*lora.File)) {
	for i, s := range adapterShapes {
		s.Layers, s.Vocab, s.Ctx, s.RopeBase, s.Seed = 3, testmodel.MinVocab, 1024, 10000, uint64(i)
		t.Run(fmt.Sprintf("%s %v", s.Arch, s.Type), func(t *testing.T) {
			var files [2]*lora.File
			for j, a := range s.adapters {
				a.Seed = uint64(j)
				files[j] = parseAdapter(t, testmodel.BuildAdapter(s.Config, a))
			}
			f(t, testmodel.Build(s.Config), files)
		})
	}
}

// merge adds scale·B·A to the matrices of a model of float32, in float64.
func merge(t *testing.T, b []byte, f *lora.File, scale float64) []byte {
	t.Helper()
	merged := 0
	values := func(x lora.Tensor) []float32 {
		v := make([]float32, x.Rows*x.Cols)
		if err := gguf.Dequantize(x.Type, x.Data, v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	out := rewrite(t, b, func(_ *gguf.Writer, key string) bool { return !strings.HasPrefix(key, "tokenizer.") }, func(w *gguf.Writer, x *gguf.Tensor) bool {
		i := slices.IndexFunc(f.Pairs, func(p lora.Pair) bool { return p.Base == x.Name })
		if i < 0 {
			return true
		}
		merged++
		p := &f.Pairs[i]
		down, up := values(p.A), values(p.B)
		v := values(lora.Tensor{Type: x.Type, Rows: x.Rows(), Cols: x.RowLen(), Data: x.Data})
		for r := range x.Rows() {
			for c := range x.RowLen() {
				sum := 0.0
				for k := range p.Rank() {
					sum += float64(up[r*p.Rank()+k]) * float64(down[k*p.A.Cols+c])
				}
				v[r*x.RowLen()+c] += float32(scale * p.Scale * sum)
			}
		}
		data, err := gguf.Quantize(gguf.F32, v)
		if err != nil {
			t.Fatal(err)
		}
		w.AddTensor(x.Name, gguf.F32, x.Dims, data)
		return false
	})
	if merged != len(f.Pairs) {
		t.Fatalf("%d of %d pairs merged", merged, len(f.Pairs))
	}
	return out
}

// adaptedLogits computes all rows in chunks, on two workers.
func adaptedLogits(t *testing.T, m *model.Model, ids []int32, chunk int, uses ...model.AdapterUse) [][]float32 {
	t.Helper()
	tm := team.New(2, nil)
	defer tm.Close()
	s := m.NewScratch(chunk, 2)
	bs := m.Layout.BlockSize
	n := (len(ids) + bs - 1) / bs
	mem, table := newBlocks(n, m.Layout), make([]int32, n)
	for i := range table {
		table[i] = int32(i)
	}
	var rows [][]float32
	for pos := 0; pos < len(ids); pos += chunk {
		n := min(chunk, len(ids)-pos)
		b := &model.Batch{Tokens: ids[pos : pos+n], Segs: []model.Segment{{N: n, Pos: pos, Table: table, Logits: n, Adapters: uses}}}
		if _, err := m.Forward(tm, 2, s, b, mem); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			rows = append(rows, slices.Clone(m.LogitRow(s, i)))
		}
	}
	return rows
}

func someIDs(rng *rand.Rand, n, vocab int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(3 + rng.IntN(vocab-3))
	}
	return ids
}

// difference is the largest one, as a share of the range of b's values.
func difference(a, b []float32) float64 {
	diff := 0.0
	for i := range a {
		diff = max(diff, math.Abs(float64(a[i])-float64(b[i])))
	}
	return diff / float64(slices.Max(b)-slices.Min(b))
}

// An adapter does what the merged weights do, up to rounding, and so do two, with scales of their own.
func TestAdapterEqualsMerged(t *testing.T) {
	adapterModels(t, func(t *testing.T, file []byte, adapters [2]*lora.File) {
		o := model.Options{Path: kernel.Available()[0], BlockSize: 32, Accurate: true}
		base := loadBytes(t, file, o)
		a, b := adapt(t, base, adapters[0]), adapt(t, base, adapters[1])
		ids := someIDs(rand.New(rand.NewPCG(1, 2)), 200, base.Vocab)
		plain := adaptedLogits(t, base, ids, 70)
		for _, c := range []struct {
			name string
			uses []model.AdapterUse
			file []byte
		}{
			{"first", []model.AdapterUse{{Adapter: a, Scale: 1}}, merge(t, file, adapters[0], 1)},
			{"second", []model.AdapterUse{{Adapter: b, Scale: -0.5}}, merge(t, file, adapters[1], -0.5)},
			{"both", []model.AdapterUse{{Adapter: b, Scale: 2}, {Adapter: a, Scale: 0.7}}, merge(t, merge(t, file, adapters[0], 0.7), adapters[1], 2)},
		} {
			got := adaptedLogits(t, base, ids, 70, c.uses...)
			want := adaptedLogits(t, loadBytes(t, c.file, o), ids, 70)
			worst, effect := 0.0, 0.0
			for i := range got {
				worst, effect = max(worst, difference(got[i], want[i])), max(effect, difference(got[i], plain[i]))
			}
			t.Logf("%s: largest difference %.2g of the logits' range, the adapter makes %.2g", c.name, worst, effect)
			if !(worst < 2e-3) {
				t.Errorf("%s differs from merged weights by %.2g of the logits' range", c.name, worst)
			}
			if effect < 0.02 {
				t.Errorf("%s changes the logits by %.2g of their range only", c.name, effect)
			}
		}
	})
}

// Rows of sequences with different adapters and with none, in steps of all kinds on any number of workers: each has the bits of its
// sequence computed alone, row by row, on any path; and those without adapters the bits of a model that has none.
func TestAdaptersRowByRow(t *testing.T) {
	adapterModels(t, func(t *testing.T, file []byte, adapters [2]*lora.File) {
		const sequences, length, maxRows = 6, 300, 400
		rng := rand.New(rand.NewPCG(3, 4))
		o := model.Options{BlockSize: 64}
		var tokens [sequences][]int32
		for q := range tokens {
			tokens[q] = someIDs(rng, length, testmodel.MinVocab)
		}
		uses := func(a, b *model.Adapter) [sequences][]model.AdapterUse {
			x, y := model.AdapterUse{Adapter: a, Scale: 1}, model.AdapterUse{Adapter: b, Scale: 0.5}
			return [...][]model.AdapterUse{nil, {x}, {y}, {x, y}, {y, x}, {{Adapter: a, Scale: 0.25}}}
		}
		var want [sequences][][]float32
		for i, path := range kernel.Available() {
			o.Path = path
			m := loadBytes(t, file, o)
			list := uses(adapt(t, m, adapters[0]), adapt(t, m, adapters[1]))
			if i == 0 {
				for q := range tokens {
					want[q] = adaptedLogits(t, m, tokens[q], 1, list[q]...)
				}
				for i, row := range logits(t, loadBytes(t, file, o), tokens[0], 1) {
					if !slices.Equal(row, want[0][i]) {
						t.Fatalf("a sequence without adapters differs at position %d", i)
					}
				}
				for q := range want[1:] {
					if slices.Equal(want[q][length-1], want[q+1][length-1]) {
						t.Fatalf("sequences %d and %d have the same logits", q, q+1)
					}
				}
			}
			cut := tokens
			if i > 0 { // the kernels are compared elsewhere: this is about which rows they are given
				for q := range cut {
					cut[q] = cut[q][:100]
				}
			}
			compareMixed(t, m, rng, cut[:], list[:], want[:], maxRows)
		}
	})
}

// compareMixed computes the sequences in random batches.
func compareMixed(t *testing.T, m *model.Model, rng *rand.Rand, tokens [][]int32, uses [][]model.AdapterUse, want [][][]float32, maxRows int) {
	t.Helper()
	const maxWorkers = 3
	tm := team.New(maxWorkers, nil)
	defer tm.Close()
	s := m.NewScratch(maxRows, maxWorkers)
	bs := m.Layout.BlockSize
	each := (len(tokens[0]) + bs - 1) / bs
	mem, done := newBlocks(len(tokens)*each, m.Layout), make([]int, len(tokens))
	for slices.Min(done) < len(tokens[0]) {
		b := &model.Batch{}
		type row struct{ q, pos int }
		var wanted []row
		for _, q := range rng.Perm(len(tokens)) {
			left := len(tokens[q]) - done[q]
			n := []int{0, 1, 1, 2 + rng.IntN(7), 1 + rng.IntN(130)}[rng.IntN(5)]
			if n = min(n, left, maxRows-len(b.Tokens)); n == 0 {
				continue
			}
			table := make([]int32, each)
			for i := range table {
				table[i] = int32(q*each + i)
			}
			g := model.Segment{Start: len(b.Tokens), N: n, Pos: done[q], Table: table, Logits: rng.IntN(n + 1), Adapters: uses[q]}
			b.Segs = append(b.Segs, g)
			b.Tokens = append(b.Tokens, tokens[q][done[q]:done[q]+n]...)
			done[q] += n
			for pos := done[q] - g.Logits; pos < done[q]; pos++ {
				wanted = append(wanted, row{q, pos})
			}
		}
		if len(b.Segs) == 0 {
			continue
		}
		workers := 1 + rng.IntN(maxWorkers)
		if _, err := m.Forward(tm, workers, s, b, mem); err != nil {
			t.Fatal(err)
		}
		for i, r := range wanted {
			for j, v := range m.LogitRow(s, i) {
				if w := want[r.q][r.pos][j]; math.Float32bits(v) != math.Float32bits(w) {
					t.Fatalf("%v, %d workers: sequence %d, position %d: logit %d is %v, want %v", m.Path, workers, r.q, r.pos, j, v, w)
				}
			}
		}
	}
}

// A step with adapters allocates nothing once its buffers are there.
func TestAdaptedStepAllocatesNothing(t *testing.T) {
	cfg := testmodel.Tiny
	m := loadBytes(t, testmodel.Build(cfg), model.Options{Path: kernel.Available()[0], BlockSize: 32})
	a := adapt(t, m, parseAdapter(t, testmodel.BuildAdapter(cfg, testmodel.Adapter{Rank: 8, Alpha: 8, Type: gguf.F16})))
	tm := team.New(1, nil)
	defer tm.Close()
	s := m.NewScratch(4, 1)
	var mem model.Blocks = newBlocks(2, m.Layout)
	b := &model.Batch{Tokens: []int32{5, 6}, Segs: []model.Segment{{N: 1, Table: []int32{0}, Logits: 1, Adapters: []model.AdapterUse{{Adapter: a, Scale: 1}}}, {Start: 1, N: 1, Table: []int32{1}, Logits: 1}}}
	step := func() {
		if _, err := m.Forward(tm, 1, s, b, mem); err != nil {
			t.Fatal(err)
		}
	}
	step()
	if n := testing.AllocsPerRun(20, step); n != 0 {
		t.Errorf("%v allocations a step", n)
	}
}

func TestAdaptErrors(t *testing.T) {
	cfg := testmodel.Tiny
	o := model.Options{Path: kernel.Available()[0], BlockSize: 32}
	m := loadBytes(t, testmodel.Build(cfg), o)
	other, tied, moe := cfg, cfg, cfg
	other.Embd = 64
	tied.TiedHead = true
	moe.Arch, moe.Experts, moe.Used = "qwen3moe", 4, 2
	adapter := testmodel.Adapter{Rank: 4, Alpha: 4, Type: gguf.F32}
	tiny := parseAdapter(t, testmodel.BuildAdapter(cfg, adapter))
	with := func(base string) *lora.File {
		p := tiny.Pairs[0]
		p.Base = base
		return &lora.File{Arch: tiny.Arch, Pairs: []lora.Pair{p}}
	}
	gemma := *tiny
	gemma.Arch = "gemma3"
	strange := with(tiny.Pairs[0].Base)
	strange.Pairs[0].A.Type = gguf.IQ1_S
	for _, c := range []struct {
		name string
		m    *model.Model
		f    *lora.File
		is   error
		says string
	}{
		{"architecture", m, &gemma, model.ErrUnsupported, "gemma3"},
		{"shape", m, parseAdapter(t, testmodel.BuildAdapter(other, adapter)), lora.ErrFormat, "64"},
		{"no head", loadBytes(t, testmodel.Build(tied), o), tiny, lora.ErrFormat, "output.weight"},
		{"unknown", m, with("blk.9.attn_q.weight"), lora.ErrFormat, "blk.9.attn_q.weight"},
		{"embeddings", loadBytes(t, testmodel.Build(tied), o), with("token_embd.weight"), model.ErrUnsupported, "embeddings"},
		{"embeddings of their own", m, with("token_embd.weight"), model.ErrUnsupported, "embeddings"},
		{"norm", m, with("blk.0.attn_norm.weight"), lora.ErrFormat, "attn_norm"},
		{"experts", loadBytes(t, testmodel.Build(moe), o), &lora.File{Pairs: with("blk.0.ffn_up_exps.weight").Pairs}, model.ErrUnsupported, "ffn_up_exps"},
		{"type", m, strange, model.ErrUnsupported, "IQ1_S"},
	} {
		a, err := c.m.Adapt(c.f)
		if a != nil || !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}

	second := loadBytes(t, testmodel.Build(cfg), o)
	a := adapt(t, second, tiny)
	tm := team.New(1, nil)
	defer tm.Close()
	b := &model.Batch{Tokens: []int32{1}, Segs: []model.Segment{{N: 1, Table: []int32{0}, Adapters: []model.AdapterUse{{Adapter: a, Scale: 1}}}}}
	if _, err := m.Forward(tm, 1, m.NewScratch(1, 1), b, newBlocks(1, m.Layout)); err == nil || !strings.Contains(err.Error(), "another model") {
		t.Errorf("a step with another model's adapter: %v", err)
	}
}
