package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"strconv"
	"strings"
)

// cgroup is where this process stands in one hierarchy: dir is its directory and top the hierarchy's mount point, both
// relative to the root of the file system.
type cgroup struct {
	dir, top string
	v2       bool
}

// findCgroup returns the cgroup of this process that has the controller: version 1 if the controller is mounted there,
// else the unified hierarchy. ok is false where there is none. The formats are those of cgroups(7) and proc(5).
func findCgroup(fsys fs.FS, controller string) (g cgroup, ok bool, err error) {
	self, err := fs.ReadFile(fsys, "proc/self/cgroup")
	if errors.Is(err, fs.ErrNotExist) {
		return g, false, nil // not Linux, or built without cgroups
	} else if err != nil {
		return g, false, err
	}
	mounts, err := fs.ReadFile(fsys, "proc/self/mountinfo")
	if err != nil {
		return g, false, err
	}
	var v1, v2 string
	for line := range strings.Lines(string(self)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3) // id:controllers:path
		if len(f) != 3 {
			continue
		}
		if f[0] == "0" && f[1] == "" {
			v2 = f[2]
		} else if hasItem(f[1], controller) {
			v1 = f[2]
		}
	}
	for line := range strings.Lines(string(mounts)) {
		left, right, found := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !found || len(l) < 5 || len(r) < 3 {
			continue
		}
		root, point := unescape(l[3]), unescape(l[4])
		switch {
		case v1 != "" && r[0] == "cgroup" && hasItem(r[2], controller):
			return below(root, point, v1, false), true, nil
		case v2 != "" && r[0] == "cgroup2" && v1 == "":
			return below(root, point, v2, true), true, nil
		}
	}
	return g, false, nil
}

// below places the cgroup path of /proc/self/cgroup under a mount that shows the hierarchy from root on. Inside a container the path may
// lie outside what is mounted; then the mount's top is the container's own cgroup.
func below(root, point, p string, v2 bool) cgroup {
	top := strings.TrimPrefix(path.Clean(point), "/")
	rel, inside := p, true
	if root != "/" {
		rel, inside = strings.CutPrefix(p, root)
	}
	if !inside || strings.Contains(rel, "..") {
		rel = ""
	}
	return cgroup{dir: path.Join(top, rel), top: top, v2: v2}
}

func hasItem(list, item string) bool {
	for s := range strings.SplitSeq(list, ",") {
		if s == item {
			return true
		}
	}
	return false
}

// unescape undoes mountinfo's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// levels calls visit for the cgroup's directory and every one above it, up to the mount point. A limit on any of them binds.
func (g cgroup) levels(visit func(dir string) error) error {
	for dir := g.dir; ; dir = path.Dir(dir) {
		if err := visit(dir); err != nil {
			return err
		}
		if dir == g.top || dir == "." || !strings.HasPrefix(dir, g.top) {
			return nil
		}
	}
}

const unlimited = math.MaxUint64

// cgroupMemory returns the smallest memory limit over this process's cgroups and the smallest room left under one, in bytes; both are
// unlimited where no limit is set. Page cache that the kernel can drop at once (inactive_file) counts as room, as it does for
// the kubelet's working set.
func cgroupMemory(fsys fs.FS) (limit, room uint64, err error) {
	limit, room = unlimited, unlimited
	g, ok, err := findCgroup(fsys, "memory")
	if err != nil || !ok {
		return limit, room, err
	}
	limits, usage, inactive := []string{"memory.max", "memory.high"}, "memory.current", "inactive_file"
	if !g.v2 {
		limits, usage, inactive = []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file"
	}
	err = g.levels(func(dir string) error {
		level := uint64(unlimited)
		for _, name := range limits {
			v, err := readLimit(fsys, path.Join(dir, name))
			if err != nil {
				return err
			}
			level = min(level, v)
		}
		if level == unlimited {
			return nil
		}
		used, err := readUint(fsys, path.Join(dir, usage))
		if err != nil {
			return err
		}
		stat, err := fs.ReadFile(fsys, path.Join(dir, "memory.stat"))
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(stat)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == inactive {
				v, err := strconv.ParseUint(f[1], 10, 64)
				if err != nil {
					return fmt.Errorf("%s/memory.stat: %w", dir, err)
				}
				used -= min(used, v)
			}
		}
		limit = min(limit, level)
		room = min(room, level-min(level, used))
		return nil
	})
	return limit, room, err
}

// readLimit reads a limit file. A missing file (the root cgroup has none), "max" and version 1's huge values mean unlimited.
func readLimit(fsys fs.FS, name string) (uint64, error) {
	b, err := fs.ReadFile(fsys, name)
	if errors.Is(err, fs.ErrNotExist) {
		return unlimited, nil
	} else if err != nil {
		return 0, err
	}
	s := strings.TrimSpace(string(b))
	if s == "max" {
		return unlimited, nil
	}
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if v >= 1<<62 {
		return unlimited, nil
	}
	return v, nil
}

func readUint(fsys fs.FS, name string) (uint64, error) {
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// cgroupCPUs returns the smallest CPU quota over this process's cgroups, in CPUs; +Inf where none is set.
func cgroupCPUs(fsys fs.FS) (float64, error) {
	cpus := math.Inf(1)
	g, ok, err := findCgroup(fsys, "cpu")
	if err != nil || !ok {
		return cpus, err
	}
	err = g.levels(func(dir string) error {
		var f []string
		for _, name := range map[bool][]string{true: {"cpu.max"}, false: {"cpu.cfs_quota_us", "cpu.cfs_period_us"}}[g.v2] {
			b, err := fs.ReadFile(fsys, path.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			} else if err != nil {
				return err
			}
			f = append(f, strings.Fields(string(b))...)
		}
		if len(f) != 2 || f[0] == "max" || f[0] == "-1" {
			return nil
		}
		quota, err1 := strconv.ParseUint(f[0], 10, 64)
		period, err2 := strconv.ParseUint(f[1], 10, 64)
		if err := errors.Join(err1, err2); err != nil || period == 0 {
			return fmt.Errorf("%s: CPU quota %q: %w", dir, f, errors.Join(err, fs.ErrInvalid))
		}
		cpus = min(cpus, float64(quota)/float64(period))
		return nil
	})
	return cpus, err
}
