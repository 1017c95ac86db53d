package sched_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
	"unsafe"

	"kvasir/internal/cache"
	"kvasir/internal/engine"
	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/llm"
	"kvasir/internal/model"
	"kvasir/internal/sched"
	"kvasir/internal/store"
	"kvasir/internal/testmodel"
)

var (
	seedFlag   = flag.Uint64("seed", 0, "seed of the random scripts; 0 takes the time")
	scriptFlag = flag.Int("scripts", 0, "random scripts of TestRandomScripts; 0: 8, with -short 2")
)

// tinyFile writes the random model that the exactness tests run on and returns its path.
func tinyFile(t testing.TB) string { return modelFile(t, testmodel.Tiny) }

func modelFile(t testing.TB, cfg testmodel.Config) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	cfg.Ctx = 2048
	if err := testmodel.Write(path, cfg); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t testing.TB, file string, path kernel.Path, blockSize int) *model.Model {
	t.Helper()
	f, err := gguf.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := model.Load(f, model.Options{Path: path, BlockSize: blockSize})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// paths are those to test: with -short without the slow portable one, unless there is no other.
func paths() []kernel.Path {
	ps := kernel.Available()
	if testing.Short() && len(ps) > 1 {
		ps = ps[:len(ps)-1]
	}
	return ps
}

// digest identifies logits by their bits.
func digest(logits []float32) [32]byte {
	return sha256.Sum256(unsafe.Slice((*byte)(unsafe.Pointer(&logits[0])), len(logits)*4))
}

func key(tokens []int32) string {
	b := make([]byte, 0, len(tokens)*4)
	for _, t := range tokens {
		b = binary.LittleEndian.AppendUint32(b, uint32(t))
	}
	return string(b)
}

// An oracle computes logits the plain way: one sequence, one token a step, one thread, nothing reused.
type oracle struct {
	t     testing.TB
	e     *engine.Engine
	table []int32
	mu    sync.Mutex
	memo  map[string][32]byte
	// What pick chooses from the logits of memo.
	picked map[string]int32
}

func newOracle(t testing.TB, m *model.Model) *oracle {
	blocks := (m.Context + m.Layout.BlockSize - 1) / m.Layout.BlockSize
	mem, err := store.NewMemory(blocks, m.Layout.BlockBytes())
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(m, mem, engine.Options{Threads: 1, MaxRows: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); mem.Close() })
	o := &oracle{t: t, e: e, memo: map[string][32]byte{}, picked: map[string]int32{}}
	for i := range blocks {
		o.table = append(o.table, int32(i))
	}
	return o
}

// logits returns the digest of the logits after the given tokens.
func (o *oracle) logits(tokens []int32) [32]byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := key(tokens)
	if _, ok := o.memo[k]; !ok {
		for i, tok := range tokens {
			err := o.e.Step(&engine.Batch{Tokens: []int32{tok}, Segs: []engine.Segment{{N: 1, Pos: i, Table: o.table, Logits: 1}}})
			if err != nil {
				o.t.Fatal(err)
			}
			o.memo[key(tokens[:i+1])] = digest(o.e.Logits(0))
			o.picked[key(tokens[:i+1])] = pick(o.e.Logits(0))
		}
	}
	return o.memo[k]
}

// next returns the digest of the logits after the given tokens, and the token that generate chooses then.
func (o *oracle) next(tokens []int32) ([32]byte, int32) {
	d := o.logits(tokens)
	o.mu.Lock()
	defer o.mu.Unlock()
	return d, o.picked[key(tokens)]
}

// rig is a scheduler over a real engine.
type rig struct {
	*sched.Scheduler
	e *engine.Engine
}

func newRig(t testing.TB, m *model.Model, blocks int, eo engine.Options, so sched.Options) *rig {
	t.Helper()
	r, stop := newRigFor(t, m, blocks, eo, so)
	t.Cleanup(stop)
	return r
}

