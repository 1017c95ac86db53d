//go:build linux || darwin

package gemm

import (
	"math/rand/v2"
	"os"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"kvasir/internal/kernel"
)

// guarded returns a copy of s that ends where a protected memory range begins: reading or writing one element more is a fault.
func guarded[T any](t *testing.T, s []T) []T {
	t.Helper()
	size := len(s) * int(unsafe.Sizeof(*new(T)))
	unit := os.Getpagesize()
	n := (size + unit - 1) / unit * unit
	b, err := unix.Mmap(-1, 0, n+unit, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mprotect(b[n:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	g := unsafe.Slice((*T)(unsafe.Pointer(&b[n-size])), len(s))
	copy(g, s)
	return g
}

// No path reads beyond the weights or the activations, or writes beyond the output.
func TestMulStaysInside(t *testing.T) {
	for _, g := range ggmlTypes {
		for _, in := range []int{32, 96} {
			in := wide(g.id, in)
			rng := rand.New(rand.NewPCG(9, uint64(g.id)))
			m := pack(t, g.id, 32, in, weights(rng, g.id, 32, in, random))
			m.Data = guarded(t, m.Data)
			for rows := 1; rows <= 7; rows++ {
				x := activations(rng, rows, in, random)
				x.F, x.Q, x.S, x.N = guarded(t, x.F), guarded(t, x.Q), guarded(t, x.S), guarded(t, x.N)
				out := guarded(t, make([]float32, rows*PanelOutputs))
				for _, p := range kernel.Available() {
					Mul(p, m, 0, x, 0, rows, out, PanelOutputs)
				}
			}
		}
	}
}
