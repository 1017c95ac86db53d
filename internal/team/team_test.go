package team

import (
	"sync/atomic"
	"testing"
	"time"
)

// Every tile of every phase is claimed exactly once, and a phase sees what the one before it wrote.
func TestPhases(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5} {
		tm := New(n, nil)
		for run := range 30 {
			k := 1 + run%n // also with some of the workers
			const phases, tiles = 40, 17
			var hit [phases][tiles]atomic.Int32
			var calls atomic.Int32
			tm.Run(k, func(w *Worker) {
				calls.Add(1)
				for p := range phases {
					for {
						i, ok := w.Next(tiles)
						if !ok {
							break
						}
						hit[p][i].Add(1)
					}
					w.Barrier()
					for i := range tiles {
						if c := hit[p][i].Load(); c != 1 {
							t.Errorf("n=%d run %d phase %d tile %d: claimed %d times", n, run, p, i, c)
						}
					}
				}
			})
			if int(calls.Load()) != k {
				t.Fatalf("%d workers ran, want %d", calls.Load(), k)
			}
		}
		tm.Close()
	}
}

// Workers that have parked are woken again.
func TestParkedWorkersWake(t *testing.T) {
	tm := New(4, nil)
	defer tm.Close()
	for range 20 {
		for _, w := range tm.w[1:] { // wait until all have parked
			for !w.park.Load() {
				time.Sleep(time.Millisecond)
			}
		}
		var calls atomic.Int32
		tm.Run(4, func(*Worker) { calls.Add(1) })
		if calls.Load() != 4 {
			t.Fatalf("%d workers ran, want 4", calls.Load())
		}
	}
}

func BenchmarkBarrier(b *testing.B) {
	tm := New(2, nil)
	defer tm.Close()
	tm.Run(2, func(w *Worker) {
		for range b.N {
			w.Barrier()
		}
	})
}

// Workers that are bound to CPUs compute the same, with some of them, too.
func TestBound(t *testing.T) {
	done := make(chan struct{})
	go func() { // its thread is kept, and ends with it
		defer close(done)
		tm := New(3, []int{0, 0, 0})
		defer tm.Close()
		for run := range 40 {
			k := 1 + run%3
			var calls, tiles atomic.Int32
			tm.Run(k, func(w *Worker) {
				calls.Add(1)
				for {
					if _, ok := w.Next(9); !ok {
						break
					}
					tiles.Add(1)
				}
			})
			if calls.Load() != int32(k) || tiles.Load() != 9 {
				t.Errorf("run %d: %d workers, want %d, and %d tiles", run, calls.Load(), k, tiles.Load())
			}
		}
	}()
	<-done
}
