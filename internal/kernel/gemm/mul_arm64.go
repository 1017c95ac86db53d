//go:build arm64 && !purego

package gemm

import (
	"unsafe"

	"kvasir/internal/kernel"
)

// The largest number of rows that one call of an assembly kernel takes.
const (
	rowsInt   = 5
	rowsFloat = 6
)

// mulAsm cuts the rows into groups of nearly equal size: 6 rows of int8 run as 3 and 3 rather than as 5 and 1.
// Mul has checked the shapes.
func mulAsm(_ kernel.Path, f Format, w []byte, x *Act, r0, r1 int, out []float32, ldo int) {
	most := rowsFloat
	if f.Quantized() {
		most = rowsInt
	}
	y := unsafe.Pointer(unsafe.SliceData(out))
	for groups := (r1 - r0 + most - 1) / most; groups > 0; groups-- {
		rows := (r1 - r0 + groups - 1) / groups
		mulRows(f, rows, unsafe.SliceData(w), x, r0, (*float32)(y), ldo*4)
		r0 += rows
		if groups > 1 { // a pointer beyond out must not exist
			y = unsafe.Add(y, rows*ldo*4)
		}
	}
}

func mulRows(f Format, rows int, w *byte, x *Act, r int, y *float32, stride int) {
	if !f.Quantized() {
		v := &x.F[r*x.K]
		switch f {
		case PF16:
			f16NEON(rows, w, x.K, v, y, stride)
		case PBF16:
			bf16NEON(rows, w, x.K, v, y, stride)
		case PF32:
			f32NEON(rows, w, x.K, v, y, stride)
		}
		return
	}
	blocks := x.K / block
	q, s, n := &x.Q[r*x.K], &x.S[r*blocks*2], &x.N[r*blocks]
	switch f {
	case P4:
		p4NEON(rows, w, blocks, q, s, n, y, stride)
	case P4Z:
		p4zNEON(rows, w, blocks, q, s, n, y, stride)
	case P5:
		p5NEON(rows, w, blocks, q, s, n, y, stride)
	case P8:
		p8NEON(rows, w, blocks, q, s, n, y, stride)
	}
}
