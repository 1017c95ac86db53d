// Package testmodel makes small GGUF models of several architectures with random weights, for tests. They say nothing
// sensible, but everything else about them is real: names and metadata as llama.cpp writes them, a byte-level BPE
// tokenizer, a ChatML template, attention that looks back, and logits that differ from position to position.
//
// The same Config gives the same bytes on every platform.
package testmodel

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"kvasir/internal/gguf"
)

// Config is the shape of a model. Start from a copy of Tiny.
type Config struct {
	Layers   int
	Embd     int       // embedding length
	FF       int       // feed-forward length
	Heads    int       // query heads; Heads*HeadSize may differ from Embd
	KVHeads  int       // divides Heads
	HeadSize int       // even
	Vocab    int       // tokens, at least MinVocab
	Ctx      int       // context length in tokens
	Type     gguf.Type // of all matrices; norms are F32. Must be a type that gguf.Quantize knows
	Better   gguf.Type // if not F32: of output, attn_v and ffn_down, as in mixtures such as llama.cpp's Q4_K_M
	TiedHead bool      // no output.weight: the embeddings serve
	Seed     uint64    // of the weights
	RopeBase float32

	Arch    string // "" is llama; gemma3, llama, qwen2, qwen3 and qwen3moe are possible
	Window  int    // gemma3: tokens that all layers but each third see
	Experts int    // qwen3moe: how many, each with a feed-forward length of FF
	Used    int    // qwen3moe: by each row
}

// MinVocab is the smallest vocabulary: 3 special tokens, 256 bytes and a few merges.
const MinVocab = 300

// Tiny is quick to compute and has everything: 4 layers, grouped query heads, an output matrix of its own. Its file has 0.8 MB.
var Tiny = Config{
	Layers: 4, Embd: 128, FF: 256, Heads: 4, KVHeads: 2, HeadSize: 32, Vocab: 512, Ctx: 4096,
	Type: gguf.Q8_0, Seed: 1, RopeBase: 10000,
}

// Token ids of the special tokens. Their logits are kept near 0, the mean of all, so that greedy generation does not end
// before its limit.
const (
	EndOfText = 0 // "<|endoftext|>"
	BOS       = 1 // "<|im_start|>"
	EOS       = 2 // "<|im_end|>"
)

// ChatTemplate is the template of every model made here.
const ChatTemplate = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}" +
	"{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

// Epsilon is the models' RMS norm epsilon.
const Epsilon = 1e-5

// fileTypes gives llama.cpp's number for a file whose matrices are mostly of a type.
var fileTypes = map[gguf.Type]uint32{
	gguf.F32: 0, gguf.F16: 1, gguf.Q4_0: 2, gguf.Q4_1: 3, gguf.Q8_0: 7, gguf.Q5_0: 8, gguf.Q5_1: 9, gguf.BF16: 32,
	gguf.Q2_K: 10, gguf.Q3_K: 12, gguf.Q4_K: 15, gguf.Q5_K: 17, gguf.Q6_K: 18, gguf.IQ4_NL: 25, gguf.IQ4_XS: 30, gguf.MXFP4: 38,
}

// Write makes a model file at path. The error is about the Config or the file.
func Write(path string, cfg Config) error {
	w, err := build(cfg)
	if err != nil {
		return err
	}
	return w.WriteFile(path)
}

// Build makes a model file in memory. It panics if the Config makes no sense, which is a mistake in the test.
func Build(cfg Config) []byte {
	w, err := build(cfg)
	if err == nil {
		var b []byte
		if b, err = w.Bytes(); err == nil {
			return b
		}
	}
	panic(err)
}

