package grammar

import (
	"math/big"
	"slices"
)

// maxCount bounds lengths and counts of a schema.
const maxCount = 1 << 24

// A schema is what parts without anyOf and oneOf say together.
type schema struct {
	parts    []part
	kinds    kinds // that are generated
	allowed  kinds // that are valid; more, where the parts only say what an object must be, if it is one
	enum     []*value
	hasEnum  bool
	numbers  numbers
	length   span
	patterns []string
	formats  []string
	items    span // how many
	members  span // how many
	at       *value
}

// A span is a range of counts; high is unbounded where there is no bound.
type span struct{ low, high int32 }

var anySpan = span{0, unbounded}

func (s *span) atLeast(n int32) { s.low = max(s.low, n) }

func (s *span) atMost(n int32) {
	if s.high == unbounded || n < s.high {
		s.high = n
	}
}

// void says that there is no such count.
func (s span) void() bool { return s.high != unbounded && s.low > s.high }

// apart says that two spans have no count in common.
func (s span) apart(o span) bool {
	return s.high != unbounded && s.high < o.low || o.high != unbounded && o.high < s.low
}

var kindNames = map[string]kinds{"null": null, "boolean": boolean, "integer": integer, "number": number, "string": text, "array": array, "object": object}

// merge reads the keywords of all parts. Those about items and members stay with the parts.
func (c *compiler) merge(parts []part) (*schema, error) {
	s := &schema{parts: parts, kinds: anything, length: anySpan, items: anySpan, members: anySpan, at: &value{path: "#"}}
	mentioned, typed := kinds(0), false
	for i, p := range parts {
		v := p.v
		if i == 0 {
			s.at = v
		}
		for _, k := range v.keys {
			about, known := constraints[k]
			if !known {
				continue
			}
			mentioned |= about
			if err := c.keyword(s, v, k); err != nil {
				return nil, err
			}
		}
		typed = typed || v.member["type"] != nil || v.member["enum"] != nil || v.member["const"] != nil
	}
	s.allowed = s.kinds
	if !typed && mentioned != 0 {
		s.kinds &= mentioned // what the author is after
	}
	s.numbers.integer = s.kinds&fractional == 0
	return s, nil
}

// keyword takes in one keyword of a part.
func (c *compiler) keyword(s *schema, v *value, k string) error {
	w := v.member[k]
	count := func() (int32, error) {
		if w.kind != integer || w.number.Sign() < 0 {
			return 0, fault(v, k, "it must be a whole number, 0 or more")
		}
		if w.number.Cmp(big.NewRat(maxCount, 1)) > 0 {
			return maxCount, fault(v, k, "at most %d can be masked", maxCount)
		}
		return int32(w.number.Num().Int64()), nil
	}
	low := func(s *span) error {
		n, err := count()
		s.atLeast(n)
		return err
	}
	high := func(s *span) error {
		n, err := count()
		s.atMost(n)
		return err
	}
	limit := func(into **bound, sign int, strict bool) error {
		if w.kind == boolean && strict { // of draft 4, beside minimum and maximum
			return nil
		}
		if w.kind&number == 0 {
			return fault(v, k, "it must be a number")
		}
		b := *into
		if b == nil || w.number.Cmp(b.value)*sign > 0 || w.number.Cmp(b.value) == 0 && strict {
			*into = &bound{w.number, strict}
		}
		return nil
	}
	draft4 := func(key string) bool { e := v.member[key]; return e != nil && e.kind == boolean && e.truth }
	list := func() error {
		if w.kind != array {
			return fault(v, k, "it must be an array")
		}
		return nil
	}
	switch k {
	case "type":
		return c.types(s, v, w)
	case "enum":
		if err := list(); err != nil {
			return err
		}
		s.restrict(w.items)
	case "const":
		s.restrict([]*value{w})
	case "minLength":
		return low(&s.length)
	case "maxLength":
		return high(&s.length)
	case "pattern":
		if w.kind != text {
			return fault(v, k, "it must be a string")
		}
		s.patterns = append(s.patterns, w.text)
	case "format":
		return c.format(s, v, w)
	case "minimum":
		return limit(&s.numbers.low, 1, draft4("exclusiveMinimum"))
	case "exclusiveMinimum":
		return limit(&s.numbers.low, 1, true)
	case "maximum":
		return limit(&s.numbers.high, -1, draft4("exclusiveMaximum"))
	case "exclusiveMaximum":
		return limit(&s.numbers.high, -1, true)
	case "multipleOf":
		if w.kind&number == 0 || w.number.Sign() <= 0 {
			return fault(v, k, "it must be a number greater than 0")
		}
		s.numbers.multiples = append(s.numbers.multiples, w.number)
	case "minItems":
		return low(&s.items)
	case "maxItems":
		return high(&s.items)
	case "minProperties":
		return low(&s.members)
	case "maxProperties":
		return high(&s.members)
	case "uniqueItems":
		if w.kind == boolean && !w.truth {
			return nil
		}
		if m := v.member["maxItems"]; m != nil && m.kind == integer && m.number.Cmp(big.NewRat(1, 1)) <= 0 {
			return nil
		}
		return fault(v, k, "that items differ cannot be masked; leave it out and check it, or use maxItems 1")
	case "unevaluatedProperties", "unevaluatedItems":
		if len(s.parts) > 1 && !(w.kind == boolean && w.truth) {
			return fault(v, k, "beside $ref, allOf, anyOf or oneOf it cannot be masked; use additionalProperties or items")
		}
		if !(w.kind == boolean) {
			return fault(v, k, "only true and false can be masked")
		}
	case "required":
		if err := list(); err != nil {
			return err
		}
		for _, name := range w.items {
			if name.kind != text {
				return fault(v, k, "it must be an array of strings")
			}
		}
	case "properties", "patternProperties":
		if w.kind != object {
			return fault(v, k, "it must be an object of schemas")
		}
	case "prefixItems":
		return list()
	}
	return nil
}

