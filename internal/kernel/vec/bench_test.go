package vec_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
)

func eachPath(b *testing.B, name string, f func(b *testing.B, p kernel.Path)) {
	for _, p := range kernel.Available() {
		b.Run(name+"/"+p.String(), func(b *testing.B) { f(b, p) })
	}
}

// best runs f in batches of 16 for as long as the benchmark lasts and returns the nanoseconds of one call in the fastest
// batch, a figure that other load on the machine hardly blurs.
func best(b *testing.B, f func()) float64 {
	least := time.Duration(1 << 62)
	for b.Loop() {
		t := time.Now()
		for range 16 {
			f()
		}
		least = min(least, time.Since(t))
	}
	ns := float64(least.Nanoseconds()) / 16
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ns, "best-ns/call")
	return ns
}

func BenchmarkAttendTile(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, size := range []int{64, 80, 96, 128} {
		for _, rows := range []int{1, 3, 6, 96} {
			a := newAttention(rng, rows, size, 8, 3, kinds[0].f)
			st := make([]float32, rows*vec.StateLen(size))
			scratch := make([]float32, vec.ScratchLen())
			vec.InitState(st, rows, size)
			eachPath(b, fmt.Sprintf("head%d/rows%d", size, rows), func(b *testing.B, p kernel.Path) {
				i := 0
				ns := best(b, func() {
					vec.AttendTile(p, a.q, a.k[i&7], a.v[i&7], a.k[(i+1)&7], st, rows, size, nil, scratch)
					i++
				})
				b.ReportMetric(float64(rows)*float64(size)*32*4/ns, "GFLOPS")
			})
		}
	}
}

// BenchmarkAttendTileCold reads tiles that are in no cache, as decode does, with and without the next tile announced.
func BenchmarkAttendTileCold(b *testing.B) {
	const size, rows, tiles = 64, 3, 8192 // 64 MiB
	const n = size * vec.TileTokens
	rng := rand.New(rand.NewPCG(3, 3))
	a := newAttention(rng, rows, size, 1, 3, kinds[0].f)
	kv := make([]uint16, 2*n*tiles)
	for i := 0; i < len(kv); i += 2 * n {
		copy(kv[i:], a.k[0])
		copy(kv[i+n:], a.v[0])
	}
	order := rng.Perm(tiles)
	st, scratch := make([]float32, rows*vec.StateLen(size)), make([]float32, vec.ScratchLen())
	vec.InitState(st, rows, size)
	tile := func(i int) []uint16 { return kv[2*n*order[i%tiles]:][:2*n] }
	for _, announce := range []bool{true, false} {
		eachPath(b, fmt.Sprintf("announced=%v", announce), func(b *testing.B, p kernel.Path) {
			i := 0
			ns := best(b, func() {
				var next []uint16
				if announce {
					next = tile(i + 1)
				}
				vec.AttendTile(p, a.q, tile(i), tile(i)[n:], next, st, rows, size, nil, scratch)
				i++
			})
			b.ReportMetric(4*n/ns, "GB/s")
		})
	}
}

func BenchmarkRow(b *testing.B) {
	const n = 576
	rng := rand.New(rand.NewPCG(2, 2))
	x, y, w := fill(rng, make([]float32, n), kinds[0].f), make([]float32, n), fill(rng, make([]float32, n), kinds[0].f)
	logits := fill(rng, make([]float32, 49152), kinds[0].f)
	q, s, ns := make([]int8, n), make([]float32, n/16), make([]int32, n/16)
	tile := make([]uint16, 64*32)
	st, st2 := make([]float32, 9*vec.StateLen(64)), make([]float32, 9*vec.StateLen(64))
	vec.InitState(st, 9, 64)
	vec.InitState(st2, 9, 64)
	for _, c := range []struct {
		name string
		f    func(p kernel.Path)
	}{
		{"Quantize576", func(p kernel.Path) { vec.Quantize(p, x, q, s, ns) }},
		{"RMSNorm576", func(p kernel.Path) { vec.RMSNorm(p, y, x, w, 1e-5) }},
		{"Add576", func(p kernel.Path) { vec.Add(p, y, x) }},
		{"SiluMul576", func(p kernel.Path) { vec.SiluMul(p, y, x, w) }},
		{"Rope9x64", func(p kernel.Path) { vec.Rope(p, y, x, 9, 64, w, 0.5) }},
		{"StoreK64", func(p kernel.Path) { vec.StoreK(p, tile, 5, 64, x) }},
		{"StoreV64", func(p kernel.Path) { vec.StoreV(p, tile, 5, 64, x) }},
		{"MergeState9x64", func(p kernel.Path) { vec.MergeState(p, st, st2, 9, 64) }},
		{"FinishState9x64", func(p kernel.Path) { vec.FinishState(p, st, y, 9, 64) }},
		{"Argmax49152", func(p kernel.Path) { vec.Argmax(p, logits) }},
	} {
		eachPath(b, c.name, func(b *testing.B, p kernel.Path) {
			best(b, func() { c.f(p) })
		})
	}
}
