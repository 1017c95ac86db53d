package sample

import (
	"math"
	"math/big"
)

// exp and log are this package's own since those of package math differ by CPU. Products are rounded by a conversion before
// they are added to anything, so that no compiler fuses them.

const (
	tableBits = 11 // 16 KiB: large enough for short polynomials, small enough for the first-level cache
	tableSize = 1 << tableBits
)

// powers[i] has the bits of 2^(i/2048), correctly rounded: made of square roots in 200 bits.
var powers = func() (t [tableSize]uint64) {
	root := new(big.Float).SetPrec(200).SetInt64(2)
	for range tableBits {
		root.Sqrt(root)
	}
	p := new(big.Float).SetPrec(200).SetInt64(1)
	for i := range t {
		f, _ := p.Float64()
		t[i] = math.Float64bits(f)
		p.Mul(p, root)
	}
	return t
}()

const (
	perStep = tableSize / math.Ln2 // steps of 2^(1/2048) in a unit
	step    = math.Ln2 / tableSize
	// step in two parts; the first has few enough bits for its products with a step number to be exact
	stepHi = 0x1.62e42feep-12
	stepLo = 0x1.a39ef35793c76p-44
	// Adding this rounds a small number to an integer, and leaves that in the low bits.
	shift = 3 << 51
)

// exp is e^x for x <= 0, within 1 ulp or so; 0 below -700.
func exp(x float64) float64 {
	if !(x > -700) {
		return 0
	}
	t := float64(x*perStep) + shift // e^x = 2^(k/2048) · e^r
	k := int32(math.Float64bits(t))
	f := t - shift
	r := x - float64(f*stepHi)
	r -= float64(f * stepLo)
	// |r| <= ln(2)/4096: the Taylor polynomial of degree 3 is good to 4e-17
	q := float64(r*(1.0/6)) + 0.5
	q = float64(q*r) + 1
	p := math.Float64frombits(powers[k&(tableSize-1)] + uint64(int64(k>>tableBits))<<52)
	return p + float64(p*float64(q*r))
}

// The weight of the most probable token is unit. Tokens less than 2^-44 times as probable have none. The sum over up to
// 2^20 tokens stays below 2^63.
const (
	unitBits = 43
	unit     = 1 << unitBits
)

// A bucket spans a quarter of an octave; 44 octaves have 176 buckets. The last one takes what has no weight.
const (
	bucketShift = tableBits - 2
	lastBucket  = 255
)

// weigh sets weights to unit · e^((logit - peak)·scale), to 1e-12 and rounded, and buckets to where the exponent lies: a lower
// logit never lies in a lower bucket. It returns the sum. No logit may exceed the peak. All slices have one length.
func weigh(logits []float32, peak float32, scale float64, weights []uint64, buckets []uint8) (total uint64) {
	weights, buckets = weights[:len(logits)], buckets[:len(logits)]
	base := float64(peak)
	scale *= perStep
	for i, l := range logits {
		x := float64((float64(l) - base) * scale) // in steps
		if !(x > -(unitBits+1)*tableSize) {
			weights[i], buckets[i] = 0, lastBucket
			continue
		}
		t := x + shift
		k := int32(math.Float64bits(t))
		r := x - (t - shift)
		q := float64(r*(step*step/2)) + step // 2^(r/2048) - 1 = q·r
		p := math.Float64frombits(powers[k&(tableSize-1)] + uint64(int64(k>>tableBits)+unitBits)<<52)
		p += float64(p * float64(q*r))
		v := math.Float64bits(p+1<<52) & (1<<52 - 1) // to the nearest integer, as above
		weights[i] = v
		buckets[i] = uint8(-k >> bucketShift)
		total += v
	}
	return total
}

// log is the natural logarithm of a positive, normal x, within a few ulp: atanh's series on the mantissa, taken to
// [1/√2, √2].
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
