// Package pipeline is a served model: it takes a request through template and tokenizer to the scheduler, and its tokens
// back through the detokenizer into a stream of events. The server and `kvasir run` both use it.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/engine"
	"kvasir/internal/gguf"
	"kvasir/internal/grammar"
	"kvasir/internal/kernel"
	"kvasir/internal/llm"
	"kvasir/internal/model"
	"kvasir/internal/sample"
	"kvasir/internal/sched"
	"kvasir/internal/store"
	"kvasir/internal/store/disk"
	"kvasir/internal/template"
	"kvasir/internal/token"
)

// Options of Open.
type Options struct {
	Names     []string // the first is the model's id, the others are aliases
	Digest    [32]byte // SHA-256 of the file
	Adapters  []Adapter
	Path      kernel.Path
	Threads   int
	CPUs      []int // where the threads stay, if there are as many; see engine.Options
	Context   int   // 0: the model's own, or what the KV budget holds
	BlockSize int
	KVBytes   uint64 // budget of all KV, that of running sequences included
	MaxQueue  int
	MaxBatch  int
	MaxRows   int        // rows of a step; 0 is 512
	NoCache   bool       // never reuse
	NoDrafts  bool       // never check guessed tokens
	Accurate  bool       // float32 throughout; see model.Options
	Secret    []byte     // of the deployment, for tenants' scopes
	Disk      *disk.Tier // below memory; nil: none. It is not closed
	Load      sched.LoadMode
	Turn      sync.Locker // held while a step is computed, for models that share the processors; nil: none do
	Log       *slog.Logger
}

// memoBytes bounds what the tokenizer remembers of prompts: some three million tokens.
const memoBytes = 32 << 20

// Pipeline is a model that serves requests. Safe for concurrent use.
type Pipeline struct {
	o         Options
	model     *model.Model
	memory    *store.Memory
	engine    *engine.Engine
	sched     *sched.Scheduler
	tokenizer *token.Tokenizer
	memo      *token.Memo
	template  *template.Template // nil if the model has none
	info      llm.ModelInfo
	adapters  []adapter
	models    []llm.ModelInfo // the model and its adapters
	limit     int             // tokens a sequence may hold
	identity  cache.Identity
	disk      *disk.Model // nil without Options.Disk
	longest   int         // bytes of the longest token
	grammars  func() *grammar.Cache
	encoding  chan struct{} // bounds how many prompts are encoded at once: the step needs the processors too

	mu    sync.Mutex
	roots map[string]map[string]cache.Key // by tenant, and adapters with their scales
}

// Open loads the GGUF file at path and starts its step loop.
func Open(path string, o Options) (_ *Pipeline, err error) {
	if len(o.Names) == 0 {
		return nil, errors.New("a served model needs a name")
	}
	if o.MaxRows == 0 {
		o.MaxRows = 512
	}
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	p := &Pipeline{o: o, roots: map[string]map[string]cache.Key{}, encoding: make(chan struct{}, max(1, o.Threads/2))}
	defer func() {
		if err != nil {
			p.release(f)
		}
	}()
	quant, values := commonType(f), weightValues(f)
	if err := p.openText(f); err != nil {
		return nil, err
	}
	if p.model, err = model.Load(f, model.Options{Path: o.Path, Context: o.Context, BlockSize: o.BlockSize, Threads: o.Threads, Accurate: o.Accurate}); err != nil {
		return nil, err
	}
	if n := p.tokenizer.Vocab(); n > p.model.Vocab {
		return nil, fmt.Errorf("the tokenizer has %d tokens, the model %d: %w", n, p.model.Vocab, gguf.ErrFormat)
	}
	c := p.model.Config
	p.identity = cache.Identity{Weights: o.Digest, BlockSize: o.BlockSize, Group: "all", Layout: model.LayoutVersion, DType: "f16",
		Numerics: p.model.Numerics(), Rope: ropeOf(&c)}
	if err := p.openAdapters(); err != nil {
		return nil, err
	}
	if err := p.openKV(values); err != nil {
		return nil, err
	}
	p.info = llm.ModelInfo{ID: o.Names[0], Aliases: o.Names[1:], Created: time.Now().Unix(), Context: p.limit, Vocab: c.Vocab,
		Bytes: f.Size(), Quant: quant, Digest: fmt.Sprintf("%x", o.Digest)}
	p.models = p.list()
	p.openGrammars()
	return p, nil
}

