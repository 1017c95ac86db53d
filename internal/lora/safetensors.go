package lora

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"kvasir/internal/gguf"
)

// A safetensor is an array of a safetensors file.
type safetensor struct {
	name       string
	typ        gguf.Type
	shape      []int // none is 0
	data       []byte
	start, end int
}

const (
	maxHeader  = 16 << 20 // bytes
	maxTensors = 1 << 16
)

// parseSafetensors reads the format of the safetensors library: eight bytes with the length of a header, the header (a JSON object of dtype, shape
// and data_offsets for each tensor), and the data, which the tensors cover without gaps and overlaps. Of types, F32, F16 and BF16 are read.
func parseSafetensors(b []byte) ([]safetensor, error) {
	if len(b) < 8 {
		return nil, fmt.Errorf("%d bytes are no safetensors file: %w", len(b), ErrFormat)
	}
	n := binary.LittleEndian.Uint64(b)
	if n > maxHeader || n > uint64(len(b)-8) {
		return nil, fmt.Errorf("a header of %d bytes: %w", n, ErrFormat)
	}
	header, data := b[8:8+n], b[8+n:]
	if len(header) == 0 || header[0] != '{' {
		return nil, fmt.Errorf("the header is no JSON object: %w", ErrFormat)
	}
	list, err := readHeader(header)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(list, func(a, b safetensor) int { return a.start - b.start })
	at := 0
	for i := range list {
		t := &list[i]
		if t.start != at {
			return nil, fmt.Errorf("tensor %.200q begins at %d, the one before ends at %d: %w", t.name, t.start, at, ErrFormat)
		}
		if at = t.end; at > len(data) {
			return nil, fmt.Errorf("tensor %.200q ends at %d of %d bytes: %w", t.name, at, len(data), ErrFormat)
		}
		t.data = data[t.start:t.end:t.end]
	}
	if at != len(data) {
		return nil, fmt.Errorf("%d bytes behind the last tensor: %w", len(data)-at, ErrFormat)
	}
	return list, nil
}

// readHeader reads the tensors' descriptions, in which no name may be there twice.
func readHeader(header []byte) (list []safetensor, err error) {
	bad := func(err error) error { return fmt.Errorf("the header: %w: %w", ErrFormat, err) }
	dec := json.NewDecoder(bytes.NewReader(header))
	if _, err := dec.Token(); err != nil {
		return nil, bad(err)
	}
	seen := map[string]bool{}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, bad(err)
		}
		name, _ := key.(string)
		if seen[name] || len(seen) > maxTensors {
			return nil, fmt.Errorf("the header has %.200q twice, or more than %d tensors: %w", name, maxTensors, ErrFormat)
		}
		seen[name] = true
		if name == "__metadata__" {
			var m map[string]string
			if err := dec.Decode(&m); err != nil {
				return nil, bad(err)
			}
			continue
		}
		var d struct {
			Type    string   `json:"dtype"`
			Shape   []uint64 `json:"shape"`
			Offsets []uint64 `json:"data_offsets"`
		}
		if err := dec.Decode(&d); err != nil {
			return nil, bad(err)
		}
		t := safetensor{name: name}
		switch d.Type {
		case "F32":
			t.typ = gguf.F32
		case "F16":
			t.typ = gguf.F16
		case "BF16":
			t.typ = gguf.BF16
		default:
			return nil, fmt.Errorf("tensor %.200q has type %.20q: %w; F32, F16 and BF16 are", name, d.Type, ErrUnsupported)
		}
		size := uint64(t.typ.BlockBytes())
		for _, s := range d.Shape {
			if s == 0 || s > 1<<31 || size > 1<<40/s {
				return nil, fmt.Errorf("tensor %.200q has shape %.200v: %w", name, d.Shape, ErrFormat)
			}
			size *= s
			t.shape = append(t.shape, int(s))
		}
		if len(d.Offsets) != 2 || d.Offsets[1] > 1<<48 || d.Offsets[0] > d.Offsets[1] || d.Offsets[1]-d.Offsets[0] != size {
			return nil, fmt.Errorf("tensor %.200q of %d bytes has offsets %.200v: %w", name, size, d.Offsets, ErrFormat)
		}
		t.start, t.end = int(d.Offsets[0]), int(d.Offsets[1])
		list = append(list, t)
	}
	if _, err := dec.Token(); err != nil {
		return nil, bad(err)
	}
	if rest := bytes.TrimLeft(header[dec.InputOffset():], " "); len(rest) > 0 { // writers pad with spaces
		return nil, fmt.Errorf("%d bytes behind the header's object: %w", len(rest), ErrFormat)
	}
	return list, nil
}
