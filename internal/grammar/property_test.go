package grammar

import (
	"encoding/json"
	"fmt"
	"math/big"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// randomPattern writes an expression that every dialect reads alike.
func randomPattern(rnd *rand.Rand, depth int) string {
	if depth == 0 {
		return []string{"a", "b", "é", "日", "[ab]", "[^a]", "[a-cé-ü]", ".", `\d`, `\.`, `"`, `\\`, "-", `[^\n"-\\]`, `\x41`, "x"}[rnd.IntN(16)]
	}
	a, b := randomPattern(rnd, depth-1), randomPattern(rnd, depth-1)
	switch rnd.IntN(9) {
	case 0, 1, 2:
		return a + b
	case 3:
		return "(" + a + "|" + b + ")"
	case 4:
		return "(" + a + ")*"
	case 5:
		return "(?:" + a + ")+" + b
	case 6:
		return "(" + a + "){1,3}"
	case 7:
		return "(" + a + ")?" + b
	}
	return a
}

// mutate makes a text that may be near to a match.
func mutate(rnd *rand.Rand, s string) string {
	r := []rune(s)
	if len(r) == 0 || rnd.IntN(6) == 0 {
		return s + string([]rune("abé日\"\\-x.\n7")[rnd.IntN(11)])
	}
	i := rnd.IntN(len(r))
	switch rnd.IntN(3) {
	case 0:
		return string(r[:i]) + string(r[i+1:])
	case 1:
		r[i] = []rune("abé日\"\\-x.\n7")[rnd.IntN(11)]
	}
	return string(r)
}

// The automaton of an expression takes what regexp matches, as a whole text and as a part of a JSON string.
func TestRegexAgainstRegexp(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	yes := 0
	for i := range 600 {
		p := randomPattern(rnd, rnd.IntN(4))
		if i%5 == 0 {
			p = "^" + p
		}
		if i%7 == 0 {
			p += "$"
		}
		// A dot is no line end in any dialect.
		re, part := regexp.MustCompile(`\A(?:`+dots(p)+`)\z`), regexp.MustCompile(dots(p))
		whole := compile(t, small, Spec{Kind: Regex, Text: p})
		within := compile(t, small, Spec{Kind: JSONSchema, Text: fmt.Sprintf(`{"type":"string","pattern":%s}`, appendQuoted(nil, p))})
		text := ""
		for range 60 {
			if got, want := accepts(t, whole, text), re.MatchString(text); got != want {
				t.Fatalf("%q as a whole on %q: %v", p, text, got)
			}
			if got, want := accepts(t, within, string(appendQuoted(nil, text))), part.MatchString(text); got != want {
				t.Fatalf("%q within %q: %v", p, text, got)
			} else if want {
				yes++
			}
			text = mutate(rnd, text)
			if rnd.IntN(10) == 0 {
				if s, ok := sample(t, whole, rnd, rnd.IntN(6), 60); ok {
					if !re.MatchString(s) {
						t.Fatalf("%q was generated for %q", s, p)
					}
					text = s
				}
			}
		}
	}
	if yes < 1000 {
		t.Errorf("only %d matches", yes)
	}
}

func dots(p string) string {
	return strings.NewReplacer(`\.`, `\.`, `.`, `[^\n\r\x{2028}\x{2029}]`).Replace(p)
}

// Classes are those of all dialects at once.
func TestClasses(t *testing.T) {
	for p, texts := range map[string][2]string{
		`^\d$`: {"7", "٣x"}, `^\D$`: {"xé", "7٣"}, `^\w$`: {"a_7", "é-"}, `^\W$`: {"- ", "aé_٣"}, `^\s$`: {" \t\n", "x\v\u00a0"}, `^\S$`: {"xé", " \v\u00a0\ufeff\u2028"},
		`^[\d-]$`: {"7-", "a"}, `^[^\d]$`: {"a", "7٣"}, `^[^\D]$`: {"7", "a٣"}, `^[\s]$`: {" ", "\u00a0"}, `^[^\s]$`: {"a", " \u00a0\v"}, `^[^\S]$`: {" \n", "a\u00a0\v"},
		`^[\w]$`: {"a", "é"}, `^[^\w]$`: {"-", "aé"}, `^[^\W]$`: {"a", "-é"}, `^[\S]$`: {"aé", " \v"}, `^[\W]$`: {"-", "aé"}, `^[\D]$`: {"a", "7٣"},
		`^\u00e9$`: {"é", "e"}, `^[[]$`: {"[", "a"}, `^\/$`: {"/", "\\"},
	} {
		g := compile(t, small, Spec{Kind: Regex, Text: p})
		for side, all := range texts {
			for _, r := range all {
				if got := accepts(t, g, string(r)); got != (side == 0) {
					t.Errorf("%s on %q: %v", p, r, got)
				}
			}
		}
	}
}

// randomJSON writes a value without white space, in the spelling that is generated, or with other escapes.
func randomJSON(rnd *rand.Rand, depth int) string {
	switch k := rnd.IntN(9); {
	case k == 0:
		return "null"
	case k == 1:
		return "true"
	case k == 2:
		return []string{"0", "-7", "12.50", "3e8", "1E-2", "-0.0", "123456789012345678"}[rnd.IntN(7)]
	case k < 5 || depth == 0:
		return []string{`""`, `"a"`, `"\u00e9é"`, `"\ud83d\ude00"`, `"\\\"\/\b"`, `"日本"`, `"a b:,{}[]"`}[rnd.IntN(7)]
	case k < 7:
		var items []string
		for range rnd.IntN(4) {
			items = append(items, randomJSON(rnd, depth-1))
		}
		return "[" + strings.Join(items, []string{",", ", ", ",\n  "}[rnd.IntN(3)]) + "]"
	}
	var items []string
	for i := range rnd.IntN(4) {
		items = append(items, fmt.Sprintf(`"k%d":%s`, i, randomJSON(rnd, depth-1)))
	}
	return "{" + strings.Join(items, ",") + "}"
}

// The grammar of any value takes JSON, and nothing that encoding/json does not.
func TestAnyAgainstEncodingJSON(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	g := compile(t, small, Spec{Kind: JSONSchema, Text: `true`})
	spoilt := 0
	for range 5000 {
		text := randomJSON(rnd, 4)
		if !accepts(t, g, text) {
			t.Fatalf("%q is refused", text)
		}
		b := []byte(text)
		b[rnd.IntN(len(b))] = "\"{}[],:0a\\ \x01\xffu"[rnd.IntN(14)]
		if accepts(t, g, string(b)) && !(json.Valid(b) && utf8.Valid(b)) {
			t.Fatalf("%q is taken", b)
		} else if !json.Valid(b) {
			spoilt++
		}
	}
	if spoilt < 1000 {
		t.Errorf("only %d were spoilt", spoilt)
	}
	g = compile(t, small, Spec{Kind: JSONObject})
	for text, want := range map[string]bool{`{}`: true, `{"a": [1, {"b": null}]}`: true, `{` + "\n" + `  "a": 1` + "\n" + `}`: true, `[]`: false, `1`: false, `{"a"}`: false, ``: false, `{} `: false,
		`{"a":"\ud800"}`: false, `{"a":"\udc00"}`: false, `{"a":01}`: false, `{"a":1,}`: false} {
		if accepts(t, g, text) != want {
			t.Errorf("%q should be %v", text, want)
		}
	}
	deep := strings.Repeat(`{"a":[`, 2000)
	m := g.NewMatcher()
	if err := m.AcceptText([]byte(deep + "1" + strings.Repeat("]}", 2000))); err != nil || !m.Done() {
		t.Errorf("deep: %v", err)
	}
}

// Numbers with bounds and multiples are exactly those.
func TestNumbers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 9))
	decimal := func() string {
		s := fmt.Sprintf("%d.%d", rnd.IntN(30), rnd.IntN(1000))
		switch rnd.IntN(3) {
		case 0:
			s = fmt.Sprint(rnd.IntN(200))
		case 1:
			s = fmt.Sprintf("%d.%02d", rnd.IntN(3), rnd.IntN(100))
		}
		if rnd.IntN(2) == 0 && strings.Trim(s, "0.") != "" {
			s = "-" + s
		}
		return s
	}
	rat := func(s string) *big.Rat { r, _ := new(big.Rat).SetString(s); return r }
	in, out := 0, 0
	for range 400 {
		a, b := decimal(), decimal()
		low, high := &bound{rat(a), rnd.IntN(2) == 0}, &bound{rat(b), rnd.IntN(2) == 0}
		n := &numbers{low: low, high: high, integer: rnd.IntN(3) == 0}
		switch rnd.IntN(4) {
		case 0:
			n.low = nil
		case 1:
			n.high = nil
		}
		if rnd.IntN(4) == 0 {
			n.multiples = append(n.multiples, rat([]string{"3", "0.5", "0.02", "12", "1"}[rnd.IntN(5)]))
		}
		d, err := numberDFA(n)
		if err != nil {
			t.Fatal(err)
		}
		for range 80 {
			s := []string{decimal(), a, b, a + "0", b + "0", decimal() + "0"}[rnd.IntN(6)]
			if strings.Count(s, ".") == 0 && len(s) > 1 && s[len(s)-1] == '0' && s[0] == '0' {
				continue // 00 is no number
			}
			v := rat(s)
			want := (n.low == nil || v.Cmp(low.value) > 0 || !low.strict && v.Cmp(low.value) == 0) && (n.high == nil || v.Cmp(high.value) < 0 || !high.strict && v.Cmp(high.value) == 0)
			if n.integer {
				want = want && !strings.Contains(s, ".")
			}
			for _, m := range n.multiples {
				want = want && new(big.Rat).Quo(v, m).IsInt()
			}
			if s == "-0" || s == "-00" || strings.HasPrefix(s, "-00") {
				continue
			}
			if got := d.accepts([]byte(s)); got != want {
				t.Fatalf("%s among %+v (%v, %v): %v", s, n, a, b, got)
			}
			if want {
				in++
			} else {
				out++
			}
		}
	}
	if in < 3000 || out < 3000 {
		t.Errorf("%d in, %d out", in, out)
	}
}
