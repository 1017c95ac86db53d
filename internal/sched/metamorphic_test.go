package sched_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/engine"
	"kvasir/internal/kernel"
	"kvasir/internal/model"
	"kvasir/internal/sched"
	"kvasir/internal/store"
	"kvasir/internal/store/disk"
	"kvasir/internal/store/disk/faultfs"
)

var settingsFlag = flag.Int("settings", 0, "settings of TestMetamorphic; 0: 12, with -short 4")

// A setting is one way of serving a script.
type setting struct {
	path      kernel.Path
	blockSize int
	tokens    int // of KV memory
	threads   int
	rows      int // of a step
	batch     int
	disk      string // "", "files", "memory" or "faulty"
	quota     int64
	load      sched.LoadMode
	restarts  int // one in so many groups comes after a restart; 0: none
	noDrafts  bool
	together  int // requests that are sent before the first is waited for
}

func randomSetting(rnd *rand.Rand, paths []kernel.Path) setting {
	s := setting{path: paths[rnd.IntN(len(paths))], blockSize: 32 << rnd.IntN(3), tokens: 700 + rnd.IntN(3000), threads: 1 + rnd.IntN(3), rows: 8 + rnd.IntN(300),
		batch: 1 + rnd.IntN(12), quota: 1 << 30, load: sched.LoadAlways, restarts: rnd.IntN(4), noDrafts: rnd.IntN(3) == 0, together: 1 + rnd.IntN(8)}
	s.disk = []string{"files", "memory", "faulty", "faulty", ""}[rnd.IntN(5)]
	if rnd.IntN(3) == 0 {
		s.quota = 3 << 20
	}
	if rnd.IntN(4) == 0 {
		s.load = sched.LoadMode(rnd.IntN(3))
	}
	return s
}

// A metaRequest is one of the script; its answer depends on nothing else.
type metaRequest struct {
	root   cache.Key
	prompt []int32
	n      int
}

// metaScript makes requests that share beginnings. What is generated is known from the oracle, so that later prompts can go on from it.
func metaScript(rnd *rand.Rand, answer func(metaRequest) result, n int) (all []metaRequest, want []result) {
	for range n {
		r := metaRequest{root: []cache.Key{rootA, rootA, rootB}[rnd.IntN(3)], n: 1 + rnd.IntN(20)}
		if len(all) > 0 && rnd.IntN(5) > 0 {
			i := rnd.IntN(len(all))
			whole := slices.Concat(all[i].prompt, want[i].tokens)
			r.prompt = slices.Clone(whole[:rnd.IntN(len(whole)+1)])
		}
		r.prompt = append(r.prompt, randTokens(rnd, 1+rnd.IntN(90), 9)...)
		if len(r.prompt) > 600 {
			r.prompt = r.prompt[:600]
		}
		all = append(all, r)
		want = append(want, answer(r))
	}
	return all, want
}

// TestMetamorphic runs one random script of requests under many settings: tiers on and off, block sizes, little memory, restarts, threads, batches, a disk
// that fails. Every logit of every token is the same in all.
func TestMetamorphic(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -seed %d", seed)
	file := tinyFile(t)
	o := newOracle(t, load(t, file, kernel.Available()[0], 32))
	answer := func(r metaRequest) (out result) {
		text := slices.Clone(r.prompt)
		for range r.n {
			d, tok := o.next(text)
			out.logits, out.tokens = append(out.logits, d), append(out.tokens, tok)
			text = append(text, tok)
		}
		return out
	}
	requests, want := metaScript(rand.New(rand.NewPCG(seed, 1)), answer, 60)
	n := *settingsFlag
	if n == 0 {
		if n = 12; testing.Short() {
			n = 4
		}
	}
	ps := kernel.Available()
	ps = ps[:max(1, len(ps)-1)]
	loaded := 0
	for i := range n {
		rnd := rand.New(rand.NewPCG(seed, uint64(i+2)))
		s := randomSetting(rnd, ps)
		got := s.serve(t, file, requests, rnd)
		for k, r := range got {
			loaded += r.decision.Loaded
			if r.err != nil || !slices.Equal(r.tokens, want[k].tokens) || !slices.Equal(r.logits, want[k].logits) {
				t.Fatalf("setting %d, %+v: request %d (prompt of %d, %+v): %v, other logits", i, s, k, len(requests[k].prompt), r.decision, r.err)
			}
		}
	}
	if t.Logf("%d tokens came from disk in %d settings", loaded, n); loaded == 0 && n > 3 {
		t.Error("nothing was loaded")
	}
}

// serve serves the script and returns the results.
func (s setting) serve(t *testing.T, file string, requests []metaRequest, rnd *rand.Rand) []result {
	var files store.FS
	if s.disk == "memory" || s.disk == "faulty" {
		f := faultfs.New()
		if s.disk == "faulty" {
			faults := rand.New(rand.NewPCG(rnd.Uint64(), 0))
			lock := make(chan struct{}, 1)
			f.Hook = func(op faultfs.Op, _ string) error {
				lock <- struct{}{}
				defer func() { <-lock }()
				if faults.IntN(40) == 0 {
					return []error{syscall.EIO, syscall.ENOSPC, faultfs.ErrShort}[faults.IntN(3)]
				}
				return nil
			}
		}
		files = f
	}
	dir := t.TempDir()
	m := load(t, file, s.path, s.blockSize)
	out := make([]result, len(requests))
	for at := 0; at < len(requests); {
		end := len(requests)
		if s.restarts > 0 {
			end = min(end, at+1+rnd.IntN(len(requests)/s.restarts))
		}
		s.live(t, m, dir, files, requests[at:end], out[at:end])
		at = end
	}
	return out
}

// live serves some of the script between a start and an end.
func (s setting) live(t *testing.T, m *model.Model, dir string, files store.FS, requests []metaRequest, out []result) {
	blocks := max(5, s.tokens/s.blockSize)
	so := sched.Options{MaxBatch: s.batch, NoDrafts: s.noDrafts, Load: s.load}
	if s.disk != "" {
		d, err := disk.Open(disk.Options{Dir: dir, FS: files, Quota: s.quota, Pause: time.Microsecond})
		if err != nil && s.disk != "faulty" {
			t.Fatal(err)
		}
		if err == nil {
			defer d.Close()
			part, err := d.Model(disk.Format{BlockSize: s.blockSize, Group: "all", Layout: "l", DType: "f16", Numerics: kernel.Revision, Layers: m.Layout.Layers, Bytes: m.Layout.BlockBytes()})
			if err != nil {
				t.Fatal(err)
			}
			part.Root(rootA, nil)
			part.Root(rootB, nil)
			so.Tier = part
		}
	}
	r, stop := newRigFor(t, m, blocks, engine.Options{Threads: s.threads, MaxRows: s.rows}, so)
	defer stop()
	var wait []<-chan result
	for i := range requests {
		wait = append(wait, r.generate(requests[i].root, requests[i].prompt, requests[i].n, nil))
		if len(wait) >= s.together || i == len(requests)-1 {
			for k, w := range wait {
				out[i-len(wait)+1+k] = <-w
			}
			wait = nil
		}
	}
	if err := r.Close(context.Background()); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(fmt.Errorf("end: %w", err))
	}
}
