package mmap

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"unsafe"
)

// pattern has a period that is prime to every unit of mapping.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func TestOpen(t *testing.T) {
	unit := os.Getpagesize()
	for _, n := range []int{0, 1, unit - 1, unit, unit + 1, 3*unit + 17} {
		path := filepath.Join(t.TempDir(), "f")
		want := pattern(n)
		if err := os.WriteFile(path, want, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if !bytes.Equal(m.Data, want) {
			t.Errorf("%d bytes: mapped data differs from the file", n)
		}
		for _, r := range [][2]int{{0, n}, {0, 0}, {n, 0}, {n / 3, n / 2}} {
			if err := m.Drop(r[0], r[1]); err != nil {
				t.Errorf("%d bytes: Drop(%d, %d): %v", n, r[0], r[1], err)
			}
		}
		if !bytes.Equal(m.Data, want) {
			t.Errorf("%d bytes: data differs after Drop", n)
		}
		for range 2 {
			if err := m.Close(); err != nil {
				t.Errorf("%d bytes: Close: %v", n, err)
			}
		}
		if m.Data != nil {
			t.Errorf("%d bytes: Data is still set after Close", n)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if _, err := Open(t.TempDir()); err == nil {
		t.Error("a directory was mapped")
	}
	if _, err := Anon(-1); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("negative size: %v", err)
	}
}

func TestAnon(t *testing.T) {
	unit := os.Getpagesize()
	for _, n := range []int{0, 1, unit, 5*unit + 3} {
		m, err := Anon(n)
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Data) != n {
			t.Fatalf("%d bytes asked for, %d mapped", n, len(m.Data))
		}
		if n > 0 && uintptr(unsafe.Pointer(&m.Data[0]))%64 != 0 {
			t.Errorf("%d bytes: not aligned to 64", n)
		}
		if !bytes.Equal(m.Data, make([]byte, n)) {
			t.Errorf("%d bytes: not zero", n)
		}
		copy(m.Data, pattern(n))
		if !bytes.Equal(m.Data, pattern(n)) {
			t.Errorf("%d bytes: what was written is not there", n)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Large pages change nothing of what is read and written.
func TestHuge(t *testing.T) {
	for _, n := range []int{0, 1, 4096, 5 << 20} {
		m, err := Anon(n)
		if err != nil {
			t.Fatal(err)
		}
		m.Huge()
		m.Populate(n/2, n-n/2)
		for i := 0; i < n; i += 1000 {
			if m.Data[i] != 0 {
				t.Fatalf("byte %d of %d is not zero", i, n)
			}
			m.Data[i] = byte(i / 1000)
		}
		for i := 0; i < n; i += 1000 {
			if m.Data[i] != byte(i/1000) {
				t.Fatalf("byte %d of %d was lost", i, n)
			}
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnonLarge(t *testing.T) {
	m, err := Anon(1 << 30)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	m.Data[0], m.Data[len(m.Data)-1] = 1, 2
	if m.Data[len(m.Data)/2] != 0 {
		t.Error("the middle is not zero")
	}
}

// Drop must keep its hands off the bytes just outside the range.
func TestDropKeepsNeighbours(t *testing.T) {
	unit := os.Getpagesize()
	n := 4 * unit
	for _, r := range [][2]int{{1, 2 * unit}, {unit, unit}, {unit - 1, unit + 2}, {unit + 1, unit - 2}, {3 * unit, unit}, {0, n}} {
		m, err := Anon(n)
		if err != nil {
			t.Fatal(err)
		}
		want := pattern(n)
		copy(m.Data, want)
		off, end := r[0], r[0]+r[1]
		if err := m.Drop(off, r[1]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.Data[:off], want[:off]) || !bytes.Equal(m.Data[end:], want[end:]) {
			t.Errorf("Drop(%d, %d) changed bytes outside its range", off, r[1])
		}
		copy(m.Data, want)
		if !bytes.Equal(m.Data, want) {
			t.Errorf("Drop(%d, %d): the range cannot be written again", off, r[1])
		}
		m.Close()
	}
}

func TestDropRange(t *testing.T) {
	m, err := Anon(100)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	const maxInt = int(^uint(0) >> 1)
	for _, r := range [][2]int{{-1, 1}, {0, -1}, {0, 101}, {101, 0}, {50, 51}, {1, maxInt}, {maxInt, 1}} {
		if err := m.Drop(r[0], r[1]); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Drop(%d, %d): %v", r[0], r[1], err)
		}
	}
}
