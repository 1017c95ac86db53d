//go:build arm64 && !purego

package gemm

import "kvasir/internal/kernel"

// The largest number of rows that one call of an assembly kernel takes.
const (
	rowsInt   = 5
	rowsSplit = 3 // of formats with scales for 16 k
	rowsFloat = 6
)

// mostRows is the largest number of rows of a kernel, and whether it has few others.
func mostRows(_ kernel.Path, f Format) (most int, few bool) {
	switch {
	case !f.Quantized():
		return rowsFloat, rare[f]
	case layouts[f].split():
		return rowsSplit, rare[f]
	}
	return rowsInt, rare[f]
}

func mulFloatRows(_ kernel.Path, f Format, rows int, w *byte, k int, x *float32, y *float32, stride int) {
	switch f {
	case PF16:
		f16NEON(rows, w, k, x, y, stride)
	case PBF16:
		bf16NEON(rows, w, k, x, y, stride)
	case PF32:
		f32NEON(rows, w, k, x, y, stride)
	}
}

func mulIntRows(_ kernel.Path, f Format, rows int, w *byte, blocks int, q *int8, s *float32, n *int32, y *float32, stride int) {
	switch f {
	case P4:
		p4NEON(rows, w, blocks, q, s, n, y, stride)
	case P4Z:
		p4zNEON(rows, w, blocks, q, s, n, y, stride)
	case P5:
		p5NEON(rows, w, blocks, q, s, n, y, stride)
	case P5Z:
		p5zNEON(rows, w, blocks, q, s, n, y, stride)
	case P8:
		p8NEON(rows, w, blocks, q, s, n, y, stride)
	case P2K:
		p2kNEON(rows, w, blocks, q, s, n, y, stride)
	case P3K:
		p3kNEON(rows, w, blocks, q, s, n, y, stride)
	case P4K:
		p4kNEON(rows, w, blocks, q, s, n, y, stride)
	case P5K:
		p5kNEON(rows, w, blocks, q, s, n, y, stride)
	case P6K:
		p6kNEON(rows, w, blocks, q, s, n, y, stride)
	case P4N:
		p4nNEON(rows, w, blocks, q, s, n, y, stride)
	case P4X:
		p4xNEON(rows, w, blocks, q, s, n, y, stride)
	case PMX:
		pmxNEON(rows, w, blocks, q, s, n, y, stride)
	}
}
