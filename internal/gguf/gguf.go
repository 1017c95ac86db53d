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

	data     []byte // of the first part, which has the metadata
	keys     []int  // where each metadata pair begins in data, by rising key
	size     int64  // of all parts
	mappings []*mmap.Mapping
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

// Open maps the file at path and parses it, with all parts of a split model if it is one of them (see Parts). Tensor data is read from
// disk when it is first touched; it must not be used after Close. Errors are those of the operating system or wrap ErrFormat.
func Open(path string) (*File, error) {
	f, err := openPart(path)
	if err != nil {
		return nil, err
	}
	names, err := f.parts(path)
	if err != nil || len(names) == 1 {
		if err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	}
	return openParts(f, path, names)
}

func openPart(path string) (*File, error) {
	m, err := mmap.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := Parse(m.Data)
	if err != nil {
		m.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.mappings = []*mmap.Mapping{m}
	return f, nil
}

// Close gives the file back. Data of every tensor is gone with it; names and values that the getters returned stay valid.
func (f *File) Close() error {
	ms := f.mappings
	f.data, f.keys, f.Tensors, f.size, f.mappings = nil, nil, nil, 0, nil
	var err error
	for _, m := range ms {
		err = errors.Join(err, m.Close())
	}
	return err
}

// Size is the file's size in bytes, that of all parts together for a split model.
func (f *File) Size() int64 { return f.size }

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
	if len(t.Data) == 0 {
		return
	}
	at := uintptr(unsafe.Pointer(&t.Data[0]))
	for _, m := range f.mappings {
		if len(m.Data) == 0 {
			continue
		}
		if start := uintptr(unsafe.Pointer(&m.Data[0])); at >= start && at-start < uintptr(len(m.Data)) {
			_ = m.Drop(int(at-start), len(t.Data)) // a hint; the range is inside
			return
		}
	}
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