// newRigFor is newRig with an end before that of the test.
func newRigFor(t testing.TB, m *model.Model, blocks int, eo engine.Options, so sched.Options) (*rig, func()) {
	t.Helper()
	mem, err := store.NewMemory(blocks, m.Layout.BlockBytes())
	if err != nil {
		t.Fatal(err)
	}
	// What an arena held before must not matter, as long as it is finite.
	for i := range blocks {
		for j, b := 0, mem.Block(int32(i)); j < len(b); j++ {
			b[j] = uint16(0x3c00 + j%997)
		}
	}
	e, err := engine.New(m, mem, eo)
	if err != nil {
		t.Fatal(err)
	}
	c := cache.New(cache.Config{Blocks: blocks, BlockSize: m.Layout.BlockSize, Saving: so.Tier != nil})
	if so.MaxQueue == 0 {
		so.MaxQueue = 1000
	}
	if so.MaxBatch == 0 {
		so.MaxBatch = 16
	}
	r := &rig{sched.New(e, c, so), e}
	return r, func() {
		r.Close(context.Background())
		e.Close()
		mem.Close()
		if err := c.Check(); err != nil {
			t.Error(err)
		}
		if s := c.Stats(); s.Held != 0 || s.Free+s.Cached != s.Total {
			t.Errorf("at the end %+v", s)
		}
	}
}

// result of one generation.
type result struct {
	tokens   []int32 // generated
	decision llm.Decision
	logits   [][32]byte
	err      error
}

// generate runs one job to its end, choosing tokens by next (nil: a fixed function of the logits).
func (r *rig) generate(root cache.Key, prompt []int32, n int, cancel <-chan struct{}) <-chan result {
	out := make(chan result, 1)
	var res result
	j := &sched.Job{Root: root, Prompt: prompt, Limit: len(prompt) + n}
	j.Started = func(d llm.Decision) { res.decision = d }
	j.Next = func(logits []float32, pos int) (int32, bool, error) {
		res.logits = append(res.logits, digest(logits))
		tok := pick(logits)
		res.tokens = append(res.tokens, tok)
		return tok, len(res.tokens) == n, nil
	}
	j.Done = func(err error) { res.err = err; out <- res }
	if err := r.Submit(j); err != nil {
		res.err = err
		out <- res
	}
	if cancel != nil {
		go func() { <-cancel; j.Cancel(); r.Wake() }()
	}
	return out
}

// pick chooses greedily among a few tokens, so that sequences often meet again.
func pick(logits []float32) int32 {
	best := 0
	for i := range 7 {
		if logits[i] > logits[best] {
			best = i
		}
	}
	return int32(best)
}

// check holds the logits of a result against the oracle.
func (o *oracle) check(t *testing.T, what string, prompt []int32, r result) {
	t.Helper()
	all := append(append([]int32(nil), prompt...), r.tokens...)
	for i, got := range r.logits {
		if want := o.logits(all[:len(prompt)+i]); got != want {
			t.Errorf("%s: logits of token %d (prompt %d, cached %d) differ from a cold run's", what, i, len(prompt), r.decision.Reused)
			return
		}
	}
}

func randTokens(r *rand.Rand, n, vocab int) []int32 {
	ts := make([]int32, n)
	for i := range ts {
		ts[i] = int32(r.IntN(vocab))
	}
	return ts
}

var rootA, rootB = cache.Key{1}, cache.Key{2}

