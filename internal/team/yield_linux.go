package team

import "golang.org/x/sys/unix"

// osYield lets other threads of the machine have the processor: where it is shared, a worker that spins for one that is
// not running only keeps it from running.
func osYield() { unix.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }

// bind keeps the calling thread on the given CPUs. That it cannot is no fault: it only runs less evenly.
func bind(cpus []int) {
	var set unix.CPUSet
	for _, c := range cpus {
		set.Set(c)
	}
	_ = unix.SchedSetaffinity(0, &set)
}
