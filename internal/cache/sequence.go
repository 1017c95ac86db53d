package cache

import (
	"slices"

	"kvasir/internal/llm"
)

// A Sequence is a prompt and the tokens generated from it, with the blocks that hold its KV. It belongs to the Cache that began it.
type Sequence struct {
	cache   *Cache
	root    Key
	noCache bool
	tokens  []int32
	index   int // in cache.live

	// Set by match, cleared by release.
	top      *node     // the root node, referenced; nil with noCache
	table    []BlockID // blocks of tokens; 0 entries when not matched
	spare    int       // reserved blocks, table[len(table):][:spare]
	nodes    []*node   // beside table; nil for a private block
	shared   int       // nodes[0, shared) are full nodes that were in the tree before
	polled   int       // of these, [0, polled) are known to be ready
	linked   int       // nodes[0, linked) are full nodes, shared or computed here and ready
	computed int
	src      *node // what copy reads from, referenced; nil if there is no copy to do
	copy     Copy
	decision llm.Decision
	fresh    []BlockID

	matched bool
	waiting bool // until Poll says Ready
	ended   bool
}

// A Copy asks for the KV of the first Tokens rows of block Src, in all layers, to be copied to the same rows of block Dst.
type Copy struct {
	Src, Dst BlockID
	Tokens   int
}

// State is what a sequence needs next.
type State int

// The states.
const (
	Waiting   State = iota // others are computing what it shares; or, with an error from Poll, it has no blocks
	NeedsCopy              // do the copy, then call CopyDone
	Ready                  // compute from Computed() on
)

func (s State) String() string { return [...]string{"waiting", "needs copy", "ready"}[s] }

// Table returns the block table: position i is row i%BlockSize of block Table()[i/BlockSize]. Behind the blocks of the tokens are those that
// Reserve got. It is empty while the sequence has no match (see Poll). The slice is valid, and may be read only, until the next call of a
// method that changes the Cache.
func (s *Sequence) Table() []BlockID { return s.table[:len(s.table)+s.spare] }

// Len returns the number of tokens, prompt and appended.
func (s *Sequence) Len() int { return len(s.tokens) }

// Computed returns n such that the KV of the positions [0, n) is in the table's blocks. It never falls once Poll has said Ready.
func (s *Sequence) Computed() int { return s.computed }

// Decision says what is reused, as of Begin or, if Poll had to match again, as of then. It is final once Poll has said Ready.
func (s *Sequence) Decision() llm.Decision { return s.decision }

// TakeFresh returns the blocks that this sequence was given since the last call, copy destinations among them; Begin, Poll, Append and
// Reserve may add some. What they held before is harmless to the engine (docs/numerics.md, attention), so the scheduler does not ask; tests fill them with garbage.
func (s *Sequence) TakeFresh() []BlockID {
	f := s.fresh
	s.fresh = nil
	return f
}

// block returns the ids of block i among the first n tokens.
func (s *Sequence) block(i, n int) []int32 {
	b := s.cache.blockSize
	return s.tokens[i*b : min(i*b+b, n)]
}

// Poll says what s needs next. Call it from Begin on until it says Ready, after each round in which something was computed or ended.
//
// It is Waiting while others compute what s shares. If one of these ended early, s has lost its match, and Poll matches it again as Begin would:
// what nobody computes any more, s then owns. ErrNoSpace says that there are too few blocks for that; s then has none, holds nothing, and may be
// polled again or ended.
func (c *Cache) Poll(s *Sequence) (State, *Copy, error) {
	s.must(!s.ended, "Poll after End")
	if !s.waiting && s.matched {
		return Ready, nil, nil
	}
	if !s.matched {
		if err := c.match(s); err != nil {
			return Waiting, nil, err
		}
	}
	for s.polled < s.shared && s.nodes[s.polled].ready() {
		s.polled++
		s.computed += c.blockSize
	}
	if s.polled < s.shared {
		return Waiting, nil, nil
	}
	if s.src != nil {
		if int(s.src.filled) < s.copy.Tokens {
			return Waiting, nil, nil
		}
		return NeedsCopy, &s.copy, nil
	}
	s.waiting = false
	if !s.noCache {
		c.counters.QueriesTokens += uint64(s.decision.PromptTokens)
		c.counters.HitTokens += uint64(s.decision.Reused)
	}
	return Ready, nil, nil
}

// CopyDone says that the copy that Poll asked for has been done (or is ordered before all later computing). Its source may now be evicted.
func (c *Cache) CopyDone(s *Sequence) {
	s.must(!s.ended && s.src != nil && s.polled == s.shared && int(s.src.filled) >= s.copy.Tokens, "CopyDone without NeedsCopy")
	c.unref(s.src)
	s.src = nil
	c.counters.Copies++
	s.computed += s.copy.Tokens
	if n := s.nodes[s.shared]; n != nil {
		n.filled = int32(s.copy.Tokens) // below len(n.tokens): a copy never gives the last token of the prompt
	}
}

