package pipeline

import (
	"cmp"
	"context"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/goleak"

	"kvasir/internal/kernel"
	"kvasir/internal/llm"
	"kvasir/internal/sched"
	"kvasir/internal/testmodel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// blockBytes is the KV of a block of 32 tokens of testmodel.Tiny.
const blockBytes = 4 * 2 * 32 * 32 * 2 * 2

// options are those of the tests that do not say otherwise: room for 4,096 tokens.
func options() Options {
	return Options{Names: []string{"tiny", "alias"}, Digest: [32]byte{1}, Path: kernel.Available()[0], Threads: 2, BlockSize: 32,
		KVBytes: 128 * blockBytes, MaxQueue: 1000, MaxBatch: 16, Secret: []byte("a secret of the deployment")}
}

// open serves the tiny model until the test ends. change may be nil.
func open(t testing.TB, change func(*Options)) *Pipeline {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(path, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	o := options()
	if change != nil {
		change(&o)
	}
	p, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
		checkBlocks(t, p)
	})
	return p
}

// checkBlocks holds the books against each other once nothing runs.
func checkBlocks(t testing.TB, p *Pipeline) {
	t.Helper()
	s := p.Stats()
	if s.Running != 0 || s.Waiting != 0 || s.Cache.Held != 0 || s.Cache.Free+s.Cache.Cached != s.Cache.Total {
		t.Errorf("nothing runs, but %+v", s)
	}
}

// request is a greedy generation of n tokens after the prompt, which the end-of-generation token does not shorten.
func request(prompt llm.Prompt, n int) *llm.Request {
	s := llm.DefaultSampling()
	s.Temperature = 0
	return &llm.Request{ID: "test", Tenant: "a", Model: "tiny", Prompts: []llm.Prompt{prompt}, N: 1, MaxTokens: n, Sampling: s, Logprobs: -1, IgnoreEOS: true}
}

func text(s string) llm.Prompt    { return llm.Prompt{Text: s, IsText: true} }
func ids(v ...int32) llm.Prompt   { return llm.Prompt{Tokens: v} }
func user(s string) []llm.Message { return []llm.Message{{Role: "user", Content: s}} }

// ramp is n token ids that are no special ones; start makes ramps differ from their first id on.
func ramp(start, n int) []int32 {
	v := make([]int32, n)
	for i := range v {
		v[i] = int32(10 + (start*31+i*7)%480)
	}
	return v
}

// output of one choice.
type output struct {
	text   string
	pieces []string // of the events
	tokens []llm.TokenInfo
	finish string
}

func (o *output) ids() []int32 {
	var v []int32
	for _, t := range o.tokens {
		v = append(v, t.ID)
	}
	return v
}

type outcome struct {
	choices   []output
	events    []llm.Event
	usage     llm.Usage
	decisions []llm.Decision
	err       error // of Generate or Next
}

// read takes all events of a stream.
func read(st llm.Stream, choices int) outcome {
	o := outcome{choices: make([]output, choices)}
	defer st.Close()
	for {
		e, err := st.Next(context.Background())
		if err != nil {
			o.usage, o.decisions = st.Usage(), st.Decisions()
			if err != io.EOF {
				o.err = err
			}
			return o
		}
		o.events = append(o.events, e)
		c := &o.choices[e.Choice]
		c.text += e.Text
		c.pieces = append(c.pieces, e.Text)
		c.tokens = append(c.tokens, e.Tokens...)
		c.finish = e.Finish
	}
}

// run generates and holds the result against what is true of every one: whole characters, one last event a choice, all usage.
func run(t testing.TB, p *Pipeline, r *llm.Request) outcome {
	t.Helper()
	st, err := p.Generate(context.Background(), r)
	if err != nil {
		return outcome{err: err}
	}
	o := read(st, len(r.Prompts)*r.N)
	if o.err != nil {
		return o
	}
	finished := map[int]bool{}
	for _, e := range o.events {
		if !utf8.ValidString(e.Text) {
			t.Errorf("event text %q is no UTF-8", e.Text)
		}
		if finished[e.Choice] {
			t.Errorf("an event after the last one of choice %d: %+v", e.Choice, e)
		}
		finished[e.Choice] = e.Finish != ""
	}
	for i, c := range o.choices {
		if c.finish != llm.FinishStop && c.finish != llm.FinishLength {
			t.Errorf("choice %d ended with %q", i, c.finish)
		}
	}
	if len(o.decisions) != len(r.Prompts) {
		t.Errorf("%d decisions for %d prompts", len(o.decisions), len(r.Prompts))
	}
	prompt, cached := 0, 0
	for _, d := range o.decisions {
		prompt += d.PromptTokens
		cached += d.Reused
		if d.Reason == "" || d.Reused >= d.PromptTokens || d.Joined > d.Reused {
			t.Errorf("decision %+v", d)
		}
	}
	if o.usage.PromptTokens != prompt || o.usage.CachedTokens != cached {
		t.Errorf("usage %+v, decisions %+v", o.usage, o.decisions)
	}
	return o
}

