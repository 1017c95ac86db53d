//go:build unix

package mmap

import (
	"os"

	"golang.org/x/sys/unix"
)

//lint:ignore U1000 see Mapping
type state struct{}

func (m *Mapping) mapFile(f *os.File, n int) (err error) {
	m.Data, err = unix.Mmap(int(f.Fd()), 0, n, unix.PROT_READ, unix.MAP_SHARED)
	return err
}

func (m *Mapping) mapAnon(n int) (err error) {
	m.Data, err = unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	return err
}

// The advice is a hint: that it fails changes nothing but the memory in use.
func (m *Mapping) drop(off, end int) { _ = unix.Madvise(m.Data[off:end], unix.MADV_DONTNEED) }

func (m *Mapping) unmap(data []byte) error { return unix.Munmap(data) }
