// Package bench measures what a caller of a language model sees: time to first token with a cold and a warm prefix, prefill
// and decode rates, and what many clients get at once. Several targets take every step in turn, on texts of equal length,
// so that they share the machine's good and bad moments.
package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// A Call is one greedy completion of a prompt. Generation goes on to MaxTokens, past any end-of-sequence token.
type Call struct {
	Prompt    string
	MaxTokens int
}

// A Result is what one call took. Times run on the caller's clock from just before the request is sent.
type Result struct {
	First time.Duration // to the first generated token
	Last  time.Duration // to the last one

	PromptTokens     int
	CompletionTokens int
	CachedTokens     int // of the prompt, as reported; -1 if the target does not say

	// What the engine itself spent on prompt and generation, without queue, tokenizer and transport; 0 if the target does not say.
	Prefill, Decode time.Duration
}

// A Target completes prompts. It must allow calls from several goroutines.
type Target interface {
	Complete(ctx context.Context, c Call) (Result, error)
	// Describe says what the target is. It is called after the first completion.
	Describe() Description
}

// A Description goes into the report.
type Description struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`              // "http" or "engine"
	URL     string `json:"url,omitempty"`     // http
	Model   string `json:"model"`             // as named in requests
	Server  string `json:"server,omitempty"`  // http: what the Server header says
	Version string `json:"version,omitempty"` // http: the system_fingerprint; engine: of this program
	Path    string `json:"path,omitempty"`    // engine: the CPU path
	Threads int    `json:"threads,omitempty"` // engine
}

// Options of Run.
type Options struct {
	Rounds       int
	PromptTokens []int  // lengths of the prompts; the longest is the one that many clients share
	ExtendTokens int    // tokens put behind a cached prompt to measure prefill at that depth; 0 is none
	GenTokens    int    // tokens generated to measure decoding
	Clients      int    // clients at once; 0 is none
	Seed         uint64 // of the texts: a server that has seen a seed is not cold for it any more

	// Progress is called before each step, if it is set.
	Progress func(done, total int, step string)
}

// ErrUsage is wrapped when a target does not report how many tokens a prompt has.
var ErrUsage = errors.New("the target reports no usage.prompt_tokens")

func (o *Options) check(targets []Target) error {
	if len(targets) == 0 {
		return errors.New("nothing to measure")
	}
	names := map[string]bool{}
	for _, t := range targets {
		n := t.Describe().Name
		if names[n] {
			return fmt.Errorf("two targets are named %q", n)
		}
		names[n] = true
	}
	if o.Rounds < 1 {
		return fmt.Errorf("%d rounds; at least 1 is needed", o.Rounds)
	}
	if len(o.PromptTokens) == 0 {
		return errors.New("no prompt length")
	}
	for _, n := range o.PromptTokens {
		if n < minPrompt {
			return fmt.Errorf("a prompt of %d tokens; at least %d are needed", n, minPrompt)
		}
	}
	if o.GenTokens < 2 {
		return fmt.Errorf("%d tokens to generate; a rate needs at least 2", o.GenTokens)
	}
	if o.ExtendTokens < 0 || o.Clients < 0 {
		return errors.New("token and client counts cannot be negative")
	}
	return nil
}

// Run measures the targets in turn, Rounds times. A step that fails is noted in the report and the run goes on; Run itself fails if the
// options are wrong, a target does not answer a first call, or ctx ends. The report holds what was measured up to then.
func Run(ctx context.Context, targets []Target, o Options) (*Report, error) {
	if err := o.check(targets); err != nil {
		return nil, err
	}
	r := &runner{o: o, targets: targets, report: newReport(o)}
	if err := r.calibrate(ctx); err != nil {
		return nil, err
	}
	for _, t := range targets {
		r.report.Targets = append(r.report.Targets, t.Describe())
	}
	steps := r.steps()
	total := o.Rounds * len(steps) * len(targets)
	done := 0
	for round := range o.Rounds {
		for _, s := range steps {
			for i := range targets {
				if o.Progress != nil {
					o.Progress(done, total, fmt.Sprintf("round %d, %s, %s", round+1, s.name, r.report.Targets[i].Name))
				}
				done++
				err := s.run(ctx, &turn{runner: r, target: i, round: round})
				if ctx.Err() != nil {
					r.report.finish()
					return r.report, context.Cause(ctx)
				}
				if err != nil {
					r.report.fail(i, round, s.name, err)
				}
			}
		}
	}
	r.report.finish()
	return r.report, nil
}

// together makes all calls at once and returns their results and the time to the end of the last one.
func together(ctx context.Context, t Target, calls []Call) ([]Result, time.Duration, error) {
	results, errs := make([]Result, len(calls)), make([]error, len(calls))
	var wg sync.WaitGroup
	start := time.Now()
	for i := range calls {
		wg.Go(func() { results[i], errs[i] = t.Complete(ctx, calls[i]) })
	}
	wg.Wait()
	return results, time.Since(start), errors.Join(errs...)
}
