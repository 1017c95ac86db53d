package kernel_test

import (
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"kvasir/internal/kernel"
)

// fmaBig is the fused result by exact arithmetic: the sum is formed without rounding and rounded once by math/big.
type fmaBig struct{ a, b, c big.Float }

func (f *fmaBig) of(a, b, c float32) float32 {
	const exact = 640 // bits: products and addends lie between 2^-298 and 2^256
	f.a.SetPrec(exact).SetFloat64(float64(a))
	f.b.SetPrec(exact).SetFloat64(float64(b))
	f.c.SetPrec(exact).SetFloat64(float64(c))
	f.a.Mul(&f.a, &f.b)
	f.a.Add(&f.a, &f.c)
	if f.a.Sign() == 0 { // IEEE: -0 only if both terms are -0
		p := math.Signbit(float64(a)) != math.Signbit(float64(b))
		if (a == 0 || b == 0) && c == 0 && p && math.Signbit(float64(c)) {
			return float32(math.Copysign(0, -1))
		}
		return 0
	}
	r, _ := f.a.Float32()
	return r
}

func checkFMA(t *testing.T, f *fmaBig, a, b, c float32) {
	t.Helper()
	got, want := kernel.FMA(a, b, c), f.of(a, b, c)
	if math.Float32bits(got) != math.Float32bits(want) {
		t.Fatalf("FMA(%x, %x, %x) = %x, want %x", a, b, c, got, want)
	}
}

// scaled returns a float32 of random bits with its exponent in lo..hi.
func scaled(r *rand.Rand, lo, hi int) float32 {
	m := 1 + float64(r.Uint32()>>9)*0x1p-23
	if r.IntN(4) == 0 { // few bits set: products hit ties often
		m = 1 + float64(r.IntN(64))/64
	}
	if r.IntN(2) == 0 {
		m = -m
	}
	return float32(math.Ldexp(m, lo+r.IntN(hi-lo+1)))
}

// trials is n, or a fifth of it with -short, as under emulation.
func trials(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

func TestFMARandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var f fmaBig
	for range trials(300_000) {
		checkFMA(t, &f, scaled(r, -10, 10), scaled(r, -10, 10), scaled(r, -30, 30))
		checkFMA(t, &f, scaled(r, -80, 60), scaled(r, -80, 60), scaled(r, -149, 127))    // results of every size
		checkFMA(t, &f, scaled(r, -76, -60), scaled(r, -76, -60), scaled(r, -149, -126)) // subnormal results
		a, b := scaled(r, -20, 20), scaled(r, -20, 20)
		checkFMA(t, &f, a, b, -a*b) // cancellation: what is left is the product's rounding error
	}
	for range trials(300_000) { // any bits that are finite
		v := [3]float32{}
		for i := range v {
			for {
				v[i] = math.Float32frombits(r.Uint32())
				if x := float64(v[i]); !math.IsNaN(x) && !math.IsInf(x, 0) {
					break
				}
			}
		}
		checkFMA(t, &f, v[0], v[1], v[2])
	}
}

