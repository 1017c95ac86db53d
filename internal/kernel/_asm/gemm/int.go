package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// intFormat describes the block of a quantised panel.
type intFormat struct {
	name    string
	bytes   int  // of a block
	weights int  // offset of the weights; 32 f16 scales are at 0
	nibbles bool // two weights a byte
	min     bool // 32 f16 minima are at 64
	zero    int  // without minima: the stored weight that stands for 0
}

var (
	p4  = intFormat{"p4", 640, 128, true, true, 0}
	p4z = intFormat{"p4z", 576, 64, true, false, 8}
	p5  = intFormat{"p5", 1152, 128, false, true, 0}
	p8  = intFormat{"p8", 1088, 64, false, false, 128}
)

// vpdpbusd adds to each lane of acc the four products of unsigned and signed bytes. avo v0.5.0 does not know
// AVX512_VNNI, Go's assembler does.
func vpdpbusd(signed, unsigned, acc Op) {
	Instruction(&ir.Instruction{Opcode: "VPDPBUSD", Operands: []Op{signed, unsigned, acc},
		Inputs: []Op{signed, unsigned, acc}, Outputs: []Op{acc}, ISA: []string{"AVX512VNNI"}})
}

// intPointers are the operands of a body.
type intPointers struct {
	w, blocks reg.GPVirtual
	q, s, n   rowPointer
}

func (f intFormat) pointers(rows int) intPointers {
	var p intPointers
	p.w, p.blocks = load("w"), load("blocks")
	p.q = newRowPointer(load("q"), scaled(p.blocks, 5), rows)
	p.s = newRowPointer(load("s"), scaled(p.blocks, 3), rows)
	if f.zero != 0 {
		p.n = newRowPointer(load("n"), scaled(p.blocks, 2), rows)
	}
	return p
}

// next moves on by one block.
func (p intPointers) next(f intFormat) {
	advance(p.w, f.bytes)
	p.q.advance(32)
	p.s.advance(8)
	p.n.advance(4)
}

// avx512 sums a block with VPDPBUSD: rows × 2 vectors of 16 outputs. Stored weights are unsigned; those without a minimum start their sums at
// minus zero times the sum of the activations.
func (f intFormat) avx512(rows int) {
	loop := fmt.Sprintf("loop%d", rows)
	p := f.pointers(rows)
	var mask reg.VecVirtual
	if f.nibbles {
		mask = ZMM()
		m := GP32()
		MOVL(U32(0x0f0f0f0f), m)
		VPBROADCASTD(m, mask)
	}
	sum := vectors(rows, 2, ZMM)
	for _, v := range sum {
		VPXORD(v[0], v[0], v[0])
		VPXORD(v[1], v[1], v[1])
	}
	Label(loop)
	acc := vectors(rows, 2, ZMM)
	for t, v := range acc {
		switch f.zero {
		case 0:
			VPXORD(v[0], v[0], v[0])
			VPXORD(v[1], v[1], v[1])
		case 8: // -128·Σq / 16
			VPSRAD_BCST(U8(4), p.n.at(t, 0), v[0])
			VMOVDQA32(v[0], v[1])
		case 128:
			VPBROADCASTD(p.n.at(t, 0), v[0])
			VMOVDQA32(v[0], v[1])
		}
	}
	prefetch(p.w, f.bytes, rows >= 5 || rows >= 2 && f.nibbles)
	step := func(w0, w1 reg.VecVirtual, k int) { // 4 k
		for t, v := range acc {
			x := ZMM()
			VPBROADCASTD(p.q.at(t, k), x)
			vpdpbusd(x, w0, v[0])
			vpdpbusd(x, w1, v[1])
		}
	}
	if f.nibbles {
		for g := range 4 {
			r0, r1, w0, w1 := ZMM(), ZMM(), ZMM(), ZMM()
			VMOVDQU32(at(p.w, f.weights+g*128), r0)
			VMOVDQU32(at(p.w, f.weights+g*128+64), r1)
			VPANDD(mask, r0, w0)
			VPANDD(mask, r1, w1)
			step(w0, w1, 8*g)
			VPSRLD(U8(4), r0, w0)
			VPSRLD(U8(4), r1, w1)
			VPANDD(mask, w0, w0)
			VPANDD(mask, w1, w1)
			step(w0, w1, 8*g+4)
		}
	} else {
		for g := range 8 {
			w0, w1 := ZMM(), ZMM()
			VMOVDQU32(at(p.w, f.weights+g*128), w0)
			VMOVDQU32(at(p.w, f.weights+g*128+64), w1)
			step(w0, w1, 4*g)
		}
	}
	for h := range 2 {
		d, m := ZMM(), ZMM()
		VCVTPH2PS(at(p.w, 32*h), d)
		if f.min {
			VCVTPH2PS(at(p.w, 64+32*h), m)
		}
		for t := range rows {
			a := acc[t][h]
			VCVTDQ2PS(a, a)
			VMULPS(d, a, a)
			VFMADD231PS_BCST(p.s.at(t, 0), a, sum[t][h])
			if f.min {
				VFMADD231PS_BCST(p.s.at(t, 4), m, sum[t][h])
			}
		}
	}
	p.next(f)
	DECQ(p.blocks)
	JNZ(LabelRef(loop))
	y, stride := load("y"), load("stride")
	for t := range rows {
		VMOVUPS(sum[t][0], at(y, 0))
		VMOVUPS(sum[t][1], at(y, 64))
		if t < rows-1 {
			ADDQ(stride, y)
		}
	}
}

