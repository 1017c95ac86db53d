package vec_test

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
)

var sampleLengths = []int{0, 1, 5, 31, 32, 33, 100, 511, 512, 513, 640, 1023, 1024, 1500, 4096, 5003}

// logitKinds makes logits of many shapes, some with -Inf.
var logitKinds = map[string]func(*rand.Rand) float32{
	"normal": func(r *rand.Rand) float32 { return float32(r.NormFloat64() * 4) },
	"equal":  func(*rand.Rand) float32 { return 1.5 },
	"ties":   func(r *rand.Rand) float32 { return float32(r.IntN(4)) },
	"huge":   func(r *rand.Rand) float32 { return float32(r.NormFloat64() * 5e37) },
	"masked": func(r *rand.Rand) float32 {
		if r.IntN(3) == 0 {
			return float32(r.NormFloat64() * 20)
		}
		return float32(math.Inf(-1))
	},
	"bits": func(r *rand.Rand) float32 {
		for {
			if f := math.Float32frombits(r.Uint32()); f == f && f <= math.MaxFloat32 {
				return f
			}
		}
	},
	"zeros": func(r *rand.Rand) float32 { return math.Float32frombits(r.Uint32() & 0x80000000) },
}

func TestScan(t *testing.T) {
	rng := rand.New(rand.NewPCG(60, 61))
	for name, f := range logitKinds {
		for _, n := range sampleLengths {
			x := fill(rng, guard(rng, n, canary).v, f)
			want, finite := float32(math.Inf(-1)), false
			for _, v := range x {
				want = max(want, v)
				finite = finite || !math.IsInf(float64(v), 0)
			}
			for _, p := range kernel.Available() {
				what := fmt.Sprintf("%s, %s, %d", p, name, n)
				m := guard(rng, vec.MaximaLen(n), canary)
				top, ok := vec.Scan(p, x, m.v)
				m.check(t, what)
				if ok != finite || top != want {
					t.Fatalf("%s: %v, %v; want %v, %v", what, top, ok, want, finite)
				}
				for g, v := range m.v {
					group := float32(math.Inf(-1))
					if c := g / 32; (c+1)*vec.SampleChunk <= n {
						for j := range 16 {
							group = max(group, x[c*vec.SampleChunk+j*32+g%32])
						}
					} else {
						group = x[n-(len(m.v)-g)]
					}
					if v != group {
						t.Fatalf("%s: maximum %d is %v, want %v", what, g, v, group)
					}
				}
				if n == 0 {
					continue
				}
				for range 10 {
					v := x[rng.IntN(n)]
					i := 0
					for x[i] != v {
						i++
					}
					if got := vec.Index(p, x, v); got != i {
						t.Fatalf("%s: Index(%v) is %d, want %d", what, v, got, i)
					}
					at := rng.IntN(n)
					keep := x[at]
					for _, bad := range []float32{nan, float32(math.Inf(1))} {
						x[at] = bad
						if _, ok := vec.Scan(p, x, m.v); ok {
							t.Fatalf("%s: %v at %d is not seen", what, bad, at)
						}
					}
					x[at] = keep
				}
				if got := vec.Index(p, x, nan); got != -1 {
					t.Fatalf("%s: NaN is found at %d", what, got)
				}
			}
		}
	}
}

func TestCollect(t *testing.T) {
	rng := rand.New(rand.NewPCG(62, 63))
	for name, f := range logitKinds {
		for _, n := range sampleLengths {
			x := fill(rng, guard(rng, n, canary).v, f)
			bounds := []float32{float32(math.Inf(-1)), -math.MaxFloat32, 0, 1.5, math.MaxFloat32}
			for range min(n, 5) {
				bounds = append(bounds, x[rng.IntN(n)])
			}
			for _, least := range bounds {
				var want []int32
				for i, v := range x {
					if v >= least {
						want = append(want, int32(i))
					}
				}
				for _, p := range kernel.Available() {
					what := fmt.Sprintf("%s, %s, %d, at least %v", p, name, n, least)
					ids, values := guard(rng, n+vec.CollectSpare, int32(-7)), guard(rng, n+vec.CollectSpare, canary)
					count := vec.Collect(p, x, least, ids.v, values.v)
					ids.check(t, what)
					values.check(t, what)
					if count != len(want) {
						t.Fatalf("%s: %d values, want %d", what, count, len(want))
					}
					for k, i := range want {
						if ids.v[k] != i || math.Float32bits(values.v[k]) != math.Float32bits(x[i]) {
							t.Fatalf("%s: entry %d is %d: %v, want %d: %v", what, k, ids.v[k], values.v[k], i, x[i])
						}
					}
				}
			}
		}
	}
}

