package machine

import (
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"kvasir/internal/config"
)

const none = math.MaxUint64

func tree(kv ...string) fstest.MapFS {
	m := fstest.MapFS{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = &fstest.MapFile{Data: []byte(kv[i+1])}
	}
	return m
}

const (
	mountV2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	mountV1 = "35 31 0:32 %ROOT% /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" +
		"36 31 0:33 %ROOT% /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n" +
		"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
)

func v1Mounts(root string) string { return strings.ReplaceAll(mountV1, "%ROOT%", root) }

func TestCgroupMemory(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		name        string
		fs          fstest.MapFS
		limit, room uint64
	}{
		{"no cgroups", tree(), none, none},
		{"v2 root without limits", tree("proc/self/cgroup", "0::/\n", "proc/self/mountinfo", mountV2), none, none},
		{"v2 max", tree("proc/self/cgroup", "0::/a\n", "proc/self/mountinfo", mountV2,
			"sys/fs/cgroup/a/memory.max", "max\n"), none, none},
		{"v2 page cache is room", tree("proc/self/cgroup", "0::/a\n", "proc/self/mountinfo", mountV2,
			"sys/fs/cgroup/a/memory.max", "2147483648\n", "sys/fs/cgroup/a/memory.current", "1610612736\n",
			"sys/fs/cgroup/a/memory.stat", "anon 5\nfile 9\ninactive_file 536870912\nactive_file 3\n"), 2 * gib, gib},
		{"v2 high binds below max", tree("proc/self/cgroup", "0::/a\n", "proc/self/mountinfo", mountV2,
			"sys/fs/cgroup/a/memory.max", "4294967296\n", "sys/fs/cgroup/a/memory.high", "1073741824\n",
			"sys/fs/cgroup/a/memory.current", "0\n", "sys/fs/cgroup/a/memory.stat", ""), gib, gib},
		{"v2 the parent binds", tree("proc/self/cgroup", "0::/p/c\n", "proc/self/mountinfo", mountV2,
			"sys/fs/cgroup/p/c/memory.max", "4294967296\n", "sys/fs/cgroup/p/c/memory.current", "10\n", "sys/fs/cgroup/p/c/memory.stat", "inactive_file 99\n",
			"sys/fs/cgroup/p/memory.max", "3221225472\n", "sys/fs/cgroup/p/memory.current", "1073741824\n", "sys/fs/cgroup/p/memory.stat", "inactive_file 0\n"), 3 * gib, 2 * gib},
		{"v2 over the limit", tree("proc/self/cgroup", "0::/a\n", "proc/self/mountinfo", mountV2,
			"sys/fs/cgroup/a/memory.max", "100\n", "sys/fs/cgroup/a/memory.current", "150\n", "sys/fs/cgroup/a/memory.stat", ""), 100, 0},
		{"v1 in a container", tree("proc/self/cgroup", "4:memory:/docker/abc\n0::/\n", "proc/self/mountinfo", v1Mounts("/docker/abc"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n", "sys/fs/cgroup/memory/memory.usage_in_bytes", "1073741824\n",
			"sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n"), gib, 1000},
		{"v1 on the host, no limit", tree("proc/self/cgroup", "4:memory:/u\n0::/\n", "proc/self/mountinfo", v1Mounts("/"),
			"sys/fs/cgroup/memory/u/memory.limit_in_bytes", "9223372036854771712\n"), none, none},
		{"v1 path outside the mount", tree("proc/self/cgroup", "4:memory:/host/x\n", "proc/self/mountinfo", v1Mounts("/other"),
			"sys/fs/cgroup/memory/memory.limit_in_bytes", "500\n", "sys/fs/cgroup/memory/memory.usage_in_bytes", "200\n", "sys/fs/cgroup/memory/memory.stat", ""), 500, 300},
	} {
		t.Run(c.name, func(t *testing.T) {
			limit, room, err := cgroupMemory(c.fs)
			if err != nil || limit != c.limit || room != c.room {
				t.Fatalf("limit %d room %d err %v, want %d and %d", limit, room, err, c.limit, c.room)
			}
		})
	}
	if _, _, err := cgroupMemory(tree("proc/self/cgroup", "0::/a\n", "proc/self/mountinfo", mountV2, "sys/fs/cgroup/a/memory.max", "lots\n")); err == nil {
		t.Error("a limit that is no number was accepted")
	}
}