// must is run of a request that is fine.
func must(t testing.TB, p *Pipeline, r *llm.Request) outcome {
	t.Helper()
	o := run(t, p, r)
	if o.err != nil {
		t.Fatal(o.err)
	}
	return o
}

// wantError checks an error's kind and returns it.
func wantError(t *testing.T, err error, kind llm.ErrorKind) *llm.Error {
	t.Helper()
	var e *llm.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("error %v (%T), want kind %d", err, err, kind)
	}
	return e
}

// eventually waits until the loop's numbers are as wanted. It fails only if they never are.
func eventually(t *testing.T, p *Pipeline, what string, ok func(sched.Stats) bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(p.Stats()); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: %+v", what, p.Stats())
		}
	}
}

func TestModelInfo(t *testing.T) {
	p := open(t, nil)
	m := p.Models()[0]
	if m.ID != "tiny" || !slices.Equal(m.Aliases, []string{"alias"}) || m.Vocab != 512 || m.Quant != "Q8_0" || !strings.HasPrefix(m.Digest, "0100") {
		t.Errorf("%+v", m)
	}
	if m.Context != 127*32 || p.KVTokens() != 128*32 || p.TokenBytes() != blockBytes/32 {
		t.Errorf("context %d, KV of %d tokens of %d bytes", m.Context, p.KVTokens(), p.TokenBytes())
	}
}

func TestOpenErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(path, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Options)
		say    string
	}{
		"no name":       {func(o *Options) { o.Names = nil }, "name"},
		"little KV":     {func(o *Options) { o.KVBytes = 3 * blockBytes }, "--cache-mem"},
		"context":       {func(o *Options) { o.Context = 5000 }, "4096"},
		"context of KV": {func(o *Options) { o.KVBytes = 10 * blockBytes; o.Context = 9*32 + 1 }, "--ctx"},
		"block size":    {func(o *Options) { o.BlockSize = 48 }, "block size"},
		"threads":       {func(o *Options) { o.Threads = -1 }, "threads"},
	} {
		o := options()
		c.change(&o)
		if p, err := Open(path, o); err == nil {
			t.Errorf("%s: opened", name)
			_ = p.Close(context.Background())
		} else if !strings.Contains(err.Error(), c.say) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.gguf"), options()); err == nil {
		t.Error("a missing file was opened")
	}
}

func TestMaxTokens(t *testing.T) {
	p := open(t, nil)
	whole := must(t, p, request(text("The server keeps"), 30))
	for _, n := range []int{1, 2, 7, 30} {
		r := request(text("The server keeps"), n)
		r.Logprobs = 0
		o := must(t, p, r)
		c := o.choices[0]
		if c.finish != llm.FinishLength || len(c.tokens) != n || o.usage.CompletionTokens != n {
			t.Errorf("%d tokens wanted: %q, %d tokens, usage %+v", n, c.finish, len(c.tokens), o.usage)
		}
		if n == 30 && c.text != whole.choices[0].text {
			t.Errorf("with log-probabilities %q, without %q", c.text, whole.choices[0].text)
		}
	}
}

// The end-of-generation token ends a choice, is counted, and has no text; with IgnoreEOS it does not end it.
func TestEndOfGeneration(t *testing.T) {
	p := open(t, nil)
	r := request(text("The server"), 20)
	r.Sampling.LogitBias = map[int32]float32{testmodel.EOS: 100}
	r.Logprobs = 0
	r.IgnoreEOS = false
	o := must(t, p, r)
	if c := o.choices[0]; c.text != "" || c.finish != llm.FinishStop || len(c.tokens) != 0 || o.usage.CompletionTokens != 1 {
		t.Errorf("%+v %+v", c, o.usage)
	}
	r.IgnoreEOS = true
	o = must(t, p, r)
	if c := o.choices[0]; c.text != "" || c.finish != llm.FinishLength || len(c.tokens) != 20 || o.usage.CompletionTokens != 20 {
		t.Errorf("%+v %+v", c, o.usage)
	}
}

