package testmodel

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"kvasir/internal/gguf"
)

// Adapter is the shape of a low-rank adapter for a model of some Config, in llama.cpp's form. It changes enough for the model to say
// something else.
type Adapter struct {
	Rank  int
	Alpha float32
	Type  gguf.Type // of A and B
	Seed  uint64
	Only  []string // matrices, e.g. "attn_q.weight"; empty: all that an adapter can change
}

// WriteAdapter makes an adapter file at path for models of cfg.
func WriteAdapter(path string, cfg Config, a Adapter) error {
	w, err := buildAdapter(cfg, a)
	if err != nil {
		return err
	}
	return w.WriteFile(path)
}

// BuildAdapter makes an adapter file in memory. It panics if the shape makes no sense.
func BuildAdapter(cfg Config, a Adapter) []byte {
	w, err := buildAdapter(cfg, a)
	if err == nil {
		var b []byte
		if b, err = w.Bytes(); err == nil {
			return b
		}
	}
	panic(err)
}

func buildAdapter(cfg Config, a Adapter) (*gguf.Writer, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if a.Rank < 1 {
		return nil, fmt.Errorf("testmodel: an adapter of rank %d", a.Rank)
	}
	if cfg.Arch == "" {
		cfg.Arch = "llama"
	}
	w := gguf.NewWriter()
	w.SetString("general.architecture", cfg.Arch)
	w.SetString("general.type", "adapter")
	w.SetString("adapter.type", "lora")
	w.SetFloat32("adapter.lora.alpha", a.Alpha)
	h := fnv.New64a()
	h.Write([]byte("adapter"))
	cfg.Seed, cfg.Type, cfg.Better = rand.NewPCG(a.Seed, h.Sum64()).Uint64(), a.Type, gguf.F32
	b := &weights{w: w, cfg: cfg}
	pair := func(prefix, name string, in, out int, gain float64) {
		if len(a.Only) > 0 && !slices.Contains(a.Only, name) {
			return
		}
		b.matrix(prefix+name+".lora_a", in, a.Rank, 1)
		b.matrix(prefix+name+".lora_b", a.Rank, out, gain)
	}
	q, kv := cfg.Heads*cfg.HeadSize, cfg.KVHeads*cfg.HeadSize
	for l := range cfg.Layers {
		p := fmt.Sprintf("blk.%d.", l)
		pair(p, "attn_q.weight", cfg.Embd, q, 1)
		pair(p, "attn_k.weight", cfg.Embd, kv, 1)
		pair(p, "attn_v.weight", cfg.Embd, kv, 0.7)
		pair(p, "attn_output.weight", q, cfg.Embd, 2)
		if cfg.Experts > 0 {
			pair(p, "ffn_gate_inp.weight", cfg.Embd, cfg.Experts, 1/math.Sqrt(float64(cfg.Embd)))
			continue
		}
		pair(p, "ffn_gate.weight", cfg.Embd, cfg.FF, 0.7)
		pair(p, "ffn_up.weight", cfg.Embd, cfg.FF, 0.7)
		pair(p, "ffn_down.weight", cfg.FF, cfg.Embd, 2)
	}
	if !cfg.TiedHead {
		pair("", "output.weight", cfg.Embd, cfg.Vocab, 1)
	}
	return w, b.err
}
