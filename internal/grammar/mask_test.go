package grammar

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// checkMask holds the mask against every token on its own, tried from the same state.
func checkMask(t testing.TB, m *Matcher, withEnd bool) {
	t.Helper()
	set, n := m.Mask(withEnd)
	set, count := slices.Clone(set), 0
	for id := range int32(m.g.vocabulary.size) {
		one := Matcher{g: m.g, stacks: m.stacks, set: make([]uint64, len(set))}
		want := one.Accept(id) == nil
		if m.g.vocabulary.texts[id] == nil {
			want = want && withEnd
		}
		if want {
			count++
		}
		if got := set[id>>6]>>(id&63)&1 == 1; got != want {
			t.Fatalf("token %q: the mask says %v", m.g.vocabulary.texts[id], got)
		}
	}
	if n != count {
		t.Fatalf("the mask counts %d tokens of %d", n, count)
	}
}

// The mask has exactly the tokens that Accept takes, in every state that random texts reach, also when what is remembered is dropped midway.
func TestMaskIsExact(t *testing.T) {
	specs := []Spec{{Kind: JSONObject}, {Kind: Regex, Text: `(ab|abc)*[^\x00-a]?`}, {Kind: Regex, Text: ``}, {Kind: Choice, Choices: []string{"name", "na", "", "日本"}},
		{Kind: JSONSchema, Text: `{"type":"string","minLength":40,"maxLength":60}`}, {Kind: JSONSchema, Text: `{"type":"string","maxLength":3}`},
		{Kind: JSONSchema, Text: `{"type":"array","items":{"type":"string","minLength":2},"minItems":30}`},
		{Kind: JSONSchema, Text: `{"anyOf":[{"type":"array","items":{"type":"integer"}},{"type":"array","items":{"type":"number"},"maxItems":2},{"type":"array","items":{"type":"string"}}]}`}}
	for i := range 150 {
		g := generator{rnd: rand.New(rand.NewPCG(11, uint64(i)))}
		specs = append(specs, Spec{Kind: JSONSchema, Text: g.document(), Compact: i%2 == 0})
	}
	rnd := rand.New(rand.NewPCG(12, 13))
	states := 0
	for _, s := range specs {
		g, err := Compile(small, s)
		if err != nil {
			continue
		}
		for range 3 {
			m := g.NewMatcher()
			for i := 0; i < 25 && !m.Done(); i++ {
				checkMask(t, m, i%3 > 0)
				states++
				set, _ := m.Mask(false)
				var ids []int32
				for id := range int32(small.size) {
					if set[id>>6]>>(id&63)&1 == 1 {
						ids = append(ids, id)
					}
				}
				if len(ids) == 0 {
					break
				}
				id := ids[rnd.IntN(len(ids))]
				if len(small.texts[id]) == 1 { // rather a long one
					id = ids[rnd.IntN(len(ids))]
				}
				if err := m.Accept(id); err != nil {
					t.Fatal(err)
				}
				if i == 10 {
					g.mu.Lock()
					g.forget()
					g.mu.Unlock()
				}
			}
		}
	}
	if states < 3000 {
		t.Errorf("only %d states", states)
	}
}

// A text ends only where it may, and at once where it must.
func TestEnd(t *testing.T) {
	end := int32(small.size - 1)
	m := compile(t, small, Spec{Kind: Choice, Choices: []string{"na", "name"}}).NewMatcher()
	for _, step := range []struct {
		text      string
		can, done bool
	}{{"", false, false}, {"n", false, false}, {"a", true, false}, {"m", false, false}, {"e", true, true}} {
		if err := m.AcceptText([]byte(step.text)); err != nil {
			t.Fatal(err)
		}
		if m.CanEnd() != step.can || m.Done() != step.done {
			t.Errorf("behind %q: %v, %v", step.text, m.CanEnd(), m.Done())
		}
		if err := m.Accept(end); (err == nil) != step.can {
			t.Errorf("the end behind %q: %v", step.text, err)
		}
	}
	for _, id := range []int32{-1, int32(small.size), 'x'} {
		if err := m.Accept(id); !errors.Is(err, ErrToken) {
			t.Errorf("token %d: %v", id, err)
		}
	}
	if !m.Done() {
		t.Error("a refused token changed the state")
	}
}