func TestContextLength(t *testing.T) {
	p := open(t, func(o *Options) { o.Context = 100 })
	for name, c := range map[string]struct {
		prompt llm.Prompt
		max    int
		say    []string
		param  string
	}{
		"prompt alone": {ids(ramp(1, 100)...), 0, []string{"maximum context length is 100 tokens", "100 in the prompt", "101"}, "prompt"},
		"together":     {ids(ramp(1, 90)...), 11, []string{"90 in the prompt", "11 to generate", "101"}, "prompt"},
		"chat":         {llm.Prompt{Messages: user(strings.Repeat("7 ", 80))}, 1, []string{"100 tokens"}, "messages"},
		"max alone":    {ids(1), 1000, []string{"1 in the prompt", "1000 to generate", "1001"}, "prompt"},
	} {
		o := run(t, p, request(c.prompt, c.max))
		e := wantError(t, o.err, llm.KindContextLength)
		if e.Code != "context_length_exceeded" || e.Param != c.param {
			t.Errorf("%s: code %q, param %q", name, e.Code, e.Param)
		}
		for _, s := range c.say {
			if !strings.Contains(e.Message, s) {
				t.Errorf("%s: %q does not say %q", name, e.Message, s)
			}
		}
	}
	// What just fits, fits, and without a limit generation goes on to the end of the context.
	for _, max := range []int{10, 0} {
		o := must(t, p, request(ids(ramp(1, 90)...), max))
		if o.choices[0].finish != llm.FinishLength || o.usage.CompletionTokens != 10 {
			t.Errorf("max %d: %q, %+v", max, o.choices[0].finish, o.usage)
		}
	}
	// Nothing is cut unless the request asks for it; then the oldest tokens go.
	r := request(ids(ramp(1, 200)...), 20)
	wantError(t, run(t, p, r).err, llm.KindContextLength)
	r.TruncatePrompt = true
	got := must(t, p, r)
	want := must(t, p, request(ids(ramp(1, 200)[120:]...), 20))
	if got.usage.PromptTokens != 80 || got.choices[0].text != want.choices[0].text {
		t.Errorf("cut prompt: %+v %q, want %q", got.usage, got.choices[0].text, want.choices[0].text)
	}
	r.MaxTokens = 100
	wantError(t, run(t, p, r).err, llm.KindContextLength)
}

func TestInvalidRequests(t *testing.T) {
	p := open(t, nil)
	vocab := int32(p.Models()[0].Vocab)
	for name, c := range map[string]struct {
		change func(*llm.Request)
		param  string
	}{
		"negative id":   {func(r *llm.Request) { r.Prompts[0] = ids(5, -1, 5) }, "prompt"},
		"id beyond":     {func(r *llm.Request) { r.Prompts[0] = ids(5, 5, vocab) }, "prompt"},
		"second prompt": {func(r *llm.Request) { r.Prompts = append(r.Prompts, ids(1<<31-1)) }, "prompt"},
		"bias":          {func(r *llm.Request) { r.Sampling.LogitBias = map[int32]float32{vocab: 1} }, "logit_bias"},
		"negative bias": {func(r *llm.Request) { r.Sampling.LogitBias = map[int32]float32{-1: 1} }, "logit_bias"},
		"temperature":   {func(r *llm.Request) { r.Sampling.Temperature = -1 }, "temperature"},
		"no choice":     {func(r *llm.Request) { r.N = 0 }, "n"},
		"no prompt":     {func(r *llm.Request) { r.Prompts = nil }, "n"},
	} {
		r := request(text("x"), 3)
		c.change(r)
		if e := wantError(t, run(t, p, r).err, llm.KindInvalid); e.Param != c.param || e.Message == "" {
			t.Errorf("%s: param %q, %q", name, e.Param, e.Message)
		}
	}
	// An empty prompt starts from the begin-of-sequence token.
	want := must(t, p, request(ids(testmodel.BOS), 5)).choices[0].text
	for _, pr := range []llm.Prompt{text(""), {Tokens: []int32{}}} {
		if o := must(t, p, request(pr, 5)); o.choices[0].text != want || o.usage.PromptTokens != 1 {
			t.Errorf("empty prompt: %q %+v, want %q", o.choices[0].text, o.usage, want)
		}
	}
}

