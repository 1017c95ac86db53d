package sample

import "math"

// log is the natural logarithm of a positive, normal x, within a few ulp: atanh's series on the mantissa, taken to
// [1/√2, √2]. It is this package's own since that of package math differs by CPU. Products are rounded by a conversion before
// they are added to anything, so that no compiler fuses them.
func log(x float64) float64 {
	b := math.Float64bits(x)
	e := int64(b>>52) - 1023
	m := math.Float64frombits(b&(1<<52-1) | 1023<<52)
	if m > math.Sqrt2 {
		m /= 2
		e++
	}
	s := (m - 1) / (m + 1) // |s| <= 0.1716
	z := float64(s * s)
	p := 0.0
	for n := 23; n >= 3; n -= 2 { // z^12/25 < 1e-19
		p = float64((p + 1/float64(n)) * z)
	}
	p = float64(2*s) + float64(float64(2*s)*p)
	return float64(float64(e)*0x1.62e42fefa39efp-1) + p
}
