package sample

import (
	"fmt"
	"maps"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/llm"
)

// plainWeight is the weight of a token, by the steps of docs/numerics.md.
func plainWeight(logit, peak, scale float32) uint64 {
	x := float32((logit - peak) * scale)
	if !(x > -60) {
		return 0
	}
	n := float32(math.RoundToEven(float64(x)))
	f := x - n
	c, f2 := kernel.Exp2Coefficients, float32(f*f)
	y := float32((float32(c[0]*f)+c[1])*f2) + (float32(c[2]*f) + c[3])
	y = float32(y*f2) + (float32(c[4]*f) + c[5])
	return uint64(math.RoundToEven(math.Ldexp(float64(y), int(n)+43)))
}

// plain is the oracle: Sample in the simplest form, which sorts all tokens and sums in a loop.
func plain(logits []float32, s llm.Sampling, prompt, generated []int32, choice, position, logprobs int) (token llm.TokenLogprob, top []llm.TokenLogprob, ok bool) {
	n := len(logits)
	adjusted := slices.Clone(logits)
	for id, b := range s.LogitBias {
		if int(id) < n {
			adjusted[id] += b
		}
	}
	counts := map[int32]int{}
	if s.RepetitionPenalty != 1 {
		for _, id := range prompt {
			counts[id] = 0
		}
	}
	for _, id := range generated {
		counts[id]++
	}
	for id, count := range counts {
		if int(id) >= n {
			continue
		}
		if adjusted[id] > 0 {
			adjusted[id] /= s.RepetitionPenalty
		} else {
			adjusted[id] *= s.RepetitionPenalty
		}
		if count > 0 {
			adjusted[id] -= float32(s.FrequencyPenalty * float32(count))
			adjusted[id] -= s.PresencePenalty
		}
	}
	order := func(l []float32) []int32 {
		ids := make([]int32, n)
		for i := range ids {
			ids[i] = int32(i)
		}
		slices.SortStableFunc(ids, func(a, b int32) int {
			switch {
			case l[a] > l[b]:
				return -1
			case l[a] < l[b]:
				return 1
			}
			return 0
		})
		return ids
	}
	for _, l := range [][]float32{logits, adjusted} {
		finite := false
		for _, v := range l {
			if v != v || math.IsInf(float64(v), 1) {
				return token, nil, false
			}
			finite = finite || !math.IsInf(float64(v), -1)
		}
		if !finite {
			return token, nil, false
		}
	}

	ids := order(adjusted)
	peak := adjusted[ids[0]]
	token.ID = ids[0]
	if s.Temperature > 0 {
		weights := make([]uint64, n)
		scale := float32(min(math.Log2E/float64(s.Temperature), 0x1p126))
		if s.TopK > 0 && s.TopK < n {
			ids = ids[:s.TopK]
		}
		var total uint64
		for _, id := range ids {
			weights[id] = plainWeight(adjusted[id], peak, scale)
			total += weights[id]
		}
		if s.TopP < 1 {
			need, sum := share(total, s.TopP), uint64(0)
			for i, id := range ids {
				if sum += weights[id]; sum >= need {
					ids = ids[:i+1]
					break
				}
			}
		}
		ids = slices.DeleteFunc(ids, func(id int32) bool { return float64(weights[id]) < float64(s.MinP)*(1<<43) })
		slices.Sort(ids)
		total = 0
		for _, id := range ids {
			total += weights[id]
		}
		target, _ := bits.Mul64(uniform(s.Seed, choice, position), total)
		for _, id := range ids {
			if target < weights[id] {
				token.ID = id
				break
			}
			target -= weights[id]
		}
	}
	if logprobs >= 0 {
		ids := order(logits)
		peak := logits[ids[0]]
		var total uint64
		for _, l := range logits {
			total += plainWeight(l, peak, math.Log2E)
		}
		norm := float64(peak) + log(float64(total)/(1<<43))
		token.Logprob = float32(float64(logits[token.ID]) - norm)
		for _, id := range ids[:min(logprobs, n)] {
			top = append(top, llm.TokenLogprob{ID: id, Logprob: float32(float64(logits[id]) - norm)})
		}
	}
	return token, top, true
}