// openText makes tokenizer and template.
func (p *Pipeline) openText(f *gguf.File) error {
	tc, err := token.ConfigFromGGUF(f)
	if err != nil {
		return err
	}
	if p.tokenizer, err = token.New(tc); err != nil {
		return err
	}
	p.memo = p.tokenizer.NewMemo(memoBytes)
	if src, ok := f.String("tokenizer.chat_template"); ok && src != "" {
		to := template.Options{BOS: p.text(p.tokenizer.BOS()), EOS: p.text(p.tokenizer.EOS()), Now: time.Now}
		if p.template, err = template.New(src, to); err != nil {
			return fmt.Errorf("the model's chat template: %w", err)
		}
	}
	for id := range p.tokenizer.Vocab() {
		p.longest = max(p.longest, len(p.tokenizer.Bytes(int32(id))))
	}
	return nil
}

// ropeOf is what the rotary tables depend on, for block keys.
func ropeOf(c *model.Config) cache.Rope {
	r := cache.Rope{Scaling: "none", Dimensions: c.HeadSize, Base: c.RopeBase, Factor: c.RopeScale}
	if c.RopeScale != 1 {
		r.Scaling = "linear"
	}
	for _, f := range c.RopeFactors {
		r.Extra = append(r.Extra, float64(f))
	}
	return r
}

// openKV sizes the memory tier to the budget and starts engine and scheduler. values is how many weights there are.
func (p *Pipeline) openKV(values float64) (err error) {
	l := p.model.Layout
	blocks := int(min(p.o.KVBytes/uint64(l.BlockBytes()), 1<<31-1))
	if blocks < 4 {
		return fmt.Errorf("a KV budget of %d bytes holds %d blocks of %d bytes; at least 4 are needed: raise --cache-mem", p.o.KVBytes, blocks, l.BlockBytes())
	}
	// One block stays free for the copy of a partly shared one.
	p.limit = min(p.model.Context, (blocks-1)*l.BlockSize)
	if p.o.Context > p.limit {
		return fmt.Errorf("a context of %d tokens does not fit a KV budget that holds %d: lower --ctx or raise --cache-mem", p.o.Context, p.limit)
	}
	if p.memory, err = store.NewMemory(blocks, l.BlockBytes()); err != nil {
		return err
	}
	if p.engine, err = engine.New(p.model, p.memory, engine.Options{Threads: p.o.Threads, CPUs: p.o.CPUs, MaxRows: p.o.MaxRows}); err != nil {
		return err
	}
	so := sched.Options{MaxQueue: p.o.MaxQueue, MaxBatch: p.o.MaxBatch, NoDrafts: p.o.NoDrafts, Log: p.o.Log, Load: p.o.Load}
	if p.o.Disk != nil && !p.o.NoCache {
		id := &p.identity
		p.disk, err = p.o.Disk.Model(disk.Format{Weights: id.Weights, BlockSize: id.BlockSize, Group: id.Group, Layout: id.Layout, DType: id.DType,
			Numerics: id.Numerics, Layers: l.Layers, Bytes: l.BlockBytes()})
		if err != nil {
			return err
		}
		so.Tier, so.RowTime = p.disk, 2*values/(float64(max(1, p.o.Threads))*quickestThread)
	}
	c := cache.New(cache.Config{Blocks: blocks, BlockSize: l.BlockSize, Saving: so.Tier != nil})
	var e sched.Engine = p.engine
	if p.o.Turn != nil {
		e = turns{p.engine, p.o.Turn}
	}
	p.sched = sched.New(e, c, so)
	return nil
}

func (p *Pipeline) release(f *gguf.File) {
	if p.engine != nil {
		p.engine.Close()
	}
	if p.memory != nil {
		p.memory.Close()
	}
	for _, a := range p.adapters {
		a.packed.Close()
	}
	if p.model != nil {
		p.model.Close()
	} else {
		f.Close()
	}
}

// Close drains the scheduler until ctx ends and frees everything.
func (p *Pipeline) Close(ctx context.Context) error {
	err := p.sched.Close(ctx)
	if errors.Is(err, sched.ErrBusy) {
		return err // the process ends, and the memory with it
	}
	p.release(nil)
	return err
}

// quickestThread is how many operations a second a thread computes at the very most: until a prompt token's time has been measured, what is loaded from
// disk is held against that.
const quickestThread = 400e9

// weightValues is how many values all tensors have.
func weightValues(f *gguf.File) (n float64) {
	for i := range f.Tensors {
		v := 1.0
		for _, d := range f.Tensors[i].Dims {
			v *= float64(d)
		}
		n += v
	}
	return n
}

