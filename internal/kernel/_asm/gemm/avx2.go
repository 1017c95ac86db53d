package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Constants of the kernels, one vector each.
var constants = map[string]Mem{}

// data is a vector in read-only memory whose 32-bit lanes are v, over and over.
func data(v ...uint32) Mem {
	name := "c"
	for _, w := range v {
		name += fmt.Sprintf("%08x", w)
	}
	if m, ok := constants[name]; ok {
		return m
	}
	m := GLOBL(name, RODATA|NOPTR)
	for i := range 16 {
		DATA(i*4, U32(v[i%len(v)]))
	}
	constants[name] = m
	return m
}

func constant(v uint32) Mem { return data(v) }

// tableData is the format's table for VPSHUFB, each entry less sub.
func (f intFormat) tableData(sub int) Mem {
	v := make([]uint32, 4)
	for i, w := range f.table {
		v[i/4] |= uint32(uint8(w-sub)) << (i % 4 * 8)
	}
	return data(v...)
}

// kept is m in a register, where keep says that there is one to spare.
func kept(m Mem, keep bool) Op {
	if !keep {
		return m
	}
	r := YMM()
	VMOVDQU(m, r)
	return r
}

// The ways of AVX2 to multiply and sum bytes.
const (
	sumEight  = iota // weights so small that the products of eight groups fit int16
	sumPairs         // those of two groups do
	sumSigned        // the products of one group do if weights and activations are signed
)

func (f intFormat) sums() int {
	switch most := f.most(); {
	case f.nibbles() && most <= 15:
		return sumEight // 8·2·15·127 = 30480
	case most <= 63:
		return sumPairs // 2·2·63·127 = 32004
	}
	return sumSigned
}

// rowsAVX2 is the largest number of rows of the AVX2 kernel: as many as its 16 registers hold.
func (f intFormat) rowsAVX2() int {
	switch {
	case f.Split():
		return 3
	case f.sums() == sumEight:
		return 6
	}
	return 4
}

func (f intFormat) avx2(rows int) {
	sums := f.sums()
	nibble, ones := constant(0x0f0f0f0f), constant(0x00010001)
	c := avx2Constants{nibble, ones}
	switch {
	case sums == sumEight:
		c = avx2Constants{kept(nibble, rows <= 4), kept(ones, rows <= 4)}
	case !f.Split():
		c.ones = kept(ones, rows == 1 || rows < 4)
	}
	f.body256(rows, func(p intPointers, acc [][]reg.VecVirtual, y sums256) {
		switch sums {
		case sumEight:
			f.sumEight(p, acc, c)
		case sumPairs:
			f.sumPairs(p, acc, c)
		case sumSigned:
			f.sumSigned(p, acc, c)
		}
		switch {
		case f.Split():
			f.scaleSplit256(p, acc, y)
			return
		case f.zero != 0 && sums != sumSigned:
			for t := range rows {
				n := YMM()
				VPBROADCASTD(p.n.at(t, 0), n)
				VPSRAD(U8(f.shift()), n, n)
				for _, a := range acc[t] {
					VPADDD(n, a, a)
				}
			}
		}
		f.scale256(p, acc, y)
	})
}

// body256 emits the loop over the blocks, part being what makes sums of a block and adds them to y. A single row takes all 32 outputs at once,
// more rows take 16 and then the others.
func (f intFormat) body256(rows int, part func(p intPointers, acc [][]reg.VecVirtual, y sums256)) {
	p := f.pointers(rows)
	y := newSums256(rows)
	if rows == 1 {
		f.loop(p, rows, func() {
			prefetch(p.at(4, 0), 64, f.Bytes(), f.stalls())
			part(p, vectors(rows, 4, YMM), y)
		})
		y.store()
		return
	}
	p.half = GP64()
	XORQ(p.half, p.half)
	half := fmt.Sprintf("half%d", rows)
	f.loop(p, rows, func() {
		Label(half)
		prefetch(p.at(4, 0), 128, f.Bytes(), true)
		part(p, vectors(rows, 2, YMM), y)
		y.out.advance(64)
		XORQ(U8(16), p.half)
		JNZ(LabelRef(half))
		y.out.advance(-128)
	})
}

type avx2Constants struct{ nibble, ones Op }

// sums256 are the sums across blocks: in registers for one row, with more they live in y, which costs a load and a store a block, little beside
// its arithmetic.
type sums256 struct {
	out  rowPointer
	regs []reg.VecVirtual
}

func newSums256(rows int) sums256 {
	y := sums256{out: newRowPointer(load("y"), load("stride"), rows)}
	if rows == 1 {
		y.regs = vectors(1, 4, YMM)[0]
		for _, v := range y.regs {
			VPXOR(v, v, v)
		}
		return y
	}
	zero := YMM()
	VPXOR(zero, zero, zero)
	for t := range rows {
		for h := range 4 {
			VMOVUPS(zero, y.out.at(t, 32*h))
		}
	}
	return y
}