func (c Config) check() error {
	block := max(c.Type.BlockLen(), c.Better.BlockLen()) // lengths are powers of two
	_, typeOK := fileTypes[c.Type]
	_, betterOK := fileTypes[c.Better]
	switch {
	case !typeOK || !betterOK:
		return fmt.Errorf("testmodel: weights of types %s and %s: %w", c.Type, c.Better, gguf.ErrType)
	case c.Layers < 1 || c.Embd < 1 || c.FF < 1 || c.Heads < 1 || c.KVHeads < 1 || c.HeadSize < 2 || c.Ctx < 1:
		return fmt.Errorf("testmodel: sizes must be positive: %+v", c)
	case c.Vocab < MinVocab:
		return fmt.Errorf("testmodel: vocabulary of %d, must be at least %d", c.Vocab, MinVocab)
	case c.Heads%c.KVHeads != 0:
		return fmt.Errorf("testmodel: %d heads are not a multiple of %d KV heads", c.Heads, c.KVHeads)
	case c.HeadSize%2 != 0:
		return fmt.Errorf("testmodel: head size %d is odd", c.HeadSize)
	case c.Embd%block != 0 || c.FF%block != 0 || c.Heads*c.HeadSize%block != 0:
		return fmt.Errorf("testmodel: embedding, feed-forward and heads × head size must be multiples of %d for %s and %s", block, c.Type, c.Better)
	case !slices.Contains([]string{"", "gemma3", "llama", "qwen2", "qwen3", "qwen3moe"}, c.Arch):
		return fmt.Errorf("testmodel: architecture %q", c.Arch)
	case (c.Arch == "gemma3") != (c.Window > 0):
		return fmt.Errorf("testmodel: a window of %d with architecture %q", c.Window, c.Arch)
	case (c.Arch == "qwen3moe") != (c.Experts > 0) || c.Used < 0 || c.Used > c.Experts || c.Experts > 0 && c.Used == 0:
		return fmt.Errorf("testmodel: %d of %d experts with architecture %q", c.Used, c.Experts, c.Arch)
	case !(c.RopeBase > 1):
		return fmt.Errorf("testmodel: rope base %g, must be above 1", c.RopeBase)
	}
	return nil
}

func build(cfg Config) (*gguf.Writer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	tokens, merges, err := vocabulary(cfg.Vocab)
	if err != nil {
		return nil, err
	}
	if cfg.Arch == "" {
		cfg.Arch = "llama"
	}
	w := gguf.NewWriter()
	setMetadata(w, cfg, tokens, merges)
	b := &weights{w: w, cfg: cfg}

	embd, ff, q, kv := cfg.Embd, cfg.FF, cfg.Heads*cfg.HeadSize, cfg.KVHeads*cfg.HeadSize
	// Logits have a deviation of about 3. Where the head is tied, the blocks must outweigh the embedding in the residual
	// stream, or every token would predict itself: that is why embeddings are small and what blocks add is large.
	head := 3 / math.Sqrt(float64(embd))
	b.tokens("token_embd.weight", head)
	b.norm("output_norm.weight", embd, 1)
	if !cfg.TiedHead {
		b.tokens("output.weight", head)
	}
	for l := range cfg.Layers {
		p := fmt.Sprintf("blk.%d.", l)
		b.norm(p+"attn_norm.weight", embd, 1)
		// Scores have a deviation of about 2: attention prefers some tokens, and a wrong key or value shows in the logits.
		b.matrix(p+"attn_q.weight", embd, q, 1.4)
		b.matrix(p+"attn_k.weight", embd, kv, 1.4)
		b.matrix(p+"attn_v.weight", embd, kv, 1)
		b.matrix(p+"attn_output.weight", q, embd, 3)
		b.norm(p+"ffn_norm.weight", embd, 1)
		if cfg.Experts > 0 {
			b.experts(p, embd, ff, cfg.Experts)
		} else {
			b.matrix(p+"ffn_gate.weight", embd, ff, 1)
			b.matrix(p+"ffn_up.weight", embd, ff, 1)
			b.matrix(p+"ffn_down.weight", ff, embd, 3)
		}
		switch cfg.Arch {
		case "qwen2":
			b.vector(p+"attn_q.bias", q, 0, 0.5)
			b.vector(p+"attn_k.bias", kv, 0, 0.5)
			b.vector(p+"attn_v.bias", kv, 0, 0.5)
		case "gemma3", "qwen3", "qwen3moe":
			b.norm(p+"attn_q_norm.weight", cfg.HeadSize, 1.4)
			b.norm(p+"attn_k_norm.weight", cfg.HeadSize, 1.4)
		}
		if cfg.Arch == "gemma3" { // its embeddings are taken √embd times
			b.norm(p+"post_attention_norm.weight", embd, 3)
			b.norm(p+"post_ffw_norm.weight", embd, 3)
		}
	}
	return w, b.err
}

