package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func quantize(s isa) {
	start(s, "quantize", "(x *float32, blocks int, q *int8, scales *float32, nsum *int32)")
	x, blocks, q, scales, nsum := param("x"), param("blocks"), param("q"), param("scales"), param("nsum")
	abs := s.broadcast(constant(cAbs))
	c127x, tiny := XMM(), XMM()
	VMOVSS(constant(c127), c127x)
	VMOVSS(constant(cMinAmax), tiny)

	Label("block")
	v := s.vecs(s.in32())
	m := s.vecs(s.in32())
	for i := range v {
		VMOVUPS(at(x, i*s.bytes()), v[i])
		VANDPS(abs, v[i], m[i])
	}
	amax := s.fold32(m, opMax)
	VMAXSS(tiny, amax, amax)
	d, inv := XMM(), XMM()
	VDIVSS(c127x, amax, d)
	VDIVSS(amax, c127x, inv)
	invs := s.vec()
	VBROADCASTSS(inv, invs)
	for i := range v {
		VMULPS(invs, v[i], v[i])
		VCVTPS2DQ(v[i], v[i])
	}
	if s == avx512 {
		VPMOVSDB(v[0], at(q, 0))
		VPMOVSDB(v[1], at(q, 16))
	} else {
		a, b := YMM(), YMM()
		VPACKSSDW(v[1], v[0], a)
		VPACKSSDW(v[3], v[2], b)
		VPACKSSWB(b, a, a)
		VMOVDQU(constant(cUnpack), b)
		VPERMD(a, b, a)
		VMOVDQU(a, at(q, 0))
	}
	half := s.halfSums(v)
	sum, pair, ds := XMM(), XMM(), XMM()
	VPHADDD(half, half, sum)
	VPACKSSDW(half, half, pair)
	VCVTDQ2PS(sum, ds)
	VMULSS(d, ds, ds)
	VMOVSS(d, at(scales, 0))
	VMOVSS(ds, at(scales, 4))
	n := GP32()
	VMOVD(sum, n)
	NEGL(n)
	SHLL(U8(7), n)
	MOVL(n, at(nsum, 0))
	VMOVD(pair, at(nsum, 4))
	SUBQ(I8(-128), x)
	ADDQ(U8(32), q)
	ADDQ(U8(8), scales)
	ADDQ(U8(8), nsum)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	finish()
}

// index returns base[i] for a loop that counts i in float32.
func index(base, i reg.Register, d int) Mem { return Mem{Base: base, Index: i, Scale: 4, Disp: d} }

// over32 emits body for i = 0, 32, … below n.
func over32(label string, n reg.Register, body func(i reg.Register)) {
	i := GP64()
	XORQ(i, i)
	Label(label)
	body(i)
	ADDQ(U8(32), i)
	CMPQ(i, n)
	JLT(LabelRef(label))
}

func rmsNorm(s isa) {
	start(s, "rmsNorm", "(dst *float32, x *float32, w *float32, n int, eps float32)")
	dst, x, w, n := param("dst"), param("x"), param("w"), param("n")
	acc := s.zeros(s.in32())
	over32("squares", n, func(i reg.Register) {
		for j := range acc {
			v := s.load(index(x, i, j*s.bytes()))
			VFMADD231PS(v, v, acc[j])
		}
	})
	r := s.fold32(acc, opAdd)
	nf, eps := XMM(), XMM()
	VXORPS(nf, nf, nf)
	VCVTSI2SSQ(n, nf, nf)
	VDIVSS(nf, r, r)
	Load(Param("eps"), eps)
	VADDSS(eps, r, r)
	VSQRTSS(r, r, r)
	one := XMM()
	VMOVSS(constant(cOne), one)
	VDIVSS(r, one, r)
	rs := s.vec()
	VBROADCASTSS(r, rs)
	over32("scale", n, func(i reg.Register) {
		for j := range acc {
			v := s.vec()
			VMULPS(index(x, i, j*s.bytes()), rs, v)
			VMULPS(index(w, i, j*s.bytes()), v, v)
			VMOVUPS(v, index(dst, i, j*s.bytes()))
		}
	})
	finish()
}

