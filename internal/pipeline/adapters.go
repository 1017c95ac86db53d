package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"kvasir/internal/cache"
	"kvasir/internal/engine"
	"kvasir/internal/llm"
	"kvasir/internal/lora"
	"kvasir/internal/model"
)

// An Adapter is a low-rank adapter that requests may use: as a model of its own name, or in a list.
type Adapter struct {
	Name   string
	Path   string   // see lora.Open
	Digest [32]byte // of its files
	Scale  float32  // unless the request says another one; 0: 1
}

const (
	maxAdapterUses = 8    // of a request
	maxRoots       = 1024 // that are remembered of a tenant

	// MaxAdapterScale bounds scales; either sign is possible.
	MaxAdapterScale = 1000
)

// An adapter is a loaded Adapter.
type adapter struct {
	Adapter
	packed *model.Adapter
	size   int64 // of its files
}

// openAdapters loads the adapters of the options. The model is there.
func (p *Pipeline) openAdapters() error {
	names := slices.Clone(p.o.Names)
	for _, o := range p.o.Adapters {
		if o.Name == "" || slices.Contains(names, o.Name) {
			return fmt.Errorf("adapter %s: the name %q is missing or not unique", o.Path, o.Name)
		}
		names = append(names, o.Name)
		if o.Scale == 0 {
			o.Scale = 1
		}
		f, err := lora.Open(o.Path)
		if err != nil {
			return err
		}
		a, err := p.model.Adapt(f)
		if err = errors.Join(err, f.Close()); err != nil {
			if a != nil {
				a.Close()
			}
			return fmt.Errorf("adapter %s: %w", o.Path, err)
		}
		p.adapters = append(p.adapters, adapter{o, a, f.Size})
	}
	return nil
}

// list describes the model and its adapters.
func (p *Pipeline) list() []llm.ModelInfo {
	list := []llm.ModelInfo{p.info}
	for _, a := range p.adapters {
		list = append(list, llm.ModelInfo{ID: a.Name, Parent: p.info.ID, Created: p.info.Created, Context: p.info.Context, Vocab: p.info.Vocab,
			Bytes: a.size, Quant: p.info.Quant, Digest: fmt.Sprintf("%x", a.Digest)})
	}
	return list
}

// AdapterBytes is the memory of all adapters.
func (p *Pipeline) AdapterBytes() (n int) {
	for _, a := range p.adapters {
		n += a.packed.Bytes()
	}
	return n
}

// uses is what a request asks for, as the step and as the key take it: the adapter that Model names, or those of the request's list. A
// scale of 0 leaves one out, as if it had not been named.
func (p *Pipeline) uses(r *llm.Request) (uses []engine.AdapterUse, key []cache.Adapter, err error) {
	list := r.Adapters
	if i := slices.IndexFunc(p.adapters, func(a adapter) bool { return a.Name == r.Model }); i >= 0 {
		if len(list) > 0 {
			return nil, nil, llm.Invalid("lora", "the model %s is an adapter; with lora, name the model %s", r.Model, p.info.ID)
		}
		list = []llm.AdapterChoice{{ID: i}}
	}
	if len(list) > maxAdapterUses {
		return nil, nil, llm.Invalid("lora", "lora names %d adapters; at most %d are supported", len(list), maxAdapterUses)
	}
	seen := map[int]bool{}
	for k, c := range list {
		i, field := c.ID, fmt.Sprintf("lora[%d]", k)
		if c.Name != "" {
			i = slices.IndexFunc(p.adapters, func(a adapter) bool { return a.Name == c.Name })
		}
		if i < 0 || i >= len(p.adapters) {
			return nil, nil, p.noAdapter(field, c)
		}
		if seen[i] {
			return nil, nil, llm.Invalid("lora", "%s names the adapter %s again", field, p.adapters[i].Name)
		}
		seen[i] = true
		a := &p.adapters[i]
		scale := a.Scale
		if c.Scale != nil {
			scale = *c.Scale
		}
		if !(math.Abs(float64(scale)) <= MaxAdapterScale) {
			return nil, nil, llm.Invalid("lora", "%s.scale must be from %d to %d", field, -MaxAdapterScale, MaxAdapterScale)
		}
		if scale != 0 {
			uses = append(uses, engine.AdapterUse{Adapter: a.packed, Scale: scale})
			key = append(key, cache.Adapter{Digest: a.Digest, Scale: scale})
		}
	}
	return uses, key, nil
}

func (p *Pipeline) noAdapter(field string, c llm.AdapterChoice) error {
	what := fmt.Sprintf("%q", c.Name)
	if c.Name == "" {
		what = fmt.Sprintf("with id %d", c.ID)
	}
	if len(p.adapters) == 0 {
		return llm.Invalid("lora", "%s: there is no adapter %s; the model %s has none (see --lora)", field, what, p.info.ID)
	}
	served := ""
	for i, a := range p.adapters {
		served += fmt.Sprintf(", %s (id %d)", a.Name, i)
	}
	return llm.Invalid("lora", "%s: there is no adapter %s; served: %s", field, what, served[2:])
}

// root is the root of the prefix tree of the tenant and adapters. Scales are the caller's choice: beyond maxRoots different lists, a tenant's further
// ones are cached in memory only.
func (p *Pipeline) root(tenant string, adapters []cache.Adapter) cache.Key {
	var name []byte
	for _, a := range adapters {
		name = binary.LittleEndian.AppendUint32(append(name, a.Digest[:]...), math.Float32bits(a.Scale))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	roots := p.roots[tenant]
	if k, ok := roots[string(name)]; ok {
		return k
	}
	id := p.identity
	id.Adapters, id.Scope = adapters, cache.Scope(p.o.Secret, tenant)
	k := id.Root()
	if roots == nil {
		roots = map[string]cache.Key{}
		p.roots[tenant] = roots
	}
	if len(roots) < maxRoots || len(adapters) == 0 {
		roots[string(name)] = k
		if p.disk != nil {
			p.disk.Root(k, id.Scope) // a scope has the length that it takes
		}
	}
	return k
}
