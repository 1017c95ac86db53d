package grammar

import (
	"math/big"
	"sync"
)

// maxCounted bounds the length of a string that has a pattern, too: both are one automaton then.
const maxCounted = 2048

// builtin are the automata that every grammar shares.
var builtin = sync.OnceValue(func() (b struct{ quote, character, text, key, boolean, null *dfa }) {
	must := func(d *dfa, err error) *dfa {
		if err != nil {
			panic("grammar: " + err.Error()) // they do not depend on any input
		}
		return d
	}
	b.quote = must(texts(`"`))
	b.boolean = must(texts("true", "false"))
	b.null = must(texts("null"))
	n := &nfa{}
	from, to := n.state(), n.state()
	n.accept[to] = true
	n.character(from, to)
	b.character = must(n.deterministic(from))

	n = &nfa{}
	start, in, end := n.state(), n.state(), n.state()
	n.accept[end] = true
	n.byteRange(start, in, '"', '"')
	n.byteRange(in, end, '"', '"')
	n.character(in, in)
	b.text = must(n.deterministic(start))
	b.key = must(quoteDFA(must(lengthDFA(anySpan))))
	return b
})

// lengthDFA accepts what is between the quotes of strings with so many characters, each written in one way.
func lengthDFA(s span) (*dfa, error) {
	n := &nfa{}
	at := n.state()
	start := at
	for i := int32(0); ; i++ {
		if s.low <= i {
			n.accept[at] = true
			if s.high == unbounded {
				n.runes(at, at, 0, 0x10FFFF, quoted)
				break
			}
		}
		if i == s.high {
			break
		}
		next := n.state()
		n.runes(at, next, 0, 0x10FFFF, quoted)
		at = next
	}
	return n.deterministic(start)
}

// quoteDFA puts quotes around.
func quoteDFA(d *dfa) (*dfa, error) {
	if d == nil {
		return nil, nil
	}
	n := &nfa{}
	start, in, end := n.state(), n.state(), n.state()
	n.accept[end] = true
	n.byteRange(start, in, '"', '"')
	n.embed(in, d)
	base := end + 1
	for s, ok := range d.accept {
		if ok {
			n.accept[base+int32(s)] = false
			n.byteRange(base+int32(s), end, '"', '"')
		}
	}
	return n.deterministic(start)
}

// An expression is a pattern or a format of a string.
type expression struct {
	keyword, source string
	anywhere        bool
}

// regex compiles an expression for what is within quotes, once.
func (c *compiler) regex(e expression) (*dfa, error) {
	key := expression{source: e.source, anywhere: e.anywhere}
	d, ok := c.regexes[key]
	if ok {
		return d, nil
	}
	d, err := regex(e.source, e.anywhere, quoted)
	if err == nil {
		c.regexes[key] = d
		if d != nil {
			c.g.fixed += d.bytes()
		}
	}
	return d, err
}

// content is what may be between the quotes of a string, each character written in one way; free says that only its length matters, and there is no
// automaton then.
func (c *compiler) content(s *schema) (d *dfa, free bool, err error) {
	if len(s.patterns)+len(s.formats) == 0 {
		return nil, true, nil
	}
	all := make([]expression, 0, len(s.patterns)+len(s.formats))
	for _, p := range s.patterns {
		all = append(all, expression{"pattern", p, true})
	}
	for _, f := range s.formats {
		all = append(all, expression{"format", formats[f], false})
	}
	for i, e := range all {
		x, err := c.regex(e)
		if err == nil && i > 0 {
			x, err = product(d, x, false)
		}
		if err != nil {
			return nil, false, fault(s.at, e.keyword, "%s", err)
		}
		if d = x; d == nil {
			return nil, false, nil
		}
	}
	if s.length != anySpan {
		if s.length.low > maxCounted || s.length.high > maxCounted {
			return nil, false, fault(s.at, "maxLength", "beside a pattern or format at most %d can be masked", maxCounted)
		}
		l, err := lengthDFA(s.length)
		if err == nil {
			d, err = product(d, l, false)
		}
		if err != nil {
			return nil, false, fault(s.at, "maxLength", "%s", err)
		}
	}
	return d, false, nil
}

