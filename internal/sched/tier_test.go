package sched_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/llm"
	"kvasir/internal/sched"
	"kvasir/internal/store"
	"kvasir/internal/store/disk"
	"kvasir/internal/store/disk/faultfs"
)

var faultsFlag = flag.Int("faults", 0, "every so many-th call fails in TestFaults and TestCrashes; 0: 3, with -short 7")

func faultStep() int {
	switch {
	case *faultsFlag > 0:
		return *faultsFlag
	case testing.Short():
		return 7
	}
	return 3
}

const (
	fakeBlock = 4
	fakeText  = 7 // how a text goes on depends on its last token only
)

func fakeNext(tokens []int32) int32 { return (tokens[len(tokens)-1]*31 + 11) % fakeText }

// A life is a server over a file system, from start to end.
type life struct {
	*sched.Scheduler
	t     testing.TB
	tier  *disk.Tier // nil if it could not be opened
	cache *cache.Cache
}

// begin starts a server with a fake engine of so many blocks. Without a file system it has memory alone.
func begin(t testing.TB, files store.FS, blocks int, mode sched.LoadMode) *life {
	t.Helper()
	l := &life{t: t}
	e := sched.NewFake(blocks, fakeBlock, 32, fakeNext)
	o := sched.Options{MaxBatch: 4, MaxQueue: 1000, Load: mode, Now: sched.Ticks(time.Millisecond)}
	if files != nil {
		var err error
		if l.tier, err = disk.Open(disk.Options{FS: files, Quota: 1 << 23}); err != nil {
			t.Logf("without a disk tier: %v", err)
		} else {
			m, err := l.tier.Model(disk.Format{BlockSize: fakeBlock, Group: "all", Layout: "fake", DType: "u64", Layers: 4, Bytes: e.BlockBytes()})
			if err != nil {
				t.Fatal(err)
			}
			m.Root(rootA, []byte{1})
			m.Root(rootB, []byte{2})
			o.Tier = m
		}
	}
	l.cache = cache.New(cache.Config{Blocks: blocks, BlockSize: fakeBlock, Saving: o.Tier != nil})
	l.Scheduler = sched.New(e, l.cache, o)
	return l
}

// end ends the server and checks its books.
func (l *life) end() (st sched.Stats) {
	l.t.Helper()
	if err := l.Close(context.Background()); err != nil {
		l.t.Error(err)
	}
	st = l.Stats()
	if l.tier != nil {
		if err := l.tier.Close(); err != nil {
			l.t.Error(err)
		}
	}
	if err := l.cache.Check(); err != nil {
		l.t.Error(err)
	}
	if s := l.cache.Stats(); s.Held != 0 {
		l.t.Errorf("at the end %+v", s)
	}
	return st
}

// run generates n tokens and holds every logit against what the text demands.
func (l *life) run(root cache.Key, prompt []int32, n int) llm.Decision {
	l.t.Helper()
	d, err := l.start(root, prompt, n)()
	if err != nil {
		l.t.Errorf("prompt of %d tokens: %v", len(prompt), err)
	}
	return d
}

func (l *life) start(root cache.Key, prompt []int32, n int) func() (llm.Decision, error) {
	text := slices.Clone(prompt)
	var d llm.Decision
	done := make(chan error, 1)
	j := &sched.Job{Root: root, Prompt: prompt, Limit: len(prompt) + n}
	j.Started = func(got llm.Decision) { d = got }
	j.Next = func(logits []float32, pos int) (int32, bool, error) {
		hash := uint64(0)
		for _, t := range text {
			hash = sched.FakeHash(hash, t)
		}
		got, next := sched.FakeLogits(logits)
		if got != hash || next != fakeNext(text) || pos != len(text) {
			return 0, true, fmt.Errorf("wrong logits at position %d (%d prompt tokens, %+v)", pos, len(prompt), d)
		}
		text = append(text, next)
		return next, len(text) == len(prompt)+n, nil
	}
	j.Done = func(err error) { done <- err }
	if err := l.Submit(j); err != nil {
		done <- err
	}
	return func() (llm.Decision, error) { err := <-done; return d, err }
}

// chats are prompts of which many share a beginning with others.
func chats(rnd *rand.Rand, n int) (all [][]int32) {
	for range n {
		var p []int32
		if len(all) > 0 && rnd.IntN(4) > 0 {
			base := all[rnd.IntN(len(all))]
			p = append(p, base[:rnd.IntN(len(base)+1)]...)
		}
		for range 1 + rnd.IntN(14) {
			p = append(p, rnd.Int32N(fakeText))
		}
		all = append(all, p)
	}
	return all
}

