package peak

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPin(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	affinity := func() (s unix.CPUSet) {
		if err := unix.SchedGetaffinity(0, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	before := affinity()
	seen := map[unix.CPUSet]bool{}
	for i := range before.Count() {
		undo := pin(i)
		s := affinity()
		if s.Count() != 1 || seen[s] {
			t.Errorf("thread %d may run on %d processors, or on one that another has", i, s.Count())
		}
		seen[s] = true
		undo()
		if affinity() != before {
			t.Fatal("not undone")
		}
	}
	undo := pin(before.Count()) // counted round
	defer undo()
	if s := affinity(); !seen[s] {
		t.Error("one thread more than processors has a new one")
	}
}
