// Package model turns a GGUF file into packed weights and runs the layers of its architecture over a batch of rows.
// There is one graph an architecture; what they share (packing, rotary tables, KV layout) is here too.
package model

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"kvasir/internal/gguf"
)

// ErrUnsupported is wrapped by every error about a model that is well-formed but cannot be run.
var ErrUnsupported = errors.New("model is not supported")

// Architectures that have a graph here.
var Architectures = []string{"llama"}

// Config holds the hyperparameters of a model.
type Config struct {
	Name     string
	Arch     string
	Layers   int
	Embd     int // width of the residual stream
	FF       int // width of the feed-forward layer
	Heads    int // query heads
	KVHeads  int
	HeadSize int
	Vocab    int
	Context  int // positions that the model was trained for
	Eps      float32
	RopeBase float64
	// RopeScale divides positions (linear scaling); 1 is none.
	RopeScale float64
	// RopeFactors divides the frequency of each pair (tensor rope_freqs.weight); nil is none.
	RopeFactors []float32
}

// Group is the number of query heads that share one KV head.
func (c *Config) Group() int { return c.Heads / c.KVHeads }

func parseConfig(f *gguf.File) (*Config, error) {
	arch, ok := f.String("general.architecture")
	if !ok {
		return nil, fmt.Errorf("the file has no general.architecture: %w", gguf.ErrFormat)
	}
	if !slices.Contains(Architectures, arch) {
		return nil, fmt.Errorf("architecture %q: %w; known architectures: %s", arch, ErrUnsupported, strings.Join(Architectures, ", "))
	}
	c := &Config{Arch: arch, RopeScale: 1}
	c.Name, _ = f.String("general.name")
	var err error
	num := func(key string, def int) int {
		v, ok := f.Uint(arch + "." + key)
		if !ok {
			if def < 0 && err == nil {
				err = fmt.Errorf("the file has no %s.%s: %w", arch, key, gguf.ErrFormat)
			}
			return def
		}
		if v == 0 || v > 1<<24 {
			if err == nil {
				err = fmt.Errorf("%s.%s is %d: %w", arch, key, v, gguf.ErrFormat)
			}
			return 1
		}
		return int(v)
	}
	if n, ok := f.Uint(arch + ".expert_count"); ok && n > 0 {
		return nil, fmt.Errorf("mixture of experts: %w", ErrUnsupported)
	}
	c.Layers = num("block_count", -1)
	c.Embd = num("embedding_length", -1)
	c.FF = num("feed_forward_length", -1)
	c.Heads = num("attention.head_count", -1)
	c.KVHeads = num("attention.head_count_kv", c.Heads)
	c.Context = num("context_length", -1)
	if err != nil {
		return nil, err
	}
	c.HeadSize = num("attention.key_length", c.Embd/c.Heads)
	vlen := num("attention.value_length", c.HeadSize)
	rot := num("rope.dimension_count", c.HeadSize)
	if err != nil {
		return nil, err
	}
	emb, ok := f.Tensor("token_embd.weight")
	if !ok {
		return nil, fmt.Errorf("the file has no tensor token_embd.weight: %w", gguf.ErrFormat)
	}
	c.Vocab = emb.Rows()
	eps, ok := f.Float(arch + ".attention.layer_norm_rms_epsilon")
	if !ok || !(eps > 0 && eps < 1) {
		return nil, fmt.Errorf("%s.attention.layer_norm_rms_epsilon is missing or out of range: %w", arch, gguf.ErrFormat)
	}
	c.Eps = float32(eps)
	c.RopeBase = 10000
	if b, ok := f.Float(arch + ".rope.freq_base"); ok {
		c.RopeBase = float64(float32(b))
	}
	if !(c.RopeBase > 1 && c.RopeBase < 1e12) {
		return nil, fmt.Errorf("%s.rope.freq_base is %v: %w", arch, c.RopeBase, gguf.ErrFormat)
	}
	kind, _ := f.String(arch + ".rope.scaling.type")
	scale, _ := f.Float(arch + ".rope.scaling.factor")
	if kind == "" {
		if s, ok := f.Float(arch + ".rope.scale_linear"); ok && s > 0 {
			kind, scale = "linear", s
		}
	}
	switch kind {
	case "", "none":
	case "linear":
		if !(scale >= 1 && scale <= 1e6) {
			return nil, fmt.Errorf("%s.rope.scaling.factor is %v: %w", arch, scale, gguf.ErrFormat)
		}
		c.RopeScale = float64(float32(scale))
	default:
		return nil, fmt.Errorf("rope scaling %q: %w; known: none, linear and rope_freqs.weight", kind, ErrUnsupported)
	}
	if t, ok := f.Tensor("rope_freqs.weight"); ok {
		if t.Type != gguf.F32 || t.Rows() != 1 || t.RowLen() != c.HeadSize/2 {
			return nil, fmt.Errorf("rope_freqs.weight has the wrong shape: %w", gguf.ErrFormat)
		}
		c.RopeFactors = make([]float32, c.HeadSize/2)
		if err := gguf.Dequantize(t.Type, t.Data, c.RopeFactors); err != nil {
			return nil, err
		}
		for _, x := range c.RopeFactors {
			if !(x > 1e-6 && x < 1e6) {
				return nil, fmt.Errorf("rope_freqs.weight holds %v: %w", x, gguf.ErrFormat)
			}
		}
	}
	slowest := 1.0
	for _, x := range c.RopeFactors {
		slowest = min(slowest, float64(x))
	}
	switch {
	case float64(c.Context)/slowest >= 1<<20: // the range of sincos
		return nil, fmt.Errorf("a context of %d tokens: %w; up to 1048575 are", c.Context, ErrUnsupported)
	case c.Heads%c.KVHeads != 0:
		return nil, fmt.Errorf("%d heads over %d KV heads: %w", c.Heads, c.KVHeads, gguf.ErrFormat)
	case c.HeadSize%16 != 0 || c.HeadSize > 256:
		return nil, fmt.Errorf("head size %d: %w; a multiple of 16 up to 256 is", c.HeadSize, ErrUnsupported)
	case vlen != c.HeadSize || rot != c.HeadSize:
		return nil, fmt.Errorf("key size %d, value size %d, rotary size %d: %w; equal sizes are", c.HeadSize, vlen, rot, ErrUnsupported)
	case c.Embd%32 != 0 || c.FF%32 != 0 || c.Heads*c.HeadSize%32 != 0:
		return nil, fmt.Errorf("embedding length %d, feed-forward length %d, attention width %d: %w; multiples of 32 are",
			c.Embd, c.FF, c.Heads*c.HeadSize, ErrUnsupported)
	case c.Vocab < 1 || c.Vocab > math.MaxInt32/2:
		return nil, fmt.Errorf("%d token embeddings: %w", c.Vocab, gguf.ErrFormat)
	}
	return c, nil
}
