package gguf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// splitModel describes a model to be written in parts.
type splitModel struct {
	counts []int // tensors of each part
	seed   uint64
	change func(part int, w *Writer) // more keys of a part
	no     func(part int) uint32     // nil: the part
	count  func(part int) uint32     // nil: all
	total  func(part int) uint32     // nil: the sum
	rename func(part, tensor int) string
}

func call(f func(int) uint32, part int, def uint32) uint32 {
	if f == nil {
		return def
	}
	return f(part)
}

// parts returns the files, and what Open must give.
func (m splitModel) parts(t testing.TB) (files [][]byte, names []string, data map[string][]byte) {
	t.Helper()
	r := rand.New(rand.NewPCG(m.seed, 1))
	total := 0
	for _, n := range m.counts {
		total += n
	}
	data = map[string][]byte{}
	i := 0
	for part, n := range m.counts {
		w := NewWriter()
		if part == 0 {
			w.SetString("general.architecture", "llama")
			w.SetStrings("tokenizer.ggml.tokens", []string{"a", "b"})
		}
		w.SetUint32(splitNoKey, call(m.no, part, uint32(part)))
		w.SetUint32(splitCountKey, call(m.count, part, uint32(len(m.counts))))
		w.SetInt32(splitTensorsKey, int32(call(m.total, part, uint32(total))))
		if m.change != nil {
			m.change(part, w)
		}
		for range n {
			b := make([]byte, 4*(1+r.IntN(40)))
			for k := range b {
				b[k] = byte(r.Uint32())
			}
			name := fmt.Sprintf("t%d", i*7919%1000) // not in the order of the files
			if m.rename != nil {
				name = m.rename(part, i)
			}
			w.AddTensor(name, F32, []uint64{uint64(len(b) / 4)}, b)
			names, data[name] = append(names, name), b
			i++
		}
		b, err := w.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, b)
	}
	return files, names, data
}

