package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"sync"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/mmap"
)

// loader collects tensors and, at the end, packs all matrices at once.
type loader struct {
	f        *gguf.File
	accurate bool
	used     map[string]bool
	places   []place // of matrices, by linear.id
	jobs     []packJob
	errs     []error
}

type packJob struct {
	m *gemm.Matrix
	t *gguf.Tensor
	span
}

// A span is the rows [first, first+n) of a tensor that has rows of them, taken in order if that is not nil: row i of the
// result is row first+order[i].
type span struct {
	rows, first, n int
	order          []int
}

// all is a whole tensor of n rows.
func all(n int) span { return span{n, 0, n, nil} }

// fail keeps an error, but not one for each of a million tensors that a file does not have.
func (l *loader) fail(format string, args ...any) {
	if len(l.errs) < 10 {
		l.errs = append(l.errs, fmt.Errorf(format, args...))
	}
}

func (l *loader) tensor(name string, rows, cols int) *gguf.Tensor {
	l.used[name] = true
	t, ok := l.f.Tensor(name)
	if !ok {
		l.fail("the file has no tensor %s: %w", name, gguf.ErrFormat)
		return nil
	}
	if t.Rows() != rows || t.RowLen() != cols {
		l.fail("tensor %s is %d×%d, want %d×%d: %w", name, t.Rows(), t.RowLen(), rows, cols, gguf.ErrFormat)
		return nil
	}
	return t
}

// vector reads n values. They are in memory of their own.
func (l *loader) vector(name string, n int) []float32 {
	t := l.tensor(name, 1, n)
	if t == nil {
		return nil
	}
	v := make([]float32, n)
	if err := gguf.Dequantize(t.Type, t.Data, v); err != nil {
		l.fail("%s: %w", name, err)
	}
	return v
}

// readable finds out whether a tensor's type can be turned into float32.
func (l *loader) readable(t *gguf.Tensor) error {
	if err := gguf.Dequantize(t.Type, t.Data[:t.RowBytes()], make([]float32, t.RowLen())); err != nil {
		return fmt.Errorf("%s: %w: %w", t.Name, ErrUnsupported, err)
	}
	return nil
}

// linear registers rows of name.weight, of in values each, to be packed, and reads these rows of name.bias if it is there.
func (l *loader) linear(name string, s span, in int) linear {
	t := l.tensor(name+".weight", s.rows, in)
	if t == nil {
		return linear{}
	}
	format, ok := gemm.FormatFor(uint32(t.Type))
	if l.accurate {
		if err := l.readable(t); err != nil {
			l.fail("%w", err)
			return linear{}
		}
		format, ok = gemm.PF32, true
	}
	if !ok {
		l.fail("tensor %s has type %s: %w; F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4 are", t.Name, t.Type, ErrUnsupported)
		return linear{}
	}
	m := linear{Matrix: &gemm.Matrix{Format: format, Out: s.n, In: in}, id: len(l.places)}
	l.places = append(l.places, place{t.Name, s, in})
	l.jobs = append(l.jobs, packJob{m.Matrix, t, s})
	if _, ok := l.f.Tensor(name + ".bias"); ok {
		if v := l.vector(name+".bias", s.rows); v != nil {
			m.bias = make([]float32, m.Panels()*gemm.PanelOutputs)
			copy(m.bias, reorder(v[s.first:s.first+s.n], s.order))
		}
	}
	return m
}

// reorder gives the values of v in another order.
func reorder(v []float32, order []int) []float32 {
	if order == nil || v == nil {
		return v
	}
	w := make([]float32, len(v))
	for i, from := range order {
		w[i] = v[from]
	}
	return w
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
		row, count int
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
				if err := p.pack(p.row, p.count, l.accurate); err != nil {
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

// pack fills count rows of the matrix from row on, as float32 if accurate says so.
func (j *packJob) pack(row, count int, accurate bool) error {
	size := j.t.RowBytes()
	src, typ := j.t.Data[(j.first+row)*size:][:count*size], j.t.Type
	if j.order != nil {
		src = make([]byte, 0, count*size)
		for _, from := range j.order[row : row+count] {
			src = append(src, j.t.Data[(j.first+from)*size:][:size]...)
		}
	}
	if accurate && typ != gguf.F32 {
		v := make([]float32, count*j.m.In)
		if err := gguf.Dequantize(typ, src, v); err != nil {
			return err
		}
		src, typ = make([]byte, 0, 4*len(v)), gguf.F32
		for _, x := range v {
			src = binary.LittleEndian.AppendUint32(src, math.Float32bits(x))
		}
	}
	return j.m.Pack(uint32(typ), row, count, src)
}
