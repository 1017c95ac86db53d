package grammar

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// smallVocabulary has all bytes, some longer tokens, and an end token.
func smallVocabulary() *Vocabulary {
	var all []string
	for b := range 256 {
		all = append(all, string([]byte{byte(b)}))
	}
	all = append(all, `{"`, `":`, `": "`, `",`, `", "`, `"}`, `"]`, `"},`, `[{`, `}]`, "true", "false", "null", "12", "345", "0.", "-1", "na", "me", "name", " the", "\\n", "\\u00", "  ", "\n  ", ": ", ", ", "é", "日本", "ab", "abc", "}}", "]}", "a\"", "a\",\"b", "1,", "1}", "1]", "2024-", "-02-", "e+1", "a\": 1, \"b")
	end := len(all)
	return NewVocabulary(end+1, func(id int32) []byte {
		if int(id) == end {
			return nil
		}
		return []byte(all[id])
	}, func(id int32) bool { return int(id) == end })
}

var small = smallVocabulary()

// accepts says whether a grammar takes a text, byte by byte.
func accepts(t testing.TB, g *Grammar, text string) bool {
	t.Helper()
	m := g.NewMatcher()
	return m.AcceptText([]byte(text)) == nil && m.CanEnd()
}

func compile(t testing.TB, v *Vocabulary, s Spec) *Grammar {
	t.Helper()
	g, err := Compile(v, s)
	if err != nil {
		t.Fatalf("%.200s: %v", s.Text, err)
	}
	return g
}

// sample walks a grammar with random tokens and returns the text, and whether it is complete. After soft tokens it prefers what ends texts.
func sample(t testing.TB, g *Grammar, rnd *rand.Rand, soft, hard int) (string, bool) {
	t.Helper()
	v := g.vocabulary
	m := g.NewMatcher()
	var out strings.Builder
	for i := 0; i < hard; i++ {
		if m.Done() {
			return out.String(), true
		}
		set, n := m.Mask(true)
		if n == 0 {
			t.Fatalf("no token may follow %q", out.String())
		}
		id, score := int32(-1), -1.0
		for k := range int32(v.size) {
			if set[k>>6]>>(k&63)&1 == 0 {
				continue
			}
			s := rnd.Float64()
			text := string(v.texts[k])
			if v.texts[k] == nil {
				s -= 0.3
			}
			if i >= soft {
				switch {
				case text == "":
					s += 9
				case set['q'>>6]>>('q'&63)&1 == 1: // within a string
					if text == `"` {
						s += 5
					}
				case strings.HasPrefix(text, "}"), strings.HasPrefix(text, "]"):
					s += 5 - float64(len(text))/10
				case strings.HasPrefix(text, `"`):
					s += 3
				case text[0] >= '0' && text[0] <= '9', text[0] == 'n', text[0] == 't', text[0] == 'f':
					s += 2
				case text[0] == '[', text[0] == '{':
					s -= 1
				case text[0] == '\\' || text[0] >= 0x80 || text[0] == ',' || text[0] == ' ' || text[0] == '\n':
					s -= 2
				}
			}
			if s > score || id < 0 {
				id, score = k, s
			}
		}
		if err := m.Accept(id); err != nil {
			t.Fatalf("token %q after %q: %v", v.texts[id], out.String(), err)
		}
		if v.texts[id] == nil {
			return out.String(), true
		}
		out.Write(v.texts[id])
	}
	return out.String(), m.CanEnd()
}
