package model

import (
	"math"

	"kvasir/internal/kernel/vec"
)

// phi3 is Phi-3 to Phi-4: llama with pairs half a head apart, queries, keys and values in one matrix, gate and up in another, and a
// window that all layers have (0 in Phi-4). Long contexts divide the frequencies by factors that depend on the configured context.
func phi3(b *builder) {
	if b.Experts > 0 {
		b.reader.fail("mixture of experts in the phi3 architecture: %w", ErrUnsupported)
		return
	}
	o := b.reader.rotary(b.Config, true)
	original := b.num("rope.scaling.original_context_length", b.Context)
	name := "rope_factors_short.weight"
	if b.Context > original {
		name = "rope_factors_long.weight"
	}
	if t, ok := b.reader.f.Tensor(name); ok {
		o.factors = b.factors(t, o.dims/2)
		o.gain = b.float("rope.scaling.attn_factor", 1, 0, math.Inf(1))
	}
	for _, name := range []string{"rope_factors_short.weight", "rope_factors_long.weight"} {
		b.used[name] = true
	}
	b.RopeFactors = o.factors
	b.turn(o)
	b.Window = b.window()
	for i := range b.Layers {
		a := b.attend(i)
		a.window = b.Window
		b.add(a, b.gated(i, vec.SiluMul))
	}
	b.head()
}