func (y sums256) store() {
	for h, v := range y.regs {
		VMOVUPS(v, y.out.at(0, 32*h))
	}
}

// fma adds x·a and, unless m is nil, xm·m to vector h of row t; x and xm are in memory, a is lost.
func (y sums256) fma(t, h int, x Mem, a reg.VecVirtual, xm Mem, m reg.VecVirtual) {
	v := YMM()
	VBROADCASTSS(x, v)
	if y.regs != nil {
		VFMADD231PS(v, a, y.regs[h])
		a = y.regs[h]
	} else {
		VFMADD213PS(y.out.at(t, 32*h), v, a)
	}
	if m != nil {
		v := YMM()
		VBROADCASTSS(xm, v)
		VFMADD231PS(v, m, a)
	}
	if y.regs == nil {
		VMOVUPS(a, y.out.at(t, 32*h))
	}
}

// scale256 adds the int32 sums of a block, acc, to y.
func (f intFormat) scale256(p intPointers, acc [][]reg.VecVirtual, y sums256) {
	for h := range acc[0] {
		d, m := f.scales(p, 0, 8*h, YMM), f.scales(p, 1, 8*h, YMM)
		for t := range acc {
			a := acc[t][h]
			VCVTDQ2PS(a, a)
			VMULPS(d, a, a)
			y.fma(t, h, p.s.at(t, 0), a, p.s.at(t, 4), m)
		}
	}
}

// scaleSplit256 is scale256 for sums that have the scales of the halves in them already, but not yet what zero makes of these.
func (f intFormat) scaleSplit256(p intPointers, acc [][]reg.VecVirtual, y sums256) {
	for h := range acc[0] {
		d, dm := f.scales(p, 0, 8*h, YMM), f.scales(p, 1, 8*h, YMM)
		s, m := f.splitScales(p, 8*h, YMM)
		for t := range acc {
			a, n := acc[t][h], YMM()
			VPBROADCASTD(p.n.at(t, 4), n)
			if !f.Min { // s and n are pairs: the products' sum is the activations' with the scales in it
				VPMADDWD(n, s, n)
				VPSLLD(U8(7-f.shift()), n, n)
				VPSUBD(n, a, a)
				m = nil
			} else {
				VPMADDWD(n, m, n)
				VCVTDQ2PS(n, n)
				VMULPS(dm, n, n)
			}
			VCVTDQ2PS(a, a)
			VMULPS(d, a, a)
			if f.Min {
				y.fma(t, h, p.s.at(t, 0), a, p.s.at(t, 0), n)
			} else {
				y.fma(t, h, p.s.at(t, 0), a, Mem{}, nil)
			}
		}
	}
}

// sumEight makes the int32 sums of a block of nibbles.
func (f intFormat) sumEight(p intPointers, acc [][]reg.VecVirtual, c avx2Constants) {
	add := func(x, w, to, t reg.VecVirtual, k int) {
		if k == 0 {
			VPMADDUBSW(x, w, to)
			return
		}
		VPMADDUBSW(x, w, t)
		VPADDW(t, to, to)
	}
	for g := range 4 {
		if len(acc) == 1 { // the row's values stay, the weights pass by
			x0, x1 := YMM(), YMM()
			VPBROADCASTD(p.q.at(0, 8*g), x0)
			VPBROADCASTD(p.q.at(0, 8*g+4), x1)
			for h, a := range acc[0] {
				r, w, t := YMM(), YMM(), YMM()
				VMOVDQU(p.at(4, f.Weights()+g*128+32*h), r)
				VPAND(c.nibble, r, w)
				add(x0, w, a, t, 8*g)
				VPSRLD(U8(4), r, r)
				VPAND(c.nibble, r, r)
				add(x1, r, a, t, 8*g+4)
			}
			continue
		}
		w := make([]reg.VecVirtual, len(acc[0]))
		for half := range 2 {
			for h := range w {
				w[h] = YMM()
				VMOVDQU(p.at(4, f.Weights()+g*128+32*h), w[h])
				if half == 1 {
					VPSRLD(U8(4), w[h], w[h])
				}
				VPAND(c.nibble, w[h], w[h])
			}
			for t := range acc {
				x := YMM()
				VPBROADCASTD(p.q.at(t, 8*g+4*half), x)
				for h, a := range acc[t] {
					v := x
					if h < len(w)-1 {
						v = YMM()
					}
					add(x, w[h], a, v, 8*g+4*half)
				}
			}
		}
	}
	for _, v := range acc {
		for h := range v {
			VPMADDWD(c.ones, v[h], v[h])
		}
	}
}

