// Package team runs one function on a fixed set of persistent workers, with a spinning barrier and dynamic tiles.
//
// A forward pass has hundreds of short phases; starting goroutines for each costs more than the phases themselves
// (docs/performance.md). Here the workers stay inside the function for the whole step and meet at barriers.
package team

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// A Team is a fixed number of workers. One Run at a time.
type Team struct {
	n    int
	f    func(*Worker)
	w    []*Worker
	wg   sync.WaitGroup
	_    [64]byte
	gen  atomic.Uint32 // rises with every Run; workers spin on it, then park
	_    [60]byte
	stop atomic.Bool
	_    [60]byte
	at   atomic.Int32 // workers that have reached the barrier
	_    [60]byte
	bar  atomic.Uint32 // barrier generation
	_    [60]byte
	tile [4]struct { // claims of the current phase and the ones around it
		n atomic.Int32
		_ [60]byte
	}
}

// A Worker is one thread of a Team inside Run.
type Worker struct {
	ID    int
	team  *Team
	phase uint32
	seen  uint32
	park  atomic.Bool
	wake  chan struct{}
}

// How long to spin before giving the processor away: a barrier is usually met within a microsecond, the next step
// within tens of microseconds.
const (
	barrierSpins = 4000
	idleSpins    = 40000
)

// New starts n-1 goroutines; the caller of Run is the remaining worker.
func New(n int) *Team {
	t := &Team{n: max(n, 1)}
	for i := range t.n {
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
func (t *Team) Size() int { return t.n }

// Run calls f once on every worker at the same time and returns when all have returned.
func (t *Team) Run(f func(*Worker)) {
	t.f = f
	t.gen.Add(1)
	for _, w := range t.w[1:] {
		if w.park.Swap(false) {
			w.wake <- struct{}{}
		}
	}
	w := t.w[0]
	f(w)
	w.Barrier() // also orders everything the workers wrote before the return
	t.f = nil
}

// Close ends the workers. No Run may be under way. A second Close does nothing.
func (t *Team) Close() {
	if t.stop.Swap(true) {
		return
	}
	t.Run(func(*Worker) {})
	t.wg.Wait()
}

func (w *Worker) loop() {
	defer w.team.wg.Done()
	t := w.team
	for {
		for i := 0; t.gen.Load() == w.seen; i++ {
			if i < idleSpins {
				continue
			}
			w.park.Store(true)
			// Run stores gen before it looks at park, so one of the two sees the other.
			if t.gen.Load() != w.seen && w.park.Swap(false) {
				break
			}
			<-w.wake
		}
		w.seen++
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
	// The counter of the phase after the coming one is free: everybody has left its last use.
	if t.n == 1 {
		t.tile[(w.phase+1)&3].n.Store(0)
		return
	}
	g := t.bar.Load()
	if int(t.at.Add(1)) == t.n {
		t.tile[(w.phase+1)&3].n.Store(0)
		t.at.Store(0)
		t.bar.Add(1)
		return
	}
	for i := 0; t.bar.Load() == g; i++ {
		if i >= barrierSpins {
			runtime.Gosched()
			osYield()
		}
	}
}

// Next claims the next tile of the current phase. It returns false when all n are taken; every worker of the phase
// must pass the same n.
func (w *Worker) Next(n int) (int, bool) {
	i := int(w.team.tile[w.phase&3].n.Add(1)) - 1
	return i, i < n
}
