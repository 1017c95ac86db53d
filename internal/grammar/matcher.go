package grammar

import (
	"errors"
	"math/bits"
)

// ErrToken is Accept's error for a token that the text so far does not allow.
var ErrToken = errors.New("the grammar does not allow this token here")

// maxStacks bounds the alternatives that one text may leave open.
const maxStacks = 2 * maxProperties

// ErrAmbiguous is Accept's error when too many alternatives are open at once.
var ErrAmbiguous = errors.New("the grammar leaves too many alternatives open")

// A Matcher follows one text through a grammar. It is not safe for concurrent use; matchers of one grammar may be used at the same time.
type Matcher struct {
	g      *Grammar
	stacks []*frame // a nil one: the text may end, and nothing follows
	spare  []*frame
	set    []uint64
}

// NewMatcher is at the beginning of a text.
func (g *Grammar) NewMatcher() *Matcher {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &Matcher{g: g, stacks: []*frame{newFrame(g.root, nil)}, set: make([]uint64, g.vocabulary.words())}
}

// CanEnd says that the text so far is complete.
func (m *Matcher) CanEnd() bool {
	for _, f := range m.stacks {
		if f.reaches(nil) {
			return true
		}
	}
	return false
}

// Done says that the text is complete and nothing may follow.
func (m *Matcher) Done() bool {
	for _, f := range m.stacks {
		if f != nil {
			return false
		}
	}
	return true
}

// Accept follows a token. One that ends the generation is taken where the text may end.
func (m *Matcher) Accept(id int32) error {
	v := m.g.vocabulary
	if id < 0 || int(id) >= v.size {
		return ErrToken
	}
	text := v.texts[id]
	if text == nil {
		for _, e := range v.end {
			if e == id && m.CanEnd() {
				return nil
			}
		}
		return ErrToken
	}
	return m.AcceptText(text)
}

// AcceptText follows bytes. After an error the matcher is where it was.
func (m *Matcher) AcceptText(text []byte) error {
	g := m.g
	g.mu.Lock()
	defer g.mu.Unlock()
	stacks := m.stacks
	for i, b := range text {
		next := make([]*frame, 0, 2)
		if i > 0 {
			next, m.spare = m.spare[:0], nil
		}
		for _, f := range stacks {
			next = g.stepStack(next, f, b)
		}
		if i > 0 {
			m.spare = stacks
		}
		if stacks = next; len(stacks) == 0 {
			return ErrToken
		}
		if len(stacks) > maxStacks {
			return ErrAmbiguous
		}
	}
	m.stacks = stacks
	return nil
}

// Mask returns the set of the tokens that may come next, a bit for each id, and how many they are. Those that end the generation are among them if
// withEnd is set and the text may end. The set is valid until the next call.
func (m *Matcher) Mask(withEnd bool) ([]uint64, int) {
	g := m.g
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.used > termLimit {
		g.forget()
	}
	clear(m.set)
	for _, f := range m.stacks {
		for f != nil {
			k := g.maskOf(f.term)
			for i, w := range k.bits {
				m.set[i] |= w
			}
			for _, id := range k.ids {
				m.set[id>>6] |= 1 << (id & 63)
			}
			if f.below != nil {
				for _, node := range k.leaves {
					g.walkOn(m.set, node, f.below)
				}
			}
			if !f.term.nullable {
				break
			}
			f = f.below
		}
	}
	if withEnd && m.CanEnd() {
		for _, id := range g.vocabulary.end {
			m.set[id>>6] |= 1 << (id & 63)
		}
	}
	n := 0
	for _, w := range m.set {
		n += bits.OnesCount64(w)
	}
	return m.set, n
}

// walkOn sets the bits of the tokens below a node of the trie that a stack takes from there on.
func (g *Grammar) walkOn(set []uint64, node int32, f *frame) {
	v := g.vocabulary
	for c := node + 1; c < v.next[node]; c = v.next[c] {
		b := v.char[c]
		for below := f; below != nil; below = below.below {
			moves := g.after(below.term, b)
			for i := range moves {
				for _, id := range v.at(c) {
					set[id>>6] |= 1 << (id & 63)
				}
				if v.next[c] > c+1 {
					if next := moves[i].onto(below.below); next != nil {
						g.walkOn(set, c, next)
					}
				}
			}
			if !below.term.nullable {
				break
			}
		}
	}
}
