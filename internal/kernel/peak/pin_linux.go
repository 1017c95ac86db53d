package peak

import "golang.org/x/sys/unix"

// pin binds the calling thread to the i-th processor that it may run on, counted round, and returns what undoes that. Where the system does
// not allow it the thread stays free, and the rates of several threads may come out lower.
func pin(i int) (undo func()) {
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil || may.Count() == 0 {
		return func() {}
	}
	i %= may.Count()
	for cpu := 0; ; cpu++ {
		if !may.IsSet(cpu) {
			continue
		}
		if i == 0 {
			var one unix.CPUSet
			one.Set(cpu)
			if err := unix.SchedSetaffinity(0, &one); err != nil {
				return func() {}
			}
			return func() { unix.SchedSetaffinity(0, &may) } // it was allowed before
		}
		i--
	}
}
