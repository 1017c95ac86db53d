package gguf

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"
)

// sample is a small file with every kind of value that Writer knows and tensors of several shapes.
func sample(tb testing.TB, version, alignment uint32) []byte {
	tb.Helper()
	w := NewWriter()
	w.SetVersion(version)
	w.SetString("general.architecture", "llama")
	if alignment != defaultAlignment {
		w.SetUint32(alignmentKey, alignment)
	}
	w.SetString("empty", "")
	w.SetUint32("u32", 4_000_000_000)
	w.SetInt32("i32", -7)
	w.SetUint64("u64", math.MaxUint64)
	w.SetFloat32("f32", 0.1)
	w.SetFloat64("f64", 0.1)
	w.SetBool("yes", true)
	w.SetBool("no", false)
	w.SetStrings("strings", []string{"a", "", "Ġthe", "\x00\xff"})
	w.SetStrings("strings.none", nil)
	w.SetInts("ints", []int32{1, -2, math.MaxInt32})
	w.SetFloats("floats", []float32{0.5, -3})
	w.SetBools("bools", []bool{true, false})
	w.SetBytes("bytes", []byte{0, 1, 255})
	for i, t := range sampleTensors {
		w.AddTensor(t.name, t.typ, t.dims, fill(t.size, byte(i+1)))
	}
	b, err := w.Bytes()
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

var sampleTensors = []struct {
	name    string
	typ     Type
	dims    []uint64
	size    int
	rowLen  int
	rows    int
	rowSize int
}{
	{"token_embd.weight", Q4_1, []uint64{64, 3}, 120, 64, 3, 40},
	{"output_norm.weight", F32, []uint64{5}, 20, 5, 1, 20},
	{"a", I8, []uint64{1}, 1, 1, 1, 1},
	{"blk.0.attn_q.weight", Q6_K, []uint64{256, 1, 2, 1}, 420, 256, 2, 210},
}

func fill(n int, v byte) []byte { return bytes.Repeat([]byte{v}, n) }

func TestRoundTrip(t *testing.T) {
	for _, version := range []uint32{2, 3} {
		for _, alignment := range []uint32{8, 32, 4096} {
			t.Run(fmt.Sprintf("v%d align %d", version, alignment), func(t *testing.T) {
				data := sample(t, version, alignment)
				f, err := Parse(data)
				if err != nil {
					t.Fatal(err)
				}
				if f.Version != version || f.Alignment != int(alignment) || f.Size() != int64(len(data)) {
					t.Errorf("version %d, alignment %d, size %d", f.Version, f.Alignment, f.Size())
				}
				checkSample(t, f)
				checkInvariants(t, f, data)
			})
		}
	}
}

func checkSample(t *testing.T, f *File) {
	t.Helper()
	type result struct {
		Value any
		OK    bool
	}
	res := func(v any, ok bool) result { return result{v, ok} }
	get := map[string]func(string) result{
		"String":  func(k string) result { v, ok := f.String(k); return res(v, ok) },
		"Uint":    func(k string) result { v, ok := f.Uint(k); return res(v, ok) },
		"Int":     func(k string) result { v, ok := f.Int(k); return res(v, ok) },
		"Float":   func(k string) result { v, ok := f.Float(k); return res(v, ok) },
		"Bool":    func(k string) result { v, ok := f.Bool(k); return res(v, ok) },
		"Strings": func(k string) result { v, ok := f.Strings(k); return res(v, ok) },
		"Ints":    func(k string) result { v, ok := f.Ints(k); return res(v, ok) },
		"Floats":  func(k string) result { v, ok := f.Floats(k); return res(v, ok) },
		"Bools":   func(k string) result { v, ok := f.Bools(k); return res(v, ok) },
		"Bytes":   func(k string) result { v, ok := f.Bytes(k); return res(v, ok) },
		"Len":     func(k string) result { v, ok := f.Len(k); return res(v, ok) },
		"TypeOf":  func(k string) result { v, ok := f.TypeOf(k); return res(v, ok) },
	}
	// What a key gives, getter by getter; getters that are not named give nothing.
	want := map[string]map[string]any{
		"general.architecture": {"String": "llama", "TypeOf": "string"},
		"empty":                {"String": "", "TypeOf": "string"},
		"u32":                  {"Uint": uint64(4_000_000_000), "Int": int64(4_000_000_000), "TypeOf": "uint32"},
		"i32":                  {"Int": int64(-7), "TypeOf": "int32"},
		"u64":                  {"Uint": uint64(math.MaxUint64), "TypeOf": "uint64"},
		"f32":                  {"Float": float64(float32(0.1)), "TypeOf": "float32"},
		"f64":                  {"Float": 0.1, "TypeOf": "float64"},
		"yes":                  {"Bool": true, "TypeOf": "bool"},
		"no":                   {"Bool": false, "TypeOf": "bool"},
		"strings":              {"Strings": []string{"a", "", "Ġthe", "\x00\xff"}, "Len": 4, "TypeOf": "array of string"},
		"strings.none":         {"Strings": []string{}, "Len": 0, "TypeOf": "array of string"},
		"ints":                 {"Ints": []int64{1, -2, math.MaxInt32}, "Len": 3, "TypeOf": "array of int32"},
		"floats":               {"Floats": []float64{0.5, -3}, "Len": 2, "TypeOf": "array of float32"},
		"bools":                {"Bools": []bool{true, false}, "Len": 2, "TypeOf": "array of bool"},
		"bytes":                {"Bytes": []byte{0, 1, 255}, "Len": 3, "TypeOf": "array of uint8"},
		"absent":               {},
		"":                     {},
		"u3":                   {},
		"u322":                 {},
	}
	for key, values := range want {
		if has := f.Has(key); has != (len(values) > 0) {
			t.Errorf("Has(%q) is %v", key, has)
		}
		for name, getter := range get {
			got := getter(key)
			v, ok := values[name]
			if got.OK != ok || ok && !cmp.Equal(got.Value, v) {
				t.Errorf("%s(%q) = %v, want %v, %v", name, key, got, v, ok)
			}
		}
	}
	for i, w := range sampleTensors {
		tensor, ok := f.Tensor(w.name)
		if !ok {
			t.Errorf("no tensor %s", w.name)
			continue
		}
		if tensor != &f.Tensors[i] {
			t.Errorf("%s is not tensor %d of the file", w.name, i)
		}
		if tensor.Name != w.name || tensor.Type != w.typ || !slices.Equal(tensor.Dims, w.dims) {
			t.Errorf("tensor %s is %s %s %d", w.name, tensor.Name, tensor.Type, tensor.Dims)
		}
		if tensor.RowLen() != w.rowLen || tensor.Rows() != w.rows || tensor.RowBytes() != w.rowSize {
			t.Errorf("%s: %d rows of %d values, %d bytes", w.name, tensor.Rows(), tensor.RowLen(), tensor.RowBytes())
		}
		if !bytes.Equal(tensor.Data, fill(w.size, byte(i+1))) {
			t.Errorf("%s: wrong data", w.name)
		}
	}
	for _, name := range []string{"", "b", "token_embd", "zzz"} {
		if _, ok := f.Tensor(name); ok {
			t.Errorf("found a tensor %q", name)
		}
	}
}

func TestIntegerTypes(t *testing.T) {
	var b builder
	b.header(3, 0, 8)
	for _, v := range []struct {
		t     ValueType
		value uint64
	}{
		{typeUint8, 200}, {typeInt8, 0x80}, {typeUint16, 50_000}, {typeInt16, 0xffff},
		{typeUint32, 1 << 31}, {typeInt32, 1 << 31}, {typeUint64, 1 << 63}, {typeInt64, 1 << 63},
	} {
		b.str(v.t.String()).u32(uint32(v.t))
		for range v.t.size() {
			b.bytes(byte(v.value))
			v.value >>= 8
		}
	}
	f, err := Parse(b.data)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []struct {
		key    string
		u      uint64
		uok    bool
		i      int64
		iok    bool
		typeOf string
	}{
		{"uint8", 200, true, 200, true, "uint8"},
		{"int8", 0, false, -128, true, "int8"},
		{"uint16", 50_000, true, 50_000, true, "uint16"},
		{"int16", 0, false, -1, true, "int16"},
		{"uint32", 1 << 31, true, 1 << 31, true, "uint32"},
		{"int32", 0, false, math.MinInt32, true, "int32"},
		{"uint64", 1 << 63, true, 0, false, "uint64"},
		{"int64", 0, false, math.MinInt64, true, "int64"},
	} {
		u, uok := f.Uint(w.key)
		i, iok := f.Int(w.key)
		typeOf, _ := f.TypeOf(w.key)
		if u != w.u || uok != w.uok || i != w.i || iok != w.iok || typeOf != w.typeOf {
			t.Errorf("%s: Uint %d %v, Int %d %v, type %s", w.key, u, uok, i, iok, typeOf)
		}
	}
	want := []string{"int16", "int32", "int64", "int8", "uint16", "uint32", "uint64", "uint8"}
	if diff := cmp.Diff(want, f.Keys()); diff != "" {
		t.Errorf("Keys: %s", diff)
	}
}

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	data := sample(t, 3, 32)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	checkSample(t, f)
	for i := range f.Tensors {
		f.Drop(&f.Tensors[i])
		if at := uintptr(unsafe.Pointer(&f.Tensors[i].Data[0])); at%uintptr(f.Alignment) != 0 {
			t.Errorf("tensor %d lies at %#x", i, at)
		}
	}
	f.Drop(&Tensor{Data: []byte{1}})
	f.Drop(&Tensor{})
	checkSample(t, f)
	name := f.Tensors[0].Name
	list, _ := f.Strings("strings")
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if name != "token_embd.weight" || list[2] != "Ġthe" {
		t.Error("strings changed with Close")
	}
	if _, ok := f.Tensor(name); ok || f.Has("u32") || f.Size() != 0 || len(f.Keys()) != 0 {
		t.Error("a closed file still answers")
	}
}

