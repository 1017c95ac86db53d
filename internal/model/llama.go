package model

import "kvasir/internal/kernel/vec"

// llama is Llama 1 to 3 and Mistral: pairs of neighbours turn, with the frequencies of rope_freqs.weight if it is there (Llama 3).
func llama(b *builder) {
	if b.Experts > 0 {
		b.reader.fail("mixture of experts in the llama architecture: %w", ErrUnsupported)
		return
	}
	b.standard(false)
	for i := range b.Layers {
		b.add(b.attend(i), b.gated(i, vec.SiluMul))
	}
	b.head()
}