// Advance says that the KV of n more tokens, [Computed(), Computed()+n), has been written. s must be Ready. Blocks that are now full and computed
// are stored; an identical one that is stored already takes the place of ours in the table.
func (c *Cache) Advance(s *Sequence, n int) {
	s.must(s.ready(), "Advance of a sequence that is not Ready")
	s.must(n >= 0 && s.computed+n <= len(s.tokens), "Advance beyond Len")
	first := s.computed / c.blockSize
	s.computed += n
	for i := first; i*c.blockSize < s.computed; i++ {
		if n := s.nodes[i]; n != nil && n.owner == s {
			n.filled = int32(min(s.computed-i*c.blockSize, len(n.tokens)))
			if n.ready() {
				c.complete(n)
			}
		}
	}
	c.store(s)
}

// store makes the full, computed blocks of s ready nodes, in order. It stops early where another sequence is computing an identical block:
// nothing can be stored below that until it is done, so the next call tries again.
func (c *Cache) store(s *Sequence) {
	for !s.noCache && (s.linked+1)*c.blockSize <= s.computed {
		i := s.linked
		n := s.nodes[i]
		if n == nil || !n.full(c.blockSize) {
			tokens := s.block(i, s.computed)
			if same := s.parent(i).find(tokens); same != nil {
				if !same.ready() {
					return
				}
				c.ref(same)
				c.dropOwn(s, i)
				s.nodes[i], s.table[i] = same, same.block
				c.counters.Deduplicated++
			} else {
				c.place(s, i, tokens)
			}
		}
		s.linked++
	}
}

// storeTail makes what an ending sequence has computed in its first block that is not linked, the ids [linked·B, min(computed, linked·B+B)), a
// ready node, unless another has these rows. Where another sequence is computing just these ids, it stores one fewer: that sequence may end, too.
// It may cut a pending node of s; then all below that goes.
func (c *Cache) storeTail(s *Sequence) {
	i := s.linked
	if s.noCache || s.computed <= i*c.blockSize {
		return
	}
	n := s.nodes[i]
	if n != nil {
		for len(n.children) > 0 {
			c.detach(n.children[0])
		}
		c.unlink(n)
		n.owner = nil
	}
	for tokens := s.block(i, s.computed); len(tokens) > 0; tokens = tokens[:len(tokens)-1] {
		e := s.parent(i).cover(tokens)
		if e != nil && int(e.filled) >= len(tokens) || n != nil && n.refs > 1 && len(tokens) < int(n.filled) {
			break // superfluous; or it would take rows from a copy that was asked for
		}
		if e == nil || len(e.tokens) > len(tokens) {
			c.place(s, i, tokens)
			c.enqueue(s.nodes[i])
			return
		}
	}
	if n != nil {
		n.detached = true // a copy may still read it
	}
}

// place makes block i of s, private or a partial node of its own, a ready node with these ids, which no other node has.
func (c *Cache) place(s *Sequence, i int, tokens []int32) {
	n := s.nodes[i]
	if n == nil {
		n = &node{block: s.table[i], refs: 1, heapPos: -1, lastUse: c.clock}
		s.nodes[i] = n
	} else if n.parent != nil {
		c.unlink(n)
	}
	n.tokens, n.filled = slices.Clone(tokens), int32(len(tokens))
	c.link(s.parent(i), n)
	c.complete(n)
}

// dropOwn gives up block i of s, private or a partial node of its own, because another block has its rows.
func (c *Cache) dropOwn(s *Sequence, i int) {
	n := s.nodes[i]
	if n == nil {
		s.fresh = slices.DeleteFunc(s.fresh, func(b BlockID) bool { return b == s.table[i] })
		c.free = append(c.free, s.table[i])
		return
	}
	if c.unref(n); n.refs == 0 {
		c.drop(n)
	}
}

// parent returns the node above block i.
func (s *Sequence) parent(i int) *node {
	if i == 0 {
		return s.top
	}
	return s.nodes[i-1]
}

// Append adds a generated token, whose KV a later Advance brings. s must be Ready. If the last block is full, it allocates one: ErrNoSpace or
// ErrTooLong, when nothing has changed.
func (c *Cache) Append(s *Sequence, token int32) error {
	s.must(s.ready(), "Append to a sequence that is not Ready")
	if len(s.tokens) == len(s.table)*c.blockSize {
		if len(s.table) == c.blocks {
			return ErrTooLong
		}
		if s.spare == 0 && len(c.free)+c.cached == 0 {
			return ErrNoSpace
		}
		c.allocate(s)
	}
	s.tokens = append(s.tokens, token)
	return nil
}

