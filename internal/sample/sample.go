// Package sample turns logits into a token.
//
// A choice is a function of the logits, the settings, the tokens so far, the seed, the number of the choice and the position,
// and has the same result on every CPU: the weights are integers, so that their sums have no order; exp and log are
// this package's own; and the random number of a position comes from a counter-based generator, not from a state.
// A draft that is thrown away and drawn again gives the same token.
//
// The order of the steps:
//
//  1. logit bias is added;
//  2. repetition penalty, for tokens of the prompt and the choice: positive logits are divided by it, others multiplied
//     (Keskar et al., "CTRL", 2019, as transformers and llama.cpp have it);
//  3. frequency penalty times the token's count, and presence penalty, are taken off, for tokens of the choice (OpenAI);
//  4. temperature 0: the highest logit, of equal ones that with the lowest id; done. Otherwise logits are divided by it;
//  5. top-k keeps the k highest, of equal ones those with lower ids;
//  6. top-p keeps the fewest of the highest whose share of what top-k left is at least p;
//  7. min-p keeps those at least min-p times as probable as the most probable;
//  8. one of the rest is drawn.
//
// Log-probabilities are of the model's own distribution: before all of these steps.
package sample

import (
	"errors"
	"math"
	"math/bits"
	"slices"
	"sync"

	"kvasir/internal/llm"
)

// ErrNotFinite is Sample's error for logits of which one is NaN or +Inf, or none is finite: the model is at fault.
var ErrNotFinite = errors.New("the model's logits are not finite")

// Check reports the first setting that is out of range as an *llm.Error about its request field.
func Check(s llm.Sampling) error {
	within := func(v float32, low, high float64) bool { return float64(v) >= low && float64(v) <= high } // false for NaN
	switch {
	case !within(s.Temperature, 0, 100):
		return llm.Invalid("temperature", "temperature must be from 0 to 100, not %v", s.Temperature)
	case s.TopK < 0:
		return llm.Invalid("top_k", "top_k must be 0 (off) or more, not %d", s.TopK)
	case !within(s.TopP, math.SmallestNonzeroFloat32, 1):
		return llm.Invalid("top_p", "top_p must be greater than 0 and at most 1, not %v", s.TopP)
	case !within(s.MinP, 0, 1):
		return llm.Invalid("min_p", "min_p must be from 0 to 1, not %v", s.MinP)
	case !within(s.RepetitionPenalty, 1e-3, 1e3):
		return llm.Invalid("repetition_penalty", "repetition_penalty must be from 0.001 to 1000, not %v", s.RepetitionPenalty)
	case !within(s.PresencePenalty, -2, 2):
		return llm.Invalid("presence_penalty", "presence_penalty must be from -2 to 2, not %v", s.PresencePenalty)
	case !within(s.FrequencyPenalty, -2, 2):
		return llm.Invalid("frequency_penalty", "frequency_penalty must be from -2 to 2, not %v", s.FrequencyPenalty)
	}
	for id, b := range s.LogitBias {
		if id < 0 {
			return llm.Invalid("logit_bias", "logit_bias: %d is not a token id", id)
		}
		if !within(b, -100, 100) {
			return llm.Invalid("logit_bias", "logit_bias of token %d must be from -100 to 100, not %v", id, b)
		}
	}
	return nil
}

// CheckVocab reports a logit bias of a token that a vocabulary of this size does not have.
func CheckVocab(s llm.Sampling, vocab int) error {
	for id := range s.LogitBias {
		if id < 0 || int(id) >= vocab {
			return llm.Invalid("logit_bias", "logit_bias: the model has no token %d; its vocabulary has %d", id, vocab)
		}
	}
	return nil
}

// history is what is known of a token that the prompt or the choice has.
type history struct {
	id    int32
	count int32 // in the choice
}

// biased is a logit bias of one token.
type biased struct {
	id   int32
	bias float32
}

