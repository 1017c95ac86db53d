package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

// A builder writes raw files, malformed ones too.
type builder struct{ data []byte }

func (b *builder) bytes(v ...byte) *builder { b.data = append(b.data, v...); return b }
func (b *builder) u32(v uint32) *builder {
	b.data = binary.LittleEndian.AppendUint32(b.data, v)
	return b
}
func (b *builder) u64(v uint64) *builder {
	b.data = binary.LittleEndian.AppendUint64(b.data, v)
	return b
}
func (b *builder) str(s string) *builder    { b.u64(uint64(len(s))); return b.bytes([]byte(s)...) }
func (b *builder) raw(s string) *builder    { b.data = append(b.data, s...); return b }
func (b *builder) typ(t ValueType) *builder { return b.u32(uint32(t)) }

func (b *builder) header(version uint32, tensors, pairs uint64) *builder {
	return b.raw("GGUF").u32(version).u64(tensors).u64(pairs)
}

func (b *builder) tensor(name string, t Type, offset uint64, dims ...uint64) *builder {
	b.str(name).u32(uint32(len(dims)))
	for _, d := range dims {
		b.u64(d)
	}
	return b.u32(uint32(t)).u64(offset)
}

// body pads to the default alignment and appends n bytes of tensor data.
func (b *builder) body(n int) *builder {
	b.bytes(make([]byte, padding(uint64(len(b.data)), defaultAlignment))...)
	return b.bytes(make([]byte, n)...)
}

