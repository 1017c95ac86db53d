package grammar

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
)

// FuzzSchema: whatever the schema, there is an error or a grammar whose texts are JSON.
func FuzzSchema(f *testing.F) {
	for i := range 40 {
		g := generator{rnd: rand.New(rand.NewPCG(21, uint64(i)))}
		f.Add(g.document())
	}
	f.Add(`{"oneOf":[{"const":1},{"enum":[2,"a"]}],"nullable":true}`)
	f.Fuzz(func(t *testing.T, src string) {
		if len(src) > 2000 {
			return
		}
		g, err := Compile(small, Spec{Kind: JSONSchema, Text: src})
		if err != nil {
			return
		}
		rnd := rand.New(rand.NewPCG(1, uint64(len(src))))
		if text, ok := sample(t, g, rnd, 10, 100); ok && !json.Valid([]byte(text)) {
			t.Errorf("%q", text)
		}
	})
}

// FuzzRegex: whatever the expression, there is an error or a grammar, and never a state without a way on.
func FuzzRegex(f *testing.F) {
	for _, p := range []string{`a|b*`, `^\d{3}-[^\W_]+$`, `(?i)é{2,5}`, `[\s\S]*x`, `\u00e9?`, `[[\]]`, `(a*)*b`} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if len(p) > 200 {
			return
		}
		for _, s := range []Spec{{Kind: Regex, Text: p}, {Kind: JSONSchema, Text: `{"pattern":` + string(appendQuoted(nil, p)) + `}`}} {
			if g, err := Compile(small, s); err == nil {
				sample(t, g, rand.New(rand.NewPCG(1, 2)), 10, 60)
			}
		}
	})
}
