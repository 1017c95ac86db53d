package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// The rows of the Go variable sampleTable (sample_amd64.go there), each one constant eight times over.
const (
	sCoeff = 0 // 6 rows
	sLeast = 6
	sMagic = 7
	s32    = 8
	s8     = 9
)

func sampleConstant(i int) Mem { return NewDataAddr(Symbol{Name: "·sampleTable"}, 32*i) }

const (
	sampleChunk    = 512
	unordered      = 3
	greaterOrEqual = 13 // and ordered
)

// paramAddr returns the address of a float32 parameter.
func paramAddr(name string) Mem {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return a.Addr
}

// scan takes chunks of 512 values. Lane l of 32 of each chunk gets the largest of its values l, l+32, l+64, …
func scan(s isa) {
	start(s, "scan", "(x *float32, chunks int, maxima *float32) (top float32, nan uint32)")
	x, chunks, maxima := param("x"), param("chunks"), param("maxima")
	top := s.vecs(s.in32())
	for _, t := range top {
		VBROADCASTSS(constant(cMinusInf), t)
	}
	var bad reg.OpmaskVirtual
	var badVec reg.VecVirtual
	if s == avx512 {
		bad = K()
		KXORW(bad, bad, bad)
	} else {
		badVec = s.vec()
		VXORPS(badVec, badVec, badVec)
	}
	Label("chunk")
	m := s.vecs(s.in32())
	for i := 0; i < sampleChunk/32; i++ {
		v := s.vecs(s.in32())
		for j := range v {
			VMOVUPS(at(x, i*128+j*s.bytes()), v[j])
		}
		for j := 0; j < len(v); j += 2 { // two at once: unordered if either is NaN
			if s == avx512 {
				k := K()
				VCMPPS(U8(unordered), v[j], v[j+1], k)
				KORW(k, bad, bad)
			} else {
				c := s.vec()
				VCMPPS(U8(unordered), v[j], v[j+1], c)
				VORPS(c, badVec, badVec)
			}
		}
		for j := range v {
			if i == 0 {
				VMOVAPS(v[j], m[j])
			} else {
				VMAXPS(v[j], m[j], m[j])
			}
		}
	}
	for j := range m {
		VMOVUPS(m[j], at(maxima, j*s.bytes()))
		VMAXPS(m[j], top[j], top[j])
	}
	ADDQ(U32(4*sampleChunk), x)
	SUBQ(I8(-128), maxima)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	Store(s.fold32(top, opMax), Return("top"))
	r := GP32()
	if s == avx512 {
		KMOVW(bad, r)
	} else {
		VMOVMSKPS(badVec, r)
	}
	Store(r, Return("nan"))
	finish()
}

// weigh takes chunks of 512 values and writes their weights, float32 of whole numbers, and each chunk's sum. After each
// chunk the place of the weights moves by step bytes. scale is negative.
func weigh(s isa) {
	start(s, "weigh", "(x *float32, chunks int, peak float32, scale float32, least float32, weights *float32, step int, sums *uint64)")
	x, chunks, weights, step, sums := param("x"), param("chunks"), param("weights"), param("step"), param("sums")
	peak, scale, least := s.broadcast(paramAddr("peak")), s.broadcast(paramAddr("scale")), s.broadcast(paramAddr("least"))
	hold := func(i int) Op { // AVX2 has too few registers
		if s == avx512 {
			return s.broadcast(sampleConstant(i))
		}
		return sampleConstant(i)
	}
	var coeff [6]Op
	for i := range coeff {
		coeff[i] = hold(sCoeff + i)
	}
	floor, magic := hold(sLeast), hold(sMagic)
	Label("chunk")
	acc := s.vecs(2)
	for _, a := range acc {
		VXORPS(a, a, a)
	}
	i := GP64()
	XORQ(i, i)
	Label("loop")
	for j := 0; j < 2; j++ {
		d, n, y := s.vec(), s.vec(), s.vec()
		VSUBPS(index(x, i, j*s.bytes()), peak, d)
		VMULPS(scale, d, d)
		VMAXPS(floor, d, d)
		t := s.vec()
		VADDPS(magic, d, t)
		VSUBPS(magic, t, n)
		VSUBPS(n, d, d)
		z, e := s.vec(), s.vec()
		for p, v := range []reg.VecVirtual{y, z, e} {
			VMULPS(coeff[2*p], d, v)
			VADDPS(coeff[2*p+1], v, v)
		}
		VMULPS(d, d, d)
		VMULPS(d, y, y)
		VADDPS(z, y, y)
		VMULPS(d, y, y)
		VADDPS(e, y, y)
		VPSLLD(U8(23), t, t)
		VPADDD(t, y, y)
		if s == avx512 {
			VRNDSCALEPS(U8(0), y, y)
			k := K()
			VCMPPS(U8(greaterOrEqual), least, y, k)
			VMOVAPS_Z(y, k, y)
		} else {
			VROUNDPS(U8(0), y, y)
			c := s.vec()
			VCMPPS(U8(greaterOrEqual), least, y, c)
			VANDPS(c, y, y)
		}
		VMOVUPS(y, index(weights, i, j*s.bytes()))
		low, high := s.vec(), s.vec()
		if s == avx512 {
			h := YMM()
			VCVTPS2PD(y.AsY(), low)
			VEXTRACTF64X4(U8(1), y, h)
			VCVTPS2PD(h, high)
		} else {
			h := XMM()
			VCVTPS2PD(y.AsX(), low)
			VEXTRACTF128(U8(1), y, h)
			VCVTPS2PD(h, high)
		}
		VADDPD(low, acc[0], acc[0])
		VADDPD(high, acc[1], acc[1])
	}
	ADDQ(U8(2*s.lanes()), i)
	CMPQ(i, U32(sampleChunk))
	JLT(LabelRef("loop"))

	// All these sums are exact: they stay below 2^53.
	VADDPD(acc[1], acc[0], acc[0])
	y := acc[0].AsY().(reg.VecVirtual)
	if s == avx512 {
		h := YMM()
		VEXTRACTF64X4(U8(1), acc[0], h)
		VADDPD(h, y, y)
	}
	lo, h := y.AsX().(reg.VecVirtual), XMM()
	VEXTRACTF128(U8(1), y, h)
	VADDPD(h, lo, lo)
	VPERMILPD(U8(1), lo, h)
	VADDSD(h, lo, lo)
	sum := GP64()
	VCVTTSD2SIQ(lo, sum)
	MOVQ(sum, at(sums, 0))
	ADDQ(U8(8), sums)
	ADDQ(U32(4*sampleChunk), x)
	ADDQ(step, weights)
	DECQ(chunks)
	JNZ(LabelRef("chunk"))
	finish()
}

