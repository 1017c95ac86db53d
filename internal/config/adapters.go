package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// An Adapter is one of Lora.
type Adapter struct {
	Name  string // that requests name it by
	Model string // one of the names of Models; "" without Models
	Path  string // of a GGUF file or a folder of PEFT
	Scale float32
}

// Adapters reads Lora: entries of the form name=path or name=path:scale, with Models name@model=path. What follows the last colon is a scale if it
// is a number.
func (s *Serve) Adapters() ([]Adapter, error) {
	named, err := s.Named()
	if err != nil {
		return nil, nil // said of --models
	}
	taken := map[string]bool{}
	for _, n := range s.ServedModelNames {
		taken[n] = true
	}
	for _, m := range named {
		for _, n := range m.Names {
			taken[n] = true
		}
	}
	var out []Adapter
	for _, e := range s.Lora {
		name, path, ok := strings.Cut(e, "=")
		a := Adapter{Name: strings.TrimSpace(name), Path: strings.TrimSpace(path), Scale: 1}
		if i := strings.LastIndexByte(a.Path, ':'); i >= 0 {
			if v, err := strconv.ParseFloat(a.Path[i+1:], 32); err == nil {
				if a.Path, a.Scale = a.Path[:i], float32(v); !(math.Abs(v) <= 1000) || a.Scale == 0 {
					return nil, fmt.Errorf("%q: a scale is from -1000 to 1000 and not 0", e)
				}
			}
		}
		if i := strings.LastIndexByte(a.Name, '@'); i >= 0 && len(named) > 0 {
			a.Name, a.Model = a.Name[:i], a.Name[i+1:]
		}
		switch {
		case !ok || a.Path == "":
			return nil, fmt.Errorf("%q: want name=path or name=path:scale", e)
		case !isName(a.Name):
			return nil, fmt.Errorf("%q: a name has 1 to 256 printable characters without spaces", a.Name)
		case len(named) > 0 && !slices.ContainsFunc(named, func(m NamedModel) bool { return slices.Contains(m.Names, a.Model) }):
			return nil, fmt.Errorf("%q: with --models, want name@model=path with the name of a model", e)
		case taken[a.Name]:
			return nil, fmt.Errorf("the name %q is there twice", a.Name)
		}
		taken[a.Name] = true
		out = append(out, a)
	}
	return out, nil
}

// isServed says whether requests may name a model or an adapter of --models so.
func isServed(named []NamedModel, adapters []Adapter, name string) bool {
	return slices.ContainsFunc(named, func(m NamedModel) bool { return slices.Contains(m.Names, name) }) ||
		slices.ContainsFunc(adapters, func(a Adapter) bool { return a.Name == name })
}
