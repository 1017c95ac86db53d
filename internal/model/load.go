package model

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/mmap"
)

// Options of Load.
type Options struct {
	Path      kernel.Path
	Context   int // tokens a sequence may hold; 0 is the model's own
	BlockSize int // tokens a KV block holds, a multiple of 32
	Threads   int // for packing; 0 is all
}

// Model is a loaded model: immutable after Load, safe for concurrent use.
type Model struct {
	Config
	Path   kernel.Path
	Layout Layout

	file    *gguf.File
	weights *mmap.Mapping
	emb     *gguf.Tensor // rows are dequantised one by one
	layers  []layer
	outNorm []float32
	head    *gemm.Matrix
	rope    *ropeTable
	qScale  float32 // turns scores into exponents of two: log2(e)/sqrt(head size)
}

type layer struct {
	attnNorm, ffnNorm []float32
	q, k, v, o        *gemm.Matrix
	gate, up, down    *gemm.Matrix
}

// Load packs the weights of f. The model owns f from then on and closes it with Close.
func Load(f *gguf.File, o Options) (*Model, error) {
	c, err := parseConfig(f)
	if err != nil {
		return nil, err
	}
	if o.BlockSize < 32 || o.BlockSize%32 != 0 || o.BlockSize > 1024 {
		return nil, fmt.Errorf("block size %d is not a multiple of 32 up to 1024", o.BlockSize)
	}
	if o.Context == 0 {
		o.Context = c.Context
	}
	if o.Context < 1 || o.Context > c.Context {
		return nil, fmt.Errorf("context of %d tokens: the model was trained for %d", o.Context, c.Context)
	}
	c.Context = o.Context
	m := &Model{Config: *c, Path: o.Path, file: f, rope: newRopeTable(c, o.Context), qScale: float32(math.Log2E / math.Sqrt(float64(c.HeadSize))),
		Layout: Layout{c.Layers, c.KVHeads, c.HeadSize, o.BlockSize}}
	l := &loader{f: f, used: map[string]bool{"token_embd.weight": true, "rope_freqs.weight": true}}
	m.emb, _ = f.Tensor("token_embd.weight")
	if m.emb.RowLen() != c.Embd {
		return nil, fmt.Errorf("token_embd.weight has rows of %d, want %d: %w", m.emb.RowLen(), c.Embd, gguf.ErrFormat)
	}
	// The embedding is read row by row; find out now whether its type can be.
	if err := gguf.Dequantize(m.emb.Type, m.emb.Data[:m.emb.RowBytes()], make([]float32, c.Embd)); err != nil {
		return nil, fmt.Errorf("token_embd.weight: %w: %w", ErrUnsupported, err)
	}
	qd, kvd := c.Heads*c.HeadSize, c.KVHeads*c.HeadSize
	for i := range c.Layers {
		p := fmt.Sprintf("blk.%d.", i)
		m.layers = append(m.layers, layer{
			attnNorm: l.vector(p+"attn_norm.weight", c.Embd),
			ffnNorm:  l.vector(p+"ffn_norm.weight", c.Embd),
			q:        l.matrix(p+"attn_q.weight", qd, c.Embd),
			k:        l.matrix(p+"attn_k.weight", kvd, c.Embd),
			v:        l.matrix(p+"attn_v.weight", kvd, c.Embd),
			o:        l.matrix(p+"attn_output.weight", c.Embd, qd),
			gate:     l.matrix(p+"ffn_gate.weight", c.FF, c.Embd),
			up:       l.matrix(p+"ffn_up.weight", c.FF, c.Embd),
			down:     l.matrix(p+"ffn_down.weight", c.Embd, c.FF),
		})
	}
	m.outNorm = l.vector("output_norm.weight", c.Embd)
	if _, ok := f.Tensor("output.weight"); ok {
		m.head = l.matrix("output.weight", c.Vocab, c.Embd)
	} else {
		m.head = l.matrix("token_embd.weight", c.Vocab, c.Embd)
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
		return nil, fmt.Errorf("%d tensors that the %s graph does not use (%s): %w", n, c.Arch, strings.Join(extra[:min(n, 4)], ", "), ErrUnsupported)
	}
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

// Close frees the weights and closes the file.
func (m *Model) Close() error { return errors.Join(m.weights.Close(), m.file.Close()) }

// WeightBytes is the size of the packed weights in memory.
func (m *Model) WeightBytes() int { return len(m.weights.Data) }

// loader collects tensors and, at the end, packs all matrices at once.
type loader struct {
	f    *gguf.File
	used map[string]bool
	jobs []packJob
	errs []error
}

type packJob struct {
	m *gemm.Matrix
	t *gguf.Tensor
}

func (l *loader) tensor(name string, rows, cols int) *gguf.Tensor {
	l.used[name] = true
	t, ok := l.f.Tensor(name)
	if !ok {
		l.errs = append(l.errs, fmt.Errorf("the file has no tensor %s: %w", name, gguf.ErrFormat))
		return nil
	}
	if t.Rows() != rows || t.RowLen() != cols {
		l.errs = append(l.errs, fmt.Errorf("tensor %s is %d×%d, want %d×%d: %w", name, t.Rows(), t.RowLen(), rows, cols, gguf.ErrFormat))
		return nil
	}
	return t
}

func (l *loader) vector(name string, n int) []float32 {
	t := l.tensor(name, 1, n)
	if t == nil {
		return nil
	}
	v := make([]float32, n)
	if err := gguf.Dequantize(t.Type, t.Data, v); err != nil {
		l.errs = append(l.errs, fmt.Errorf("%s: %w", name, err))
	}
	return v
}

func (l *loader) matrix(name string, out, in int) *gemm.Matrix {
	t := l.tensor(name, out, in)
	if t == nil {
		return nil
	}
	f, ok := gemm.FormatFor(uint32(t.Type))
	if !ok {
		l.errs = append(l.errs, fmt.Errorf("tensor %s has type %s: %w; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 are", name, t.Type, ErrUnsupported))
		return nil
	}
	m := &gemm.Matrix{Format: f, Out: out, In: in}
	l.jobs = append(l.jobs, packJob{m, t})
	return m
}

// pack lays all matrices out in one mapping and fills them on several threads.
func (l *loader) pack(threads int) (*mmap.Mapping, error) {
	total := 0
	for _, j := range l.jobs {
		total += (gemm.Size(j.m.Format, j.m.Out, j.m.In) + 63) &^ 63
	}
	mem, err := mmap.Anon(total)
	if err != nil {
		return nil, fmt.Errorf("memory for %d bytes of weights: %w", total, err)
	}
	mem.Huge()
	const rows = 1024 // of a matrix at a time
	type part struct {
		packJob
		first, n int
	}
	parts := make(chan part)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var bad error
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	for range threads {
		wg.Go(func() {
			for p := range parts {
				rb := p.t.RowBytes()
				if err := p.m.Pack(uint32(p.t.Type), p.first, p.n, p.t.Data[p.first*rb:(p.first+p.n)*rb]); err != nil {
					mu.Lock()
					bad = fmt.Errorf("tensor %s: %w", p.t.Name, err)
					mu.Unlock()
				}
			}
		})
	}
	off := 0
	for _, j := range l.jobs {
		n := gemm.Size(j.m.Format, j.m.Out, j.m.In)
		j.m.Data = mem.Data[off : off+n : off+n]
		off += (n + 63) &^ 63
		for r := 0; r < j.m.Out; r += rows {
			parts <- part{j, r, min(rows, j.m.Out-r)}
		}
	}
	close(parts)
	wg.Wait()
	if bad != nil {
		mem.Close()
		return nil, bad
	}
	return mem, nil
}
