package model_test

import (
	"errors"
	"strings"
	"testing"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/model"
)

// What a file says wrongly, or what the graphs do not do, is an error that names it.
func TestMalformed(t *testing.T) {
	number := func(v uint32) func(*gguf.Writer, string) { return func(w *gguf.Writer, k string) { w.SetUint32(k, v) } }
	real := func(v float32) func(*gguf.Writer, string) {
		return func(w *gguf.Writer, k string) { w.SetFloat32(k, v) }
	}
	text := func(v string) func(*gguf.Writer, string) { return func(w *gguf.Writer, k string) { w.SetString(k, v) } }
	none := func(*gguf.Writer, string) {}
	for _, c := range []struct {
		file, key string
		set       func(*gguf.Writer, string)
		kind      error
		want      string
	}{
		{"llama", "llama.block_count", none, gguf.ErrFormat, "no llama.block_count"},
		{"llama", "llama.block_count", number(0), gguf.ErrFormat, "llama.block_count is 0"},
		{"llama", "llama.block_count", number(3), gguf.ErrFormat, "no tensor blk.2.attn_norm.weight"},
		{"llama", "llama.block_count", number(1 << 20), gguf.ErrFormat, "1048576 layers in a file of"},
		{"llama", "llama.block_count", number(1), model.ErrUnsupported, "9 tensors that the llama graph does not use"},
		{"llama", "llama.attention.head_count", number(3), gguf.ErrFormat, "3 heads over 2 KV heads"},
		{"llama", "llama.attention.head_count_kv", func(w *gguf.Writer, k string) { w.SetInts(k, []int32{2, 1}) }, model.ErrUnsupported, "differs by layer"},
		{"llama", "llama.attention.layer_norm_rms_epsilon", none, gguf.ErrFormat, "epsilon"},
		{"llama", "llama.rope.freq_base", real(0.5), gguf.ErrFormat, "llama.rope.freq_base is 0.5"},
		{"llama", "llama.rope.dimension_count", number(99), gguf.ErrFormat, "99 rotary dimensions of 16"},
		{"llama", "llama.rope.scaling.type", text("dynamic"), model.ErrUnsupported, `rope scaling "dynamic"`},
		{"llama", "llama.expert_count", number(8), gguf.ErrFormat, "expert_used_count"},
		{"llama", "llama.embedding_length", number(96), gguf.ErrFormat, "token_embd.weight has rows of 64, want 96"},
		{"qwen2-yarn", "qwen2.rope.scaling.factor", none, gguf.ErrFormat, "no qwen2.rope.scaling.factor"},
		{"qwen2-yarn", "qwen2.rope.scaling.original_context_length", none, gguf.ErrFormat, "original_context_length"},
		{"qwen3moe", "qwen3moe.expert_count", none, gguf.ErrFormat, "no qwen3moe.expert_count"},
		{"qwen3moe", "qwen3moe.expert_used_count", number(7), gguf.ErrFormat, "7 of 6 experts"},
		{"qwen3moe", "qwen3moe.expert_count", number(5), gguf.ErrFormat, "ffn_gate_exps.weight"},
		{"gemma3", "gemma3.final_logit_softcapping", real(30), model.ErrUnsupported, "final_logit_softcapping is 30"},
		{"gemma3-list", "gemma3.attention.sliding_window_pattern", func(w *gguf.Writer, k string) { w.SetBools(k, []bool{true}) }, gguf.ErrFormat, "1 layers of 3"},
		{"phi3", "phi3.rope.scaling.attn_factor", real(-1), gguf.ErrFormat, "attn_factor is -1"},
	} {
		seen := false
		b := rewrite(t, unpack(t, c.file), func(w *gguf.Writer, k string) bool {
			if k == c.key {
				seen = true
				c.set(w, k)
			}
			return k != c.key
		}, func(w *gguf.Writer, x *gguf.Tensor) bool {
			if !seen { // a key that the file does not have yet
				seen = true
				c.set(w, c.key)
			}
			return true
		})
		f, err := gguf.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		_, err = model.Load(f, model.Options{Path: kernel.Go, BlockSize: 32})
		if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with another %s: %v, want %q", c.file, c.key, err, c.want)
		}
	}
}
