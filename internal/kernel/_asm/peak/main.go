// Command peak writes the assembly of package kvasir/internal/kernel/peak: loops that do nothing but keep one kind of unit busy.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// Sums that are under way at once, enough to hide the latency of the instruction (4 or 5 cycles, two a cycle). loop_amd64.go has the
// same numbers.
const (
	sumsAVX512 = 24
	sumsAVX2   = 12
)

// readBytes is what one turn of a reading loop takes.
const readBytes = 512

func main() {
	ConstraintExpr("amd64,!purego")
	compute("int8AVX512", sumsAVX512, ZMM, 0x01020304, func(a, b, sum, _ reg.VecVirtual) { vpdpbusd(a, b, sum) })
	compute("f32AVX512", sumsAVX512, ZMM, half, func(a, b, sum, _ reg.VecVirtual) { VFMADD231PS(a, b, sum) })
	// Without VNNI a product of bytes costs two instructions: the pairs in int16, and their sum.
	compute("int8AVX2", sumsAVX2, YMM, 0x01020304, func(a, b, sum, t reg.VecVirtual) {
		VPMADDUBSW(a, b, t)
		VPADDW(t, sum, sum)
	})
	compute("f32AVX2", sumsAVX2, YMM, half, func(a, b, sum, _ reg.VecVirtual) { VFMADD231PS(a, b, sum) })
	read("readAVX512", 64, ZMM, func(m Mem, sum reg.VecVirtual) { VPORQ(m, sum, sum) })
	read("readAVX2", 32, YMM, func(m Mem, sum reg.VecVirtual) { VPOR(m, sum, sum) })
	Generate()
}

// half is 0.5 in float32: sums of 0.25 stay finite for good.
const half = 0x3f000000

// compute writes a loop of n turns, each of which adds to every sum once. Both factors are vectors of value.
func compute(name string, sums int, vector func() reg.VecVirtual, value uint32, add func(a, b, sum, t reg.VecVirtual)) {
	TEXT(name, NOSPLIT, "func(n int)")
	Doc(name + " runs n turns of the loop.")
	n := Load(Param("n"), GP64())
	v, x := GP32(), XMM()
	MOVL(U32(value), v)
	VMOVD(v, x)
	a, b := vector(), vector()
	VPBROADCASTD(x, a)
	VPBROADCASTD(x, b)
	t := []reg.VecVirtual{vector(), vector()}
	sum := zeros(sums, vector)
	Label("turn")
	for i, s := range sum {
		add(a, b, s, t[i%len(t)])
	}
	DECQ(n)
	JNZ(LabelRef("turn"))
	VZEROUPPER()
	RET()
}

// read writes a loop over n bytes at p, n a multiple of readBytes and not 0.
func read(name string, width int, vector func() reg.VecVirtual, or func(m Mem, sum reg.VecVirtual)) {
	TEXT(name, NOSPLIT, "func(p *byte, n int)")
	Pragma("noescape")
	Doc(name + " reads n bytes at p, a multiple of 512 and not 0.")
	p, n := Load(Param("p"), GP64()), Load(Param("n"), GP64())
	sum := zeros(8, vector)
	Label("turn")
	for i := 0; i < readBytes/width; i++ {
		or(Mem{Base: p, Disp: i * width}, sum[i%len(sum)])
	}
	ADDQ(U32(readBytes), p)
	SUBQ(U32(readBytes), n)
	JNZ(LabelRef("turn"))
	VZEROUPPER()
	RET()
}

func zeros(n int, vector func() reg.VecVirtual) []reg.VecVirtual {
	v := make([]reg.VecVirtual, n)
	for i := range v {
		v[i] = vector()
		if v[i].Size() == 64 {
			VPXORD(v[i], v[i], v[i])
		} else {
			VPXOR(v[i], v[i], v[i])
		}
	}
	return v
}

// vpdpbusd adds to each lane of acc the four products of unsigned and signed bytes. avo v0.5.0 does not know AVX512_VNNI.
func vpdpbusd(signed, unsigned, acc Op) {
	Instruction(&ir.Instruction{Opcode: "VPDPBUSD", Operands: []Op{signed, unsigned, acc},
		Inputs: []Op{signed, unsigned, acc}, Outputs: []Op{acc}, ISA: []string{"AVX512VNNI"}})
}
