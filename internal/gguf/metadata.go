package gguf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"unsafe"
)

// ValueType is the type of a metadata value, with the format's numbers.
type ValueType uint32

const (
	typeUint8 ValueType = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
)

var valueTypes = [...]struct {
	name string
	size int // bytes; 0 if it varies
}{
	typeUint8: {"uint8", 1}, typeInt8: {"int8", 1}, typeUint16: {"uint16", 2}, typeInt16: {"int16", 2},
	typeUint32: {"uint32", 4}, typeInt32: {"int32", 4}, typeFloat32: {"float32", 4}, typeBool: {"bool", 1},
	typeString: {"string", 0}, typeArray: {"array", 0},
	typeUint64: {"uint64", 8}, typeInt64: {"int64", 8}, typeFloat64: {"float64", 8},
}

// size is 0 for types whose size varies and for unknown types.
func (t ValueType) size() int {
	if uint64(t) >= uint64(len(valueTypes)) {
		return 0
	}
	return valueTypes[t].size
}

// String is the type's name, e.g. "uint32".
func (t ValueType) String() string {
	if uint64(t) >= uint64(len(valueTypes)) {
		return fmt.Sprintf("value type %d", uint32(t))
	}
	return valueTypes[t].name
}

var compare = bytes.Compare

// keyAt returns the key of the pair at off, which Parse has checked.
func (f *File) keyAt(off int) []byte {
	c := cursor{data: f.data, off: off}
	return c.str("key")
}

// value finds a key and returns its type and the bytes from the value on (to the end of the file).
func (f *File) value(key string) (ValueType, []byte, bool) {
	k := unsafe.Slice(unsafe.StringData(key), len(key)) // only compared
	i, ok := slices.BinarySearchFunc(f.keys, k, func(off int, k []byte) int { return compare(f.keyAt(off), k) })
	if !ok {
		return 0, nil, false
	}
	c := cursor{data: f.data, off: f.keys[i]}
	c.str("key")
	t := ValueType(c.u32("type"))
	return t, f.data[c.off:], true
}

// scalar returns the bytes of a value whose type is one of those given.
func (f *File) scalar(key string, types ...ValueType) (ValueType, []byte, bool) {
	t, b, ok := f.value(key)
	if !ok || !slices.Contains(types, t) {
		return 0, nil, false
	}
	return t, b[:t.size()], true
}

// array returns the element type, the length and the bytes from the first element on.
func (f *File) array(key string, types ...ValueType) (ValueType, int, []byte, bool) {
	t, b, ok := f.value(key)
	if !ok || t != typeArray {
		return 0, 0, nil, false
	}
	c := cursor{data: b}
	t = ValueType(c.u32("type"))
	n := c.u64("length")
	if !slices.Contains(types, t) {
		return 0, 0, nil, false
	}
	return t, int(n), b[c.off:], true
}

// Keys returns all metadata keys, sorted.
func (f *File) Keys() []string {
	keys := make([]string, len(f.keys))
	for i, off := range f.keys {
		keys[i] = string(f.keyAt(off))
	}
	return keys
}

// Has reports whether the key is there, whatever its type.
func (f *File) Has(key string) bool {
	_, _, ok := f.value(key)
	return ok
}

// TypeOf names the type of a value, e.g. "uint32" or "array of string", for errors about a value that is of another type
// than a reader wants.
func (f *File) TypeOf(key string) (string, bool) {
	t, b, ok := f.value(key)
	if !ok {
		return "", false
	}
	if t == typeArray {
		return "array of " + ValueType(binary.LittleEndian.Uint32(b)).String(), true
	}
	return t.String(), true
}

// Len is the number of elements of an array.
func (f *File) Len(key string) (int, bool) {
	t, b, ok := f.value(key)
	if !ok || t != typeArray {
		return 0, false
	}
	return int(binary.LittleEndian.Uint64(b[4:])), true
}

// String returns a string, copied.
func (f *File) String(key string) (string, bool) {
	t, b, ok := f.value(key)
	if !ok || t != typeString {
		return "", false
	}
	c := cursor{data: b}
	return string(c.str("string")), true
}

var integers = []ValueType{typeUint8, typeInt8, typeUint16, typeInt16, typeUint32, typeInt32, typeUint64, typeInt64}