// types takes in a type or a list of them.
func (c *compiler) types(s *schema, v, w *value) error {
	names := []*value{w}
	if w.kind == array {
		names = w.items
	}
	var all kinds
	for _, n := range names {
		k := kindNames[n.text]
		if n.kind != text || k == 0 {
			return fault(v, "type", "it must be one or more of null, boolean, integer, number, string, array and object")
		}
		all |= k
	}
	if n := v.member["nullable"]; n != nil && n.truth { // of OpenAPI 3.0
		all |= null
	}
	s.kinds &= all
	return nil
}

// restrict keeps of the enumerated values those that are in the list too.
func (s *schema) restrict(list []*value) {
	in := func(all []*value, v *value) bool { return slices.ContainsFunc(all, v.equal) }
	var kept []*value
	for _, v := range list {
		if (!s.hasEnum || in(s.enum, v)) && !in(kept, v) {
			kept = append(kept, v)
		}
	}
	s.enum, s.hasEnum = kept, true
}

// format takes in a format. Those of numbers are ranges; those of strings are patterns.
func (c *compiler) format(s *schema, v, w *value) error {
	if w.kind != text {
		return fault(v, "format", "it must be a string")
	}
	switch w.text { // of OpenAPI: what a reader keeps the value in
	case "int32":
		s.between(-1<<31, 1<<31-1)
		return nil
	case "uint32":
		s.between(0, 1<<32-1)
		return nil
	case "uint64":
		s.between(0, 1<<63-1)
		return nil
	case "int64", "float", "double", "password", "": // no number that is written is longer than these hold
		return nil
	}
	if formats[w.text] == "" {
		return fault(v, "format", "%.40q cannot be masked; supported: %s", w.text, formatNames())
	}
	s.formats = append(s.formats, w.text)
	return nil
}

// between narrows the numbers.
func (s *schema) between(low, high int64) {
	l, h := big.NewRat(low, 1), big.NewRat(high, 1)
	if b := s.numbers.low; b == nil || b.value.Cmp(l) < 0 {
		s.numbers.low = &bound{l, false}
	}
	if b := s.numbers.high; b == nil || b.value.Cmp(h) > 0 {
		s.numbers.high = &bound{h, false}
	}
}
