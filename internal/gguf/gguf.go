// Package gguf reads and writes GGUF model files, versions 2 and 3, little-endian. The format is described in
// docs/gguf.md of the ggml project.
//
// Files come from strangers. Parse checks every count, length and offset against the bytes that are there before it
// uses them, allocates less than twice the file's size whatever the file says, and gives an error that wraps ErrFormat for
// everything that is wrong. After Parse, no method can read outside the file.
package gguf

import (
	"errors"
	"fmt"
	"sort"
	"strings"
	"unsafe"

	"kvasir/internal/mmap"
)

// ErrFormat is wrapped by every error about the contents of a file.
var ErrFormat = errors.New("malformed GGUF file")

// A File is a parsed GGUF file. It may be read by several goroutines at once.
type File struct {
	Version   uint32   // 2 or 3
	Alignment int      // of tensor data in the file, in bytes
	Tensors   []Tensor // in the order of the file

	data    []byte
	keys    []int // where each metadata pair begins in data, by rising key
	mapping *mmap.Mapping
}

// A Tensor is an array of up to four dimensions, stored row by row.
type Tensor struct {
	Name string
	Type Type
	// byName is, in Tensors[i], the place in Tensors of the i-th tensor by name. It belongs to the File's index, not to
	// this tensor; it lives here, in what would be padding, because here it costs no memory.
	byName uint32
	Dims   []uint64 // Dims[0] is the row length in values; none is 0
	Data   []byte   // Rows() * RowBytes() bytes; part of the file, read-only
}

// Open maps the file at path and parses it. Tensor data is read from disk when it is first touched; it must not be used
// after Close. Errors are those of the operating system or wrap ErrFormat.
func Open(path string) (*File, error) {
	m, err := mmap.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(m.Data)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.mapping = m
	return f, nil
}

// Close gives the file back. Data of every tensor is gone with it; names and values that the getters returned stay valid.
func (f *File) Close() error {
	m := f.mapping
	f.data, f.keys, f.Tensors, f.mapping = nil, nil, nil, nil
	if m == nil {
		return nil
	}
	return m.Close()
}

// Size is the file's size in bytes.
func (f *File) Size() int64 { return int64(len(f.data)) }

// Tensor finds a tensor by name. The pointer is into f.Tensors.
func (f *File) Tensor(name string) (*Tensor, bool) {
	ts := f.Tensors
	i, ok := sort.Find(len(ts), func(i int) int { return strings.Compare(name, ts[ts[i].byName].Name) })
	if !ok {
		return nil, false
	}
	return &ts[ts[i].byName], true
}

// Drop tells the operating system that t's bytes are not needed for now, for callers that made their own copy. They
// are read from disk again if they are touched. Nothing happens to a tensor that is not of this file, or with Parse.
func (f *File) Drop(t *Tensor) {
	if f.mapping == nil || len(t.Data) == 0 || len(f.data) == 0 {
		return
	}
	start, at := uintptr(unsafe.Pointer(&f.data[0])), uintptr(unsafe.Pointer(&t.Data[0]))
	if at < start || at-start >= uintptr(len(f.data)) {
		return
	}
	_ = f.mapping.Drop(int(at-start), len(t.Data)) // a hint; the range is inside
}

// RowLen is the number of values in a row.
func (t *Tensor) RowLen() int {
	if len(t.Dims) == 0 {
		return 0
	}
	return int(t.Dims[0])
}

// Rows is the number of rows: the product of all dimensions but the first.
func (t *Tensor) Rows() int {
	if len(t.Dims) == 0 {
		return 0
	}
	n := 1
	for _, d := range t.Dims[1:] {
		n *= int(d)
	}
	return n
}

// RowBytes is the size of a row in bytes, 0 if the type is unknown.
func (t *Tensor) RowBytes() int {
	if !t.Type.Known() {
		return 0
	}
	return t.RowLen() / t.Type.BlockLen() * t.Type.BlockBytes()
}

// byName sorts the index that is kept in the byName fields.
type byName []Tensor

func (s byName) Len() int           { return len(s) }
func (s byName) Less(i, j int) bool { return s[s[i].byName].Name < s[s[j].byName].Name }
func (s byName) Swap(i, j int)      { s[i].byName, s[j].byName = s[j].byName, s[i].byName }