// commonType names the weight type that holds most of the file.
func commonType(f *gguf.File) string {
	n := map[gguf.Type]int{}
	best := gguf.F32
	for _, t := range f.Tensors {
		n[t.Type] += len(t.Data)
		if n[t.Type] > n[best] {
			best = t.Type
		}
	}
	return best.String()
}

func (p *Pipeline) text(id int32) string {
	if id < 0 {
		return ""
	}
	return string(p.tokenizer.Bytes(id))
}

// Models lists what is served here: the model, and its adapters in order. The list is not to be changed.
func (p *Pipeline) Models() []llm.ModelInfo { return p.models }

// Ready says whether requests are taken.
func (p *Pipeline) Ready() bool { return true }

// Stats of the scheduler and the cache.
func (p *Pipeline) Stats() sched.Stats { return p.sched.Stats() }

// KVTokens is how many tokens the KV budget holds; TokenBytes is what one takes.
func (p *Pipeline) KVTokens() int { return p.memory.Blocks() * p.model.Layout.BlockSize }

// TokenBytes is the KV of one token in bytes.
func (p *Pipeline) TokenBytes() int { return p.model.Layout.TokenBytes() }

// Tokenizer of the model.
func (p *Pipeline) Tokenizer() *token.Tokenizer { return p.tokenizer }

// Generate implements the server's Generator.
func (p *Pipeline) Generate(ctx context.Context, r *llm.Request) (llm.Stream, error) {
	if err := sample.Check(r.Sampling); err != nil {
		return nil, err
	}
	if r.N < 1 || len(r.Prompts) == 0 {
		return nil, llm.Invalid("n", "at least one prompt and one choice are needed")
	}
	if err := sample.CheckVocab(r.Sampling, p.model.Vocab); err != nil {
		return nil, err
	}
	uses, key, err := p.uses(r)
	if err != nil {
		return nil, err
	}
	if err := p.sched.Full(r.Tenant); err != nil {
		return nil, asError(err)
	}
	select {
	case p.encoding <- struct{}{}:
		defer func() { <-p.encoding }()
	case <-ctx.Done():
		return nil, asError(sched.ErrCanceled)
	}
	g, err := p.grammarOf(r)
	if err != nil {
		return nil, err
	}
	prompts := make([][]int32, len(r.Prompts))
	lens := make([]int, len(r.Prompts))
	for i := range r.Prompts {
		ids, err := p.encode(&r.Prompts[i], r)
		if err != nil {
			return nil, err
		}
		if ids, err = p.fit(ids, r); err != nil {
			return nil, err
		}
		prompts[i], lens[i] = ids, len(ids)
	}
	st := newStream(p.sched, lens, r.N)
	for i, ids := range prompts {
		for k := range r.N {
			j := p.job(st, r, i, k, ids, g)
			j.Root, j.Adapters = p.root(r.Tenant, key), uses
			st.jobs = append(st.jobs, j)
		}
	}
	if err := p.sched.Submit(st.jobs...); err != nil {
		return nil, asError(err)
	}
	return st, nil
}

// job makes the job of choice k of prompt i, but for what depends on adapters.
func (p *Pipeline) job(st *stream, r *llm.Request, i, k int, ids []int32, g *grammar.Grammar) *sched.Job {
	index := i*r.N + k
	left := p.limit - len(ids)
	if r.MaxTokens > 0 {
		left = min(left, r.MaxTokens)
	}
	j := &sched.Job{Tenant: r.Tenant, Prompt: ids, NoCache: r.NoCache || p.o.NoCache, Limit: len(ids) + left}
	c := &choice{index: index, stream: st, job: j, sampler: sample.New(p.o.Path, r.Sampling, index, r.Logprobs), tokenizer: p.tokenizer,
		decoder: p.tokenizer.NewDecoder(false), stop: r.Stop, ignoreEOS: r.IgnoreEOS, logprobs: r.Logprobs >= 0, left: left}
	if g != nil {
		c.matcher = g.NewMatcher() // whose text begins with the first token's bytes as they are
	} else {
		c.decoder.After(ids[len(ids)-1])
	}
	c.sampler.Prompt(ids)
	var echo *llm.Event
	if r.Echo {
		echo = &llm.Event{Choice: index, Text: p.echo(&r.Prompts[i], ids)}
	}
	j.Started = func(d llm.Decision) { st.started(index, d) }
	j.Next = c.next
	if echo != nil { // with the first token, not before: then it is certain what is reused
		j.Next = func(logits []float32, position int) (int32, bool, error) {
			if echo != nil {
				st.push(*echo)
				echo = nil
			}
			return c.next(logits, position)
		}
	}
	j.Done = func(err error) { st.ended(index, err) }
	return j
}

