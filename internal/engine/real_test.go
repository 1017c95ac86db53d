package engine_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"
	"unsafe"

	"kvasir/internal/engine"
	"kvasir/internal/gguf"
	"kvasir/internal/hub"
	"kvasir/internal/kernel"
	"kvasir/internal/model"
	"kvasir/internal/store"
)

// realModel is the default model's file.
func realModel(t *testing.T) string { return catalogModel(t, hub.Catalog()[0].Name) }

// catalogModel is the file of a model of the catalog; it is fetched if it is not there.
func catalogModel(t *testing.T, name string) string {
	t.Helper()
	m, err := hub.Resolve(context.Background(), name, hub.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m.Path
}

// A rig is an engine with a block table for one sequence at each multiple of span blocks.
type rig struct {
	*engine.Engine
	m    *model.Model
	span int
}

func open(t *testing.T, file string, p kernel.Path, threads, rows, span, sequences int) *rig {
	t.Helper()
	return openWith(t, file, model.Options{Path: p, BlockSize: 32}, threads, rows, span, sequences)
}

func openWith(t *testing.T, file string, o model.Options, threads, rows, span, sequences int) *rig {
	t.Helper()
	f, err := gguf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(f, o)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := store.NewMemory(span*sequences, m.Layout.BlockBytes())
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(m, mem, engine.Options{Threads: threads, MaxRows: rows})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); m.Close(); mem.Close() })
	return &rig{e, m, span}
}

func (r *rig) table(sequence int) []int32 {
	t := make([]int32, r.span)
	for i := range t {
		t[i] = int32(sequence*r.span + i)
	}
	return t
}

// run computes tokens of sequence 0 from position pos on, in the given chunks, and returns the last row's logits.
func (r *rig) run(t *testing.T, tokens []int32, pos, chunk int) []float32 {
	t.Helper()
	for pos < len(tokens) {
		n := min(chunk, len(tokens)-pos)
		err := r.Step(&engine.Batch{Tokens: tokens[pos : pos+n], Segs: []engine.Segment{{N: n, Pos: pos, Table: r.table(0), Logits: 1}}})
		if err != nil {
			t.Fatal(err)
		}
		pos += n
	}
	return r.Logits(0)
}

func digest(logits []float32) string {
	return fmt.Sprintf("%x", sha256.Sum256(unsafe.Slice((*byte)(unsafe.Pointer(&logits[0])), len(logits)*4)))
}

type reference struct {
	Cases []struct {
		Kind   string    `json:"kind"`
		IDs    []int32   `json:"ids"`
		TopIDs []int32   `json:"top_ids"`
		TopLP  []float64 `json:"top_logprobs"`
		NLL    float64   `json:"nll"`
		Greedy []int32   `json:"greedy"`
		Margin []float64 `json:"margin"`
		SafeN  int       `json:"safe_n"`
	} `json:"cases"`
}

func loadReference(t *testing.T) *reference { return readReference(t, "smollm2-135m.json") }