// unpack256 returns the four k of group g of the 8 outputs of vector h, each table entry less sub.
func (f intFormat) unpack256(p intPointers, g, h, sub int) reg.VecVirtual {
	var w reg.VecVirtual
	for _, d := range f.fields(g) {
		v := YMM()
		VMOVDQU(p.at(4, d.word+32*h), v)
		switch {
		case d.right > 0:
			VPSRLD(U8(d.right), v, v)
		case d.right < 0:
			VPSLLD(U8(-d.right), v, v)
		}
		if d.mask != ^uint32(0) {
			VPAND(constant(d.mask), v, v)
		}
		if w != nil {
			VPOR(w, v, v)
		}
		w = v
	}
	if f.table != nil {
		v := YMM()
		VMOVDQU(f.tableData(sub), v)
		VPSHUFB(w, v, w)
	}
	return w
}

// sumPairs adds the products of two groups before VPMADDWD widens them; it multiplies with the scales of the halves at the same time, where
// there are such.
func (f intFormat) sumPairs(p intPointers, acc [][]reg.VecVirtual, c avx2Constants) {
	factors := func(g, h int) Op {
		if !f.Split() {
			return c.ones
		}
		s, _ := f.splitScales(p, 8*h, YMM)
		if g < 4 {
			VPSHUFB(data(0x01000100, 0x05040504, 0x09080908, 0x0d0c0d0c), s, s)
		} else {
			VPSHUFB(data(0x03020302, 0x07060706, 0x0b0a0b0a, 0x0f0e0f0e), s, s)
		}
		return s
	}
	add := func(x0, x1, w0, w1, v0, v1, a reg.VecVirtual, first bool, by Op) {
		VPMADDUBSW(x0, w0, v0)
		VPMADDUBSW(x1, w1, v1)
		VPADDW(v1, v0, v0)
		widen(v0, a, first, by)
	}
	for g := 0; g < 8; g += 2 {
		row := func(t int) (x0, x1 reg.VecVirtual) {
			x0, x1 = YMM(), YMM()
			VPBROADCASTD(p.q.at(t, 4*g), x0)
			VPBROADCASTD(p.q.at(t, 4*g+4), x1)
			return x0, x1
		}
		if len(acc) == 1 {
			x0, x1 := row(0)
			for h, a := range acc[0] {
				w0, w1 := f.unpack256(p, g, h, 0), f.unpack256(p, g+1, h, 0)
				add(x0, x1, w0, w1, w0, w1, a, g == 0, factors(g, h))
			}
			continue
		}
		w, by := make([][2]reg.VecVirtual, len(acc[0])), make([]Op, len(acc[0]))
		for h := range w {
			w[h] = [2]reg.VecVirtual{f.unpack256(p, g, h, 0), f.unpack256(p, g+1, h, 0)}
			by[h] = factors(g, h)
		}
		for t := range acc {
			x0, x1 := row(t)
			for h, a := range acc[t] {
				v0, v1 := x0, x1
				if h < len(w)-1 {
					v0, v1 = YMM(), YMM()
				}
				add(x0, x1, w[h][0], w[h][1], v0, v1, a, g == 0, by[h])
			}
		}
	}
}

// sumSigned: unsigned 8-bit weights would overflow int16 (2·255·127), so |w| is multiplied with the activations that carry the sign of w
// (2·128·127 = 32512), and each product is widened at once.
func (f intFormat) sumSigned(p intPointers, acc [][]reg.VecVirtual, c avx2Constants) {
	for g := range 8 {
		weights := func(h int) (w, abs reg.VecVirtual) {
			w, abs = f.unpack256(p, g, h, f.zero), YMM()
			if f.table == nil {
				VPXOR(constant(0x80808080), w, w)
			}
			VPABSB(w, abs)
			return w, abs
		}
		add := func(x, w, abs, v, a reg.VecVirtual) {
			VPSIGNB(w, x, v)
			VPMADDUBSW(v, abs, v)
			widen(v, a, g == 0, c.ones)
		}
		if len(acc) == 1 {
			x := YMM()
			VPBROADCASTD(p.q.at(0, 4*g), x)
			for h, a := range acc[0] {
				w, abs := weights(h)
				add(x, w, abs, w, a)
			}
			continue
		}
		w := make([][2]reg.VecVirtual, len(acc[0]))
		for h := range w {
			w[h][0], w[h][1] = weights(h)
		}
		for t := range acc {
			x := YMM()
			VPBROADCASTD(p.q.at(t, 4*g), x)
			for h, a := range acc[t] {
				v := x
				if h < len(w)-1 {
					v = YMM()
				}
				add(x, w[h][0], w[h][1], v, a)
			}
		}
	}
}

// widen adds the pairs of int16 of x, each times that of by, to the int32 of acc, or sets acc to them.
func widen(x, acc reg.VecVirtual, first bool, by Op) {
	if first {
		VPMADDWD(by, x, acc)
		return
	}
	VPMADDWD(by, x, x)
	VPADDD(x, acc, acc)
}