// A prompt is warm at every prefix length: after a donor that shares exactly k tokens, k are reused and the logits are the
// cold ones.
func TestEveryPrefixLength(t *testing.T) {
	file := tinyFile(t)
	rnd := rand.New(rand.NewPCG(7, 7))
	const n = 150
	for _, bs := range []int{32, 64} {
		for _, p := range paths() {
			if p == kernel.Go && bs != 32 {
				continue
			}
			m := load(t, file, p, bs)
			o := newOracle(t, load(t, file, kernel.Available()[0], 32))
			prompt := randTokens(rnd, n, 50)
			r := newRig(t, m, 4096/bs, engine.Options{Threads: 2, MaxRows: 64}, sched.Options{})
			step := 1
			if testing.Short() {
				step = 7
			}
			for k := 0; k < n; k += step {
				root := cache.Key{3, byte(k)}
				donor := append(append([]int32(nil), prompt[:k]...), 60)
				if res := <-r.generate(root, donor, 1, nil); res.err != nil {
					t.Fatal(res.err)
				}
				res := <-r.generate(root, prompt, 3, nil)
				if res.err != nil {
					t.Fatal(res.err)
				}
				if res.decision.Reused != k {
					t.Fatalf("path %v block %d: reused %d of %d shared tokens", p, bs, res.decision.Reused, k)
				}
				o.check(t, fmt.Sprintf("path %v block size %d", p, bs), prompt, res)
				// And once more, all of it: n-1 tokens.
				if res = <-r.generate(root, prompt, 1, nil); res.decision.Reused != n-1 {
					t.Fatalf("repeat: reused %d of %d", res.decision.Reused, n-1)
				}
				o.check(t, "repeat", prompt, res)
			}
		}
	}
}

// Chunk sizes, threads, batch sizes and instruction sets change nothing.
func TestMatrix(t *testing.T) {
	file := tinyFile(t)
	rnd := rand.New(rand.NewPCG(5, 5))
	prompts := make([][]int32, 16)
	for i := range prompts {
		prompts[i] = randTokens(rnd, 1+rnd.IntN(500), 300)
	}
	prompts[0] = randTokens(rnd, 700, 300)
	o := newOracle(t, load(t, file, kernel.Available()[0], 32))
	for _, p := range paths() {
		m := load(t, file, p, 32)
		for _, rows := range []int{16, 37, 128, 512, 2048} {
			for _, threads := range []int{1, 2} {
				for _, batch := range []int{1, 2, 5, 16} {
					if (p == kernel.Go || testing.Short()) && (rows+threads+batch)%3 != 0 {
						continue // a third of the combinations: this path is slow
					}
					r := newRig(t, m, 400, engine.Options{Threads: threads, MaxRows: rows}, sched.Options{MaxBatch: batch, IdleTarget: time.Hour, StepTarget: time.Hour})
					var outs []<-chan result
					for i := range batch {
						outs = append(outs, r.generate(rootA, prompts[i], 2, nil))
					}
					for i, out := range outs {
						res := <-out
						if res.err != nil {
							t.Fatal(res.err)
						}
						o.check(t, fmt.Sprintf("path %v rows %d threads %d batch %d", p, rows, threads, batch), prompts[i], res)
					}
				}
			}
		}
	}
}

// Prompts in chunks and batches, and those that reuse what others computed, are exact with other weights too.
func TestWeightTypes(t *testing.T) {
	for i, types := range [][2]gguf.Type{{gguf.Q4_K, gguf.Q6_K}, {gguf.Q5_0, gguf.Q5_0}, {gguf.IQ4_XS, gguf.Q5_K}, {gguf.MXFP4, gguf.MXFP4}} {
		t.Run(fmt.Sprint(types), func(t *testing.T) {
			cfg := testmodel.Tiny
			cfg.Layers, cfg.Embd, cfg.Heads, cfg.Type, cfg.Better = 2, 256, 8, types[0], types[1] // rows of 256 for the K-types
			file := modelFile(t, cfg)
			rnd := rand.New(rand.NewPCG(6, uint64(i)))
			shared := randTokens(rnd, 75, 300)
			o := newOracle(t, load(t, file, kernel.Available()[0], 32))
			for _, p := range paths() {
				r := newRig(t, load(t, file, p, 32), 100, engine.Options{Threads: 2, MaxRows: 48}, sched.Options{MaxBatch: 5})
				reused := 0
				for range 2 {
					var outs []<-chan result
					var prompts [][]int32
					for n := range 5 {
						prompts = append(prompts, append(append([]int32(nil), shared[:75-n*7]...), randTokens(rnd, 5, 300)...))
						outs = append(outs, r.generate(rootA, prompts[n], 3, nil))
					}
					for n, out := range outs {
						res := <-out
						if res.err != nil {
							t.Fatal(res.err)
						}
						reused += res.decision.Reused
						o.check(t, fmt.Sprintf("path %v, prompt %d", p, n), prompts[n], res)
					}
				}
				if reused == 0 {
					t.Error("nothing was reused")
				}
			}
		})
	}
}

