package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// An isa says for which instruction set a kernel is emitted. Most instructions have the same name in both; the methods
// below are those that differ.
type isa int

const (
	avx2 isa = iota
	avx512
)

func (s isa) String() string {
	if s == avx512 {
		return "AVX512"
	}
	return "AVX2"
}

// pick returns a for AVX-512, b for AVX2.
func (s isa) pick(a, b int) int {
	if s == avx512 {
		return a
	}
	return b
}

func (s isa) lanes() int { return s.pick(16, 8) }
func (s isa) bytes() int { return 4 * s.lanes() }
func (s isa) in32() int  { return 32 / s.lanes() } // vectors that hold 32 values

func (s isa) vec() reg.VecVirtual {
	if s == avx512 {
		return ZMM()
	}
	return YMM()
}

func (s isa) vecs(n int) []reg.VecVirtual {
	v := make([]reg.VecVirtual, n)
	for i := range v {
		v[i] = s.vec()
	}
	return v
}

func (s isa) zeros(n int) []reg.VecVirtual {
	v := s.vecs(n)
	for _, r := range v {
		VXORPS(r, r, r)
	}
	return v
}

// load returns a register with the vector at m.
func (s isa) load(m Mem) reg.VecVirtual {
	v := s.vec()
	VMOVUPS(m, v)
	return v
}

// loadHalf returns a register with the f16 vector at m, widened.
func (s isa) loadHalf(m Mem) reg.VecVirtual {
	v := s.vec()
	VCVTPH2PS(m, v)
	return v
}

// broadcast returns a register with the float32 at m in every lane.
func (s isa) broadcast(m Mem) reg.VecVirtual {
	v := s.vec()
	VBROADCASTSS(m, v)
	return v
}

func at(b reg.Register, d int) Mem { return Mem{Base: b, Disp: d} }

// start opens a function and names it after the instruction set.
func start(s isa, name, signature string) {
	TEXT(name+s.String(), NOSPLIT, "func"+signature)
	Pragma("noescape")
}

func finish() {
	VZEROUPPER()
	RET()
}

func param(name string) reg.GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}

// The rows of the Go variable table (constants_amd64.go), each one constant eight times over.
const (
	cExp2Coeff = 0 // 6 rows
	cExp2Min   = 6
	cExp2Max   = 7
	cMasked    = 8
	c127       = 9
	cMinAmax   = 10
	cOne       = 11
	cNegLog2E  = 12
	cMaxHalf   = 13
	cMinHalf   = 14
	cAbs       = 15
	cMinusInf  = 16
	cIota      = 17 // 4 rows: 0 to 31
	cUnpack    = 21 // order of the dwords after packing four vectors to bytes
	cGelu      = 22 // 2 rows: GELU's factors of g and of g³
	cBits      = 24 // 4 rows: 1<<0 to 1<<31
)

// constant returns the address of the table's row i.
func constant(i int) Mem { return NewDataAddr(Symbol{Name: "·table"}, 32*i) }

// fold32 reduces 32 partial values to one in lane 0 by the lane tree of docs/numerics.md. op(a, b) sets b to a op b.
func (s isa) fold32(v []reg.VecVirtual, op func(a, b reg.VecVirtual)) reg.VecVirtual {
	y := YMM()
	if s == avx512 {
		z := ZMM()
		VMOVAPS(v[0], z)
		op(v[1], z)
		VEXTRACTF64X4(U8(1), z, y)
		op(z.AsY().(reg.VecVirtual), y)
	} else {
		t := YMM()
		VMOVAPS(v[0], y)
		op(v[2], y)
		VMOVAPS(v[1], t)
		op(v[3], t)
		op(t, y)
	}
	x, h := XMM(), XMM()
	if s == avx512 {
		VEXTRACTF32X4(U8(1), y, x)
	} else {
		VEXTRACTF128(U8(1), y, x)
	}
	op(y.AsX().(reg.VecVirtual), x)
	VPERMILPS(U8(0x4e), x, h)
	op(h, x)
	VPERMILPS(U8(0xb1), x, h)
	op(h, x)
	return x
}

// halfSums returns the sums of the first and of the last 16 of 32 int32 in lanes 0 and 1, and again in lanes 2 and 3.
func (s isa) halfSums(v []reg.VecVirtual) reg.VecVirtual {
	a, b, x := YMM(), YMM(), XMM()
	if s == avx512 {
		VEXTRACTI64X4(U8(1), v[0], a)
		VEXTRACTI64X4(U8(1), v[1], b)
		VPADDD(v[0].AsY(), a, a)
		VPADDD(v[1].AsY(), b, b)
	} else {
		VPADDD(v[0], v[1], a)
		VPADDD(v[2], v[3], b)
	}
	VPHADDD(b, a, a)
	VEXTRACTI128(U8(1), a, x)
	VPADDD(a.AsX(), x, x)
	VPHADDD(x, x, x)
	return x
}

func opAdd(a, b reg.VecVirtual) { VADDPS(a, b, b) }
func opMax(a, b reg.VecVirtual) { VMAXPS(a, b, b) }

// An exp2 emits kernel.Exp2. With AVX-512 its constants sit in registers; AVX2 has too few and reads them each time.
type exp2 struct {
	isa   isa
	coeff [6]Op
	min   Op
}

func newExp2(s isa) exp2 {
	e := exp2{isa: s}
	for i := range e.coeff {
		e.coeff[i] = constant(cExp2Coeff + i)
		if s == avx512 {
			e.coeff[i] = s.broadcast(constant(cExp2Coeff + i))
		}
	}
	e.min = constant(cExp2Min)
	if s == avx512 {
		e.min = s.broadcast(constant(cExp2Min))
	}
	return e
}

// at narrows a constant to the width of x.
func (e exp2) at(c Op, x reg.VecVirtual) Op {
	r, ok := c.(reg.VecVirtual)
	if !ok {
		return c
	}
	switch x.Size() {
	case 16:
		return r.AsX()
	case 32:
		return r.AsY()
	}
	return r
}

// apply replaces x by 2^x. x is at most kernel.Exp2Max: callers clamp it where it might be more.
func (e exp2) apply(x reg.VecVirtual) {
	var n, y, keep reg.VecVirtual
	var k reg.OpmaskVirtual
	if x.Size() == 16 {
		n, y = XMM(), XMM()
	} else {
		n, y = e.isa.vec(), e.isa.vec()
	}
	const greaterOrEqual = 13 // and ordered
	if e.isa == avx512 {
		k = K()
		VCMPPS(U8(greaterOrEqual), e.at(e.min, x), x, k)
		VRNDSCALEPS(U8(0), x, n)
	} else {
		keep = e.isa.vec()
		if x.Size() == 16 {
			keep = XMM()
		}
		VCMPPS(U8(greaterOrEqual), e.min, x, keep)
		VROUNDPS(U8(0), x, n)
	}
	VSUBPS(n, x, x)
	VMOVAPS(e.at(e.coeff[0], x), y)
	for _, c := range e.coeff[1:] {
		VFMADD213PS(e.at(c, x), x, y)
	}
	VCVTPS2DQ(n, n)
	VPSLLD(U8(23), n, n)
	if e.isa == avx512 {
		VPADDD_Z(n, y, k, x)
	} else {
		VPADDD(n, y, x)
		VANDPS(keep, x, x)
	}
}
