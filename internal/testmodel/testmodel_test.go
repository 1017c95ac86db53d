package testmodel

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kvasir/internal/gguf"
)

// shapes are configurations that differ from Tiny in one way each.
func shapes() map[string]Config {
	shape := func(change func(c *Config)) Config {
		c := Tiny
		change(&c)
		return c
	}
	return map[string]Config{
		"tiny":            Tiny,
		"tied":            shape(func(c *Config) { c.TiedHead = true }),
		"head 64":         shape(func(c *Config) { c.HeadSize = 64 }),
		"head 80":         shape(func(c *Config) { c.HeadSize, c.Heads, c.KVHeads = 80, 6, 3 }),
		"no groups":       shape(func(c *Config) { c.KVHeads = c.Heads }),
		"one KV head":     shape(func(c *Config) { c.KVHeads = 1 }),
		"least vocab":     shape(func(c *Config) { c.Vocab = MinVocab }),
		"larger vocab":    shape(func(c *Config) { c.Vocab = 3000 }),
		"F32":             shape(func(c *Config) { c.Type = gguf.F32 }),
		"F16":             shape(func(c *Config) { c.Type = gguf.F16 }),
		"BF16":            shape(func(c *Config) { c.Type = gguf.BF16 }),
		"Q4_0":            shape(func(c *Config) { c.Type = gguf.Q4_0 }),
		"Q4_1":            shape(func(c *Config) { c.Type = gguf.Q4_1 }),
		"Q5_0":            shape(func(c *Config) { c.Type = gguf.Q5_0 }),
		"Q5_1":            shape(func(c *Config) { c.Type = gguf.Q5_1 }),
		"IQ4_NL":          shape(func(c *Config) { c.Type = gguf.IQ4_NL }),
		"MXFP4":           shape(func(c *Config) { c.Type = gguf.MXFP4 }),
		"Q4_K and Q6_K":   shape(func(c *Config) { c.Embd, c.Heads, c.Type, c.Better = 256, 8, gguf.Q4_K, gguf.Q6_K }),
		"Q2_K and Q3_K":   shape(func(c *Config) { c.Embd, c.Heads, c.Type, c.Better = 256, 8, gguf.Q2_K, gguf.Q3_K }),
		"IQ4_XS and Q5_K": shape(func(c *Config) { c.Embd, c.Heads, c.Type, c.Better = 256, 8, gguf.IQ4_XS, gguf.Q5_K }),
	}
}

func TestBuild(t *testing.T) {
	for name, cfg := range shapes() {
		t.Run(name, func(t *testing.T) {
			data := Build(cfg)
			if !bytes.Equal(data, Build(cfg)) {
				t.Fatal("two builds differ")
			}
			f, err := gguf.Parse(data)
			if err != nil {
				t.Fatal(err)
			}
			for key, want := range map[string]int{
				"llama.block_count": cfg.Layers, "llama.context_length": cfg.Ctx, "llama.embedding_length": cfg.Embd,
				"llama.feed_forward_length": cfg.FF, "llama.attention.head_count": cfg.Heads,
				"llama.attention.head_count_kv": cfg.KVHeads, "llama.attention.key_length": cfg.HeadSize,
				"llama.attention.value_length": cfg.HeadSize, "llama.rope.dimension_count": cfg.HeadSize,
				"llama.vocab_size": cfg.Vocab, "tokenizer.ggml.bos_token_id": BOS, "tokenizer.ggml.eos_token_id": EOS,
			} {
				if got, ok := f.Uint(key); !ok || got != uint64(want) {
					t.Errorf("%s is %d, want %d", key, got, want)
				}
			}
			if arch, _ := f.String("general.architecture"); arch != "llama" {
				t.Errorf("architecture %q", arch)
			}
			q, kv := cfg.Heads*cfg.HeadSize, cfg.KVHeads*cfg.HeadSize
			want := map[string][2]int{ // row length, rows
				"token_embd.weight": {cfg.Embd, cfg.Vocab}, "output_norm.weight": {cfg.Embd, 1},
			}
			if !cfg.TiedHead {
				want["output.weight"] = [2]int{cfg.Embd, cfg.Vocab}
			}
			for l := range cfg.Layers {
				for name, shape := range map[string][2]int{
					"attn_norm": {cfg.Embd, 1}, "attn_q": {cfg.Embd, q}, "attn_k": {cfg.Embd, kv}, "attn_v": {cfg.Embd, kv},
					"attn_output": {q, cfg.Embd}, "ffn_norm": {cfg.Embd, 1}, "ffn_gate": {cfg.Embd, cfg.FF},
					"ffn_up": {cfg.Embd, cfg.FF}, "ffn_down": {cfg.FF, cfg.Embd},
				} {
					want[fmt.Sprintf("blk.%d.%s.weight", l, name)] = shape
				}
			}
			if len(f.Tensors) != len(want) {
				t.Errorf("%d tensors, want %d", len(f.Tensors), len(want))
			}
			for name, shape := range want {
				tensor, ok := f.Tensor(name)
				if !ok {
					t.Errorf("no %s", name)
					continue
				}
				typ := cfg.Type
				switch {
				case strings.Contains(name, "norm"):
					typ = gguf.F32
				case cfg.Better != gguf.F32 && slices.Contains([]string{"output.weight", "attn_v.weight", "ffn_down.weight"}, name[strings.LastIndex(strings.TrimSuffix(name, ".weight"), ".")+1:]):
					typ = cfg.Better
				}
				if tensor.RowLen() != shape[0] || tensor.Rows() != shape[1] || tensor.Type != typ {
					t.Errorf("%s is %d × %d of %s, want %d of %s", name, tensor.Rows(), tensor.RowLen(), tensor.Type, shape, typ)
				}
			}
		})
	}
}