// Sampler chooses the tokens of one choice of one request. It is not safe for concurrent use.
type Sampler struct {
	set      llm.Sampling
	choice   int
	logprobs int

	bias    []biased
	seen    []history
	index   map[int32]int32 // id → place in seen
	top     []llm.TokenLogprob
	penalty bool
}

// New makes the sampler of one choice. Settings must have passed Check. logprobs is -1 for none, else how many of the most
// likely tokens Sample reports beside the chosen one's log-probability.
func New(s llm.Sampling, choice int, logprobs int) *Sampler {
	sp := &Sampler{set: s, choice: choice, logprobs: logprobs}
	sp.penalty = s.RepetitionPenalty != 1 || s.PresencePenalty != 0 || s.FrequencyPenalty != 0
	for id, b := range s.LogitBias {
		sp.bias = append(sp.bias, biased{id, b})
	}
	if sp.penalty {
		sp.index = map[int32]int32{}
	}
	if logprobs > 0 {
		sp.top = make([]llm.TokenLogprob, 0, logprobs)
	}
	return sp
}

// Prompt tells the sampler tokens of the prompt, for the repetition penalty.
func (s *Sampler) Prompt(ids []int32) {
	if s.set.RepetitionPenalty != 1 {
		for _, id := range ids {
			s.note(id)
		}
	}
}

// Accept tells the sampler that a token was generated.
func (s *Sampler) Accept(id int32) {
	if s.penalty {
		s.note(id).count++
	}
}

func (s *Sampler) note(id int32) *history {
	i, ok := s.index[id]
	if !ok {
		i = int32(len(s.seen))
		s.index[id] = i
		s.seen = append(s.seen, history{id: id})
	}
	return &s.seen[i]
}

// Sample chooses the token at a position (that of the new token in its sequence; any number that differs between the tokens
// of a choice will do). logits has one value a token of the vocabulary, and is only read. The log-probabilities are set,
// and top filled, if New was given logprobs >= 0; top holds until the next call. Bytes are left to the caller.
//
// The settings' ids beyond the logits have no effect; see CheckVocab.
func (s *Sampler) Sample(logits []float32, position int) (token llm.TokenLogprob, top []llm.TokenLogprob, err error) {
	best, ok := argmax(logits)
	if !ok {
		return token, nil, ErrNotFinite
	}
	raw := logits
	rawBest := logits[best]
	w := workspaces.Get().(*workspace)
	defer workspaces.Put(w)
	if len(s.bias) > 0 || len(s.seen) > 0 {
		w.adjusted = append(w.adjusted[:0], logits...)
		logits = w.adjusted
		s.adjust(logits)
		if best, ok = argmax(logits); !ok {
			return token, nil, ErrNotFinite
		}
	}
	token.ID = int32(best)
	if s.set.Temperature != 0 {
		token.ID = w.draw(logits, logits[best], &s.set, uniform(s.set.Seed, s.choice, position))
	}
	if s.logprobs >= 0 {
		s.report(raw, rawBest, &token)
		top = s.top
	}
	return token, top, nil
}

// adjust applies bias and penalties.
func (s *Sampler) adjust(logits []float32) {
	for _, b := range s.bias {
		if int(b.id) < len(logits) {
			logits[b.id] += b.bias
		}
	}
	for _, h := range s.seen {
		if h.id < 0 || int(h.id) >= len(logits) {
			continue
		}
		l := logits[h.id]
		if l > 0 {
			l /= s.set.RepetitionPenalty
		} else {
			l = float32(l * s.set.RepetitionPenalty)
		}
		if h.count > 0 {
			l -= float32(s.set.FrequencyPenalty * float32(h.count))
			l -= s.set.PresencePenalty
		}
		logits[h.id] = l
	}
}

// argmax returns the place of the highest logit, of equal ones the first; false if one is NaN or +Inf, or none finite.
func argmax(logits []float32) (int, bool) {
	best, top := -1, float32(math.Inf(-1))
	for i, l := range logits {
		if l <= top { // most of them; false for NaN
			continue
		}
		if l != l || l > math.MaxFloat32 {
			return 0, false
		}
		best, top = i, l
	}
	return best, best >= 0
}