// Reserve gets s room for tokens that it may be given: the KV of up to n positions behind Len() may then be written, in the blocks of Table().
// It returns for how many there is room. These rows are nobody's until Append and Advance make them tokens of s. Only free blocks are taken, none
// if fewer than keep would be left: nothing is evicted for a guess. s must be Ready. What is not used is to be given back by Unreserve.
func (c *Cache) Reserve(s *Sequence, n, keep int) int {
	s.must(s.ready(), "Reserve for a sequence that is not Ready")
	room := func() int { return (len(s.table)+s.spare)*c.blockSize - len(s.tokens) }
	for room() < n && len(c.free) > keep && len(s.table)+s.spare < c.blocks {
		b := c.free[len(c.free)-1]
		c.free = c.free[:len(c.free)-1]
		s.table = append(s.Table(), b)[:len(s.table)]
		s.spare++
		s.fresh = append(s.fresh, b)
	}
	return min(n, room())
}

// Unreserve gives back what Reserve got and no token came to use.
func (c *Cache) Unreserve(s *Sequence) {
	for ; s.spare > 0; s.spare-- {
		b := s.table[:len(s.table)+s.spare][len(s.table)+s.spare-1]
		if n := len(s.fresh); n > 0 && s.fresh[n-1] == b {
			s.fresh = s.fresh[:n-1]
		}
		c.free = append(c.free, b)
	}
}

// Following appends to dst up to n token ids that go on behind the text of s in the tree of its root, whoever computed or is computing them;
// where there are several ways on, the one used last among the first few. It is for guessing what s may be given next, and changes nothing. s must be Ready.
func (c *Cache) Following(s *Sequence, dst []int32, n int) []int32 {
	s.must(s.ready(), "Following a sequence that is not Ready")
	if s.noCache {
		return dst
	}
	at, tail := s.parent(s.linked), s.tokens[s.linked*c.blockSize:]
	for len(tail) >= c.blockSize {
		if at = at.find(tail[:c.blockSize]); at == nil {
			return dst
		}
		tail = tail[c.blockSize:]
	}
	for n > 0 {
		next := at.latest(tail)
		if next == nil {
			break
		}
		k := min(n, len(next.tokens)-len(tail))
		dst = append(dst, next.tokens[len(tail):len(tail)+k]...)
		n -= k
		at, tail = next, nil
	}
	return dst
}

// End stores what s has computed, full blocks and the partial tail, gives up its references and frees the rest. What others wait for and s has
// not computed, they match again at Poll. It serves for finishing, cancelling and preempting alike; a second call does nothing.
func (c *Cache) End(s *Sequence) {
	if s.ended {
		return
	}
	c.clock++
	for _, n := range s.nodes {
		if n != nil {
			n.lastUse = c.clock
		}
	}
	if s.matched {
		c.store(s)
		c.storeTail(s)
		c.release(s)
	}
	s.ended = true
	last := c.live[len(c.live)-1]
	c.live[s.index], last.index = last, s.index
	c.live[len(c.live)-1] = nil
	c.live = c.live[:len(c.live)-1]
	c.rematch()
}

// release takes the pending nodes of s out of the tree and gives up all that s holds.
func (c *Cache) release(s *Sequence) {
	for _, n := range s.nodes[s.shared:] {
		if n != nil && n.owner == s {
			c.detach(n) // the later ones are below it
			break
		}
	}
	c.Unreserve(s)
	for i := len(s.nodes) - 1; i >= 0; i-- {
		if n := s.nodes[i]; n != nil {
			c.unref(n)
		} else {
			c.free = append(c.free, s.table[i])
		}
	}
	if s.src != nil {
		c.unref(s.src)
	}
	if s.top != nil {
		s.top.refs--
		c.settle(s.top)
	}
	s.top, s.table, s.nodes, s.src, s.fresh = nil, nil, nil, nil, nil
	s.shared, s.polled, s.linked, s.computed = 0, 0, 0, 0
	s.matched = false
}

// rematch takes their match from the sequences that wait for rows which nobody computes any more. That may take rows from others, so it goes
// on until it finds no more.
func (c *Cache) rematch() {
	for again := true; again; {
		again = false
		for _, t := range c.live {
			if t.waiting && t.matched && t.lost() {
				c.release(t)
				again = true
			}
		}
	}
}

// lost reports whether rows that s waits for were taken out of the tree.
func (s *Sequence) lost() bool {
	for _, n := range s.nodes[s.polled:s.shared] {
		if n.detached || !n.full(s.cache.blockSize) {
			return true
		}
	}
	n, k := s.src, int32(s.copy.Tokens)
	return n != nil && n.filled < k && (n.detached || int32(len(n.tokens)) < k)
}

func (s *Sequence) ready() bool { return s.matched && !s.waiting && !s.ended }

func (s *Sequence) must(ok bool, what string) {
	if !ok {
		panic("cache: " + what)
	}
}