// echo is the text of a prompt, as the caller wrote it if it was text.
func (p *Pipeline) echo(pr *llm.Prompt, ids []int32) string {
	if pr.IsText {
		return pr.Text
	}
	return p.tokenizer.Decode(ids, true)
}

// encode turns a prompt into token ids.
func (p *Pipeline) encode(pr *llm.Prompt, r *llm.Request) ([]int32, error) {
	// A text that is too long whatever its tokens are is refused before they are made.
	bytes := len(pr.Text)
	for i := range pr.Messages {
		bytes += len(pr.Messages[i].Content)
	}
	if least := (bytes + p.longest - 1) / p.longest; least > p.limit && !r.TruncatePrompt {
		return nil, p.tooLong(r, least, "at least ")
	}
	switch {
	case pr.Messages != nil:
		if p.template == nil {
			return nil, llm.Invalid("messages", "the model %s has no chat template; use /v1/completions", p.info.ID)
		}
		out, err := p.template.Render(template.Input{Messages: pr.Messages, AddGenerationPrompt: true, Args: r.TemplateArgs})
		if err != nil {
			return nil, err
		}
		// What a participant wrote is never read as a special token.
		o := token.Options{ParseSpecial: true, NoSpecial: make([]token.Range, 0, len(out.Spans))}
		for _, s := range out.Spans {
			o.NoSpecial = append(o.NoSpecial, token.Range{Start: s.Start, End: s.End})
		}
		return p.ids(out.Text, o, r), nil
	case pr.IsText:
		return p.ids(pr.Text, token.Options{AddBOS: true, ParseSpecial: true}, r), nil
	}
	for _, id := range pr.Tokens {
		if id < 0 || int(id) >= p.model.Vocab {
			return nil, llm.Invalid("prompt", "token id %d is outside the vocabulary of %d", id, p.model.Vocab)
		}
	}
	return pr.Tokens, nil
}

// ids encodes a text, and remembers its parts for the tenant's next one unless nothing is to be kept.
func (p *Pipeline) ids(text string, o token.Options, r *llm.Request) []int32 {
	if r.NoCache || p.o.NoCache {
		return p.tokenizer.Encode(nil, text, o)
	}
	return p.memo.Encode(nil, r.Tenant, text, o)
}

// fit checks the prompt against the context, and cuts its beginning only if the request asks for it.
func (p *Pipeline) fit(ids []int32, r *llm.Request) ([]int32, error) {
	if len(ids) == 0 {
		// Models without a begin-of-sequence token have nothing to start an empty prompt from.
		if bos := p.tokenizer.BOS(); bos >= 0 {
			return []int32{bos}, nil
		}
		return nil, llm.Invalid("prompt", "the prompt has no tokens")
	}
	room := p.limit - max(1, r.MaxTokens)
	if len(ids) <= room {
		return ids, nil
	}
	if r.TruncatePrompt && room > 0 {
		return ids[len(ids)-room:], nil
	}
	return nil, p.tooLong(r, len(ids), "")
}

// tooLong is the error for a prompt of n tokens (or at least n).
func (p *Pipeline) tooLong(r *llm.Request, n int, atLeast string) error {
	param := "prompt"
	if r.Prompts[0].Messages != nil {
		param = "messages"
	}
	gen := max(1, r.MaxTokens)
	return &llm.Error{Kind: llm.KindContextLength, Param: param, Code: "context_length_exceeded", Message: fmt.Sprintf(
		"this model's maximum context length is %d tokens, but the request needs %s%d: %s%d in the prompt and %d to generate; shorten it, or raise --ctx or --cache-mem",
		p.limit, atLeast, n+gen, atLeast, n, gen)}
}

// NewSeed is a seed for requests that bring none.
func NewSeed() uint64 { return rand.Uint64() }

// asError gives scheduler errors the form that dialects can map.
func asError(err error) error {
	var e *llm.Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, sched.ErrQueueFull):
		return &llm.Error{Kind: llm.KindOverloaded, Message: "the queue is full, try again later", Code: "rate_limit_exceeded", RetryAfter: 1}
	case errors.Is(err, sched.ErrClosed):
		return &llm.Error{Kind: llm.KindUnavailable, Message: "the server is shutting down", RetryAfter: 5}
	case errors.Is(err, sched.ErrCanceled):
		return &llm.Error{Kind: llm.KindCanceled, Message: "the request was canceled"}
	}
	return &llm.Error{Kind: llm.KindInternal, Message: err.Error()}
}