// malformed has files that must be refused, with a part of the error that says why.
func malformed() map[string]struct {
	b    *builder
	want string
} {
	type file = struct {
		b    *builder
		want string
	}
	h := func(tensors, pairs uint64) *builder { return new(builder).header(3, tensors, pairs) }
	pair := func(t ValueType) *builder { return h(0, 1).str("k").typ(t) }
	return map[string]file{
		"empty":         {new(builder), "magic"},
		"magic cut":     {new(builder).raw("GGU"), "magic"},
		"wrong magic":   {new(builder).raw("GGML").u32(3).u64(0).u64(0), `"GGML"`},
		"version cut":   {new(builder).raw("GGUF\x03"), "version"},
		"version 0":     {new(builder).header(0, 0, 0), "version 0"},
		"version 1":     {new(builder).header(1, 0, 0), "only 2 and 3"},
		"version 4":     {new(builder).header(4, 0, 0), "version 4"},
		"big-endian v3": {new(builder).header(3<<24, 0, 0), "big-endian"},
		"big-endian v2": {new(builder).header(2<<24, 0, 0), "big-endian"},
		"counts cut":    {new(builder).raw("GGUF").u32(3).u64(0).u32(0), "metadata count"},

		// 24 to 49 bytes that made other servers allocate without bound or index out of range.
		"huge tensor count":       {h(math.MaxUint64, 0), "tensors do not fit"},
		"huge pair count":         {h(0, math.MaxUint64), "pairs do not fit"},
		"pair count times size":   {h(0, 1<<61), "pairs do not fit"},
		"huge key":                {h(0, 1).u64(math.MaxUint64).bytes(make([]byte, 20)...), "metadata key of"},
		"key beyond the end":      {h(0, 1).u64(20).bytes(make([]byte, 6)...), "metadata key of 20 bytes"},
		"huge string":             {pair(typeString).u64(math.MaxInt64 - 8), "string of"},
		"string length wraps":     {pair(typeString).u64(math.MaxUint64 - 40), "string of"},
		"huge array":              {pair(typeArray).typ(typeUint64).u64(1 << 61), "does not fit"},
		"huge array of strings":   {pair(typeArray).typ(typeString).u64(1 << 60), "does not fit"},
		"huge array of arrays":    {pair(typeArray).typ(typeArray).u64(1 << 60), "does not fit"},
		"array of unknown type":   {pair(typeArray).u32(13).u64(0), "element type 13"},
		"array cut":               {pair(typeArray).typ(typeInt32).u64(2).u32(0), "does not fit"},
		"string in array cut":     {pair(typeArray).typ(typeString).u64(2).str("abcdefgh").u64(1), "string of 1"},
		"array header cut":        {pair(typeArray).typ(typeInt32), "array length"},
		"unknown value type":      {pair(13).u64(0), "value type 13"},
		"largest value type":      {pair(math.MaxUint32).u64(0), "value type 4294967295"},
		"value cut":               {pair(typeUint64).u32(0), "value of 8 bytes"},
		"bool of 2":               {pair(typeBool).bytes(2), "bool is 2"},
		"bool of 255 in array":    {pair(typeArray).typ(typeBool).u64(2).bytes(1, 255), "bool is 255"},
		"empty key":               {h(0, 1).str("").typ(typeUint64).u64(0), "must be 1 to"},
		"long key":                {h(0, 1).str(strings.Repeat("k", maxKeyLen+1)).typ(typeBool).bytes(1), "must be 1 to"},
		"key twice":               {h(0, 3).str("k").typ(typeBool).bytes(1).str("a").typ(typeBool).bytes(1).str("k").typ(typeInt8).bytes(1), `key "k" occurs twice`},
		"nested too deep":         {nested(maxArrayDepth + 1), "nested deeper"},
		"nested very deep":        {nested(1000), "nested deeper"},
		"alignment 0":             {h(0, 1).str(alignmentKey).typ(typeUint32).u32(0), "power of two"},
		"alignment 4":             {h(0, 1).str(alignmentKey).typ(typeUint32).u32(4), "power of two"},
		"alignment 48":            {h(0, 1).str(alignmentKey).typ(typeUint32).u32(48), "power of two"},
		"alignment 2^31":          {h(0, 1).str(alignmentKey).typ(typeUint32).u32(1 << 31), "power of two"},
		"alignment 2^63":          {h(0, 1).str(alignmentKey).typ(typeUint64).u64(1 << 63), "power of two"},
		"negative alignment":      {h(0, 1).str(alignmentKey).typ(typeInt32).u32(1 << 31), "power of two"},
		"alignment as string":     {h(0, 1).str(alignmentKey).typ(typeString).str("32"), "power of two"},
		"no dimensions":           {h(1, 0).tensor("t", I8, 0).body(64), "0 dimensions"},
		"five dimensions":         {h(1, 0).tensor("t", I8, 0, 1, 1, 1, 1, 1).body(64), "5 dimensions"},
		"2^32-1 dimensions":       {h(1, 0).str("t").u32(math.MaxUint32).body(64), "4294967295 dimensions"},
		"dimension 0":             {h(1, 0).tensor("t", I8, 0, 4, 0).body(64), "dimension 1 is 0"},
		"dimensions overflow":     {h(1, 0).tensor("t", I8, 0, 1<<32, 1<<32).body(64), "overflow"},
		"dimensions overflow 2":   {h(1, 0).tensor("t", I8, 0, 1<<31, 1<<31, 1<<31, 1<<31).body(64), "overflow"},
		"dimensions overflow 3":   {h(1, 0).tensor("t", I8, 0, 1<<63).body(64), "overflow"},
		"size overflows":          {h(1, 0).tensor("t", F64, 0, 1<<61).body(64), "overflow"},
		"size overflows to 0":     {h(1, 0).tensor("t", F32, 0, 1<<62).body(64), "overflow"},
		"padded size overflows":   {h(1, 0).tensor("t", I8, 0, math.MaxInt64).body(64), "tensor data"},
		"part of a block":         {h(1, 0).tensor("t", Q4_0, 0, 16, 2).body(64), "not a multiple of 32"},
		"part of a big block":     {h(1, 0).tensor("t", Q6_K, 0, 32, 8).body(512), "not a multiple of 256"},
		"removed type":            {h(1, 0).tensor("t", 4, 0, 32).body(64), "unknown tensor type 4"},
		"type from the future":    {h(1, 0).tensor("t", 43, 0, 32).body(64), "unknown tensor type 43"},
		"largest type":            {h(1, 0).tensor("t", math.MaxUint32, 0, 32).body(64), "unknown tensor type 4294967295"},
		"data beyond the end":     {h(1, 0).tensor("t", F32, 0, 17).body(64), "64 bytes of tensor data"},
		"offset beyond the end":   {h(1, 0).tensor("t", F32, 128, 1).body(64), "64 bytes of tensor data"},
		"offset+size wraps":       {h(1, 0).tensor("t", F32, math.MaxUint64-31, 16).body(64), "64 bytes of tensor data"},
		"offset not aligned":      {h(1, 0).tensor("t", F32, 16, 4).body(64), "not a multiple of the alignment"},
		"no tensor data":          {h(1, 0).tensor("t", I8, 0, 1).bytes(0, 0), "before the tensor data"},
		"tensors overlap":         {h(2, 0).tensor("a", F32, 0, 16).tensor("b", F32, 32, 8).body(64), "lies before 64"},
		"tensors share data":      {h(2, 0).tensor("a", F32, 0, 16).tensor("b", F32, 0, 16).body(64), "lies before 64"},
		"tensors out of order":    {h(2, 0).tensor("a", F32, 32, 8).tensor("b", F32, 0, 8).body(64), "lies before 64"},
		"tensor twice":            {h(2, 0).tensor("t", F32, 0, 8).tensor("t", F32, 32, 8).body(64), `tensor "t" occurs twice`},
		"empty tensor name":       {h(1, 0).tensor("", F32, 0, 8).body(64), "must be 1 to"},
		"long tensor name":        {h(1, 0).tensor(strings.Repeat("n", maxTensorName+1), F32, 0, 8).body(64), "must be 1 to"},
		"tensor table cut":        {h(1, 0).str("a tensor with a name that is long enough").u32(2).u64(1), "dimension of 8 bytes"},
		"fewer tensors than said": {h(2, 0).tensor("t", F32, 0, 8).body(64), "must be 1 to"},
		"name breaks the line":    {h(1, 0).tensor("a\nb\x1b[31m", 77, 0, 32).body(64), `"a\nb\x1b[31m"`},
	}
}

