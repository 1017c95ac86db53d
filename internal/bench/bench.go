// Package bench measures what a caller of a language model sees: time to first token with a cold and a warm prefix, decode
// rates and the times between tokens, what many clients get at once, and what a load costs. Several targets take every step in turn, on
// texts of equal length, so that they share the machine's good and bad moments.
package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// A Call is one greedy completion of a prompt. Generation goes on to MaxTokens, past any end-of-sequence token where the target can.
type Call struct {
	Prompt    string
	MaxTokens int

	// Event is called for each event that brings tokens, if it is set, from the goroutine of Complete.
	Event func()
}

// A Result is what one call took. Times run on the caller's clock from just before the request is sent.
type Result struct {
	Start  time.Time
	Events []time.Duration // from Start to each event that brought tokens: one token each, unless the target sends several together
	Text   string

	PromptTokens     int
	CompletionTokens int
	CachedTokens     int // of the prompt, as reported; -1 if the target does not say

	// What the engine itself spent on prompt and generation, without queue, tokenizer and transport; 0 if the target does not say.
	Prefill, Decode time.Duration

	Notes []string // what a reader of the figures must know, e.g. that the target does not take ignore_eos
}

// First is the time to the first token, 0 if there was none.
func (r *Result) First() time.Duration {
	if len(r.Events) == 0 {
		return 0
	}
	return r.Events[0]
}

// Last is the time to the last token, 0 if there was none.
func (r *Result) Last() time.Duration {
	if len(r.Events) == 0 {
		return 0
	}
	return r.Events[len(r.Events)-1]
}

// A Target completes prompts. It must allow calls from several goroutines.
type Target interface {
	// Complete returns what it has together with the error if the call breaks off.
	Complete(ctx context.Context, c Call) (Result, error)
	// Describe says what the target is. It is called after the first completion.
	Describe() Description
}

// A Meter is a target that knows the processor time that it has used since its start, over all threads.
type Meter interface {
	CPU() (time.Duration, error)
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

// Options of Run. DefaultOptions has values that suit a small model.
type Options struct {
	Rounds int
	Only   []string // names of Scenarios; nil is Standard

	PromptTokens []int // cold, warm, extend: lengths of the prompts
	LongTokens   int   // long: length of the prompt
	ExtendTokens int   // extend: tokens behind the cached prompt
	Depths       []int // decode: tokens in front of the generated ones
	GenTokens    int   // decode, streams: tokens generated
	SharedTokens int   // streams, together: length of the shared prefix
	Clients      int   // streams, together, and the loads: clients at once
	Keystrokes   int   // keys: requests in a file, the first not counted
	ITLStreams   int   // itl: running streams
	ITLTokens    int   // itl: length of the prompt that comes in between
	Requests     int   // loads: requests of all clients together

	// Seed of the texts: a server that has seen a seed is not cold for it any more.
	Seed uint64
	// SameTexts gives all targets the very same texts in the loads, for targets that are different servers. Their answers are compared.
	SameTexts bool

	// BeforeRound is called before each round, if it is set. Its error ends the run.
	BeforeRound func(ctx context.Context, round int) error
	// Progress is called before each step, if it is set.
	Progress func(done, total int, step string)
}

// DefaultOptions returns the options that kvasir bench starts from, without a seed. The long prompt leaves room in a context of 8,192.
func DefaultOptions() Options {
	return Options{Rounds: 3, PromptTokens: []int{1800}, LongTokens: 7900, ExtendTokens: 512, Depths: []int{0, 2000}, GenTokens: 64,
		SharedTokens: 1600, Clients: 8, Keystrokes: 8, ITLStreams: 4, ITLTokens: 4000, Requests: 32}
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
	if o.Only == nil {
		o.Only = Standard()
	}
	if len(o.Only) == 0 {
		return errors.New("no scenario")
	}
	for _, name := range o.Only {
		if _, err := scenarioOf(name); err != nil {
			return err
		}
	}
	least := func(what string, n, least int, scenarios ...string) error {
		if n >= least || !slices.ContainsFunc(scenarios, func(s string) bool { return slices.Contains(o.Only, s) }) {
			return nil
		}
		return fmt.Errorf("%s: %d; at least %d is needed", what, n, least)
	}
	lengths := func(what string, ns []int, allowNone bool, scenarios ...string) error {
		if len(ns) == 0 {
			return least(what, 0, 1, scenarios...)
		}
		for _, n := range ns {
			if n == 0 && allowNone {
				continue
			}
			if err := least(what, n, minPrompt, scenarios...); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.Join(
		least("rounds", o.Rounds, 1, o.Only...),
		lengths("prompt tokens", o.PromptTokens, false, "cold", "warm", "extend"),
		lengths("decode depth", o.Depths, true, "decode"),
		least("tokens of the long prompt", o.LongTokens, minPrompt, "long"),
		least("tokens behind a cached prompt", o.ExtendTokens, minPrompt, "extend"),
		least("tokens of the shared prefix", o.SharedTokens, minPrompt, "streams", "together"),
		least("tokens to generate", o.GenTokens, 2, "decode", "streams"),
		least("clients", o.Clients, 1, append(Loads(), "streams", "together")...),
		least("keystrokes", o.Keystrokes, 1, "keys"),
		least("running streams", o.ITLStreams, 1, "itl"),
		least("tokens of the prompt between running streams", o.ITLTokens, minPrompt, "itl"),
		least("requests", o.Requests, o.Clients, Loads()...),
	)
}

// Run measures the targets in turn, Rounds times. A step that fails is noted in the report and the run goes on; Run itself fails if the
// options are wrong, a target does not answer a first call, BeforeRound fails or ctx ends. The report holds what was measured up to then.
func Run(ctx context.Context, targets []Target, o Options) (*Report, error) {
	if err := o.check(targets); err != nil {
		return nil, err
	}
	r := &runner{o: o, targets: targets, report: newReport(o), answers: map[answerKey]string{}}
	if err := r.calibrate(ctx); err != nil {
		return nil, err
	}
	for _, t := range targets {
		r.report.Targets = append(r.report.Targets, t.Describe())
	}
	defer r.report.finish()
	steps := r.steps()
	total := o.Rounds * len(steps) * len(targets)
	done := 0
	for round := range o.Rounds {
		if o.BeforeRound != nil {
			if err := o.BeforeRound(ctx, round); err != nil {
				return r.report, err
			}
		}
		for _, s := range steps {
			for i := range targets {
				if o.Progress != nil {
					o.Progress(done, total, fmt.Sprintf("round %d, %s, %s", round+1, s.name, r.report.Targets[i].Name))
				}
				done++
				err := s.run(ctx, &turn{runner: r, target: i, round: round, scenario: s.scenario})
				if ctx.Err() != nil {
					return r.report, context.Cause(ctx)
				}
				if err != nil {
					r.report.fail(i, round, s.name, err)
				}
			}
		}
	}
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