func setMetadata(w *gguf.Writer, cfg Config, tokens, merges []string) {
	w.SetString("general.architecture", cfg.Arch)
	w.SetString("general.type", "model")
	w.SetString("general.name", "Kvasir test model")
	w.SetUint32("general.file_type", fileTypes[cfg.Type])
	w.SetUint32("general.quantization_version", 2)
	w.SetUint32(cfg.Arch+".block_count", uint32(cfg.Layers))
	w.SetUint32(cfg.Arch+".context_length", uint32(cfg.Ctx))
	w.SetUint32(cfg.Arch+".embedding_length", uint32(cfg.Embd))
	w.SetUint32(cfg.Arch+".feed_forward_length", uint32(cfg.FF))
	w.SetUint32(cfg.Arch+".attention.head_count", uint32(cfg.Heads))
	w.SetUint32(cfg.Arch+".attention.head_count_kv", uint32(cfg.KVHeads))
	w.SetUint32(cfg.Arch+".attention.key_length", uint32(cfg.HeadSize))
	w.SetUint32(cfg.Arch+".attention.value_length", uint32(cfg.HeadSize))
	w.SetFloat32(cfg.Arch+".attention.layer_norm_rms_epsilon", Epsilon)
	w.SetFloat32(cfg.Arch+".rope.freq_base", cfg.RopeBase)
	w.SetUint32(cfg.Arch+".rope.dimension_count", uint32(cfg.HeadSize))
	w.SetUint32(cfg.Arch+".vocab_size", uint32(cfg.Vocab))
	if cfg.Window > 0 {
		w.SetUint32(cfg.Arch+".attention.sliding_window", uint32(cfg.Window))
		w.SetUint32(cfg.Arch+".attention.sliding_window_pattern", 3)
	}
	if cfg.Experts > 0 {
		w.SetUint32(cfg.Arch+".expert_count", uint32(cfg.Experts))
		w.SetUint32(cfg.Arch+".expert_used_count", uint32(cfg.Used))
		w.SetUint32(cfg.Arch+".expert_feed_forward_length", uint32(cfg.FF))
	}

	const control, normal = 3, 1
	types := make([]int32, len(tokens))
	for i := range types {
		types[i] = normal
	}
	types[EndOfText], types[BOS], types[EOS] = control, control, control
	w.SetString("tokenizer.ggml.model", "gpt2")
	w.SetString("tokenizer.ggml.pre", "smollm")
	w.SetStrings("tokenizer.ggml.tokens", tokens)
	w.SetInts("tokenizer.ggml.token_type", types)
	w.SetStrings("tokenizer.ggml.merges", merges)
	w.SetUint32("tokenizer.ggml.bos_token_id", BOS)
	w.SetUint32("tokenizer.ggml.eos_token_id", EOS)
	w.SetUint32("tokenizer.ggml.unknown_token_id", EndOfText)
	w.SetUint32("tokenizer.ggml.padding_token_id", EOS)
	w.SetBool("tokenizer.ggml.add_bos_token", false)
	w.SetBool("tokenizer.ggml.add_space_prefix", false)
	w.SetString("tokenizer.chat_template", ChatTemplate)
}

// weights adds random tensors and keeps the first error.
type weights struct {
	w   *gguf.Writer
	cfg Config
	err error
}

