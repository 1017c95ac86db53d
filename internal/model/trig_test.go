package model

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestSincosPow(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200000 {
		x := (r.Float64() - 0.5) * 2e6
		if r.IntN(2) == 0 {
			x /= 1e5
		}
		s, c := sincos(x)
		ws, wc := math.Sincos(x)
		if math.Abs(s-ws) > 1e-12 || math.Abs(c-wc) > 1e-12 {
			t.Fatalf("sincos(%v) = %v %v, want %v %v", x, s, c, ws, wc)
		}
		b, e := math.Exp(r.Float64()*16), -r.Float64()
		if p, w := pow(b, e), math.Pow(b, e); math.Abs(p-w) > 4e-15*w {
			t.Fatalf("pow(%v, %v) = %v, want %v", b, e, p, w)
		}
	}
}
