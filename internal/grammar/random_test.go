package grammar

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

var schemas = flag.Int("schemas", 1000, "random schemas of TestRandomSchemas")

// A generator writes random schemas of all keywords that can be masked. What it writes may be impossible to satisfy.
type generator struct {
	rnd  *rand.Rand
	defs int
}

type member struct {
	key   string
	value any
}

// members keep their order in JSON.
type members []member

func (m members) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, p := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		k, _ := json.Marshal(p.key)
		v, err := json.Marshal(p.value)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s:%s", k, v)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

func (g *generator) one(of ...string) string { return of[g.rnd.IntN(len(of))] }

func (g *generator) yes(share float64) bool { return g.rnd.Float64() < share }

var names = []string{"a", "b", "name", "x y", "é", "q\"uote", "\n", "list", "next", "id"}

func (g *generator) schema(depth int) any {
	if depth <= 0 {
		return g.scalar()
	}
	switch k := g.rnd.IntN(24); {
	case k < 6:
		return g.scalar()
	case k < 12:
		return g.object(depth)
	case k < 16:
		return g.array(depth)
	case k < 18:
		return members{{g.one("anyOf", "anyOf", "allOf"), []any{g.schema(depth - 1), g.schema(depth - 1)}}}
	case k == 18: // exclusive
		a, b := g.object(depth-1), g.object(depth-1)
		return members{{"oneOf", []any{tagged(a, "cat"), tagged(b, "dog"), members{{"type", "string"}}}}}
	case k == 19:
		return members{{"type", "object"}, {"properties", members{{"a", g.schema(depth - 1)}, {"b", g.schema(depth - 1)}}},
			{"anyOf", []any{members{{"required", []string{"a"}}}, members{{"required", []string{"b"}}}}}}
	case k == 20:
		return members{{"type", []string{g.one("string", "integer"), g.one("null", "boolean", "array")}}, {"minLength", g.rnd.IntN(3)}, {"maximum", 5}, {"maxItems", 2}}
	case k == 21 && g.defs > 0:
		return members{{"$ref", fmt.Sprintf("#/$defs/d%d", g.rnd.IntN(g.defs))}}
	case k == 22:
		return members{{"allOf", []any{g.object(depth - 1), g.object(depth - 1)}}}
	}
	return g.scalar()
}

// tagged adds a property that tells branches apart.
func tagged(o members, tag string) members {
	out := members{{"type", "object"}}
	var rest members
	for _, m := range o {
		switch m.key {
		case "properties":
			rest = m.value.(members)
		case "additionalProperties":
			out = append(out, m)
		}
	}
	out = append(out, member{"properties", append(members{{"tag", members{{"const", tag}}}}, rest...)})
	return append(out, member{"required", []string{"tag"}})
}

func (g *generator) scalar() any {
	switch g.rnd.IntN(14) {
	case 0:
		return members{{"type", g.one("null", "boolean", "string", "integer", "number")}}
	case 1:
		return members{{"enum", []any{1, "one", nil, 2.5, true, []any{1, "x"}, map[string]any{"k": "v"}}[g.rnd.IntN(3) : 3+g.rnd.IntN(5)]}}
	case 2:
		return members{{"const", g.one("", "x", "a\"b", "é\\", "日本\n")}}
	case 3, 4:
		low := g.rnd.IntN(6)
		s := members{{"type", "string"}, {"minLength", low}}
		if g.yes(0.7) {
			s = append(s, member{"maxLength", low + g.rnd.IntN(8)})
		}
		return s
	case 5, 6:
		s := members{{"type", "string"}, {"pattern", g.one(`^[a-z]+$`, `b{2,4}`, `^\d{3}-\d{4}$`, `^(foo|bar)?$`, `é|"`, `[^a-c]$`, `^\w+\s\S*$`, `\.`, `(?i)^ab`)}}
		if g.yes(0.4) {
			s = append(s, member{"maxLength", 4 + g.rnd.IntN(8)})
		}
		return s
	case 7:
		return members{{"type", "string"}, {"format", g.one("date", "time", "date-time", "uuid", "email", "ipv4", "ipv6", "hostname", "uri", "duration")}}
	case 8, 9, 10:
		s := members{{"type", g.one("integer", "number")}}
		low := float64(g.rnd.IntN(4000)-2000) / []float64{1, 10, 8, 1000}[g.rnd.IntN(4)]
		if g.yes(0.6) {
			s = append(s, member{g.one("minimum", "exclusiveMinimum"), low})
		}
		if g.yes(0.6) {
			s = append(s, member{g.one("maximum", "exclusiveMaximum"), low + float64(g.rnd.IntN(3000))/100})
		}
		return s
	case 11:
		return members{{"type", g.one("integer", "number")}, {"multipleOf", []float64{1, 2, 5, 7, 10, 0.5, 0.01, 0.25}[g.rnd.IntN(8)]}, {"maximum", 1000}}
	case 12:
		return members{{"enum", []any{3, 4, 5, "abcd", "ab"}}, {g.one("minimum", "type"), nil}}[:1]
	}
	return members{{"type", "string"}, {"enum", []any{"abcd", "ab", "a", 7}}, {"minLength", 2}}
}

