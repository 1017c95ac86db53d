package testmodel

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"kvasir/internal/gguf"
)

// A reference is the llama architecture in float64, straight from its definition, one token at a time.
type reference struct {
	cfg     Config
	weights map[string][]float32
	keys    [][][]float64 // layer, position
	values  [][][]float64
}

func newReference(t *testing.T, cfg Config) *reference {
	f, err := gguf.Parse(Build(cfg))
	if err != nil {
		t.Fatal(err)
	}
	r := &reference{cfg: cfg, weights: map[string][]float32{}}
	for i := range f.Tensors {
		x := &f.Tensors[i]
		w := make([]float32, x.Rows()*x.RowLen())
		if err := gguf.Dequantize(x.Type, x.Data, w); err != nil {
			t.Fatal(err)
		}
		r.weights[x.Name] = w
	}
	r.reset()
	return r
}

func (r *reference) reset() {
	r.keys = make([][][]float64, r.cfg.Layers)
	r.values = make([][][]float64, r.cfg.Layers)
}

func (r *reference) mul(name string, x []float64) []float64 {
	w := r.weights[name]
	y := make([]float64, len(w)/len(x))
	for i := range y {
		for j, v := range x {
			y[i] += float64(w[i*len(x)+j]) * v
		}
	}
	return y
}

func (r *reference) norm(name string, x []float64) []float64 {
	ss := 0.0
	for _, v := range x {
		ss += v * v
	}
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = v / math.Sqrt(ss/float64(len(x))+Epsilon) * float64(r.weights[name][i])
	}
	return y
}

// rope turns the pairs of every head in place.
func (r *reference) rope(x []float64, pos int) {
	size := r.cfg.HeadSize
	for i := 0; i < len(x); i += 2 {
		angle := float64(pos) * math.Pow(float64(r.cfg.RopeBase), -float64(i%size)/float64(size))
		sin, cos := math.Sincos(angle)
		x[i], x[i+1] = x[i]*cos-x[i+1]*sin, x[i]*sin+x[i+1]*cos
	}
}

// step computes one more token and returns the logits.
func (r *reference) step(token int) []float64 {
	cfg := r.cfg
	x := make([]float64, cfg.Embd)
	for i := range x {
		x[i] = float64(r.weights["token_embd.weight"][token*cfg.Embd+i])
	}
	for l := range cfg.Layers {
		w := func(name string) string { return fmt.Sprintf("blk.%d.%s.weight", l, name) }
		h := r.norm(w("attn_norm"), x)
		q, k := r.mul(w("attn_q"), h), r.mul(w("attn_k"), h)
		pos := len(r.keys[l])
		r.rope(q, pos)
		r.rope(k, pos)
		r.keys[l] = append(r.keys[l], k)
		r.values[l] = append(r.values[l], r.mul(w("attn_v"), h))
		mixed := make([]float64, len(q))
		for head := range cfg.Heads {
			at := head * cfg.HeadSize
			kvAt := head / (cfg.Heads / cfg.KVHeads) * cfg.HeadSize
			p := make([]float64, pos+1)
			for t := range p {
				for d := range cfg.HeadSize {
					p[t] += q[at+d] * r.keys[l][t][kvAt+d] / math.Sqrt(float64(cfg.HeadSize))
				}
			}
			most, sum := slices.Max(p), 0.0
			for t := range p {
				p[t] = math.Exp(p[t] - most)
				sum += p[t]
			}
			for t := range p {
				for d := range cfg.HeadSize {
					mixed[at+d] += p[t] / sum * r.values[l][t][kvAt+d]
				}
			}
		}
		for i, v := range r.mul(w("attn_output"), mixed) {
			x[i] += v
		}
		h = r.norm(w("ffn_norm"), x)
		gate, up := r.mul(w("ffn_gate"), h), r.mul(w("ffn_up"), h)
		for i, g := range gate {
			up[i] *= g / (1 + math.Exp(-g))
		}
		for i, v := range r.mul(w("ffn_down"), up) {
			x[i] += v
		}
	}
	head := "output.weight"
	if cfg.TiedHead {
		head = "token_embd.weight"
	}
	return r.mul(head, r.norm("output_norm.weight", x))
}

// greedy computes the prompt and n more tokens; it returns these and the logits after the prompt.
func (r *reference) greedy(prompt []int, n int) (tokens []int, first []float64) {
	r.reset()
	var logits []float64
	for _, token := range prompt {
		logits = r.step(token)
	}
	first = logits
	for range n {
		best := 0
		for i, v := range logits {
			if v > logits[best] {
				best = i
			}
		}
		tokens = append(tokens, best)
		logits = r.step(best)
	}
	return tokens, first
}

func deviation(x []float64) float64 {
	sum, ss := 0.0, 0.0
	for _, v := range x {
		sum += v
		ss += v * v
	}
	n := float64(len(x))
	return math.Sqrt(ss/n - sum/n*sum/n)
}

// The models must be worth testing with: generation varies and goes on, and what stands far back matters.
func TestLogits(t *testing.T) {
	for _, name := range []string{"tiny", "tied", "head 64", "one KV head", "Q4_1"} {
		t.Run(name, func(t *testing.T) {
			cfg := shapes()[name]
			r := newReference(t, cfg)
			prompt := []int{BOS, 50, 60, 70, 80, 90, 100, 110}
			tokens, first := r.greedy(prompt, 30)
			distinct := map[int]bool{}
			for _, token := range tokens {
				distinct[token] = true
				if token <= EOS {
					t.Errorf("generation ended: %d", tokens)
				}
			}
			if len(distinct) < 15 {
				t.Errorf("only %d different tokens: %d", len(distinct), tokens)
			}
			if d := deviation(first); !(d > 1.5 && d < 6) {
				t.Errorf("logits have a deviation of %.2f", d)
			}
			t.Logf("%d different tokens of %d, deviation %.2f", len(distinct), len(tokens), deviation(first))
			for i := range prompt {
				changed := slices.Clone(prompt)
				changed[i]++
				_, logits := r.greedy(changed, 0)
				for j := range logits {
					logits[j] -= first[j]
				}
				if d := deviation(logits); !(d > 0.05) {
					t.Errorf("another token at position %d changes the logits by %.3f only", i, d)
				}
			}
		})
	}
}
