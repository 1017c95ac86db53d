// Package sample turns logits into a token.
//
// A choice is a function of the logits, the settings, the tokens so far, the seed, the number of the choice and the position,
// and has the same result on every CPU: the weights are whole numbers that all kernels compute alike (vec.Weigh), so that their
// sums have no order; and the random number of a position comes from a counter-based generator, not from a state.
// A draft that is thrown away and drawn again gives the same token.
//
// The order of the steps:
//
//  0. tokens that a grammar does not allow here are left out of all that follows (SampleAmong);
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
// A token's weight is e^((logit - highest)/temperature) to about 1e-6 of itself, in units of 2^-43, rounded: tokens less than
// 2^-44 times as probable as the most probable are never drawn.
//
// Log-probabilities are of the model's own distribution: before all of these steps.
package sample

import (
	"errors"
	"math"
	"math/bits"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
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

// biased is a logit bias of one token.
type biased struct {
	id   int32
	bias float32
}

// Sampler chooses the tokens of one choice of one request. It is not safe for concurrent use.
type Sampler struct {
	path     kernel.Path
	set      llm.Sampling
	choice   int
	logprobs int

	bias    []biased
	seen    history
	top     []llm.TokenLogprob
	penalty bool
}

// New makes the sampler of one choice, which computes on the given path. Settings must have passed Check. logprobs is -1 for
// none, else how many of the most likely tokens Sample reports beside the chosen one's log-probability.
func New(p kernel.Path, s llm.Sampling, choice int, logprobs int) *Sampler {
	sp := &Sampler{path: p, set: s, choice: choice, logprobs: logprobs}
	sp.penalty = s.RepetitionPenalty != 1 || s.PresencePenalty != 0 || s.FrequencyPenalty != 0
	for id, b := range s.LogitBias {
		sp.bias = append(sp.bias, biased{id, b})
	}
	if logprobs > 0 {
		sp.top = make([]llm.TokenLogprob, 0, logprobs)
	}
	return sp
}

// Prompt tells the sampler the tokens of the prompt, for the repetition penalty: ids of the vocabulary, before the first Accept.
func (s *Sampler) Prompt(ids []int32) {
	if s.set.RepetitionPenalty != 1 {
		s.seen.addPrompt(ids)
	}
}

// Accept tells the sampler that a token of the vocabulary was generated.
func (s *Sampler) Accept(id int32) {
	if s.penalty {
		s.seen.add(id)
	}
}

// Sample chooses the token at a position (that of the new token in its sequence; any number that differs between the tokens
// of a choice will do). logits has one value a token of the vocabulary, and is only read. The log-probabilities are set,
// and top filled, if New was given logprobs >= 0; top holds until the next call. Bytes are left to the caller.
//
// The settings' ids beyond the logits have no effect; see CheckVocab.
func (s *Sampler) Sample(logits []float32, position int) (token llm.TokenLogprob, top []llm.TokenLogprob, err error) {
	return s.SampleAmong(logits, position, nil)
}

// SampleAmong is Sample with a set of the tokens that may be chosen, a bit for each id; nil is all. The log-probabilities and top are those of the
// model's own distribution, as if there were no set. If none of the tokens allowed has a finite logit, the error is ErrNotFinite.
func (s *Sampler) SampleAmong(logits []float32, position int, allowed []uint64) (token llm.TokenLogprob, top []llm.TokenLogprob, err error) {
	w := newWorkspace()
	defer w.free()
	adjusted := len(s.bias) > 0 || !s.seen.empty()
	if allowed != nil {
		if s.set.Temperature == 0 && !adjusted && s.logprobs < 0 {
			token.ID, err = w.bestAmong(s.path, logits, allowed)
			return token, nil, err
		}
		adjusted = true
	}
	raw, peak, norm := logits, float32(0), 0.0
	if s.logprobs >= 0 || !adjusted {
		if peak, err = w.scan(s.path, logits); err != nil {
			return token, nil, err
		}
	}
	if s.logprobs >= 0 {
		norm = s.report(w, logits, peak)
		top = s.top
	}
	if adjusted { // which makes nothing finite that is not
		w.adjusted = sized(w.adjusted, len(logits))
		copy(w.adjusted, logits)
		logits = w.adjusted
		s.adjust(logits)
		if allowed != nil {
			if s.logprobs < 0 { // what is wrong with the model must not hide behind the set
				if _, err = w.scan(s.path, raw); err != nil {
					return token, nil, err
				}
			}
			only(logits, allowed)
		}
		if peak, err = w.scan(s.path, logits); err != nil {
			return token, nil, err
		}
	}
	if s.set.Temperature == 0 {
		token.ID = int32(vec.Index(s.path, logits, peak))
	} else {
		token.ID = w.draw(s.path, logits, peak, &s.set, uniform(s.set.Seed, s.choice, position))
	}
	if s.logprobs >= 0 {
		token.Logprob = float32(float64(raw[token.ID]) - norm)
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
	for _, id := range s.seen.prompt {
		if int(id) < len(logits) {
			logits[id] = s.repeated(logits[id])
		}
	}
	for _, g := range s.seen.generated {
		if int(g.id) >= len(logits) {
			continue
		}
		l := logits[g.id]
		if !g.isPrompt {
			l = s.repeated(l)
		}
		l -= float32(s.set.FrequencyPenalty * float32(g.count))
		logits[g.id] = l - s.set.PresencePenalty
	}
}

// repeated applies the repetition penalty.
func (s *Sampler) repeated(logit float32) float32 {
	if logit > 0 {
		return logit / s.set.RepetitionPenalty
	}
	return float32(logit * s.set.RepetitionPenalty)
}

// report fills s.top, and returns what to take off a logit to get the token's log-probability. w.maxima are those of logits.
func (s *Sampler) report(w *workspace, logits []float32, peak float32) (norm float64) {
	total := w.weigh(s.path, logits, peak, math.Log2E, 1)
	norm = float64(peak) + log(float64(total)/vec.WeightUnit)
	s.top = s.top[:0]
	if s.logprobs == 0 {
		return norm
	}
	w.highest(s.path, logits, peak, s.logprobs)
	for i, l := range w.list.logits {
		n := len(s.top)
		s.top = append(s.top, llm.TokenLogprob{})
		for ; n > 0 && s.top[n-1].Logprob < l; n-- {
			s.top[n] = s.top[n-1]
		}
		s.top[n] = llm.TokenLogprob{ID: w.list.ids[i], Logprob: l}
	}
	for i := range s.top {
		s.top[i].Logprob = float32(float64(s.top[i].Logprob) - norm)
	}
	return norm
}

// workspace holds what one call needs. Samplers share them, since one is several times as long as the vocabulary.
type workspace struct {
	adjusted []float32
	maxima   []float32 // of the logits' groups, by vec.Scan
	sums     []uint64  // of the chunks' weights
	chunk    [vec.SampleChunk]float32
	weighed  bool // the sums are those of the logits at hand, with these settings:
	scale    float32
	least    float32
	total    uint64

	list    list // of ids, few and weights
	ids     []int32
	few     []float32
	weights []float32
	rank    ranking
}

// workspaces holds those that are free. A step's tokens are chosen one after the other, so that more are of no use; and a
// sync.Pool would give them up at each second garbage collection, only for them to be made again.
var workspaces = make(chan *workspace, 2)

func newWorkspace() *workspace {
	select {
	case w := <-workspaces:
		return w
	default:
		return new(workspace)
	}
}

func (w *workspace) free() {
	select {
	case workspaces <- w:
	default:
	}
}

// sized returns s with length n, whatever it holds.
func sized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// scan sets w.maxima, and returns the highest logit.
func (w *workspace) scan(p kernel.Path, logits []float32) (peak float32, err error) {
	w.maxima = sized(w.maxima, vec.MaximaLen(len(logits)))
	w.sums = sized(w.sums, (len(logits)+vec.SampleChunk-1)/vec.SampleChunk)
	w.weighed = false
	peak, ok := vec.Scan(p, logits, w.maxima)
	if !ok {
		return 0, ErrNotFinite
	}
	return peak, nil
}

// draw chooses a token by temperature, top-k, top-p and min-p. w.maxima are those of logits. u is uniform.
func (w *workspace) draw(p kernel.Path, logits []float32, peak float32, set *llm.Sampling, u uint64) int32 {
	scale := float32(min(math.Log2E/float64(set.Temperature), 0x1p126)) // that of a temperature so low must stay finite
	least := float32(1)
	if set.MinP > 0 {
		least = max(1, float32(math.Ceil(float64(set.MinP)*vec.WeightUnit)))
	}
	var total, need uint64
	bottom := everything.logit // of the list
	if set.TopK > 0 && set.TopK < len(logits) {
		w.highest(p, logits, peak, set.TopK)
		if total = w.weighList(p, peak, scale); set.TopP < 1 {
			need = share(total, set.TopP)
		}
	} else {
		if set.TopP < 1 {
			total = w.weigh(p, logits, peak, scale, 1)
			need = share(total, set.TopP)
		}
		if need == total { // no top-p, or of so little effect that all that can be drawn is kept
			total = w.weigh(p, logits, peak, scale, least)
			target, _ := bits.Mul64(u, total)
			return w.find(p, logits, peak, scale, least, target)
		}
		// What top-p drops weighs total - need at most. So do all tokens together that weigh no more than their part of that. A
		// weight may be rounded up by 1/2; what is less than 1/2 weighs nothing.
		part := max(float64(total-need)/float64(len(logits))-0.5, 0.5) / vec.WeightUnit
		bottom = float32(float64(peak) + (log(part)-1e-3)*math.Log2E/float64(scale))
		w.collect(p, logits, bottom)
		w.weighList(p, peak, scale)
	}

	last := everything
	if need > 0 {
		last, total = w.rank.cut(w.list, need, peak, bottom)
	}
	ids, few, weights := w.list.ids, w.list.logits, w.list.weights
	if least > 1 {
		total = 0
		for i, v := range weights {
			if v >= least && last.keeps(few[i], ids[i]) {
				total += uint64(int64(v))
			}
		}
	}
	target, _ := bits.Mul64(u, total)
	for i, v := range weights {
		if v < least || !last.keeps(few[i], ids[i]) {
			continue
		}
		if v := uint64(int64(v)); target >= v {
			target -= v
			continue
		}
		return ids[i]
	}
	panic("sample: the weights do not add up") // target is less than total, their sum
}

// weigh sets w.sums to those of the chunks of logits, and returns the sum of all. Log-probabilities and a draw at temperature 1
// need the same.
func (w *workspace) weigh(p kernel.Path, logits []float32, peak, scale, least float32) uint64 {
	if !w.weighed || w.scale != scale || w.least != least {
		w.total = vec.Weigh(p, logits, peak, scale, least, w.chunk[:], w.sums)
		w.weighed, w.scale, w.least = true, scale, least
	}
	return w.total
}

// find returns the token at which the running sum of the weights exceeds target. w.sums are those of the chunks.
func (w *workspace) find(p kernel.Path, logits []float32, peak, scale, least float32, target uint64) int32 {
	c := 0
	for ; target >= w.sums[c]; c++ {
		target -= w.sums[c]
	}
	from := c * vec.SampleChunk
	chunk := logits[from:min(from+vec.SampleChunk, len(logits))]
	vec.Weigh(p, chunk, peak, scale, least, w.chunk[:], w.sums)
	w.weighed = false
	i := 0
	for ; target >= uint64(int64(w.chunk[i])); i++ {
		target -= uint64(int64(w.chunk[i]))
	}
	return int32(from + i)
}

// weighList sets the weights of the list, and returns their sum.
func (w *workspace) weighList(p kernel.Path, peak, scale float32) uint64 {
	w.weighed = false // the sums are needed here
	n := len(w.list.logits)
	w.weights = sized(w.weights, max(n, vec.SampleChunk))
	total := vec.Weigh(p, w.list.logits, peak, scale, 1, w.weights, w.sums)
	w.list.weights = w.weights[:n]
	return total
}

// share is p · total rounded up, exactly: p has 24 bits, of which those below 2^-56 do not matter.
func share(total uint64, p float32) uint64 {
	hi, lo := bits.Mul64(total, max(1, uint64(float64(p)*(1<<56))))
	lo, carry := bits.Add64(lo, 1<<56-1, 0)
	return (hi+carry)<<8 | lo>>56
}
