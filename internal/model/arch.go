package model

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
)

// An architecture says how the tensors of a file make the layers of a model. It is called when the hyperparameters that all
// architectures share are read and checked; it reads its own, adds one layer after the other, and then the head.
type architecture func(b *builder)

// The names are those of llama.cpp's general.architecture.
var architectures = map[string]architecture{
	"gemma3":   gemma3,
	"llama":    llama,
	"mistral3": mistral3,
	"phi3":     phi3,
	"qwen2":    qwen2,
	"qwen3":    qwen3,
	"qwen3moe": qwen3moe,
}

// Architectures lists those that have a graph here, sorted.
var Architectures = slices.Sorted(maps.Keys(architectures))

// A layer mixes the rows of a sequence and then works on each row alone. Both parts normalise their input and add what they give to the
// residual stream.
type layer struct {
	attention
	feedForward
}

// attention is causal, with a KV head for each group of query heads.
type attention struct {
	kv           int       // its place in a block's Layout
	norm         []float32 // of its input
	q, k, v, o   linear
	qNorm, kNorm []float32 // of each head's query and key; nil is none
	post         []float32 // norm of its output; nil is none
	rope         *ropeTable
	window       int // tokens that a row sees, itself among them; 0 is all up to it
	plan         int // which of a step's plans is for this window
}

// feedForward is down(activation(gate)·up), or that of some experts.
type feedForward struct {
	ffNorm         []float32 // of its input
	gate, up, down linear
	activation     func(p kernel.Path, dst, gate, up []float32)
	experts        *experts  // in place of gate, up and down
	ffPost         []float32 // norm of its output; nil is none
}

// linear is a matrix, with a bias or without.
type linear struct {
	*gemm.Matrix
	bias []float32 // a value for each output of all panels; nil is none
	id   int       // its place in Model.places
}

// A builder makes the parts of layers for an architecture. Errors are kept until all is read.
type builder struct {
	*Config
	*reader
	*loader
	m      *Model
	rotary rotary // of parts that are made from now on
	rope   *ropeTable
}

// build calls the architecture of the file, for sequences of up to context tokens; 0 is what the model was trained for.
func build(m *Model, f *gguf.File, l *loader, context int) error {
	arch, ok := f.String("general.architecture")
	if !ok {
		return fmt.Errorf("the file has no general.architecture: %w", gguf.ErrFormat)
	}
	layers, ok := architectures[arch]
	if !ok {
		return fmt.Errorf("architecture %q: %w; known architectures: %s", arch, ErrUnsupported, strings.Join(Architectures, ", "))
	}
	r := &reader{f: f, arch: arch}
	c, err := parseConfig(r)
	if err != nil {
		return err
	}
	if context == 0 {
		context = c.Context
	}
	if context < 1 || context > c.Context {
		return fmt.Errorf("context of %d tokens: the model was trained for %d", context, c.Context)
	}
	c.Context = context
	m.Config, m.embdScale, m.qScale = *c, 1, float32(math.Log2E/math.Sqrt(float64(c.HeadSize)))
	b := &builder{Config: &m.Config, reader: r, loader: l, m: m}
	layers(b)
	return r.err
}

// turn chooses the rotary embedding of the attention parts that are made from here on.
func (b *builder) turn(o rotary) {
	b.rotary, b.rope = o, newRopeTable(o, b.HeadSize, b.Context)
	b.m.ropes = append(b.m.ropes, b.rope)
}

// standard is the rotary embedding of the file's metadata, for all layers; halves says which dimensions make pairs.
func (b *builder) standard(halves bool) {
	o := b.reader.rotary(b.Config, halves)
	b.RopeScale, b.RopeFactors = o.scale, o.factors
	b.turn(o)
}

// has reports whether layer i has a tensor.
func (b *builder) has(i int, name string) bool {
	_, ok := b.reader.f.Tensor(block(i, name))
	return ok
}

func block(i int, name string) string { return fmt.Sprintf("blk.%d.%s", i, name) }

// attend makes the attention of layer i: queries, keys and values from matrices of their own or from one, with biases and norms of heads
// where the file has them.
func (b *builder) attend(i int) attention {
	qd, kvd := b.Heads*b.HeadSize, b.KVHeads*b.HeadSize
	qOrder, kOrder := b.rotary.order(b.Heads, b.HeadSize), b.rotary.order(b.KVHeads, b.HeadSize)
	a := attention{
		kv:   i,
		norm: b.vector(block(i, "attn_norm.weight"), b.Embd),
		rope: b.rope,
	}
	if fused := block(i, "attn_qkv"); b.has(i, "attn_qkv.weight") {
		of := qd + 2*kvd
		a.q = b.linear(fused, span{of, 0, qd, qOrder}, b.Embd)
		a.k = b.linear(fused, span{of, qd, kvd, kOrder}, b.Embd)
		a.v = b.linear(fused, span{of, qd + kvd, kvd, nil}, b.Embd)
	} else {
		a.q = b.linear(block(i, "attn_q"), span{qd, 0, qd, qOrder}, b.Embd)
		a.k = b.linear(block(i, "attn_k"), span{kvd, 0, kvd, kOrder}, b.Embd)
		a.v = b.linear(block(i, "attn_v"), all(kvd), b.Embd)
	}
	a.o = b.linear(block(i, "attn_output"), all(b.Embd), qd)
	return a
}

