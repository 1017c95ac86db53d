package grammar

import (
	"encoding/binary"
	"errors"
	"slices"
)

// Bounds of every automaton, and of the steps that are taken to make it.
const (
	maxStates = 1 << 15
	maxWork   = 1 << 25
)

// errStates says that an automaton would have more than maxStates states.
var errStates = errors.New("it needs too large an automaton")

const dead int32 = -1

// A dfa is a deterministic automaton over bytes, without states from which no text is accepted. A nil *dfa accepts nothing.
type dfa struct {
	class  [256]uint8 // of a byte
	n      int        // classes
	next   []int32    // state*n + class; or dead
	accept []bool
	final  []bool // no byte leads on
	start  int32
}

func (d *dfa) step(s int32, b byte) int32 { return d.next[int(s)*d.n+int(d.class[b])] }

// bytes is about what the automaton takes.
func (d *dfa) bytes() int { return 4*len(d.next) + 2*len(d.accept) + 300 }

// accepts says whether text is in the language.
func (d *dfa) accepts(text []byte) bool {
	if d == nil {
		return false
	}
	s := d.start
	for _, b := range text {
		if s = d.step(s, b); s == dead {
			return false
		}
	}
	return d.accept[s]
}

// trim cuts off what accepts nothing; nil is the empty language.
func (d *dfa) trim() *dfa {
	n := len(d.accept)
	into := make([][]int32, n)
	live := make([]bool, n)
	var todo []int32
	for s := range n {
		for _, to := range d.next[s*d.n : (s+1)*d.n] {
			if to != dead {
				into[to] = append(into[to], int32(s))
			}
		}
		if d.accept[s] {
			live[s] = true
			todo = append(todo, int32(s))
		}
	}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, f := range into[s] {
			if !live[f] {
				live[f] = true
				todo = append(todo, f)
			}
		}
	}
	if !live[d.start] {
		return nil
	}
	d.final = make([]bool, n)
	for s := range n {
		d.final[s] = true
		row := d.next[s*d.n : (s+1)*d.n]
		for i, to := range row {
			if to == dead || !live[to] {
				row[i] = dead
			} else {
				d.final[s] = false
			}
		}
	}
	return d
}

// An edge of an nfa is taken by the bytes from lo to hi.
type edge struct {
	lo, hi byte
	to     int32
}

// An nfa is a nondeterministic automaton over bytes, built up state by state.
type nfa struct {
	edges  [][]edge
	empty  [][]int32 // moves without a byte
	accept []bool
	tails  map[tail]int32
}

// tail is the state before so many continuation bytes of UTF-8 in front of a state.
type tail struct {
	to int32
	n  int
}

func (n *nfa) state() int32 {
	n.edges, n.empty, n.accept = append(n.edges, nil), append(n.empty, nil), append(n.accept, false)
	return int32(len(n.edges) - 1)
}

func (n *nfa) byteRange(from, to int32, lo, hi byte) {
	n.edges[from] = append(n.edges[from], edge{lo, hi, to})
}

func (n *nfa) move(from, to int32) { n.empty[from] = append(n.empty[from], to) }

// text leads from one state to another by a fixed text.
func (n *nfa) text(from, to int32, s string) {
	if s == "" {
		n.move(from, to)
		return
	}
	for i := 0; i < len(s)-1; i++ {
		next := n.state()
		n.byteRange(from, next, s[i], s[i])
		from = next
	}
	n.byteRange(from, to, s[len(s)-1], s[len(s)-1])
}

