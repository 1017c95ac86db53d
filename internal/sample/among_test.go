package sample

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/llm"
)

// A set has the effect of taking the other tokens out of the logits, whatever the settings; log-probabilities are those without it.
func TestAmong(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 42))
	for _, path := range kernel.Available() {
		for round := range 60 {
			n := 1 + r.IntN(3000)
			logits := random(r, n, 4)
			allowed := make([]uint64, (n+63)/64-r.IntN(2)*min(1, n/100))
			share := []float64{0.001, 0.03, 0.5, 0.99}[r.IntN(4)]
			for id := range n {
				if id>>6 < len(allowed) && (r.Float64() < share || id == round%min(n, 64)) {
					allowed[id>>6] |= 1 << (id & 63)
				}
			}
			left := slices.Clone(logits)
			for id := range left {
				if id>>6 >= len(allowed) || allowed[id>>6]>>(id&63)&1 == 0 {
					left[id] = float32(math.Inf(-1))
				}
			}
			for _, u := range usual {
				set := settings(u.f)
				for id := range set.LogitBias {
					if int(id) >= n {
						delete(set.LogitBias, id)
					}
				}
				make := func(logprobs int) *Sampler {
					s := New(path, set, round%3, logprobs)
					s.Prompt([]int32{int32(round % n)})
					s.Accept(int32(round * 7 % n))
					return s
				}
				want, _, err := make(-1).Sample(left, round)
				if err != nil {
					if _, _, got := make(u.logprobs).SampleAmong(logits, round, allowed); !errors.Is(got, ErrNotFinite) {
						t.Fatalf("%s: %v, not %v", u.name, got, err)
					}
					continue
				}
				free, freeTop, _ := make(u.logprobs).Sample(logits, round)
				freeTop = slices.Clone(freeTop)
				got, top, err := make(u.logprobs).SampleAmong(logits, round, allowed)
				if err != nil || got.ID != want.ID {
					t.Fatalf("%s on %v, %d tokens, share %v: %d, %v; want %d", u.name, path, n, share, got.ID, err, want.ID)
				}
				if u.logprobs < 0 {
					continue
				}
				if len(top) != len(freeTop) || !slices.EqualFunc(top, freeTop, func(a, b llm.TokenLogprob) bool { return a.ID == b.ID && a.Logprob == b.Logprob }) {
					t.Fatalf("%s: top %v, without the set %v", u.name, top, freeTop)
				}
				if d := float64(got.Logprob-free.Logprob) - float64(logits[got.ID]-logits[free.ID]); math.Abs(d) > 1e-4 {
					t.Fatalf("%s: the log-probabilities are off by %v", u.name, d)
				}
			}
		}
	}
}

// What is wrong with the model does not hide behind a set, and an empty choice is an error.
func TestAmongErrors(t *testing.T) {
	for _, c := range []struct {
		logits  []float32
		allowed uint64
	}{{[]float32{1, 2, float32(math.NaN())}, 1}, {[]float32{1, 2, float32(math.Inf(1))}, 3}, {[]float32{1, float32(math.Inf(-1))}, 2}, {[]float32{1, 2}, 0}} {
		for _, u := range usual {
			s := New(best, settings(u.f), 0, u.logprobs)
			if _, _, err := s.SampleAmong(c.logits, 0, []uint64{c.allowed}); !errors.Is(err, ErrNotFinite) {
				t.Errorf("%s, %v among %b: %v", u.name, c.logits, c.allowed, err)
			}
		}
	}
}

// BenchmarkAmong is what a set adds to the choice of a token: one of few tokens, and one of almost all.
func BenchmarkAmong(b *testing.B) {
	const vocab = 49152
	logits := benchLogits(vocab, false)
	for _, u := range usual[:3] {
		for name, step := range map[string]int{"all": 0, "most": 1, "few": 1000} {
			var allowed []uint64
			if step > 0 {
				allowed = make([]uint64, vocab/64)
				for id := 0; id < vocab; id += step {
					if step > 1 || id%97 > 0 {
						allowed[id>>6] |= 1 << (id & 63)
					}
				}
			}
			b.Run(u.name+"/"+name, func(b *testing.B) {
				s := New(best, settings(u.f), 0, u.logprobs)
				for i := 0; b.Loop(); i++ {
					if _, _, err := s.SampleAmong(logits, i, allowed); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