// Sums that lie on or very near a tie between two float32, normal and subnormal: c is a float32 and the product is half
// an ulp of it, give or take almost nothing.
func TestFMATies(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var f fmaBig
	for range trials(400_000) {
		e := -149 + r.IntN(149+100)
		c := scaled(r, e, e)
		ulp := max(e-23, -149)
		// half an ulp as (2^k)(1 ± i·2^-23) · 2^(ulp-1-k): exactly half for i = 0
		k := (ulp-1)/2 + r.IntN(20) - 10
		i := float64(r.IntN(5) - 2)
		a, b := float32(math.Ldexp(1+i*0x1p-23, k)), float32(math.Ldexp(1, ulp-1-k))
		if r.IntN(2) == 0 {
			a = -a
		}
		checkFMA(t, &f, a, b, c)
		// The same with a product that is off by 2^-46 of itself or so, too little for the float64 sum to show.
		j := float64(1 + r.IntN(3))
		a, b = float32(math.Ldexp(1+j*0x1p-23, k)), float32(math.Ldexp(1-j*0x1p-23, ulp-1-k))
		if r.IntN(2) == 0 {
			a = -a
		}
		checkFMA(t, &f, a, b, c)
		// An addend on the tie's edge: product with 24 significant bits plus one far below.
		x := scaled(r, 0, 0)
		checkFMA(t, &f, x, 1+0x1p-23, float32(math.Ldexp(1, -24-r.IntN(30))))
		// The product carries 48 bits whose tail is a tie, the addend tips it.
		y, z := float32(1+math.Ldexp(1, -12)), float32(1+math.Ldexp(1, -12)) // 1 + 2^-11 + 2^-24
		s := scaled(r, -100, 20)
		checkFMA(t, &f, y*float32(math.Ldexp(1, r.IntN(20))), z, float32(math.Ldexp(float64(s), -r.IntN(60))))
	}
	tiny, zero, negZero := float32(0x1p-149), float32(0), float32(math.Copysign(0, -1))
	edge := []float32{zero, negZero, tiny, -tiny, 0x1p-126, -0x1p-126, 0x1.fffffcp-127, 0x1p-75, 0x1p-74, -0x1p-75, 1, -1, 1 + 0x1p-23, 1 - 0x1p-24,
		0.5, 0x1p-24, 0x1p-25, 0x1p24, 0x1.fffffep127, -0x1.fffffep127, 0x1p127, 0x1p103, 0x1p64, 3, 0x1.8p-149, 0x1.8p-75}
	for _, a := range edge {
		for _, b := range edge {
			for _, c := range edge {
				checkFMA(t, &f, a, b, c)
			}
		}
	}
}

func TestExp2(t *testing.T) {
	for n := -125; n <= 126; n++ {
		if got := kernel.Exp2(float32(n)); float64(got) != math.Ldexp(1, n) {
			t.Fatalf("Exp2(%d) = %g", n, got)
		}
	}
	inf := float32(math.Inf(1))
	for _, c := range []struct{ x, want float32 }{
		{float32(math.Copysign(0, -1)), 1}, {0x1p-149, 1},
		{-125, 0x1p-125}, {math.Nextafter32(-125, -inf), 0}, {-126, 0}, {-1e30, 0}, {-math.MaxFloat32, 0}, {-inf, 0},
		{126, 0x1p126}, {math.Nextafter32(126, inf), 0x1p126}, {127, 0x1p126}, {1e30, 0x1p126}, {inf, 0x1p126},
	} {
		if got := kernel.Exp2(c.x); math.Float32bits(got) != math.Float32bits(c.want) {
			t.Errorf("Exp2(%g) = %g, want %g", c.x, got, c.want)
		}
	}
	r := rand.New(rand.NewPCG(5, 6))
	worst := 0.0
	check := func(x float32) {
		want := math.Exp2(float64(x))
		worst = max(worst, math.Abs(float64(kernel.Exp2(x))-want)/want)
	}
	for range trials(2_000_000) {
		check(float32(r.Float64()*251 - 125))
	}
	for n := -124; n < 126; n++ { // where the polynomial's interval ends
		h := float32(n) + 0.5
		check(h)
		check(math.Nextafter32(h, inf))
		check(math.Nextafter32(h, -inf))
	}
	if worst > 2e-7 {
		t.Errorf("relative error %g", worst)
	}
}

// halfValue decodes by the definition of the format.
func halfValue(h uint16) float64 {
	v := float64(h & 0x3ff)
	if e := int(h >> 10 & 31); e == 0 {
		v = math.Ldexp(v, -24)
	} else {
		v = math.Ldexp(v+1024, e-25)
	}
	if h&0x8000 != 0 {
		v = -v
	}
	return v
}

