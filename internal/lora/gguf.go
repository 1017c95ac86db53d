package lora

import (
	"fmt"
	"slices"
	"strings"

	"kvasir/internal/gguf"
)

// openGGUF maps the file at path.
func openGGUF(path string) (*File, error) {
	g, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := fromGGUF(g)
	if err != nil {
		g.Close()
		return nil, err
	}
	f.closers = append(f.closers, g)
	return f, nil
}

// fromGGUF reads llama.cpp's form: general.type "adapter", adapter.type "lora", adapter.lora.alpha (0 or absent: pairs count as they are),
// and for each matrix NAME of the base model NAME.lora_a, whose rows have its inputs, and NAME.lora_b, whose rows have the rank.
func fromGGUF(g *gguf.File) (*File, error) {
	for _, k := range []struct{ key, want string }{{"general.type", "adapter"}, {"adapter.type", "lora"}} {
		switch v, ok := g.String(k.key); {
		case !ok:
			return nil, fmt.Errorf("the file has no %s, which is %q in an adapter: %w", k.key, k.want, ErrFormat)
		case v != k.want:
			return nil, fmt.Errorf("%s is %q: %w; %q is", k.key, v, ErrUnsupported, k.want)
		}
	}
	if g.Has("adapter.alora.invocation_tokens") {
		return nil, fmt.Errorf("the adapter begins at invocation tokens (aLoRA): %w", ErrUnsupported)
	}
	arch, ok := g.String("general.architecture")
	if !ok {
		return nil, fmt.Errorf("the file has no general.architecture: %w", ErrFormat)
	}
	alpha, _ := g.Float("adapter.lora.alpha")
	pairs := map[string]*Pair{}
	for i := range g.Tensors {
		t := &g.Tensors[i]
		base, isA := strings.CutSuffix(t.Name, ".lora_a")
		if !isA {
			if base, ok = strings.CutSuffix(t.Name, ".lora_b"); !ok {
				return nil, fmt.Errorf("tensor %s: %w; pairs NAME.lora_a and NAME.lora_b are", t.Name, ErrUnsupported)
			}
		}
		if len(t.Dims) > 2 && slices.Max(t.Dims[2:]) > 1 {
			return nil, fmt.Errorf("tensor %s has a part for each expert: %w", t.Name, ErrUnsupported)
		}
		p := pairs[base]
		if p == nil {
			p = &Pair{Base: base}
			pairs[base] = p
		}
		m := &p.B
		if isA {
			m = &p.A
		}
		*m = Tensor{Type: t.Type, Rows: t.Rows(), Cols: t.RowLen(), Data: t.Data}
	}
	f := &File{Arch: arch, Size: g.Size()}
	for _, p := range pairs {
		if p.Scale = 1; alpha != 0 && p.Rank() > 0 {
			p.Scale = alpha / float64(p.Rank())
		}
		f.Pairs = append(f.Pairs, *p)
	}
	return f, f.check()
}

// Parse reads an adapter from the bytes of a GGUF file.
func Parse(b []byte) (*File, error) {
	g, err := gguf.Parse(b)
	if err != nil {
		return nil, err
	}
	return fromGGUF(g)
}