// What cannot be masked is an error that names the keyword.
func TestErrors(t *testing.T) {
	long := strings.Repeat("x", MaxText+1)
	for _, c := range []struct{ schema, path, keyword, message string }{
		{`{"not":{"type":"string"}}`, "#", "not", "cannot be masked"},
		{`{"properties":{"a":{"if":{},"then":{}}}}`, "#/properties/a", "if", "use anyOf"},
		{`{"items":{"contains":{}}}`, "#/items", "contains", "cannot be masked"},
		{`{"items":{"type":"string"},"uniqueItems":true}`, "#", "uniqueItems", "differ"},
		{`{"dependentRequired":{"a":["b"]}}`, "#", "dependentRequired", "use anyOf"},
		{`{"type":"string","format":"iri"}`, "#", "format", `"iri" cannot be masked; supported: date,`},
		{`{"type":"string","pattern":"(?=a)"}`, "#", "pattern", "lookahead"},
		{`{"type":"string","pattern":"\\bfoo"}`, "#", "pattern", "word boundaries"},
		{`{"type":"string","pattern":"(a"}`, "#", "pattern", "missing"},
		{`{"type":"string","pattern":"(a){1000}(b){1000}(c|[^d]){900}"}`, "#", "pattern", "large"},
		{`{"type":"str"}`, "#", "type", "null, boolean"},
		{`{"type":"integer","minimum":"1"}`, "#", "minimum", "a number"},
		{`{"type":"number","multipleOf":0.333333333333333333333}`, "#", "multipleOf", "decimal"},
		{`{"type":"number","multipleOf":0}`, "#", "multipleOf", "greater"},
		{`{"type":"integer","multipleOf":5000}`, "#", "multipleOf", "4096"},
		{`{"minLength":-1}`, "#", "minLength", "0 or more"},
		{`{"maxItems":99999999999}`, "#", "maxItems", "at most"},
		{`{"minProperties":3,"additionalProperties":true}`, "#", "minProperties", "repeat"},
		{`{"$ref":"#/$defs/x"}`, "#", "$ref", "not in the schema"},
		{`{"$ref":"#nowhere"}`, "#", "$ref", "no anchor"},
		{`{"$ref":"other.json"}`, "#", "$ref", "outside"},
		{`{"$ref":"#"}`, "#", "$ref", "itself"},
		{`{"anyOf":[{"$ref":"#"},{"type":"null"}]}`, "#", "$ref", "itself"},
		{`{"oneOf":[{"type":"string"},{"type":"string","maxLength":3}]}`, "#", "oneOf", "branches 0 and 1"},
		{`{"oneOf":[]}`, "#", "oneOf", "an array"},
		{`{"allOf":{}}`, "#", "allOf", "an array"},
		{`{"patternProperties":{"^a":{},"b$":{}}}`, "#", "patternProperties", "same name"},
		{`{"required":"a"}`, "#", "required", "an array"},
		{`{"properties":{"a":7}}`, "#/properties/a", "", "an object or a boolean"},
		{`{"allOf":[{"properties":{"a":{}}}],"properties":{"b":{}},"unevaluatedProperties":false}`, "#", "unevaluatedProperties", "additionalProperties"},
		{`false`, "", "", "no text"},
		{`{"type":"integer","minimum":2,"maximum":1}`, "", "", "no text"},
		{`{"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]}`, "", "", "no text"},
		{`{"type":"object"`, "", "", "not valid JSON"},
		{`{"maximum":1e999}`, "", "", "out of range"},
		{strings.Repeat(`{"items":`, 100) + `{}` + strings.Repeat(`}`, 100), "", "", "deeper"},
		{long, "", "", "longer"},
	} {
		_, err := Compile(small, Spec{Kind: JSONSchema, Text: c.schema})
		var e *Error
		if !errors.As(err, &e) || e.Path != c.path || e.Keyword != c.keyword || !strings.Contains(e.Message, c.message) {
			t.Errorf("%.80s: %#v", c.schema, err)
		}
	}
	for _, s := range []Spec{{Kind: Regex, Text: "("}, {Kind: Regex, Text: `a(?!b)`}, {Kind: Regex, Text: `[^\x00-\x{10ffff}]`}, {Kind: Regex, Text: long}, {Kind: Choice}, {Kind: Choice, Choices: []string{long}}, {Kind: Choice, Choices: make([]string, MaxChoices+1)}} {
		var e *Error
		if _, err := Compile(small, s); !errors.As(err, &e) || e.Message == "" {
			t.Errorf("%.80v: %v", s, err)
		}
	}
}