// noise is a source of nearly normal numbers with mean 0 and deviation 1. They are sums of four 16-bit integers, scaled
// once: exact on every platform, which the logarithms of the usual generators are not.
type noise struct{ src *rand.PCG }

// noise depends on the tensor's name and the seed only.
func (b *weights) noise(name string) noise {
	h := fnv.New64a()
	h.Write([]byte(name))
	return noise{rand.NewPCG(b.cfg.Seed, h.Sum64())}
}

func (n noise) next() float32 {
	u := n.src.Uint64()
	sum := int32(u&0xffff) + int32(u>>16&0xffff) + int32(u>>32&0xffff) + int32(u>>48)
	return float32(sum-2*0xffff) * (1 / 37837.227) // sqrt(4 * (65536² - 1) / 12)
}

// norm adds a vector of n values around mean.
func (b *weights) norm(name string, n int, mean float32) { b.vector(name, n, mean, 0.1*mean) }

func (b *weights) vector(name string, n int, mean, deviation float32) {
	src := b.noise(name)
	x := make([]float32, n)
	for i := range x {
		x[i] = mean + float32(deviation*src.next())
	}
	b.add(name, gguf.F32, x, n)
}

// experts adds a router and the matrices of n experts.
func (b *weights) experts(prefix string, embd, ff, n int) {
	b.add(prefix+"ffn_gate_inp.weight", gguf.F32, b.normal(prefix+"ffn_gate_inp.weight", embd*n, float32(1/math.Sqrt(float64(embd)))), embd)
	for _, m := range []struct {
		name    string
		in, out int
		gain    float64
	}{{"ffn_gate_exps.weight", embd, ff, 1}, {"ffn_up_exps.weight", embd, ff, 1}, {"ffn_down_exps.weight", ff, embd, 3}} {
		x := b.normal(prefix+m.name, n*m.in*m.out, float32(m.gain/math.Sqrt(float64(m.in))))
		b.addDims(prefix+m.name, b.typeOf(prefix+m.name), x, []uint64{uint64(m.in), uint64(m.out), uint64(n)})
	}
}

// matrix adds a matrix that turns in values of deviation 1 into out values of deviation gain.
func (b *weights) matrix(name string, in, out int, gain float64) {
	b.add(name, b.typeOf(name), b.normal(name, in*out, float32(gain/math.Sqrt(float64(in)))), in)
}

// tokens adds a matrix with a row a token; those of the special tokens are a tenth as long.
func (b *weights) tokens(name string, deviation float64) {
	x := b.normal(name, b.cfg.Vocab*b.cfg.Embd, float32(deviation))
	for i := range x[:(EOS+1)*b.cfg.Embd] {
		x[i] *= 0.1
	}
	b.add(name, b.typeOf(name), x, b.cfg.Embd)
}

// typeOf is the type of a matrix.
func (b *weights) typeOf(name string) gguf.Type {
	if b.cfg.Better != gguf.F32 && (name == "output.weight" || strings.Contains(name, ".attn_v.") || strings.Contains(name, ".ffn_down")) {
		return b.cfg.Better
	}
	return b.cfg.Type
}

func (b *weights) normal(name string, n int, deviation float32) []float32 {
	src := b.noise(name)
	x := make([]float32, n)
	for i := range x {
		x[i] = src.next() * deviation
	}
	return x
}

// add encodes x, of which rowLen values are a row.
func (b *weights) add(name string, t gguf.Type, x []float32, rowLen int) {
	dims := []uint64{uint64(rowLen)}
	if rows := len(x) / rowLen; t != gguf.F32 || rows != 1 {
		dims = append(dims, uint64(rows))
	}
	b.addDims(name, t, x, dims)
}

func (b *weights) addDims(name string, t gguf.Type, x []float32, dims []uint64) {
	data, err := gguf.Quantize(t, x)
	if err != nil {
		if b.err == nil {
			b.err = fmt.Errorf("testmodel: %s: %w", name, err)
		}
		return
	}
	b.w.AddTensor(name, t, dims, data)
}
