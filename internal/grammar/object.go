package grammar

import (
	"fmt"
	"slices"
)

// maxProperties bounds the members that an object names: as many alternatives may be open at once.
const maxProperties = 1024

// A property is a member with a name that the schema gives.
type property struct {
	name     string
	parts    []part // that its value must satisfy
	required bool
}

// An extra is a set of names beside the properties, and what their values must satisfy.
type extra struct {
	key   *dfa
	parts []part
}

// matches says whether a name matches a pattern of patternProperties.
func (c *compiler) matches(v *value, pattern, name string) (bool, error) {
	d, err := c.regex(expression{source: pattern, anywhere: true})
	if err != nil {
		return false, fault(v, "patternProperties", "%q: %s", pattern, err)
	}
	q := appendQuoted(nil, name)
	return d.accepts(q[1 : len(q)-1]), nil
}

// named returns the property of a name: the values' schemas are those of every part, under properties, under the patterns that match, or else under
// additionalProperties.
func (c *compiler) named(s *schema, name string) (property, error) {
	p := property{name: name}
	for _, q := range s.parts {
		found := false
		if w := q.v.get("properties").get(name); w != nil {
			p.parts, found = append(p.parts, part{v: w}), true
		}
		if w := q.v.get("patternProperties"); w != nil {
			for _, pattern := range w.keys {
				ok, err := c.matches(q.v, pattern, name)
				if err != nil {
					return p, err
				}
				if ok {
					p.parts, found = append(p.parts, part{v: w.member[pattern]}), true
				}
			}
		}
		if a := additional(q.v); a != nil && !found {
			p.parts = append(p.parts, part{v: a})
		}
		if r := q.v.get("required"); r != nil {
			p.required = p.required || slices.ContainsFunc(r.items, func(v *value) bool { return v.text == name })
		}
	}
	return p, nil
}

// additional is the schema of other members.
func additional(v *value) *value {
	if a := v.get("additionalProperties"); a != nil {
		return a
	}
	return v.get("unevaluatedProperties")
}

// properties are those that the parts name, in the order in which they do.
func (c *compiler) properties(s *schema) (all []property, err error) {
	var names []string
	known := map[string]bool{}
	add := func(name string) {
		if !known[name] {
			known[name] = true
			names = append(names, name)
		}
	}
	for _, p := range s.parts {
		if w := p.v.get("properties"); w != nil {
			for _, name := range w.keys {
				add(name)
			}
		}
	}
	for _, p := range s.parts {
		if w := p.v.get("required"); w != nil {
			for _, item := range w.items {
				add(item.text)
			}
		}
	}
	if len(names) > maxProperties {
		return nil, fault(s.at, "properties", "an object may name at most %d", maxProperties)
	}
	allowed, err := c.names(s)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		p, err := c.named(s, name)
		if err != nil {
			return nil, err
		}
		if allowed != nil && !allowed.accepts(appendQuoted(nil, name)) {
			p.parts = append(p.parts, part{v: &value{kind: boolean, path: s.at.path}})
		}
		all = append(all, p)
	}
	return all, nil
}

// names are the keys that propertyNames allows, with their quotes; nil where there is no such keyword.
func (c *compiler) names(s *schema) (*dfa, error) {
	var parts []part
	for _, p := range s.parts {
		if w := p.v.get("propertyNames"); w != nil {
			parts = append(parts, part{v: w})
		}
	}
	if parts == nil {
		return nil, nil
	}
	flat, never, err := c.flatten(parts)
	if err != nil {
		return nil, err
	}
	for _, p := range flat {
		if p.v.member["anyOf"] != nil || p.v.member["oneOf"] != nil {
			return nil, fault(s.at, "propertyNames", "anyOf and oneOf in it cannot be masked; supported: enum, const, pattern, format and lengths")
		}
	}
	n, err := c.merge(flat)
	if err != nil {
		return nil, err
	}
	if n.hasEnum && !never {
		var all []string
		for _, v := range n.enum {
			if ok, err := c.allows(n, v); err != nil {
				return nil, err
			} else if ok && v.kind == text {
				all = append(all, string(appendQuoted(nil, v.text)))
			}
		}
		return texts(all...)
	}
	if never || n.allowed&text == 0 {
		return &dfa{n: 1, next: []int32{dead}, accept: []bool{false}, final: []bool{true}}, nil
	}
	d, free, err := c.content(n)
	if free && err == nil {
		if n.length.low > maxCounted || n.length.high > maxCounted {
			return nil, fault(s.at, "propertyNames", "at most %d characters can be masked", maxCounted)
		}
		d, err = lengthDFA(n.length)
	}
	if err != nil {
		return nil, err
	}
	return quoteDFA(d)
}