// write writes the files under the names of parts of "m" and returns their paths.
func write(t testing.TB, files [][]byte) []string {
	t.Helper()
	dir := t.TempDir()
	paths := PartNames(fmt.Sprintf("m-00001-of-%05d.gguf", len(files)))
	for i, b := range files {
		paths[i] = filepath.Join(dir, paths[i])
		if err := os.WriteFile(paths[i], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

func TestSplitOpensByAnyPart(t *testing.T) {
	for _, counts := range [][]int{{3, 2, 4}, {0, 5}, {2, 0, 1}, {1}} {
		files, names, data := splitModel{counts: counts, seed: uint64(len(counts))}.parts(t)
		paths := write(t, files)
		size := 0
		for _, b := range files {
			size += len(b)
		}
		for _, path := range paths {
			f, err := Open(path)
			if err != nil {
				t.Fatalf("%v: %v", counts, err)
			}
			if got, err := Parts(path); err != nil || !slices.Equal(got, paths) {
				t.Errorf("%v: parts %v, %v", counts, got, err)
			}
			var order []string
			for i := range f.Tensors {
				ten := &f.Tensors[i]
				order = append(order, ten.Name)
				if found, ok := f.Tensor(ten.Name); !ok || found != ten {
					t.Errorf("%v: %s is not found by its name", counts, ten.Name)
				}
				f.Drop(ten)
				if !bytes.Equal(ten.Data, data[ten.Name]) {
					t.Errorf("%v: %s has other data", counts, ten.Name)
				}
			}
			if !slices.Equal(order, names) {
				t.Errorf("%v: order %v, want %v", counts, order, names)
			}
			if arch, _ := f.String("general.architecture"); arch != "llama" || f.Size() != int64(size) {
				t.Errorf("%v: architecture %q, size %d, want %d", counts, arch, f.Size(), size)
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestSplitFaults(t *testing.T) {
	three := splitModel{counts: []int{1, 1, 1}}
	is := func(v uint32, at int) func(int) uint32 {
		return func(part int) uint32 {
			if part == at {
				return v
			}
			return 3
		}
	}
	for _, c := range []struct {
		name  string
		model splitModel
		files func(paths []string) string // changes the files and returns which to open; nil: the first
		is    error
		want  []string
	}{
		{"two missing", three, func(p []string) string { os.Remove(p[0]); os.Remove(p[2]); return p[1] }, fs.ErrNotExist, []string{"2 of the 3 parts", "m-00001-of-00003.gguf", "m-00003-of-00003.gguf"}},
		{"name says nothing", three, func(p []string) string {
			to := filepath.Join(filepath.Dir(p[0]), "model.gguf")
			os.Rename(p[0], to)
			return to
		}, ErrFormat, []string{"part 1 of 3", "-00001-of-00003.gguf"}},
		{"name of another part", three, func(p []string) string { os.Rename(p[0], p[2]); return p[2] }, ErrFormat, []string{"part 1 of 3"}},
		{"parts in the wrong order", three, func(p []string) string {
			os.Rename(p[1], p[1]+"x")
			os.Rename(p[2], p[1])
			os.Rename(p[1]+"x", p[2])
			return p[0]
		}, ErrFormat, []string{"it is part 3, not 2"}},
		{"foreign count", splitModel{counts: []int{1, 1, 1}, count: is(4, 2)}, nil, ErrFormat, []string{"m-00003", "one of 4 parts"}},
		{"foreign total", splitModel{counts: []int{1, 1, 1}, total: is(9, 1)}, nil, ErrFormat, []string{"m-00002", splitTensorsKey}},
		{"tensors missing", splitModel{counts: []int{1, 1, 1}, total: func(int) uint32 { return 4 }}, nil, ErrFormat, []string{"3 tensors", "says 4"}},
		{"negative total", splitModel{counts: []int{1, 1, 1}, total: func(int) uint32 { return 1 << 31 }}, nil, ErrFormat, []string{splitTensorsKey}},
		{"foreign metadata", splitModel{counts: []int{1, 1}, change: func(part int, w *Writer) { w.SetString("general.name", fmt.Sprint(part)) }}, nil, ErrFormat, []string{"m-00002", "general.name"}},
		{"number beyond the count", splitModel{counts: []int{1, 1}, no: func(int) uint32 { return 2 }}, nil, ErrFormat, []string{splitNoKey}},
		{"count too large", splitModel{counts: []int{1}, count: func(int) uint32 { return 1 << 20 }}, nil, ErrFormat, []string{splitCountKey}},
		{"tensor twice", splitModel{counts: []int{1, 1}, rename: func(int, int) string { return "same" }}, nil, ErrFormat, []string{"same", "two parts"}},
		{"damaged part", three, func(p []string) string { os.Truncate(p[1], 40); return p[2] }, ErrFormat, []string{"m-00002"}},
		{"other part is no split", three, func(p []string) string {
			w := NewWriter()
			w.SetString("a", "b")
			w.WriteFile(p[1])
			return p[0]
		}, ErrFormat, []string{"m-00002", "one of 1 parts"}},
	} {
		files, _, _ := c.model.parts(t)
		paths := write(t, files)
		open := paths[0]
		if c.files != nil {
			open = c.files(paths)
		}
		f, err := Open(open)
		if err == nil {
			f.Close()
		}
		if !errors.Is(err, c.is) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q lacks %q", c.name, err, w)
			}
		}
	}
}

// A whole file may have any name.
func TestWholeFileWithANameOfAPart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m-00001-of-00009.gguf")
	if err := os.WriteFile(path, sample(t, 3, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if p, err := Parts(path); err != nil || len(p) != 1 {
		t.Errorf("%v, %v", p, err)
	}
}

func TestSplitName(t *testing.T) {
	for _, c := range []struct {
		name, stem  string
		part, parts int
	}{
		{"m-00002-of-00003.gguf", "m", 2, 3},
		{"a-00001-of-00002-00001-of-00001.GGUF", "a-00001-of-00002", 1, 1},
		{"-00001-of-00001.gguf", "", 1, 1},
		{"m-00004-of-00003.gguf", "", 0, 0},
		{"m-00000-of-00003.gguf", "", 0, 0},
		{"m-1-of-3.gguf", "", 0, 0},
		{"m.gguf", "", 0, 0},
	} {
		stem, part, parts, ok := SplitName(c.name)
		if ok != (c.parts > 0) || ok && (stem != c.stem || part != c.part || parts != c.parts) {
			t.Errorf("%s: %q %d %d %v", c.name, stem, part, parts, ok)
		}
		names := PartNames(c.name)
		if ok && names[part-1] != c.name || len(names) != max(1, c.parts) {
			t.Errorf("%s: names %v", c.name, names)
		}
	}
}

func FuzzJoin(f *testing.F) {
	for _, counts := range [][]int{{1, 1}, {0, 3}, {2, 2}} {
		files, _, _ := splitModel{counts: counts}.parts(f)
		f.Add(files[0], files[1])
		f.Add(files[1], files[0])
		f.Add(files[0], files[0])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var files []*File
		for _, data := range [][]byte{a, b} {
			p, err := Parse(data)
			if err != nil {
				return
			}
			files = append(files, p)
		}
		n := len(files[0].Tensors) + len(files[1].Tensors)
		all, err := join(files, []string{"a", "b"})
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v is not an ErrFormat", err)
			}
			return
		}
		if len(all.Tensors) != n || all.Size() != int64(len(a)+len(b)) {
			t.Fatalf("%d tensors of %d, %d bytes", len(all.Tensors), n, all.Size())
		}
		for i := range all.Tensors {
			ten := &all.Tensors[i]
			if found, ok := all.Tensor(ten.Name); !ok || found != ten {
				t.Fatalf("%q is not found by its name", ten.Name)
			}
			if len(ten.Data) != ten.Rows()*ten.RowBytes() {
				t.Fatalf("%q has %d bytes", ten.Name, len(ten.Data))
			}
		}
	})
}
