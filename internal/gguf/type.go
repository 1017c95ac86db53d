package gguf

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// Type is a ggml tensor type: how the values of a row are stored. The numbers are those of enum ggml_type.
type Type uint32

// The tensor types. Those missing between them were removed from the format.
const (
	F32     Type = 0
	F16     Type = 1
	Q4_0    Type = 2
	Q4_1    Type = 3
	Q5_0    Type = 6
	Q5_1    Type = 7
	Q8_0    Type = 8
	Q8_1    Type = 9
	Q2_K    Type = 10
	Q3_K    Type = 11
	Q4_K    Type = 12
	Q5_K    Type = 13
	Q6_K    Type = 14
	Q8_K    Type = 15
	IQ2_XXS Type = 16
	IQ2_XS  Type = 17
	IQ3_XXS Type = 18
	IQ1_S   Type = 19
	IQ4_NL  Type = 20
	IQ3_S   Type = 21
	IQ2_S   Type = 22
	IQ4_XS  Type = 23
	I8      Type = 24
	I16     Type = 25
	I32     Type = 26
	I64     Type = 27
	F64     Type = 28
	IQ1_M   Type = 29
	BF16    Type = 30
	TQ1_0   Type = 34
	TQ2_0   Type = 35
	MXFP4   Type = 39
	NVFP4   Type = 40
	Q1_0    Type = 41
	Q2_0    Type = 42
)

// types gives the values in a block and the bytes of a block. A length of 0 marks a number that means nothing.
var types = [...]struct {
	name       string
	len, bytes uint16
}{
	F32: {"F32", 1, 4}, F16: {"F16", 1, 2}, BF16: {"BF16", 1, 2}, F64: {"F64", 1, 8},
	I8: {"I8", 1, 1}, I16: {"I16", 1, 2}, I32: {"I32", 1, 4}, I64: {"I64", 1, 8},
	Q4_0: {"Q4_0", 32, 18}, Q4_1: {"Q4_1", 32, 20}, Q5_0: {"Q5_0", 32, 22}, Q5_1: {"Q5_1", 32, 24},
	Q8_0: {"Q8_0", 32, 34}, Q8_1: {"Q8_1", 32, 36}, Q1_0: {"Q1_0", 128, 18}, Q2_0: {"Q2_0", 64, 18},
	Q2_K: {"Q2_K", 256, 84}, Q3_K: {"Q3_K", 256, 110}, Q4_K: {"Q4_K", 256, 144}, Q5_K: {"Q5_K", 256, 176},
	Q6_K: {"Q6_K", 256, 210}, Q8_K: {"Q8_K", 256, 292},
	IQ1_S: {"IQ1_S", 256, 50}, IQ1_M: {"IQ1_M", 256, 56}, IQ2_XXS: {"IQ2_XXS", 256, 66}, IQ2_XS: {"IQ2_XS", 256, 74},
	IQ2_S: {"IQ2_S", 256, 82}, IQ3_XXS: {"IQ3_XXS", 256, 98}, IQ3_S: {"IQ3_S", 256, 110},
	IQ4_NL: {"IQ4_NL", 32, 18}, IQ4_XS: {"IQ4_XS", 256, 136},
	TQ1_0: {"TQ1_0", 256, 54}, TQ2_0: {"TQ2_0", 256, 66}, MXFP4: {"MXFP4", 32, 17}, NVFP4: {"NVFP4", 64, 36},
}

// Known reports whether t is a type of the format.
func (t Type) Known() bool { return uint64(t) < uint64(len(types)) && types[t].len != 0 }

// BlockLen is the number of values in a block (1 for plain numbers), 0 for an unknown type.
func (t Type) BlockLen() int {
	if !t.Known() {
		return 0
	}
	return int(types[t].len)
}

// BlockBytes is the size of a block in bytes, 0 for an unknown type.
func (t Type) BlockBytes() int {
	if !t.Known() {
		return 0
	}
	return int(types[t].bytes)
}

// String is ggml's name in capitals, e.g. "Q4_1", or "type(77)".
func (t Type) String() string {
	if !t.Known() {
		return fmt.Sprintf("type(%d)", uint32(t))
	}
	return types[t].name
}

// ParseType is the inverse of String, in either case.
func ParseType(name string) (Type, bool) {
	for t := range types {
		if types[t].len != 0 && strings.EqualFold(types[t].name, name) {
			return Type(t), true
		}
	}
	return 0, false
}

// dataBytes is the size in bytes of a tensor. Dims has 1 to maxDims entries, none of them 0, the first a whole number of
// blocks, and neither the number of values nor the size overflows an int.
func dataBytes(t Type, dims []uint64) (uint64, error) {
	if !t.Known() {
		return 0, fmt.Errorf("unknown tensor type %d", uint32(t))
	}
	if len(dims) == 0 || len(dims) > maxDims {
		return 0, fmt.Errorf("%d dimensions, must be 1 to %d", len(dims), maxDims)
	}
	values := uint64(1)
	for i, d := range dims {
		if d == 0 {
			return 0, fmt.Errorf("dimension %d is 0", i)
		}
		hi, lo := bits.Mul64(values, d)
		if hi != 0 || lo > math.MaxInt {
			return 0, fmt.Errorf("dimensions %d overflow", slices.Clone(dims)) // the copy keeps dims off the heap
		}
		values = lo
	}
	n, size := uint64(t.BlockLen()), uint64(t.BlockBytes())
	if dims[0]%n != 0 {
		return 0, fmt.Errorf("row length %d is not a multiple of %d, the block length of %s", dims[0], n, t)
	}
	hi, lo := bits.Mul64(values/n, size)
	if hi != 0 || lo > math.MaxInt {
		return 0, fmt.Errorf("dimensions %d of %s overflow", slices.Clone(dims), t)
	}
	return lo, nil
}
