package model_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/model"
	"kvasir/internal/team"
)

// references lists the models of testdata, which make.py there makes.
func references(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.gguf.gz")
	if err != nil || len(files) < len(model.Architectures) {
		t.Fatalf("%d reference models for %d architectures (%v)", len(files), len(model.Architectures), err)
	}
	for i, f := range files {
		files[i] = strings.TrimSuffix(filepath.Base(f), ".gguf.gz")
	}
	return files
}

func unpack(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name + ".gguf.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b
}

func loadBytes(t *testing.T, b []byte, o model.Options) *model.Model {
	t.Helper()
	f, err := gguf.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// logits computes all rows in chunks, on two workers.
func logits(t *testing.T, m *model.Model, ids []int32, chunk int) [][]float32 {
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
		b := &model.Batch{Tokens: ids[pos : pos+n], Segs: []model.Segment{{N: n, Pos: pos, Table: table, Logits: n}}}
		if _, err := m.Forward(tm, 2, s, b, mem); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			rows = append(rows, append([]float32(nil), m.LogitRow(s, i)...))
		}
	}
	return rows
}

// Every architecture in accurate mode against transformers in float32.
func TestReference(t *testing.T) {
	seen := map[string]bool{}
	for _, name := range references(t) {
		t.Run(name, func(t *testing.T) {
			var want struct {
				IDs    []int32
				Logits map[int][]float32
			}
			b, err := os.ReadFile("testdata/" + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			m := loadBytes(t, unpack(t, name), model.Options{Path: kernel.Available()[0], BlockSize: 32, Accurate: true})
			seen[m.Arch] = true
			got := logits(t, m, want.IDs, 100)
			worst, where := 0.0, 0
			for pos, row := range want.Logits {
				low, high, diff := math.Inf(1), math.Inf(-1), 0.0
				for i, w := range row {
					low, high = min(low, float64(w)), max(high, float64(w))
					diff = max(diff, math.Abs(float64(got[pos][i]-w)))
				}
				if rel := diff / (high - low); rel > worst || math.IsNaN(rel) {
					worst, where = rel, pos
				}
			}
			t.Logf("largest difference %.2g of the logits' range", worst)
			if !(worst < 2e-3) { // K and V as f16 alone make some 1e-3
				t.Errorf("position %d differs by %.2g of the logits' range", where, worst)
			}
		})
	}
	for _, arch := range model.Architectures {
		if !seen[arch] {
			t.Errorf("no reference for %s", arch)
		}
	}
}

// rewrite gives the same model with metadata and tensors as change wants them: it returns false for those to leave out.
func rewrite(t *testing.T, b []byte, key func(w *gguf.Writer, key string) bool, tensor func(w *gguf.Writer, x *gguf.Tensor) bool) []byte {
	t.Helper()
	f, err := gguf.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	w := gguf.NewWriter()
	for _, k := range f.Keys() {
		if !key(w, k) {
			continue
		}
		if v, ok := f.String(k); ok {
			w.SetString(k, v)
		} else if v, ok := f.Bools(k); ok {
			w.SetBools(k, v)
		} else if v, ok := f.Uint(k); ok {
			w.SetUint32(k, uint32(v))
		} else if v, ok := f.Float(k); ok {
			w.SetFloat32(k, float32(v))
		} else {
			t.Fatalf("%s is of a type that this test does not copy", k)
		}
	}
	for i := range f.Tensors {
		if x := &f.Tensors[i]; tensor(w, x) {
			w.AddTensor(x.Name, x.Type, x.Dims, x.Data)
		}
	}
	out, err := w.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// requantise gives the same model with matrices of another type.
func requantise(t *testing.T, b []byte, typ gguf.Type) []byte {
	t.Helper()
	return rewrite(t, b, func(*gguf.Writer, string) bool { return true }, func(w *gguf.Writer, x *gguf.Tensor) bool {
		if len(x.Dims) == 1 || strings.Contains(x.Name, "ffn_gate_inp") {
			return true
		}
		v := make([]float32, x.Rows()*x.RowLen())
		if err := gguf.Dequantize(x.Type, x.Data, v); err != nil {
			t.Fatal(err)
		}
		data, err := gguf.Quantize(typ, v)
		if err != nil {
			t.Fatal(err)
		}
		w.AddTensor(x.Name, typ, x.Dims, data)
		return false
	})
}

// Every architecture with quantised weights, fast and accurate: any batches give the bits of one row at a time, and all
// paths the same.
func TestArchitecturesAreExact(t *testing.T) {
	for i, name := range references(t) {
		file := requantise(t, unpack(t, name), []gguf.Type{gguf.Q8_0, gguf.Q4_0, gguf.Q5_1}[i%3])
		for _, accurate := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, accurate %t", name, accurate), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(uint64(i), 9))
				o := model.Options{Path: kernel.Available()[0], BlockSize: []int{32, 64, 128}[i%3], Accurate: accurate}
				m := loadBytes(t, file, o)
				compareForward(t, m, rng)
				ids := make([]int32, 330)
				for p := range ids {
					ids[p] = int32(rng.IntN(m.Vocab))
				}
				want := logits(t, m, ids, 330)
				for _, o.Path = range kernel.Available() {
					for pos, row := range logits(t, loadBytes(t, file, o), ids, 77) {
						for j, v := range row {
							if math.Float32bits(v) != math.Float32bits(want[pos][j]) {
								t.Fatalf("%v: logit %d at position %d is %v, want %v", o.Path, j, pos, v, want[pos][j])
							}
						}
					}
				}
			})
		}
	}
}

// The modes have keys of their own, and bits of their own where weights are quantised.
func TestAccurateIsAnotherNumerics(t *testing.T) {
	file := requantise(t, unpack(t, "qwen3"), gguf.Q8_0)
	o := model.Options{Path: kernel.Available()[0], BlockSize: 32}
	fast := loadBytes(t, file, o)
	o.Accurate = true
	accurate := loadBytes(t, file, o)
	if fast.Numerics() != kernel.Revision || accurate.Numerics() == fast.Numerics() {
		t.Errorf("numerics %d and %d, the revision is %d", fast.Numerics(), accurate.Numerics(), kernel.Revision)
	}
	ids := []int32{1, 2, 3}
	if a, b := logits(t, fast, ids, 3), logits(t, accurate, ids, 3); a[2][0] == b[2][0] {
		t.Error("both modes give the same logit")
	}
}

func TestUnknownArchitecture(t *testing.T) {
	w := gguf.NewWriter()
	w.SetString("general.architecture", "unheard-of")
	w.AddTensor("token_embd.weight", gguf.F32, []uint64{32, 1}, make([]byte, 128))
	b, err := w.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	f, err := gguf.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	_, err = model.Load(f, model.Options{Path: kernel.Go, BlockSize: 32})
	if !errors.Is(err, model.ErrUnsupported) {
		t.Fatal(err)
	}
	for _, word := range append([]string{"unheard-of"}, model.Architectures...) {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not name %s: %v", word, err)
		}
	}
}
