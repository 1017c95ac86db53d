package gemm

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"kvasir/internal/kernel"
)

// benchTypes are ggml types with one format each, P4 first: what the others are measured by.
var benchTypes = []uint32{3, 2, 12, 13, 14, 6, 7, 8, 11, 10, 20, 23, 39, 1, 30, 0}

// BenchmarkMul reports 10^9 operations (a multiplication and an addition are two) a second for a few numbers of rows, with weights of 2,048 × 2,048.
func BenchmarkMul(b *testing.B) {
	const in, out = 2048, 2048
	for _, id := range benchTypes {
		rng := rand.New(rand.NewPCG(8, uint64(id)))
		m := pack(b, id, out, in, weights(rng, id, out, in, random))
		x := activations(rng, 48, in, random)
		y := make([]float32, 48*out)
		for _, p := range kernel.Available() {
			for _, rows := range []int{1, 4, 48} {
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

// BenchmarkStream reports 10^9 bytes of weights a second for one row, with weights that no cache holds.
func BenchmarkStream(b *testing.B) {
	const in, out, total = 2048, 1024, 192 << 20
	for _, id := range benchTypes {
		rng := rand.New(rand.NewPCG(8, uint64(id)))
		few := pack(b, id, out, in, weights(rng, id, out, in, random))
		m := &Matrix{Format: few.Format, In: in, Out: total / len(few.Data) * out}
		m.Data = make([]byte, 0, Size(m.Format, m.Out, in))
		for len(m.Data) < cap(m.Data) {
			m.Data = append(m.Data, few.Data...)
		}
		x := activations(rng, 1, in, random)
		y := make([]float32, PanelOutputs)
		for _, p := range kernel.Available() {
			b.Run(fmt.Sprintf("%v/%v", m.Format, p), func(b *testing.B) {
				for b.Loop() {
					for panel := range m.Panels() {
						Mul(p, m, panel, x, 0, 1, y, PanelOutputs)
					}
				}
				b.ReportMetric(float64(len(m.Data))*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "GB/s")
				b.ReportMetric(float64(m.Out)*in*float64(b.N)/float64(b.Elapsed().Nanoseconds()), "Gweights/s")
			})
		}
	}
}
