package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sort"
	"unsafe"
)

const (
	magic            = "GGUF"
	maxDims          = 4
	maxKeyLen        = 65535
	maxTensorName    = 255 // ggml itself stops at 63, forks of it at 127
	maxArrayDepth    = 4   // arrays in arrays; nothing in use has them
	defaultAlignment = 32
	minAlignment     = 8 // the format's smallest
	maxAlignment     = 1 << 20
	alignmentKey     = "general.alignment"

	// The smallest pair: key length, a key of one byte, value type, a value of one byte.
	minPairBytes = 8 + 1 + 4 + 1
	// The smallest tensor: name length, a name of one byte, dimension count, one dimension, type, offset, and its data up
	// to where the next tensor may begin.
	minTensorBytes = 8 + 1 + 4 + 8 + 4 + 8 + minAlignment
)

// A cursor reads forward through data and keeps the first error. After an error every read gives zero and moves nothing.
type cursor struct {
	data []byte
	off  int // 0 <= off <= len(data)
	err  error
}

func (c *cursor) left() uint64 { return uint64(len(c.data) - c.off) }

func (c *cursor) fail(format string, args ...any) {
	if c.err == nil {
		c.err = fmt.Errorf("%w: at byte %d: %s", ErrFormat, c.off, fmt.Sprintf(format, args...))
	}
}

// take returns the next n bytes, or nil after an error.
func (c *cursor) take(n uint64, what string) []byte {
	if c.err != nil {
		return nil
	}
	if n > c.left() {
		c.fail("%s of %d bytes, but %d are left", what, n, c.left())
		return nil
	}
	b := c.data[c.off : c.off+int(n)]
	c.off += int(n)
	return b
}

func (c *cursor) u32(what string) uint32 {
	b := c.take(4, what)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint32(b)
}

