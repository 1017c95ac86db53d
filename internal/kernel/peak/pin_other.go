//go:build !linux

package peak

// pin would bind the calling thread to a processor; this system places threads itself.
func pin(int) (undo func()) { return func() {} }
