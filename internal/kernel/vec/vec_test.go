package vec_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
)

// simd returns the paths to hold against the oracle.
func simd() []kernel.Path {
	ps := kernel.Available()
	return ps[:len(ps)-1]
}

// A guarded slice has canaries on both sides, and starts at an odd place so that nothing can count on alignment.
type guarded[T comparable] struct {
	all, v []T
	off    int
	canary T
}

func guard[T comparable](rng *rand.Rand, n int, canary T) guarded[T] {
	g := guarded[T]{off: 16 + rng.IntN(16), canary: canary}
	g.all = make([]T, g.off+n+48)
	for i := range g.all {
		g.all[i] = canary
	}
	g.v = g.all[g.off : g.off+n : g.off+n]
	return g
}

func (g guarded[T]) check(t *testing.T, what string) {
	t.Helper()
	for i, x := range g.all {
		if (i < g.off || i >= g.off+len(g.v)) && x != g.canary {
			t.Fatalf("%s: written %d places from its start", what, i-g.off)
		}
	}
}

// kinds of input, each a function that makes one value.
var kinds = []struct {
	name string
	f    func(*rand.Rand) float32
}{
	{"normal", func(r *rand.Rand) float32 { return float32(r.NormFloat64()) }},
	{"large", func(r *rand.Rand) float32 { return float32(r.NormFloat64() * 3e4) }},
	{"tiny", func(r *rand.Rand) float32 { return float32(r.NormFloat64() * 1e-5) }},
	{"subnormal", func(r *rand.Rand) float32 {
		return math.Float32frombits(r.Uint32() & 0x807fffff)
	}},
	{"mixed", func(r *rand.Rand) float32 {
		switch r.IntN(6) {
		case 0:
			return 0
		case 1:
			return float32(math.Copysign(0, -1))
		case 2:
			return 65504
		case 3:
			return -65504
		}
		return float32(math.Ldexp(r.NormFloat64(), r.IntN(40)-30))
	}},
	{"zero", func(*rand.Rand) float32 { return 0 }},
}

func fill(rng *rand.Rand, x []float32, f func(*rand.Rand) float32) []float32 {
	for i := range x {
		x[i] = f(rng)
	}
	return x
}

func same(t *testing.T, what string, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	for i := range want {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("%s: value %d is %g (%08x), the oracle has %g (%08x)", what, i,
				got[i], math.Float32bits(got[i]), want[i], math.Float32bits(want[i]))
		}
	}
}

func clone(x []float32) []float32 { return append([]float32(nil), x...) }

var nan = float32(math.NaN())

const canary float32 = 12345.675

func TestQuantize(t *testing.T) {
	for _, kind := range kinds {
		rng := rand.New(rand.NewPCG(1, 2))
		for _, n := range []int{32, 64, 96, 576, 1536, 2048} {
			x := fill(rng, make([]float32, n), kind.f)
			if n == 96 { // values that land on ties: k + 1/2 with a scale of one
				for i := range x {
					x[i] = float32(rng.IntN(253)-126) + 0.5
				}
				x[5], x[40], x[70] = 127, -127, 127
			}
			q0, s0, n0 := make([]int8, n), make([]float32, n/16), make([]int32, n/16)
			vec.Quantize(kernel.Go, x, q0, s0, n0)
			for b := range n / 32 {
				checkBlock(t, x[b*32:][:32], q0[b*32:][:32], s0[2*b:][:2], n0[2*b:][:2])
			}
			for _, p := range simd() {
				q, s, ns := guard(rng, n, int8(99)), guard(rng, n/16, canary), guard(rng, n/16, int32(77))
				vec.Quantize(p, x, q.v, s.v, ns.v)
				what := p.String() + " " + kind.name
				same(t, what, s.v, s0)
				for i := range q0 {
					if q.v[i] != q0[i] {
						t.Fatalf("%s: q[%d] = %d, want %d (x %g)", what, i, q.v[i], q0[i], x[i])
					}
				}
				for i := range n0 {
					if ns.v[i] != n0[i] {
						t.Fatalf("%s: n[%d] = %d, want %d", what, i, ns.v[i], n0[i])
					}
				}
				q.check(t, what+" q")
				s.check(t, what+" s")
				ns.check(t, what+" n")
			}
		}
	}
}

// checkBlock holds one block of the oracle against the definition.
func checkBlock(t *testing.T, x []float32, q []int8, s []float32, n []int32) {
	t.Helper()
	amax, half := float32(1e-30), [2]int32{}
	for _, v := range x {
		amax = max(amax, float32(math.Abs(float64(v))))
	}
	inv := 127 / amax
	for i, v := range x {
		if want := math.RoundToEven(float64(v * inv)); float64(q[i]) != want {
			t.Fatalf("oracle: q[%d] = %d, want %g", i, q[i], want)
		}
		half[i/16] += int32(q[i])
	}
	d, sum := amax/127, half[0]+half[1]
	if s[0] != d || s[1] != d*float32(sum) || n[0] != -128*sum || int32(int16(n[1])) != half[0] || n[1]>>16 != half[1] {
		t.Fatalf("oracle: s %g, n %d, want %g and sums of %d", s, n, d, half)
	}
}

