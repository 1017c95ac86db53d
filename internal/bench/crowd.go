package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// togetherTokens are generated for each of the clients who arrive at once.
const togetherTokens = 8

// streams measures clients whose prompts share a cached prefix.
func streams(ctx context.Context, t *turn) error {
	n := t.o.SharedTokens
	prefix := t.prefix(longText, n)
	if _, err := t.complete(ctx, prefix+t.ask(0), 1); err != nil {
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
	t.record(Total, n, float64(sum)/wall.Seconds(), rs...)
	t.ended(Total, n, rs...)
	if v, ok := whileAll(rs); ok {
		t.record(Running, n, v, rs...)
	} else {
		t.note(Running, n, "never all running at once")
	}
	return nil
}

// whileAll returns the tokens a second of all streams together, from when the last one began until the first one ended.
func whileAll(rs []Result) (float64, bool) {
	var begin, end time.Time
	for i, r := range rs {
		if len(r.Events) == 0 {
			return 0, false
		}
		first, last := r.Start.Add(r.First()), r.Start.Add(r.Last())
		if i == 0 || first.After(begin) {
			begin = first
		}
		if i == 0 || last.Before(end) {
			end = last
		}
	}
	if !end.After(begin) {
		return 0, false
	}
	tokens := 0.0
	for _, r := range rs {
		n := 0
		for _, e := range r.Events {
			if at := r.Start.Add(e); at.After(begin) && !at.After(end) {
				n++
			}
		}
		tokens += float64(n) * float64(r.CompletionTokens) / float64(len(r.Events))
	}
	return tokens / end.Sub(begin).Seconds(), tokens > 0
}

// fresh measures clients who arrive at once with a prefix that nobody has computed yet.
func fresh(ctx context.Context, t *turn) error {
	n := t.o.SharedTokens
	one, err := t.complete(ctx, t.prefix(t.roundText("one alone"), n)+t.ask(0), 1)
	if err != nil {
		return err
	}
	rs, wall, err := together(ctx, t.targets[t.target], t.calls(t.prefix(t.roundText("fresh"), n), togetherTokens))
	if err != nil {
		return err
	}
	t.record(Wall, n, ms(wall), rs...)
	t.record(WallByCold, n, float64(wall)/float64(one.First()), rs...)
	computed, known := 0, true
	var slowest time.Duration
	for _, r := range rs {
		computed += r.PromptTokens - r.CachedTokens
		known = known && r.CachedTokens >= 0
		slowest = max(slowest, r.First())
	}
	t.record(Slowest, n, ms(slowest), rs...)
	if known {
		t.record(Computed, n, float64(computed), rs...)
	} else {
		t.note(Wall, n, "the server does not say what was cached")
	}
	return nil
}

// calls are one for each client: the same prefix, another question.
func (t *turn) calls(prefix string, maxTokens int) []Call {
	calls := make([]Call, t.o.Clients)
	for i := range calls {
		calls[i] = Call{Prompt: prefix + t.ask(10+i), MaxTokens: maxTokens}
	}
	return calls
}

// Of the streams in itl: tokens before the first one that counts, tokens measured alone, and the most that a stream may generate while the
// prompt comes in.
const (
	itlSettle = 4
	itlAlone  = 64
	itlMost   = 2000
)

// itl runs streams alone, then with a long prompt between them.
func itl(ctx context.Context, t *turn) error {
	n := t.o.ITLTokens
	alone, err := t.complete(ctx, t.prefix(t.roundText("itl, alone"), n)+t.ask(0), 1)
	if err != nil {
		return err
	}
	runCtx, stop := context.WithCancel(ctx)
	defer stop()
	rs, errs := make([]Result, t.o.ITLStreams), make([]error, t.o.ITLStreams)
	w := newWatch(len(rs))
	var wg sync.WaitGroup
	for i := range rs {
		call := Call{Prompt: t.prefix(t.roundText(fmt.Sprintf("stream %d", i)), minPrompt) + t.ask(1+i), MaxTokens: itlMost, Event: func() { w.event(i) }}
		wg.Go(func() {
			rs[i], errs[i] = t.targets[t.target].Complete(runCtx, call)
			w.end(i)
		})
	}
	var busy Result
	running := w.await(itlSettle + itlAlone)
	if running {
		busy, err = t.complete(ctx, t.prefix(t.roundText("itl, busy"), n)+t.ask(0), 1)
		w.await(1) // the gap that a stream is in at the end counts too
	}
	stop()
	wg.Wait()
	for _, e := range errs {
		if e != nil && !errors.Is(e, context.Canceled) {
			err = errors.Join(err, e)
		}
	}
	if err != nil {
		return err
	}
	if !running {
		return errors.New("a stream ended before the prompt came in")
	}
	lone, between, early := splitGaps(rs, busy.Start, busy.Start.Add(busy.First()))
	if len(lone) == 0 || len(between) == 0 {
		return fmt.Errorf("%d gaps between tokens alone and %d beside the prompt: nothing to compare", len(lone), len(between))
	}
	alone95, busy95 := quantile(lone, 0.95), quantile(between, 0.95)
	t.record(ITLAlone50, n, quantile(lone, 0.5))
	t.record(ITLAlone95, n, alone95)
	t.record(ITLBusy50, n, quantile(between, 0.5))
	t.record(ITLBusy95, n, busy95)
	if alone95 > 0 { // 0 if most tokens come several in one step
		t.record(ITLByAlone, n, busy95/alone95)
	}
	t.record(PromptAlone, n, ms(alone.First()), alone)
	t.record(PromptBusy, n, ms(busy.First()), busy)
	t.record(PromptByAlone, n, float64(busy.First())/float64(alone.First()), busy)
	if slices.ContainsFunc(rs, func(r Result) bool { return inBursts(&r) }) {
		for _, m := range []string{ITLAlone50, ITLAlone95, ITLBusy50, ITLBusy95} {
			t.note(m, n, severalAtOnce)
		}
	}
	if early {
		t.note(ITLBusy95, n, "a stream ended while the prompt came in")
	}
	return nil
}

// A watch counts the events of streams.
type watch struct {
	mu     sync.Mutex
	change sync.Cond
	events []int
	ended  []bool
}

func newWatch(n int) *watch {
	w := &watch{events: make([]int, n), ended: make([]bool, n)}
	w.change.L = &w.mu
	return w
}

func (w *watch) event(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events[i]++
	w.change.Broadcast()
}

func (w *watch) end(i int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended[i] = true
	w.change.Broadcast()
}

// await waits until every stream has had so many more events or has ended, and returns whether all are still running.
func (w *watch) await(more int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := slices.Clone(w.events)
	waiting := func() bool {
		for i, n := range w.events {
			if n < before[i]+more && !w.ended[i] {
				return true
			}
		}
		return false
	}
	for waiting() {
		w.change.Wait()
	}
	return !slices.Contains(w.ended, true)
}

// splitGaps returns the milliseconds between arrivals from when all streams had settled until begin, and those that overlap the time
// from begin to end. early is whether a stream had its last token in that time already.
func splitGaps(rs []Result, begin, end time.Time) (alone, busy []float64, early bool) {
	var settled time.Time
	for _, r := range rs {
		if len(r.Events) < itlSettle {
			return nil, nil, true
		}
		if at := r.Start.Add(r.Events[itlSettle-1]); at.After(settled) {
			settled = at
		}
	}
	for _, r := range rs {
		a := arrivals(r.Events)
		for i := 1; i < len(a); i++ {
			from, to := r.Start.Add(a[i-1]), r.Start.Add(a[i])
			switch gap := ms(to.Sub(from)); {
			case from.Before(settled):
			case !to.After(begin):
				alone = append(alone, gap)
			case from.Before(end):
				busy = append(busy, gap)
			}
		}
		early = early || r.Start.Add(r.Last()).Before(end)
	}
	return alone, busy, early
}
