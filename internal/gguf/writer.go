package gguf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
)

// A Writer collects metadata and tensors and writes them as a file, in the order in which they were added. Its setters
// remember the first mistake (a key or name that is empty, too long or there already), which then every output method returns.
//
// "general.alignment", set with SetUint32, decides where tensors go; without it that is at multiples of 32 bytes.
type Writer struct {
	version   uint32
	alignment int
	pairs     []byte
	nPairs    uint64
	table     []byte
	tensors   [][]byte
	end       uint64 // of the last tensor's data, padded
	keys      map[string]bool
	names     map[string]bool
	err       error
}

// NewWriter returns an empty Writer for version 3 of the format.
func NewWriter() *Writer {
	return &Writer{version: 3, alignment: defaultAlignment, keys: map[string]bool{}, names: map[string]bool{}}
}

// SetVersion chooses 2 or 3; the two differ in nothing else that Writer writes.
func (w *Writer) SetVersion(v uint32) {
	if v != 2 && v != 3 {
		w.fail("version %d is not supported, only 2 and 3 are", v)
		return
	}
	w.version = v
}

func (w *Writer) fail(format string, args ...any) {
	if w.err == nil {
		w.err = errors.New("gguf: " + fmt.Sprintf(format, args...))
	}
}

// begin appends key and type of a pair.
func (w *Writer) begin(key string, t ValueType) {
	switch {
	case len(key) == 0 || len(key) > maxKeyLen:
		w.fail("metadata key of %d bytes, must be 1 to %d", len(key), maxKeyLen)
	case w.keys[key]:
		w.fail("metadata key %q was set twice", key)
	}
	w.keys[key] = true
	w.nPairs++
	w.pairs = appendString(w.pairs, key)
	w.pairs = binary.LittleEndian.AppendUint32(w.pairs, uint32(t))
}

func (w *Writer) beginArray(key string, t ValueType, n int) {
	w.begin(key, typeArray)
	w.pairs = binary.LittleEndian.AppendUint32(w.pairs, uint32(t))
	w.pairs = binary.LittleEndian.AppendUint64(w.pairs, uint64(n))
}

func appendString(b []byte, s string) []byte {
	return append(binary.LittleEndian.AppendUint64(b, uint64(len(s))), s...)
}

// SetString adds a string.
func (w *Writer) SetString(key, v string) {
	w.begin(key, typeString)
	w.pairs = appendString(w.pairs, v)
}

// SetUint32 adds a uint32.
func (w *Writer) SetUint32(key string, v uint32) {
	if key == alignmentKey {
		switch {
		case v < minAlignment || v > maxAlignment || v&(v-1) != 0:
			w.fail("%s is %d, must be a power of two from %d to %d", key, v, minAlignment, maxAlignment)
		case len(w.tensors) > 0:
			w.fail("%s must be set before the first tensor is added", key)
		default:
			w.alignment = int(v)
		}
	}
	w.begin(key, typeUint32)
	w.pairs = binary.LittleEndian.AppendUint32(w.pairs, v)
}

// SetInt32 adds an int32.
func (w *Writer) SetInt32(key string, v int32) {
	w.begin(key, typeInt32)
	w.pairs = binary.LittleEndian.AppendUint32(w.pairs, uint32(v))
}

// SetUint64 adds a uint64.
func (w *Writer) SetUint64(key string, v uint64) {
	w.begin(key, typeUint64)
	w.pairs = binary.LittleEndian.AppendUint64(w.pairs, v)
}

// SetFloat32 adds a float32.
func (w *Writer) SetFloat32(key string, v float32) {
	w.begin(key, typeFloat32)
	w.pairs = binary.LittleEndian.AppendUint32(w.pairs, math.Float32bits(v))
}

// SetFloat64 adds a float64.
func (w *Writer) SetFloat64(key string, v float64) {
	w.begin(key, typeFloat64)
	w.pairs = binary.LittleEndian.AppendUint64(w.pairs, math.Float64bits(v))
}

