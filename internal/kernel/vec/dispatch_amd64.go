//go:build amd64 && !purego

package vec

import (
	"unsafe"

	"kvasir/internal/kernel"
)

// The exported functions have checked every length. Calls are direct, not through tables of functions, so that the compiler
// sees that arguments do not escape.

func quantize(p kernel.Path, x []float32, q []int8, s []float32, n []int32) {
	switch p {
	case kernel.AVX512:
		quantizeAVX512(&x[0], len(x)/BlockSize, &q[0], &s[0], &n[0])
	case kernel.AVX2:
		quantizeAVX2(&x[0], len(x)/BlockSize, &q[0], &s[0], &n[0])
	default:
		quantizeGo(x, q, s, n)
	}
}

func rmsNorm(p kernel.Path, dst, x, w []float32, eps float32) {
	switch p {
	case kernel.AVX512:
		rmsNormAVX512(&dst[0], &x[0], &w[0], len(x), eps)
	case kernel.AVX2:
		rmsNormAVX2(&dst[0], &x[0], &w[0], len(x), eps)
	default:
		rmsNormGo(dst, x, w, eps)
	}
}

func add(p kernel.Path, x, y []float32) {
	n := len(x) &^ 15
	if n > 0 {
		switch p {
		case kernel.AVX512:
			addAVX512(&x[0], &y[0], n)
		case kernel.AVX2:
			addAVX2(&x[0], &y[0], n)
		default:
			n = 0
		}
	}
	addGo(x[n:], y[n:])
}

func siluMul(p kernel.Path, dst, gate, up []float32) {
	switch p {
	case kernel.AVX512:
		siluMulAVX512(&dst[0], &gate[0], &up[0], len(gate))
	case kernel.AVX2:
		siluMulAVX2(&dst[0], &gate[0], &up[0], len(gate))
	default:
		siluMulGo(dst, gate, up)
	}
}

func geluMul(p kernel.Path, dst, gate, up []float32) {
	switch p {
	case kernel.AVX512:
		geluMulAVX512(&dst[0], &gate[0], &up[0], len(gate))
	case kernel.AVX2:
		geluMulAVX2(&dst[0], &gate[0], &up[0], len(gate))
	default:
		geluMulGo(dst, gate, up)
	}
}

func addScaled(p kernel.Path, x, y []float32, scale float32) {
	n := len(x) &^ 15
	if n > 0 {
		switch p {
		case kernel.AVX512:
			addScaledAVX512(&x[0], &y[0], n, scale)
		case kernel.AVX2:
			addScaledAVX2(&x[0], &y[0], n, scale)
		default:
			n = 0
		}
	}
	addScaledGo(x[n:], y[n:], scale)
}

func rope(p kernel.Path, dst, src []float32, heads, headSize int, cs []float32, scale float32) {
	switch p {
	case kernel.AVX512:
		ropeAVX512(&dst[0], &src[0], heads, headSize, &cs[0], scale)
	case kernel.AVX2:
		ropeAVX2(&dst[0], &src[0], heads, headSize, &cs[0], scale)
	default:
		ropeGo(dst, src, heads, headSize, cs, scale)
	}
}

// argmax finds the largest value first and then where it stands, both over whole 32s in assembly.
func argmax(p kernel.Path, x []float32) int {
	n := len(x) &^ 31
	if n == 0 || p == kernel.Go {
		return argmaxGo(x)
	}
	var top float32
	if p == kernel.AVX512 {
		top = maxOfAVX512(&x[0], n)
	} else {
		top = maxOfAVX2(&x[0], n)
	}
	tail := argmaxGo(x[n:])
	if tail >= 0 && x[n+tail] > top {
		return n + tail
	}
	var at int
	if p == kernel.AVX512 {
		at = indexOfAVX512(&x[0], n, top)
	} else {
		at = indexOfAVX2(&x[0], n, top)
	}
	for i := at; i < len(x); i++ { // past n only if all before are NaN
		if x[i] == top {
			return i
		}
	}
	return -1
}