// TestPlain holds every path against the oracle, on logits of many shapes and vocabularies of many lengths.
func TestPlain(t *testing.T) {
	r := rand.New(rand.NewPCG(20, 21))
	inf := float32(math.Inf(-1))
	pick := func(fs ...float32) float32 { return fs[r.IntN(len(fs))] }
	shapes := map[string]func(i, n int) float32{
		"flat":     func(int, int) float32 { return float32(r.NormFloat64() * 0.01) },
		"normal":   func(int, int) float32 { return float32(r.NormFloat64() * 3) },
		"wide":     func(int, int) float32 { return float32(r.NormFloat64() * 100) },
		"peaked":   func(int, int) float32 { return float32(r.NormFloat64()) + pick(0, 0, 0, 0, 0, 0, 0, 0, 0, 12) },
		"huge":     func(int, int) float32 { return float32(r.NormFloat64() * 5e37) },
		"equal":    func(int, int) float32 { return -3 },
		"ties":     func(int, int) float32 { return float32(r.IntN(5)) },
		"zeros":    func(int, int) float32 { return pick(0, float32(math.Copysign(0, -1))) },
		"masked":   func(int, int) float32 { return pick(inf, inf, inf, float32(r.NormFloat64())) },
		"rising":   func(i, _ int) float32 { return float32(i) * 0.01 },
		"falling":  func(i, _ int) float32 { return float32(-i) * 0.01 },
		"one high": func(i, n int) float32 { return float32(30 * max(0, i-n+2)) },
		"tiny":     func(int, int) float32 { return math.Float32frombits(r.Uint32() & 0x807fffff) },
		"bits": func(int, int) float32 {
			if f := math.Float32frombits(r.Uint32()); f == f && f <= math.MaxFloat32 {
				return f
			}
			return 0
		},
		"octaves": func(int, int) float32 { return float32(-r.IntN(46)) * math.Ln2 },
		"broken": func(_, n int) float32 {
			return pick(slices.Repeat([]float32{0, 1, inf}, n/2+1)[r.IntN(n):]...) * pick(0, 1)
		},
	}
	names := slices.Sorted(maps.Keys(shapes))
	cases := 4000
	if testing.Short() { // under an emulator
		cases = 400
	}
	for i := range cases {
		n := []int{1, 2, 3, 7, 31, 33, 100, 512, 515, 1024, 1600, 3000}[r.IntN(12)]
		if i%500 == 0 {
			n = 20000 + r.IntN(2000) // long enough for all ways through
		}
		name := names[r.IntN(len(names))]
		logits := make([]float32, n)
		for k := range logits {
			logits[k] = shapes[name](k, n)
		}
		s := settings(func(s *llm.Sampling) {
			s.Seed = r.Uint64()
			s.Temperature = pick(0, 1e-45, 1e-6, 0.1, 0.7, 1, 1, 2, 100)
			s.TopK = []int{0, 0, 0, 1, 2, 5, 40, 200, n - 1, n, 2 * n}[r.IntN(11)]
			s.TopP = pick(1, 1, 0.9999999, 0.99, 0.9, 0.5, 0.1, 1e-6)
			s.MinP = pick(0, 0, 0, 1e-13, 0.001, 0.05, 0.3, 1)
			if r.IntN(3) == 0 {
				s.LogitBias = map[int32]float32{int32(r.IntN(n)): float32(r.NormFloat64() * 5), int32(r.IntN(n)): -100, int32(n): 3}
			}
			if r.IntN(3) == 0 {
				s.RepetitionPenalty = pick(1, 1.2, 0.5)
				s.PresencePenalty = pick(0, 0.5, -1)
				s.FrequencyPenalty = pick(0, 0.5, -1)
			}
		})
		draw := func() []int32 {
			ids := make([]int32, r.IntN(40))
			for k := range ids {
				ids[k] = r.Int32N(int32(min(n, 20)) + 1)
			}
			return ids
		}
		prompt, generated := draw(), draw()
		if s.RepetitionPenalty == 1 && s.PresencePenalty == 0 && s.FrequencyPenalty == 0 {
			prompt, generated = nil, nil
		}
		logprobs := []int{-1, -1, 0, 1, 5, 20}[r.IntN(6)]
		for range 3 {
			choice, position := r.IntN(10), r.IntN(1000)
			want, wantTop, wantOK := plain(logits, s, prompt, generated, choice, position, logprobs)
			for _, p := range kernel.Available() {
				sp := New(p, s, choice, logprobs)
				sp.Prompt(prompt)
				for _, id := range generated {
					sp.Accept(id)
				}
				got, gotTop, err := sp.Sample(logits, position)
				what := fmt.Sprintf("case %d: %v, %s, %d tokens, prompt %v, generated %v, choice %d, position %d, %+v", i, p, name, n, prompt, generated, choice, position, s)
				if (err == nil) != wantOK {
					t.Fatalf("%s: %v, want %v", what, err, wantOK)
				}
				if err == nil && (got.ID != want.ID || got.Logprob != want.Logprob) {
					t.Fatalf("%s: %+v, want %+v", what, got, want)
				}
				same := func(a, b llm.TokenLogprob) bool { return a.ID == b.ID && a.Logprob == b.Logprob }
				if !slices.EqualFunc(gotTop, wantTop, same) {
					t.Fatalf("%s: top %+v, want %+v", what, gotTop, wantTop)
				}
			}
		}
	}
}

