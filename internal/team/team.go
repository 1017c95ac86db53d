// Package team runs one function on a fixed set of persistent workers, with a spinning barrier and dynamic tiles.
//
// A forward pass has hundreds of short phases; starting goroutines for each costs more than the phases themselves
// (docs/performance.md). Here the workers stay inside the function for the whole step and meet at barriers. Of the tiles of
// a phase, each worker has a run of its own, so that it reads memory in one stream, and takes from the others' when it is
// done: a worker that the system has put aside holds up one tile only.
package team

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A Team is a fixed number of workers. One Run at a time.
type Team struct {
	f     func(*Worker)
	w     []*Worker
	cpus  []int // of each worker; nil if they are not bound
	bound bool  // worker 0 is, too
	wg    sync.WaitGroup
	base  uint32 // phase that the next Run starts with
	_     [64]byte
	run   atomic.Uint64 // rises with every Run; the low 16 bits are how many workers it has. They spin on it, then park
	_     [56]byte
	stop  atomic.Bool
	late  atomic.Int64 // nanoseconds of this Run
	_     [48]byte
	at    atomic.Int32 // workers that have reached the barrier
	_     [60]byte
	bar   atomic.Uint32 // barrier generation
	_     [60]byte
	tile  [4][]claims // by phase, the current one and those around it: the claims of each worker's tiles
}

type claims struct {
	n atomic.Int32
	_ [60]byte
}

// A Worker is one thread of a Team inside Run.
type Worker struct {
	ID    int
	team  *Team
	n     int // workers of this Run
	phase uint32
	from  int // whose tiles are claimed now, counted from ID
	seen  uint64
	park  atomic.Bool
	wake  chan struct{}
	_     [64]byte
}

// How long to spin before giving the processor away: a barrier is usually met within the time of a tile, the next step
// within some hundred microseconds. Giving it away costs a whole time slice where somebody else takes it. After idleSpins
// others are let run between two looks, after idleYields the worker parks.
const (
	barrierSpins = 60000 // some 40 µs
	idleSpins    = 10000
	idleYields   = 600
)

// New starts n-1 goroutines; the caller of Run is the remaining worker. With cpus, worker i stays on CPU cpus[i]: left alone,
// systems put two of them on one processor for some milliseconds now and then. That is for teams that have all cores; Run must then
// always be called by the same goroutine, which keeps its thread for good. A Run of one worker is not bound: it can give way to others.
// Where threads cannot be bound, cpus does nothing.
func New(n int, cpus []int) *Team {
	n = min(max(n, 1), 1<<16-1)
	t := &Team{}
	if n > 1 && len(cpus) >= n {
		t.cpus = cpus
	}
	for i := range t.tile {
		t.tile[i] = make([]claims, n)
	}
	for i := range n {
		w := &Worker{ID: i, team: t, wake: make(chan struct{}, 1)}
		t.w = append(t.w, w)
		if i > 0 {
			t.wg.Add(1)
			go w.loop()
		}
	}
	return t
}

// Size is the number of workers.
func (t *Team) Size() int { return len(t.w) }

// Run calls f once on each of the first n workers at the same time and returns when all have returned. The result is how
// long they waited for one another beyond what a barrier takes when all are running, added up; what the last barrier took of it may
// count for the Run after.
func (t *Team) Run(n int, f func(*Worker)) (late time.Duration) {
	n = min(max(n, 1), len(t.w))
	if t.cpus != nil && t.bound != (n > 1) {
		t.bound = n > 1
		runtime.LockOSThread() // also where it is locked already: it stays
		if t.bound {
			bind(t.cpus[:1])
		} else {
			bind(t.cpus)
		}
	}
	return t.do(n, f)
}

// do is Run on the thread as it is.
func (t *Team) do(n int, f func(*Worker)) (late time.Duration) {
	t.f = f
	t.run.Store((t.run.Load()>>16+1)<<16 | uint64(n))
	for _, w := range t.w[1:n] {
		if w.park.Swap(false) {
			w.wake <- struct{}{}
		}
	}
	w := t.w[0]
	w.begin(n)
	f(w)
	w.Barrier() // also orders everything the workers wrote before the return
	t.f, t.base = nil, w.phase
	return time.Duration(t.late.Swap(0))
}

// Close ends the workers. No Run may be under way. A second Close does nothing.
func (t *Team) Close() {
	if t.stop.Swap(true) {
		return
	}
	t.do(len(t.w), func(*Worker) {}) // whoever closes does not become worker 0
	t.wg.Wait()
}

func (w *Worker) begin(n int) { w.n, w.phase, w.from = n, w.team.base, 0 }

func (w *Worker) loop() {
	defer w.team.wg.Done()
	t := w.team
	if t.cpus != nil {
		runtime.LockOSThread() // the thread ends with the goroutine
		bind(t.cpus[w.ID : w.ID+1])
	}
	for {
		for i := 0; t.run.Load() == w.seen; i++ {
			if i < idleSpins {
				continue
			}
			if i < idleSpins+idleYields {
				osYield()
				continue
			}
			w.park.Store(true)
			// Run stores run before it looks at park, so one of the two sees the other.
			if t.run.Load() != w.seen && w.park.Swap(false) {
				break
			}
			<-w.wake
			i = 0
		}
		w.seen = t.run.Load()
		n := int(w.seen & (1<<16 - 1))
		if w.ID >= n { // this one is without it
			continue
		}
		w.begin(n)
		t.f(w)
		stop := t.stop.Load()
		w.Barrier()
		if stop {
			return
		}
	}
}

// Barrier returns when every worker has called it, and begins the next phase: tiles can be claimed anew.
func (w *Worker) Barrier() {
	t := w.team
	w.phase++
	w.from = 0
	if w.n == 1 {
		w.reset()
		return
	}
	g := t.bar.Load()
	if int(t.at.Add(1)) == w.n {
		w.reset()
		t.at.Store(0)
		t.bar.Add(1)
		return
	}
	for i := 0; i < barrierSpins; i++ {
		if t.bar.Load() != g {
			return
		}
	}
	start := time.Now()
	for t.bar.Load() == g {
		runtime.Gosched()
		osYield()
	}
	t.late.Add(int64(time.Since(start)))
}

// reset makes the claims of the phase after the coming one free: everybody has left its last use. All of them, since the
// next Run may have more workers.
func (w *Worker) reset() {
	c := w.team.tile[(w.phase+1)&3]
	for i := range c {
		c[i].n.Store(0)
	}
}

// Next claims the next tile of the current phase. It returns false when all n are taken; every worker of the phase
// must pass the same n.
func (w *Worker) Next(n int) (int, bool) {
	c := w.team.tile[w.phase&3]
	for ; w.from < w.n; w.from++ {
		o := w.ID + w.from
		if o >= w.n {
			o -= w.n
		}
		first := o * n / w.n
		if i := first + int(c[o].n.Add(1)) - 1; i < (o+1)*n/w.n {
			return i, true
		}
	}
	return 0, false
}
