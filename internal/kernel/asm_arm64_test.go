//go:build linux && !purego

package kernel_test

import (
	"encoding/binary"
	"os"
	"slices"
	"testing"

	"kvasir/internal/kernel"
)

// The NEON path is offered if and only if the kernel reports the dot product in the auxiliary vector.
func TestNEONIsFound(t *testing.T) {
	b, err := os.ReadFile("/proc/self/auxv")
	if err != nil {
		t.Fatal(err)
	}
	const hwcap, asimddp = 16, 1 << 20 // AT_HWCAP, HWCAP_ASIMDDP
	for ; len(b) >= 16; b = b[16:] {
		if binary.LittleEndian.Uint64(b) != hwcap {
			continue
		}
		want := binary.LittleEndian.Uint64(b[8:])&asimddp != 0
		if got := slices.Contains(kernel.Available(), kernel.NEON); got != want {
			t.Errorf("Available() = %v, the CPU's dot product: %v", kernel.Available(), want)
		}
		return
	}
	t.Fatal("no AT_HWCAP in /proc/self/auxv")
}