// TestRoundedTail: what top-p drops weighs 25.9 a token here, and the tokens 25.6, which is rounded to 26. Some must be kept.
func TestRoundedTail(t *testing.T) {
	logits := make([]float32, 20242)
	for i := range logits {
		logits[i] = float32(math.Log(25.6 / (1 << 43)))
	}
	logits[777] = 0
	s := settings(func(s *llm.Sampling) { s.TopP = math.Nextafter32(1, 0) })
	for position := range 20 {
		want, _, _ := plain(logits, s, nil, nil, 0, position, -1)
		if got, _, err := New(best, s, 0, -1).Sample(logits, position); err != nil || got.ID != want.ID {
			t.Fatalf("position %d: %+v, %v, want %+v", position, got, err, want)
		}
	}
}

// TestCut compares the selection with sorting, for weights and counts.
func TestCut(t *testing.T) {
	r := rand.New(rand.NewPCG(22, 23))
	var rank ranking
	for i := range 400 {
		n := 1 + r.IntN(500)
		if i%40 == 0 {
			n = digits - 2 + r.IntN(4000)
		}
		l := list{logits: random(r, n, []float64{0, 1e-6, 3, 1e30}[i%4])}
		if r.IntN(2) == 0 {
			for k := range n {
				l.ids = append(l.ids, int32(2*k+1))
			}
		}
		var total uint64
		if r.IntN(2) == 0 {
			for range n {
				l.weights = append(l.weights, float32(r.IntN(3)))
			}
			l.weights[r.IntN(n)] = 1 << 43
		}
		order := make([]int, n)
		for k := range n {
			order[k] = k
			total += l.weight(k)
		}
		slices.SortStableFunc(order, func(a, b int) int {
			if l.logits[a] > l.logits[b] {
				return -1
			} else if l.logits[a] < l.logits[b] {
				return 1
			}
			return 0
		})
		top, bottom := slices.Max(l.logits), slices.Min(l.logits)
		if i%3 == 0 {
			top, bottom = math.MaxFloat32, float32(math.Inf(-1))
		}
		for _, need := range []uint64{1, total, 1 + r.Uint64N(total), min(total, 1+r.Uint64N(uint64(n)))} {
			var sum uint64
			k := -1
			for sum < need {
				k++
				sum += l.weight(order[k])
			}
			last, mass := rank.cut(l, need, top, bottom)
			if want := (place{l.logits[order[k]], l.id(order[k])}); last != want || mass != sum {
				t.Fatalf("case %d, %d tokens, need %d of %d: %v, %d; want %v, %d", i, n, need, total, last, mass, want, sum)
			}
		}
	}
}

// TestFloat64: the choices are those of weights in float64, but for the few draws that fall on the edge of two tokens.
func TestFloat64(t *testing.T) {
	r := rand.New(rand.NewPCG(24, 25))
	const n, draws = 3000, 4000
	for _, temperature := range []float32{0.3, 1, 4, 50} {
		logits := random(r, n, 4)
		s := settings(func(s *llm.Sampling) { s.Temperature = temperature })
		sp := New(best, s, 2, -1)
		sums, sum := make([]float64, n), 0.0
		peak := float64(slices.Max(logits))
		for i, l := range logits {
			sum += math.Exp((float64(l) - peak) / float64(temperature))
			sums[i] = sum
		}
		other := 0
		for position := range draws {
			u := float64(uniform(s.Seed, 2, position)) / (1 << 64) * sum
			want, _ := slices.BinarySearch(sums, u)
			got, _, err := sp.Sample(logits, position)
			if err != nil {
				t.Fatal(err)
			}
			if int(got.ID) != want {
				other++
			}
		}
		if other > draws/500 {
			t.Errorf("temperature %v: %d of %d choices are others than with float64", temperature, other, draws)
		}
	}
}

// TestHistory: every token once, with its count, whatever the ids.
func TestHistory(t *testing.T) {
	r := rand.New(rand.NewPCG(26, 27))
	for range 50 {
		var h history
		spread := []int32{1, 10, 1000, 200_000}[r.IntN(4)]
		isPrompt, count := map[int32]bool{}, map[int32]int32{}
		var prompt, order []int32
		for range r.IntN(3) {
			ids := make([]int32, r.IntN(5000))
			for i := range ids {
				ids[i] = r.Int32N(spread)
				if !isPrompt[ids[i]] {
					prompt = append(prompt, ids[i])
				}
				isPrompt[ids[i]] = true
			}
			h.addPrompt(ids)
		}
		for range r.IntN(5000) {
			id := r.Int32N(2 * spread)
			if count[id] == 0 {
				order = append(order, id)
			}
			count[id]++
			h.add(id)
		}
		if !slices.Equal(h.prompt, prompt) || len(h.generated) != len(order) || h.empty() != (len(prompt)+len(order) == 0) {
			t.Fatalf("%d and %d entries, want %d and %d", len(h.prompt), len(h.generated), len(prompt), len(order))
		}
		for i, g := range h.generated {
			if want := (generated{order[i], count[order[i]], isPrompt[order[i]]}); g != want {
				t.Fatalf("entry %d is %v, want %v", i, g, want)
			}
		}
	}
}