// Constants of the AVX2 kernels, one vector each.
var constants = map[uint32]Mem{}

// constant is a vector of 8 times v in read-only memory.
func constant(v uint32) Mem {
	if m, ok := constants[v]; ok {
		return m
	}
	m := GLOBL(fmt.Sprintf("c%08x", v), RODATA|NOPTR)
	for i := range 8 {
		DATA(i*4, U32(v))
	}
	constants[v] = m
	return m
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

// sumConstants of avx2.
type sumConstants struct{ nibble, sign, ones Op }

// rowsAVX2 is the largest number of rows of the AVX2 kernel: as many as its 16 registers hold.
func (f intFormat) rowsAVX2() int {
	if f.nibbles {
		return 6
	}
	return 4
}

// avx2 takes the 32 outputs of each block in parts of 16, a single row in one part.
func (f intFormat) avx2(rows int) {
	loop := fmt.Sprintf("loop%d", rows)
	cols := 2
	if rows == 1 {
		cols = 4
	}
	c := sumConstants{
		nibble: kept(constant(0x0f0f0f0f), f.nibbles && rows <= 4),
		sign:   constant(0x80808080),
		ones:   kept(constant(0x00010001), rows == 1 || f != p5 && rows <= 4),
	}
	p := f.pointers(rows)
	y := f.newSums256(rows)
	Label(loop)
	prefetch(p.w, f.bytes, rows >= 2)
	for first := 0; first < 4; first += cols {
		acc := vectors(rows, cols, YMM)
		switch {
		case f.nibbles:
			f.sumNibbles(p, acc, first, c)
		case f == p5:
			f.sumP5(p, acc, first, c)
		case f == p8:
			f.sumP8(p, acc, first, c)
		}
		if f.zero == 8 { // -128·Σq / 16
			for t := range rows {
				n := YMM()
				VPBROADCASTD(p.n.at(t, 0), n)
				VPSRAD(U8(4), n, n)
				for _, a := range acc[t] {
					VPADDD(n, a, a)
				}
			}
		}
		f.scale256(p, acc, y, first)
	}
	p.next(f)
	DECQ(p.blocks)
	JNZ(LabelRef(loop))
	y.store()
}

// sums256 are the sums across blocks: in registers for one row, with more they live in y, which costs a load and a store a block, little beside
// its arithmetic.
type sums256 struct {
	out  rowPointer
	regs []reg.VecVirtual
}

func (f intFormat) newSums256(rows int) sums256 {
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

// scale256 adds the int32 sums of a block, acc, to y; first is the first of their vectors of 8 outputs.
func (f intFormat) scale256(p intPointers, acc [][]reg.VecVirtual, y sums256, first int) {
	for h := range acc[0] {
		d, m := YMM(), YMM()
		VCVTPH2PS(at(p.w, 16*(first+h)), d)
		if f.min {
			VCVTPH2PS(at(p.w, 64+16*(first+h)), m)
		}
		for t := range acc {
			a, x := acc[t][h], YMM()
			VCVTDQ2PS(a, a)
			VMULPS(d, a, a)
			VBROADCASTSS(p.s.at(t, 0), x)
			if y.regs != nil {
				VFMADD231PS(x, a, y.regs[h])
				a = y.regs[h]
			} else {
				VFMADD213PS(y.out.at(t, 32*(first+h)), x, a)
			}
			if f.min {
				x := YMM()
				VBROADCASTSS(p.s.at(t, 4), x)
				VFMADD231PS(x, m, a)
			}
			if y.regs == nil {
				VMOVUPS(a, y.out.at(t, 32*(first+h)))
			}
		}
	}
}

// sumNibbles makes the int32 sums of a block. 8 VPMADDUBSW fit int16: 8·2·15·127 = 30480.
func (f intFormat) sumNibbles(p intPointers, acc [][]reg.VecVirtual, first int, c sumConstants) {
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
				VMOVDQU(at(p.w, f.weights+g*128+32*(first+h)), r)
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
				VMOVDQU(at(p.w, f.weights+g*128+32*(first+h)), w[h])
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

// sumP5: 4 VPMADDUBSW would fit int16 (4·2·31·127 = 31496), but for want of registers two are added before VPMADDWD widens them.
func (f intFormat) sumP5(p intPointers, acc [][]reg.VecVirtual, first int, c sumConstants) {
	for k := 0; k < 32; k += 8 {
		weights := func(h int) (w0, w1 reg.VecVirtual) {
			w0, w1 = YMM(), YMM()
			VMOVDQU(at(p.w, f.weights+k/4*128+32*(first+h)), w0)
			VMOVDQU(at(p.w, f.weights+k/4*128+128+32*(first+h)), w1)
			return w0, w1
		}
		add := func(x0, x1, w0, w1, v0, v1, a reg.VecVirtual) {
			VPMADDUBSW(x0, w0, v0)
			VPMADDUBSW(x1, w1, v1)
			VPADDW(v1, v0, v0)
			widen(v0, a, k == 0, c.ones)
		}
		row := func(t int) (x0, x1 reg.VecVirtual) {
			x0, x1 = YMM(), YMM()
			VPBROADCASTD(p.q.at(t, k), x0)
			VPBROADCASTD(p.q.at(t, k+4), x1)
			return x0, x1
		}
		if len(acc) == 1 {
			x0, x1 := row(0)
			for h, a := range acc[0] {
				w0, w1 := weights(h)
				add(x0, x1, w0, w1, w0, w1, a)
			}
			continue
		}
		w := make([][2]reg.VecVirtual, len(acc[0]))
		for h := range w {
			w[h][0], w[h][1] = weights(h)
		}
		for t := range acc {
			x0, x1 := row(t)
			for h, a := range acc[t] {
				v0, v1 := x0, x1
				if h < len(w)-1 {
					v0, v1 = YMM(), YMM()
				}
				add(x0, x1, w[h][0], w[h][1], v0, v1, a)
			}
		}
	}
}

// sumP8: unsigned 8-bit weights would overflow int16 (2·255·127), so |w| is multiplied with the activations that carry the sign of w
// (2·128·127 = 32512), and each product is widened at once.
func (f intFormat) sumP8(p intPointers, acc [][]reg.VecVirtual, first int, c sumConstants) {
	for k := 0; k < 32; k += 4 {
		weights := func(h int) (w, abs reg.VecVirtual) {
			w, abs = YMM(), YMM()
			VMOVDQU(at(p.w, f.weights+k/4*128+32*(first+h)), w)
			VPXOR(c.sign, w, w)
			VPABSB(w, abs)
			return w, abs
		}
		add := func(x, w, abs, v, a reg.VecVirtual) {
			VPSIGNB(w, x, v)
			VPMADDUBSW(v, abs, v)
			widen(v, a, k == 0, c.ones)
		}
		if len(acc) == 1 {
			x := YMM()
			VPBROADCASTD(p.q.at(0, k), x)
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
			VPBROADCASTD(p.q.at(t, k), x)
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

// widen adds the pairs of int16 of x to the int32 of acc, or sets acc to them.
func widen(x, acc reg.VecVirtual, first bool, ones Op) {
	if first {
		VPMADDWD(ones, x, acc)
		return
	}
	VPMADDWD(ones, x, x)
	VPADDD(x, acc, acc)
}
