//go:build !linux

package machine

// Cores lists one logical CPU of each physical core that this process may run on. It is nil where that is not known.
func Cores() []int { return nil }