// Several prompts and choices: every event carries prompt*N + choice, greedy choices of a prompt are equal, sampled ones are not,
// and prompt tokens count once a prompt.
func TestPromptsAndChoices(t *testing.T) {
	p := open(t, nil)
	prompts := []llm.Prompt{text("The server keeps"), ids(ramp(3, 40)...), text("What is the capital")}
	var alone []string
	tokens := 0
	for _, pr := range prompts {
		o := must(t, p, request(pr, 12))
		alone = append(alone, o.choices[0].text)
		tokens += o.usage.PromptTokens
	}
	r := request(prompts[0], 12)
	r.Prompts, r.N = prompts, 3
	o := must(t, p, r)
	for i, c := range o.choices {
		if c.text != alone[i/3] {
			t.Errorf("choice %d: %q, alone %q", i, c.text, alone[i/3])
		}
	}
	if o.usage.PromptTokens != tokens || o.usage.CompletionTokens != 9*12 {
		t.Errorf("usage %+v, want %d prompt tokens and %d generated", o.usage, tokens, 9*12)
	}
	r.Sampling.Temperature, r.Sampling.Seed = 1, 5
	seen := map[string]bool{}
	for _, c := range must(t, p, r).choices {
		seen[c.text] = true
	}
	if len(seen) != 9 {
		t.Errorf("9 sampled choices, %d different texts", len(seen))
	}
}

func TestEcho(t *testing.T) {
	p := open(t, nil)
	const s = "The café keeps 雪."
	for _, pr := range []llm.Prompt{text(s), ids(p.Tokenizer().Encode(nil, s, tokenOptions)...)} {
		plain := must(t, p, request(pr, 6))
		r := request(pr, 6)
		r.Echo, r.N = true, 2
		st, err := p.Generate(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		// With the first event it is known what is reused, whatever that event is.
		first, err := st.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if d := st.Decisions()[0]; d.Reason != llm.ReasonFull || st.Usage().CachedTokens != plain.usage.PromptTokens-1 {
			t.Errorf("with the first event (%q) decision %+v, usage %+v", first.Text, d, st.Usage())
		}
		o := read(st, 2)
		o.choices[first.Choice].text = first.Text + o.choices[first.Choice].text
		for i, c := range o.choices {
			if c.text != s+plain.choices[0].text {
				t.Errorf("choice %d: %q, want %q", i, c.text, s+plain.choices[0].text)
			}
		}
		if o.usage.CompletionTokens != 12 {
			t.Errorf("usage %+v", o.usage)
		}
	}
}

// A prompt that was seen is reused but for its last token, and changes nothing: not a token, not a bit of a log-probability.
func TestWarmEqualsCold(t *testing.T) {
	p := open(t, nil)
	for n := 1; n <= 130; n += 13 {
		r := request(ids(ramp(n, n)...), 40)
		r.Logprobs, r.Sampling.Temperature, r.Sampling.Seed = 3, 0.8, uint64(n)
		cold, warm := must(t, p, r), must(t, p, r)
		r.NoCache = true
		without := must(t, p, r)
		if cold.usage.CachedTokens != 0 || warm.usage.CachedTokens != n-1 || without.usage.CachedTokens != 0 {
			t.Errorf("%d tokens: %+v then %+v, without cache %+v", n, cold.usage, warm.usage, without.usage)
		}
		if want := (llm.Decision{PromptTokens: n, Reused: n - 1, Reason: llm.ReasonFull}); warm.decisions[0] != want {
			t.Errorf("%+v, want %+v", warm.decisions[0], want)
		}
		if d := without.decisions[0]; d.Reason != llm.ReasonDisabled {
			t.Errorf("%+v", d)
		}
		equalTokens(t, "warm", warm.choices[0], cold.choices[0])
		equalTokens(t, "without cache", without.choices[0], cold.choices[0])
	}
}

func equalTokens(t *testing.T, what string, got, want output) {
	t.Helper()
	same := func(a, b llm.TokenLogprob) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Logprob, b.Logprob))
	}
	if got.text != want.text || slices.CompareFunc(got.tokens, want.tokens, func(a, b llm.TokenInfo) int {
		return cmp.Or(same(a.TokenLogprob, b.TokenLogprob), slices.CompareFunc(a.Top, b.Top, same))
	}) != 0 {
		t.Errorf("%s: %q\n%v\nwant %q\n%v", what, got.text, got.tokens, want.text, want.tokens)
	}
}

