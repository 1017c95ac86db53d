package main

import (
	"fmt"
	"math/bits"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"kvasir/internal/kernel/_asm/panel"
)

// An intFormat is a quantised panel as these kernels see it.
type intFormat struct {
	panel.Format
	zero  int   // Format.Zero, or what makes the table's entries unsigned
	table []int // if not nil, the table with unsigned entries
}

func intFormats() []intFormat {
	var fs []intFormat
	for _, p := range panel.Formats {
		f := intFormat{Format: p, zero: p.Zero}
		switch p.Table {
		case "iq4":
			f.zero, f.table = 128, iq4
		case "mxfp4":
			f.zero, f.table = 16, mxfp4
		}
		fs = append(fs, f)
	}
	return fs
}

// What a nibble stands for, plus zero: kvalues_iq4nl and kvalues_mxfp4 of ggml-common.h.
var (
	iq4   = []int{1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241}
	mxfp4 = []int{16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4}
)

func (f intFormat) nibbles() bool { return f.Planes[0] == 4 && len(f.Planes) == 1 }

// stalls reports whether one row already takes so many instructions a block that the loads of the next blocks start late: then every line is
// asked for ahead (for one row from DRAM up to 1.5 times the speed, while weights of 2 and 3 bits lose by it).
func (f intFormat) stalls() bool { return f.Planes[0] == 4 && len(f.Planes) > 1 }

// shift makes zero times the sum of the activations of -128 times it.
func (f intFormat) shift() int { return 7 - (bits.Len(uint(f.zero)) - 1) }

// most is the largest weight as an unsigned number.
func (f intFormat) most() int {
	if f.table != nil {
		m := 0
		for _, w := range f.table {
			m = max(m, w)
		}
		return m
	}
	n := 0
	for _, b := range f.Planes {
		n += b
	}
	return 1<<n - 1
}

// A field is where one plane has its bits of the weights k = 4g..4g+3 of an output.
type field struct {
	word  int    // offset in the block of the four bytes of output 0
	right int    // shift that brings the bits to their place in the weight, to the left if negative
	mask  uint32 // the bits there
}

func (f intFormat) fields(g int) []field {
	var fs []field
	off, place := f.Weights(), 0
	for _, b := range f.Planes {
		at := g * b
		mask := uint32(1<<b-1) << place
		fs = append(fs, field{off + at/8*128, at%8 - place, mask * 0x01010101})
		off += 128 * b
		place += b
	}
	return fs
}

// intPointers are the operands of a body.
type intPointers struct {
	w, blocks reg.GPVirtual
	head      reg.GPVirtual // the scales that eight blocks share
	half      reg.GPVirtual // if not nil, 0 or 16: the first of the outputs at hand
	q, s, n   rowPointer
}

// at is the operand at disp in the block, where an output has bytes bytes.
func (p intPointers) at(bytes, disp int) Mem { return p.from(p.w, bytes, disp) }

// headAt is at in the shared scales, which have two bytes.
func (p intPointers) headAt(disp int) Mem { return p.from(p.head, 2, disp) }

func (p intPointers) from(base reg.GPVirtual, bytes, disp int) Mem {
	m := Mem{Base: base, Disp: disp}
	if p.half != nil {
		m.Index, m.Scale = p.half, uint8(bytes)
	}
	return m
}

func (f intFormat) pointers(rows int) intPointers {
	var p intPointers
	p.w, p.blocks = load("w"), load("blocks")
	p.q = newRowPointer(load("q"), scaled(p.blocks, 5), rows)
	p.s = newRowPointer(load("s"), scaled(p.blocks, 3), rows)
	if f.zero != 0 || f.Split() {
		p.n = newRowPointer(load("n"), p.s.stride, rows)
	}
	if f.Super() {
		p.head = GP64()
	}
	return p
}

// loop emits body for each block.
func (f intFormat) loop(p intPointers, rows int, body func()) {
	loop, super := fmt.Sprintf("loop%d", rows), fmt.Sprintf("super%d", rows)
	if f.Super() {
		Label(super)
		MOVQ(p.w, p.head)
		advance(p.w, f.Head())
	}
	Label(loop)
	body()
	advance(p.w, f.Bytes())
	p.q.advance(32)
	p.s.advance(8)
	p.n.advance(8)
	DECQ(p.blocks)
	if f.Super() { // the number of blocks is a multiple of 8
		TESTQ(U32(7), p.blocks)
		JNZ(LabelRef(loop))
		TESTQ(p.blocks, p.blocks)
		JNZ(LabelRef(super))
	} else {
		JNZ(LabelRef(loop))
	}
}

// scales loads the scales (i is 0) or the minima (1) of a vector of outputs from first on, nil if there are no minima. Products of an f16
// and an integer of up to 8 bits are exact.
func (f intFormat) scales(p intPointers, i, first int, alloc func() reg.VecVirtual) reg.VecVirtual {
	if i == 1 && !f.Min {
		return nil
	}
	v := alloc()
	switch f.Scale {
	case panel.F16:
		VCVTPH2PS(p.at(2, 64*i+2*first), v)
	case panel.BF16:
		VPMOVZXWD(p.at(2, 64*i+2*first), v)
		VPSLLD(U8(16), v, v)
	case panel.S8x2, panel.U4x2:
		VCVTPH2PS(p.headAt(64*i+2*first), v)
	default:
		s := alloc()
		if f.Scale == panel.S8 {
			VPMOVSXBD(p.at(1, 32*i+first), v)
		} else {
			VPMOVZXBD(p.at(1, 32*i+first), v)
		}
		VCVTPH2PS(p.headAt(64*i+2*first), s)
		VCVTDQ2PS(v, v)
		VMULPS(s, v, v)
	}
	return v
}

// splitScales loads for a vector of outputs from first on the scales of both halves of a block as pairs of int16, and the minima, if there
// are any.
func (f intFormat) splitScales(p intPointers, first int, alloc func() reg.VecVirtual) (s, m reg.VecVirtual) {
	s = alloc()
	if f.Scale == panel.S8x2 {
		VPMOVSXBW(p.at(2, 2*first), s)
		return s, nil
	}
	m = alloc()
	VPMOVZXBW(p.at(2, 2*first), s)
	VPSRLW(U8(4), s, m)
	if low := constant(0x000f000f); s.Size() == 64 {
		VPANDD(low, s, s)
	} else {
		VPAND(low, s, s)
	}
	return s, m
}