func TestThreads(t *testing.T) {
	quota := func(s string) fstest.MapFS {
		return tree("proc/self/cgroup", "0::/a\n", "proc/self/mountinfo", mountV2, "sys/fs/cgroup/a/cpu.max", s)
	}
	v1 := tree("proc/self/cgroup", "4:cpu,cpuacct:/\n", "proc/self/mountinfo", v1Mounts("/"),
		"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\n", "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
	for _, c := range []struct {
		name               string
		cores, procs, want int
		fs                 fstest.MapFS
		linux              bool
	}{
		{"cores", 4, 8, 4, tree(), false},
		{"GOMAXPROCS", 4, 2, 2, tree(), false},
		{"unknown cores", 0, 6, 6, tree(), false},
		{"no quota", 4, 8, 4, quota("max 100000\n"), false},
		{"quota of half a CPU", 4, 8, 1, quota("50000 100000\n"), true},
		{"quota of 1.4", 4, 8, 1, quota("140000 100000\n"), true},
		{"quota of 1.5", 4, 8, 2, quota("150000 100000\n"), true},
		{"v1 quota of 3", 4, 8, 3, v1, true},
	} {
		if c.linux && runtime.GOOS != "linux" {
			continue // quotas are Linux's
		}
		if got := threads(c.cores, c.procs, c.fs); got != c.want {
			t.Errorf("%s: %d threads, want %d", c.name, got, c.want)
		}
	}
}

func TestCoresOf(t *testing.T) {
	smt := tree(
		"sys/devices/system/cpu/cpu0/topology/core_cpus_list", "0,2\n", "sys/devices/system/cpu/cpu2/topology/core_cpus_list", "0,2\n",
		"sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1,3\n", "sys/devices/system/cpu/cpu3/topology/thread_siblings_list", "1,3\n")
	for _, c := range []struct {
		cpus []int
		want []int
	}{{[]int{0, 1, 2, 3}, []int{0, 1}}, {[]int{0, 2}, []int{0}}, {[]int{0, 1}, []int{0, 1}}, {[]int{3, 8, 9}, []int{3, 8, 9}}, {nil, nil}} {
		if got := coresOf(smt, c.cpus); !slices.Equal(got, c.want) {
			t.Errorf("cores of %v: %v, want %v", c.cpus, got, c.want)
		}
	}
}

func TestBudget(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		spec string
		want uint64
		err  error
	}{
		{"25%", 250 * mib, nil},
		{"100%", 1000 * mib, nil},
		{"64MiB", 64 * mib, nil},
		{"1500MiB", 1500 * mib, nil}, // more than is free now, less than the limit
		{"2001MiB", 0, ErrMemory},
		{"a lot", 0, config.ErrSize},
	} {
		got, err := budget(c.spec, 1000*mib, 2000*mib)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("budget(%q) = %d, %v; want %d, %v", c.spec, got, err, c.want, c.err)
		}
	}
	if _, err := budget("25%", 0, 2000*mib); err == nil {
		t.Error("a quarter of nothing was accepted")
	}
}

func TestThisMachine(t *testing.T) {
	available, limit, err := Memory()
	if err != nil {
		t.Fatal(err)
	}
	if available == 0 || available > limit {
		t.Errorf("available %d, limit %d", available, limit)
	}
	if n := Threads(); n < 1 || n > runtime.GOMAXPROCS(0) {
		t.Errorf("Threads() = %d", n)
	}
	if b, err := Budget("50%"); err != nil || b == 0 || b > limit {
		t.Errorf("Budget = %d, %v", b, err)
	}
	if CPUModel() == "" {
		t.Error("no CPU model")
	}
	t.Logf("%s, %d threads, %d of %d MiB available", CPUModel(), Threads(), available>>20, limit>>20)
}
