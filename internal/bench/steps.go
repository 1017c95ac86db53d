package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// The measures, as the report names them.
const (
	ColdTTFT       = "cold_ttft"        // ms to the first token of a prompt that was never seen
	WarmTTFT       = "warm_ttft"        // ms to the first token of a prompt whose beginning was seen, with another question
	Prefill        = "prefill"          // tokens/s: tokens of the cold prompt by its TTFT
	EnginePrefill  = "engine_prefill"   // the same by the engine's own time
	Extend         = "extend"           // tokens/s: tokens computed behind a cached prompt by the TTFT
	EngineExtend   = "engine_extend"    // the same by the engine's own time
	Decode         = "decode"           // tokens/s of one stream behind a prompt
	EngineDecode   = "engine_decode"    // the same by the engine's own time
	SharedDecode   = "shared_decode"    // tokens/s of all clients together, whose prompts share a cached prefix
	Together       = "together"         // ms until clients who arrive at once with one fresh prefix all have their answers
	TogetherTokens = "together_tokens"  // prompt tokens computed for that; one prefix and the questions at best
	TogetherFirst  = "together_slowest" // ms to the first token of the client who waits longest
)

const (
	minPrompt      = 64   // shorter prompts are mostly salt and question
	sampleChars    = 4000 // of the text that calibrates
	shortChars     = 200
	togetherTokens = 8 // tokens generated for each of the clients who arrive at once
)

type runner struct {
	o       Options
	targets []Target
	report  *Report
	perChar float64 // tokens that a byte of prose takes
	fixed   float64 // tokens of the first line and the question beyond that
}

// turn is one target's turn at a step.
type turn struct {
	*runner
	target, round int
}

type step struct {
	name string
	run  func(ctx context.Context, t *turn) error
}

// calibrate warms every target up and learns from the first how many bytes of text make a token. All targets then get equally long
// texts; one with another tokenizer reports its own counts.
func (r *runner) calibrate(ctx context.Context) error {
	for i, t := range r.targets {
		name := t.Describe().Name
		if _, err := t.Complete(ctx, Call{Prompt: "Hello", MaxTokens: 2}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i > 0 {
			continue
		}
		var tokens [2]int
		for k, chars := range [2]int{shortChars, sampleChars} {
			res, err := t.Complete(ctx, Call{Prompt: r.text("calibrate", i, chars) + question(0), MaxTokens: 1})
			if err != nil {
				return fmt.Errorf("%s: calibrating: %w", name, err)
			}
			tokens[k] = res.PromptTokens
		}
		if tokens[0] <= 0 || tokens[1] <= tokens[0] {
			return fmt.Errorf("%s: %w", name, ErrUsage)
		}
		r.perChar = float64(tokens[1]-tokens[0]) / (sampleChars - shortChars)
		r.fixed = max(0, float64(tokens[0])-r.perChar*shortChars)
	}
	return nil
}

// text makes a text whose beginning only this target has seen, and nobody before this run.
func (r *runner) text(label string, target, chars int) string {
	return prose(r.o.Seed, label, fmt.Sprint(target), chars)
}

// chars is the length of a text that makes a prompt of so many tokens with a question behind it.
func (r *runner) chars(tokens int) int {
	return max(shortChars, int((float64(tokens)-r.fixed)/r.perChar+0.5))
}

func question(i int) string { return fmt.Sprintf("\n# Question %d: what follows from this?\n", i) }

// prefix is the text of a prompt length in this turn.
func (t *turn) prefix(tokens int) string {
	return t.text(fmt.Sprintf("round %d, prompt %d", t.round, tokens), t.target, t.chars(tokens))
}

func (t *turn) complete(ctx context.Context, prompt string, maxTokens int) (Result, error) {
	return t.targets[t.target].Complete(ctx, Call{Prompt: prompt, MaxTokens: maxTokens})
}

// record adds a value of this turn. rs are the calls that it comes from.
func (t *turn) record(measure string, tokens int, value float64, rs ...Result) {
	t.report.add(t.target, measure, tokens, value, rs)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// rate records tokens a second, where both are known.
func (t *turn) rate(measure string, tokens, n int, d time.Duration, r Result) {
	if n > 0 && d > 0 {
		t.record(measure, tokens, float64(n)/d.Seconds(), r)
	}
}

// steps lists what one round does. Each step finds the cache as the ones before it left it.
func (r *runner) steps() []step {
	var s []step
	for _, n := range r.o.PromptTokens {
		s = append(s, step{fmt.Sprintf("%d tokens cold", n), cold(n)}, step{fmt.Sprintf("%d tokens warm", n), warm(n)})
		if r.o.ExtendTokens > 0 {
			s = append(s, step{fmt.Sprintf("prefill behind %d tokens", n), extend(n)})
		}
		s = append(s, step{fmt.Sprintf("decode behind %d tokens", n), decode(n)})
	}
	s = append(s, step{"decode", decode(0)})
	if n := slices.Max(r.o.PromptTokens); r.o.Clients > 0 {
		s = append(s, step{fmt.Sprintf("%d clients on a cached prefix", r.o.Clients), shared(n)},
			step{fmt.Sprintf("%d clients at once on a fresh prefix", r.o.Clients), fresh(n)})
	}
	return s
}

func cold(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		res, err := t.complete(ctx, t.prefix(n)+question(1), 1)
		if err != nil {
			return err
		}
		t.record(ColdTTFT, n, ms(res.First), res)
		computed := res.PromptTokens - max(0, res.CachedTokens)
		t.rate(Prefill, n, computed, res.First, res)
		t.rate(EnginePrefill, n, computed, res.Prefill, res)
		return nil
	}
}

func warm(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		res, err := t.complete(ctx, t.prefix(n)+question(2), 1)
		if err != nil {
			return err
		}
		t.record(WarmTTFT, n, ms(res.First), res)
		return nil
	}
}

