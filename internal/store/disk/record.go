package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"kvasir/internal/cache"
)

// Version is the version of the record format that is written; all up to it are read.
const Version = 1

// A Format is what the records of one model have in common.
type Format struct {
	Weights   [32]byte // digest
	BlockSize int      // tokens
	Group     string   // layer group, at most 32 bytes
	Layout    string   // arrangement of a block's bytes, at most 32 bytes
	DType     string   // of K and V, at most 16 bytes
	Numerics  int      // revision
	Layers    int      // equal parts of a block, each with a checksum
	Bytes     int      // of a block
}

// Meta is what the header of a record says. Strings come without their padding.
type Meta struct {
	Format
	Key, Parent, Root cache.Key
	Scope             [32]byte // of the tenant; see cache.Scope
	Created           int64    // Unix seconds
	Tokens            []int32
}

var (
	// ErrForeign says that a file is no record, or one of a version that is not known.
	ErrForeign = errors.New("not a record of this version")
	// ErrCorrupt says that a record is not what was written.
	ErrCorrupt = errors.New("the record is damaged")
	// ErrOther says that a record is whole but not the wanted one.
	ErrOther = errors.New("the record is another one")
)

// The fixed part of a header; see docs/format.md.
const (
	magic      = "KVASIRKV"
	offVersion = 8
	offHeader  = 12
	offPayload = 16
	offCreated = 24
	offCount   = 32
	offSize    = 36
	offLayers  = 40
	offNumber  = 44
	offKey     = 48
	offParent  = 80
	offRoot    = 112
	offWeights = 144
	offScope   = 176
	offGroup   = 208
	offLayout  = 240
	offDType   = 272
	offSums    = 288
	sumBytes   = 8
	align      = 64

	maxTokens  = 1 << 20
	maxLayers  = 1 << 16
	maxPayload = 1 << 40
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is CRC-32C and CRC-32 side by side, which together see what a CRC of 64 bits would: the remainder modulo the product of both polynomials.
func checksum(b []byte) uint64 {
	return uint64(crc32.Checksum(b, castagnoli)) | uint64(crc32.ChecksumIEEE(b))<<32
}

// headerBytes is the length of a record's header.
func headerBytes(layers, tokens int) int {
	return (offSums + layers*sumBytes + tokens*4 + sumBytes + align - 1) &^ (align - 1)
}

// recordBytes is the length of a record's file.
func (f *Format) recordBytes(tokens int) int { return headerBytes(f.Layers, tokens) + f.Bytes }

// check says whether records of the format can be written.
func (f *Format) check() error {
	switch {
	case f.BlockSize < 1 || f.BlockSize > maxTokens || f.Layers < 1 || f.Layers > maxLayers || f.Bytes < 1 || f.Bytes > maxPayload || f.Numerics < 0:
		return fmt.Errorf("disk: %d layers, %d bytes, %d tokens in a block", f.Layers, f.Bytes, f.BlockSize)
	case f.Bytes%f.Layers != 0:
		return fmt.Errorf("disk: a block of %d bytes is not %d equal layers", f.Bytes, f.Layers)
	case len(f.Group) > 32 || len(f.Layout) > 32 || len(f.DType) > 16:
		return fmt.Errorf("disk: a name of %q, %q, %q is too long", f.Group, f.Layout, f.DType)
	}
	return nil
}

// appendHeader appends the header of a record with this payload.
func appendHeader(dst []byte, m *Meta, payload []byte) []byte {
	n, le := headerBytes(m.Layers, len(m.Tokens)), binary.LittleEndian
	start := len(dst)
	dst = slices.Grow(dst, n)[:start+n]
	h := dst[start:]
	clear(h)
	copy(h, magic)
	le.PutUint32(h[offVersion:], Version)
	le.PutUint32(h[offHeader:], uint32(n))
	le.PutUint64(h[offPayload:], uint64(len(payload)))
	le.PutUint64(h[offCreated:], uint64(m.Created))
	le.PutUint32(h[offCount:], uint32(len(m.Tokens)))
	le.PutUint32(h[offSize:], uint32(m.BlockSize))
	le.PutUint32(h[offLayers:], uint32(m.Layers))
	le.PutUint32(h[offNumber:], uint32(m.Numerics))
	copy(h[offKey:], m.Key[:])
	copy(h[offParent:], m.Parent[:])
	copy(h[offRoot:], m.Root[:])
	copy(h[offWeights:], m.Weights[:])
	copy(h[offScope:], m.Scope[:])
	copy(h[offGroup:], m.Group)
	copy(h[offLayout:], m.Layout)
	copy(h[offDType:], m.DType)
	at, part := offSums, len(payload)/m.Layers
	for i := range m.Layers {
		le.PutUint64(h[at:], checksum(payload[i*part:(i+1)*part]))
		at += sumBytes
	}
	for _, t := range m.Tokens {
		le.PutUint32(h[at:], uint32(t))
		at += 4
	}
	le.PutUint64(h[n-sumBytes:], checksum(h[:n-sumBytes]))
	return dst
}

// lengths reads from the first offSums bytes of a header how long it and the payload are. Both may be anything; a header is at most some MiB.
func lengths(h []byte) (header int, payload int64, err error) {
	le := binary.LittleEndian
	if len(h) < offSums || string(h[:8]) != magic {
		return 0, 0, ErrForeign
	}
	if v := le.Uint32(h[offVersion:]); v != Version {
		return 0, 0, fmt.Errorf("version %d: %w", v, ErrForeign)
	}
	count, layers := le.Uint32(h[offCount:]), le.Uint32(h[offLayers:])
	size := le.Uint64(h[offPayload:])
	if count > maxTokens || layers < 1 || layers > maxLayers || size > maxPayload {
		return 0, 0, fmt.Errorf("%d tokens, %d layers, %d bytes: %w", count, layers, size, ErrCorrupt)
	}
	n := headerBytes(int(layers), int(count))
	if le.Uint32(h[offHeader:]) != uint32(n) {
		return 0, 0, fmt.Errorf("a header of %d bytes: %w", le.Uint32(h[offHeader:]), ErrCorrupt)
	}
	return n, int64(size), nil
}

// parseHeader reads a whole header, which may be followed by more. It verifies its checksum, that its names are in form, and that its
// key is that of its ids behind its parent.
func parseHeader(h []byte) (*Meta, error) {
	n, size, err := lengths(h)
	if err != nil {
		return nil, err
	}
	if len(h) < n {
		return nil, fmt.Errorf("%d bytes of a header of %d: %w", len(h), n, ErrCorrupt)
	}
	h = h[:n]
	le := binary.LittleEndian
	if le.Uint64(h[n-sumBytes:]) != checksum(h[:n-sumBytes]) {
		return nil, fmt.Errorf("header checksum: %w", ErrCorrupt)
	}
	m := &Meta{Created: int64(le.Uint64(h[offCreated:]))}
	m.BlockSize, m.Layers = int(le.Uint32(h[offSize:])), int(le.Uint32(h[offLayers:]))
	m.Numerics, m.Bytes = int(le.Uint32(h[offNumber:])), int(size)
	copy(m.Key[:], h[offKey:])
	copy(m.Parent[:], h[offParent:])
	copy(m.Root[:], h[offRoot:])
	copy(m.Weights[:], h[offWeights:])
	copy(m.Scope[:], h[offScope:])
	m.Group, m.Layout = unpad(h[offGroup:offLayout]), unpad(h[offLayout:offDType])
	m.DType = unpad(h[offDType:offSums])
	count := int(le.Uint32(h[offCount:]))
	if err := m.check(); err != nil || count < 1 || count > m.BlockSize {
		return nil, fmt.Errorf("%d of %d tokens, %d layers, %d bytes: %w", count, m.BlockSize, m.Layers, size, ErrCorrupt)
	}
	m.Tokens = make([]int32, count)
	for i := range m.Tokens {
		m.Tokens[i] = int32(le.Uint32(h[offSums+m.Layers*sumBytes+i*4:]))
	}
	if len(bytes.TrimRight(h[offSums+m.Layers*sumBytes+count*4:n-sumBytes], "\x00")) > 0 {
		return nil, fmt.Errorf("the padding is not zero: %w", ErrCorrupt)
	}
	if cache.Chain(m.Parent, nil, m.Tokens) != m.Key {
		return nil, fmt.Errorf("the key is not that of the ids: %w", ErrCorrupt)
	}
	return m, nil
}

// unpad cuts the zeros that a name is filled up with.
func unpad(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// openRecord verifies a whole record and returns its header and its payload, which is part of b.
func openRecord(b []byte) (*Meta, []byte, error) {
	m, err := parseHeader(b)
	if err != nil {
		return nil, nil, err
	}
	n := headerBytes(m.Layers, len(m.Tokens))
	if len(b) != n+m.Bytes {
		return nil, nil, fmt.Errorf("%d bytes instead of %d: %w", len(b), n+m.Bytes, ErrCorrupt)
	}
	payload, part := b[n:], m.Bytes/m.Layers
	for i := range m.Layers {
		if checksum(payload[i*part:(i+1)*part]) != binary.LittleEndian.Uint64(b[offSums+i*sumBytes:]) {
			return nil, nil, fmt.Errorf("checksum of layer %d: %w", i, ErrCorrupt)
		}
	}
	return m, payload, nil
}

// is says whether a verified record is the wanted one: everything but its age.
func (m *Meta) is(want *Meta) error {
	switch {
	case m.Format != want.Format:
		return fmt.Errorf("of another model or layout: %w", ErrOther)
	case m.Key != want.Key || m.Parent != want.Parent || m.Root != want.Root || m.Scope != want.Scope:
		return fmt.Errorf("under another key: %w", ErrOther)
	case !slices.Equal(m.Tokens, want.Tokens):
		return fmt.Errorf("of other tokens: %w", ErrOther)
	}
	return nil
}
