package gemm

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"kvasir/internal/kernel"
)

// BenchmarkMul reports 10^9 operations (a multiplication and an addition are two) a second for 1, 4 and 512 rows.
func BenchmarkMul(b *testing.B) {
	const in, out = 576, 1536
	for _, id := range []uint32{3, 2, 7, 8, 1, 30, 0} {
		rng := rand.New(rand.NewPCG(8, uint64(id)))
		m := pack(b, id, out, in, weights(rng, id, out, in, random))
		x := activations(rng, 512, in, random)
		y := make([]float32, 512*out)
		for _, p := range kernel.Available() {
			for _, rows := range []int{1, 4, 512} {
				b.Run(fmt.Sprintf("%v/%v/M=%d", m.Format, p, rows), func(b *testing.B) {
					for b.Loop() {
						for panel := range m.Panels() {
							Mul(p, m, panel, x, 0, rows, y[panel*PanelOutputs:], out)
						}
					}
					b.ReportMetric(2*float64(rows)*in*out*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GOPS")
				})
			}
		}
	}
}