func nested(depth int) *builder {
	b := new(builder).header(3, 0, 1).str("k").typ(typeArray)
	for range depth - 1 {
		b.typ(typeArray).u64(1)
	}
	return b.typ(typeInt32).u64(1).u32(7)
}

func TestMalformed(t *testing.T) {
	for name, file := range malformed() {
		t.Run(name, func(t *testing.T) {
			data := slices.Clip(file.b.data)
			f, err := parseBounded(t, data)
			switch {
			case err == nil:
				t.Fatal("no error")
			case f != nil:
				t.Error("a file beside the error")
			case !errors.Is(err, ErrFormat):
				t.Errorf("%v is not an ErrFormat", err)
			case !strings.Contains(err.Error(), file.want):
				t.Errorf("%q does not say %q", err, file.want)
			}
			path := filepath.Join(t.TempDir(), "bad.gguf")
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: %v", err)
			}
		})
	}
}

// Odd files that are none the less right.
func TestOddButRight(t *testing.T) {
	for name, b := range map[string]*builder{
		"nothing":           new(builder).header(3, 0, 0),
		"nothing, v2":       new(builder).header(2, 0, 0),
		"trailing bytes":    new(builder).header(3, 0, 0).bytes(1, 2, 3),
		"deepest nesting":   nested(maxArrayDepth),
		"empty nesting":     new(builder).header(3, 0, 1).str("k").typ(typeArray).typ(typeArray).u64(0),
		"last one unpadded": new(builder).header(3, 2, 0).tensor("a", I8, 0, 1).tensor("b", I8, 32, 1).body(33),
		"a gap":             new(builder).header(3, 2, 0).tensor("a", I8, 32, 1).tensor("b", I8, 128, 1).body(160),
		"key of 65535":      new(builder).header(3, 0, 1).str(strings.Repeat("k", maxKeyLen)).typ(typeBool).bytes(1),
		"name of 255":       new(builder).header(3, 1, 0).tensor(strings.Repeat("n", maxTensorName), I8, 0, 1).body(1),
	} {
		f, err := parseBounded(t, b.data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		checkInvariants(t, f, b.data)
	}
}

func TestTruncated(t *testing.T) {
	data := sample(t, 3, 32)
	f, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	last := &f.Tensors[len(f.Tensors)-1]
	end := int(uintptr(unsafe.Pointer(&last.Data[0]))-uintptr(unsafe.Pointer(&data[0]))) + len(last.Data)
	for n := range len(data) {
		_, err := Parse(slices.Clone(data[:n]))
		if n >= end {
			if err != nil {
				t.Errorf("only padding is missing at %d bytes: %v", n, err)
			}
		} else if !errors.Is(err, ErrFormat) {
			t.Errorf("%d of %d bytes: %v", n, len(data), err)
		}
	}
}

// Every byte of the header is set to other values. Whatever comes out, it must be an error or a File that holds together.
func TestFlipped(t *testing.T) {
	data := sample(t, 3, 32)
	refused := 0
	for i := range data {
		old := data[i]
		for _, v := range []byte{0, 1, 0x7f, 0x80, 0xff, old ^ 1, old ^ 8, old ^ 32} {
			data[i] = v
			f, err := Parse(data)
			if err == nil {
				checkInvariants(t, f, data)
			} else if refused++; !errors.Is(err, ErrFormat) {
				t.Errorf("byte %d set to %d: %v", i, v, err)
			}
		}
		data[i] = old
	}
	if refused < 1000 {
		t.Errorf("only %d changes were refused", refused)
	}
}

// The smallest pairs and tensors there are cost the most memory for their bytes.
func TestAllocationBound(t *testing.T) {
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._"
	name := func(i int) string {
		s := ""
		for ; i >= 0; i = i/len(alphabet) - 1 {
			s += string(alphabet[i%len(alphabet)])
		}
		return s
	}
	const n = 60_000
	var pairs, tensors, both builder
	pairs.header(3, 0, n)
	tensors.header(3, n, 1).str(alignmentKey).typ(typeUint32).u32(minAlignment)
	both.header(3, n, n+1).str(alignmentKey).typ(typeUint32).u32(minAlignment)
	for i := range n {
		pairs.str(name(i)).typ(typeBool).bytes(1)
		both.str(name(i)).typ(typeBool).bytes(1)
	}
	for i := range n {
		tensors.tensor(name(i), I8, uint64(i)*minAlignment, 1)
		both.tensor(name(i), I8, uint64(i)*minAlignment, 1)
	}
	tensors.body(n * minAlignment)
	both.body(n * minAlignment)
	for what, b := range map[string]*builder{"pairs": &pairs, "tensors": &tensors, "both": &both} {
		f, err := parseBounded(t, b.data)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, i := range []int{0, 1, n / 2, n - 1} {
			if _, ok := f.Tensor(name(i)); ok != (b != &pairs) {
				t.Errorf("%s: tensor %s found: %v", what, name(i), ok)
			}
			if ok := f.Has(name(i)); ok != (b != &tensors) {
				t.Errorf("%s: key %s found: %v", what, name(i), ok)
			}
		}
	}
}

// The getters keep the same bound: a reader that asks for everything once must not be made to allocate more.
func TestGetterAllocationBound(t *testing.T) {
	const n = 100_000
	for _, elem := range []ValueType{typeString, typeInt32, typeUint32, typeInt64, typeFloat32, typeFloat64, typeBool, typeUint8, typeInt8, typeUint16} {
		var b builder
		b.header(3, 0, 1).str("k").typ(typeArray).typ(elem).u64(n)
		size := elem.size()
		if elem == typeString {
			size = 8 // empty ones
		}
		b.bytes(make([]byte, n*size)...)
		f, err := Parse(b.data)
		if err != nil {
			t.Fatal(err)
		}
		for name, get := range map[string]func() bool{
			"Strings": func() bool { _, ok := f.Strings("k"); return ok },
			"Ints":    func() bool { _, ok := f.Ints("k"); return ok },
			"Floats":  func() bool { _, ok := f.Floats("k"); return ok },
			"Bools":   func() bool { _, ok := f.Bools("k"); return ok },
			"Bytes":   func() bool { _, ok := f.Bytes("k"); return ok },
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			ok := get()
			runtime.ReadMemStats(&after)
			if got, most := after.TotalAlloc-before.TotalAlloc, 2*uint64(len(b.data))+64<<10; got > most {
				t.Errorf("%s of %d %s (%v) allocated %d, more than %d", name, n, elem, ok, got, most)
			}
		}
	}
}

// parseBounded is Parse, held to its promise about memory. The constant is for errors, for the rounding of allocations
// to the allocator's sizes, and for what the testing package does meanwhile.
func parseBounded(tb testing.TB, data []byte) (*File, error) {
	tb.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f, err := Parse(data)
	runtime.ReadMemStats(&after)
	if got, most := after.TotalAlloc-before.TotalAlloc, 2*uint64(len(data))+64<<10; got > most {
		tb.Errorf("Parse of %d bytes allocated %d, more than %d", len(data), got, most)
	}
	return f, err
}

// checkInvariants holds a parsed file to what the package promises of any file.
func checkInvariants(tb testing.TB, f *File, data []byte) {
	tb.Helper()
	base := uintptr(unsafe.Pointer(unsafe.SliceData(data)))
	end := uintptr(0)
	names := map[string]bool{}
	for i := range f.Tensors {
		t := &f.Tensors[i]
		at := uintptr(unsafe.Pointer(unsafe.SliceData(t.Data))) - base
		if at < end || at > uintptr(len(data)) || uintptr(len(t.Data)) > uintptr(len(data))-at || at%uintptr(f.Alignment) != 0 {
			tb.Errorf("tensor %d: %d bytes at %d of %d, after %d", i, len(t.Data), at, len(data), end)
		}
		end = at + uintptr(len(t.Data))
		if len(t.Data) == 0 || t.Rows()*t.RowBytes() != len(t.Data) || t.RowLen()%t.Type.BlockLen() != 0 || cap(t.Data) != len(t.Data) {
			tb.Errorf("tensor %d: %d rows of %d bytes, %d bytes", i, t.Rows(), t.RowBytes(), len(t.Data))
		}
		if got, ok := f.Tensor(t.Name); !ok || got != t || names[t.Name] {
			tb.Errorf("tensor %d (%q) cannot be found by its name", i, t.Name)
		}
		names[t.Name] = true
		values := make([]float32, t.RowLen())
		err := Dequantize(t.Type, t.Data[:t.RowBytes()], values)
		if err != nil && !errors.Is(err, ErrType) {
			tb.Errorf("tensor %d: %v", i, err)
		}
	}
	keys := f.Keys()
	if !slices.IsSorted(keys) || len(slices.Compact(slices.Clone(keys))) != len(keys) {
		tb.Errorf("keys are not sorted or not unique: %q", keys)
	}
	for _, k := range keys {
		typeOf, ok := f.TypeOf(k)
		if !ok || !f.Has(k) || strings.Contains(typeOf, "value type") {
			tb.Errorf("key %q: %q, %v", k, typeOf, ok)
		}
		found := 0
		count := func(ok bool) {
			if ok {
				found++
			}
		}
		s, ok := f.String(k)
		count(ok && bytes.Contains(data, []byte(s)))
		_, ok = f.Uint(k)
		_, ok2 := f.Int(k)
		count(ok || ok2)
		_, ok = f.Float(k)
		count(ok)
		_, ok = f.Bool(k)
		count(ok)
		n, isArray := f.Len(k)
		sized := func(got int, ok bool) {
			count(ok)
			if ok && (!isArray || got != n) {
				tb.Errorf("key %q: %d elements of %d", k, got, n)
			}
		}
		ss, ok := f.Strings(k)
		sized(len(ss), ok)
		is, ok := f.Ints(k)
		sized(len(is), ok)
		fs, ok := f.Floats(k)
		sized(len(fs), ok)
		bs, ok := f.Bools(k)
		sized(len(bs), ok)
		by, ok := f.Bytes(k)
		sized(len(by), ok)
		if found > 1 || found == 0 && !isArray {
			tb.Errorf("key %q of type %s: %d getters answer", k, typeOf, found)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample(f, 3, 32))
	f.Add(sample(f, 2, 8))
	f.Add(nested(maxArrayDepth).data)
	for _, file := range malformed() {
		if len(file.b.data) < 1000 {
			f.Add(file.b.data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := parseBounded(t, data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("%v is not an ErrFormat", err)
			}
			return
		}
		checkInvariants(t, file, data)
	})
}