// deterministic is the subset construction, from the given start state.
func (n *nfa) deterministic(start int32) (*dfa, error) {
	d := &dfa{}
	var starts [257]bool
	starts[0] = true
	for _, es := range n.edges {
		for _, e := range es {
			starts[e.lo], starts[int(e.hi)+1] = true, true
		}
	}
	var first []byte // byte of each class
	for b := range 256 {
		if starts[b] {
			first = append(first, byte(b))
		}
		d.class[b] = uint8(len(first) - 1)
	}
	d.n = len(first)
	ids := map[string]int32{}
	var sets [][]int32
	mark := make([]int32, len(n.edges)) // set in which a state was seen last
	round := int32(0)
	var key []byte
	work := 0
	enter := func(set []int32) (int32, error) { // set is closed and sorted here
		round++
		if work += len(set); work > maxWork {
			return 0, errStates
		}
		var todo []int32
		all := set[:0]
		for _, s := range set {
			if mark[s] != round {
				mark[s] = round
				todo = append(todo, s)
			}
		}
		for len(todo) > 0 {
			s := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			all = append(all, s)
			work += len(n.empty[s]) + 1
			for _, to := range n.empty[s] {
				if mark[to] != round {
					mark[to] = round
					todo = append(todo, to)
				}
			}
		}
		slices.Sort(all)
		key = key[:0]
		for _, s := range all {
			key = binary.LittleEndian.AppendUint32(key, uint32(s))
		}
		if id, ok := ids[string(key)]; ok {
			return id, nil
		}
		id := int32(len(sets))
		if id >= maxStates {
			return 0, errStates
		}
		ids[string(key)] = id
		sets = append(sets, slices.Clone(all))
		d.accept = append(d.accept, slices.ContainsFunc(all, func(s int32) bool { return n.accept[s] }))
		return id, nil
	}
	if _, err := enter([]int32{start}); err != nil {
		return nil, err
	}
	targets := make([][]int32, d.n)
	for s := 0; s < len(sets); s++ {
		for i := range targets {
			targets[i] = targets[i][:0]
		}
		for _, q := range sets[s] {
			for _, e := range n.edges[q] {
				for c := d.class[e.lo]; ; c++ {
					targets[c] = append(targets[c], e.to)
					if c == d.class[e.hi] {
						break
					}
				}
			}
		}
		for _, t := range targets {
			to := dead
			if len(t) > 0 {
				var err error
				if to, err = enter(t); err != nil {
					return nil, err
				}
			}
			d.next = append(d.next, to)
		}
	}
	return d.trim(), nil
}

// product is what a accepts and b accepts too, or, with without, does not.
func product(a, b *dfa, without bool) (*dfa, error) {
	if a == nil || b == nil && !without {
		return nil, nil
	}
	if b == nil {
		return a, nil
	}
	d := &dfa{}
	pairs := map[[2]uint8]uint8{}
	var first []byte
	for x := range 256 {
		p := [2]uint8{a.class[x], b.class[x]}
		c, ok := pairs[p]
		if !ok {
			c = uint8(len(first))
			pairs[p] = c
			first = append(first, byte(x))
		}
		d.class[x] = c
	}
	d.n = len(first)
	ids := map[[2]int32]int32{}
	var states [][2]int32
	enter := func(p [2]int32) int32 {
		id, ok := ids[p]
		if !ok {
			id = int32(len(states))
			ids[p] = id
			states = append(states, p)
			d.accept = append(d.accept, a.accept[p[0]] && (p[1] != dead && b.accept[p[1]]) != without)
		}
		return id
	}
	enter([2]int32{a.start, b.start})
	for s := 0; s < len(states); s++ {
		if len(states) > maxStates {
			return nil, errStates
		}
		p := states[s]
		for _, x := range first {
			q := [2]int32{a.step(p[0], x), dead}
			if p[1] != dead {
				q[1] = b.step(p[1], x)
			}
			if q[0] == dead || q[1] == dead && !without {
				d.next = append(d.next, dead)
			} else {
				d.next = append(d.next, enter(q))
			}
		}
	}
	return d.trim(), nil
}

// texts accepts the given texts.
func texts(all ...string) (*dfa, error) {
	n := &nfa{}
	start, end := n.state(), n.state()
	n.accept[end] = true
	for _, s := range all {
		n.text(start, end, s)
	}
	return n.deterministic(start)
}
