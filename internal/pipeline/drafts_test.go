package pipeline

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/llm"
)

// draftRequest is a random request of the kinds that choose tokens in different ways.
func draftRequest(rnd *rand.Rand, stops []string) *llm.Request {
	var prompt []int32
	for range 1 + rnd.IntN(3) { // a text that repeats itself
		piece := ramp(rnd.IntN(3), 5+rnd.IntN(40))
		for range 1 + rnd.IntN(3) {
			prompt = append(prompt, piece...)
		}
	}
	r := request(ids(prompt...), 1+rnd.IntN(120))
	r.Tenant = fmt.Sprint(rnd.IntN(2))
	r.Logprobs = rnd.IntN(4) - 1
	r.IgnoreEOS = rnd.IntN(4) > 0
	r.NoCache = rnd.IntN(8) == 0
	r.N = 1 + rnd.IntN(5)/3
	if rnd.IntN(5) == 0 {
		r.Prompts = append(r.Prompts, ids(prompt[:1+rnd.IntN(len(prompt))]...))
	}
	if rnd.IntN(3) == 0 {
		r.Stop = []string{stops[rnd.IntN(len(stops))], stops[rnd.IntN(len(stops))]}
	}
	s := &r.Sampling
	s.Seed = rnd.Uint64()
	switch rnd.IntN(4) {
	case 0:
		s.Temperature = 0.05 + rnd.Float32()
	case 1:
		s.Temperature, s.TopK, s.TopP, s.MinP = 0.3, 1+rnd.IntN(40), 0.5+rnd.Float32()/2, rnd.Float32()/10
	}
	if rnd.IntN(3) == 0 {
		s.RepetitionPenalty, s.PresencePenalty, s.FrequencyPenalty = 1+rnd.Float32()/10, rnd.Float32()-0.5, rnd.Float32()/4
	}
	if rnd.IntN(4) == 0 {
		s.LogitBias = map[int32]float32{ramp(0, 9)[rnd.IntN(9)]: 20 * rnd.Float32()}
	}
	return r
}

// same reports where two outcomes of a request differ: text, tokens, the bits of all log-probabilities, ends, usage.
func same(a, b outcome) error {
	if a.err != nil || b.err != nil {
		return fmt.Errorf("errors %v and %v", a.err, b.err)
	}
	if a.usage.PromptTokens != b.usage.PromptTokens || a.usage.CompletionTokens != b.usage.CompletionTokens {
		return fmt.Errorf("usage %+v and %+v", a.usage, b.usage)
	}
	for i := range a.choices {
		x, y := &a.choices[i], &b.choices[i]
		if x.text != y.text || x.finish != y.finish || !slices.Equal(x.pieces, y.pieces) {
			return fmt.Errorf("choice %d: %q (%s) and %q (%s)", i, x.text, x.finish, y.text, y.finish)
		}
		sameLogprob := func(p, q llm.TokenLogprob) bool {
			return p.ID == q.ID && bytes.Equal(p.Bytes, q.Bytes) && math.Float32bits(p.Logprob) == math.Float32bits(q.Logprob)
		}
		if !slices.EqualFunc(x.tokens, y.tokens, func(p, q llm.TokenInfo) bool {
			return sameLogprob(p.TokenLogprob, q.TokenLogprob) && slices.EqualFunc(p.Top, q.Top, sameLogprob)
		}) {
			return fmt.Errorf("choice %d: tokens %v and %v", i, x.tokens, y.tokens)
		}
	}
	return nil
}

// Requests of all kinds give the same events with drafts as without, on every path, alone and beside others, with room and without.
func TestDraftsGiveTheSameEvents(t *testing.T) {
	vocabulary := open(t, nil)
	var stops []string
	for _, id := range ramp(0, 60) {
		stops = append(stops, vocabulary.Tokenizer().Decode([]int32{id}, false))
	}
	for _, path := range kernel.Available() {
		count, clients := 60, 6
		if testing.Short() {
			count = 16
		}
		if path == kernel.Go && len(kernel.Available()) > 1 { // slow
			count /= 2
		}
		plain := open(t, func(o *Options) { o.Path, o.NoDrafts, o.NoCache, o.Threads = path, true, true, 1 })
		var requests []*llm.Request
		var want []outcome
		rnd := rand.New(rand.NewPCG(11, 12))
		for range count {
			r := draftRequest(rnd, stops)
			if len(requests) > 0 && rnd.IntN(3) == 0 { // the same again: a draft from the cached text
				r = requests[rnd.IntN(len(requests))]
			}
			requests, want = append(requests, r), append(want, run(t, plain, r))
		}
		if n := plain.Stats().DraftTokens; n != 0 {
			t.Errorf("%d drafts where they are off", n)
		}
		for _, blocks := range []uint64{128, 24} {
			p := open(t, func(o *Options) { o.Path, o.KVBytes, o.MaxBatch = path, blocks*blockBytes, 4 })
			var wg sync.WaitGroup
			for c := range clients {
				wg.Go(func() {
					for i := c; i < len(requests); i += clients {
						if err := same(run(t, p, requests[i]), want[i]); err != nil {
							t.Errorf("path %v, %d blocks, request %d %+v: %v", path, blocks, i, requests[i], err)
						}
					}
				})
			}
			wg.Wait()
			for i, r := range requests[:count/4] { // alone
				if err := same(run(t, p, r), want[i]); err != nil {
					t.Errorf("path %v, %d blocks, request %d alone %+v: %v", path, blocks, i, r, err)
				}
			}
			st := p.Stats()
			t.Logf("path %v, %d blocks: %d guesses, %d accepted, %d steps, %d preemptions", path, blocks, st.DraftTokens, st.AcceptedTokens, st.Steps, st.Preemptions)
			if st.DraftTokens == 0 || st.AcceptedTokens == 0 {
				t.Error("no drafts: this test means nothing")
			}
		}
	}
}