func TestRMSNorm(t *testing.T) {
	for _, kind := range kinds {
		rng := rand.New(rand.NewPCG(3, 4))
		for _, n := range []int{32, 64, 96, 128, 576, 640, 2048} {
			x, w := fill(rng, make([]float32, n), kind.f), fill(rng, make([]float32, n), kinds[0].f)
			want := make([]float32, n)
			vec.RMSNorm(kernel.Go, want, x, w, 1e-5)
			ss := 0.0
			for _, v := range x {
				ss += float64(v) * float64(v)
			}
			r := 1 / math.Sqrt(ss/float64(n)+1e-5)
			for i := range x {
				near(t, "oracle "+kind.name, want[i], float64(x[i])*r*float64(w[i]), 1e-5, 1e-37)
			}
			for _, p := range simd() {
				g := guard(rng, n, canary)
				vec.RMSNorm(p, g.v, x, w, 1e-5)
				same(t, p.String()+" "+kind.name, g.v, want)
				g.check(t, "RMSNorm")
				in := clone(x)
				vec.RMSNorm(p, in, in, w, 1e-5)
				same(t, p.String()+" in place", in, want)
			}
		}
	}
}

func near(t *testing.T, what string, got float32, want, rel, abs float64) {
	t.Helper()
	if d := math.Abs(float64(got) - want); !(d <= rel*math.Abs(want)+abs) {
		t.Fatalf("%s: %g, want %g", what, got, want)
	}
}

func TestAdd(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for n := range 100 {
		x, y := fill(rng, make([]float32, n), kinds[4].f), fill(rng, make([]float32, n), kinds[4].f)
		want := make([]float32, n)
		for i := range x {
			want[i] = x[i] + y[i]
		}
		for _, p := range kernel.Available() {
			g := guard(rng, n, canary)
			copy(g.v, x)
			vec.Add(p, g.v, y)
			same(t, p.String(), g.v, want)
			g.check(t, "Add")
		}
	}
}

func TestAddScaled(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 7))
	for n := range 100 {
		x, y := fill(rng, make([]float32, n), kinds[4].f), fill(rng, make([]float32, n), kinds[4].f)
		scale := kinds[0].f(rng)
		want := make([]float32, n)
		for i := range x {
			want[i] = kernel.FMA(y[i], scale, x[i])
		}
		for _, p := range kernel.Available() {
			g := guard(rng, n, canary)
			copy(g.v, x)
			vec.AddScaled(p, g.v, y, scale)
			same(t, p.String(), g.v, want)
			g.check(t, "AddScaled")
		}
	}
}

func TestSiluMul(t *testing.T) {
	testGated(t, vec.SiluMul, func(g float64) float64 { return g / (1 + math.Exp(-g)) }, 80)
}

func TestGeluMul(t *testing.T) {
	testGated(t, vec.GeluMul, func(g float64) float64 {
		return 0.5 * g * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(g+0.044715*g*g*g)))
	}, 3)
}

// testGated holds a gated activation against its definition where gates are above -least, and all paths against the oracle.
func testGated(t *testing.T, mul func(kernel.Path, []float32, []float32, []float32), activation func(float64) float64, least float32) {
	t.Helper()
	gates := append(kinds[:len(kinds):len(kinds)], struct {
		name string
		f    func(*rand.Rand) float32
	}{"range", func(r *rand.Rand) float32 { return float32(r.Float64()*400 - 200) }})
	for _, kind := range gates {
		rng := rand.New(rand.NewPCG(7, 8))
		for _, n := range []int{32, 64, 96, 1536, 8192} {
			gate, up := fill(rng, make([]float32, n), kind.f), fill(rng, make([]float32, n), kinds[0].f)
			want := make([]float32, n)
			mul(kernel.Go, want, gate, up)
			for i, g := range gate {
				if g > -least {
					near(t, "oracle "+kind.name, want[i], activation(float64(g))*float64(up[i]), 1e-5, 1e-37)
				}
			}
			for _, p := range simd() {
				g := guard(rng, n, canary)
				mul(p, g.v, gate, up)
				same(t, p.String()+" "+kind.name, g.v, want)
				g.check(t, "a gated activation")
				in := clone(gate)
				mul(p, in, in, up)
				same(t, p.String()+" in place", in, want)
			}
		}
	}
}

