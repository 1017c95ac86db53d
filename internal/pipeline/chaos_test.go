package pipeline

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kvasir/internal/llm"
	"kvasir/internal/testmodel"
)

var (
	chaosFlag = flag.Duration("chaos", 0, "how long the clients of TestChaos go on; 0 is a fixed number of requests")
	seedFlag  = flag.Uint64("chaos-seed", 0, "seed of TestChaos; 0 takes the time")
)

// A known prompt is one whose greedy continuation is known from a run that reuses nothing.
type known struct {
	prompt []int32
	next   []int32
}

const (
	chaosClients = 64
	chaosTokens  = 40 // generated at most
	chaosPrompt  = 420
)

// knownPrompts makes prompts that share beginnings of all lengths, some of them with what was generated for another, and
// computes what follows each, one after the other and without the cache.
func knownPrompts(t *testing.T, path string, rnd *rand.Rand, count int) []known {
	o := options()
	o.NoCache, o.Threads = true, 1
	p, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	var all []known
	for range count {
		var prompt []int32
		if len(all) > 0 && rnd.IntN(5) > 0 {
			base := all[rnd.IntN(len(all))]
			if rnd.IntN(2) == 0 { // the next turn
				prompt = slices.Concat(base.prompt, base.next[:1+rnd.IntN(len(base.next))])
			} else {
				prompt = slices.Clone(base.prompt[:rnd.IntN(len(base.prompt)+1)])
			}
		}
		for range 1 + rnd.IntN(90) {
			prompt = append(prompt, 3+rnd.Int32N(500))
		}
		prompt = prompt[:min(len(prompt), chaosPrompt)]
		r := request(ids(prompt...), chaosTokens)
		r.Logprobs = 0
		all = append(all, known{prompt, must(t, p, r).choices[0].ids()})
	}
	return all
}

// tally is what the clients of TestChaos did.
type tally struct {
	finished, cancelled, choices, prompt, cached, joined, completion atomic.Int64
}

// TestChaos lets 64 clients of several tenants send prompts that share beginnings to a server with little KV memory, so that
// blocks are joined, evicted and preempted, and go away at random points. What finishes is what a lone run without cache
// generates, and in the end no block and no goroutine is lost.
func TestChaos(t *testing.T) {
	defer goleak.VerifyNone(t)
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -chaos-seed %d", seed)
	requests := 8 // a client
	if testing.Short() {
		requests = 4
	}
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(path, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	prompts := knownPrompts(t, path, rand.New(rand.NewPCG(seed, 0)), 150)
	o := options()
	o.KVBytes, o.MaxBatch, o.MaxQueue, o.MaxRows = 40*blockBytes, 12, 100_000, 96
	p, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	vocabulary := tokenText(p)
	deadline := time.Now().Add(*chaosFlag)
	var n tally
	var wg sync.WaitGroup
	for c := range chaosClients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(c+1)))
			for i := 0; i < requests || time.Now().Before(deadline); i++ {
				if err := chaosRequest(p, rnd, prompts, vocabulary, &n); err != nil {
					t.Errorf("client %d, request %d: %v", c, i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
	checkBlocks(t, p)
	s := p.Stats()
	t.Logf("%d requests (%d choices) finished, %d cancelled; of %d prompt tokens %d cached, of these %d joined; %d generated; %d steps, %d preemptions; blocks %+v",
		n.finished.Load(), n.choices.Load(), n.cancelled.Load(), n.prompt.Load(), n.cached.Load(), n.joined.Load(), n.completion.Load(), s.Steps, s.Preemptions, s.Cache)
	if n.finished.Load() == 0 || n.cancelled.Load() == 0 || n.cached.Load() == 0 || s.Cache.Evicted == 0 || s.Cache.Copies == 0 {
		t.Error("something that should have happened has not: this test means nothing")
	}
}

// tokenText is Decode of the model's tokenizer, for any number of goroutines.
func tokenText(p *Pipeline) func([]int32) string {
	return func(v []int32) string { return p.Tokenizer().Decode(v, false) }
}

// chaosRequest sends one request, follows it to its end or goes away before, and checks what came.
func chaosRequest(p *Pipeline, rnd *rand.Rand, prompts []known, decode func([]int32) string, n *tally) error {
	tokens := 1 + rnd.IntN(chaosTokens)
	r := request(llm.Prompt{}, tokens)
	r.Tenant = fmt.Sprint("tenant ", rnd.IntN(3))
	r.NoCache = rnd.IntN(12) == 0
	r.Prompts = r.Prompts[:0]
	var want []known
	for range 1 + rnd.IntN(6)/5 {
		k := prompts[rnd.IntN(len(prompts))]
		want = append(want, k)
		r.Prompts = append(r.Prompts, ids(k.prompt...))
	}
	r.N = 1 + rnd.IntN(5)/4
	r.Logprobs = rnd.IntN(3) - 1
	leave := -1 // after so many events
	if rnd.IntN(3) == 0 {
		leave = rnd.IntN(tokens + 1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	st, err := p.Generate(ctx, r)
	if err != nil {
		return err
	}
	defer st.Close()
	var away sync.WaitGroup
	defer away.Wait()
	sudden := rnd.IntN(6) == 0
	if sudden { // from another goroutine, at any time
		away.Go(func() {
			for range rnd.IntN(200) {
				runtime.Gosched()
			}
			if rnd.IntN(2) == 0 {
				cancel()
			}
			st.Close()
		})
	}
	texts := make([]string, len(want)*r.N)
	finished := 0
	for events := 0; ; events++ {
		if events == leave {
			n.cancelled.Add(1)
			return nil
		}
		e, err := st.Next(ctx)
		if err == io.EOF {
			break
		}
		var le *llm.Error
		if errors.As(err, &le) && le.Kind == llm.KindCanceled && sudden {
			n.cancelled.Add(1)
			return nil
		}
		if err != nil {
			return err
		}
		if e.Choice < 0 || e.Choice >= len(texts) {
			return fmt.Errorf("an event of choice %d of %d", e.Choice, len(texts))
		}
		texts[e.Choice] += e.Text
		if e.Finish != "" {
			finished++
		}
	}
	if finished != len(texts) {
		return fmt.Errorf("%d of %d choices finished", finished, len(texts))
	}
	for i, got := range texts {
		k := want[i/r.N]
		if expected := decode(k.next[:tokens]); got != expected {
			return fmt.Errorf("prompt of %d tokens, %+v: %q, alone %q", len(k.prompt), st.Decisions()[i/r.N], got, expected)
		}
	}
	u := st.Usage()
	for i, d := range st.Decisions() {
		if d.Reused >= len(want[i].prompt) || r.NoCache != (d.Reason == llm.ReasonDisabled) {
			return fmt.Errorf("no cache %v: %+v", r.NoCache, d)
		}
		n.joined.Add(int64(d.Joined))
	}
	if u.CompletionTokens != tokens*len(texts) {
		return fmt.Errorf("%d tokens for each of %d choices: %+v", tokens, len(texts), u)
	}
	n.finished.Add(1)
	n.choices.Add(int64(len(texts)))
	n.prompt.Add(int64(u.PromptTokens))
	n.cached.Add(int64(u.CachedTokens))
	n.completion.Add(int64(u.CompletionTokens))
	return nil
}
