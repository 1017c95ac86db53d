//go:build !purego

package kernel

import (
	"runtime"

	"golang.org/x/sys/cpu"
)

// assembly lists the paths of this build that the CPU can run, best first. Every Apple CPU that runs macOS has the dot product.
func assembly() []Path {
	if cpu.ARM64.HasASIMD && cpu.ARM64.HasASIMDDP || runtime.GOOS == "darwin" {
		return []Path{NEON}
	}
	return nil
}