func (c *cursor) u64(what string) uint64 {
	b := c.take(8, what)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

// str returns the bytes of a string, which alias data.
func (c *cursor) str(what string) []byte { return c.take(c.u64(what), what) }

// name is str with a length from 1 to limit.
func (c *cursor) name(what string, limit int) []byte {
	b := c.str(what)
	if c.err == nil && (len(b) == 0 || len(b) > limit) {
		c.off -= len(b)
		c.fail("%s of %d bytes, must be 1 to %d", what, len(b), limit)
		return nil
	}
	return b
}

// Parse reads a file that is in memory. The tensors' data aliases data, which must not change while the File is in use.
// Offsets are aligned within data; data itself may lie anywhere (Open maps it to a multiple of 4096 bytes or more).
func Parse(data []byte) (*File, error) {
	c := &cursor{data: data}
	f := &File{data: data, size: int64(len(data)), Alignment: defaultAlignment}
	nTensors, nPairs := c.header(f)
	c.metadata(f, nPairs)
	if c.err == nil {
		c.alignment(f)
	}
	c.tensors(f, nTensors)
	if c.err != nil {
		return nil, c.err
	}
	return f, nil
}

func (c *cursor) header(f *File) (nTensors, nPairs uint64) {
	if m := c.take(4, "magic"); c.err == nil && string(m) != magic {
		c.off = 0
		c.fail("magic is %q, must be %q", m, magic)
	}
	v := c.u32("version")
	switch {
	case c.err != nil:
	case v == 2 || v == 3:
	case v != 0 && v&0xffff == 0:
		c.fail("the file is big-endian; only little-endian files are supported")
	default:
		c.fail("version %d is not supported, only 2 and 3 are", v)
	}
	f.Version = v
	nTensors = c.u64("tensor count")
	nPairs = c.u64("metadata count")
	return nTensors, nPairs
}

// metadata checks every pair and keeps where each begins. Values are decoded by the getters, so that what a file makes us
// allocate here does not depend on what it contains.
func (c *cursor) metadata(f *File, n uint64) {
	if c.err != nil {
		return
	}
	if n > c.left()/minPairBytes {
		c.fail("%d metadata pairs do not fit in the %d bytes left", n, c.left())
		return
	}
	f.keys = make([]int, n)
	for i := range f.keys {
		f.keys[i] = c.off
		c.name("metadata key", maxKeyLen)
		c.skipValue(ValueType(c.u32("value type")), 0)
		if c.err != nil {
			return
		}
	}
	slices.SortFunc(f.keys, func(a, b int) int { return compare(f.keyAt(a), f.keyAt(b)) })
	for i := 1; i < len(f.keys); i++ {
		if k := f.keyAt(f.keys[i]); compare(k, f.keyAt(f.keys[i-1])) == 0 {
			c.fail("metadata key %s occurs twice", quote(k))
			return
		}
	}
}

func (c *cursor) alignment(f *File) {
	if !f.Has(alignmentKey) {
		return
	}
	a, ok := f.Uint(alignmentKey)
	if !ok || a < minAlignment || a > maxAlignment || a&(a-1) != 0 {
		c.fail("%s must be a power of two from %d to %d", alignmentKey, minAlignment, maxAlignment)
		return
	}
	f.Alignment = int(a)
}

// skipValue checks one value and moves behind it.
func (c *cursor) skipValue(t ValueType, depth int) {
	switch {
	case c.err != nil:
	case t == typeBool:
		c.bools(1)
	case t.size() != 0:
		c.take(uint64(t.size()), "value")
	case t == typeString:
		c.str("string")
	case t == typeArray:
		c.skipArray(depth + 1)
	default:
		c.off -= 4
		c.fail("unknown value type %d", uint32(t))
	}
}

func (c *cursor) skipArray(depth int) {
	t := ValueType(c.u32("array type"))
	n := c.u64("array length")
	if c.err != nil {
		return
	}
	var least uint64 // bytes that an element takes at least
	switch {
	case t.size() != 0:
		least = uint64(t.size())
	case t == typeString:
		least = 8
	case t == typeArray:
		least = 4 + 8
		if depth >= maxArrayDepth {
			c.fail("arrays nested deeper than %d", maxArrayDepth)
			return
		}
	default:
		c.fail("unknown array element type %d", uint32(t))
		return
	}
	if n > c.left()/least {
		c.fail("array of %d elements of %s does not fit in the %d bytes left", n, t, c.left())
		return
	}
	switch {
	case t == typeBool:
		c.bools(n)
	case t.size() != 0:
		c.take(n*least, "array") // no overflow: n <= left/least
	default:
		for range n {
			c.skipValue(t, depth)
			if c.err != nil {
				return
			}
		}
	}
}

func (c *cursor) bools(n uint64) {
	b := c.take(n, "bool")
	for i, v := range b {
		if v > 1 {
			c.off += i - len(b)
			c.fail("bool is %d, must be 0 or 1", v)
			return
		}
	}
}

// tensors reads the tensor table twice: first to check it and to learn how much memory it needs, then to fill that
// memory. What it allocates stays below twice the bytes of the tensors: minTensorBytes rests on it.
func (c *cursor) tensors(f *File, n uint64) {
	if c.err != nil || n == 0 {
		return
	}
	// The last tensor's data may stop short of the alignment.
	if n > (c.left()+minAlignment-1)/minTensorBytes || n > math.MaxUint32 {
		c.fail("%d tensors do not fit in the %d bytes left", n, c.left())
		return
	}
	first := *c
	var nNames, nDims int
	for range n {
		info := c.tensorInfo()
		if c.err != nil {
			return
		}
		nNames += len(info.name)
		nDims += info.nDims
	}
	// Tensor data begins at the next multiple of the alignment, counted from the start of the file.
	pad := uint64(-c.off) & uint64(f.Alignment-1)
	if pad > c.left() {
		c.fail("the file ends before the tensor data")
		return
	}
	start := c.off + int(pad)

	*c = first
	f.Tensors = make([]Tensor, n)
	names := make([]byte, 0, nNames)
	dims := make([]uint64, 0, nDims)
	for i := range f.Tensors {
		info := c.tensorInfo()
		a, b := len(names), len(dims)
		names = append(names, info.name...)
		dims = append(dims, info.dims[:info.nDims]...)
		f.Tensors[i] = Tensor{
			Name:   unsafe.String(unsafe.SliceData(names[a:]), len(names)-a), // names neither moves nor changes
			Type:   info.typ,
			Dims:   dims[b:len(dims):len(dims)],
			byName: uint32(i),
		}
	}
	c.place(f, start, first.off)
	if name, twice := f.index(); twice {
		c.fail("tensor %s occurs twice", quote([]byte(name)))
	}
}

// index sorts the tensors by name. A name that occurs twice is returned.
func (f *File) index() (name string, twice bool) {
	sort.Sort(byName(f.Tensors))
	for i := 1; i < len(f.Tensors); i++ {
		a, b := &f.Tensors[f.Tensors[i-1].byName], &f.Tensors[f.Tensors[i].byName]
		if a.Name == b.Name {
			return a.Name, true
		}
	}
	return "", false
}

// place sets the data of every tensor. Tensors lie in the order of the table and do not overlap (ggml demands this as
// well), so that all of them together are never larger than the file.
func (c *cursor) place(f *File, start, table int) {
	c.off = table
	end := uint64(0) // of the tensors placed so far, from start
	room := uint64(len(c.data) - start)
	for i := range f.Tensors {
		t := &f.Tensors[i]
		info := c.tensorInfo()
		if c.err != nil {
			return
		}
		switch off := info.offset; {
		case off%uint64(f.Alignment) != 0:
			c.fail("tensor %s: offset %d is not a multiple of the alignment %d", quote(info.name), off, f.Alignment)
		case off < end:
			c.fail("tensor %s: offset %d lies before %d, the end of the tensor before it", quote(info.name), off, end)
		case off > room || info.bytes > room-off:
			c.fail("tensor %s: %d bytes at offset %d, but the file has %d bytes of tensor data", quote(info.name), info.bytes, off, room)
		default:
			end = off + info.bytes // no overflow: at most room
			t.Data = c.data[start+int(off) : start+int(end) : start+int(end)]
		}
		if c.err != nil {
			return
		}
	}
}

type tensorInfo struct {
	name   []byte // aliases the file
	typ    Type
	dims   [maxDims]uint64
	nDims  int
	bytes  uint64 // of data; at most MaxInt
	offset uint64 // not checked yet
}

// tensorInfo reads one entry of the tensor table and checks all of it but its offset.
func (c *cursor) tensorInfo() (t tensorInfo) {
	t.name = c.name("tensor name", maxTensorName)
	n := c.u32("dimension count")
	if c.err != nil {
		return t
	}
	if n == 0 || n > maxDims {
		c.off -= 4
		c.fail("tensor %s: %d dimensions, must be 1 to %d", quote(t.name), n, maxDims)
		return t
	}
	t.nDims = int(n)
	for i := range t.nDims {
		t.dims[i] = c.u64("dimension")
	}
	t.typ = Type(c.u32("tensor type"))
	t.offset = c.u64("tensor offset")
	if c.err != nil {
		return t
	}
	var err error
	if t.bytes, err = dataBytes(t.typ, t.dims[:n]); err != nil {
		c.fail("tensor %s: %s", quote(t.name), err)
	}
	return t
}

// quote shows a name of the file in an error, safe to print and not too long.
func quote(b []byte) string {
	const most = 80
	if len(b) > most {
		return fmt.Sprintf("%q…", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
