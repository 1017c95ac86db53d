package sched_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/engine"
	"kvasir/internal/llm"
	"kvasir/internal/sched"
	"kvasir/internal/store/disk"
	"kvasir/internal/store/disk/faultfs"
)

// timed is a fake engine that takes its time.
type timed struct {
	*sched.Fake
	row time.Duration
}

func (e timed) Step(b *engine.Batch) error {
	time.Sleep(time.Duration(len(b.Tokens)) * e.row)
	return e.Fake.Step(b)
}

// slowDisk starts a server on files whose reads take a time that the test may change, and whose engine takes rowTime a token.
func slowDisk(t *testing.T, files *faultfs.FS, delay *time.Duration, rowTime time.Duration) *life {
	files.Hook = func(op faultfs.Op, name string) error {
		if op == faultfs.Read && name != "journal" {
			time.Sleep(*delay)
		}
		return nil
	}
	l := &life{t: t}
	const blocks = 60
	e := timed{sched.NewFake(blocks, fakeBlock, 64, fakeNext), rowTime}
	var err error
	if l.tier, err = disk.Open(disk.Options{FS: files, Quota: 1 << 24}); err != nil {
		t.Fatal(err)
	}
	m, err := l.tier.Model(disk.Format{BlockSize: fakeBlock, Group: "all", Layout: "fake", DType: "u64", Layers: 4, Bytes: e.BlockBytes()})
	if err != nil {
		t.Fatal(err)
	}
	m.Root(rootA, []byte{1})
	l.cache = cache.New(cache.Config{Blocks: blocks, BlockSize: fakeBlock, Saving: true})
	l.Scheduler = sched.New(e, l.cache, sched.Options{MaxBatch: 4, MaxQueue: 100, Tier: m, RowTime: rowTime.Seconds()})
	time.Sleep(*delay + time.Second) // the tier finds out how quick the disk is while a model is loaded
	return l
}

// A request never waits longer for the disk than what it brings is worth, 5 % of the computing aside; where the disk is quicker it is used, and
// one that was slow is tried again.
func TestLoadOrCompute(t *testing.T) {
	const row = 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		files, delay := faultfs.New(), time.Duration(0)
		text := func(i, n int) (p []int32) {
			p = []int32{int32(i + 10)}
			for k := 1; k < n; k++ {
				p = append(p, int32(i*k+k*k)%fakeText)
			}
			return p
		}
		const texts, tokens = 40, 81
		for i := range texts {
			l := slowDisk(t, files, &delay, row)
			l.run(rootA, text(i, tokens), 1)
			l.end()
		}
		ask := func(i int) (llm.Decision, time.Duration) {
			l := slowDisk(t, files, &delay, row)
			defer time.Sleep(time.Minute) // readers come back late
			defer l.end()
			begin := time.Now()
			d := l.run(rootA, text(i, tokens), 1)
			return d, time.Since(begin)
		}
		const all = tokens * row // what computing takes
		for _, c := range []struct {
			delay time.Duration // a record of 4 tokens; two are read at once
			loads bool
		}{{0, true}, {row, true}, {6 * row, true}, {9 * row, false}, {20 * row, false}, {500 * row, false}} {
			delay = c.delay
			d, took := ask(1)
			if took > all+all/20 {
				t.Errorf("%v a record: took %v for %d loaded tokens", delay, took, d.Loaded)
			}
			if c.loads != (d.Loaded == tokens-1) || !c.loads && d.Reason != llm.ReasonRecomputed {
				t.Errorf("%v a record: %+v", delay, d)
			}
		}
		// One server learns: the first slow load costs a little, later ones are not begun, and in the end it finds out that the disk is quick again.
		delay = 20 * row
		l := slowDisk(t, files, &delay, row)
		l.run(rootA, text(2, tokens), 1)
		loaded, begin := 0, time.Now()
		for n := range 2000 {
			if n == 20 {
				if took := time.Since(begin); took > 20*all+all/20 {
					t.Errorf("20 requests beside a slow disk took %v, computing takes %v", took, 20*all)
				}
				delay = 0
			}
			d := l.run(rootA, text(n%texts, tokens), 1) // memory holds three
			if loaded += d.Loaded; loaded > 0 {
				t.Logf("tried again after %d requests", n)
				break
			}
		}
		if st := l.end(); loaded == 0 || st.LoadsDeclined == 0 {
			t.Errorf("never tried again: %+v", st)
		}
		time.Sleep(time.Minute)
	})
}

// Who waits in the queue of loads is not taken for slow, and who goes away while loading frees its blocks at once.
func TestLoadsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files, delay := faultfs.New(), time.Duration(0)
		l := slowDisk(t, files, &delay, time.Millisecond)
		prompt := func(i int) []int32 {
			p := slices.Repeat([]int32{int32(i), 3}, 20)
			return append(p, 5)
		}
		for i := range 8 {
			l.run(rootA, prompt(i), 1)
			synctest.Wait() // before memory is full, it is saved
		}
		l.end()
		delay = time.Millisecond
		l = slowDisk(t, files, &delay, time.Millisecond)
		var wait []func() (llm.Decision, error)
		for i := range 8 {
			wait = append(wait, l.start(rootA, prompt(i), 1))
		}
		for i, w := range wait {
			if d, err := w(); err != nil || d.Loaded < 40 {
				t.Errorf("load %d: %+v %v", i, d, err)
			}
		}
		l.end()
		l = slowDisk(t, files, &delay, time.Millisecond)
		done := make(chan error, 1)
		j := &sched.Job{Root: rootA, Prompt: prompt(3), Limit: 100, Done: func(err error) { done <- err },
			Next: func([]float32, int) (int32, bool, error) { return 0, true, nil }}
		if err := l.Submit(j); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		j.Cancel()
		l.Wake()
		if err := <-done; err != sched.ErrCanceled {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		later := l.start(rootA, prompt(4), 1)
		synctest.Wait()
		l.Close(ctx) // in the middle of a load
		if _, err := later(); err != sched.ErrClosed {
			t.Error(err)
		}
		l.end()
	})
}

// A write that hangs delays the end, but not for ever, and Close says that the blocks are still being read.
func TestWriteHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := faultfs.New()
		hang := make(chan struct{})
		files.Hook = func(op faultfs.Op, name string) error {
			if op == faultfs.Write && name == "new" {
				<-hang
			}
			return nil
		}
		l := begin(t, files, 30, sched.LoadAlways)
		start := time.Now()
		l.run(rootA, []int32{1, 2, 3, 4, 5, 6, 1, 2, 3}, 3)
		l.run(rootA, []int32{1, 2, 3, 4, 5, 6, 1, 2, 4}, 3)
		if took := time.Since(start); took > time.Second {
			t.Errorf("two requests took %v", took)
		}
		err := l.Close(context.Background())
		if took := time.Since(start); !errors.Is(err, sched.ErrBusy) || took > time.Minute {
			t.Errorf("%v after %v", err, took)
		}
		close(hang)
		if err := l.tier.Close(); err != nil {
			t.Error(err)
		}
	})
}
