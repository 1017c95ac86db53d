package grammar

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// large has 49,152 tokens, as many as the default model: words, with and without a space in front, punctuation in pairs, and all bytes.
func large() *Vocabulary {
	rnd := rand.New(rand.NewPCG(31, 32))
	const size = 49152
	seen := map[string]bool{}
	var all []string
	add := func(s string) {
		if !seen[s] && len(all) < size-1 {
			seen[s] = true
			all = append(all, s)
		}
	}
	for b := range 256 {
		add(string([]byte{byte(b)}))
	}
	marks := []rune("\"':,.;{}[]()<>/\\-_=+*#@!?\n\t ")
	for _, a := range marks {
		for _, b := range marks {
			add(string([]rune{a, b}))
			add(string([]rune{a, b, ' '}))
		}
	}
	for n := range 1000 {
		add(fmt.Sprint(n))
	}
	for len(all) < size-1 {
		word := []byte{}
		for range 1 + rnd.IntN(9) {
			word = append(word, "etaoinshrdlucmfwypvbgk"[min(rnd.IntN(22), rnd.IntN(22))])
		}
		add(string(word))
		add(" " + string(word))
		if rnd.IntN(40) == 0 {
			add(string(word) + string(marks[rnd.IntN(len(marks))]))
		}
	}
	return NewVocabulary(size, func(id int32) []byte {
		if id == size-1 {
			return nil
		}
		return []byte(all[id])
	}, func(id int32) bool { return id == size-1 })
}

const benchSchema = `{"type":"object","properties":{"people":{"type":"array","items":{"type":"object","properties":{"name":{"type":"string","maxLength":40},
"age":{"type":"integer","minimum":0,"maximum":120},"role":{"enum":["user","admin","guest"]},"bio":{"type":"string"},"when":{"type":"string","format":"date-time"},
"score":{"type":"number"}},"required":["name","age","role","bio"],"additionalProperties":false}}},"required":["people"]}`

// path is a text as tokens, the longest that fit first.
func path(v *Vocabulary, text string) (ids []int32) {
	for len(text) > 0 {
		best := int32(-1)
		for node, rest := int32(0), text; ; {
			found := int32(-1)
			for c := node + 1; c < v.next[node] && rest != ""; c = v.next[c] {
				if v.char[c] == rest[0] {
					found = c
					break
				}
			}
			if found < 0 {
				break
			}
			node, rest = found, rest[1:]
			if at := v.at(node); len(at) > 0 {
				best = at[0]
			}
		}
		ids = append(ids, best)
		text = text[len(v.texts[best]):]
	}
	return ids
}

// BenchmarkMask is what a token of a typical text costs: its mask, and to follow it. cold is with a new grammar for each text.
func BenchmarkMask(b *testing.B) {
	v := large()
	text := `{"people":[`
	for i := range 20 {
		if i > 0 {
			text += ", "
		}
		text += fmt.Sprintf(`{"name": "some one %d", "age": %d, "role": "admin", "bio": "the rain in spain, and more of it", "when": "2024-02-03T04:05:06Z", "score": 1.25}`, i, i)
	}
	ids := path(v, text+"]}")
	run := func(b *testing.B, g func() *Grammar) {
		for b.Loop() {
			m := g().NewMatcher()
			for _, id := range ids {
				m.Mask(true)
				if err := m.Accept(id); err != nil {
					b.Fatal(err)
				}
			}
			if !m.Done() {
				b.Fatal("not done")
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(ids)), "ns/token")
	}
	g := compile(b, v, Spec{Kind: JSONSchema, Text: benchSchema})
	b.Run("warm", func(b *testing.B) { run(b, func() *Grammar { return g }) })
	b.Run("cold", func(b *testing.B) {
		run(b, func() *Grammar { return compile(b, v, Spec{Kind: JSONSchema, Text: benchSchema}) })
	})
}

// BenchmarkCompile is a schema's first use, with the masks that are made ahead.
func BenchmarkCompile(b *testing.B) {
	v := large()
	for b.Loop() {
		compile(b, v, Spec{Kind: JSONSchema, Text: benchSchema})
	}
}

// BenchmarkVocabulary is the trie.
func BenchmarkVocabulary(b *testing.B) {
	for b.Loop() {
		large()
	}
}