// normHeads adds norms of each head's query and key.
func (b *builder) normHeads(a *attention, i int) {
	if b.HeadSize%32 != 0 {
		b.reader.fail("heads of %d that are normalised: %w; multiples of 32 are", b.HeadSize, ErrUnsupported)
	}
	order := b.rotary.order(1, b.HeadSize)
	a.qNorm = reorder(b.vector(block(i, "attn_q_norm.weight"), b.HeadSize), order)
	a.kNorm = reorder(b.vector(block(i, "attn_k_norm.weight"), b.HeadSize), order)
}

// gated makes the feed-forward part of layer i, from a gate of its own or from one matrix that has gate and up one after the other.
func (b *builder) gated(i int, activation func(kernel.Path, []float32, []float32, []float32)) feedForward {
	f := feedForward{
		ffNorm:     b.vector(block(i, "ffn_norm.weight"), b.Embd),
		activation: activation,
	}
	if both := block(i, "ffn_up"); !b.has(i, "ffn_gate.weight") {
		f.gate = b.linear(both, span{2 * b.FF, 0, b.FF, nil}, b.Embd)
		f.up = b.linear(both, span{2 * b.FF, b.FF, b.FF, nil}, b.Embd)
	} else {
		f.gate = b.linear(block(i, "ffn_gate"), all(b.FF), b.Embd)
		f.up = b.linear(both, all(b.FF), b.Embd)
	}
	f.down = b.linear(block(i, "ffn_down"), all(b.Embd), b.FF)
	return f
}

// mixed makes the feed-forward part of layer i from experts with SiLU gates.
func (b *builder) mixed(i int) feedForward {
	if b.Experts == 0 {
		b.reader.fail("the file has no %s.expert_count: %w", b.Arch, gguf.ErrFormat)
		return feedForward{}
	}
	x := &experts{router: b.linear(block(i, "ffn_gate_inp"), all(b.Experts), b.Embd), used: b.Used}
	for e := range b.Experts {
		in := span{b.Experts * b.FF, e * b.FF, b.FF, nil}
		x.gate = append(x.gate, b.linear(block(i, "ffn_gate_exps"), in, b.Embd))
		x.up = append(x.up, b.linear(block(i, "ffn_up_exps"), in, b.Embd))
		x.down = append(x.down, b.linear(block(i, "ffn_down_exps"), span{b.Experts * b.Embd, e * b.Embd, b.Embd, nil}, b.FF))
	}
	return feedForward{ffNorm: b.vector(block(i, "ffn_norm.weight"), b.Embd), activation: vec.SiluMul, experts: x}
}

// window is the number of tokens that sliding-window layers see; 0 is all.
func (b *builder) window() int {
	if n, ok := b.reader.f.Uint(b.Arch + ".attention.sliding_window"); !ok || n == 0 {
		return 0
	}
	return b.num("attention.sliding_window", -1)
}

// windows says which layers have a sliding window: as the file's list says, or of every `cycle` layers all but the last.
func (b *builder) windows(cycle int) []bool {
	key := b.Arch + ".attention.sliding_window_pattern"
	if list, ok := b.reader.f.Bools(key); ok {
		if len(list) < b.Layers {
			b.reader.fail("%s has %d layers of %d: %w", key, len(list), b.Layers, gguf.ErrFormat)
			return make([]bool, b.Layers)
		}
		return list[:b.Layers]
	}
	cycle = b.num("attention.sliding_window_pattern", cycle)
	list := make([]bool, b.Layers)
	for i := range list {
		list[i] = i%cycle < cycle-1
	}
	return list
}

// add appends a layer.
func (b *builder) add(a attention, f feedForward) {
	a.plan = slices.Index(b.m.windows, a.window)
	if a.plan < 0 {
		a.plan = len(b.m.windows)
		b.m.windows = append(b.m.windows, a.window)
	}
	b.m.layers = append(b.m.layers, layer{a, f})
}

// head reads the last norm and the output matrix, which may be the embeddings.
func (b *builder) head() {
	b.m.outNorm = b.vector("output_norm.weight", b.Embd)
	name := "output"
	if _, ok := b.reader.f.Tensor("output.weight"); !ok {
		name = "token_embd"
	}
	b.m.head = b.linear(name, all(b.Vocab), b.Embd)
}
