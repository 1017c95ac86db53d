package vec

import (
	"math"

	"kvasir/internal/kernel"
)

const (
	minAmax   float32 = 1e-30
	negLog2E  float32 = -1.4426950408889634
	geluA     float32 = -2.302208198144325  // -2 log2(e) sqrt(2/pi)
	geluB     float32 = -0.1029432395800235 // the same times 0.044715
	maxHalf   float32 = 65504
	roundBias float32 = 0x1.8p23 // adding and taking it away rounds |x| < 2^22 half to even
)

// laneTree sums 32 partial values in the order of docs/numerics.md. It overwrites v.
func laneTree(v *[32]float32) float32 {
	for n := 16; n > 0; n /= 2 {
		for i := range n {
			v[i] += v[i+n]
		}
	}
	return v[0]
}

func quantizeGo(x []float32, q []int8, s []float32, n []int32) {
	for b := range len(x) / BlockSize {
		xb := (*[BlockSize]float32)(x[b*BlockSize:])
		qb := (*[BlockSize]int8)(q[b*BlockSize:])
		amax := minAmax
		for _, v := range xb {
			amax = max(amax, math.Float32frombits(math.Float32bits(v)&0x7fffffff))
		}
		d, inv := amax/127, 127/amax
		var half [2]int32
		for i, v := range xb {
			r := int32(float32(float32(v*inv)+roundBias) - roundBias)
			qb[i] = int8(r)
			half[i/16] += r
		}
		sum := half[0] + half[1]
		s[2*b], s[2*b+1] = d, float32(d*float32(sum))
		n[2*b], n[2*b+1] = -128*sum, half[0]&0xffff|half[1]<<16
	}
}

func rmsNormGo(dst, x, w []float32, eps float32) {
	var v [32]float32
	for i := 0; i+32 <= len(x); i += 32 {
		xb := (*[32]float32)(x[i:])
		for l, a := range xb {
			v[l] = kernel.FMA(a, a, v[l])
		}
	}
	mean := laneTree(&v) / float32(len(x))
	r := 1 / float32(math.Sqrt(float64(mean+eps)))
	for i, a := range x {
		dst[i] = float32(a*r) * w[i]
	}
}

func addGo(x, y []float32) {
	y = y[:len(x)]
	for i := range x {
		x[i] += y[i]
	}
}

func siluMulGo(dst, gate, up []float32) {
	for i, g := range gate {
		e := kernel.Exp2(g * negLog2E)
		dst[i] = g / (1 + e) * up[i]
	}
}

func geluMulGo(dst, gate, up []float32) {
	for i, g := range gate {
		e := kernel.Exp2(g * kernel.FMA(float32(g*g), geluB, geluA))
		dst[i] = g / (1 + e) * up[i]
	}
}

func addScaledGo(x, y []float32, scale float32) {
	y = y[:len(x)]
	for i := range x {
		x[i] = kernel.FMA(y[i], scale, x[i])
	}
}

func ropeGo(dst, src []float32, heads, headSize int, cs []float32, scale float32) {
	cos, sin := cs[:headSize], cs[headSize:2*headSize]
	for h := range heads {
		s, d := src[h*headSize:][:headSize], dst[h*headSize:][:headSize]
		for i := 0; i < headSize; i += 2 {
			a, b := s[i], s[i+1]
			d[i] = kernel.FMA(a, cos[i], float32(b*sin[i])) * scale
			d[i+1] = kernel.FMA(b, cos[i+1], float32(a*sin[i+1])) * scale
		}
	}
}

func argmaxGo(x []float32) int {
	best, at := float32(math.Inf(-1)), -1
	for i, v := range x {
		if v > best || at < 0 && v == best {
			best, at = v, i
		}
	}
	return at
}

// half rounds to f16 and saturates at the largest finite value; NaN becomes that too.
func half(f float32) uint16 {
	if !(f < maxHalf) {
		f = maxHalf
	}
	return kernel.ToF16(max(f, -maxHalf))
}

// fromHalf is exact for finite halves. Tiles hold no others.
func fromHalf(h uint16) float32 {
	return math.Float32frombits(uint32(h&0x7fff)<<13|uint32(h&0x8000)<<16) * 0x1p112
}

func storeKGo(tile []uint16, col, headSize int, k []float32) {
	for d, f := range k[:headSize] {
		tile[d*TileTokens+col] = half(f)
	}
}

func storeVGo(row []uint16, headSize int, v []float32) {
	for d, f := range v[:headSize] {
		row[d] = half(f)
	}
}
