package grammar

// A mask is what is known of a frame's term whatever lies below the frame.
type mask struct {
	bits   []uint64 // tokens that the frame takes: a set, or
	ids    []int32  // a list, if they are few
	leaves []int32  // nodes of the trie within which the frame may end, to go on with what is below
}

// listMost is how many tokens a list has at most, as a part of the words of a set: then it takes no more space.
const listMost = 2

// floor lies below the frame of which the mask is made.
var floor = &frame{term: &term{termKey: termKey{op: opEnd}}}

// A marker collects tokens.
type marker struct {
	g      *Grammar
	bits   []uint64
	count  int
	leaves []int32
	ids    []int32
	most   int
}

// maskOf returns the mask of a term, which is kept.
func (g *Grammar) maskOf(t *term) *mask {
	t = t.wide
	if t.mask != nil {
		return t.mask
	}
	v := g.vocabulary
	g.scratch = resized(g.scratch, v.words())
	clear(g.scratch)
	m := marker{g: g, bits: g.scratch, most: v.words() * listMost}
	m.walk(0, []*frame{newFrame(t, floor)})
	out := &mask{leaves: m.leaves}
	if m.ids != nil && m.count <= m.most || m.count == 0 {
		out.ids = m.ids
	} else {
		out.bits = append([]uint64(nil), m.bits...)
	}
	g.used += 8*len(out.bits) + 4*len(out.ids) + 4*len(out.leaves) + 80
	t.mask = out
	return out
}

func resized(s []uint64, n int) []uint64 {
	if cap(s) < n {
		return make([]uint64, n)
	}
	return s[:n]
}

func (m *marker) mark(ids []int32) {
	for _, id := range ids {
		m.bits[id>>6] |= 1 << (id & 63)
	}
	m.count += len(ids)
	if m.count <= m.most {
		m.ids = append(m.ids, ids...)
	}
}

// walk marks the tokens below a node of the trie that the stacks take, and notes where stacks end at the floor.
func (m *marker) walk(node int32, stacks []*frame) {
	g, v := m.g, m.g.vocabulary
	if len(stacks) == 1 && stacks[0].below == floor && stacks[0].term.op != opEnd {
		m.walkTerm(node, stacks[0].term)
		return
	}
	var buf [4]*frame
	for c := node + 1; c < v.next[node]; c = v.next[c] {
		next := buf[:0]
		for _, f := range stacks {
			next = g.stepStack(next, f, v.char[c])
		}
		if len(next) > 0 {
			m.visit(c, next)
		}
	}
}

// visit marks the tokens at a node that the stacks reach, and goes on.
func (m *marker) visit(c int32, stacks []*frame) {
	v := m.g.vocabulary
	m.mark(v.at(c))
	if v.next[c] == c+1 {
		return
	}
	for _, f := range stacks {
		if f.reaches(floor) {
			m.leaves = append(m.leaves, c)
			break
		}
	}
	m.walk(c, stacks)
}

// walkTerm is walk with the one stack that is a frame on the floor, as in the midst of a string.
func (m *marker) walkTerm(node int32, t *term) {
	g, v := m.g, m.g.vocabulary
	for c := node + 1; c < v.next[node]; c = v.next[c] {
		moves := g.after(t, v.char[c])
		if len(moves) == 0 {
			continue
		}
		if r := moves[0].rest; len(moves) == 1 && len(moves[0].push) == 0 && r.op != opEnd {
			m.mark(v.at(c))
			if v.next[c] > c+1 {
				if r.nullable {
					m.leaves = append(m.leaves, c)
				}
				m.walkTerm(c, r)
			}
			continue
		}
		var next []*frame
		for i := range moves {
			next = addStack(next, moves[i].onto(floor))
		}
		m.visit(c, next)
	}
}

// reaches says that the frames above bottom may end here.
func (f *frame) reaches(bottom *frame) bool {
	for f != bottom {
		if f == nil || !f.term.nullable {
			return false
		}
		f = f.below
	}
	return true
}

// onto puts what a move leaves on a stack, in place of its top frame.
func (m *move) onto(below *frame) *frame {
	f := below
	if m.rest.op != opEnd {
		f = newFrame(m.rest, f)
	}
	for _, t := range m.push {
		f = newFrame(t, f)
	}
	return f
}

// stepStack appends what a byte makes of a stack.
func (g *Grammar) stepStack(dst []*frame, f *frame, b byte) []*frame {
	for f != nil {
		moves := g.after(f.term, b)
		for i := range moves {
			dst = addStack(dst, moves[i].onto(f.below))
		}
		if !f.term.nullable || f == floor {
			break
		}
		f = f.below
	}
	return dst
}

func addStack(dst []*frame, f *frame) []*frame {
	for _, o := range dst {
		if o.same(f) {
			return dst
		}
	}
	return append(dst, f)
}