// report sets the chosen token's log-probability and fills s.top.
func (s *Sampler) report(logits []float32, best float32, token *llm.TokenLogprob) {
	peak, sum := float64(best), 0.0
	s.top = s.top[:0]
	for i, l := range logits {
		sum += exp(float64(l) - peak)
		n := len(s.top)
		if n < s.logprobs {
			s.top = append(s.top, llm.TokenLogprob{})
		} else if n == 0 || l <= s.top[n-1].Logprob {
			continue
		} else {
			n--
		}
		for ; n > 0 && s.top[n-1].Logprob < l; n-- {
			s.top[n] = s.top[n-1]
		}
		s.top[n] = llm.TokenLogprob{ID: int32(i), Logprob: l}
	}
	norm := peak + log(sum)
	for i := range s.top {
		s.top[i].Logprob = float32(float64(s.top[i].Logprob) - norm)
	}
	token.Logprob = float32(float64(logits[token.ID]) - norm)
}

// workspace holds what one draw needs; samplers share them, since one is as large as the vocabulary.
type workspace struct {
	adjusted []float32
	weights  []uint64 // of all tokens
	buckets  []uint8
	list     []candidate

	// top-k's logits and weights, in the list's order
	few        []float32
	fewWeights []uint64
}

var workspaces = sync.Pool{New: func() any { return new(workspace) }}

// candidate is a token with its adjusted logit and its weight.
type candidate struct {
	logit  float32
	id     int32
	weight uint64
}

// before is the order in which top-k and top-p keep tokens.
func (c candidate) before(d candidate) bool {
	return c.logit > d.logit || c.logit == d.logit && c.id < d.id
}

// draw chooses a token by temperature, top-k, top-p and min-p. u is uniform.
func (w *workspace) draw(logits []float32, peak float32, set *llm.Sampling, u uint64) int32 {
	n := len(logits)
	w.weights = slices.Grow(w.weights[:0], n)[:n]
	w.buckets = slices.Grow(w.buckets[:0], n)[:n]
	scale := 1 / float64(set.Temperature)
	last := candidate{logit: float32(math.Inf(-1)), id: math.MaxInt32} // the last token that is kept
	var total uint64

	if set.TopK > 0 && set.TopK < n {
		w.selectTop(logits, peak, set.TopK)
		total = w.weighList(peak, scale)
		clear(w.weights)
		for _, c := range w.list {
			w.weights[c.id] = c.weight
		}
		if set.TopP < 1 {
			last, total = lastOfMass(w.list, 0, share(total, set.TopP))
		}
	} else {
		total = weigh(logits, peak, scale, w.weights, w.buckets)
		if set.TopP < 1 {
			last, total = w.lastOfBuckets(logits, share(total, set.TopP))
		}
	}

	least := uint64(1)
	if set.MinP > 0 {
		least = max(1, uint64(math.Ceil(float64(set.MinP)*unit)))
		total = 0
		for i, v := range w.weights {
			if logits[i] >= last.logit && v >= least && (logits[i] > last.logit || int32(i) <= last.id) {
				total += v
			}
		}
	}
	target, _ := bits.Mul64(u, total)
	for i, v := range w.weights {
		if logits[i] < last.logit || v < least || logits[i] == last.logit && int32(i) > last.id {
			continue
		}
		if target < v {
			return int32(i)
		}
		target -= v
	}
	panic("sample: the weights do not add up") // target is less than total, their sum
}

// weighList sets the weights of the list and returns their sum.
func (w *workspace) weighList(peak float32, scale float64) uint64 {
	n := len(w.list)
	w.few = w.few[:0]
	for _, c := range w.list {
		w.few = append(w.few, c.logit)
	}
	w.fewWeights = slices.Grow(w.fewWeights[:0], n)[:n]
	total := weigh(w.few, peak, scale, w.fewWeights, w.buckets[:n])
	for i, v := range w.fewWeights {
		w.list[i].weight = v
	}
	return total
}