// Other packages' tests may keep numbers of this model, so it may not differ by platform or change by accident.
func TestTinyIsFixed(t *testing.T) {
	const want = "68731f8e972235a9db4fa1b2c4c60faf90cbb9540dd105e3fd0629c533b0b8ef"
	sum := sha256.Sum256(Build(Tiny))
	if got := hex.EncodeToString(sum[:]); got != want {
		t.Errorf("the file's SHA-256 is %s, want %s", got, want)
	}
}

func TestSeed(t *testing.T) {
	other := Tiny
	other.Seed++
	a, err := gguf.Parse(Build(Tiny))
	if err != nil {
		t.Fatal(err)
	}
	b, err := gguf.Parse(Build(other))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for i := range a.Tensors {
		for _, tensor := range []*gguf.Tensor{&a.Tensors[i], &b.Tensors[i]} {
			start := string(tensor.Data[:64])
			if with, ok := seen[start]; ok {
				t.Errorf("%s begins like %s", tensor.Name, with)
			}
			seen[start] = tensor.Name
		}
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := Write(path, Tiny); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, Build(Tiny)) {
		t.Errorf("the file differs from Build (%v)", err)
	}
	if err := Write(filepath.Join(path, "below a file"), Tiny); err == nil {
		t.Error("no error where a file cannot be")
	}
}

func TestBadConfig(t *testing.T) {
	for name, change := range map[string]func(c *Config){
		"zero":             func(c *Config) { *c = Config{} },
		"no layers":        func(c *Config) { c.Layers = 0 },
		"small vocabulary": func(c *Config) { c.Vocab = MinVocab - 1 },
		"huge vocabulary":  func(c *Config) { c.Vocab = 1 << 20 },
		"uneven heads":     func(c *Config) { c.Heads, c.KVHeads = 4, 3 },
		"odd head":         func(c *Config) { c.HeadSize = 33 },
		"embedding":        func(c *Config) { c.Embd = 100 },
		"feed-forward":     func(c *Config) { c.FF = 250 },
		"rope":             func(c *Config) { c.RopeBase = 0 },
		"architecture":     func(c *Config) { c.Arch = "nonesuch" },
		"no window":        func(c *Config) { c.Arch = "gemma3" },
		"window":           func(c *Config) { c.Window = 32 },
		"no experts":       func(c *Config) { c.Arch = "qwen3moe" },
		"experts":          func(c *Config) { c.Arch, c.Experts, c.Used = "qwen3moe", 2, 3 },
		"type":             func(c *Config) { c.Type = gguf.Q8_K },
		"better type":      func(c *Config) { c.Better = gguf.IQ2_XS },
		"rows of K-types":  func(c *Config) { c.Better = gguf.Q6_K },
	} {
		cfg := Tiny
		change(&cfg)
		path := filepath.Join(t.TempDir(), "m.gguf")
		err := Write(path, cfg)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if strings.HasSuffix(name, "type") && !errors.Is(err, gguf.ErrType) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s: a file was left", name)
		}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: Build did not panic", name)
				}
			}()
			Build(cfg)
		}()
	}
}

func TestVocabulary(t *testing.T) {
	for _, n := range []int{MinVocab, 512, 5000, 49152} {
		tokens, merges, err := vocabulary(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(tokens) != n || len(merges) != n-259 {
			t.Fatalf("%d tokens and %d merges of %d", len(tokens), len(merges), n)
		}
		known := map[string]bool{}
		for i, token := range tokens {
			if token == "" || known[token] {
				t.Errorf("token %d, %q, occurs twice", i, token)
			}
			if i >= 259 {
				a, b, ok := strings.Cut(merges[i-259], " ")
				if !ok || a+b != token || !known[a] || !known[b] {
					t.Errorf("merge %q does not make token %d, %q, of earlier ones", merges[i-259], i, token)
				}
			}
			known[token] = true
		}
		for b, letter := range byteLetters() {
			if !known[string(letter)] {
				t.Errorf("no token for byte %d", b)
			}
		}
	}
	letters := byteLetters()
	if letters[' '] != 'Ġ' || letters['\n'] != 'Ċ' || letters['a'] != 'a' || letters[0xad] != 'Ń' || letters[255] != 'ÿ' {
		t.Errorf("bytes are %q", letters[:])
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"a":                         "a",
		"the end.":                  "the| end|.",
		"a  b":                      "a| | b",
		"x = 10;\n\treturn":         "x| =| |1|0|;|\n\t|return",
		"if x:\n        return x\n": "if| x|:|\n       | return| x|\n",
	} {
		if got := strings.Join(split(in), "|"); got != want {
			t.Errorf("%q was cut into %q, want %q", in, got, want)
		}
	}
}
