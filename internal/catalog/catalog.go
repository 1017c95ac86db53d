// Package catalog serves several models as one: it loads a model when a request first names it, and unloads models that nobody has used
// for a while or whose memory another one needs.
//
// A model is unloaded, loading, loaded or closing. Requests for a loaded model pass straight through, whatever the others do. Requests for any
// other one wait in one queue of models. The first in it may have models unloaded, least recently used first, idle ones before busy ones; a busy
// one is drained: what runs on it finishes, and new requests for it wait in the queue behind. So none starves, and nothing is cut off.
// Models behind the first are loaded if there is room beside what the first will need.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"kvasir/internal/llm"
)

// A Model is a loaded model. Close is called once, when none of its streams is open any more, or at the end of the program.
type Model interface {
	// Models are the Entry's with what only a loaded model knows, found by their IDs.
	Models() []llm.ModelInfo
	Generate(ctx context.Context, r *llm.Request) (llm.Stream, error)
	Close(ctx context.Context) error
}

// An Entry is a model that can be served.
type Entry struct {
	// Models are its names: the first is the model itself, others may be variants of it that one load serves.
	Models []llm.ModelInfo
	// Bytes is the memory that it takes while it is loaded.
	Bytes uint64
	// Open loads it. It is not called again before the Model was closed.
	Open func(ctx context.Context) (Model, error)
}

// Options of New. The zero value sets no bounds.
type Options struct {
	Memory     uint64        // bound over the Bytes of what is loaded; 0: none
	MaxLoaded  int           // models that are loaded at once; 0: no bound
	Idle       time.Duration // a model is unloaded when it was not used for so long; 0: never
	MaxWaiting int           // requests that wait for loading; more are refused. 0: no bound
	Retry      time.Duration // a load that failed is not tried again for so long; 0: 5 s
	Log        *slog.Logger  // nil: none
}

type state int

const (
	unloaded state = iota
	loading
	loaded
	closing
)

// entry is an Entry with its state, which Catalog.mu guards.
type entry struct {
	Entry
	state    state
	model    Model       // while loaded
	streams  int         // that are open or being opened
	draining bool        // loaded, but its memory is wanted: new requests wait
	used     uint64      // by Catalog.clock, when a request last began or ended
	waiters  []*waiter   // requests
	err      error       // of the last load
	failed   time.Time   // when
	idle     *time.Timer // while it is loaded and has no stream
}

// A waiter is a request that waits for a model. It is told once: by then the model counts its stream already, so that nobody
// unloads the model between.
type waiter struct {
	told  chan struct{} // closed once model or err is set
	model Model
	err   error
}

func (e *entry) name() string { return e.Models[0].ID }

// A Catalog is the models of one server. It is safe for concurrent use.
type Catalog struct {
	o       Options
	entries []*entry
	byName  map[string]*entry
	ctx     context.Context // of loads
	stop    context.CancelFunc
	running sync.WaitGroup // goroutines that load or close

	mu      sync.Mutex
	queue   []*entry // that requests wait for and that are not loading; in the order of their first request
	clock   uint64
	waiting int
	closed  bool
	stats   Stats
}

// Stats count since the start, but for Loaded.
type Stats struct {
	Loaded  int // now
	Loads   int // that succeeded
	Failed  int // loads
	Unloads int
}

