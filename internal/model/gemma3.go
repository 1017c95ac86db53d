package model

import (
	"math"

	"kvasir/internal/kernel/vec"
)

// gemma3 is Gemma 3 (text): embeddings are scaled, queries and keys of each head and the output of each part normalised. Of six
// layers five see a window, with a rotary base of their own and without the scaling of positions.
func gemma3(b *builder) {
	b.refuse("final_logit_softcapping", "attn_logit_softcapping")
	b.m.embdScale = float32(math.Sqrt(float64(b.Embd)))
	if b.Layers == 62 { // the 27B model divides by the width for each head, which is not the head size
		b.m.qScale = float32(math.Log2E / math.Sqrt(float64(b.Embd/b.Heads)))
	}
	b.standard(true)
	global, whole := b.rotary, b.rope
	b.Window = b.window()
	local := rotary{dims: global.dims, halves: true, base: b.float("rope.freq_base_swa", 10000, 1, 1e12), scale: 1, gain: 1}
	b.turn(local)
	near := b.rope
	windows := b.windows(6)
	for i := range b.Layers {
		b.rotary, b.rope = global, whole
		if windows[i] && b.Window > 0 {
			b.rotary, b.rope = local, near
		}
		a := b.attend(i)
		b.normHeads(&a, i)
		a.post = b.vector(block(i, "post_attention_norm.weight"), b.Embd)
		if windows[i] {
			a.window = b.Window
		}
		f := b.gated(i, vec.GeluMul)
		f.ffPost = b.vector(block(i, "post_ffw_norm.weight"), b.Embd)
		b.add(a, f)
	}
	b.head()
}
