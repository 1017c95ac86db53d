package pipeline

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvasir/internal/sched"
	"kvasir/internal/store/disk"
	"kvasir/internal/testmodel"
)

var soakFlag = flag.Duration("soak", 0, "how long TestSoak goes on; 0 is a fixed number of requests")

// More conversations than memory holds come round: the second time each finds all it had before.
func TestConversations(t *testing.T) {
	d, err := disk.Open(disk.Options{Dir: filepath.Join(t.TempDir(), "kv"), Quota: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	const conversations, held = 24, 6
	tokens := 1500
	if testing.Short() {
		tokens = 300
	}
	p := open(t, func(o *Options) {
		o.KVBytes, o.Disk, o.Load = uint64(held*((tokens+63)/32)*blockBytes), d, sched.LoadAlways
	})
	var first, second []float64
	asked, cached := 0, 0
	for round := range 2 {
		for c := range conversations {
			prompt := ramp(c+1, tokens)
			prompt[0] = int32(10 + c) // ramps of different starts may meet
			begin := time.Now()
			st, err := p.Generate(context.Background(), request(ids(prompt...), 4))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := st.Next(context.Background()); err != nil {
				t.Fatal(err)
			}
			ttft := time.Since(begin).Seconds()
			o := read(st, 1)
			for p.Stats().Unsaved > 0 { // this model computes faster than some disks write
				time.Sleep(time.Millisecond)
			}
			if round == 0 {
				first = append(first, ttft)
				continue
			}
			second = append(second, ttft)
			asked, cached = asked+o.usage.PromptTokens, cached+o.usage.CachedTokens
			if o.usage.LoadedTokens == 0 && c == 0 {
				t.Errorf("nothing came from disk: %+v", o.decisions)
			}
		}
	}
	slices.Sort(first)
	slices.Sort(second)
	t.Logf("second round: %.4f of the tokens cached; TTFT p50 cold %.1f ms, warm %.1f ms", float64(cached)/float64(asked),
		1e3*first[len(first)/2], 1e3*second[len(second)/2])
	if float64(cached) < 0.99*float64(asked) {
		t.Errorf("%d of %d tokens cached", cached, asked)
	}
}

// TestSoak lets 16 clients work for as long as the flag says with little memory and a small disk quota: what the process takes stays flat and the
// quota is kept at every moment.
func TestSoak(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kv")
	quota, requests := int64(8<<20), 20
	if testing.Short() {
		requests = 6
	}
	kv := uint64(200 * blockBytes)
	if *soakFlag > 0 {
		quota, kv = 1<<30, 256<<20
	}
	model := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(model, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(disk.Options{Dir: dir, Quota: quota})
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.KVBytes, o.Disk, o.MaxQueue = kv, d, 1000
	p, err := Open(model, o)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(*soakFlag)
	var done atomic.Int64
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(c), 77))
			for i := 0; i < requests || time.Now().Before(deadline); i++ {
				prompt := ramp(rnd.IntN(400), 60+rnd.IntN(700))
				prompt[0] = 10 + rnd.Int32N(40)
				r := request(ids(prompt...), 1+rnd.IntN(20))
				r.Tenant = fmt.Sprint(rnd.IntN(3))
				st, err := p.Generate(context.Background(), r)
				if err != nil {
					t.Error(err)
					return
				}
				if rnd.IntN(8) == 0 {
					st.Next(context.Background())
					st.Close()
				} else if out := read(st, 1); out.err != nil {
					t.Error(out.err)
					return
				}
				done.Add(1)
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	var usage []taken
	for running := true; running; {
		select {
		case <-ended:
			running = false
		case <-time.After(50 * time.Millisecond):
		}
		n := bytesBelow(dir)
		if n > quota || d.Stats().Bytes > quota {
			t.Errorf("%d bytes on disk, the quota is %d: %+v", n, quota, d.Stats())
			break
		}
		u := takenNow()
		u.disk = n
		usage = append(usage, u)
		if *soakFlag > 0 && len(usage)%600 == 0 {
			t.Logf("%d requests: %+v; %+v", done.Load(), u, d.Stats())
		}
	}
	wg.Wait()
	s := p.Stats()
	if err := p.Close(context.Background()); err != nil {
		t.Error(err)
	}
	checkBlocks(t, p)
	ds := d.Stats()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	t.Logf("%d requests; at first %+v, in the middle %+v, at last %+v", done.Load(), usage[0], usage[len(usage)/2], usage[len(usage)-1])
	t.Logf("%+v", ds)
	if s.LoadsFailed > ds.Lost || ds.ReadFaults+ds.WriteFaults+ds.Skipped != 0 {
		t.Errorf("faults: %+v %+v", s, ds)
	}
	// Flat: not more at the end than in the middle, but for what the heap and the pool of threads breathe.
	mid, end := usage[len(usage)/2], usage[len(usage)-1]
	if *soakFlag > 0 && (end.rss > mid.rss+mid.rss/10+8<<20 || end.fds > mid.fds+8 || end.goroutines > mid.goroutines+20) {
		t.Errorf("grows: in the middle %+v, at the end %+v", mid, end)
	}
}

// taken is what this process takes.
type taken struct {
	rss             int64 // bytes; 0 where the system does not say
	fds, goroutines int
	disk            int64
}

func takenNow() (u taken) {
	u.goroutines = runtime.NumGoroutine()
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		var size, pages int64
		fmt.Sscan(string(b), &size, &pages)
		u.rss = pages * int64(os.Getpagesize())
	}
	if e, err := os.ReadDir("/proc/self/fd"); err == nil {
		u.fds = len(e)
	}
	return u
}

// bytesBelow is what the files below a directory take, in units of 4 KiB.
func bytesBelow(dir string) (n int64) {
	filepath.WalkDir(dir, func(_ string, e os.DirEntry, err error) error {
		if err == nil {
			if info, err := e.Info(); err == nil { // else it is deleted meanwhile
				n += (info.Size() + 4095) &^ 4095
			}
		}
		return nil
	})
	return n
}
