package grammar

import "slices"

// Bounds of the search for a difference between branches: how deep, and how many pairs are compared in one schema.
const (
	maxProof  = 6
	maxProofs = 1 << 16
)

// exclusive checks that no text that is generated for one branch of a oneOf satisfies another: then it satisfies exactly one.
func (c *compiler) exclusive(v *value, branches [][]part) error {
	for i, a := range branches {
		for k, b := range branches {
			if i == k {
				continue
			}
			apart, err := c.apart(a, b, maxProof)
			if err != nil {
				return err
			}
			if !apart {
				return fault(v, "oneOf", "branches %d and %d are not seen to exclude each other, and what satisfies both cannot be masked; use anyOf, or give them a required property whose const differs", min(i, k), max(i, k))
			}
		}
	}
	return nil
}

// apart says that no value that is generated for a is valid under b, as far as it can be seen.
func (c *compiler) apart(a, b []part, depth int) (bool, error) {
	if c.proofs++; depth == 0 || c.proofs > maxProofs {
		return false, nil
	}
	fa, never, err := c.flatten(a)
	if err != nil || never {
		return true, err
	}
	fb, never, err := c.flatten(b)
	if err != nil || never {
		return true, err
	}
	for side, parts := range [][]part{fa, fb} {
		for i, p := range parts {
			for _, keyword := range []string{"anyOf", "oneOf"} {
				if keyword == "anyOf" && p.anyOf || keyword == "oneOf" && p.oneOf || p.v.member[keyword] == nil {
					continue
				}
				branches, err := c.branches(parts, i, keyword)
				if err != nil {
					return false, err
				}
				for _, branch := range branches { // a value satisfies one of them
					x, y := branch, fb
					if side == 1 {
						x, y = fa, branch
					}
					if ok, err := c.apart(x, y, depth-1); !ok || err != nil {
						return false, err
					}
				}
				return true, nil
			}
		}
	}
	sa, err := c.merge(fa)
	if err != nil {
		return false, err
	}
	sb, err := c.merge(fb)
	if err != nil {
		return false, err
	}
	return c.differ(sa, sb, depth)
}

// differ is apart for merged schemas.
func (c *compiler) differ(a, b *schema, depth int) (bool, error) {
	if a.hasEnum {
		for _, v := range a.enum {
			if v.kind&a.kinds == 0 || v.kind&b.allowed == 0 {
				continue
			}
			if b.hasEnum && !slices.ContainsFunc(b.enum, v.equal) {
				continue
			}
			if v.kind&(array|object) != 0 {
				return false, nil
			}
			if ok, err := c.allows(b, v); ok || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	if b.hasEnum {
		for _, v := range b.enum {
			if v.kind&a.kinds == 0 || v.kind&b.allowed == 0 {
				continue
			}
			if v.kind&(array|object) != 0 {
				return false, nil
			}
			if ok, err := c.allows(a, v); ok || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	for _, k := range []struct {
		kinds kinds
		apart func(a, b *schema, depth int) (bool, error)
	}{{null | boolean, nil}, {number, c.numbersApart}, {text, c.textsApart}, {array, c.arraysApart}, {object, c.objectsApart}} {
		if a.kinds&b.allowed&k.kinds == 0 {
			continue
		}
		if k.apart == nil {
			return false, nil
		}
		if ok, err := k.apart(a, b, depth); !ok || err != nil {
			return false, err
		}
	}
	return true, nil
}

func (c *compiler) numbersApart(a, b *schema, _ int) (bool, error) {
	n := b.numbers
	if n.low == nil && n.high == nil || a.numbers.free() { // what has an exponent is not compared
		return false, nil
	}
	x, err := c.number(a)
	if err != nil {
		return false, err
	}
	y, err := rangeDFA(n.low, n.high) // all of b is among it, integers or not
	if err != nil {
		return false, fault(b.at, "minimum", "%s", err)
	}
	both, err := product(x, y, false)
	return err == nil && both == nil, nil
}

func (c *compiler) textsApart(a, b *schema, _ int) (bool, error) {
	if a.length.apart(b.length) {
		return true, nil
	}
	x, freeA, err := c.content(a)
	if err != nil {
		return false, err
	}
	y, freeB, err := c.content(b)
	if err != nil {
		return false, err
	}
	if freeA || freeB || len(b.formats) > 0 { // formats have texts that are not generated
		return false, nil
	}
	both, err := product(x, y, false)
	return err == nil && both == nil, nil
}

func (c *compiler) arraysApart(a, b *schema, depth int) (bool, error) {
	if a.items.apart(b.items) {
		return true, nil
	}
	firstA, restA, _, err := c.positions(a)
	if err != nil {
		return false, err
	}
	firstB, restB, _, err := c.positions(b)
	if err != nil {
		return false, err
	}
	for i := 0; i < int(a.items.low) && i <= max(len(firstA), len(firstB)); i++ { // an item that is there
		x, y := restA, restB
		if i < len(firstA) {
			x = firstA[i]
		}
		if i < len(firstB) {
			y = firstB[i]
		}
		if ok, err := c.apart(x, y, depth-1); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

func (c *compiler) objectsApart(a, b *schema, depth int) (bool, error) {
	if a.members.apart(b.members) {
		return true, nil
	}
	pa, err := c.properties(a)
	if err != nil {
		return false, err
	}
	for _, p := range pa {
		if !p.required {
			continue
		}
		q, err := c.named(b, p.name) // whether b names it or not
		if err != nil {
			return false, err
		}
		if ok, err := c.apart(p.parts, q.parts, depth-1); ok || err != nil {
			return ok, err
		}
	}
	pb, err := c.properties(b)
	if err != nil {
		return false, err
	}
	extras, err := c.extras(a, pa)
	if err != nil {
		return false, err
	}
	for _, q := range pb {
		if q.required && len(extras) == 0 && !slices.ContainsFunc(pa, func(p property) bool { return p.name == q.name }) {
			return true, nil // b needs what a never has
		}
	}
	return false, nil
}
