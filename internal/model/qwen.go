package model

import "kvasir/internal/kernel/vec"

// qwen2 is Qwen 2 and 2.5: llama with pairs half a head apart; queries, keys and values have a bias.
func qwen2(b *builder) {
	b.standard(true)
	for i := range b.Layers {
		b.add(b.attend(i), b.gated(i, vec.SiluMul))
	}
	b.head()
}

// qwen3 has norms of each head's query and key in place of the bias.
func qwen3(b *builder) {
	b.standard(true)
	for i := range b.Layers {
		a := b.attend(i)
		b.normHeads(&a, i)
		b.add(a, b.gated(i, vec.SiluMul))
	}
	b.head()
}

// qwen3moe is qwen3 with experts.
func qwen3moe(b *builder) {
	b.standard(true)
	for i := range b.Layers {
		a := b.attend(i)
		b.normHeads(&a, i)
		b.add(a, b.mixed(i))
	}
	b.head()
}
