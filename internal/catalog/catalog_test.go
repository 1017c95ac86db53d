package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kvasir/internal/llm"
)

// A world makes models and checks what must hold of all of them together at every moment.
type world struct {
	t     *testing.T
	bound uint64
	most  int

	mu     sync.Mutex
	bytes  uint64
	open   map[string]*fake
	loads  map[string]int
	fail   map[string]error
	maxNow int
}

func newWorld(t *testing.T, bound uint64, most int) *world {
	return &world{t: t, bound: bound, most: most, open: map[string]*fake{}, loads: map[string]int{}, fail: map[string]error{}}
}

// entry is a model that takes a while to load and to close.
func (w *world) entry(name string, bytes uint64, load time.Duration, aliases ...string) Entry {
	return Entry{Models: []llm.ModelInfo{{ID: name, Aliases: aliases}}, Bytes: bytes, Open: func(ctx context.Context) (Model, error) {
		w.mu.Lock()
		if w.open[name] != nil {
			w.t.Errorf("%s is loaded while it is loaded", name)
		}
		m := &fake{w: w, name: name, bytes: bytes}
		w.open[name] = m
		w.loads[name]++
		w.bytes += bytes
		w.maxNow = max(w.maxNow, len(w.open))
		if w.bound > 0 && w.bytes > w.bound || w.most > 0 && len(w.open) > w.most {
			w.t.Errorf("%d models with %d bytes are loaded", len(w.open), w.bytes)
		}
		err := w.fail[name]
		w.mu.Unlock()
		select {
		case <-time.After(load):
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err != nil {
			m.gone()
			return nil, err
		}
		return m, nil
	}}
}

func (w *world) loadsOf(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.loads[name]
}

func (w *world) isOpen(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open[name] != nil
}

// A fake is a loaded model.
type fake struct {
	w       *world
	name    string
	bytes   uint64
	streams int
	closed  bool
}

func (m *fake) gone() {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	delete(m.w.open, m.name)
	m.w.bytes -= m.bytes
}

func (m *fake) Models() []llm.ModelInfo { return []llm.ModelInfo{{ID: m.name, Context: 77}} }

func (m *fake) Generate(_ context.Context, r *llm.Request) (llm.Stream, error) {
	m.w.mu.Lock()
	defer m.w.mu.Unlock()
	if m.closed {
		m.w.t.Errorf("%s generates after it was closed", m.name)
	}
	if r.ID == "bad" {
		return nil, llm.Invalid("prompt", "bad")
	}
	m.streams++
	return &fakeStream{m: m}, nil
}

func (m *fake) Close(ctx context.Context) error {
	m.w.mu.Lock()
	if m.closed {
		m.w.t.Errorf("%s is closed twice", m.name)
	}
	m.closed = true
	if m.streams > 0 && ctx.Err() == nil {
		m.w.t.Errorf("%s is closed with %d open streams", m.name, m.streams)
	}
	m.w.mu.Unlock()
	time.Sleep(time.Second)
	m.gone()
	return nil
}

type fakeStream struct {
	m    *fake
	done bool
}

func (s *fakeStream) Next(context.Context) (llm.Event, error) { return llm.Event{}, io.EOF }
func (s *fakeStream) Usage() llm.Usage                        { return llm.Usage{} }
func (s *fakeStream) Decisions() []llm.Decision               { return nil }
func (s *fakeStream) Timings() llm.Timings                    { return llm.Timings{} }
func (s *fakeStream) Close() {
	s.m.w.mu.Lock()
	defer s.m.w.mu.Unlock()
	if !s.done {
		s.m.streams--
	}
	s.done = true
}

func make1(t *testing.T, o Options, entries ...Entry) *Catalog {
	t.Helper()
	c, err := New(entries, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(model string) *llm.Request { return &llm.Request{Model: model} }

// must generates or fails the test.
func must(t *testing.T, c *Catalog, model string) llm.Stream {
	t.Helper()
	st, err := c.Generate(context.Background(), request(model))
	if err != nil {
		t.Fatalf("%s: %v", model, err)
	}
	return st
}

// start generates in the background; the channel gives the stream, or is closed after an error.
func start(c *Catalog, ctx context.Context, model string) <-chan llm.Stream {
	out := make(chan llm.Stream, 1)
	go func() {
		defer close(out)
		if st, err := c.Generate(ctx, request(model)); err == nil {
			out <- st
		}
	}()
	return out
}

func kind(err error) llm.ErrorKind {
	var e *llm.Error
	if !errors.As(err, &e) {
		return -1
	}
	return e.Kind
}

func ended() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestFirstRequestsLoadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 0)
		c := make1(t, Options{}, w.entry("a", 1, 10*time.Second, "alias"), w.entry("b", 1, time.Second))
		defer c.Close(ended())
		var all []<-chan llm.Stream
		for i := range 20 {
			all = append(all, start(c, context.Background(), []string{"a", "alias"}[i%2]))
		}
		synctest.Wait()
		begin := time.Now()
		must(t, c, "b").Close() // does not wait for a
		if d := time.Since(begin); d != time.Second {
			t.Errorf("b took %s", d)
		}
		for _, ch := range all {
			(<-ch).Close()
		}
		if d := time.Since(begin); d != 10*time.Second || w.loadsOf("a") != 1 || w.loadsOf("b") != 1 {
			t.Errorf("after %s: loads %v", d, w.loads)
		}
		if m := c.Models(); m[0].Context != 77 || m[1].Context != 77 {
			t.Errorf("%+v: not what the loaded model says", m)
		}
		must(t, c, "a").Close()
		if s := c.Stats(); time.Since(begin) != 10*time.Second || s != (Stats{Loaded: 2, Loads: 2}) {
			t.Errorf("%+v", s)
		}
	})
}

func TestUnloadIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 0)
		c := make1(t, Options{Idle: time.Minute}, w.entry("a", 1, time.Second))
		defer c.Close(ended())
		st := must(t, c, "a")
		time.Sleep(time.Hour)
		if !w.isOpen("a") {
			t.Fatal("unloaded while a stream is open")
		}
		st.Close()
		st.Close() // twice is once
		time.Sleep(50 * time.Second)
		must(t, c, "a").Close()
		time.Sleep(50 * time.Second)
		if !w.isOpen("a") {
			t.Fatal("unloaded although it was used")
		}
		time.Sleep(12 * time.Second) // a second of it closes
		if w.isOpen("a") {
			t.Fatal("not unloaded")
		}
		if err := c.Load(context.Background(), "a"); err != nil || w.loadsOf("a") != 2 {
			t.Fatalf("not loaded again: %v", err)
		}
		time.Sleep(62 * time.Second)
		if w.isOpen("a") {
			t.Fatal("loaded ahead, not used and not unloaded")
		}
		must(t, c, "a").Close()
		if s := c.Stats(); s != (Stats{Loaded: 1, Loads: 3, Unloads: 2}) {
			t.Errorf("%+v", s)
		}
	})
}

func TestLeastRecentlyUsedGoesFirst(t *testing.T) {
	for _, o := range []Options{{Memory: 30}, {MaxLoaded: 3}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, o.Memory, o.MaxLoaded)
			var entries []Entry
			for _, n := range []string{"a", "b", "c", "d"} {
				entries = append(entries, w.entry(n, 10, time.Second))
			}
			c := make1(t, o, entries...)
			defer c.Close(ended())
			for _, n := range []string{"a", "b", "c", "a"} {
				must(t, c, n).Close()
			}
			busy := must(t, c, "b")
			must(t, c, "d").Close() // c is the one least recently used that is idle
			for n, want := range map[string]bool{"a": true, "b": true, "c": false, "d": true} {
				if w.isOpen(n) != want {
					t.Errorf("%+v: %s is loaded: %v", o, n, !want)
				}
			}
			busy.Close()
		})
	}
}

