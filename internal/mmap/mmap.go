// Package mmap maps files and anonymous memory into the address space, outside the Go heap.
//
// The garbage collector knows nothing of these bytes: a slice of Data that outlives Close faults when it is used.
// A file that somebody truncates while it is mapped faults as well; that is the price of not copying it.
package mmap

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"sync"
)

// A Mapping is a range of mapped memory. Its methods may be called from several goroutines.
type Mapping struct {
	// Data is the memory, aligned to the operating system's unit of mapping (4096 bytes or more). It is read-only
	// for Open (a write faults) and writable for Anon. It is nil when the mapping is empty.
	Data []byte

	close sync.Once
	err   error
	//lint:ignore U1000 only some systems have something to keep
	sys state // what the operating system wants back at Close
}

// Open maps the whole of the regular file at path, read-only. The file may be removed or renamed afterwards; its
// bytes stay readable until Close. Errors are those of os.Open (so errors.Is(err, fs.ErrNotExist) works) or name the path.
func Open(path string) (*Mapping, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping holds the file by itself
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("mmap: %s is not a regular file: %w", path, fs.ErrInvalid)
	}
	if info.Size() > math.MaxInt {
		return nil, fmt.Errorf("mmap: %s has %d bytes, more than this platform can address: %w", path, info.Size(), fs.ErrInvalid)
	}
	m := &Mapping{}
	if info.Size() == 0 {
		return m, nil // operating systems refuse to map nothing
	}
	if err := m.mapFile(f, int(info.Size())); err != nil {
		return nil, fmt.Errorf("mmap: %s: %w", path, err)
	}
	return m, nil
}

// Anon returns n bytes of zeroed private memory. Nothing of it is resident until it is touched, so that a large n costs
// address space only (on Windows also commit charge).
func Anon(n int) (*Mapping, error) {
	if n < 0 {
		return nil, fmt.Errorf("mmap: negative size %d: %w", n, fs.ErrInvalid)
	}
	m := &Mapping{}
	if n == 0 {
		return m, nil
	}
	if err := m.mapAnon(n); err != nil {
		return nil, fmt.Errorf("mmap: %d bytes of anonymous memory: %w", n, err)
	}
	return m, nil
}

// Huge asks for large pages, for memory that is read in long runs again and again: address translation then costs less.
// It is to come before the memory is touched. Systems that have no such request decide for themselves.
func (m *Mapping) Huge() {
	if len(m.Data) > 0 {
		m.huge()
	}
}

// Populate makes the system back Data[off:off+n] with memory now, as writing to it would, without changing what is in it: other
// goroutines may use it meanwhile. Where there is no such request, or no memory, nothing happens.
func (m *Mapping) Populate(off, n int) {
	if off >= 0 && n > 0 && off < len(m.Data) && n <= len(m.Data)-off {
		unit := os.Getpagesize()
		m.populate(off/unit*unit, off+n)
	}
}

// Drop tells the operating system that Data[off:off+n] is not needed for now. Of that range the units of mapping that
// lie wholly inside are given back where the platform can do so; elsewhere nothing happens. Data of a file reads the same afterwards, data of
// Anon is undefined (old or zero) until it is written again. The error is about a range outside Data.
func (m *Mapping) Drop(off, n int) error {
	if off < 0 || n < 0 || off > len(m.Data) || n > len(m.Data)-off {
		return fmt.Errorf("mmap: drop of %d bytes at %d in a mapping of %d: %w", n, off, len(m.Data), fs.ErrInvalid)
	}
	unit := os.Getpagesize()
	end := off + n
	if end < len(m.Data) { // the last, incomplete unit of the mapping is ours alone
		end -= end % unit
	}
	if r := off % unit; r != 0 {
		if off > math.MaxInt-unit {
			return nil
		}
		off += unit - r
	}
	if off >= end {
		return nil
	}
	m.drop(off, end)
	return nil
}

// Close gives the memory back. Data and every slice of it must not be used any more. Later calls return the first result.
func (m *Mapping) Close() error {
	m.close.Do(func() {
		data := m.Data
		m.Data = nil
		if data != nil {
			m.err = m.unmap(data)
		}
	})
	return m.err
}
