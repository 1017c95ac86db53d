package kernel

import "math"

// FMA returns a*b+c rounded once, as the CPU's fused instruction does, on every platform.
//
// The product of two float32 is exact in float64. The sum is rounded to odd there (Boldo and Melquiond, "Emulation of
// FMA and correctly rounded sums: proved algorithms using rounding to odd", 2008), so that the second rounding, to
// float32, cannot go wrong.
func FMA(a, b, c float32) float32 {
	p := float64(a) * float64(b)
	cc := float64(c)
	s := p + cc
	// Rounding s to float32 goes wrong only if s lies on a tie of float32 while the exact sum does not.
	// Results that are subnormal in float32 have their tie elsewhere: they take the slow way.
	u := math.Float64bits(s)
	if u&0x1fffffff != 0x10000000 && math.Abs(s) > 0x1p-120 {
		return float32(s)
	}
	// TwoSum: e is the exact error of s.
	bb := s - p
	e := (p - (s - bb)) + (cc - bb)
	if e == 0 || e != e || math.IsInf(s, 0) {
		return float32(s)
	}
	if u&1 == 0 { // round to odd: move one ulp towards the error if s is even
		if (e > 0) == (s > 0) {
			u++
		} else {
			u--
		}
	}
	return float32(math.Float64frombits(u))
}

// Coefficients of 2^x on [-0.5, 0.5], highest power first: minimax of the relative error with the constant held at 1.
const (
	exp2C0 float32 = 0.00132647273
	exp2C1 float32 = 0.00967151299
	exp2C2 float32 = 0.0555073358
	exp2C3 float32 = 0.240222424
	exp2C4 float32 = 0.693147004
	exp2C5 float32 = 1
)

// Exp2Coefficients are the polynomial's coefficients, highest power first, for the vector kernels.
var Exp2Coefficients = [6]float32{exp2C0, exp2C1, exp2C2, exp2C3, exp2C4, exp2C5}

// Bounds of Exp2: below Exp2Min the result is +0, above Exp2Max the argument is taken as Exp2Max.
const (
	Exp2Min float32 = -125
	Exp2Max float32 = 126
)

// Exp2 is 2^x as all kernels compute it: n = round-half-even(x), a degree-5 polynomial on x-n by Horner with FMA,
// and n added to the exponent field. Relative error below 2e-7 in range. Exp2(x) is 1 exactly for x = ±0.
func Exp2(x float32) float32 {
	if !(x >= Exp2Min) {
		return 0
	}
	if x > Exp2Max {
		x = Exp2Max
	}
	n := float32(math.RoundToEven(float64(x)))
	f := x - n
	y := exp2C0
	y = FMA(y, f, exp2C1)
	y = FMA(y, f, exp2C2)
	y = FMA(y, f, exp2C3)
	y = FMA(y, f, exp2C4)
	y = FMA(y, f, exp2C5)
	return math.Float32frombits(math.Float32bits(y) + uint32(int32(n))<<23)
}

// ToF16 rounds to the nearest IEEE half, ties to even, as VCVTPS2PH does.
func ToF16(f float32) uint16 {
	u := math.Float32bits(f)
	sign := uint16(u >> 16 & 0x8000)
	u &= 0x7fffffff
	switch {
	case u > 0x7f800000: // NaN: keep it quiet, keep the payload's top
		return sign | 0x7e00 | uint16(u>>13&0x3ff)
	case u >= 0x47800000: // 65536 and more, infinity
		return sign | 0x7c00
	case u < 0x38800000: // subnormal half: adding 0.5 puts the rounding where the FPU does it
		g := math.Float32frombits(u) + 0.5
		return sign | uint16(math.Float32bits(g)-0x3f000000)
	}
	odd := u >> 13 & 1
	u += 0xfff + odd - 0x38000000
	return sign | uint16(u>>13)
}

// FromF16 is exact.
func FromF16(h uint16) float32 {
	s := uint32(h>>15) << 31
	e := uint32(h>>10) & 31
	m := uint32(h) & 1023
	switch e {
	case 0:
		f := float32(m) * 0x1p-24
		return math.Float32frombits(math.Float32bits(f) | s)
	case 31:
		return math.Float32frombits(s | 0x7f800000 | m<<13)
	}
	return math.Float32frombits(s | (e+112)<<23 | m<<13)
}