func storeK(p kernel.Path, tile []uint16, col, headSize int, k []float32) {
	switch p {
	case kernel.AVX512:
		storeKAVX512(&tile[col], &k[0], headSize)
	case kernel.AVX2:
		storeKAVX2(&tile[col], &k[0], headSize)
	default:
		storeKGo(tile, col, headSize, k)
	}
}

func storeV(p kernel.Path, row []uint16, headSize int, v []float32) {
	switch p {
	case kernel.AVX512:
		storeVAVX512(&row[0], &v[0], headSize)
	case kernel.AVX2:
		storeVAVX2(&row[0], &v[0], headSize)
	default:
		storeVGo(row, headSize, v)
	}
}

func attendTile(p kernel.Path, q []float32, k, v, next []uint16, st []float32, rows, headSize int, visible []uint32, scratch []float32) {
	if p == kernel.Go {
		attendTileGo(q, k, v, st, rows, headSize, visible, scratch)
		return
	}
	stateLen := StateLen(headSize)
	pk, pv, pn, ps := &k[0], &v[0], &next[0], &scratch[0]
	pq, pst := unsafe.Pointer(&q[0]), unsafe.Pointer(&st[0])
	for r, n := 0, 0; r < rows; r += n {
		q := (*float32)(unsafe.Add(pq, 4*r*headSize))
		st := (*float32)(unsafe.Add(pst, 4*r*stateLen))
		var see *uint32
		if visible != nil {
			see = &visible[r]
		}
		if p == kernel.AVX2 {
			n = group(rows-r, maxGroupAVX2)
			attendAVX2(n, q, pk, pv, pn, st, headSize, see, ps)
			continue
		}
		if many := groups(rows - r); many > 0 {
			n = many * maxGroup
			attendManyAVX512(q, pk, pv, pn, st, headSize, see, ps, many)
			continue
		}
		n = group(rows-r, maxGroup)
		attendAVX512(n, q, pk, pv, pn, st, headSize, see, ps)
	}
}

// groups is how many groups of maxGroup rows to take at once when n rows are left.
func groups(n int) int {
	if n%maxGroup == 0 {
		return n / maxGroup
	}
	return max(0, n/maxGroup-1) // the last two are made about equal
}

const maxGroupAVX2 = 3

func attendAVX512(rows int, q *float32, k, v, next *uint16, st *float32, headSize int, visible *uint32, p *float32) {
	switch rows {
	case 1:
		attend1AVX512(q, k, v, next, st, headSize, visible, p)
	case 2:
		attend2AVX512(q, k, v, next, st, headSize, visible, p)
	case 3:
		attend3AVX512(q, k, v, next, st, headSize, visible, p)
	case 4:
		attend4AVX512(q, k, v, next, st, headSize, visible, p)
	case 5:
		attend5AVX512(q, k, v, next, st, headSize, visible, p)
	case 6:
		attendManyAVX512(q, k, v, next, st, headSize, visible, p, 1)
	}
}

func attendAVX2(rows int, q *float32, k, v, next *uint16, st *float32, headSize int, visible *uint32, p *float32) {
	switch rows {
	case 1:
		attend1AVX2(q, k, v, next, st, headSize, visible, p)
	case 2:
		attend2AVX2(q, k, v, next, st, headSize, visible, p)
	case 3:
		attend3AVX2(q, k, v, next, st, headSize, visible, p)
	}
}

func mergeState(p kernel.Path, dst, src []float32, rows, headSize int) {
	switch p {
	case kernel.AVX512:
		mergeStateAVX512(&dst[0], &src[0], rows, headSize)
	case kernel.AVX2:
		mergeStateAVX2(&dst[0], &src[0], rows, headSize)
	default:
		mergeStateGo(dst, src, rows, headSize)
	}
}

func finishState(p kernel.Path, st, out []float32, rows, headSize int) {
	switch p {
	case kernel.AVX512:
		finishStateAVX512(&st[0], &out[0], rows, headSize)
	case kernel.AVX2:
		finishStateAVX2(&st[0], &out[0], rows, headSize)
	default:
		finishStateGo(st, out, rows, headSize)
	}
}
