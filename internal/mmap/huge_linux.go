package mmap

import "golang.org/x/sys/unix"

// The advice is a hint: where the system has no large pages, or none to spare, memory is as it was.
func (m *Mapping) huge() { _ = unix.Madvise(m.Data, unix.MADV_HUGEPAGE) }

func (m *Mapping) populate(off, end int) { _ = unix.Madvise(m.Data[off:end], unix.MADV_POPULATE_WRITE) }