// Random scripts: prompts that share prefixes of random lengths arrive together or one after the other, some are
// canceled, KV is scarce enough for eviction and preemption. Every logit of every token equals the cold one.
func TestRandomScripts(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -seed %d", seed)
	file := tinyFile(t)
	o := newOracle(t, load(t, file, kernel.Available()[0], 32))
	paths := kernel.Available()
	paths = paths[:max(1, len(paths)-1)] // the portable path is in the tests above
	scripts := *scriptFlag
	if scripts == 0 {
		if scripts = 8; testing.Short() {
			scripts = 2
		}
	}
	var drafted, accepted int64
	for script := range scripts {
		rnd := rand.New(rand.NewPCG(seed, uint64(script)))
		p, bs := paths[rnd.IntN(len(paths))], 32<<rnd.IntN(3)
		tokens := 700 + rnd.IntN(2500)
		opts := fmt.Sprintf("script %d: path %v block size %d", script, p, bs)
		so := sched.Options{MaxBatch: 1 + rnd.IntN(16), StepTarget: time.Duration(1+rnd.IntN(20)) * time.Millisecond}
		if rnd.IntN(2) == 0 {
			so.Now = sched.Ticks(time.Millisecond) // rows cost nothing: long drafts
		}
		eo := engine.Options{Threads: 1 + rnd.IntN(3), MaxRows: 8 + rnd.IntN(200)}
		opts += fmt.Sprintf(" kv %d tokens, batch %d, target %v, ticks %v, %+v", tokens, so.MaxBatch, so.StepTarget, so.Now != nil, eo)
		r := newRig(t, load(t, file, p, bs), max(4, tokens/bs), eo, so)
		capacity := (max(4, tokens/bs) - 1) * bs
		var family [][]int32
		type run struct {
			prompt []int32
			out    <-chan result
		}
		var open []run
		finish := func(u run) {
			res := <-u.out
			if res.err != nil && res.err != sched.ErrCanceled {
				t.Errorf("%s: %v", opts, res.err)
			}
			o.check(t, opts, u.prompt, res)
			family = append(family, append(append([]int32(nil), u.prompt...), res.tokens...))
		}
		for range 40 {
			var prompt []int32
			if len(family) > 0 && rnd.IntN(4) > 0 {
				f := family[rnd.IntN(len(family))]
				prompt = append(prompt, f[:rnd.IntN(len(f)+1)]...)
			}
			prompt = append(prompt, randTokens(rnd, 1+rnd.IntN(120), 9)...)
			if len(prompt) > capacity-40 {
				prompt = prompt[:capacity-40]
			}
			root := rootA
			if rnd.IntN(6) == 0 {
				root = rootB
			}
			var cancel chan struct{}
			if rnd.IntN(5) == 0 {
				cancel = make(chan struct{})
				time.AfterFunc(time.Duration(rnd.IntN(20))*time.Millisecond, func() { close(cancel) })
			}
			open = append(open, run{prompt, r.generate(root, prompt, 1+rnd.IntN(40), cancel)})
			for len(open) > rnd.IntN(12) {
				i := rnd.IntN(len(open))
				finish(open[i])
				open = append(open[:i], open[i+1:]...)
			}
		}
		for _, u := range open {
			finish(u)
		}
		if t.Failed() {
			return
		}
		st := r.Stats()
		drafted, accepted = drafted+st.DraftTokens, accepted+st.AcceptedTokens
	}
	if t.Logf("%d guesses, %d accepted", drafted, accepted); accepted == 0 || accepted == drafted {
		t.Error("no drafts, or none that was wrong")
	}
}

