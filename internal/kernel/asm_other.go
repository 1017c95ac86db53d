//go:build (!amd64 && !arm64) || purego

package kernel

// assembly lists the paths of this build that the CPU can run: there are none.
func assembly() []Path { return nil }