// The next turn of a conversation starts where the last one ended.
func TestNextTurn(t *testing.T) {
	p := open(t, nil)
	r := request(ids(ramp(2, 70)...), 20)
	r.Logprobs = 0
	first := must(t, p, r)
	next := slices.Concat(ramp(2, 70), first.choices[0].ids(), []int32{9, 8, 7})
	o := must(t, p, request(ids(next...), 3))
	if want := (llm.Decision{PromptTokens: 93, Reused: 89, Reason: llm.ReasonExtended}); o.decisions[0] != want {
		t.Errorf("%+v, want %+v", o.decisions[0], want)
	}
}

func TestTenantsApart(t *testing.T) {
	p := open(t, nil)
	r := request(ids(ramp(1, 100)...), 5)
	a := must(t, p, r)
	r.Tenant = "b"
	b := must(t, p, r)
	if want := (llm.Decision{PromptTokens: 100, Reason: llm.ReasonNeverSeen}); b.decisions[0] != want || b.usage.CachedTokens != 0 {
		t.Errorf("another tenant: %+v", b.decisions[0])
	}
	if a.choices[0].text != b.choices[0].text {
		t.Errorf("%q and %q", a.choices[0].text, b.choices[0].text)
	}
	if b = must(t, p, r); b.usage.CachedTokens != 99 {
		t.Errorf("its own prompt again: %+v", b.usage)
	}
}

// A request or a server without cache neither reads nor fills it.
func TestNoCache(t *testing.T) {
	for name, server := range map[string]bool{"request": false, "server": true} {
		p := open(t, func(o *Options) { o.NoCache = server })
		r := request(ids(ramp(1, 100)...), 5)
		r.NoCache = !server
		for range 2 {
			if o := must(t, p, r); o.usage.CachedTokens != 0 || o.decisions[0].Reason != llm.ReasonDisabled {
				t.Errorf("%s: %+v", name, o.decisions[0])
			}
		}
		eventually(t, p, name, func(s sched.Stats) bool { return s.Cache.Free == s.Cache.Total })
		r.NoCache = false
		if o := must(t, p, r); o.usage.CachedTokens != 0 {
			t.Errorf("%s: it had been filled: %+v", name, o.usage)
		}
	}
}

