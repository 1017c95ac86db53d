package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/mmap"
)

// Options of Load.
type Options struct {
	Path      kernel.Path
	Context   int  // tokens a sequence may hold; 0 is the model's own
	BlockSize int  // tokens a KV block holds, a multiple of 32
	Threads   int  // for packing; 0 is all
	Accurate  bool // weights as float32 and activations as they are: slower, and other bits
}

// Model is a loaded model: immutable after Load, safe for concurrent use.
type Model struct {
	Config
	Path     kernel.Path
	Layout   Layout
	Accurate bool

	file      *gguf.File
	weights   *mmap.Mapping
	emb       *gguf.Tensor // rows are dequantised one by one
	embdScale float32      // times which they are taken
	layers    []layer
	places    []place // where the matrices come from, by linear.id
	outNorm   []float32
	head      linear
	ropes     []*ropeTable
	windows   []int     // of the layers, each once
	qScale    float32   // turns scores into exponents of two: log2(e)/sqrt(head size)
	tempered  []float32 // qScale of each temperLen positions, where it rises with the position; nil is everywhere the same
	temperLen int
}

// Load packs the weights of f. The model owns f from then on and closes it with Close.
func Load(f *gguf.File, o Options) (*Model, error) {
	if o.BlockSize < 32 || o.BlockSize%32 != 0 || o.BlockSize > 1024 {
		return nil, fmt.Errorf("block size %d is not a multiple of 32 up to 1024", o.BlockSize)
	}
	m := &Model{Path: o.Path, Accurate: o.Accurate, file: f}
	l := &loader{f: f, accurate: o.Accurate, used: map[string]bool{"token_embd.weight": true, "rope_freqs.weight": true}}
	if err := build(m, f, l, o.Context); err != nil {
		return nil, err
	}
	m.places = l.places
	m.Layout = Layout{m.Layers, m.KVHeads, m.HeadSize, o.BlockSize}
	m.emb, _ = f.Tensor("token_embd.weight")
	// The embedding is read row by row; find out now whether its type can be.
	if err := l.readable(m.emb); err != nil {
		return nil, err
	}
	if err := errors.Join(l.errs...); err != nil {
		return nil, err
	}
	var extra []string
	for _, t := range f.Tensors {
		if !l.used[t.Name] {
			extra = append(extra, t.Name)
		}
	}
	if len(extra) > 0 {
		slices.Sort(extra)
		n := len(extra)
		return nil, fmt.Errorf("%d tensors that the %s graph does not use (%s): %w", n, m.Arch, strings.Join(extra[:min(n, 4)], ", "), ErrUnsupported)
	}
	var err error
	if m.weights, err = l.pack(o.Threads); err != nil {
		return nil, err
	}
	for _, j := range l.jobs { // packed: the file's pages are not needed again, but for the embedding's rows
		if j.t != m.emb {
			f.Drop(j.t)
		}
	}
	return m, nil
}

// Numerics is what names the arithmetic in block keys: kernel.Revision, negative in accurate mode.
func (m *Model) Numerics() int {
	if m.Accurate {
		return -kernel.Revision
	}
	return kernel.Revision
}

// Close frees the weights and closes the file.
func (m *Model) Close() error { return errors.Join(m.weights.Close(), m.file.Close()) }

// WeightBytes is the size of the packed weights in memory.
func (m *Model) WeightBytes() int { return len(m.weights.Data) }
