//go:build amd64 && !purego

package gemm

import (
	"unsafe"

	"github.com/klauspost/cpuid/v2"

	"kvasir/internal/kernel"
)

// The largest number of rows that one call of an assembly kernel takes.
const (
	rowsAVX2       = 4
	rowsAVX2Nibble = 6 // of P4 and P4Z
	rowsVNNI       = 6 // of the quantised formats
	rowsAVX512     = 6
)

// avxVNNI: within the AVX2 path the CPU's own dot product is used where it has one. The sums are exact, so the bits are the same.
var avxVNNI = cpuid.CPU.Supports(cpuid.AVXVNNI)

// mulAsm cuts the rows into groups of nearly equal size: 7 rows run as 4 and 3 rather than as 6 and 1.
// Mul has checked the shapes.
func mulAsm(p kernel.Path, f Format, w []byte, x *Act, r0, r1 int, out []float32, ldo int) {
	most := rowsAVX2
	switch {
	case p == kernel.AVX512:
		most = rowsAVX512
	case avxVNNI && f.Quantized():
		most = rowsVNNI
	case f == P4 || f == P4Z:
		most = rowsAVX2Nibble
	}
	y := unsafe.Pointer(unsafe.SliceData(out))
	for groups := (r1 - r0 + most - 1) / most; groups > 0; groups-- {
		rows := (r1 - r0 + groups - 1) / groups
		if f.Quantized() {
			mulIntRows(p, f, rows, unsafe.SliceData(w), x, r0, (*float32)(y), ldo*4)
		} else {
			mulFloatRows(p, f, rows, unsafe.SliceData(w), x, r0, (*float32)(y), ldo*4)
		}
		r0 += rows
		if groups > 1 { // a pointer beyond out must not exist
			y = unsafe.Add(y, rows*ldo*4)
		}
	}
}

func mulIntRows(p kernel.Path, f Format, rows int, w *byte, x *Act, r int, y *float32, stride int) {
	blocks := x.K / block
	q, s, n := &x.Q[r*x.K], &x.S[r*blocks*2], &x.N[r*blocks]
	if p == kernel.AVX512 {
		switch f {
		case P4:
			p4AVX512(rows, w, blocks, q, s, n, y, stride)
		case P4Z:
			p4zAVX512(rows, w, blocks, q, s, n, y, stride)
		case P5:
			p5AVX512(rows, w, blocks, q, s, n, y, stride)
		case P8:
			p8AVX512(rows, w, blocks, q, s, n, y, stride)
		}
		return
	}
	if avxVNNI {
		switch f {
		case P4:
			p4VNNI(rows, w, blocks, q, s, n, y, stride)
		case P4Z:
			p4zVNNI(rows, w, blocks, q, s, n, y, stride)
		case P5:
			p5VNNI(rows, w, blocks, q, s, n, y, stride)
		case P8:
			p8VNNI(rows, w, blocks, q, s, n, y, stride)
		}
		return
	}
	switch f {
	case P4:
		p4AVX2(rows, w, blocks, q, s, n, y, stride)
	case P4Z:
		p4zAVX2(rows, w, blocks, q, s, n, y, stride)
	case P5:
		p5AVX2(rows, w, blocks, q, s, n, y, stride)
	case P8:
		p8AVX2(rows, w, blocks, q, s, n, y, stride)
	}
}

func mulFloatRows(p kernel.Path, f Format, rows int, w *byte, x *Act, r int, y *float32, stride int) {
	v := &x.F[r*x.K]
	if p == kernel.AVX512 {
		switch f {
		case PF16:
			f16AVX512(rows, w, x.K, v, y, stride)
		case PBF16:
			bf16AVX512(rows, w, x.K, v, y, stride)
		case PF32:
			f32AVX512(rows, w, x.K, v, y, stride)
		}
		return
	}
	switch f {
	case PF16:
		f16AVX2(rows, w, x.K, v, y, stride)
	case PBF16:
		bf16AVX2(rows, w, x.K, v, y, stride)
	case PF32:
		f32AVX2(rows, w, x.K, v, y, stride)
	}
}