// collect takes n values, a multiple of 32. It writes a whole vector for each that has something to keep.
func collect(s isa) {
	start(s, "collect", "(x *float32, n int, least float32, ids *int32, values *float32) (count int)")
	x, n, ids, values := param("x"), param("n"), param("ids"), param("values")
	least := s.broadcast(paramAddr("least"))
	count := GP64()
	XORQ(count, count)
	i := GP64()
	XORQ(i, i)

	places := s.vecs(s.pick(2, 1)) // of the values in x; AVX2: of the first one in all lanes
	stride := s.vec()
	var table reg.GPVirtual
	if s == avx512 {
		for j := range places {
			VMOVDQU(constant(cIota+2*j), places[j].AsY())
			VINSERTI64X4(U8(1), constant(cIota+2*j+1), places[j], places[j])
		}
		VBROADCASTSS(sampleConstant(s32), stride)
	} else {
		VXORPS(places[0], places[0], places[0])
		VMOVDQU(sampleConstant(s8), stride)
		table = GP64()
		LEAQ(NewDataAddr(Symbol{Name: "·compressTable"}, 0), table)
	}

	Label("loop")
	v := make([]reg.VecVirtual, s.in32())
	for j := range v {
		v[j] = s.load(index(x, i, j*s.bytes()))
	}
	if s == avx512 {
		k := []reg.OpmaskVirtual{K(), K()}
		for j := range v {
			VCMPPS(U8(greaterOrEqual), least, v[j], k[j])
		}
		KORTESTW(k[0], k[1])
		JZ(LabelRef("none"))
		for j := range v {
			c, p := s.vec(), s.vec()
			VCOMPRESSPS_Z(v[j], k[j], c)
			VPCOMPRESSD_Z(places[j], k[j], p)
			VMOVUPS(c, index(values, count, 0))
			VMOVDQU32(p, index(ids, count, 0))
			m := GP32()
			KMOVW(k[j], m)
			POPCNTL(m, m)
			ADDQ(m.As64(), count)
		}
		Label("none")
		for j := range places {
			VPADDD(stride, places[j], places[j])
		}
	} else {
		c := s.vecs(s.in32())
		for j := range v {
			VCMPPS(U8(greaterOrEqual), least, v[j], c[j])
		}
		some, other := s.vec(), s.vec()
		VORPS(c[0], c[1], some)
		VORPS(c[2], c[3], other)
		VORPS(other, some, some)
		VPTEST(some, some)
		JZ(LabelRef("none"))
		at8 := s.vec()
		VMOVAPS(places[0], at8)
		for j := range v {
			m, entry := GP32(), GP32()
			order := s.vec()
			VMOVMSKPS(c[j], m)
			MOVL(m, entry)
			SHLL(U8(5), entry)
			VMOVDQU(Mem{Base: table, Index: entry.As64(), Scale: 1}, order)
			VPERMPS(v[j], order, v[j])
			VPADDD(at8, order, order)
			VMOVUPS(v[j], index(values, count, 0))
			VMOVDQU(order, index(ids, count, 0))
			VPADDD(stride, at8, at8)
			POPCNTL(m, m)
			ADDQ(m.As64(), count)
		}
		Label("none")
		for range v {
			VPADDD(stride, places[0], places[0])
		}
	}
	ADDQ(U8(32), i)
	CMPQ(i, n)
	JLT(LabelRef("loop"))
	Store(count, Return("count"))
	finish()
}
