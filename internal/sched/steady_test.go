package sched

import (
	"fmt"
	"testing"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/engine"
)

// quiet is an engine that does nothing, without allocating.
type quiet struct{ logits []float32 }

func (q *quiet) Step(*engine.Batch) error { return nil }
func (q *quiet) Logits(int) []float32     { return q.logits }
func (q *quiet) Copy(int32, int32, int)   {}
func (q *quiet) MaxRows() int             { return 512 }
func (q *quiet) Bytes(int32) []byte       { return nil }

func (q *quiet) Extract([]byte, int32, int)   {}
func (q *quiet) Fill(int32, []byte, int, int) {}

// steady returns a scheduler, without its loop, in which so many streams decode the text, and one more waits for its turn.
func steady(t *testing.T, streams int, noDrafts bool, text func(i int) int32) *Scheduler {
	t.Helper()
	// Blocks so large that none is completed: that makes a node, once in so many tokens.
	c := cache.New(cache.Config{Blocks: 40, BlockSize: 1 << 14})
	s := newScheduler(&quiet{make([]float32, 8)}, c, Options{MaxQueue: 100, MaxBatch: streams, NoDrafts: noDrafts, Now: Ticks(time.Millisecond)})
	for i := range streams + 1 {
		j := &Job{Tenant: fmt.Sprint(i), Root: cache.Key{byte(i)}, Limit: 1 << 20, Done: func(error) {}}
		for k := range 300 {
			j.Prompt = append(j.Prompt, text(k))
		}
		j.Next = func(_ []float32, pos int) (int32, bool, error) { return text(pos), false, nil }
		if err := s.Submit(j); err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		s.receive()
		s.round()
	}
	if len(s.running) != streams || len(s.queue) != 1 || s.decodes != streams {
		t.Fatalf("%d running, %d queued, %d decoding", len(s.running), len(s.queue), s.decodes)
	}
	return s
}

// A step in which streams go on allocates nothing, while another waits for admission. (AllocsPerRun rounds down: lists that grow by doubling do
// not count.)
func TestSteadyStepAllocatesNothing(t *testing.T) {
	period := func(i int) int32 { return int32(i % 11) }
	counter := func(i int) int32 { return int32(i) }
	for _, tt := range []struct {
		name     string
		streams  int
		noDrafts bool
		text     func(int) int32
	}{
		{"one stream, no drafts", 1, true, period},
		{"one stream, drafts that fail", 1, false, counter},
		{"one stream, drafts", 1, false, period},
		{"four streams, drafts", 4, false, period},
		{"sixteen streams", 16, false, period},
	} {
		s := steady(t, tt.streams, tt.noDrafts, tt.text)
		before := s.stats
		allocs := testing.AllocsPerRun(400, func() {
			s.receive()
			s.round()
		})
		if allocs != 0 {
			t.Errorf("%s: %v allocations a step", tt.name, allocs)
		}
		if (s.stats.AcceptedTokens > before.AcceptedTokens) != (!tt.noDrafts && tt.streams < 8 && tt.text(20) < 11) {
			t.Errorf("%s: %d drafts accepted", tt.name, s.stats.AcceptedTokens)
		}
	}
}

// Between steps nobody holds room for drafts.
func TestNothingStaysReserved(t *testing.T) {
	text := func(i int) int32 { return int32(i%11 + i/50) }
	c := cache.New(cache.Config{Blocks: 1000, BlockSize: 4})
	s := newScheduler(&quiet{make([]float32, 8)}, c, Options{MaxQueue: 100, MaxBatch: 3, Now: Ticks(time.Millisecond)})
	for i := range 6 {
		j := &Job{Root: cache.Key{byte(i)}, Limit: 400, Done: func(error) {}}
		for k := range 60 {
			j.Prompt = append(j.Prompt, text(k))
		}
		j.Next = func(_ []float32, pos int) (int32, bool, error) { return text(pos), pos == 399-20*i, nil }
		if err := s.Submit(j); err != nil {
			t.Fatal(err)
		}
	}
	beyond := 0 // reserved blocks
	for s.Stats().Waiting+len(s.running) > 0 {
		s.receive()
		s.round()
		for _, g := range s.batch.Segs[:s.decodes] {
			beyond += len(g.Table) - (g.Pos+4)/4
		}
		for _, j := range s.running {
			if got, want := len(j.seq.Table()), (j.seq.Len()+3)/4; got != want {
				t.Fatalf("%d blocks for %d tokens", got, j.seq.Len())
			}
		}
		if err := c.Check(); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Stats(); beyond < 10 || st.DraftTokens == st.AcceptedTokens {
		t.Errorf("%d blocks reserved, %+v: this test means little", beyond, st)
	}
}

// The time of a prompt row is what a step takes beyond its decoding.
func TestRowTime(t *testing.T) {
	s := newScheduler(&quiet{}, cache.New(cache.Config{Blocks: 4, BlockSize: 32}), Options{MaxBatch: 4})
	step := func(decodes, rows int, d time.Duration) {
		s.decodes = decodes
		s.parts = make([]part, decodes)
		s.batch.Tokens = make([]int32, decodes+rows)
		s.measure(d)
	}
	step(0, 100, 20*time.Millisecond)
	if got := s.rowTime; got < 0.00019 || got > 0.00021 {
		t.Errorf("prompts alone: %g s a row, want 0.0002", got)
	}
	for range 50 {
		step(2, 0, 5*time.Millisecond)
		step(2, 100, 25*time.Millisecond)
	}
	if got := s.rowTime; got < 0.00018 || got > 0.00022 {
		t.Errorf("beside two streams: %g s a row, want 0.0002", got)
	}
	// And a step is planned with the rest of its time.
	if got := s.rowBudget(2); got < 68 || got > 82 {
		t.Errorf("%d rows beside two streams for 20 ms, want 75", got)
	}
	st := s.Stats()
	if st.PrefillTokens != 51*100 || st.DecodeTokens != 200 || st.Steps != 101 {
		t.Errorf("%+v", st)
	}
}
