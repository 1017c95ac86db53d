//go:build arm64 && !purego

package vec

import (
	"unsafe"

	"kvasir/internal/kernel"
)

// The exported functions have checked every length. Calls are direct, not through tables of functions, so that the compiler
// sees that arguments do not escape.

func quantize(p kernel.Path, x []float32, q []int8, s []float32, n []int32) {
	if p == kernel.NEON {
		quantizeNEON(&x[0], len(x)/BlockSize, &q[0], &s[0], &n[0])
		return
	}
	quantizeGo(x, q, s, n)
}

func rmsNorm(p kernel.Path, dst, x, w []float32, eps float32) {
	if p == kernel.NEON {
		rmsNormNEON(&dst[0], &x[0], &w[0], len(x), eps)
		return
	}
	rmsNormGo(dst, x, w, eps)
}

func add(p kernel.Path, x, y []float32) {
	n := 0
	if p == kernel.NEON {
		n = len(x) &^ 15
	}
	if n > 0 {
		addNEON(&x[0], &y[0], n)
	}
	addGo(x[n:], y[n:])
}

func siluMul(p kernel.Path, dst, gate, up []float32) {
	if p == kernel.NEON {
		siluMulNEON(&dst[0], &gate[0], &up[0], len(gate))
		return
	}
	siluMulGo(dst, gate, up)
}

func geluMul(p kernel.Path, dst, gate, up []float32) {
	if p == kernel.NEON {
		geluMulNEON(&dst[0], &gate[0], &up[0], len(gate))
		return
	}
	geluMulGo(dst, gate, up)
}

func addScaled(p kernel.Path, x, y []float32, scale float32) {
	n := 0
	if p == kernel.NEON {
		n = len(x) &^ 15
	}
	if n > 0 {
		addScaledNEON(&x[0], &y[0], n, scale)
	}
	addScaledGo(x[n:], y[n:], scale)
}

func rope(p kernel.Path, dst, src []float32, heads, headSize int, cs []float32, scale float32) {
	if p == kernel.NEON {
		ropeNEON(&dst[0], &src[0], heads, headSize, &cs[0], scale)
		return
	}
	ropeGo(dst, src, heads, headSize, cs, scale)
}

// argmax finds the largest value first and then where it stands, both over whole 32s in assembly.
func argmax(p kernel.Path, x []float32) int {
	n := len(x) &^ 31
	if n == 0 || p != kernel.NEON {
		return argmaxGo(x)
	}
	top := maxOfNEON(&x[0], n)
	tail := argmaxGo(x[n:])
	if tail >= 0 && x[n+tail] > top {
		return n + tail
	}
	for i := indexOfNEON(&x[0], n, top); i < len(x); i++ { // past n only if all before are NaN
		if x[i] == top {
			return i
		}
	}
	return -1
}

func storeK(p kernel.Path, tile []uint16, col, headSize int, k []float32) {
	if p == kernel.NEON {
		storeKNEON(&tile[col], &k[0], headSize)
		return
	}
	storeKGo(tile, col, headSize, k)
}

func storeV(p kernel.Path, row []uint16, headSize int, v []float32) {
	if p == kernel.NEON {
		storeVNEON(&row[0], &v[0], headSize)
		return
	}
	storeVGo(row, headSize, v)
}

func attendTile(p kernel.Path, q []float32, k, v, next []uint16, st []float32, rows, headSize int, visible []uint32, scratch []float32) {
	if p != kernel.NEON {
		attendTileGo(q, k, v, st, rows, headSize, visible, scratch)
		return
	}
	stateLen := StateLen(headSize)
	pk, pv, pn, ps := &k[0], &v[0], &next[0], &scratch[0]
	pq, pst := unsafe.Pointer(&q[0]), unsafe.Pointer(&st[0])
	for r, n := 0, 0; r < rows; r += n {
		n = group(rows-r, maxGroup)
		q := (*float32)(unsafe.Add(pq, 4*r*headSize))
		st := (*float32)(unsafe.Add(pst, 4*r*stateLen))
		var see *uint32
		if visible != nil {
			see = &visible[r]
		}
		switch n {
		case 1:
			attend1NEON(q, pk, pv, pn, st, headSize, see, ps)
		case 2:
			attend2NEON(q, pk, pv, pn, st, headSize, see, ps)
		case 3:
			attend3NEON(q, pk, pv, pn, st, headSize, see, ps)
		case 4:
			attend4NEON(q, pk, pv, pn, st, headSize, see, ps)
		case 5:
			attend5NEON(q, pk, pv, pn, st, headSize, see, ps)
		case 6:
			attend6NEON(q, pk, pv, pn, st, headSize, see, ps)
		}
	}
}

func mergeState(p kernel.Path, dst, src []float32, rows, headSize int) {
	if p == kernel.NEON {
		mergeStateNEON(&dst[0], &src[0], rows, headSize)
		return
	}
	mergeStateGo(dst, src, rows, headSize)
}

func finishState(p kernel.Path, st, out []float32, rows, headSize int) {
	if p == kernel.NEON {
		finishStateNEON(&st[0], &out[0], rows, headSize)
		return
	}
	finishStateGo(st, out, rows, headSize)
}
