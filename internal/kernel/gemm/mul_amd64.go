//go:build amd64 && !purego

package gemm

import (
	"github.com/klauspost/cpuid/v2"

	"kvasir/internal/kernel"
)

// The largest number of rows that one call of an assembly kernel takes.
const (
	rowsAVX512     = 6
	rowsVNNI       = 6
	rowsAVX2       = 4
	rowsAVX2Nibble = 6 // of P4, P4Z and P4K
	rowsAVX2Split  = 3 // of formats with scales for 16 k
)

// avxVNNI: within the AVX2 path the CPU's own dot product is used where it has one. The sums are exact, so the bits are the same.
var avxVNNI = cpuid.CPU.Supports(cpuid.AVXVNNI)

// mostRows is the largest number of rows of a kernel, and whether it has few others.
func mostRows(p kernel.Path, f Format) (most int, few bool) {
	switch {
	case p == kernel.AVX512:
		return rowsAVX512, rare[f]
	case f.Quantized() && layouts[f].split():
		return rowsAVX2Split, rare[f]
	case avxVNNI && f.Quantized():
		return rowsVNNI, true
	case f == P4 || f == P4Z || f == P4K:
		return rowsAVX2Nibble, false
	}
	return rowsAVX2, rare[f]
}

func mulIntRows(p kernel.Path, f Format, rows int, w *byte, blocks int, q *int8, s *float32, n *int32, y *float32, stride int) {
	switch {
	case p == kernel.AVX512:
		mulAVX512(f, rows, w, blocks, q, s, n, y, stride)
	case avxVNNI && !layouts[f].split():
		mulVNNI(f, rows, w, blocks, q, s, n, y, stride)
	default:
		mulAVX2(f, rows, w, blocks, q, s, n, y, stride)
	}
}

func mulAVX512(f Format, rows int, w *byte, blocks int, q *int8, s *float32, n *int32, y *float32, stride int) {
	switch f {
	case P4:
		p4AVX512(rows, w, blocks, q, s, n, y, stride)
	case P4Z:
		p4zAVX512(rows, w, blocks, q, s, n, y, stride)
	case P5:
		p5AVX512(rows, w, blocks, q, s, n, y, stride)
	case P5Z:
		p5zAVX512(rows, w, blocks, q, s, n, y, stride)
	case P8:
		p8AVX512(rows, w, blocks, q, s, n, y, stride)
	case P2K:
		p2kAVX512(rows, w, blocks, q, s, n, y, stride)
	case P3K:
		p3kAVX512(rows, w, blocks, q, s, n, y, stride)
	case P4K:
		p4kAVX512(rows, w, blocks, q, s, n, y, stride)
	case P5K:
		p5kAVX512(rows, w, blocks, q, s, n, y, stride)
	case P6K:
		p6kAVX512(rows, w, blocks, q, s, n, y, stride)
	case P4N:
		p4nAVX512(rows, w, blocks, q, s, n, y, stride)
	case P4X:
		p4xAVX512(rows, w, blocks, q, s, n, y, stride)
	case PMX:
		pmxAVX512(rows, w, blocks, q, s, n, y, stride)
	}
}

func mulVNNI(f Format, rows int, w *byte, blocks int, q *int8, s *float32, n *int32, y *float32, stride int) {
	switch f {
	case P4:
		p4VNNI(rows, w, blocks, q, s, n, y, stride)
	case P4Z:
		p4zVNNI(rows, w, blocks, q, s, n, y, stride)
	case P5:
		p5VNNI(rows, w, blocks, q, s, n, y, stride)
	case P5Z:
		p5zVNNI(rows, w, blocks, q, s, n, y, stride)
	case P8:
		p8VNNI(rows, w, blocks, q, s, n, y, stride)
	case P4K:
		p4kVNNI(rows, w, blocks, q, s, n, y, stride)
	case P5K:
		p5kVNNI(rows, w, blocks, q, s, n, y, stride)
	case P4N:
		p4nVNNI(rows, w, blocks, q, s, n, y, stride)
	case P4X:
		p4xVNNI(rows, w, blocks, q, s, n, y, stride)
	case PMX:
		pmxVNNI(rows, w, blocks, q, s, n, y, stride)
	}
}

func mulAVX2(f Format, rows int, w *byte, blocks int, q *int8, s *float32, n *int32, y *float32, stride int) {
	switch f {
	case P4:
		p4AVX2(rows, w, blocks, q, s, n, y, stride)
	case P4Z:
		p4zAVX2(rows, w, blocks, q, s, n, y, stride)
	case P5:
		p5AVX2(rows, w, blocks, q, s, n, y, stride)
	case P5Z:
		p5zAVX2(rows, w, blocks, q, s, n, y, stride)
	case P8:
		p8AVX2(rows, w, blocks, q, s, n, y, stride)
	case P2K:
		p2kAVX2(rows, w, blocks, q, s, n, y, stride)
	case P3K:
		p3kAVX2(rows, w, blocks, q, s, n, y, stride)
	case P4K:
		p4kAVX2(rows, w, blocks, q, s, n, y, stride)
	case P5K:
		p5kAVX2(rows, w, blocks, q, s, n, y, stride)
	case P6K:
		p6kAVX2(rows, w, blocks, q, s, n, y, stride)
	case P4N:
		p4nAVX2(rows, w, blocks, q, s, n, y, stride)
	case P4X:
		p4xAVX2(rows, w, blocks, q, s, n, y, stride)
	case PMX:
		pmxAVX2(rows, w, blocks, q, s, n, y, stride)
	}
}

func mulFloatRows(p kernel.Path, f Format, rows int, w *byte, k int, x *float32, y *float32, stride int) {
	if p == kernel.AVX512 {
		switch f {
		case PF16:
			f16AVX512(rows, w, k, x, y, stride)
		case PBF16:
			bf16AVX512(rows, w, k, x, y, stride)
		case PF32:
			f32AVX512(rows, w, k, x, y, stride)
		}
		return
	}
	switch f {
	case PF16:
		f16AVX2(rows, w, k, x, y, stride)
	case PBF16:
		bf16AVX2(rows, w, k, x, y, stride)
	case PF32:
		f32AVX2(rows, w, k, x, y, stride)
	}
}
