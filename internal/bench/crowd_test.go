package bench

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func at(start time.Time, msec ...int) Result {
	r := Result{Start: start}
	for _, m := range msec {
		r.Events = append(r.Events, time.Duration(m)*time.Millisecond)
	}
	r.CompletionTokens = len(msec)
	return r
}

func TestSplitGaps(t *testing.T) {
	zero := time.Unix(1000, 0)
	after := func(m int) time.Time { return zero.Add(time.Duration(m) * time.Millisecond) }
	rs := []Result{
		at(zero, 1, 2, 3, 4, 14, 24, 34, 134, 144, 154),
		at(after(5), 1, 2, 3, 5, 15, 25, 35, 75, 150), // settled at 10; all others count from there
	}
	alone, busy, early := splitGaps(rs, after(40), after(140))
	// The first stream's gap from 4 to 14 began before the second one had settled. Gaps that reach into the time from 40 to 140 are busy.
	if want := []float64{10, 10, 10, 10, 10}; !slices.Equal(alone, want[:len(alone)]) || len(alone) != 5 {
		t.Errorf("alone %v, want %v", alone, want)
	}
	if want := []float64{100, 10, 40, 75}; !slices.Equal(busy, want) || early {
		t.Errorf("busy %v, want %v; early %v", busy, want, early)
	}
	if _, _, early := splitGaps(rs, after(40), after(1000)); !early {
		t.Error("streams that end before the prompt were not noticed")
	}
	if a, b, early := splitGaps([]Result{at(zero, 1, 2)}, after(1), after(2)); a != nil || b != nil || !early {
		t.Errorf("a stream that never settled: %v, %v, %v", a, b, early)
	}
}

func TestWhileAll(t *testing.T) {
	zero := time.Unix(1000, 0)
	a, b := at(zero, 0, 1000, 2000, 3000), at(zero, 1500, 2500, 3500, 4500)
	// From 1.5 s to 3 s: a has 2 events, b has 1.
	if v, ok := whileAll([]Result{a, b}); !ok || v != 2 {
		t.Errorf("%v tokens/s, %v, want 2", v, ok)
	}
	b.CompletionTokens *= 3 // three tokens an event
	if v, ok := whileAll([]Result{a, b}); !ok || v != (2+3)/1.5 {
		t.Errorf("%v tokens/s with several tokens an event", v)
	}
	if v, ok := whileAll([]Result{at(zero, 1, 2), at(zero, 3, 4)}); ok {
		t.Errorf("%v tokens/s of streams one after the other", v)
	}
	if _, ok := whileAll([]Result{a, {}}); ok {
		t.Error("a stream without tokens ran")
	}
}

// running is a target whose streams go on until they are cancelled, or end after short tokens. Its clock stands still but for a millisecond with
// each token.
type running struct {
	short  int
	onBusy func()       // called when the long prompt comes in between
	tokens atomic.Int64 // of all streams
	long   atomic.Int64 // long prompts so far
}

func (*running) Describe() Description { return Description{Name: "r", Kind: "engine", Model: "m"} }

func (r *running) now() time.Time {
	return time.Unix(1000, 0).Add(time.Duration(r.tokens.Load()) * time.Millisecond)
}

func (r *running) Complete(ctx context.Context, c Call) (Result, error) {
	res := Result{Start: r.now(), PromptTokens: len(strings.Fields(c.Prompt)), CachedTokens: 0}
	token := func() {
		r.tokens.Add(1)
		res.Events = append(res.Events, r.now().Sub(res.Start))
		res.CompletionTokens++
	}
	if c.MaxTokens != itlMost {
		if res.PromptTokens > 400 && res.PromptTokens < 600 && r.long.Add(1) == 2 {
			if r.onBusy != nil {
				r.onBusy()
			}
			for was := r.tokens.Load(); r.short == 0 && r.tokens.Load() < was+20 && ctx.Err() == nil; {
				runtime.Gosched()
			}
		}
		token()
		return res, ctx.Err()
	}
	for i := 0; r.short == 0 || i < r.short; i++ {
		if ctx.Err() != nil {
			return res, ctx.Err()
		}
		token()
		c.Event()
		runtime.Gosched()
	}
	return res, nil
}

func itlOptions() Options {
	return Options{Rounds: 1, Only: []string{"itl"}, ITLStreams: 2, ITLTokens: 500, Seed: 1}
}

func TestITL(t *testing.T) {
	rep, err := Run(context.Background(), []Target{&running{}}, itlOptions())
	if err != nil || len(rep.Errors) > 0 {
		t.Fatal(err, rep.Errors)
	}
	for _, name := range []string{ITLAlone50, ITLAlone95, ITLBusy50, ITLBusy95, ITLByAlone, PromptAlone, PromptBusy, PromptByAlone} {
		if s := rep.measure("itl", name, 500).series("r"); len(s.Values) != 1 || !(s.Median > 0) {
			t.Errorf("%s: %+v", name, s)
		}
	}
	if s := rep.measure("itl", PromptBusy, 500).series("r"); s.Prompt[0] < 400 {
		t.Errorf("a prompt of %d tokens", s.Prompt[0])
	}
}

func TestITLStreamEndsEarly(t *testing.T) {
	rep, err := Run(context.Background(), []Target{&running{short: 10}}, itlOptions())
	if err != nil || len(rep.Errors) != 1 || !strings.Contains(rep.Errors[0].Error, "ended before the prompt") {
		t.Errorf("%v, %+v", err, rep.Errors)
	}
}

func TestITLCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	rep, err := Run(ctx, []Target{&running{onBusy: cancel}}, itlOptions())
	if !errors.Is(err, context.Canceled) || len(rep.Results) > 0 {
		t.Errorf("%v, %+v", err, rep.Results)
	}
}