func TestTypes(t *testing.T) {
	known := 0
	for n := range Type(100) {
		if !n.Known() {
			if n.BlockLen() != 0 || n.BlockBytes() != 0 || n.String() != fmt.Sprintf("type(%d)", n) {
				t.Errorf("unknown type %d: %d, %d, %s", uint32(n), n.BlockLen(), n.BlockBytes(), n)
			}
			continue
		}
		known++
		if got, ok := ParseType(n.String()); !ok || got != n {
			t.Errorf("ParseType(%s) = %d, %v", n, got, ok)
		}
		// No type spends less than one bit or more than 64 bits on a value.
		if bits := 8 * n.BlockBytes(); bits < n.BlockLen() || bits > 64*n.BlockLen() {
			t.Errorf("%s: %d bytes for %d values", n, n.BlockBytes(), n.BlockLen())
		}
	}
	if known != 35 {
		t.Errorf("%d types, want 35", known)
	}
	if Type(math.MaxUint32).Known() {
		t.Error("the largest number is a type")
	}
	if got, ok := ParseType("q4_1"); !ok || got != Q4_1 {
		t.Errorf("q4_1 is %d", got)
	}
	if _, ok := ParseType(""); ok {
		t.Error("the empty name is a type")
	}
}

func TestZeroTensor(t *testing.T) {
	var z Tensor
	if z.RowLen() != 0 || z.Rows() != 0 || z.RowBytes() != 0 {
		t.Error("the zero Tensor has a size")
	}
	z = Tensor{Type: 99, Dims: []uint64{3}}
	if z.RowBytes() != 0 {
		t.Error("an unknown type has a size")
	}
}

