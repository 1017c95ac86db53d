package bench

import (
	"context"
	"fmt"
	"time"
)

// warmQuestions is how many questions a round asks about the same text.
const warmQuestions = 3

func cold(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		res, err := t.complete(ctx, t.prefix(t.roundText(fmt.Sprintf("%s %d", t.scenario, n)), n)+t.ask(0), 1)
		if err != nil {
			return err
		}
		t.record(TTFT, n, ms(res.First()), res)
		computed := res.PromptTokens - max(0, res.CachedTokens)
		t.rate(Prefill, n, computed, res.First(), res)
		t.rate(EnginePrefill, n, computed, res.Prefill, res)
		return nil
	}
}

func warm(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		prefix := t.prefix(longText, n)
		// Other texts have been through since: this call loads it again for a target that forgot it.
		if _, err := t.complete(ctx, prefix+t.ask(0), 1); err != nil {
			return err
		}
		for i := range warmQuestions {
			res, err := t.complete(ctx, prefix+t.ask(1+i), 1)
			if err != nil {
				return err
			}
			t.record(TTFT, n, ms(res.First()), res)
		}
		return nil
	}
}

// extend needs to know what was cached: a target that does not say gets no figure.
func extend(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		prefix := t.prefix(longText, n)
		if _, err := t.complete(ctx, prefix+t.ask(0), 1); err != nil {
			return err
		}
		more := "\n" + t.prefix(t.roundText(fmt.Sprintf("behind %d", n)), t.o.ExtendTokens)
		res, err := t.complete(ctx, prefix+more+t.ask(1), 1)
		if err != nil {
			return err
		}
		if res.CachedTokens < 0 {
			t.note(Prefill, n, "no figure: the server does not say what was cached")
			return nil
		}
		t.rate(Prefill, n, res.PromptTokens-res.CachedTokens, res.First(), res)
		t.rate(EnginePrefill, n, res.PromptTokens-res.CachedTokens, res.Prefill, res)
		return nil
	}
}

func decodeSteps(o *Options) []step {
	var s []step
	for _, n := range o.Depths {
		s = append(s, step{name: fmt.Sprintf("decode behind %d tokens", n), run: decode(n)})
	}
	return s
}

func decode(n int) func(context.Context, *turn) error {
	return func(ctx context.Context, t *turn) error {
		prompt := t.ask(n)
		if n > 0 {
			prompt = t.prefix(longText, n) + prompt
		}
		res, err := t.complete(ctx, prompt, t.o.GenTokens)
		if err != nil {
			return err
		}
		if res.CompletionTokens < 2 {
			return fmt.Errorf("%d tokens were generated, %d asked for: no rate to be had", res.CompletionTokens, t.o.GenTokens)
		}
		t.rate(Decode, n, res.CompletionTokens-1, res.Last()-res.First(), res)
		t.rate(EngineDecode, n, res.CompletionTokens-1, res.Decode, res)
		if inBursts(&res) {
			t.rate(EngineSteps, n, len(arrivals(res.Events))-1, res.Decode, res)
		}
		if g := gaps(arrivals(res.Events)); len(g) > 0 {
			t.record(ITL50, n, quantile(g, 0.5), res)
			t.record(ITL95, n, quantile(g, 0.95), res)
		}
		for _, m := range []string{Decode, ITL50, ITL95} {
			t.ended(m, n, res)
		}
		if res.Decode > 0 {
			t.ended(EngineDecode, n, res)
		}
		return nil
	}
}

// ended notes that a generation is shorter than it should be.
func (t *turn) ended(metric string, n int, rs ...Result) {
	for _, r := range rs {
		if r.CompletionTokens < t.o.GenTokens {
			t.note(metric, n, "ended before %d tokens", t.o.GenTokens)
		}
		if inBursts(&r) {
			t.note(metric, n, severalAtOnce)
		}
	}
}

// atOnce is the time within which tokens count as having arrived together: no step of an engine is that short, but drafts give several tokens a
// step, and a network may deliver several events at once. The time between tokens is taken between arrivals, so that such tokens flatter nobody.
const atOnce = 200 * time.Microsecond

// arrivals are the events without those that follow another one at once.
func arrivals(events []time.Duration) []time.Duration {
	var a []time.Duration
	for i, e := range events {
		if i == 0 || e-events[i-1] > atOnce {
			a = append(a, e)
		}
	}
	return a
}

// gaps are the milliseconds between arrivals.
func gaps(arrivals []time.Duration) []float64 {
	var g []float64
	for i := 1; i < len(arrivals); i++ {
		g = append(g, ms(arrivals[i]-arrivals[i-1]))
	}
	return g
}

// severalAtOnce is the note on figures of streams whose tokens often arrive together.
const severalAtOnce = "tokens arrive several at a time"

// inBursts reports whether a fifth of a stream's tokens or more arrive together with others.
func inBursts(r *Result) bool { return 5*len(arrivals(r.Events)) < 4*r.CompletionTokens }

// The file that keystrokes goes through, in bytes: about 1,600 tokens, as much as an editor sends.
const (
	fileHead = 4500
	fileTail = 1500
)

// keystrokes asks for a completion in the middle of a file after every character or three.
func keystrokes(ctx context.Context, t *turn) error {
	f := source(t.o.Seed, t.roundText("file"), fmt.Sprint(t.target), fileHead+fileTail)
	typed := source(t.o.Seed, t.roundText("typed"), "", 4*t.o.Keystrokes+100)
	at := 0
	for i := range t.o.Keystrokes + 1 {
		res, err := t.complete(ctx, infill(f[:fileHead]+typed[:at], f[fileHead:]), 1)
		if err != nil {
			return err
		}
		if i > 0 {
			t.record(TTFT, 0, ms(res.First()), res)
		}
		at += 1 + i%3
	}
	return nil
}

// infill is the prompt of a completion between two texts, in the words that most code models are trained with; to others it is plain text.
func infill(head, tail string) string {
	return "<|fim_prefix|>" + head + "<|fim_suffix|>" + tail + "<|fim_middle|>"
}