// Some schemas with texts that they allow and refuse.
func TestSchemas(t *testing.T) {
	for _, c := range []struct {
		schema  string
		yes, no []string
	}{
		{`{"properties":{"a":{"type":"integer"},"b":{}},"required":["a"]}`, []string{`{"a":1}`, `{"a": 1, "b": [true]}`, "{\n  \"a\": 1\n}"}, []string{`{}`, `{"b":1,"a":1}`, `{"a":1,"c":2}`, `{"a":1.5}`, `[]`, `{"a":1,}`}},
		{`{"properties":{"a":{"type":"integer"}},"additionalProperties":true}`, []string{`{}`, `{"a":1,"c":2,"d":{}}`, `{"c":1}`}, []string{`{"c":1,"a":1}`, `{"a":"x"}`, `{"a":1,"a":"x"}`, `{"\u0061":"x"}`}},
		{`{"additionalProperties":{"type":"null"},"maxProperties":2}`, []string{`{}`, `{"x":null,"y":null}`}, []string{`{"x":1}`, `{"x":null,"y":null,"z":null}`}},
		{`{"patternProperties":{"^n":{"type":"integer"}},"additionalProperties":{"type":"string"}}`, []string{`{"n":1,"x":"y"}`, `{"x":"y","n1":1}`}, []string{`{"n":"x"}`, `{"x":1}`}},
		{`{"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"minItems":1}`, []string{`[1]`, `[1,"x"]`}, []string{`[]`, `["x"]`, `[1,"x",2]`}},
		{`{"type":"array","items":{"type":"integer"},"minItems":2,"maxItems":3}`, []string{`[1,2]`, `[1, 2, 3]`}, []string{`[1]`, `[1,2,3,4]`, `[1,,2]`}},
		{`{"type":["string","null"],"maxLength":2}`, []string{`null`, `"ab"`, `"é日"`, `"\u0041\n"`, `"\ud83d\ude00b"`}, []string{`"abc"`, `1`, `"\ud83d"`}},
		{`{"enum":["a",1.0,null,{"k":[1]}]}`, []string{`"a"`, `1`, `null`, `{"k":[1]}`}, []string{`"b"`, `2`, `{"k":[2]}`}},
		{`{"const":"\u0001\"\\\/é"}`, []string{`"\u0001\"\\/é"`}, []string{`""`}},
		{`{"allOf":[{"type":"integer","minimum":3},{"maximum":5}]}`, []string{`3`, `5`}, []string{`2`, `6`, `"a"`}},
		{`{"allOf":[{"properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"a":{"maximum":5},"b":{"type":"null"}}}]}`, []string{`{"a":5}`, `{"a":5,"b":null}`}, []string{`{"a":6}`, `{"b":null}`}},
		{`{"oneOf":[{"properties":{"t":{"const":"x"},"v":{"type":"integer"}},"required":["t","v"]},{"properties":{"t":{"const":"y"}},"required":["t"]}]}`, []string{`{"t":"x","v":1}`, `{"t":"y"}`}, []string{`{"t":"x"}`, `{"t":"y","v":1}`}},
		{`{"oneOf":[{"type":"integer"},{"type":"null"},{"type":"string","minLength":3},{"type":"string","maxLength":2}]}`, []string{`1`, `null`, `"abc"`, `"ab"`}, []string{`true`}},
		{`{"type":"string","nullable":true}`, []string{`null`, `"x"`}, []string{`1`}},
		{`{"$defs":{"t":{"type":"object","properties":{"v":{"type":"integer"},"c":{"type":"array","items":{"$ref":"#/$defs/t"}}},"required":["v"],"additionalProperties":false}},"$ref":"#/$defs/t"}`, []string{`{"v":1,"c":[{"v":2,"c":[]},{"v":3}]}`}, []string{`{"v":1,"c":[{"c":[]}]}`}},
		{`{"$id":"https://example.org/s","$defs":{"a b":{"$anchor":"here","type":"null"}},"items":{"$ref":"https://example.org/s#/$defs/a%20b"},"maxItems":2,"prefixItems":[{"$ref":"#here"}]}`, []string{`[null,null]`, `[]`}, []string{`[1]`}},
		{`{"type":"number","exclusiveMinimum":0,"maximum":1.5}`, []string{`0.1`, `1.5`, `1.50`, `1`}, []string{`0`, `1.51`, `-1`, `2`, `1e0`}},
		{`{"minimum":0,"exclusiveMinimum":true,"type":"integer"}`, []string{`1`}, []string{`0`}},
		{`{"type":"integer","minimum":12345678901234567890}`, []string{`12345678901234567890`, `99999999999999999999`}, []string{`12345678901234567889`}},
		{`{"type":"integer","format":"int32"}`, []string{`2147483647`, `-5`}, []string{`2147483648`}},
		{`{"type":"string","format":"date"}`, []string{`"2024-02-29"`, `"1999-12-31"`}, []string{`"2023-02-29"`, `"2024-13-01"`, `"2024-1-1"`, `"1900-02-29"`}},
		{`{"type":"string","pattern":"^a","minLength":2,"maxLength":3}`, []string{`"ab"`, `"abc"`}, []string{`"a"`, `"abcd"`, `"ba"`}},
		{`{"propertyNames":{"enum":["a","b"]},"additionalProperties":{"type":"integer"}}`, []string{`{"a":1,"b":2}`, `{}`}, []string{`{"c":1}`}},
		{`{"x-unknown":{"not":"a schema"},"type":"null","title":"t"}`, []string{`null`}, []string{`1`}},
	} {
		g := compile(t, small, Spec{Kind: JSONSchema, Text: c.schema})
		for _, s := range c.yes {
			if !accepts(t, g, s) {
				t.Errorf("%s refuses %s", c.schema, s)
			}
		}
		for _, s := range c.no {
			if accepts(t, g, s) {
				t.Errorf("%s takes %s", c.schema, s)
			}
		}
	}
}

