// Package panel describes the panels of package kvasir/internal/kernel/gemm to the generators of its assembly. That package's comment has
// the layouts in words.
package panel

// A Format is a quantised panel: what 32 outputs × 32 k hold, and what eight such blocks share.
type Format struct {
	Name   string
	Planes []int // the bits of a weight, the lowest first, in planes of so many bits each
	Scale  Scale
	Min    bool   // there are minima, stored like the scales
	Zero   int    // what the stored weights are less: a power of two, or 0
	Table  string // if not empty, the table of what the 16 nibbles stand for: iq4 or mxfp4
	Rare   bool   // few models have it
}

// A Scale is how scales are stored.
type Scale int

// The kinds of scales.
const (
	F16  Scale = iota // an f16 for 32 k
	BF16              // a bf16 for 32 k
	U6                // an f16 for 256 k times 6 unsigned bits for 32 k
	S8                // an f16 for 256 k times an int8 for 32 k
	S8x2              // an f16 for 256 k times two int8 for 16 k each
	U4x2              // an f16 for 256 k times 4 unsigned bits for 16 k; the minima in the same bytes
)

// Formats are all quantised formats.
var Formats = []Format{
	{Name: "p4", Planes: []int{4}, Min: true},
	{Name: "p4z", Planes: []int{4}, Zero: 8},
	{Name: "p5", Planes: []int{4, 1}, Min: true, Rare: true},
	{Name: "p5z", Planes: []int{4, 1}, Zero: 16, Rare: true},
	{Name: "p8", Planes: []int{8}, Zero: 128},
	{Name: "p2k", Planes: []int{2}, Scale: U4x2, Min: true, Rare: true},
	{Name: "p3k", Planes: []int{2, 1}, Scale: S8x2, Zero: 4, Rare: true},
	{Name: "p4k", Planes: []int{4}, Scale: U6, Min: true},
	{Name: "p5k", Planes: []int{4, 1}, Scale: U6, Min: true},
	{Name: "p6k", Planes: []int{4, 2}, Scale: S8x2, Zero: 32},
	{Name: "p4n", Planes: []int{4}, Table: "iq4", Rare: true},
	{Name: "p4x", Planes: []int{4}, Scale: S8, Table: "iq4", Rare: true},
	{Name: "pmx", Planes: []int{4}, Scale: BF16, Table: "mxfp4", Rare: true},
}

// Super reports whether eight blocks share scales in front of them.
func (f Format) Super() bool { return f.Scale >= U6 }

// Split reports whether the halves of a block have scales of their own.
func (f Format) Split() bool { return f.Scale >= S8x2 }

// Head is the size of the scales that eight blocks share.
func (f Format) Head() int {
	switch {
	case !f.Super():
		return 0
	case f.Min:
		return 128
	}
	return 64
}

// Weights is the offset of the weights in a block, after its scales.
func (f Format) Weights() int {
	switch {
	case f.Split(), f.Super() && f.Min:
		return 64
	case f.Super():
		return 32
	case f.Min:
		return 128
	}
	return 64
}

// Bytes is the size of a block.
func (f Format) Bytes() int {
	n := f.Weights()
	for _, b := range f.Planes {
		n += 128 * b
	}
	return n
}

// Rows are the numbers of rows that a kernel has bodies for, the first being 1: all up to most or, to save code, few of them for formats that
// few models have and CPUs that few servers have. mul_rows.go of package gemm has the same.
func Rows(most int, few bool) []int {
	if few {
		return map[int][]int{3: {1, 2, 3}, 4: {1, 2, 4}, 5: {1, 2, 5}, 6: {1, 2, 3, 6}}[most]
	}
	return []int{1, 2, 3, 4, 5, 6}[:most]
}