// Eight requests for the same fresh prompt compute it once: the prompt, and the last token and generated ones of each.
func TestJoinComputesOnce(t *testing.T) {
	m := load(t, tinyFile(t), kernel.Available()[0], 32)
	r := newRig(t, m, 100, engine.Options{Threads: 2, MaxRows: 64}, sched.Options{})
	rnd := rand.New(rand.NewPCG(1, 1))
	shared := randTokens(rnd, 333, 300)
	var outs []<-chan result
	const clients, suffix, gen = 8, 5, 4
	for i := range clients {
		p := append(append([]int32(nil), shared...), int32(i), 1, 2, 3, 4)
		outs = append(outs, r.generate(rootA, p, gen, nil))
	}
	cached := 0
	for _, out := range outs {
		res := <-out
		if res.err != nil {
			t.Fatal(res.err)
		}
		cached += res.decision.Reused
	}
	if want := (clients - 1) * len(shared); cached != want {
		t.Errorf("cached tokens %d, want %d", cached, want)
	}
	st := r.Stats()
	if got, want := st.PrefillTokens+st.DecodeTokens+st.AcceptedTokens, int64(len(shared)+clients*(suffix+gen-1)); got != want {
		t.Errorf("%d rows computed, want %d", got, want)
	}
}

// The next turn of a chat begins where the last one ended, generated tokens included.
func TestGeneratedTokensAreReused(t *testing.T) {
	m := load(t, tinyFile(t), kernel.Available()[0], 32)
	r := newRig(t, m, 100, engine.Options{Threads: 1, MaxRows: 64}, sched.Options{})
	prompt := randTokens(rand.New(rand.NewPCG(2, 2)), 77, 300)
	res := <-r.generate(rootA, prompt, 50, nil)
	next := append(append(append([]int32(nil), prompt...), res.tokens...), 9, 9, 9)
	res = <-r.generate(rootA, next, 1, nil)
	if want := 77 + 50 - 1; res.decision.Reused != want || res.decision.Reason != llm.ReasonExtended {
		t.Errorf("reused %d (%s), want %d", res.decision.Reused, res.decision.Reason, want)
	}
	if res = <-r.generate(rootB, next, 1, nil); res.decision.Reused != 0 || res.decision.Reason != llm.ReasonNeverSeen {
		t.Errorf("another root reused %d (%s)", res.decision.Reused, res.decision.Reason)
	}
}

// A queue that is full refuses; a closed scheduler refuses and ends.
func TestQueueFullAndClose(t *testing.T) {
	m := load(t, tinyFile(t), kernel.Available()[0], 32)
	r := newRig(t, m, 100, engine.Options{Threads: 1, MaxRows: 8}, sched.Options{MaxQueue: 2, MaxBatch: 1})
	block := make(chan struct{})
	first := make(chan struct{})
	done := make(chan error, 10)
	job := func(next func()) *sched.Job {
		return &sched.Job{Root: rootA, Prompt: []int32{1, 2, 3}, Limit: 10, Done: func(err error) { done <- err },
			Next: func([]float32, int) (int32, bool, error) { next(); return 1, true, nil }}
	}
	if err := r.Submit(job(func() { close(first); <-block })); err != nil {
		t.Fatal(err)
	}
	<-first // it runs and holds the loop
	for range 2 {
		if err := r.Submit(job(func() {})); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Submit(job(func() {})); err != sched.ErrQueueFull {
		t.Fatalf("third waiting job: %v", err)
	}
	close(block)
	if err := r.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := r.Submit(job(func() {})); err != sched.ErrClosed {
		t.Errorf("after close: %v", err)
	}
}

// Close with a context that has ended cancels what is left.
func TestCloseAborts(t *testing.T) {
	m := load(t, tinyFile(t), kernel.Available()[0], 32)
	r := newRig(t, m, 100, engine.Options{Threads: 1, MaxRows: 8}, sched.Options{})
	out := r.generate(rootA, randTokens(rand.New(rand.NewPCG(3, 3)), 1500, 300), 500, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Close(ctx); err == nil {
		t.Error("Close reported nothing")
	}
	if res := <-out; res.err != sched.ErrClosed {
		t.Errorf("job ended with %v", res.err)
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