// script sends prompts one after the other, and then some together.
func (l *life) script(prompts [][]int32) (loaded int) {
	for i, p := range prompts {
		loaded += l.run([]cache.Key{rootA, rootB}[i%5/4], p, 3).Loaded
	}
	var wait []func() (llm.Decision, error)
	for _, p := range prompts {
		wait = append(wait, l.start(rootA, p, 2))
	}
	for _, w := range wait {
		d, err := w()
		if err != nil {
			l.t.Error(err)
		}
		loaded += d.Loaded
	}
	return loaded
}

// After a restart the disk has exactly what was shared, whatever memory had room for.
func TestTierIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(4, 4))
		files := faultfs.New()
		var stored [][]int32 // prompt and generated ids, the last of which has no KV
		for round := range 12 {
			l := begin(t, files, 12, sched.LoadAlways)
			for range 8 {
				var p []int32
				if len(stored) > 0 && rnd.IntN(5) > 0 {
					s := stored[rnd.IntN(len(stored))]
					p = append(p, s[:rnd.IntN(len(s)+1)]...)
				}
				for range 1 + rnd.IntN(9) {
					p = append(p, rnd.Int32N(fakeText))
				}
				p = p[:min(len(p), 36)]
				shared := 0
				for _, s := range stored {
					k := 0
					for k < len(s) && k < len(p)-1 && s[k] == p[k] {
						k++
					}
					shared = max(shared, k)
				}
				if d := l.run(rootA, p, 4); d.Reused != shared {
					t.Fatalf("round %d: %+v, shared %d", round, d, shared)
				}
				s := slices.Clone(p)
				for range 3 {
					s = append(s, fakeNext(s))
				}
				stored = append(stored, s)
				synctest.Wait() // what is stored is saved before it can be evicted
			}
			l.end()
			if n := files.Used(); n > 1<<23 {
				t.Errorf("%d bytes", n)
			}
		}
	})
}

// Any call of the file system may fail, once or from then on: no request fails or gets other logits, and the books are in order.
func TestFaults(t *testing.T) {
	prompts := chats(rand.New(rand.NewPCG(8, 8)), 10)
	total := 0
	twoLives := func(t *testing.T, hook func(op faultfs.Op, call int) error) (loaded int, files *faultfs.FS) {
		var mu sync.Mutex
		files = faultfs.New()
		call := 0
		files.Hook = func(op faultfs.Op, _ string) error {
			mu.Lock()
			call++
			n := call
			mu.Unlock()
			return hook(op, n)
		}
		for range 2 {
			l := begin(t, files, 14, sched.LoadAlways)
			loaded += l.script(prompts)
			l.end()
		}
		total = call
		return loaded, files
	}
	synctest.Test(t, func(t *testing.T) {
		if loaded, _ := twoLives(t, func(faultfs.Op, int) error { return nil }); loaded == 0 {
			t.Error("nothing was loaded")
		}
	})
	calls, runs := total, 0
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC, faultfs.ErrShort} {
		for _, forever := range []bool{false, true} {
			for at := 1; at <= calls; at += faultStep() {
				runs++
				synctest.Test(t, func(t *testing.T) {
					_, files := twoLives(t, func(op faultfs.Op, call int) error {
						if call < at || !forever && call > at || errors.Is(fault, faultfs.ErrShort) && op != faultfs.Write {
							return nil
						}
						return fault
					})
					// When the fault is over, the tier works again.
					files.Hook = nil
					l := begin(t, files, 100, sched.LoadAlways)
					l.script(prompts)
					l.end()
					l = begin(t, files, 100, sched.LoadAlways)
					if d := l.run(rootB, append(slices.Clone(prompts[4]), 0), 1); d.Loaded != len(prompts[4]) {
						t.Errorf("after the fault: %+v of %d", d, len(prompts[4]))
					}
					l.end()
				})
				if t.Failed() {
					t.Fatalf("%v at call %d of %d, for ever %v", fault, at, calls, forever)
				}
			}
		}
	}
	t.Logf("%d calls, %d runs with faults", calls, runs)
}