// extras are the members beside the named ones. An object without any keyword about its members may have all; one that names some has no others unless
// additionalProperties says so.
func (c *compiler) extras(s *schema, named []property) (all []extra, err error) {
	key := builtin().key
	if allowed, err := c.names(s); err != nil {
		return nil, err
	} else if allowed != nil {
		if key, err = product(key, allowed, false); err != nil {
			return nil, fault(s.at, "propertyNames", "%s", err)
		}
	}
	if len(named) > 0 && key != nil {
		var quotedNames []string
		for _, p := range named {
			quotedNames = append(quotedNames, string(appendQuoted(nil, p.name)))
		}
		known, err := texts(quotedNames...)
		if err == nil {
			key, err = product(key, known, true)
		}
		if err != nil {
			return nil, fault(s.at, "properties", "%s", err)
		}
	}
	var rest []part
	said := false
	for _, p := range s.parts {
		if a := additional(p.v); a != nil {
			said = true
			rest = append(rest, part{v: a})
		}
	}
	others := key
	var patterns []*dfa
	for i, p := range s.parts {
		w := p.v.get("patternProperties")
		if w == nil {
			continue
		}
		for _, pattern := range w.keys {
			d, err := c.regex(expression{source: pattern, anywhere: true})
			if err == nil {
				d, err = quoteDFA(d)
			}
			if err == nil {
				d, err = product(key, d, false)
			}
			if err != nil {
				return nil, fault(p.v, "patternProperties", "%q: %s", pattern, err)
			}
			for _, o := range patterns {
				if both, err := product(o, d, false); err != nil || both != nil {
					return nil, fault(p.v, "patternProperties", "patterns that may match the same name cannot be masked")
				}
			}
			patterns = append(patterns, d)
			parts := []part{{v: w.member[pattern]}}
			for k, q := range s.parts {
				if a := additional(q.v); a != nil && k != i {
					parts = append(parts, part{v: a})
				}
			}
			all = append(all, extra{d, parts})
			if others, err = product(others, d, true); err != nil {
				return nil, fault(p.v, "patternProperties", "%q: %s", pattern, err)
			}
		}
	}
	if said || len(named) == 0 && len(patterns) == 0 {
		all = append(all, extra{others, rest})
	}
	return all, nil
}

// object are the objects of a schema.
func (c *compiler) object(s *schema) (*expr, error) {
	if s.members.void() {
		return c.g.automaton(nil), nil
	}
	named, err := c.properties(s)
	if err != nil {
		return nil, err
	}
	extras, err := c.extras(s, named)
	if err != nil {
		return nil, err
	}
	o := objectBuilder{c: c, s: s, tails: map[[2]int32]*expr{}}
	required := int32(0)
	for _, p := range named {
		if p.required {
			required++
		}
		m, err := c.member(texts(string(appendQuoted(nil, p.name))))(p.parts)
		if err != nil {
			return nil, err
		}
		o.members, o.required = append(o.members, m), append(o.required, p.required)
	}
	for _, x := range extras {
		if x.key == nil {
			continue
		}
		m, err := c.member(x.key, nil)(x.parts)
		if err != nil {
			return nil, err
		}
		o.extras = append(o.extras, m)
	}
	if s.members.low > required && len(o.extras) > 0 {
		return nil, fault(s.at, "minProperties", "beside additional properties, whose names may repeat, at most the number of the required ones (%d) can be masked", required)
	}
	o.most = max(1, s.members.low, s.members.high)
	if len(named)*int(min(o.most, int32(len(named))+1)) > maxStates {
		return nil, fault(s.at, "maxProperties", "with %d properties it cannot be masked", len(named))
	}
	shut, err := texts("}")
	if err != nil {
		return nil, err
	}
	begin, err := texts("{")
	if err != nil {
		return nil, err
	}
	o.comma, err = texts(",")
	if err != nil {
		return nil, err
	}
	return sequence(c.g.automaton(begin), o.tail(0, 0), c.shut, c.g.automaton(shut)), nil
}

// member returns a function that makes a key with a value. It takes what texts returns.
func (c *compiler) member(key *dfa, err error) func(parts []part) (*expr, error) {
	return func(parts []part) (*expr, error) {
		if err != nil {
			return nil, fmt.Errorf("a name: %w", err)
		}
		colon, err := texts(":")
		if err != nil {
			return nil, err
		}
		v, err := c.call(parts)
		if err != nil {
			return nil, err
		}
		return sequence(c.g.automaton(key), c.g.automaton(colon), c.colon, v), nil
	}
}

// An objectBuilder makes the members of one object.
type objectBuilder struct {
	c        *compiler
	s        *schema
	members  []*expr // with their keys
	required []bool
	extras   []*expr
	comma    *dfa
	most     int32 // a count of members beyond it does not matter
	tails    map[[2]int32]*expr
}

// tail is what may come from the i-th member on, after count others.
func (o *objectBuilder) tail(i, count int32) *expr {
	at := [2]int32{i, min(count, o.most)}
	if e := o.tails[at]; e != nil {
		return e
	}
	var e *expr
	if int(i) < len(o.members) {
		e = sequence(o.separator(count), o.members[i], o.tail(i+1, count+1))
		if o.s.members.high != unbounded && count >= o.s.members.high {
			e = o.c.g.automaton(nil)
		}
		if !o.required[i] {
			e = either(e, o.tail(i+1, count))
		}
	} else {
		e = o.end(count)
	}
	o.tails[at] = e
	return e
}

// separator comes before a member after count others.
func (o *objectBuilder) separator(count int32) *expr {
	if count == 0 {
		return o.c.open
	}
	return sequence(o.c.g.automaton(o.comma), o.c.comma)
}

// end is what may come after the named members.
func (o *objectBuilder) end(count int32) *expr {
	low, high := max(0, o.s.members.low-count), unbounded
	if o.s.members.high != unbounded {
		if high = o.s.members.high - count; high < 0 {
			return o.c.g.automaton(nil)
		}
	}
	if len(o.extras) == 0 || high == 0 {
		if low > 0 {
			return o.c.g.automaton(nil)
		}
		return nothing()
	}
	one := either(o.extras...)
	if count > 0 {
		return repeated(sequence(o.separator(1), one), low, high)
	}
	if high != unbounded {
		high--
	}
	e := sequence(o.separator(0), one, repeated(sequence(o.separator(1), one), max(0, low-1), high))
	if low == 0 {
		e = either(e, nothing())
	}
	return e
}
