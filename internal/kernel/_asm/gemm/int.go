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
	min     bool // 32 f16 minima are at 64
}

var (
	p4 = intFormat{"p4", 640, 128, true}
	p5 = intFormat{"p5", 1152, 128, true}
	p8 = intFormat{"p8", 1088, 64, false}
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

func (f intFormat) pointers(rows int, corrections bool) intPointers {
	var p intPointers
	p.w, p.blocks = load("w"), load("blocks")
	p.q = newRowPointer(load("q"), scaled(p.blocks, 5), rows)
	p.s = newRowPointer(load("s"), scaled(p.blocks, 3), rows)
	if corrections {
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

// avx512 sums a block with VPDPBUSD: rows × 2 vectors of 16 outputs. P8's weights are stored + 128, so its sums start at -128 times the
// sum of the activations.
func (f intFormat) avx512(rows int) {
	loop := fmt.Sprintf("loop%d", rows)
	p := f.pointers(rows, !f.min)
	var mask reg.VecVirtual
	if f == p4 {
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
		if f == p8 {
			VPBROADCASTD(p.n.at(t, 0), v[0])
			VMOVDQA32(v[0], v[1])
		} else {
			VPXORD(v[0], v[0], v[0])
			VPXORD(v[1], v[1], v[1])
		}
	}
	if rows >= 5 || rows >= 2 && f == p4 {
		prefetch(p.w, f.bytes)
	}
	step := func(w0, w1 reg.VecVirtual, k int) { // 4 k
		for t, v := range acc {
			x := ZMM()
			VPBROADCASTD(p.q.at(t, k), x)
			vpdpbusd(x, w0, v[0])
			vpdpbusd(x, w1, v[1])
		}
	}
	if f == p4 {
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

// avx2 does one row with 32 outputs at once, more rows with 16 outputs at a time. The sums across blocks stay in registers up
// to 3 rows, with 4 they live in y.
func (f intFormat) avx2(rows int) {
	loop, outputs := fmt.Sprintf("loop%d", rows), fmt.Sprintf("outputs%d", rows)
	cols := 2
	if rows == 1 {
		cols = 4
	}
	half := GP64()
	XORQ(half, half)
	Label(outputs)
	p := f.pointers(rows, false)
	scales := GP64() // w is on its way over the weights of 16 outputs, scales over their scales
	MOVQ(p.w, scales)
	y := load("y")
	if cols == 2 {
		LEAQ(Mem{Base: scales, Index: half, Scale: 4}, scales)
		LEAQ(Mem{Base: p.w, Index: half, Scale: 8}, p.w)
		LEAQ(Mem{Base: y, Index: half, Scale: 8}, y)
	}
	out := newRowPointer(y, load("stride"), rows)
	inMemory := rows > 3
	var sum [][]reg.VecVirtual
	if inMemory {
		zero := YMM()
		VPXOR(zero, zero, zero)
		for t := range rows {
			for h := range cols {
				VMOVUPS(zero, out.at(t, 32*h))
			}
		}
	} else {
		sum = vectors(rows, cols, YMM)
		for _, v := range sum {
			for h := range v {
				VPXOR(v[h], v[h], v[h])
			}
		}
	}
	Label(loop)
	if rows >= 2 || f == p4 {
		prefetch(p.w, f.bytes)
	}
	acc := vectors(rows, cols, YMM)
	switch f {
	case p4:
		sumP4(p, acc)
	case p5:
		sumP5(p, acc)
	case p8:
		sumP8(p, acc)
	}
	for h := range cols {
		d, m := YMM(), YMM()
		VCVTPH2PS(at(scales, 16*h), d)
		if f.min {
			VCVTPH2PS(at(scales, 64+16*h), m)
		}
		for t := range rows {
			a := acc[t][h]
			VCVTDQ2PS(a, a)
			VMULPS(d, a, a)
			var s reg.VecVirtual
			if inMemory {
				s = YMM()
				VMOVUPS(out.at(t, 32*h), s)
			} else {
				s = sum[t][h]
			}
			x := YMM()
			VBROADCASTSS(p.s.at(t, 0), x)
			VFMADD231PS(x, a, s)
			if f.min {
				x := YMM()
				VBROADCASTSS(p.s.at(t, 4), x)
				VFMADD231PS(x, m, s)
			}
			if inMemory {
				VMOVUPS(s, out.at(t, 32*h))
			}
		}
	}
	p.next(f)
	advance(scales, f.bytes)
	DECQ(p.blocks)
	JNZ(LabelRef(loop))
	for t, v := range sum {
		for h := range v {
			VMOVUPS(v[h], out.at(t, 32*h))
		}
	}
	if cols == 2 {
		ADDQ(U8(8), half)
		CMPQ(half, U8(8))
		JEQ(LabelRef(outputs))
	}
}

// sumP4 makes the int32 sums of a block. 8 VPMADDUBSW fit int16: 8·2·15·127 = 30480.
func sumP4(p intPointers, acc [][]reg.VecVirtual) {
	for k := 0; k < 32; k += 4 {
		for h := range acc[0] {
			w := YMM()
			VMOVDQU(at(p.w, p4.weights+k/8*128+32*h), w)
			if k%8 == 4 {
				VPSRLD(U8(4), w, w)
			}
			VPAND(constant(0x0f0f0f0f), w, w)
			for t := range acc {
				x := YMM()
				VPBROADCASTD(p.q.at(t, k), x)
				if k == 0 {
					VPMADDUBSW(x, w, acc[t][h])
				} else {
					VPMADDUBSW(x, w, x)
					VPADDW(x, acc[t][h], acc[t][h])
				}
			}
		}
	}
	for _, v := range acc {
		for h := range v {
			VPMADDWD(constant(0x00010001), v[h], v[h])
		}
	}
}

// sumP5: 4 VPMADDUBSW would fit int16 (4·2·31·127 = 31496), but for want of registers two are added before VPMADDWD widens them.
func sumP5(p intPointers, acc [][]reg.VecVirtual) {
	for k := 0; k < 32; k += 8 {
		for h := range acc[0] {
			w0, w1 := YMM(), YMM()
			VMOVDQU(at(p.w, p5.weights+k/4*128+32*h), w0)
			VMOVDQU(at(p.w, p5.weights+k/4*128+128+32*h), w1)
			for t := range acc {
				x0, x1 := YMM(), YMM()
				VPBROADCASTD(p.q.at(t, k), x0)
				VPBROADCASTD(p.q.at(t, k+4), x1)
				VPMADDUBSW(x0, w0, x0)
				VPMADDUBSW(x1, w1, x1)
				VPADDW(x1, x0, x0)
				widen(x0, acc[t][h], k == 0)
			}
		}
	}
}

// sumP8: unsigned 8-bit weights would overflow int16 (2·255·127), so |w| is multiplied with the activations that carry the sign of w
// (2·128·127 = 32512), and each product is widened at once.
func sumP8(p intPointers, acc [][]reg.VecVirtual) {
	for k := 0; k < 32; k += 4 {
		for h := range acc[0] {
			w, abs := YMM(), YMM()
			VMOVDQU(at(p.w, p8.weights+k/4*128+32*h), w)
			VPXOR(constant(0x80808080), w, w)
			VPABSB(w, abs)
			for t := range acc {
				x := YMM()
				VPBROADCASTD(p.q.at(t, k), x)
				VPSIGNB(w, x, x)
				VPMADDUBSW(x, abs, x)
				widen(x, acc[t][h], k == 0)
			}
		}
	}
}

// widen adds the pairs of int16 of x to the int32 of acc, or sets acc to them.
func widen(x, acc reg.VecVirtual, first bool) {
	if first {
		VPMADDWD(constant(0x00010001), x, acc)
		return
	}
	VPMADDWD(constant(0x00010001), x, x)
	VPADDD(x, acc, acc)
}
