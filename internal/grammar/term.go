package grammar

import "slices"

// An operation of a term.
type operation uint8

const (
	opEnd    operation = iota // the empty text
	opLeaf                    // an automaton in a state
	opSeq                     // a, then b
	opAlt                     // a or b
	opRepeat                  // a, from low to high times
	opCall                    // a rule
)

// unbounded is a repeat's high where there is none.
const unbounded int32 = -1

// A term is what may follow within one frame of the stack. Equal terms of a grammar are one, until the grammar forgets them.
type term struct {
	termKey
	id       uint64
	nullable bool
	wide     *term // the term whose mask is the same: with repeats of no more than the longest token has bytes; itself if it has no longer ones

	few   []transition
	all   *[256]uint16 // by byte: index in moves + 1, 0 if it is not known yet
	moves [][]move
	mask  *mask
}

type termKey struct {
	op        operation
	a, b      *term
	low, high int32
	d         *dfa
	state     int32
	rule      *rule
}

// A rule is a term that is called. Its body is never nullable.
type rule struct {
	name string
	expr *expr
	body *term
	live bool // some text can be derived
}

// A move is what a byte makes of a frame: what is left of it, and the frames on top of that, lowest first.
type move struct {
	rest *term // opEnd if nothing is left
	push []*term
}

type transition struct {
	b     byte
	moves []move
}

// fewTransitions are searched one by one; a term with more has a table.
const fewTransitions = 6

const (
	termBytes  = 192
	tableBytes = 2*256 + 16
	moveBytes  = 40
)

// forget drops what is remembered when it takes more than this. It is found again when it is needed.
const termLimit = 16 << 20

func (g *Grammar) intern(k termKey, nullable bool) *term {
	if t := g.terms[k]; t != nil {
		return t
	}
	g.termCount++
	t := &term{termKey: k, id: g.termCount, nullable: nullable}
	g.terms[k] = t
	g.used += termBytes
	t.wide = g.widened(t)
	return t
}

// widened is the term with the same mask, see term.wide.
func (g *Grammar) widened(t *term) *term {
	switch t.op {
	case opSeq:
		if t.a.wide != t.a || t.b.wide != t.b {
			return g.seq(t.a.wide, t.b.wide)
		}
	case opAlt:
		if t.a.wide != t.a || t.b.wide != t.b {
			return g.alt(t.a.wide, t.b.wide)
		}
	case opRepeat:
		most := g.vocabulary.longest
		low, high := min(t.low, most), t.high
		if high > most {
			high = most
		}
		if low != t.low || high != t.high || t.a.wide != t.a {
			return g.repeat(t.a.wide, low, high)
		}
	}
	return t
}

func (g *Grammar) leaf(d *dfa, state int32) *term {
	if d.final[state] {
		return g.end
	}
	return g.intern(termKey{op: opLeaf, d: d, state: state}, d.accept[state])
}

func (g *Grammar) seq(a, b *term) *term {
	switch {
	case a.op == opEnd:
		return b
	case b.op == opEnd:
		return a
	case a.op == opSeq:
		return g.seq(a.a, g.seq(a.b, b))
	}
	return g.intern(termKey{op: opSeq, a: a, b: b}, a.nullable && b.nullable)
}

func (g *Grammar) alt(a, b *term) *term {
	if a == b {
		return a
	}
	return g.intern(termKey{op: opAlt, a: a, b: b}, a.nullable || b.nullable)
}

// repeat needs an a that is not nullable.
func (g *Grammar) repeat(a *term, low, high int32) *term {
	switch {
	case high == 0:
		return g.end
	case low == 1 && high == 1:
		return a
	}
	return g.intern(termKey{op: opRepeat, a: a, low: low, high: high}, low == 0)
}

func (g *Grammar) call(r *rule) *term { return g.intern(termKey{op: opCall, rule: r}, false) }

// after returns the moves of a term by a byte. The result is kept, and not to be changed.
func (g *Grammar) after(t *term, b byte) []move {
	if t.op == opEnd {
		return nil
	}
	if t.all != nil {
		if i := t.all[b]; i != 0 {
			return t.moves[i-1]
		}
	} else {
		for i := range t.few {
			if t.few[i].b == b {
				return t.few[i].moves
			}
		}
	}
	moves := g.derive(t, b, []move{})
	if t.all == nil && len(t.few) < fewTransitions {
		t.few = append(t.few, transition{b, moves})
		g.used += 32 + moveBytes*len(moves)
		return moves
	}
	if t.all == nil {
		t.all = new([256]uint16)
		g.used += tableBytes
		for _, f := range t.few {
			t.keep(g, f.b, f.moves)
		}
		t.few = nil
	}
	return t.keep(g, b, moves)
}

// keep enters moves into the table. Many bytes have the same, as in a string.
func (t *term) keep(g *Grammar, b byte, moves []move) []move {
	i := slices.IndexFunc(t.moves, func(m []move) bool { return slices.EqualFunc(m, moves, move.equal) })
	if i < 0 {
		i = len(t.moves)
		t.moves = append(t.moves, moves)
		g.used += 24 + moveBytes*len(moves)
	}
	t.all[b] = uint16(i + 1)
	return t.moves[i]
}

func (m move) equal(o move) bool { return m.rest == o.rest && slices.Equal(m.push, o.push) }

// derive appends the moves of a term by a byte.
func (g *Grammar) derive(t *term, b byte, dst []move) []move {
	switch t.op {
	case opLeaf:
		if s := t.d.step(t.state, b); s != dead {
			dst = addMove(dst, move{rest: g.leaf(t.d, s)})
		}
	case opSeq:
		for _, m := range g.derive(t.a, b, nil) {
			dst = addMove(dst, move{g.seq(m.rest, t.b), m.push})
		}
		if t.a.nullable {
			dst = g.derive(t.b, b, dst)
		}
	case opAlt:
		dst = g.derive(t.a, b, dst)
		dst = g.derive(t.b, b, dst)
	case opRepeat:
		high := t.high
		if high != unbounded {
			high--
		}
		more := g.repeat(t.a, max(0, t.low-1), high)
		for _, m := range g.derive(t.a, b, nil) {
			dst = addMove(dst, move{g.seq(m.rest, more), m.push})
		}
	case opCall:
		for _, m := range g.after(t.rule.body, b) {
			push := m.push
			if m.rest.op != opEnd {
				push = append([]*term{m.rest}, m.push...)
			}
			dst = addMove(dst, move{g.end, push})
		}
	}
	return dst
}

func addMove(dst []move, m move) []move {
	for i := range dst {
		if dst[i].equal(m) {
			return dst
		}
	}
	return append(dst, m)
}

// A frame is one of a stack: what may follow in it, and then what is below.
type frame struct {
	term  *term
	below *frame // nil: the text ends
	hash  uint64
}

func newFrame(t *term, below *frame) *frame {
	h := uint64(14695981039346656037)
	if below != nil {
		h = below.hash
	}
	h = (h ^ t.id) * 1099511628211
	return &frame{t, below, h ^ h>>29}
}

// same compares stacks.
func (f *frame) same(o *frame) bool {
	for f != o {
		if f == nil || o == nil || f.hash != o.hash || f.term != o.term {
			return false
		}
		f, o = f.below, o.below
	}
	return true
}