// extend needs to know what was cached: a target that does not say gets no figure.
func extend(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		more := "\n" + t.text(fmt.Sprintf("round %d, behind %d", t.round, n), t.target, t.chars(t.o.ExtendTokens))
		res, err := t.complete(ctx, t.prefix(n)+more+question(3), 1)
		if err != nil {
			return err
		}
		if res.CachedTokens >= 0 {
			t.rate(Extend, n, res.PromptTokens-res.CachedTokens, res.First, res)
			t.rate(EngineExtend, n, res.PromptTokens-res.CachedTokens, res.Prefill, res)
		}
		return nil
	}
}

func decode(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		prompt := question(4)
		if n > 0 {
			prompt = t.prefix(n) + prompt
		}
		res, err := t.complete(ctx, prompt, t.o.GenTokens)
		if err != nil {
			return err
		}
		if res.CompletionTokens < 2 {
			return fmt.Errorf("%d tokens were generated, %d asked for: no rate to be had", res.CompletionTokens, t.o.GenTokens)
		}
		t.rate(Decode, n, res.CompletionTokens-1, res.Last-res.First, res)
		t.rate(EngineDecode, n, res.CompletionTokens-1, res.Decode, res)
		return nil
	}
}

func shared(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		prefix := t.prefix(n)
		// Other texts have been through since the prompt was warm; this call loads it again for a target that forgot it.
		if _, err := t.complete(ctx, prefix+question(5), 1); err != nil {
			return err
		}
		rs, wall, err := together(ctx, t.targets[t.target], t.calls(prefix, t.o.GenTokens))
		if err != nil {
			return err
		}
		sum := 0
		for _, r := range rs {
			sum += r.CompletionTokens
		}
		t.record(SharedDecode, n, float64(sum)/wall.Seconds(), rs...)
		return nil
	}
}

func fresh(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		prefix := t.text(fmt.Sprintf("round %d, fresh %d", t.round, n), t.target, t.chars(n))
		rs, wall, err := together(ctx, t.targets[t.target], t.calls(prefix, togetherTokens))
		if err != nil {
			return err
		}
		t.record(Together, n, ms(wall), rs...)
		computed, known := 0, true
		var slowest time.Duration
		for _, r := range rs {
			computed += r.PromptTokens - r.CachedTokens
			known = known && r.CachedTokens >= 0
			slowest = max(slowest, r.First)
		}
		t.record(TogetherFirst, n, ms(slowest), rs...)
		if known {
			t.record(TogetherTokens, n, float64(computed), rs...)
		}
		return nil
	}
}

// calls are one for each client: the same prefix, another question.
func (t *turn) calls(prefix string, maxTokens int) []Call {
	calls := make([]Call, t.o.Clients)
	for i := range calls {
		calls[i] = Call{Prompt: prefix + question(10+i), MaxTokens: maxTokens}
	}
	return calls
}