func TestWeigh(t *testing.T) {
	rng := rand.New(rand.NewPCG(64, 65))
	for name, f := range logitKinds {
		for _, n := range sampleLengths {
			x := fill(rng, guard(rng, n, canary).v, f)
			peak := float32(-math.MaxFloat32)
			for _, v := range x {
				peak = max(peak, v)
			}
			for _, scale := range []float32{math.Log2E, 0.02, 3, 1e-3, 1e6, 0x1p126} {
				for _, least := range []float32{1, 0, 0.05 * vec.WeightUnit, vec.WeightUnit} {
					weights, sums := make([]float32, n), make([]uint64, n/vec.SampleChunk+1)
					total := vec.Weigh(kernel.Go, x, peak, scale, least, weights, sums)
					var sum uint64
					for i, w := range weights {
						sum += uint64(w)
						e := (float64(x[i]) - float64(peak)) * float64(scale)
						want := math.Exp2(e) * vec.WeightUnit
						if tolerance := want*(3e-7-1.2e-7*max(e, -50)) + 0.51; math.Abs(float64(w)-want) > tolerance &&
							(w != 0 || want-tolerance >= float64(least)) {
							t.Fatalf("%s, %d, scale %v, least %v: weight of 2^%v is %v, want %v", name, n, scale, least, e, w, want)
						}
						if w != float32(uint64(w)) || w != 0 && w < least || w > vec.WeightUnit || x[i] == peak && w != vec.WeightUnit {
							t.Fatalf("%s, %d, scale %v, least %v: weight of %v is %v", name, n, scale, least, x[i], w)
						}
					}
					if sum != total {
						t.Fatalf("%s, %d: total %d, want %d", name, n, total, sum)
					}
					for _, p := range kernel.Available() {
						what := fmt.Sprintf("%s, %s, %d, scale %v, least %v", p, name, n, scale, least)
						ws, ss := guard(rng, n, canary), guard(rng, (n+vec.SampleChunk-1)/vec.SampleChunk, uint64(5))
						scratch := guard(rng, min(n, vec.SampleChunk), canary)
						for _, g := range []guarded[float32]{ws, scratch} {
							clear(ss.v)
							if got := vec.Weigh(p, x, peak, scale, least, g.v, ss.v); got != total {
								t.Fatalf("%s: total %d, want %d", what, got, total)
							}
							g.check(t, what)
							ss.check(t, what)
							for c, s := range ss.v {
								if s != sums[c] {
									t.Fatalf("%s: sum %d is %d, want %d", what, c, s, sums[c])
								}
							}
						}
						same(t, what, ws.v, weights)
					}
				}
			}
		}
	}
}

func BenchmarkSampling(b *testing.B) {
	rng := rand.New(rand.NewPCG(66, 67))
	const n = 49152
	x := fill(rng, make([]float32, n), logitKinds["normal"])
	m, ids, values, sums := make([]float32, vec.MaximaLen(n)), make([]int32, n+vec.CollectSpare), make([]float32, n+vec.CollectSpare), make([]uint64, n/vec.SampleChunk)
	scratch := make([]float32, vec.SampleChunk)
	for _, p := range kernel.Available() {
		top, _ := vec.Scan(p, x, m)
		for _, c := range []struct {
			name string
			f    func()
		}{
			{"Scan", func() { vec.Scan(p, x, m) }},
			{"Collect10", func() { vec.Collect(p, x, 14, ids, values) }},
			{"CollectHalf", func() { vec.Collect(p, x, 0, ids, values) }},
			{"WeighSums", func() { vec.Weigh(p, x, top, 1, 1, scratch, sums) }},
			{"Weigh", func() { vec.Weigh(p, x, top, 1, 1, values, sums) }},
		} {
			b.Run(c.name+"/"+p.String(), func(b *testing.B) {
				for b.Loop() {
					c.f()
				}
			})
		}
	}
}

// TestWeighPinned: the weights are part of what a request with a seed gives, so they must not change by CPU or by release.
func TestWeighPinned(t *testing.T) {
	rng := rand.New(rand.NewPCG(68, 69))
	x := fill(rng, make([]float32, 5003), func(r *rand.Rand) float32 { return 18 - float32(36*r.Float32()) })
	for _, p := range kernel.Available() {
		weights, sums := make([]float32, len(x)), make([]uint64, len(x)/vec.SampleChunk+1)
		total := vec.Weigh(p, x, 18, 1.23, 1, weights, sums)
		h := fnv.New64a()
		for _, w := range weights {
			fmt.Fprintf(h, "%x ", math.Float32bits(w))
		}
		if got, want := fmt.Sprintf("%d %016x", total, h.Sum64()), "1416734013351338 87e82de3037b02a1"; got != want {
			t.Errorf("%s: %s, want %s", p, got, want)
		}
	}
}