// strings are the strings of a schema.
func (c *compiler) strings(s *schema) (*expr, error) {
	b := builtin()
	d, free, err := c.content(s)
	switch {
	case err != nil:
		return nil, err
	case s.length.void():
		return c.g.automaton(nil), nil
	case !free:
		if d, err = quoteDFA(d); err != nil {
			return nil, fault(s.at, "pattern", "%s", err)
		}
		return c.g.automaton(d), nil
	case s.length == anySpan:
		return &expr{op: opLeaf, d: b.text}, nil
	}
	quote := &expr{op: opLeaf, d: b.quote}
	return sequence(quote, repeated(&expr{op: opLeaf, d: b.character}, s.length.low, s.length.high), quote), nil
}

// numberDFA is that of the schema's numbers.
func (c *compiler) number(s *schema) (*dfa, error) {
	d, err := numberDFA(&s.numbers)
	if err != nil {
		keyword := "minimum"
		switch n := &s.numbers; {
		case len(n.multiples) > 0:
			keyword = "multipleOf"
		case n.low == nil:
			keyword = "maximum"
		}
		return nil, fault(s.at, keyword, "%s", err)
	}
	return d, nil
}

// values are all values that the schema allows.
func (c *compiler) values(s *schema) (*expr, error) {
	if s.hasEnum {
		return c.listed(s)
	}
	alt := either()
	add := func(e *expr, err error) error {
		alt.subs = append(alt.subs, e)
		return err
	}
	b := builtin()
	if s.kinds&null != 0 {
		alt.subs = append(alt.subs, &expr{op: opLeaf, d: b.null})
	}
	if s.kinds&boolean != 0 {
		alt.subs = append(alt.subs, &expr{op: opLeaf, d: b.boolean})
	}
	if s.kinds&number != 0 {
		d, err := c.number(s)
		if err != nil {
			return nil, err
		}
		alt.subs = append(alt.subs, c.g.automaton(d))
	}
	if s.kinds&text != 0 {
		if err := add(c.strings(s)); err != nil {
			return nil, err
		}
	}
	if s.kinds&array != 0 {
		if err := add(c.array(s)); err != nil {
			return nil, err
		}
	}
	if s.kinds&object != 0 {
		if err := add(c.object(s)); err != nil {
			return nil, err
		}
	}
	return alt, nil
}

// listed are the values of the enum that the other keywords allow.
func (c *compiler) listed(s *schema) (*expr, error) {
	var all []string
	for _, v := range s.enum {
		if v.kind&s.kinds == 0 {
			continue
		}
		ok := true
		if v.kind&(array|object) == 0 {
			var err error
			if ok, err = c.allows(s, v); err != nil {
				return nil, err
			}
		} else if k := c.about(s, v.kind); k != "" {
			return nil, fault(s.at, k, "beside an array or object in enum or const it cannot be masked")
		}
		if ok {
			all = append(all, string(v.appendJSON(nil)))
		}
	}
	if len(all) == 0 {
		return c.g.automaton(nil), nil
	}
	d, err := texts(all...)
	if err != nil {
		return nil, fault(s.at, "enum", "%s", err)
	}
	return c.g.automaton(d), nil
}

// about is a keyword of the schema about values of a kind, "" if it has none.
func (c *compiler) about(s *schema, k kinds) string {
	for _, p := range s.parts {
		for _, key := range p.v.keys {
			if constraints[key]&k != 0 {
				return key
			}
		}
	}
	return ""
}

// allows says whether a null, boolean, number or string satisfies the keywords about its kind.
func (c *compiler) allows(s *schema, v *value) (bool, error) {
	switch v.kind {
	case integer, fractional:
		return c.allowsNumber(s, v), nil
	case text:
		n := int32(len([]rune(v.text)))
		if n < s.length.low || s.length.high != unbounded && n > s.length.high {
			return false, nil
		}
		d, free, err := c.content(s)
		if free || err != nil {
			return free, err
		}
		q := appendQuoted(nil, v.text)
		return d.accepts(q[1 : len(q)-1]), nil
	}
	return true, nil
}

func (c *compiler) allowsNumber(s *schema, v *value) bool {
	n := &s.numbers
	if b := n.low; b != nil && (v.number.Cmp(b.value) < 0 || b.strict && v.number.Cmp(b.value) == 0) {
		return false
	}
	if b := n.high; b != nil && (v.number.Cmp(b.value) > 0 || b.strict && v.number.Cmp(b.value) == 0) {
		return false
	}
	for _, m := range n.multiples {
		if !new(big.Rat).Quo(v.number, m).IsInt() {
			return false
		}
	}
	return true
}
