package machine

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func physicalCores() int { return len(Cores()) }

// Cores lists one logical CPU of each physical core that this process may run on. It is nil where that is not known.
func Cores() []int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil // more CPUs than the set holds: GOMAXPROCS alone decides
	}
	var cpus []int
	for c := range len(set) * 64 {
		if set.IsSet(c) {
			cpus = append(cpus, c)
		}
	}
	return coresOf(os.DirFS("/"), cpus)
}

// cpuModel reads what ARM boards say: the board's name in the device tree.
func cpuModel() string {
	b, err := os.ReadFile("/proc/device-tree/model")
	if err != nil {
		return ""
	}
	return strings.Trim(string(b), "\x00\n ")
}