func TestWriterErrors(t *testing.T) {
	one := []uint64{1}
	for name, add := range map[string]func(w *Writer){
		"version":          func(w *Writer) { w.SetVersion(1) },
		"empty key":        func(w *Writer) { w.SetBool("", true) },
		"long key":         func(w *Writer) { w.SetBool(string(fill(maxKeyLen+1, 'k')), true) },
		"key twice":        func(w *Writer) { w.SetBool("k", true); w.SetString("k", "") },
		"alignment":        func(w *Writer) { w.SetUint32(alignmentKey, 24) },
		"late alignment":   func(w *Writer) { w.AddTensor("t", I8, one, []byte{1}); w.SetUint32(alignmentKey, 64) },
		"tensor twice":     func(w *Writer) { w.AddTensor("t", I8, one, []byte{1}); w.AddTensor("t", I8, one, []byte{1}) },
		"no tensor name":   func(w *Writer) { w.AddTensor("", I8, one, []byte{1}) },
		"long tensor name": func(w *Writer) { w.AddTensor(string(fill(maxTensorName+1, 'n')), I8, one, []byte{1}) },
		"unknown type":     func(w *Writer) { w.AddTensor("t", 77, one, []byte{1}) },
		"data too short":   func(w *Writer) { w.AddTensor("t", F32, one, []byte{1}) },
		"part of a block":  func(w *Writer) { w.AddTensor("t", Q4_0, []uint64{16, 2}, fill(18, 0)) },
		"no dimensions":    func(w *Writer) { w.AddTensor("t", I8, nil, nil) },
	} {
		w := NewWriter()
		add(w)
		if _, err := w.Bytes(); err == nil {
			t.Errorf("%s: no error", name)
		}
		path := filepath.Join(t.TempDir(), "f")
		if err := w.WriteFile(path); err == nil {
			t.Errorf("%s: written to a file", name)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: a file was left: %v", name, err)
		}
	}
}

func TestWriteFile(t *testing.T) {
	w := NewWriter()
	w.SetString("k", "v")
	w.AddTensor("t", F16, []uint64{3}, fill(6, 9))
	want, err := w.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "f")
	if err := w.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file differs from Bytes (%v)", err)
	}
	for n := range len(want) {
		if _, err := w.WriteTo(&fullDisk{room: n}); err == nil {
			t.Errorf("no error on a disk with room for %d bytes", n)
		}
	}
}

// fullDisk takes room bytes and fails then.
type fullDisk struct{ room int }

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) > d.room {
		return d.room, os.ErrClosed
	}
	d.room -= len(p)
	return len(p), nil
}