// SetBool adds a bool.
func (w *Writer) SetBool(key string, v bool) {
	w.begin(key, typeBool)
	w.pairs = appendBool(w.pairs, v)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// SetStrings adds an array of strings.
func (w *Writer) SetStrings(key string, v []string) {
	w.beginArray(key, typeString, len(v))
	for _, s := range v {
		w.pairs = appendString(w.pairs, s)
	}
}

// SetInts adds an array of int32.
func (w *Writer) SetInts(key string, v []int32) {
	w.beginArray(key, typeInt32, len(v))
	for _, i := range v {
		w.pairs = binary.LittleEndian.AppendUint32(w.pairs, uint32(i))
	}
}

// SetFloats adds an array of float32.
func (w *Writer) SetFloats(key string, v []float32) {
	w.beginArray(key, typeFloat32, len(v))
	for _, x := range v {
		w.pairs = binary.LittleEndian.AppendUint32(w.pairs, math.Float32bits(x))
	}
}

// SetBools adds an array of bools.
func (w *Writer) SetBools(key string, v []bool) {
	w.beginArray(key, typeBool, len(v))
	for _, b := range v {
		w.pairs = appendBool(w.pairs, b)
	}
}

// SetBytes adds an array of uint8.
func (w *Writer) SetBytes(key string, v []byte) {
	w.beginArray(key, typeUint8, len(v))
	w.pairs = append(w.pairs, v...)
}

// AddTensor adds a tensor; dims[0] is the row length. The Writer keeps data, which must not change until it was written.
func (w *Writer) AddTensor(name string, t Type, dims []uint64, data []byte) {
	if len(name) == 0 || len(name) > maxTensorName {
		w.fail("tensor name of %d bytes, must be 1 to %d", len(name), maxTensorName)
		return
	}
	if w.names[name] {
		w.fail("tensor %q was added twice", name)
		return
	}
	n, err := dataBytes(t, dims)
	if err != nil {
		w.fail("tensor %q: %s", name, err)
		return
	}
	if n != uint64(len(data)) {
		w.fail("tensor %q: %d of %s take %d bytes, not %d", name, dims, t, n, len(data))
		return
	}
	w.names[name] = true
	w.table = appendString(w.table, name)
	w.table = binary.LittleEndian.AppendUint32(w.table, uint32(len(dims)))
	for _, d := range dims {
		w.table = binary.LittleEndian.AppendUint64(w.table, d)
	}
	w.table = binary.LittleEndian.AppendUint32(w.table, uint32(t))
	w.table = binary.LittleEndian.AppendUint64(w.table, w.end)
	w.tensors = append(w.tensors, data)
	w.end += n + padding(n, w.alignment)
}

// padding is how many bytes are missing from n to a multiple of alignment.
func padding(n uint64, alignment int) uint64 { return -n & uint64(alignment-1) }

// WriteTo writes the file, every tensor padded to the alignment. It implements io.WriterTo and may be called repeatedly.
func (w *Writer) WriteTo(to io.Writer) (int64, error) {
	if w.err != nil {
		return 0, w.err
	}
	head := append(make([]byte, 0, 24), magic...)
	head = binary.LittleEndian.AppendUint32(head, w.version)
	head = binary.LittleEndian.AppendUint64(head, uint64(len(w.tensors)))
	head = binary.LittleEndian.AppendUint64(head, w.nPairs)
	zeros := make([]byte, w.alignment)
	var written int64
	put := func(parts ...[]byte) error {
		for _, p := range parts {
			n, err := to.Write(p)
			written += int64(n)
			if err != nil {
				return fmt.Errorf("gguf: %w", err)
			}
		}
		return nil
	}
	if err := put(head, w.pairs, w.table); err != nil {
		return written, err
	}
	if len(w.tensors) > 0 {
		if err := put(zeros[:padding(uint64(written), w.alignment)]); err != nil {
			return written, err
		}
	}
	for _, t := range w.tensors {
		if err := put(t, zeros[:padding(uint64(len(t)), w.alignment)]); err != nil {
			return written, err
		}
	}
	return written, nil
}

// Bytes returns the file.
func (w *Writer) Bytes() ([]byte, error) {
	var b bytes.Buffer
	b.Grow(len(w.pairs) + len(w.table) + int(w.end) + 24 + w.alignment)
	if _, err := w.WriteTo(&b); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// WriteFile writes the file to path, which it creates or replaces. A file that could not be written whole is removed.
func (w *Writer) WriteFile(path string) error {
	if w.err != nil {
		return w.err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = w.WriteTo(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
	}
	return err
}