// Compact texts have no white space.
func TestCompact(t *testing.T) {
	g := compile(t, small, Spec{Kind: JSONObject, Compact: true})
	for text, want := range map[string]bool{`{"a":[1,2],"b c":{}}`: true, `{"a": 1}`: false, `{"a":1, "b":2}`: false, "{\n}": false} {
		if accepts(t, g, text) != want {
			t.Errorf("%q should be %v", text, want)
		}
	}
	g = compile(t, small, Spec{Kind: JSONObject})
	if accepts(t, g, "{\n"+strings.Repeat(" ", maxIndent+1)+`"a":1}`) || accepts(t, g, "{\n\n}") {
		t.Error("white space has no bound")
	}
}

func TestCache(t *testing.T) {
	c := NewCache(small, 1<<20)
	get := func(tenant, text string) *Grammar {
		t.Helper()
		g, err := c.Get(tenant, Spec{Kind: JSONSchema, Text: text})
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	a := get("a", `{"type":"string"}`)
	if get("a", `{"type":"string"}`) != a {
		t.Error("it is compiled again")
	}
	if get("b", `{"type":"string"}`) == a {
		t.Error("tenants share a grammar")
	}
	if g, err := c.Get("a", Spec{Kind: Regex, Text: `{"type":"string"}`}); err == nil && g == a {
		t.Error("another kind is the same")
	}
	if _, err := c.Get("a", Spec{Kind: JSONSchema, Text: `{"not":{}}`}); err == nil {
		t.Error("no error")
	}
	for i := range 200 {
		get("a", fmt.Sprintf(`{"type":"string","pattern":"^[a-z]{%d}$"}`, i+1))
	}
	if n := c.Len(); n < 2 || n > 150 {
		t.Errorf("%d grammars are kept", n)
	}
	done := make(chan *Grammar)
	for range 4 {
		go func() {
			g, _ := c.Get("c", Spec{Kind: JSONObject})
			done <- g
		}()
	}
	first := <-done
	for range 3 {
		if g := <-done; g != first || g == nil {
			t.Error("a grammar was compiled twice at the same time")
		}
	}
}