// add takes n in multiples of 16.
func add(s isa) {
	start(s, "add", "(x *float32, y *float32, n int)")
	x, y, n := param("x"), param("y"), param("n")
	i := GP64()
	XORQ(i, i)
	Label("loop")
	for d := 0; d < 64; d += s.bytes() {
		v := s.load(index(x, i, d))
		VADDPS(index(y, i, d), v, v)
		VMOVUPS(v, index(x, i, d))
	}
	ADDQ(U8(16), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	finish()
}

// addScaled takes n in multiples of 16.
func addScaled(s isa) {
	start(s, "addScaled", "(x *float32, y *float32, n int, scale float32)")
	x, y, n := param("x"), param("y"), param("n")
	addr, err := Param("scale").Resolve()
	if err != nil {
		panic(err)
	}
	scale := s.broadcast(addr.Addr)
	i := GP64()
	XORQ(i, i)
	Label("loop")
	for d := 0; d < 64; d += s.bytes() {
		v := s.load(index(x, i, d))
		VFMADD231PS(index(y, i, d), scale, v)
		VMOVUPS(v, index(x, i, d))
	}
	ADDQ(U8(16), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	finish()
}

func geluMul(s isa) {
	start(s, "geluMul", "(dst *float32, gate *float32, up *float32, n int)")
	dst, gate, up, n := param("dst"), param("gate"), param("up"), param("n")
	e := newExp2(s)
	a, b := s.broadcast(constant(cGelu)), s.broadcast(constant(cGelu+1))
	top := s.broadcast(constant(cExp2Max))
	one := s.broadcast(constant(cOne))
	over32("loop", n, func(i reg.Register) {
		for j := 0; j < s.in32(); j++ {
			g := s.load(index(gate, i, j*s.bytes()))
			x := s.vec()
			VMULPS(g, g, x)
			VFMADD213PS(a, b, x)
			VMULPS(g, x, x)
			VMINPS(top, x, x)
			e.apply(x)
			VADDPS(one, x, x)
			VDIVPS(x, g, g)
			VMULPS(index(up, i, j*s.bytes()), g, g)
			VMOVUPS(g, index(dst, i, j*s.bytes()))
		}
	})
	finish()
}

func siluMul(s isa) {
	start(s, "siluMul", "(dst *float32, gate *float32, up *float32, n int)")
	dst, gate, up, n := param("dst"), param("gate"), param("up"), param("n")
	e := newExp2(s)
	nlog2e := s.broadcast(constant(cNegLog2E))
	top := s.broadcast(constant(cExp2Max))
	one := s.broadcast(constant(cOne))
	over32("loop", n, func(i reg.Register) {
		for j := 0; j < s.in32(); j++ {
			g := s.load(index(gate, i, j*s.bytes()))
			x := s.vec()
			VMULPS(nlog2e, g, x)
			VMINPS(top, x, x)
			e.apply(x)
			VADDPS(one, x, x)
			VDIVPS(x, g, g)
			VMULPS(index(up, i, j*s.bytes()), g, g)
			VMOVUPS(g, index(dst, i, j*s.bytes()))
		}
	})
	finish()
}

func rope(s isa) {
	start(s, "rope", "(dst *float32, src *float32, heads int, headSize int, cs *float32, scale float32)")
	dst, src, heads, size, cos := param("dst"), param("src"), param("heads"), param("headSize"), param("cs")
	scale := s.vec()
	scaleAddr, err := Param("scale").Resolve()
	if err != nil {
		panic(err)
	}
	VBROADCASTSS(scaleAddr.Addr, scale)
	sin := GP64()
	LEAQ(index(cos, size, 0), sin)
	Label("head")
	i := GP64()
	XORQ(i, i)
	Label("loop")
	for d := 0; d < 64; d += s.bytes() {
		a := s.load(index(src, i, d))
		b := s.vec()
		VPERMILPS(U8(0xb1), a, b)
		VMULPS(index(sin, i, d), b, b)
		VFMADD231PS(index(cos, i, d), a, b)
		VMULPS(scale, b, b)
		VMOVUPS(b, index(dst, i, d))
	}
	ADDQ(U8(16), i)
	CMPQ(i, size)
	JLT(LabelRef("loop"))
	LEAQ(index(src, size, 0), src)
	LEAQ(index(dst, size, 0), dst)
	DECQ(heads)
	JNZ(LabelRef("head"))
	finish()
}

// maxOf returns the largest of n values (a multiple of 32), ignoring NaN; -Inf if there is no other.
func maxOf(s isa) {
	start(s, "maxOf", "(x *float32, n int) float32")
	x, n := param("x"), param("n")
	acc := s.vecs(s.in32())
	for _, a := range acc {
		VBROADCASTSS(constant(cMinusInf), a)
	}
	over32("loop", n, func(i reg.Register) {
		for j, a := range acc {
			v := s.load(index(x, i, j*s.bytes()))
			VMAXPS(a, v, a) // of a NaN and a number the instruction returns the operand that is named first here
		}
	})
	r := s.fold32(acc, opMax)
	Store(r, ReturnIndex(0))
	finish()
}

// indexOf returns the first multiple of 32 at which one of the 32 values equals v, or n.
func indexOf(s isa) {
	start(s, "indexOf", "(x *float32, n int, v float32) int")
	x, n := param("x"), param("n")
	addr, err := Param("v").Resolve()
	if err != nil {
		panic(err)
	}
	v := s.broadcast(addr.Addr)
	i := GP64()
	XORQ(i, i)
	Label("loop")
	if s == avx512 {
		k0, k1 := K(), K()
		VCMPPS(U8(0), index(x, i, 0), v, k0)
		VCMPPS(U8(0), index(x, i, 64), v, k1)
		KORTESTW(k0, k1)
	} else {
		m := s.vecs(4)
		for j := range m {
			VCMPPS(U8(0), index(x, i, j*32), v, m[j])
		}
		VORPS(m[1], m[0], m[0])
		VORPS(m[3], m[2], m[2])
		VORPS(m[2], m[0], m[0])
		VPTEST(m[0], m[0])
	}
	JNZ(LabelRef("found"))
	ADDQ(U8(32), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	Label("found")
	Store(i, ReturnIndex(0))
	finish()
}

// toHalf emits the conversion of 16 values at src: saturated, rounded to nearest even. use gets each register with its
// number of halves.
func toHalf(s isa, src reg.Register, use func(first int, h reg.VecVirtual)) {
	for i := 0; i < 16; i += s.lanes() {
		v := s.load(at(src, 4*i))
		if s == avx512 {
			VMINPS_BCST(constant(cMaxHalf), v, v)
			VMAXPS_BCST(constant(cMinHalf), v, v)
			h := YMM()
			VCVTPS2PH(U8(0), v, h)
			use(i, h)
			continue
		}
		VMINPS(constant(cMaxHalf), v, v)
		VMAXPS(constant(cMinHalf), v, v)
		h := XMM()
		VCVTPS2PH(U8(0), v, h)
		use(i, h)
	}
}

// storeK gets the address of the column's first row.
func storeK(s isa) {
	start(s, "storeK", "(column *uint16, k *float32, headSize int)")
	column, k, n := param("column"), param("k"), param("headSize")
	const stride = 2 * 32
	Label("loop")
	toHalf(s, k, func(first int, h reg.VecVirtual) {
		for i := 0; i < s.lanes(); i += 8 {
			x := h.AsX().(reg.VecVirtual)
			if i == 8 {
				x = XMM()
				VEXTRACTF128(U8(1), h, x)
			}
			for j := 0; j < 8; j++ {
				VPEXTRW(U8(j), x, at(column, (first+i+j)*stride))
			}
		}
	})
	ADDQ(U32(16*stride), column)
	ADDQ(U8(64), k)
	SUBQ(U8(16), n)
	JNZ(LabelRef("loop"))
	finish()
}

func storeV(s isa) {
	start(s, "storeV", "(row *uint16, v *float32, headSize int)")
	row, v, n := param("row"), param("v"), param("headSize")
	Label("loop")
	toHalf(s, v, func(first int, h reg.VecVirtual) { VMOVUPS(h, at(row, 2*first)) })
	ADDQ(U8(32), row)
	ADDQ(U8(64), v)
	SUBQ(U8(16), n)
	JNZ(LabelRef("loop"))
	finish()
}