// A busy model finishes what runs on it; new requests for it wait behind the one that needs its memory, and then get it back.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10, 0)
		c := make1(t, Options{Memory: 10}, w.entry("a", 6, time.Second), w.entry("b", 6, time.Second), w.entry("small", 2, time.Second))
		defer c.Close(ended())
		a := must(t, c, "a")
		b := start(c, context.Background(), "b")
		synctest.Wait()
		a2 := start(c, context.Background(), "a")
		small := start(c, context.Background(), "small")
		time.Sleep(time.Hour)
		select {
		case <-a2:
			t.Fatal("a draining model takes a new request")
		case <-b:
			t.Fatal("loaded beyond the memory")
		default:
		}
		(<-small).Close() // fits beside both: it does not wait for the drain
		if !w.isOpen("a") {
			t.Fatal("unloaded with a stream")
		}
		begin := time.Now()
		a.Close()
		bs := <-b
		if d := time.Since(begin); d != 2*time.Second { // closing and loading
			t.Errorf("b came after %s", d)
		}
		bs.Close()
		(<-a2).Close()
		if w.loadsOf("a") != 2 {
			t.Errorf("loads %v", w.loads)
		}
	})
}

// If the request that wanted the memory goes away, the drained model goes on as before.
func TestDrainIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 10, 0)
		c := make1(t, Options{Memory: 10}, w.entry("a", 6, time.Second), w.entry("b", 6, time.Second))
		defer c.Close(ended())
		a := must(t, c, "a")
		ctx, cancel := context.WithCancel(context.Background())
		b := start(c, ctx, "b")
		synctest.Wait()
		a2 := start(c, context.Background(), "a")
		synctest.Wait()
		cancel()
		if _, ok := <-b; ok {
			t.Fatal("b was loaded")
		}
		(<-a2).Close()
		a.Close()
		synctest.Wait()
		if w.loadsOf("a") != 1 || w.loadsOf("b") != 0 || !w.isOpen("a") {
			t.Errorf("loads %v", w.loads)
		}
	})
}

func TestFailedLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 0)
		c := make1(t, Options{Retry: 5 * time.Second}, w.entry("a", 1, time.Second))
		defer c.Close(ended())
		broken := errors.New("secret path is damaged")
		w.fail["a"] = broken
		var all []<-chan llm.Stream
		for range 5 {
			all = append(all, start(c, context.Background(), "a"))
		}
		for _, ch := range all {
			if _, ok := <-ch; ok {
				t.Fatal("a stream of a model that is not there")
			}
		}
		_, err := c.Generate(context.Background(), request("a"))
		if kind(err) != llm.KindUnavailable || w.loadsOf("a") != 1 || errors.Is(err, broken) {
			t.Errorf("%v after %d loads", err, w.loadsOf("a"))
		}
		if err := c.Load(context.Background(), "a"); !errors.Is(err, broken) {
			t.Errorf("Load: %v", err)
		}
		delete(w.fail, "a")
		time.Sleep(5 * time.Second)
		must(t, c, "a").Close()
		if s := c.Stats(); s != (Stats{Loaded: 1, Loads: 1, Failed: 1}) {
			t.Errorf("%+v", s)
		}
	})
}

func TestRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 0, 0)
		c := make1(t, Options{MaxWaiting: 2}, w.entry("a", 1, time.Hour), w.entry("b", 1, 0))
		if _, err := c.Generate(context.Background(), request("x")); kind(err) != llm.KindNotFound {
			t.Errorf("unknown name: %v", err)
		}
		st := must(t, c, "b")
		if _, err := c.Generate(context.Background(), &llm.Request{Model: "b", ID: "bad"}); kind(err) != llm.KindInvalid {
			t.Errorf("the model's own error: %v", err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		first, second := start(c, ctx, "a"), start(c, context.Background(), "a")
		synctest.Wait()
		if _, err := c.Generate(context.Background(), request("a")); kind(err) != llm.KindOverloaded {
			t.Errorf("third waiting: %v", err)
		}
		cancel()
		if _, ok := <-first; ok {
			t.Error("canceled and served")
		}
		third := start(c, context.Background(), "a")
		synctest.Wait()
		begin := time.Now()
		c.Close(ended()) // ends the load
		if d := time.Since(begin); d > time.Second {
			t.Errorf("closing took %s", d)
		}
		for _, ch := range []<-chan llm.Stream{second, third} {
			if _, ok := <-ch; ok {
				t.Error("served after the end")
			}
		}
		st.Close()
		if _, err := c.Generate(context.Background(), request("b")); kind(err) != llm.KindUnavailable || c.Ready() {
			t.Errorf("after the end: %v", err)
		}
	})
}

func TestNewChecks(t *testing.T) {
	open := func(context.Context) (Model, error) { return nil, errors.New("never") }
	entry := func(bytes uint64, names ...string) Entry {
		return Entry{Models: []llm.ModelInfo{{ID: names[0], Aliases: names[1:]}}, Bytes: bytes, Open: open}
	}
	for name, entries := range map[string][]Entry{
		"none": {}, "twice": {entry(1, "a"), entry(1, "b", "a")}, "alias of itself": {entry(1, "a", "a")}, "empty": {entry(1, "")}, "no name": {{Open: open}}, "too large": {entry(11, "a")},
	} {
		if _, err := New(entries, Options{Memory: 10}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c := make1(t, Options{Memory: 10}, entry(10, "a", "x"), entry(5, "b"))
	var ids []string
	for _, m := range c.Models() {
		ids = append(ids, m.ID)
	}
	if !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("%v", ids)
	}
}

// Whatever comes in whatever order: every request that stays is served, no bound is passed, no model is closed under a stream, none is loaded twice.
// The clock is synctest's, so that a request that nobody wakes is a deadlock and fails the test.
func TestRandomUse(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			o := Options{Retry: time.Second}
			if r.IntN(2) == 0 {
				o.Memory = 10
			} else {
				o.MaxLoaded = 1 + r.IntN(3)
			}
			if r.IntN(2) == 0 {
				o.Idle = time.Duration(1+r.IntN(20)) * time.Second
			}
			w := newWorld(t, o.Memory, o.MaxLoaded)
			var entries []Entry
			for i := range 5 {
				entries = append(entries, w.entry(fmt.Sprint("m", i), uint64(1+r.IntN(10)), time.Duration(r.IntN(4000))*time.Millisecond))
			}
			c := make1(t, o, entries...)
			var wg sync.WaitGroup
			for range 120 {
				model := fmt.Sprint("m", r.IntN(5))
				wait, hold, patience := time.Duration(r.IntN(60_000))*time.Millisecond, time.Duration(r.IntN(8000))*time.Millisecond, time.Duration(0)
				if r.IntN(4) == 0 {
					patience = time.Duration(r.IntN(6000)) * time.Millisecond
				}
				wg.Go(func() {
					time.Sleep(wait)
					ctx := context.Background()
					if patience > 0 {
						var cancel context.CancelFunc
						ctx, cancel = context.WithTimeout(ctx, patience)
						defer cancel()
					}
					st, err := c.Generate(ctx, request(model))
					if err != nil {
						if patience == 0 || kind(err) != llm.KindCanceled {
							t.Errorf("seed %d: %s: %v", seed, model, err)
						}
						return
					}
					time.Sleep(hold)
					st.Close()
				})
			}
			wg.Wait()
			if c.waiting != 0 || len(c.queue) != 0 {
				t.Errorf("seed %d: %d waiting, %d in the queue", seed, c.waiting, len(c.queue))
			}
			c.Close(context.Background())
			if w.bytes != 0 || len(w.open) != 0 {
				t.Errorf("seed %d: left %v", seed, w.open)
			}
		})
	}
}