func readReference(t *testing.T, file string) *reference {
	t.Helper()
	b, err := os.ReadFile("../testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	r := new(reference)
	if err := json.Unmarshal(b, r); err != nil {
		t.Fatal(err)
	}
	return r
}

// What a catalog model must reach against values from transformers in float32 on the same weights, dequantised.
var bounds = map[string]struct {
	file        string
	text, cases int     // equal greedy texts, of so many
	diff        float64 // mean |difference of the best token's log-probability|
	nll         float64 // relative, of texts of more than 100 tokens
	longest     int     // text whose own tokens are scored: a large vocabulary takes its time
}{
	"smollm2-135m-instruct": {"smollm2-135m.json", 20, 22, 0.14, 0.01, 2000},
	"gemma3-270m":           {"gemma3-270m.json", 14, 16, 0.06, 0.01, 700},
}

// Every model of the catalog against its reference.
func TestReference(t *testing.T) {
	for _, entry := range hub.Catalog() {
		b, ok := bounds[entry.Name]
		if !ok {
			t.Errorf("no reference for the catalog's %s", entry.Name)
			continue
		}
		t.Run(entry.Name, func(t *testing.T) {
			r := open(t, catalogModel(t, entry.Name), kernel.Available()[0], 2, 64, 60, 1)
			cases := readReference(t, b.file).Cases
			var diff float64
			var greedy, withText int
			for i, c := range cases {
				lp, nll, best := r.score(t, c.IDs, len(c.IDs) <= b.longest)
				if c.Margin[0] >= 0.2 && best != c.TopIDs[0] {
					t.Errorf("case %d: best token %d, want %d", i, best, c.TopIDs[0])
				}
				diff += math.Abs(lp - c.TopLP[0])
				if len(c.IDs) > 100 && len(c.IDs) <= b.longest && math.Abs(nll/c.NLL-1) > b.nll {
					t.Errorf("case %d: mean NLL %.4f over %d tokens, want %.4f", i, nll, len(c.IDs), c.NLL)
				}
				if c.SafeN == 0 {
					continue
				}
				withText++
				if r.follows(t, c.IDs, best, c.Greedy[:c.SafeN]) {
					greedy++
				}
			}
			diff /= float64(len(cases))
			t.Logf("greedy text equal in %d of %d, mean |difference of log-probability| %.4f", greedy, withText, diff)
			if greedy < b.text || withText != b.cases || diff > b.diff {
				t.Errorf("greedy text equal in %d of %d, mean difference %.4f", greedy, withText, diff)
			}
		})
	}
}

// score computes a text: the best next token, its log-probability, and, if all is set, the mean negative log-likelihood of the text's
// own tokens.
func (r *rig) score(t *testing.T, ids []int32, all bool) (lp, nll float64, best int32) {
	t.Helper()
	for pos := 0; pos < len(ids); {
		n := min(64, len(ids)-pos)
		wanted := 1
		if all {
			wanted = n
		}
		if err := r.Step(&engine.Batch{Tokens: ids[pos : pos+n], Segs: []engine.Segment{{N: n, Pos: pos, Table: r.table(0), Logits: wanted}}}); err != nil {
			t.Fatal(err)
		}
		for k := range wanted {
			if next := pos + k + 1; all && next < len(ids) {
				nll -= logProb(r.Logits(k), int(ids[next]))
			}
		}
		if pos += n; pos == len(ids) {
			i := argmax(r.Logits(wanted - 1))
			best, lp = int32(i), logProb(r.Logits(wanted-1), i)
		}
	}
	return lp, nll / float64(len(ids)-1), best
}

// follows reports whether greedy generation behind ids, whose next token is known, gives the tokens of want.
func (r *rig) follows(t *testing.T, ids []int32, next int32, want []int32) bool {
	t.Helper()
	for i, w := range want {
		if next != w {
			return false
		}
		if i == len(want)-1 {
			break
		}
		if err := r.Step(&engine.Batch{Tokens: []int32{next}, Segs: []engine.Segment{{N: 1, Pos: len(ids) + i, Table: r.table(0), Logits: 1}}}); err != nil {
			t.Fatal(err)
		}
		next = int32(argmax(r.Logits(0)))
	}
	return true
}

// In accurate mode nothing is left but the rounding of K and V to f16: the short texts of every model of the catalog.
func TestReferenceAccurate(t *testing.T) {
	for _, entry := range hub.Catalog() {
		t.Run(entry.Name, func(t *testing.T) {
			r := openWith(t, catalogModel(t, entry.Name), model.Options{Path: kernel.Available()[0], BlockSize: 32, Accurate: true}, 2, 64, 60, 1)
			diff, n := 0.0, 0
			for i, c := range readReference(t, bounds[entry.Name].file).Cases {
				if len(c.IDs) > 100 {
					continue
				}
				lp, nll, best := r.score(t, c.IDs, true)
				if c.Margin[0] >= 0.01 && best != c.TopIDs[0] || math.Abs(nll/c.NLL-1) > 0.001 {
					t.Errorf("case %d: best token %d, want %d; mean NLL %.4f, want %.4f", i, best, c.TopIDs[0], nll, c.NLL)
				}
				if !r.follows(t, c.IDs, best, c.Greedy[:c.SafeN]) {
					t.Errorf("case %d: the greedy text differs", i)
				}
				diff += math.Abs(lp - c.TopLP[0])
				n++
			}
			t.Logf("mean |difference of log-probability| %.4f", diff/float64(n))
			if !(diff/float64(n) < 0.002) {
				t.Errorf("mean |difference of log-probability| %.4f", diff/float64(n))
			}
		})
	}
}

func argmax(x []float32) int {
	best := 0
	for i, v := range x {
		if v > x[best] {
			best = i
		}
	}
	return best
}

func logProb(x []float32, i int) float64 {
	m := float64(x[argmax(x)])
	s := 0.0
	for _, v := range x {
		s += math.Exp(float64(v) - m)
	}
	return float64(x[i]) - m - math.Log(s)
}

// One 300-token prompt of the default model: equal bits in any chunks, from any warm prefix, among strangers, with one or
// two threads, on every instruction set.
func TestRealModelIsExact(t *testing.T) {
	file := realModel(t)
	prompt := loadReference(t).Cases[16].IDs[:300]
	strangers := loadReference(t).Cases[15].IDs
	want := ""
	for _, p := range kernel.Available() {
		if p == kernel.Go {
			continue // slow: see below
		}
		for _, threads := range []int{1, 2} {
			r := open(t, file, p, threads, 1200, 10, 16)
			check := func(what string, logits []float32) {
				t.Helper()
				if want == "" {
					want = digest(logits)
				}
				if digest(logits) != want {
					t.Errorf("%v, %d threads, %s: logits differ", p, threads, what)
				}
			}
			// All of it on the best instruction set and two threads, a selection on the others.
			all := p == kernel.Available()[0] && threads == 2
			for i, chunk := range []int{300, 37, 16, 128} {
				if all || i < 2 {
					check(fmt.Sprint("chunks of ", chunk), r.run(t, prompt, 0, chunk))
				}
			}
			// Sequence 0 now holds the prompt, and sequence 1 gets another text. Warm at k: the whole blocks of sequence 0, a copy of its
			// partly shared block, and blocks of sequence 1 as they are: what stood there before must not matter.
			if err := r.Step(&engine.Batch{Tokens: strangers[:300], Segs: []engine.Segment{{N: 300, Table: r.table(1)}}}); err != nil {
				t.Fatal(err)
			}
			for i, k := range []int{299, 298, 288, 257, 256, 255, 64, 33, 32, 31, 2, 1} {
				if !all && i%3 != threads {
					continue
				}
				table := append(append([]int32(nil), r.table(0)[:k/32]...), r.table(1)[k/32:]...)
				if k%32 > 0 {
					r.Copy(table[k/32], r.table(0)[k/32], k%32)
				}
				if err := r.Step(&engine.Batch{Tokens: prompt[k:], Segs: []engine.Segment{{N: 300 - k, Pos: k, Table: table, Logits: 1}}}); err != nil {
					t.Fatal(err)
				}
				check(fmt.Sprint("warm at ", k), r.Logits(0))
			}
			for _, n := range []int{5, 2, 16} {
				if !all && n != 5 {
					continue
				}
				b := &engine.Batch{}
				for s := range n {
					seg := engine.Segment{Start: len(b.Tokens), Pos: 0, Table: r.table(s), N: 1 + s*7, Logits: 1}
					toks := strangers[s : s+seg.N]
					if s == n/2 {
						toks, seg.N = prompt, len(prompt)
					}
					b.Tokens, b.Segs = append(b.Tokens, toks...), append(b.Segs, seg)
				}
				if err := r.Step(b); err != nil {
					t.Fatal(err)
				}
				check(fmt.Sprintf("in a batch of %d", n), r.Logits(n/2))
			}
		}
	}
}

// The portable kernels give the same bits on the default model, 64 tokens of it.
func TestRealModelPortable(t *testing.T) {
	file := realModel(t)
	prompt := loadReference(t).Cases[16].IDs[:64]
	want := ""
	for _, p := range kernel.Available() {
		got := digest(open(t, file, p, 2, 64, 4, 1).run(t, prompt, 0, 64))
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("%v: logits differ", p)
		}
	}
}

func TestMalformedBatches(t *testing.T) {
	r := open(t, realModel(t), kernel.Available()[0], 1, 8, 4, 1)
	seg := func(n, pos, blocks, logits int) []engine.Segment {
		return []engine.Segment{{N: n, Pos: pos, Table: r.table(0)[:blocks], Logits: logits}}
	}
	for what, b := range map[string]*engine.Batch{
		"no rows":            {},
		"too many rows":      {Tokens: make([]int32, 9), Segs: seg(9, 0, 4, 1)},
		"unknown token":      {Tokens: []int32{int32(r.m.Vocab)}, Segs: seg(1, 0, 4, 1)},
		"negative token":     {Tokens: []int32{-1}, Segs: seg(1, 0, 4, 1)},
		"short table":        {Tokens: []int32{1, 2}, Segs: seg(2, 31, 1, 1)},
		"beyond the context": {Tokens: []int32{1}, Segs: seg(1, r.m.Context, 4, 1)},
		"too many logits":    {Tokens: []int32{1}, Segs: seg(1, 0, 4, 2)},
		"rows missing":       {Tokens: []int32{1, 2}, Segs: seg(1, 0, 4, 1)},
	} {
		if err := r.Step(b); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
