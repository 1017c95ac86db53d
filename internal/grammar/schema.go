package grammar

import (
	"encoding/binary"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// A part is one of the schemas that a value must satisfy together.
type part struct {
	v            *value
	anyOf, oneOf bool // these are dealt with already
}

// A compiler makes the rules of a schema.
type compiler struct {
	g       *Grammar
	root    *value
	rules   map[string]*rule
	ids     map[*value]uint32
	anchors map[string]*value
	regexes map[expression]*dfa
	proofs  int // comparisons of branches

	colon, comma, open, shut *expr // white space behind the first three, and before a closing bracket
}

// Keywords that are understood, by the kinds of values that they are about. What is neither here nor in refused says nothing about what is valid.
var constraints = map[string]kinds{"type": 0, "enum": 0, "const": 0, "nullable": 0, "anyOf": 0, "oneOf": 0,
	"minLength": text, "maxLength": text, "pattern": text, "format": 0,
	"minimum": number, "maximum": number, "exclusiveMinimum": number, "exclusiveMaximum": number, "multipleOf": number,
	"items": array, "prefixItems": array, "additionalItems": array, "minItems": array, "maxItems": array, "uniqueItems": array,
	"properties": object, "patternProperties": object, "additionalProperties": object, "propertyNames": object, "required": object,
	"minProperties": object, "maxProperties": object, "unevaluatedProperties": object, "unevaluatedItems": array}

// Keywords of JSON Schema that cannot be masked, and what to do instead.
var refused = map[string]string{
	"not": "", "if": "use anyOf", "then": "use anyOf", "else": "use anyOf", "contains": "", "minContains": "", "maxContains": "",
	"extends": "use allOf", "disallow": "", "divisibleBy": "use multipleOf", "dependentRequired": "use anyOf", "dependentSchemas": "use anyOf", "dependencies": "use anyOf",
	"$dynamicRef": "use $ref", "$dynamicAnchor": "use $ref", "$recursiveRef": "use $ref", "$recursiveAnchor": "use $ref",
}

func fault(v *value, keyword, format string, args ...any) error {
	return &Error{Path: v.path, Keyword: keyword, Message: fmt.Sprintf(format, args...)}
}

// schema compiles a JSON Schema.
func (g *Grammar) schema(src string, compact bool) error {
	root, err := parse([]byte(src))
	if err != nil {
		return &Error{Message: "the schema: " + err.Error()}
	}
	c := &compiler{g: g, root: root, rules: map[string]*rule{}, ids: map[*value]uint32{}, anchors: map[string]*value{}, regexes: map[expression]*dfa{}}
	c.findAnchors(root)
	if err := c.spaces(compact); err != nil {
		return err
	}
	r, err := c.rule([]part{{v: root}})
	if err != nil {
		return err
	}
	g.start = &expr{op: opCall, rule: r}
	return nil
}

// spaces makes the automata of white space.
func (c *compiler) spaces(compact bool) error {
	if compact {
		c.colon, c.comma, c.open, c.shut = nothing(), nothing(), nothing(), nothing()
		return nil
	}
	make := func(space, line bool) (*expr, error) {
		n := &nfa{}
		start, end := n.state(), n.state()
		n.accept[start], n.accept[end] = true, true
		if space {
			n.byteRange(start, end, ' ', ' ')
		}
		if line {
			s := n.state()
			n.accept[s] = true
			n.byteRange(start, s, '\n', '\n')
			for range maxIndent {
				next := n.state()
				n.accept[next] = true
				n.byteRange(s, next, ' ', ' ')
				s = next
			}
		}
		d, err := n.deterministic(start)
		return c.g.automaton(d), err
	}
	var err error
	if c.colon, err = make(true, false); err != nil {
		return err
	}
	if c.comma, err = make(true, true); err != nil {
		return err
	}
	if c.open, err = make(false, true); err != nil {
		return err
	}
	c.shut = c.open
	return nil
}

func (c *compiler) findAnchors(v *value) {
	if a := v.get("$anchor"); a != nil && a.kind == text {
		c.anchors[a.text] = v
	}
	for _, k := range v.keys {
		c.findAnchors(v.member[k])
	}
	for _, item := range v.items {
		c.findAnchors(item)
	}
}

// resolve finds what a $ref of v names.
func (c *compiler) resolve(v *value) (*value, error) {
	ref := v.member["$ref"]
	if ref.kind != text {
		return nil, fault(v, "$ref", "it must be a string")
	}
	base, fragment, _ := strings.Cut(ref.text, "#")
	if base != "" {
		if id := c.root.get("$id"); id == nil || strings.TrimSuffix(id.text, "#") != base {
			return nil, fault(v, "$ref", "%.80q is outside the schema; supported: references within it, as #/$defs/name", ref.text)
		}
	}
	if fragment == "" {
		return c.root, nil
	}
	unescaped, err := url.PathUnescape(fragment)
	if err != nil {
		return nil, fault(v, "$ref", "%.80q is not a JSON pointer", ref.text)
	}
	if unescaped[0] != '/' {
		if a := c.anchors[unescaped]; a != nil {
			return a, nil
		}
		return nil, fault(v, "$ref", "there is no anchor %.80q", ref.text)
	}
	at := c.root
	for _, key := range strings.Split(unescaped[1:], "/") {
		key = strings.ReplaceAll(strings.ReplaceAll(key, "~1", "/"), "~0", "~")
		next := at.get(key)
		if at.kind == array {
			for i, item := range at.items {
				if fmt.Sprint(i) == key {
					next = item
				}
			}
		}
		if next == nil {
			return nil, fault(v, "$ref", "%.80q is not in the schema", ref.text)
		}
		at = next
	}
	return at, nil
}

// flatten follows references and allOf. It returns the schemas that are left, each once; never says that one of them is false.
func (c *compiler) flatten(parts []part) (flat []part, never bool, err error) {
	seen := map[part]bool{}
	var open []*value // being followed
	var visit func(p part) error
	visit = func(p part) error {
		v := p.v
		switch v.kind {
		case boolean:
			never = never || !v.truth
			return nil
		case object:
		default:
			return fault(v, "", "a schema must be an object or a boolean")
		}
		if slices.Contains(open, v) {
			return fault(v, "$ref", "it refers to itself without an object or array between")
		}
		if seen[p] {
			return nil
		}
		seen[p] = true
		open = append(open, v)
		defer func() { open = open[:len(open)-1] }()
		own := false
		for _, k := range v.keys {
			hint, bad := refused[k]
			switch {
			case bad:
				if hint != "" {
					hint = "; " + hint
				}
				return fault(v, k, "this keyword cannot be masked%s", hint)
			case k == "$ref":
				to, err := c.resolve(v)
				if err != nil {
					return err
				}
				if err := visit(part{v: to}); err != nil {
					return err
				}
			case k == "allOf":
				all := v.member[k]
				if all.kind != array || len(all.items) == 0 {
					return fault(v, k, "it must be an array of schemas")
				}
				for _, item := range all.items {
					if err := visit(part{v: item}); err != nil {
						return err
					}
				}
			default:
				_, known := constraints[k]
				own = own || known
			}
		}
		if own {
			flat = append(flat, p)
		}
		return nil
	}
	for _, p := range parts {
		if err := visit(p); err != nil {
			return nil, false, err
		}
	}
	return flat, never, nil
}

// rule returns the rule of the values that satisfy all parts.
func (c *compiler) rule(parts []part) (*rule, error) {
	flat, never, err := c.flatten(parts)
	if err != nil {
		return nil, err
	}
	key := c.key(flat, never)
	if r := c.rules[key]; r != nil {
		return r, nil
	}
	if len(c.g.rules) >= maxRules {
		return nil, &Error{Message: fmt.Sprintf("the schema needs more than %d rules", maxRules)}
	}
	r := &rule{name: "#"}
	if len(parts) > 0 {
		r.name = parts[0].v.path
	}
	c.rules[key] = r
	c.g.rules = append(c.g.rules, r)
	if never {
		r.expr = c.g.automaton(nil)
		return r, nil
	}
	if r.expr, err = c.body(flat); err != nil {
		return nil, err
	}
	if c.g.fixed > maxBytes {
		return nil, &Error{Message: "the schema needs too large automata"}
	}
	return r, nil
}

func (c *compiler) call(parts []part) (*expr, error) {
	r, err := c.rule(parts)
	return &expr{op: opCall, rule: r}, err
}

// key is the same for the same set of parts.
func (c *compiler) key(parts []part, never bool) string {
	if never {
		return "never"
	}
	all := make([]uint32, 0, len(parts))
	for _, p := range parts {
		id, ok := c.ids[p.v]
		if !ok {
			id = uint32(len(c.ids)) << 2
			c.ids[p.v] = id
		}
		if p.anyOf {
			id |= 1
		}
		if p.oneOf {
			id |= 2
		}
		all = append(all, id)
	}
	slices.Sort(all)
	var b []byte
	for _, id := range all {
		b = binary.LittleEndian.AppendUint32(b, id)
	}
	return string(b)
}

// body is what the parts allow. An anyOf or oneOf is distributed: each branch together with all else.
func (c *compiler) body(parts []part) (*expr, error) {
	for i, p := range parts {
		for _, keyword := range []string{"anyOf", "oneOf"} {
			if keyword == "anyOf" && p.anyOf || keyword == "oneOf" && p.oneOf || p.v.member[keyword] == nil {
				continue
			}
			branches, err := c.branches(parts, i, keyword)
			if err != nil {
				return nil, err
			}
			if keyword == "oneOf" {
				if err := c.exclusive(p.v, branches); err != nil {
					return nil, err
				}
			}
			alt := either()
			for _, b := range branches {
				e, err := c.call(b)
				if err != nil {
					return nil, err
				}
				alt.subs = append(alt.subs, e)
			}
			return alt, nil
		}
	}
	s, err := c.merge(parts)
	if err != nil {
		return nil, err
	}
	return c.values(s)
}

// branches are the parts with each branch of the keyword of parts[i].
func (c *compiler) branches(parts []part, i int, keyword string) ([][]part, error) {
	list := parts[i].v.member[keyword]
	if list.kind != array || len(list.items) == 0 {
		return nil, fault(parts[i].v, keyword, "it must be an array of schemas")
	}
	rest := slices.Clone(parts)
	if keyword == "anyOf" {
		rest[i].anyOf = true
	} else {
		rest[i].oneOf = true
	}
	all := make([][]part, 0, len(list.items))
	for _, b := range list.items {
		all = append(all, append(rest[:len(rest):len(rest)], part{v: b}))
	}
	return all, nil
}
