package grammar

// positions returns the schemas of the items at the first places, as many as any part lists, and of those behind.
func (c *compiler) positions(s *schema) (first [][]part, rest []part, open bool, err error) {
	lists := make([][]*value, len(s.parts))
	rests := make([]*value, len(s.parts))
	most, said := 0, false
	for i, p := range s.parts {
		v := p.v
		behind := v.get("items")
		if l := v.get("prefixItems"); l != nil {
			lists[i] = l.items
		} else if behind != nil && behind.kind == array { // up to draft 2019-09
			lists[i] = behind.items
			behind = v.get("additionalItems")
		}
		if behind == nil {
			behind = v.get("unevaluatedItems")
		}
		rests[i] = behind
		said = said || behind != nil
		most = max(most, len(lists[i]))
	}
	for k := range most {
		var parts []part
		for i := range s.parts {
			if k < len(lists[i]) {
				parts = append(parts, part{v: lists[i][k]})
			} else if rests[i] != nil {
				parts = append(parts, part{v: rests[i]})
			}
		}
		first = append(first, parts)
	}
	for i := range s.parts {
		if rests[i] != nil {
			rest = append(rest, part{v: rests[i]})
		}
	}
	// As with objects: an array whose first items are listed has no others unless it is said, or needed.
	return first, rest, said || most == 0 || int(s.items.low) > most, nil
}

// array are the arrays of a schema.
func (c *compiler) array(s *schema) (*expr, error) {
	if s.items.void() {
		return c.g.automaton(nil), nil
	}
	first, rest, open, err := c.positions(s)
	if err != nil {
		return nil, err
	}
	if len(first) > maxCounted {
		return nil, fault(s.at, "prefixItems", "at most %d can be masked", maxCounted)
	}
	begin, err := texts("[")
	if err != nil {
		return nil, err
	}
	end, err := texts("]")
	if err != nil {
		return nil, err
	}
	commaDFA, err := texts(",")
	if err != nil {
		return nil, err
	}
	comma := sequence(c.g.automaton(commaDFA), c.comma)
	low, high := s.items.low, s.items.high
	tail := nothing() // behind the listed items, of which there are count
	count := int32(len(first))
	switch {
	case open:
		item, err := c.call(rest)
		if err != nil {
			return nil, err
		}
		left := high
		if high != unbounded {
			left = max(0, high-count)
		}
		if count > 0 {
			tail = repeated(sequence(comma, item), max(0, low-count), left)
			break
		}
		if left == 0 {
			break
		}
		if left != unbounded {
			left--
		}
		tail = sequence(c.open, item, repeated(sequence(comma, item), max(0, low-1), left))
		if low == 0 {
			tail = either(tail, nothing())
		}
	case low > count:
		return c.g.automaton(nil), nil
	}
	for i := count - 1; i >= 0; i-- {
		item, err := c.call(first[i])
		if err != nil {
			return nil, err
		}
		before := comma
		if i == 0 {
			before = c.open
		}
		e := c.g.automaton(nil)
		if high == unbounded || i < high {
			e = sequence(before, item, tail)
		}
		if i >= low {
			e = either(e, nothing())
		}
		tail = e
	}
	return sequence(c.g.automaton(begin), tail, c.shut, c.g.automaton(end)), nil
}