// integer decodes an integer of any type: u is its two's complement in 64 bits.
func integer(t ValueType, b []byte) (u uint64, negative bool) {
	switch t {
	case typeUint8:
		return uint64(b[0]), false
	case typeUint16:
		return uint64(binary.LittleEndian.Uint16(b)), false
	case typeUint32:
		return uint64(binary.LittleEndian.Uint32(b)), false
	case typeUint64:
		return binary.LittleEndian.Uint64(b), false
	}
	var i int64
	switch t {
	case typeInt8:
		i = int64(int8(b[0]))
	case typeInt16:
		i = int64(int16(binary.LittleEndian.Uint16(b)))
	case typeInt32:
		i = int64(int32(binary.LittleEndian.Uint32(b)))
	case typeInt64:
		i = int64(binary.LittleEndian.Uint64(b))
	}
	return uint64(i), i < 0
}

// Uint returns an integer of any type that is not negative.
func (f *File) Uint(key string) (uint64, bool) {
	t, b, ok := f.scalar(key, integers...)
	if !ok {
		return 0, false
	}
	u, negative := integer(t, b)
	if negative {
		return 0, false
	}
	return u, true
}

// Int returns an integer of any type that fits an int64.
func (f *File) Int(key string) (int64, bool) {
	t, b, ok := f.scalar(key, integers...)
	if !ok {
		return 0, false
	}
	u, negative := integer(t, b)
	if !negative && u > math.MaxInt64 {
		return 0, false
	}
	return int64(u), true
}

// Float returns a float32 or float64. It may be infinite or NaN.
func (f *File) Float(key string) (float64, bool) {
	t, b, ok := f.scalar(key, typeFloat32, typeFloat64)
	if !ok {
		return 0, false
	}
	return float(t, b), true
}

func float(t ValueType, b []byte) float64 {
	if t == typeFloat32 {
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	return math.Float64frombits(binary.LittleEndian.Uint64(b))
}

// Bool returns a bool.
func (f *File) Bool(key string) (value, ok bool) {
	_, b, ok := f.scalar(key, typeBool)
	if !ok {
		return false, false
	}
	return b[0] == 1, true
}

// Strings returns an array of strings, copied into one piece of memory: no more than twice what they take in the file.
func (f *File) Strings(key string) ([]string, bool) {
	_, n, b, ok := f.array(key, typeString)
	if !ok {
		return nil, false
	}
	c := cursor{data: b}
	for range n {
		c.str("string")
	}
	text := make([]byte, 0, c.off-8*n)
	c.off = 0
	list := make([]string, n)
	for i := range list {
		s := c.str("string")
		at := len(text)
		text = append(text, s...)
		list[i] = unsafe.String(unsafe.SliceData(text[at:]), len(s)) // text neither moves nor changes
	}
	return list, true
}

// Floats returns an array of float32 or float64.
func (f *File) Floats(key string) ([]float64, bool) {
	t, n, b, ok := f.array(key, typeFloat32, typeFloat64)
	if !ok {
		return nil, false
	}
	list := make([]float64, n)
	for i := range list {
		list[i] = float(t, b[i*t.size():])
	}
	return list, true
}

// Ints returns an array of 32-bit or 64-bit integers that fit an int64. Arrays of smaller ones are for Bytes (8 bits), or
// not supported (16 bits): they would take several times their size in the file.
func (f *File) Ints(key string) ([]int64, bool) {
	t, n, b, ok := f.array(key, typeUint32, typeInt32, typeUint64, typeInt64)
	if !ok {
		return nil, false
	}
	list := make([]int64, n)
	for i := range list {
		u, negative := integer(t, b[i*t.size():])
		if !negative && u > math.MaxInt64 {
			return nil, false
		}
		list[i] = int64(u)
	}
	return list, true
}

// Bools returns an array of bools.
func (f *File) Bools(key string) ([]bool, bool) {
	_, n, b, ok := f.array(key, typeBool)
	if !ok {
		return nil, false
	}
	list := make([]bool, n)
	for i := range list {
		list[i] = b[i] == 1
	}
	return list, true
}

// Bytes returns an array of uint8 or int8, copied.
func (f *File) Bytes(key string) ([]byte, bool) {
	_, n, b, ok := f.array(key, typeUint8, typeInt8)
	if !ok {
		return nil, false
	}
	return bytes.Clone(b[:n:n]), true
}
