package model

import "math"

// The rotary tables are part of the numerics, so they are computed with our own functions: those of package math
// differ between architectures (assembly, fused multiply-add). Every product is rounded explicitly, which keeps the
// compiler from fusing. The polynomials are the fdlibm ones (Sun Microsystems, 1993), errors below 1 ulp of float64.

// sincos returns sine and cosine of x for |x| < 2^20.
func sincos(x float64) (sin, cos float64) {
	const ( // π/2 in three parts of 33 bits
		p1 = 1.57079632673412561417e+00
		p2 = 6.07710050630396597660e-11
		p3 = 2.02226624879595063154e-21
	)
	n := math.RoundToEven(float64(x * (2 / math.Pi)))
	r := x - float64(n*p1)
	r -= float64(n * p2)
	r -= float64(n * p3)
	z := float64(r * r)
	s := -2.50507602534068634195e-08 + float64(z*1.58969099521155010221e-10)
	s = 2.75573137070700676789e-06 + float64(z*s)
	s = -1.98412698298579493134e-04 + float64(z*s)
	s = 8.33333333332248946124e-03 + float64(z*s)
	s = -1.66666666666666324348e-01 + float64(z*s)
	s = r + float64(float64(r*z)*s)
	c := 2.08757232129817482790e-09 + float64(z*-1.13596475577881948265e-11)
	c = -2.75573143513906633035e-07 + float64(z*c)
	c = 2.48015872894767294178e-05 + float64(z*c)
	c = -1.38888888888741095749e-03 + float64(z*c)
	c = 4.16666666666666019037e-02 + float64(z*c)
	c = 1 - (float64(0.5*z) - float64(float64(z*z)*c))
	switch int64(n) & 3 {
	case 0:
		return s, c
	case 1:
		return c, -s
	case 2:
		return -s, -c
	}
	return -c, s
}

// ln returns the natural logarithm of x > 0.
func ln(x float64) float64 {
	// ln(x) = k ln 2 + 2 atanh((m-1)/(m+1)), m in [1/√2, √2)
	m, k := math.Frexp(x)
	if m < math.Sqrt2/2 {
		m *= 2
		k--
	}
	t := (m - 1) / (m + 1)
	t2 := float64(t * t)
	var a float64
	for i := 41; i >= 1; i -= 2 {
		a = 1/float64(i) + float64(t2*a)
	}
	return float64(float64(k)*math.Ln2) + float64(float64(2*t)*a)
}

// pow returns base^e for base > 0, accurate to a few ulp for moderate exponents.
func pow(base, e float64) float64 {
	y := float64(e * ln(base))
	n := math.RoundToEven(y / math.Ln2)
	r := y - float64(n*6.93147180369123816490e-01)
	r -= float64(n * 1.90821492927058770002e-10)
	x := 1.0
	for i := 22; i >= 1; i-- {
		x = 1 + float64(r*x)/float64(i)
	}
	return math.Ldexp(x, int(n))
}
