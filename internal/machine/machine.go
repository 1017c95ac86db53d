// Package machine says what this process may use: memory, compute threads, and the CPU's name. Limits of Linux cgroups
// (containers, systemd) count as the machine's own.
package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"

	"github.com/klauspost/cpuid/v2"
	"github.com/shirou/gopsutil/v4/mem"

	"kvasir/internal/config"
)

// ErrMemory is returned by Budget for a size that this process can never have.
var ErrMemory = errors.New("more memory than this process may use")

// Memory returns in bytes how much this process can still take without swapping, and how much it could have at most. Both are the
// minimum of what the system says and what the cgroups leave. Pages of files that are mapped and in use count as taken.
func Memory() (available, limit uint64, err error) {
	v, err := mem.VirtualMemory()
	if err != nil {
		return 0, 0, fmt.Errorf("memory of this machine: %w", err)
	}
	return memory(v.Available, v.Total, os.DirFS("/"))
}

func memory(available, total uint64, fsys fs.FS) (uint64, uint64, error) {
	if runtime.GOOS != "linux" {
		return available, total, nil
	}
	limit, room, err := cgroupMemory(fsys)
	if err != nil {
		return 0, 0, fmt.Errorf("memory limit of the cgroup: %w", err)
	}
	return min(available, room), min(total, limit), nil
}

// Budget turns a setting such as "25%" (of the available memory) or "2GiB" into bytes. It fails with ErrMemory
// if that is more than the limit of Memory, or nothing at all.
func Budget(spec string) (uint64, error) {
	available, limit, err := Memory()
	if err != nil {
		return 0, err
	}
	return budget(spec, available, limit)
}

func budget(spec string, available, limit uint64) (uint64, error) {
	a, err := config.ParseAmount(spec)
	if err != nil {
		return 0, err
	}
	n := a.Of(available)
	if n > limit {
		return 0, fmt.Errorf("%s: %w (%s)", spec, ErrMemory, config.Size(limit).Short())
	}
	if n == 0 {
		return 0, fmt.Errorf("%s of %s: no memory is left for the cache", spec, config.Size(available).Short())
	}
	return n, nil
}

// Threads returns how many compute threads pay off: one a physical core that this process may run on, no more than
// GOMAXPROCS and the cgroup's CPU quota (rounded to the nearest, because threads that wait for each other lose more to
// throttling than to a missing share). At least 1.
func Threads() int {
	return threads(physicalCores(), runtime.GOMAXPROCS(0), os.DirFS("/"))
}

func threads(cores, procs int, fsys fs.FS) int {
	n := procs
	if cores > 0 {
		n = min(n, cores)
	}
	if runtime.GOOS == "linux" {
		// An unreadable quota is no reason not to start: GOMAXPROCS has its own reading of it.
		if q, err := cgroupCPUs(fsys); err == nil && q < float64(n) {
			n = int(math.Round(q))
		}
	}
	return max(n, 1)
}

// coresOf picks one of the logical CPUs for each physical core, from the sysfs tree of Linux. A CPU without topology is its own core.
func coresOf(fsys fs.FS, cpus []int) (first []int) {
	cores := map[string]bool{}
	for _, c := range cpus {
		dir := fmt.Sprintf("sys/devices/system/cpu/cpu%d/topology", c)
		b, err := fs.ReadFile(fsys, path.Join(dir, "core_cpus_list"))
		if err != nil {
			b, err = fs.ReadFile(fsys, path.Join(dir, "thread_siblings_list")) // the name before Linux 5.7
		}
		id := strings.TrimSpace(string(b))
		if err != nil || id == "" {
			id = strconv.Itoa(c)
		}
		if !cores[id] {
			cores[id] = true
			first = append(first, c)
		}
	}
	return first
}

// CPUModel returns the CPU's name for people, e.g. "AMD EPYC 9354"; the architecture if the machine does not tell.
func CPUModel() string {
	if s := strings.Join(strings.Fields(cpuid.CPU.BrandName), " "); s != "" {
		return s
	}
	if s := cpuModel(); s != "" {
		return s
	}
	return runtime.GOARCH
}
