//go:build linux || darwin

package vec_test

import (
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
)

// fenced returns n zero values that end where a protected memory range begins: reading or writing one more is a fault.
func fenced[T any](t *testing.T, n int) []T {
	t.Helper()
	size := n * int(unsafe.Sizeof(*new(T)))
	unit := os.Getpagesize()
	whole := (size + unit - 1) / unit * unit
	b, err := unix.Mmap(-1, 0, whole+unit, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mprotect(b[whole:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[whole-size])), n)
}

// No path reads or writes beyond what it is given.
func TestStaysInside(t *testing.T) {
	f := func(n int) []float32 { return fenced[float32](t, n) }
	for _, p := range kernel.Available() {
		for _, n := range []int{32, 96} {
			x, y := f(n), f(n)
			vec.Quantize(p, x, fenced[int8](t, n), f(n/16), fenced[int32](t, n/16))
			vec.RMSNorm(p, y, x, f(n), 1e-5)
			vec.Add(p, y, x)
			vec.SiluMul(p, y, x, f(n))
			vec.GeluMul(p, y, x, f(n))
			vec.AddScaled(p, y, x, 2)
			vec.Argmax(p, x)
			for i := range x { // nothing to be found: all of it is read
				x[i] = nan
			}
			vec.Argmax(p, x)
			vec.Index(p, x, 1)
		}
		const n = 2 * vec.SampleChunk
		x := f(n)
		vec.Scan(p, x, f(vec.MaximaLen(n)))
		vec.Collect(p, x, 0, fenced[int32](t, n+vec.CollectSpare), f(n+vec.CollectSpare))
		vec.Weigh(p, x, 0, 1, 0, f(n), fenced[uint64](t, 2))
		for _, size := range []int{16, 80, 256} {
			vec.Rope(p, f(2*size), f(2*size), 2, size, f(2*size), 1)
			k, v := fenced[uint16](t, size*vec.TileTokens), fenced[uint16](t, size*vec.TileTokens)
			vec.StoreK(p, k, vec.TileTokens-1, size, f(size))
			vec.StoreV(p, v, vec.TileTokens-1, size, f(size))
			for rows := 1; rows <= 13; rows++ {
				st, st2 := f(rows*vec.StateLen(size)), f(rows*vec.StateLen(size))
				vec.AttendTile(p, f(rows*size), k, v, k, st, rows, size, fenced[uint32](t, rows), f(vec.ScratchLen()))
				vec.MergeState(p, st2, st, rows, size)
				vec.FinishState(p, st2, f(rows*size), rows, size)
			}
		}
	}
}