func TestHalfRoundTrip(t *testing.T) {
	for i := range 1 << 16 {
		h := uint16(i)
		f := kernel.FromF16(h)
		switch {
		case h&0x7c00 != 0x7c00:
			if float64(f) != halfValue(h) || math.Signbit(float64(f)) != (h&0x8000 != 0) {
				t.Fatalf("FromF16(%04x) = %g", h, f)
			}
		case h&0x3ff == 0:
			if !math.IsInf(float64(f), 1-int(h>>15)*2) {
				t.Fatalf("FromF16(%04x) = %g", h, f)
			}
		default:
			if f == f {
				t.Fatalf("FromF16(%04x) = %g", h, f)
			}
			if g := kernel.ToF16(f); g&0x7c00 != 0x7c00 || g&0x3ff == 0 || g&0x8000 != h&0x8000 {
				t.Fatalf("ToF16 of NaN %04x is %04x", h, g)
			}
			continue
		}
		if got := kernel.ToF16(f); got != h {
			t.Fatalf("ToF16(FromF16(%04x)) = %04x", h, got)
		}
	}
}

// nearestHalf searches the table of all halves for the nearest, ties to even.
func nearestHalf(f float32) uint16 {
	sign := uint16(math.Float32bits(f) >> 16 & 0x8000)
	x := math.Abs(float64(f))
	if x >= 65520 { // half an ulp above the largest
		return sign | 0x7c00
	}
	lo, hi := uint16(0), uint16(0x7c00) // halfValue(lo) <= x < value of hi, where 0x7c00 stands for 65536
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if halfValue(mid) <= x {
			lo = mid
		} else {
			hi = mid
		}
	}
	up := 65536.0
	if hi < 0x7c00 {
		up = halfValue(hi)
	}
	below, above := x-halfValue(lo), up-x
	if above < below || above == below && lo&1 == 1 {
		lo = hi
	}
	return sign | lo
}

func TestToF16Rounding(t *testing.T) {
	check := func(f float32) {
		t.Helper()
		for _, g := range [2]float32{f, -f} {
			if got, want := kernel.ToF16(g), nearestHalf(g); got != want {
				t.Fatalf("ToF16(%x) = %04x, want %04x", g, got, want)
			}
		}
	}
	inf := float32(math.Inf(1))
	for h := range uint16(0x7c00) { // every half, every midpoint, and their neighbours
		a := halfValue(h)
		b := 65536.0
		if h < 0x7bff {
			b = halfValue(h + 1)
		}
		for _, f := range []float32{float32(a), float32((a + b) / 2)} {
			check(f)
			check(math.Nextafter32(f, inf))
			if f > 0 {
				check(math.Nextafter32(f, 0))
			}
		}
	}
	r := rand.New(rand.NewPCG(7, 8))
	for range trials(1_000_000) {
		check(scaled(r, -30, 17))
		if f := math.Float32frombits(r.Uint32() & 0x7fffffff); f == f {
			check(f)
		}
	}
	check(inf)
	check(math.MaxFloat32)
}

func TestChoose(t *testing.T) {
	ps := kernel.Available()
	if ps[len(ps)-1] != kernel.Go {
		t.Fatalf("Available() = %v does not end in Go", ps)
	}
	for i, p := range ps {
		if i > 0 && ps[i-1] <= p {
			t.Errorf("Available() = %v is not sorted best first", ps)
		}
		if got, err := kernel.Choose(p.String()); err != nil || got != p {
			t.Errorf("Choose(%q) = %v, %v", p, got, err)
		}
		t.Setenv("KVASIR_CPU", p.String())
		if got, err := kernel.Default(); err != nil || got != p {
			t.Errorf("Default() = %v, %v, with KVASIR_CPU=%v", got, err, p)
		}
	}
	if got, err := kernel.Choose(""); err != nil || got != ps[0] {
		t.Errorf(`Choose("") = %v, %v, want %v`, got, err, ps[0])
	}
	_, err := kernel.Choose("sse2")
	if err == nil {
		t.Fatal(`Choose("sse2") succeeded`)
	}
	for _, s := range []string{"sse2", ps[0].String(), "go"} {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not mention %s", err, s)
		}
	}
	t.Setenv("KVASIR_CPU", "nonsense")
	if _, err := kernel.Default(); err == nil {
		t.Error("Default() took KVASIR_CPU=nonsense")
	}
}