// A seed fixes the choice, alone or among strangers; another seed gives another.
func TestSeeds(t *testing.T) {
	p := open(t, nil)
	sampled := func(seed uint64, noCache bool) *llm.Request {
		r := request(text("She said that"), 25)
		r.Sampling.Temperature, r.Sampling.Seed, r.Logprobs, r.NoCache = 1, seed, 0, noCache
		return r
	}
	alone := must(t, p, sampled(7, true)).choices[0]
	equalTokens(t, "again", must(t, p, sampled(7, true)).choices[0], alone)
	if other := must(t, p, sampled(8, true)).choices[0]; other.text == alone.text {
		t.Errorf("seeds 7 and 8 both give %q", other.text)
	}
	var streams []llm.Stream
	for i := range 12 {
		r := sampled(7, i%2 == 0)
		if i%3 != 0 {
			r = request(ids(ramp(i, 20*i+1)...), 10+i)
			r.Sampling.Temperature, r.Sampling.Seed = 1, uint64(i)
		}
		st, err := p.Generate(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		streams = append(streams, st)
	}
	for i, st := range streams {
		if o := read(st, 1); o.err != nil {
			t.Error(o.err)
		} else if i%3 == 0 {
			equalTokens(t, "among strangers", o.choices[0], alone)
		}
	}
}

// Close takes a request off the loop, running or waiting; what it had computed in whole blocks stays cached.
func TestCancel(t *testing.T) {
	p := open(t, func(o *Options) { o.MaxBatch = 1 })
	start := func(r *llm.Request) llm.Stream {
		st, err := p.Generate(context.Background(), r)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	running := start(request(ids(ramp(1, 100)...), 3000))
	waiting := start(request(ids(ramp(2, 100)...), 3000))
	if _, err := running.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Running != 1 || s.Waiting != 1 {
		t.Errorf("one runs and one waits: %+v", s)
	}
	waiting.Close()
	eventually(t, p, "the waiting one is gone", func(s sched.Stats) bool { return s.Waiting == 0 })
	running.Close()
	running.Close()
	eventually(t, p, "nothing runs", func(s sched.Stats) bool {
		return s.Running == 0 && s.Waiting == 0 && s.Cache.Held == 0 && s.Cache.Free+s.Cache.Cached == s.Cache.Total
	})
	steps := p.Stats().Steps
	for _, st := range []llm.Stream{running, waiting} {
		var err error
		for err == nil {
			_, err = st.Next(context.Background())
		}
		wantError(t, err, llm.KindCanceled)
	}
	if o := must(t, p, request(ids(ramp(1, 100)...), 1)); o.usage.CachedTokens != 99 {
		t.Errorf("a cancelled prompt again: %+v", o.usage)
	}
	if got := p.Stats().Steps; got > steps+2 {
		t.Errorf("%d steps for one token after the cancellation", got-steps)
	}
	// Next ends with its context, and the request goes on until Close.
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	st := start(request(ids(ramp(4, 300)...), 3000))
	var err error
	for err == nil {
		_, err = st.Next(ctx)
	}
	wantError(t, err, llm.KindCanceled)
	st.Close()
	eventually(t, p, "nothing runs", func(s sched.Stats) bool { return s.Running+s.Waiting == 0 })
}

func TestQueueFull(t *testing.T) {
	p := open(t, func(o *Options) { o.MaxBatch, o.MaxQueue = 1, 2 })
	long := request(ids(ramp(1, 50)...), 3000)
	running, err := p.Generate(context.Background(), long)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := running.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	// Requests count, not their sequences: two may wait, however many choices they ask for.
	five := request(text("The server"), 2)
	five.N = 5
	var waiting []llm.Stream
	for range 2 {
		w, err := p.Generate(context.Background(), five)
		if err != nil {
			t.Fatal(err)
		}
		waiting = append(waiting, w)
	}
	_, err = p.Generate(context.Background(), request(text("x"), 1))
	if e := wantError(t, err, llm.KindOverloaded); e.RetryAfter < 1 || e.Message == "" {
		t.Errorf("%+v", e)
	}
	// Another tenant is not locked out by them.
	other := request(text("x"), 1)
	other.Tenant = "other"
	w, err := p.Generate(context.Background(), other)
	if err != nil {
		t.Fatal(err)
	}
	running.Close()
	for _, w := range waiting {
		if o := read(w, 5); o.err != nil || o.usage.CompletionTokens != 10 {
			t.Errorf("a waiting one: %v %+v", o.err, o.usage)
		}
	}
	if o := read(w, 1); o.err != nil || o.usage.CompletionTokens != 1 {
		t.Errorf("the other tenant's: %v %+v", o.err, o.usage)
	}
	must(t, p, request(text("x"), 1))
}

// Close lets what runs finish, and refuses what comes; with a context that has ended it cuts off.
func TestClose(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(path, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	for _, cut := range []bool{false, true} {
		p, err := Open(path, options())
		if err != nil {
			t.Fatal(err)
		}
		n := 50
		if cut {
			n = 3000
		}
		st, err := p.Generate(context.Background(), request(ids(ramp(1, 100)...), n))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		if cut {
			cancel()
		}
		closed := make(chan error, 1)
		go func() { closed <- p.Close(ctx) }()
		o := read(st, 1)
		switch err := <-closed; {
		case cut:
			wantError(t, o.err, llm.KindUnavailable)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("Close: %v", err)
			}
		case err != nil || o.err != nil || o.usage.CompletionTokens != n:
			t.Errorf("Close: %v; the stream: %v %+v", err, o.err, o.usage)
		}
		cancel()
		_, err = p.Generate(context.Background(), request(text("x"), 1))
		wantError(t, err, llm.KindUnavailable)
		checkBlocks(t, p)
	}
}

func TestTimings(t *testing.T) {
	p := open(t, nil)
	st, err := p.Generate(context.Background(), request(ids(ramp(1, 300)...), 10))
	if err != nil {
		t.Fatal(err)
	}
	read(st, 1)
	if m := st.Timings(); !(m.Queue > 0 && m.Prefill > 0 && m.Decode > 0) {
		t.Errorf("%+v", m)
	}
}

// With more prompts than run at once, the first event comes when it is certain what is reused of all of them.
func TestDecisionsWithFirstEvent(t *testing.T) {
	p := open(t, func(o *Options) { o.MaxBatch = 1 })
	must(t, p, request(ids(ramp(2, 100)...), 1))
	r := request(ids(ramp(1, 50)...), 20)
	r.Prompts = append(r.Prompts, ids(ramp(2, 100)...))
	st, err := p.Generate(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Next(context.Background()); err != nil {
		t.Fatal(err)
	}
	if d := st.Decisions(); d[1].Reason == "" || st.Usage().CachedTokens != 99 {
		t.Errorf("with the first event: %+v %+v", d, st.Usage())
	}
	read(st, 2)
}
