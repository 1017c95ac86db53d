package model

import (
	"math"

	"kvasir/internal/kernel/vec"
)

// mistral3 is Mistral Small 3 and Ministral 3: llama whose queries grow with the logarithm of the position, in steps of the original
// context (as in Llama 4), if the file says so.
func mistral3(b *builder) {
	if b.Experts > 0 {
		b.reader.fail("mixture of experts in the mistral3 architecture: %w", ErrUnsupported)
		return
	}
	b.standard(false)
	if rise := b.float("attention.temperature_scale", 0, -1, 1e3); rise != 0 {
		b.m.temperLen = b.num("rope.scaling.original_context_length", -1)
		for i := range (b.Context-1)/b.m.temperLen + 1 {
			s := math.Log2E / math.Sqrt(float64(b.HeadSize)) * (1 + float64(rise*ln(float64(i+1))))
			b.m.tempered = append(b.m.tempered, float32(s))
		}
	}
	for i := range b.Layers {
		b.add(b.attend(i), b.gated(i, vec.SiluMul))
	}
	b.head()
}
