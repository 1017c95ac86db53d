//go:build (amd64 || arm64) && !purego

package gemm

import (
	"unsafe"

	"kvasir/internal/kernel"
)

// rare formats have assembly for few numbers of rows, to save code: few models have them, and few are kept as floats.
var rare = [formats]bool{P5: true, P5Z: true, P2K: true, P3K: true, P4N: true, P4X: true, PMX: true, PF16: true, PBF16: true, PF32: true}

// fewRows is, for the largest of those numbers, how many rows to take when so many less are left.
var fewRows = [7][]int{3: {1: 1, 2: 2}, 4: {1: 1, 2: 2, 3: 2}, 5: {1: 1, 2: 2, 3: 2, 4: 2}, 6: {1: 1, 2: 2, 3: 3, 4: 2, 5: 3}}

// nextRows is the number of rows to take at once when n are left and a kernel takes up to most. If it has a body for each number, groups are
// of nearly equal size: 7 rows run as 4 and 3 rather than as 6 and 1.
func nextRows(n, most int, few bool) int {
	switch {
	case !few:
		groups := (n + most - 1) / most
		return (n + groups - 1) / groups
	case n >= most:
		return most
	}
	return fewRows[most][n]
}

// mulAsm cuts the rows into groups. Mul has checked the shapes.
func mulAsm(p kernel.Path, f Format, w []byte, x *Act, r0, r1 int, out []float32, ldo int) {
	most, few := mostRows(p, f)
	y := unsafe.Pointer(unsafe.SliceData(out))
	for {
		rows := nextRows(r1-r0, most, few)
		if f.Quantized() {
			blocks := x.K / block
			q, s, n := &x.Q[r0*x.K], &x.S[r0*blocks*2], &x.N[r0*blocks*2]
			mulIntRows(p, f, rows, unsafe.SliceData(w), blocks, q, s, n, (*float32)(y), ldo*4)
		} else {
			mulFloatRows(p, f, rows, unsafe.SliceData(w), x.K, &x.F[r0*x.K], (*float32)(y), ldo*4)
		}
		if r0 += rows; r0 == r1 { // a pointer beyond out must not exist
			return
		}
		y = unsafe.Add(y, rows*ldo*4)
	}
}