// New makes a catalog. It fails if names are missing or not unique, or if one entry alone is more than the memory.
func New(entries []Entry, o Options) (*Catalog, error) {
	if len(entries) == 0 {
		return nil, errors.New("a catalog needs a model")
	}
	if o.Retry == 0 {
		o.Retry = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Catalog{o: o, byName: map[string]*entry{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	for _, given := range entries {
		e := &entry{Entry: given}
		e.Models = slices.Clone(e.Models)
		if len(e.Models) == 0 {
			return nil, errors.New("a model of the catalog has no name")
		}
		for _, m := range e.Models {
			for _, name := range append([]string{m.ID}, m.Aliases...) {
				if name == "" || c.byName[name] != nil {
					return nil, fmt.Errorf("the name %q is missing or not unique in the catalog", name)
				}
				c.byName[name] = e
			}
		}
		if o.Memory > 0 && e.Bytes > o.Memory {
			return nil, fmt.Errorf("the model %s needs %d MiB of memory with its cache, there are %d MiB", e.name(), e.Bytes>>20, o.Memory>>20)
		}
		c.entries = append(c.entries, e)
	}
	return c, nil
}

// Models lists what can be served, loaded or not.
func (c *Catalog) Models() []llm.ModelInfo {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []llm.ModelInfo
	for _, e := range c.entries {
		out = append(out, e.Models...)
	}
	return out
}

// Ready says whether requests are taken.
func (c *Catalog) Ready() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed
}

// Stats returns the counts so far.
func (c *Catalog) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	for _, e := range c.entries {
		if e.state == loaded {
			s.Loaded++
		}
	}
	return s
}

// Generate passes r on to the model that it names, once that is loaded.
func (c *Catalog) Generate(ctx context.Context, r *llm.Request) (llm.Stream, error) {
	e := c.byName[r.Model]
	if e == nil {
		return nil, &llm.Error{Kind: llm.KindNotFound, Param: "model", Message: fmt.Sprintf("the model %q is not served here", r.Model)}
	}
	m, err := c.acquire(ctx, e)
	if err != nil {
		return nil, err
	}
	st, err := m.Generate(ctx, r)
	if err != nil {
		c.release(e)
		return nil, err
	}
	return &stream{Stream: st, done: func() { c.release(e) }}, nil
}

// Load loads a model now, for a first request that need not wait. Its error is the load's own.
func (c *Catalog) Load(ctx context.Context, name string) error {
	e := c.byName[name]
	if e == nil {
		return fmt.Errorf("no model %q in the catalog", name)
	}
	_, err := c.acquire(ctx, e)
	c.mu.Lock()
	cause := e.err
	c.mu.Unlock()
	if err == nil {
		c.release(e)
		return nil
	}
	if cause != nil {
		return cause
	}
	return err
}

// A stream gives its model free when it is closed.
type stream struct {
	llm.Stream
	once sync.Once
	done func()
}

func (s *stream) Close() {
	s.Stream.Close()
	s.once.Do(s.done)
}

// acquire returns the loaded model, which stays loaded until release.
func (c *Catalog) acquire(ctx context.Context, e *entry) (Model, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return nil, errClosed()
	case e.state == loaded && !e.draining:
		e.streams++
		c.touch(e)
		return e.model, nil
	case e.state == unloaded && e.err != nil && time.Since(e.failed) < c.o.Retry:
		return nil, c.loadError(e)
	case c.o.MaxWaiting > 0 && c.waiting >= c.o.MaxWaiting:
		return nil, &llm.Error{Kind: llm.KindOverloaded, Code: "rate_limit_exceeded", Message: "too many requests wait for models to be loaded, try again later", RetryAfter: 1}
	}
	w := &waiter{told: make(chan struct{})}
	e.waiters = append(e.waiters, w)
	c.waiting++
	if e.state != loading && !slices.Contains(c.queue, e) {
		c.queue = append(c.queue, e)
		c.pump()
	}
	c.mu.Unlock()
	select {
	case <-w.told:
	case <-ctx.Done():
	}
	c.mu.Lock()
	if i := slices.Index(e.waiters, w); i >= 0 { // not told: ctx has ended
		e.waiters = slices.Delete(e.waiters, i, i+1)
		c.waiting--
		if len(e.waiters) == 0 { // nobody wants it any more
			c.dequeue(e)
			c.pump()
		}
		return nil, &llm.Error{Kind: llm.KindCanceled, Code: "canceled", Message: "the request ended while the model " + e.name() + " was being loaded"}
	}
	return w.model, w.err
}

func errClosed() error {
	return &llm.Error{Kind: llm.KindUnavailable, Code: "shutting_down", Message: "the server is shutting down", RetryAfter: 1}
}

func (c *Catalog) loadError(e *entry) error {
	return &llm.Error{Kind: llm.KindUnavailable, Code: "model_load_failed", RetryAfter: max(1, int(c.o.Retry/time.Second)),
		Message: "the model " + e.name() + " could not be loaded; the server's log says why"}
}

// tell ends the waiting for e: with its model, or with err if that is not nil. mu is held.
func (c *Catalog) tell(e *entry, err error) {
	for _, w := range e.waiters {
		if w.err = err; err == nil {
			w.model = e.model
			e.streams++
			c.touch(e)
		}
		c.waiting--
		close(w.told)
	}
	e.waiters = nil
	c.dequeue(e)
}

// touch notes that e is in use now. mu is held.
func (c *Catalog) touch(e *entry) {
	c.clock++
	e.used = c.clock
	if e.idle != nil {
		e.idle.Stop()
		e.idle = nil
	}
}

func (c *Catalog) release(e *entry) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touch(e)
	if e.streams--; e.streams > 0 || e.state != loaded { // Close has it
		return
	}
	if e.draining {
		c.unload(e, e.model, "for another model")
		return
	}
	c.rest(e)
	c.pump() // an idle model may now be unloaded for another one
}

// rest starts the time after which an unused model is unloaded. mu is held.
func (c *Catalog) rest(e *entry) {
	if c.o.Idle <= 0 || e.state != loaded || e.streams > 0 {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(c.o.Idle, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.idle == t && e.state == loaded && e.streams == 0 {
			c.unload(e, e.model, "idle")
		}
	})
	e.idle = t
}

// Close refuses new requests, ends loads, and closes every model: running requests finish until ctx ends. It returns when all are closed.
func (c *Catalog) Close(ctx context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.stop()
	var models []Model
	for _, e := range c.entries {
		if e.state == loaded {
			models = append(models, e.model)
			c.touch(e)
			e.state, e.model = closing, nil
		}
		c.tell(e, errClosed())
	}
	c.mu.Unlock()
	errs := make([]error, len(models))
	for i, m := range models {
		c.running.Go(func() { errs[i] = m.Close(ctx) })
	}
	c.running.Wait()
	return errors.Join(errs...)
}
