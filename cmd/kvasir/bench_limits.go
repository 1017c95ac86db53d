package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kvasir/internal/bench"
	"kvasir/internal/gguf"
	"kvasir/internal/kernel"
	"kvasir/internal/kernel/peak"
)

// readBuffer is what reading from memory is measured over: many times what a last-level cache holds for one process.
const readBuffer = 256 << 20

// newReadBuffer returns memory that is really there: untouched pages would all be one page of zeros, in the cache.
func newReadBuffer() []byte {
	b := make([]byte, readBuffer)
	for i := 0; i < len(b); i += 64 {
		b[i] = 1
	}
	return b
}

// limitsTimes is how often one rate is measured each time.
const limitsTimes = 5

// A limitsMeter measures the limits of a path and thread count again and again.
type limitsMeter struct {
	path            kernel.Path
	threads         int
	buf             []byte
	int8, f32, read []float64
}

func newLimitsMeter(p kernel.Path, threads int) *limitsMeter {
	return &limitsMeter{path: p, threads: threads, buf: newReadBuffer()}
}

func (l *limitsMeter) measure(ctx context.Context) error {
	i, err := peak.Compute(ctx, l.path, peak.Int8, l.threads, limitsTimes)
	if err != nil {
		return err
	}
	f, err := peak.Compute(ctx, l.path, peak.F32, l.threads, limitsTimes)
	if err != nil {
		return err
	}
	r, err := peak.Bandwidth(ctx, l.path, l.threads, limitsTimes, l.buf)
	if err != nil {
		return err
	}
	l.int8, l.f32, l.read = append(l.int8, i.Median), append(l.f32, f.Median), append(l.read, r.Median)
	return nil
}

// limits are the medians over all measurements; nil if there is none. Plain Go loops are no limit for a path that has kernels of its own.
func (l *limitsMeter) limits() *bench.Limits {
	if len(l.read) == 0 {
		return nil
	}
	middle := func(v []float64) float64 {
		slices.Sort(v)
		return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
	}
	b := &bench.Limits{Path: l.path.String(), Threads: l.threads, Read: middle(l.read)}
	if !plainGo(l.path) {
		b.Int8, b.F32 = middle(l.int8), middle(l.f32)
	}
	return b
}

// plainGo reports whether the peak loops of a path are plain Go though its kernels are not.
func plainGo(p kernel.Path) bool {
	return p != kernel.Go && peak.Instructions(p, peak.Int8) == peak.Instructions(kernel.Go, peak.Int8)
}

// modelShape reads from a model file what a token costs; kvBytes is the KV of one token.
func modelShape(path string, kvBytes int) (*bench.Shape, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	arch, _ := f.String("general.architecture")
	num := func(key string) float64 {
		n, _ := f.Uint(arch + "." + key)
		return float64(n)
	}
	layers, heads, width := num("block_count"), num("attention.head_count"), num("embedding_length")
	if layers == 0 || heads == 0 || width == 0 {
		return nil, fmt.Errorf("%s does not say how many layers and heads %q has", path, arch)
	}
	headSize := num("attention.key_length")
	if headSize == 0 {
		headSize = width / heads
	}
	s := &bench.Shape{KVBytes: float64(kvBytes), AttentionOps: 4 * layers * heads * headSize} // a product and a sum for K and for V
	head := "output.weight"
	if _, ok := f.Tensor(head); !ok {
		head = "token_embd.weight"
	}
	for i := range f.Tensors {
		t := &f.Tensors[i]
		layer := strings.HasPrefix(t.Name, "blk.")
		if !layer && t.Name != head {
			continue
		}
		s.WeightBytes += float64(len(t.Data))
		if t.Rows() == 1 {
			continue // of a norm
		}
		ops := 2 * float64(t.Rows()) * float64(t.RowLen())
		switch quantised := t.Type != gguf.F32 && t.Type != gguf.F16 && t.Type != gguf.BF16; {
		case layer && quantised:
			s.Int8Ops += ops
		case layer:
			s.F32Ops += ops
		case quantised:
			s.HeadInt8Ops += ops
		default:
			s.HeadF32Ops += ops
		}
	}
	return s, nil
}