// share is p · total rounded up, exactly: p has 24 bits, of which those below 2^-56 do not matter.
func share(total uint64, p float32) uint64 {
	hi, lo := bits.Mul64(total, max(1, uint64(float64(p)*(1<<56))))
	lo, carry := bits.Add64(lo, 1<<56-1, 0)
	return (hi+carry)<<8 | lo>>56
}

// lastOfBuckets finds, of all tokens in order, the one at which the mass reaches need, and the mass up to and with it.
func (w *workspace) lastOfBuckets(logits []float32, need uint64) (candidate, uint64) {
	var mass [lastBucket + 1]uint64
	for i, b := range w.buckets[:len(w.weights)] {
		mass[b] += w.weights[i]
	}
	var above uint64
	b := 0
	for ; above+mass[b] < need; b++ {
		above += mass[b]
	}
	w.list = w.list[:0]
	for i, k := range w.buckets {
		if int(k) == b {
			w.list = append(w.list, candidate{logits[i], int32(i), w.weights[i]})
		}
	}
	return lastOfMass(w.list, above, need)
}

// selectTop sets w.list to the k first tokens in order, themselves in no order.
func (w *workspace) selectTop(logits []float32, peak float32, k int) {
	// A histogram over the distance from the peak leaves few to select from.
	const perUnit = 8
	var counts [lastBucket + 1]int32
	n := len(logits)
	w.buckets = slices.Grow(w.buckets[:0], n)[:n]
	for i, l := range logits {
		b := uint8(lastBucket)
		if d := (peak - l) * perUnit; d < lastBucket {
			b = uint8(d)
		}
		w.buckets[i] = b
		counts[b]++
	}
	b, sum := 0, int(counts[0])
	for sum < k {
		b++
		sum += int(counts[b])
	}
	w.list = w.list[:0]
	for i, v := range w.buckets {
		if int(v) <= b {
			w.list = append(w.list, candidate{logit: logits[i], id: int32(i)})
		}
	}
	// Quickselect: the first k of the list.
	low, high := 0, len(w.list)
	for high-low > 1 && k > low && k < high {
		m := partition(w.list[low:high]) + low // w.list[m] is in its place
		switch {
		case k <= m:
			high = m
		default:
			low = m + 1
		}
	}
	w.list = w.list[:k]
}

// lastOfMass finds, of tokens that follow others of mass above, the one at which the mass reaches need; it reorders list.
// need is above the given mass and at most all of it.
func lastOfMass(list []candidate, above, need uint64) (candidate, uint64) {
	for {
		m := partition(list)
		var left uint64
		for _, c := range list[:m] {
			left += c.weight
		}
		switch {
		case above+left >= need:
			list = list[:m]
		case above+left+list[m].weight >= need:
			return list[m], above + left + list[m].weight
		default:
			above += left + list[m].weight
			list = list[m+1:]
		}
	}
}

// partition puts one element into its place in order, those before it to the left and the others to the right, and returns
// the place. Ids differ, so no two elements are equal. The element is the median of three at scattered places, so that
// no likely order of logits makes selection slow; which one it is does not show in any result.
func partition(list []candidate) int {
	n := len(list)
	h := uint64(n) * 0x9E3779B97F4A7C15
	place := func() int {
		h ^= h >> 29
		h *= 0xBF58476D1CE4E5B9
		hi, _ := bits.Mul64(h, uint64(n))
		return int(hi)
	}
	a, b, c := place(), place(), place()
	if list[b].before(list[a]) {
		a, b = b, a
	}
	if list[c].before(list[b]) {
		b = c
		if list[b].before(list[a]) {
			b = a
		}
	}
	n--
	list[b], list[n] = list[n], list[b]
	p, m := list[n], 0
	for i, c := range list[:n] {
		if c.before(p) {
			list[i], list[m] = list[m], c
			m++
		}
	}
	list[m], list[n] = list[n], list[m]
	return m
}