func TestRope(t *testing.T) {
	for _, kind := range kinds {
		rng := rand.New(rand.NewPCG(9, 10))
		for _, size := range []int{16, 32, 48, 64, 80, 96, 128, 256} {
			for _, heads := range []int{1, 2, 3, 9} {
				cos, sin := make([]float32, size/2), make([]float32, size/2)
				for i := range cos {
					s, c := math.Sincos(rng.Float64() * 100)
					cos[i], sin[i] = float32(c), float32(s)
				}
				cs := guard(rng, 2*size, canary)
				vec.FillRope(cs.v, cos, sin)
				cs.check(t, "FillRope")
				src := fill(rng, make([]float32, heads*size), kind.f)
				scale := float32(1)
				if heads > 1 {
					scale = float32(math.Log2E / math.Sqrt(float64(size)))
				}
				want := make([]float32, len(src))
				for h := range heads { // straight from docs/numerics.md
					for i := range cos {
						a, b := src[h*size+2*i], src[h*size+2*i+1]
						want[h*size+2*i] = kernel.FMA(a, cos[i], -(float32(b*sin[i]))) * scale
						want[h*size+2*i+1] = kernel.FMA(b, cos[i], float32(a*sin[i])) * scale
					}
				}
				for _, p := range kernel.Available() {
					g := guard(rng, len(src), canary)
					vec.Rope(p, g.v, src, heads, size, cs.v, scale)
					same(t, p.String()+" "+kind.name, g.v, want)
					g.check(t, "Rope")
					in := clone(src)
					vec.Rope(p, in, in, heads, size, cs.v, scale)
					same(t, p.String()+" in place", in, want)
				}
			}
		}
	}
}

func TestArgmax(t *testing.T) {
	inf := float32(math.Inf(1))
	rng := rand.New(rand.NewPCG(11, 12))
	naive := func(x []float32) int {
		at := -1
		for i, v := range x {
			if v == v && (at < 0 || v > x[at]) {
				at = i
			}
		}
		return at
	}
	check := func(x []float32) {
		t.Helper()
		for _, p := range kernel.Available() {
			if got, want := vec.Argmax(p, x), naive(x); got != want {
				t.Fatalf("%s: %d of %d, want %d", p, got, len(x), want)
			}
		}
	}
	for n := range 200 {
		check(fill(rng, make([]float32, n), kinds[0].f))
		check(fill(rng, make([]float32, n), func(*rand.Rand) float32 { return nan }))
		check(fill(rng, make([]float32, n), func(*rand.Rand) float32 { return -inf }))
		for range 20 { // few distinct values: ties, signed zeros, infinities, NaN
			set := []float32{nan, -inf, -1, 0, float32(math.Copysign(0, -1)), 1, inf}
			lo := rng.IntN(len(set))
			hi := lo + 1 + rng.IntN(len(set)-lo)
			check(fill(rng, make([]float32, n), func(r *rand.Rand) float32 { return set[lo+r.IntN(hi-lo)] }))
		}
	}
	x := fill(rng, make([]float32, 49152), kinds[0].f)
	for range 200 {
		i := rng.IntN(len(x))
		x[i] += 10
		check(x)
	}
}

func TestNoAllocation(t *testing.T) {
	const size, rows = 64, 7
	rng := rand.New(rand.NewPCG(13, 14))
	x, y := fill(rng, make([]float32, 2*rows*size), kinds[0].f), make([]float32, 2*rows*size)
	tile := make([]uint16, size*vec.TileTokens)
	for _, p := range kernel.Available() {
		n := testing.AllocsPerRun(10, func() {
			var q [size]int8
			var s [size / 16]float32
			var ns [size / 16]int32
			var scratch [512]float32
			var st, st2 [rows * (size + 16)]float32
			vec.Quantize(p, x[:size], q[:], s[:], ns[:])
			vec.RMSNorm(p, y, x, x, 1e-5)
			vec.Add(p, y, x)
			vec.SiluMul(p, y, x, x)
			vec.GeluMul(p, y, x, x)
			vec.AddScaled(p, y, x, 2)
			vec.Rope(p, y, x, rows, size, x, 1)
			vec.StoreK(p, tile, 3, size, x)
			vec.StoreV(p, tile, 3, size, x)
			vec.InitState(st[:], rows, size)
			vec.InitState(st2[:], rows, size)
			vec.AttendTile(p, x, tile, tile, nil, st[:], rows, size, nil, scratch[:])
			vec.MergeState(p, st2[:], st[:], rows, size)
			vec.FinishState(p, st2[:], y, rows, size)
			vec.Argmax(p, y)
		})
		if n != 0 {
			t.Errorf("%s: %g allocations", p, n)
		}
	}
}