func (g *generator) object(depth int) members {
	s := members{{"type", "object"}}
	props := members{}
	var required []string
	for _, i := range g.rnd.Perm(len(names))[:g.rnd.IntN(5)] {
		props = append(props, member{names[i], g.schema(depth - 1)})
		if g.yes(0.5) {
			required = append(required, names[i])
		}
	}
	if len(props) > 0 || g.yes(0.5) {
		s = append(s, member{"properties", props})
	}
	if required != nil {
		s = append(s, member{"required", required})
	}
	switch g.rnd.IntN(8) {
	case 0:
		s = append(s, member{"additionalProperties", g.scalar()})
	case 1:
		s = append(s, member{"additionalProperties", true}, member{"maxProperties", len(required) + g.rnd.IntN(4)})
	case 2, 3:
		s = append(s, member{"additionalProperties", false}, member{"minProperties", g.rnd.IntN(len(props) + 1)})
	case 4:
		s = append(s, member{"patternProperties", members{{"^n", g.scalar()}, {"^x_", g.scalar()}}}, member{"additionalProperties", false})
	case 5:
		s = append(s, member{"propertyNames", members{{"pattern", "^[a-z]{1,5}$"}}}, member{"additionalProperties", g.scalar()})
	}
	return s
}

func (g *generator) array(depth int) any {
	s := members{{"type", "array"}}
	if g.yes(0.25) {
		s = append(s, member{"prefixItems", []any{g.schema(depth - 1), g.scalar()}})
	}
	if g.yes(0.8) {
		s = append(s, member{"items", g.schema(depth - 1)})
	}
	low := g.rnd.IntN(3)
	if g.yes(0.4) {
		s = append(s, member{"minItems", low})
	}
	if g.yes(0.5) {
		s = append(s, member{"maxItems", low + g.rnd.IntN(4)})
	}
	return s
}

// document is a schema with definitions that may refer to each other.
func (g *generator) document() string {
	g.defs = g.rnd.IntN(3)
	root, ok := g.schema(1 + g.rnd.IntN(3)).(members)
	if !ok {
		root = members{}
	}
	defs := members{}
	for i := range g.defs {
		defs = append(defs, member{fmt.Sprintf("d%d", i), g.schema(2)})
	}
	b, err := json.Marshal(append(root, member{"$defs", defs}))
	if err != nil {
		panic(err)
	}
	return string(b)
}

// TestRandomSchemas holds what a random sampler makes of random schemas against an independent validator.
func TestRandomSchemas(t *testing.T) {
	const perSchema = 3
	refusals, dead, texts, complete := map[string]int{}, 0, 0, 0
	for i := range *schemas {
		g := generator{rnd: rand.New(rand.NewPCG(7, uint64(i)))}
		src := g.document()
		gr, err := Compile(small, Spec{Kind: JSONSchema, Text: src, Compact: i%3 == 0})
		if err != nil {
			switch e := err.(*Error); {
			case e.Message == "no text satisfies it":
				dead++
			case e.Keyword != "":
				refusals[e.Keyword]++
			default:
				t.Fatalf("schema %d: %v\n%s", i, err, src)
			}
			continue
		}
		parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(src))
		if err != nil {
			t.Fatal(err)
		}
		c := jsonschema.NewCompiler()
		c.AssertFormat()
		if err := c.AddResource("schema.json", parsed); err != nil {
			t.Fatal(err)
		}
		judge, err := c.Compile("schema.json")
		if err != nil {
			t.Fatalf("schema %d is none: %v\n%s", i, err, src)
		}
		for range perSchema {
			text, ok := sample(t, gr, g.rnd, 1+g.rnd.IntN(60), 500)
			texts++
			if !ok {
				continue
			}
			complete++
			v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
			if err != nil {
				t.Fatalf("schema %d: not JSON: %q\n%s", i, text, src)
			}
			if err := judge.Validate(v); err != nil {
				t.Fatalf("schema %d: %q: %v\n%s", i, text, err, src)
			}
		}
	}
	t.Logf("%d schemas: %d impossible, refused for %v; %d texts, of which %d complete", *schemas, dead, refusals, texts, complete)
	refused := 0
	for _, n := range refusals {
		refused += n
	}
	if complete < texts*9/10 || texts < *schemas*2 || refused > *schemas/10 {
		t.Errorf("too few")
	}
}