// The power may go before any change, with none, half or all of what was not synced lost: the next start works, and nothing is wrong.
func TestCrashes(t *testing.T) {
	prompts := chats(rand.New(rand.NewPCG(9, 9)), 10)
	type crash struct {
		share float64
		call  int
		files *faultfs.FS
	}
	var crashes []crash
	synctest.Test(t, func(t *testing.T) {
		files := faultfs.New()
		var mu sync.Mutex
		call := 0
		files.Hook = func(op faultfs.Op, _ string) error {
			if op.Changes() {
				mu.Lock()
				defer mu.Unlock()
				if call++; call%((faultStep()+4)/5) == 0 {
					for _, share := range []float64{0, 0.5, 1} {
						crashes = append(crashes, crash{share, call, files.Crash(share, rand.New(rand.NewPCG(uint64(call), 1)))})
					}
				}
			}
			return nil
		}
		for range 2 {
			l := begin(t, files, 14, sched.LoadAlways)
			l.script(prompts)
			l.end()
		}
	})
	loaded := map[float64]int{}
	for _, c := range crashes {
		synctest.Test(t, func(t *testing.T) {
			l := begin(t, c.files, 14, sched.LoadAlways)
			if l.tier == nil {
				t.Error("the start failed")
			}
			loaded[c.share] += l.script(prompts)
			l.end()
		})
		if t.Failed() {
			t.Fatalf("share %v kept before change %d", c.share, c.call)
		}
	}
	t.Logf("%d crashes; tokens loaded by the share that was kept: %v", len(crashes), loaded)
	if loaded[1] == 0 || loaded[0.5] == 0 {
		t.Error("nothing was loaded")
	}
}

// A disk that is full gets no more; the tier goes on with what it has, and fills it again when there is room.
func TestDiskFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(2, 2))
		files := faultfs.New()
		files.Capacity = 96 << 10
		l := begin(t, files, 30, sched.LoadAlways)
		for range 20 {
			l.script(chats(rnd, 5))
		}
		time.Sleep(2 * time.Minute)
		if s := l.tier.Stats(); s.WriteFaults == 0 && s.Evicted == 0 {
			t.Errorf("%+v", s)
		}
		files.Capacity = 0
		p := chats(rnd, 1)[0]
		l.run(rootA, p, 1)
		time.Sleep(2 * time.Minute)
		l.end()
		l = begin(t, files, 30, sched.LoadAlways)
		if d := l.run(rootA, append(slices.Clone(p), 0), 1); d.Loaded != len(p) {
			t.Errorf("after there was room again: %+v of %d", d, len(p))
		}
		l.end()
	})
}

// A read that hangs holds nobody up for longer than 5 s, other sequences not at all; while none comes back the tier is left alone.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := faultfs.New()
		l := begin(t, files, 30, sched.LoadAlways)
		long := []int32{1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6}
		l.run(rootA, long, 1)
		l.end()
		hang := make(chan struct{})
		files.Hook = func(op faultfs.Op, name string) error {
			if op == faultfs.Read && name != "journal" {
				<-hang
			}
			return nil
		}
		l = begin(t, files, 60, sched.LoadAlways)
		start := time.Now()
		stalled := l.start(rootA, append(slices.Clone(long), 3), 3)
		synctest.Wait()
		if l.run(rootB, []int32{4, 4, 4}, 5); time.Since(start) > time.Second {
			t.Errorf("another sequence took %v", time.Since(start))
		}
		d, err := stalled()
		if took := time.Since(start); err != nil || d.Loaded != 0 || d.Reason != llm.ReasonRecomputed || took < 4*time.Second || took > 6*time.Second {
			t.Errorf("%+v %v after %v", d, err, took)
		}
		start = time.Now()
		l.run(rootA, []int32{1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 6}, 3)
		if took := time.Since(start); took > time.Second {
			t.Errorf("the next sequence took %v", took)
		}
		close(hang)
		if st := l.end(); st.LoadsSlow != 1 || st.LoadsFailed != 0 {
			t.Errorf("%+v", st)
		}
		// Errors and reads that come late are no better than none.
		files.Hook = func(op faultfs.Op, name string) error {
			if op == faultfs.Read && name != "journal" {
				time.Sleep(20 * time.Second)
				return fs.ErrInvalid
			}
			return nil
		}
		l = begin(t, files, 60, sched.LoadAlways)
		l.run(rootA, append(slices.Clone(long), 3), 3)
		l.end()
		time.Sleep(time.Minute) // the reader comes back to a tier that is closed
	})
}