func TestLengthsAreChecked(t *testing.T) {
	f := func(n int) []float32 { return make([]float32, n) }
	h := func(n int) []uint16 { return make([]uint16, n) }
	see := make([]uint32, 2)
	for _, p := range kernel.Available() {
		for name, call := range map[string]func(){
			"quantize 33":     func() { vec.Quantize(p, f(33), make([]int8, 64), f(4), make([]int32, 4)) },
			"quantize q":      func() { vec.Quantize(p, f(64), make([]int8, 63), f(4), make([]int32, 4)) },
			"quantize s":      func() { vec.Quantize(p, f(64), make([]int8, 64), f(3), make([]int32, 4)) },
			"quantize n":      func() { vec.Quantize(p, f(96), make([]int8, 96), f(6), make([]int32, 5)) },
			"rmsnorm 0":       func() { vec.RMSNorm(p, nil, nil, nil, 1) },
			"rmsnorm 48":      func() { vec.RMSNorm(p, f(48), f(48), f(48), 1) },
			"rmsnorm dst":     func() { vec.RMSNorm(p, f(32), f(64), f(64), 1) },
			"rmsnorm w":       func() { vec.RMSNorm(p, f(64), f(64), f(32), 1) },
			"add":             func() { vec.Add(p, f(32), f(31)) },
			"silu 48":         func() { vec.SiluMul(p, f(48), f(48), f(48)) },
			"silu up":         func() { vec.SiluMul(p, f(64), f(64), f(32)) },
			"gelu 48":         func() { vec.GeluMul(p, f(48), f(48), f(48)) },
			"gelu up":         func() { vec.GeluMul(p, f(64), f(64), f(32)) },
			"add scaled":      func() { vec.AddScaled(p, f(32), f(31), 1) },
			"silu dst":        func() { vec.SiluMul(p, f(32), f(64), f(64)) },
			"rope size":       func() { vec.Rope(p, f(40), f(40), 1, 40, f(80), 1) },
			"rope dst":        func() { vec.Rope(p, f(127), f(128), 2, 64, f(128), 1) },
			"rope src":        func() { vec.Rope(p, f(128), f(127), 2, 64, f(128), 1) },
			"rope cs":         func() { vec.Rope(p, f(128), f(128), 2, 64, f(127), 1) },
			"fillrope":        func() { vec.FillRope(f(63), f(16), f(16)) },
			"storek column":   func() { vec.StoreK(p, h(2048), 32, 64, f(64)) },
			"storek negative": func() { vec.StoreK(p, h(2048), -1, 64, f(64)) },
			"storek tile":     func() { vec.StoreK(p, h(2047), 0, 64, f(64)) },
			"storek k":        func() { vec.StoreK(p, h(2048), 0, 64, f(63)) },
			"storev row":      func() { vec.StoreV(p, h(2048), 32, 64, f(64)) },
			"storev v":        func() { vec.StoreV(p, h(2048), 0, 64, f(63)) },
			"attend q":        func() { vec.AttendTile(p, f(127), h(2048), h(2048), nil, f(160), 2, 64, see, f(vec.ScratchLen())) },
			"attend k":        func() { vec.AttendTile(p, f(128), h(2047), h(2048), nil, f(160), 2, 64, see, f(vec.ScratchLen())) },
			"attend v":        func() { vec.AttendTile(p, f(128), h(2048), h(2047), nil, f(160), 2, 64, see, f(vec.ScratchLen())) },
			"attend next":     func() { vec.AttendTile(p, f(128), h(2048), h(2048), h(9), f(160), 2, 64, see, f(vec.ScratchLen())) },
			"attend st":       func() { vec.AttendTile(p, f(128), h(2048), h(2048), nil, f(159), 2, 64, see, f(vec.ScratchLen())) },
			"attend visible":  func() { vec.AttendTile(p, f(192), h(2048), h(2048), nil, f(240), 3, 64, see, f(vec.ScratchLen())) },
			"attend scratch":  func() { vec.AttendTile(p, f(128), h(2048), h(2048), nil, f(160), 2, 64, see, f(vec.ScratchLen()-1)) },
			"attend rows":     func() { vec.AttendTile(p, f(128), h(2048), h(2048), nil, f(160), 0, 64, see, f(vec.ScratchLen())) },
			"attend 272":      func() { vec.AttendTile(p, f(272), h(9999), h(9999), nil, f(999), 1, 272, see, f(192)) },
			"merge dst":       func() { vec.MergeState(p, f(159), f(160), 2, 64) },
			"merge src":       func() { vec.MergeState(p, f(160), f(159), 2, 64) },
			"finish out":      func() { vec.FinishState(p, f(160), f(127), 2, 64) },
			"init":            func() { vec.InitState(f(159), 2, 64) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: %s was accepted", p, name)
					}
				}()
				call()
			}()
		}
	}
}
