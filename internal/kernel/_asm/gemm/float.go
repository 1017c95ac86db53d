package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// floatFormat describes a panel of floats: 32 outputs for each k.
type floatFormat struct {
	name  string
	bytes int // of a weight
}

var (
	f16  = floatFormat{"f16", 2}
	bf16 = floatFormat{"bf16", 2}
	f32  = floatFormat{"f32", 4}
)

// load reads one vector of weights as float32.
func (f floatFormat) load(m Mem, v reg.VecVirtual) {
	switch f {
	case f16:
		VCVTPH2PS(m, v)
	case bf16:
		VPMOVZXWD(m, v)
		VPSLLD(U8(16), v, v)
	case f32:
		VMOVUPS(m, v)
	}
}

func (f floatFormat) avx512(rows int) { f.body(rows, 2, 16, ZMM) }

// avx2 does one row with 32 outputs at once, more rows with 16 outputs at a time.
func (f floatFormat) avx2(rows int) {
	if rows == 1 {
		f.body(1, 4, 8, YMM)
	} else {
		f.body(rows, 2, 8, YMM)
	}
}

// body keeps rows × cols vectors of lanes outputs in registers; if they are 16 outputs, it goes over the panel twice.
func (f floatFormat) body(rows, cols, lanes int, alloc func() reg.VecVirtual) {
	loop, outputs := fmt.Sprintf("loop%d", rows), fmt.Sprintf("outputs%d", rows)
	const unroll = 4 // k is a multiple of 32
	twice := cols*lanes == 16
	half := GP64() // bytes: 64 for the upper outputs, as floats
	if twice {
		XORQ(half, half)
		Label(outputs)
	}
	w, k := load("w"), load("k")
	x := newRowPointer(load("x"), scaled(k, 2), rows)
	if twice {
		at := GP64()
		MOVQ(half, at)
		if f.bytes == 2 {
			SHRQ(U8(1), at)
		}
		ADDQ(at, w)
	}
	sum := vectors(rows, cols, alloc)
	for _, v := range sum {
		for h := range v {
			VXORPS(v[h], v[h], v[h])
		}
	}
	Label(loop)
	if twice {
		prefetch(at(w, 0), 64, unroll*32*f.bytes, true)
	}
	for u := range unroll {
		weights := make([]reg.VecVirtual, cols)
		for h := range weights {
			weights[h] = alloc()
			f.load(at(w, (32*u+lanes*h)*f.bytes), weights[h])
		}
		for t := range rows {
			v := alloc()
			VBROADCASTSS(x.at(t, 4*u), v)
			for h := range weights {
				VFMADD231PS(weights[h], v, sum[t][h])
			}
		}
	}
	advance(w, unroll*32*f.bytes)
	x.advance(unroll * 4)
	SUBQ(U8(unroll), k)
	JNZ(LabelRef(loop))
	y, stride := load("y"), load("stride")
	if twice {
		ADDQ(half, y)
	}
	for t, v := range sum {
		for h := range v {
			VMOVUPS(v[h], at(y, 4*lanes*h))
		}
		if t < rows-1 {
			ADDQ(stride, y)
		}
	}
	if twice {
		ADDQ(U8(64), half)
		CMPQ(half, U8(64))
		JEQ(LabelRef(outputs))
	}
}
