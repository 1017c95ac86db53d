// Package model turns a GGUF file into packed weights and runs the layers of its architecture over a batch of rows. An
// architecture is a function that says how a file's tensors make layers (arch.go); the layers themselves are shared:
// attention, feed-forward, mixture of experts, rotary tables, KV layout.
package model

import (
	"errors"
	"fmt"
	"math"

	"kvasir/internal/gguf"
)

// ErrUnsupported is wrapped by every error about a model that is well-formed but cannot be run.
var ErrUnsupported = errors.New("model is not supported")

// Config holds the hyperparameters of a model.
type Config struct {
	Name     string
	Arch     string
	Layers   int
	Embd     int // width of the residual stream
	FF       int // width of the feed-forward layer; of one expert if there are experts
	Heads    int // query heads
	KVHeads  int
	HeadSize int
	Vocab    int
	Context  int // positions that the model was trained for
	Window   int // tokens that a sliding-window layer sees, the row's own among them; 0 if every layer sees all
	Experts  int // feed-forward networks that a layer chooses from; 0 is none
	Used     int // of the experts, by a row
	Eps      float32
	RopeBase float64
	// RopeScale divides positions (linear scaling); 1 is none.
	RopeScale float64
	// RopeFactors divides the frequency of each pair (tensor rope_freqs.weight); nil is none.
	RopeFactors []float32
}

// Group is the number of query heads that share one KV head.
func (c *Config) Group() int { return c.Heads / c.KVHeads }

// A reader reads the hyperparameters of an architecture; its keys begin with the architecture's name. What is wrong first
// stays in err.
type reader struct {
	f    *gguf.File
	arch string
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf(format, args...)
	}
}

// num is a number above 0. Where it may differ by layer and is given as an array, all must be equal. Without the key it is def,
// or an error if that is negative.
func (r *reader) num(key string, def int) int {
	key = r.arch + "." + key
	v, ok := r.f.Uint(key)
	if list, is := r.f.Ints(key); is && len(list) > 0 {
		for _, x := range list {
			if x != list[0] {
				r.fail("%s differs by layer: %w", key, ErrUnsupported)
			}
		}
		v, ok = uint64(list[0]), true
	}
	if !ok {
		if def < 0 {
			r.fail("the file has no %s: %w", key, gguf.ErrFormat)
			return 1
		}
		return def
	}
	if v == 0 || v > 1<<24 {
		r.fail("%s is %d: %w", key, v, gguf.ErrFormat)
		return 1
	}
	return int(v)
}

// float is a number between lo and hi, both excluded, rounded to float32. Without the key it is def, or an error if that is NaN.
func (r *reader) float(key string, def, lo, hi float64) float64 {
	key = r.arch + "." + key
	v, ok := r.f.Float(key)
	if !ok {
		if math.IsNaN(def) {
			r.fail("the file has no %s: %w", key, gguf.ErrFormat)
			return 1
		}
		return def
	}
	if !(v > lo && v < hi) {
		r.fail("%s is %v: %w", key, v, gguf.ErrFormat)
		return 1
	}
	return float64(float32(v))
}

// refuse fails if a key is there with a number other than 0, since the graph does not do what it asks for.
func (r *reader) refuse(keys ...string) {
	for _, key := range keys {
		if v, ok := r.f.Float(r.arch + "." + key); ok && v != 0 {
			r.fail("%s.%s is %v: %w; the %s graph has none", r.arch, key, v, ErrUnsupported, r.arch)
		}
	}
}

// parseConfig reads what all architectures have.
func parseConfig(r *reader) (*Config, error) {
	c := &Config{Arch: r.arch}
	c.Name, _ = r.f.String("general.name")
	c.Layers = r.num("block_count", -1)
	c.Embd = r.num("embedding_length", -1)
	c.Heads = r.num("attention.head_count", -1)
	c.KVHeads = r.num("attention.head_count_kv", c.Heads)
	c.Context = r.num("context_length", -1)
	if n, ok := r.f.Uint(r.arch + ".expert_count"); ok && n > 0 {
		c.Experts = r.num("expert_count", -1)
		c.Used = r.num("expert_used_count", -1)
		c.FF = r.num("expert_feed_forward_length", -1)
	} else {
		c.FF = r.num("feed_forward_length", -1)
	}
	if r.err != nil {
		return nil, r.err
	}
	c.HeadSize = r.num("attention.key_length", c.Embd/c.Heads)
	vlen := r.num("attention.value_length", c.HeadSize)
	c.Eps = float32(r.float("attention.layer_norm_rms_epsilon", math.NaN(), 0, 1))
	c.RopeBase = r.float("rope.freq_base", 10000, 1, 1e12)
	c.RopeScale = 1
	if r.err != nil {
		return nil, r.err
	}
	emb, ok := r.f.Tensor("token_embd.weight")
	if !ok {
		return nil, fmt.Errorf("the file has no tensor token_embd.weight: %w", gguf.ErrFormat)
	}
	if c.Vocab = emb.Rows(); emb.RowLen() != c.Embd {
		return nil, fmt.Errorf("token_embd.weight has rows of %d, want %d: %w", emb.RowLen(), c.Embd, gguf.ErrFormat)
	}
	switch {
	case c.Layers > len(r.f.Tensors):
		return nil, fmt.Errorf("%d layers in a file of %d tensors: %w", c.Layers, len(r.f.Tensors), gguf.ErrFormat)
	case c.Experts > 4096:
		return nil, fmt.Errorf("%d experts: %w; up to 4096 are", c.Experts, ErrUnsupported)
	case c.Heads%c.KVHeads != 0:
		return nil, fmt.Errorf("%d heads over %d KV heads: %w", c.Heads, c.KVHeads, gguf.ErrFormat)
	case c.HeadSize%16 != 0 || c.HeadSize > 256:
		return nil, fmt.Errorf("head size %d: %w; a multiple of 16 up to 256 is", c.HeadSize, ErrUnsupported)
	case vlen != c.HeadSize:
		return nil, fmt.Errorf("key size %d, value size %d: %w; equal sizes are", c.HeadSize, vlen, ErrUnsupported)
	case c.Embd%32 != 0 || c.FF%32 != 0 || c.Heads*c.HeadSize%32 != 0:
		return nil, fmt.Errorf("embedding length %d, feed-forward length %d, attention width %d: %w; multiples of 32 are",
			c.Embd, c.FF, c.Heads*c.HeadSize, ErrUnsupported)
	case c.Vocab < 1 || c.Vocab > math.MaxInt32/2:
		return nil, fmt.Errorf("%d token embeddings: %w", c.Vocab, gguf.ErrFormat)
	case c.Used > c.Experts:
		return nil, fmt.Errorf("%d of %d experts: %w", c.Used, c.Experts, gguf.ErrFormat)
	}
	return c, nil
}
