package sample

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/llm"
)

// usual are settings as requests have them.
var usual = []struct {
	name     string
	logprobs int
	f        func(*llm.Sampling)
}{
	{"greedy", -1, func(s *llm.Sampling) { s.Temperature = 0 }},
	{"temperature", -1, func(s *llm.Sampling) {}},
	{"top_p", -1, func(s *llm.Sampling) { s.TopP = 0.9 }},
	{"top_p_hot", -1, func(s *llm.Sampling) { s.TopP, s.Temperature = 0.9, 5 }},
	{"top_k", -1, func(s *llm.Sampling) { s.TopK = 40 }},
	{"top_k_top_p", -1, func(s *llm.Sampling) { s.TopK, s.TopP = 40, 0.95 }},
	{"min_p", -1, func(s *llm.Sampling) { s.MinP = 0.05 }},
	{"logprobs", 5, func(s *llm.Sampling) {}},
	{"greedy_logprobs", 20, func(s *llm.Sampling) { s.Temperature = 0 }},
	{"penalties", -1, func(s *llm.Sampling) { s.RepetitionPenalty, s.FrequencyPenalty = 1.1, 0.2 }},
	{"bias", -1, func(s *llm.Sampling) { s.LogitBias = map[int32]float32{5: 2, 77: -100, 1000: -1} }},
	{"everything", 5, func(s *llm.Sampling) {
		s.TopK, s.TopP, s.MinP, s.RepetitionPenalty = 1000, 0.95, 0.01, 1.1
	}},
}

// benchLogits are as a model's in the middle of a text (a few tokens stand out), or all alike: then almost every token may
// be drawn.
func benchLogits(vocab int, flat bool) []float32 {
	r := rand.New(rand.NewPCG(13, 14))
	logits := make([]float32, vocab)
	for i := range logits {
		logits[i] = float32(r.NormFloat64() * 3)
	}
	for i := range 30 {
		if !flat {
			logits[r.IntN(vocab)] = 20 - 4*float32(math.Log(float64(1+i)))
		}
	}
	return logits
}

func benchHistory(vocab, n int) []int32 {
	r := rand.New(rand.NewPCG(15, 16))
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = int32(float64(vocab) * math.Pow(r.Float64(), 3))
	}
	return ids
}

func BenchmarkSample(b *testing.B) {
	for _, vocab := range []int{49152, 151936} {
		for _, shape := range []string{"peaked", "flat"} {
			logits := benchLogits(vocab, shape == "flat")
			for _, c := range usual {
				for _, p := range kernel.Available() {
					b.Run(fmt.Sprintf("%d/%s/%s/%s", vocab, shape, c.name, p), func(b *testing.B) {
						sp := New(p, settings(c.f), 0, c.logprobs)
						sp.Prompt(benchHistory(vocab, 2000))
						b.ReportAllocs()
						position := 0
						for b.Loop() {
							if _, _, err := sp.Sample(logits, position); err != nil {
								b.Fatal(err)
							}
							position++
						}
					})
				}
			}
		}
	}
}

func BenchmarkPrompt(b *testing.B) {
	for _, n := range []int{2000, 30000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			ids := benchHistory(49152, n)
			s := settings(func(s *llm.Sampling) { s.RepetitionPenalty = 1.1 })
			for b.Loop() {
				New(best, s, 0, -1).Prompt(ids)
			}
		})
	}
}
