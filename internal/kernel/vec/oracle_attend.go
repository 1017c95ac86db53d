package vec

import (
	"math"

	"kvasir/internal/kernel"
)

// delicate says that the float64 sum s = a*b+c, a being a half, may not simply be rounded to float32 to give the fused
// result, since it lies on a tie of float32. kernel.FMA knows what to do then; both loops below ask this before they call,
// since a call costs more than all the rest of them. (Ties of subnormal results lie elsewhere, but s is exact there:
// it is a multiple of 2^-173 and less than 2^-126.)
func delicate(s float64) bool { return math.Float64bits(s)&0x1fffffff == 0x10000000 }

// attendGroupGo is AttendTile for up to maxGroup rows: the halves are converted once for all of them.
func attendGroupGo(q []float32, k, v []uint16, st []float32, rows, headSize int, visible []uint32, scratch []float32) {
	stateLen := StateLen(headSize)

	// Scores: sum[row][parity of d][token].
	var sum [maxGroup][2][TileTokens]float32
	var x [MaxHeadSize]float32
	for d := range headSize {
		kd := (*[TileTokens]uint16)(k[d*TileTokens:])
		xd := (*[TileTokens]float32)(x[:])
		for t, h := range kd {
			xd[t] = fromHalf(h)
		}
		for r := range rows {
			qd := q[r*headSize+d]
			s := &sum[r][d&1]
			for t, kt := range xd {
				f := float64(kt)*float64(qd) + float64(s[t])
				if delicate(f) {
					s[t] = kernel.FMA(kt, qd, s[t])
				} else {
					s[t] = float32(f)
				}
			}
		}
	}

	// Softmax so far.
	for r := range rows {
		row := st[r*stateLen:][:stateLen]
		tail := row[headSize:]
		p := (*[TileTokens]float32)(scratch[r*TileTokens:])
		m := tail[stateMax]
		for t := range p {
			p[t] = sum[r][0][t] + sum[r][1][t]
			if visible != nil && visible[r]>>t&1 == 0 {
				p[t] = maskedScore
			}
			if p[t] > m {
				m = p[t]
			}
		}
		c := kernel.Exp2(tail[stateMax] - m)
		for t := range p {
			p[t] = kernel.Exp2(p[t] - m)
		}
		tree := *p
		tail[stateSum] = kernel.FMA(tail[stateSum], c, laneTree(&tree))
		tail[stateMax] = m
		tail[stateCorr] = c
		for d, a := range row[:headSize] {
			row[d] = a * c
		}
	}

	// Weighted values.
	for t := range TileTokens {
		xt := x[:headSize]
		for d, h := range v[t*headSize:][:headSize] {
			xt[d] = fromHalf(h)
		}
		for r := range rows {
			p := scratch[r*TileTokens+t]
			acc := st[r*stateLen:][:headSize]
			for d, a := range xt {
				f := float64(a)*float64(p) + float64(acc[d])
				if delicate(f) {
					acc[d] = kernel.FMA(a, p, acc[d])
				} else {
					acc[d] = float32(f)
				}
			}
		}
	}
}

func attendTileGo(q []float32, k, v []uint16, st []float32, rows, headSize int, visible []uint32, scratch []float32) {
	for r := 0; r < rows; r += maxGroup {
		n := min(maxGroup, rows-r)
		var see []uint32
		if visible != nil {
			see = visible[r:]
		}
		attendGroupGo(q[r*headSize:], k, v, st[r*StateLen(headSize):], n, headSize, see, scratch)
	}
}

func mergeStateGo(dst, src []float32, rows, headSize int) {
	n := StateLen(headSize)
	for r := range rows {
		d, s := dst[r*n:][:n], src[r*n:][:n]
		dt, s2 := d[headSize:], s[headSize:]
		m := dt[stateMax]
		if s2[stateMax] > m {
			m = s2[stateMax]
		}
		a, b := kernel.Exp2(dt[stateMax]-m), kernel.Exp2(s2[stateMax]-m)
		for i, v := range s[:headSize] {
			d[i] = kernel.FMA(v, b, float32(d[i]*a))
		}
		dt[stateSum] = kernel.FMA(s2[stateSum], b, float32(dt[stateSum]*a))
		dt[stateMax] = m
	}
}

func finishStateGo(st, out []float32, rows, headSize int) {
	n := StateLen(headSize)
	for r := range rows {
		acc := st[r*n:][:headSize]
		l := st[r*n+headSize+stateSum]
		o := out[r*headSize:][:headSize]
		for d, a := range acc {
			o[d] = a / l
		}
	}
}
