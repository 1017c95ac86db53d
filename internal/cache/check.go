package cache

import (
	"errors"
	"fmt"
	"slices"
)

// Check verifies every invariant of the books, at a cost that grows with the number of blocks. It is for tests and diagnosis; an error is a bug of
// this package or of its caller. It changes nothing.
func (c *Cache) Check() error {
	k := &checker{c: c, users: make([]string, c.blocks), refs: make(map[*node]int32), seen: make(map[*node]bool)}
	for _, b := range c.free {
		k.use(b, "free list")
	}
	for _, s := range c.live {
		k.sequence(s)
	}
	for i, s := range c.saves {
		if s.index != i || s.node.block != s.Block || len(s.node.tokens) < len(s.Tokens) || !s.node.ready() {
			k.fail("save of %v is not of its node", s.Tokens)
		}
		for a := s.node; a != nil; a = a.parent {
			k.refs[a]++
		}
	}
	for key, root := range c.roots {
		if root.key != key || root.parent != nil || root.block != noBlock || len(root.tokens) != 0 || root.detached {
			k.fail("root %v is malformed", key)
		}
		if root.refs == 0 && len(root.children) == 0 {
			k.fail("root %v is not needed", key)
		}
		k.subtree(root)
	}
	for n, refs := range k.refs {
		if n.refs != refs {
			k.fail("node %v has %d references, counts %d", n.tokens, refs, n.refs)
		}
		if !k.seen[n] {
			if !n.detached {
				k.fail("node %v is referenced and neither in a tree nor detached", n.tokens)
			}
			k.use(n.block, "detached node")
		}
	}
	if b := slices.Index(k.users, ""); b >= 0 {
		k.fail("block %d is leaked", b)
	}
	if k.cached != c.cached {
		k.fail("%d nodes are cached, counted %d", k.cached, c.cached)
	}
	if k.leaves != len(c.evictable) {
		k.fail("%d nodes are evictable, %d are in the heap", k.leaves, len(c.evictable))
	}
	for i, n := range c.evictable {
		if int(n.heapPos) != i || !k.seen[n] || i > 0 && c.evictable.Less(i, (i-1)/2) {
			k.fail("heap place %d is wrong", i)
		}
	}
	if st := c.Stats(); st.Free < 0 || st.Cached < 0 || st.Held < 0 || st.Free+st.Cached+st.Held != st.Total {
		k.fail("stats do not add up: %+v", st)
	}
	return errors.Join(k.errs...)
}

type checker struct {
	c              *Cache
	errs           []error
	users          []string        // by block
	refs           map[*node]int32 // as counted from the sequences
	seen           map[*node]bool  // in a tree
	cached, leaves int
}

func (k *checker) fail(format string, args ...any) {
	k.errs = append(k.errs, fmt.Errorf("cache: check: "+format, args...))
}

func (k *checker) use(b BlockID, who string) {
	if b < 0 || int(b) >= k.c.blocks {
		k.fail("block %d (%s) does not exist", b, who)
		return
	}
	if before := k.users[b]; before != "" {
		k.fail("block %d is used by %s and %s", b, before, who)
	}
	k.users[b] = who
}

// sequence checks one live sequence and counts its references and private blocks.
func (k *checker) sequence(s *Sequence) {
	b := k.c.blockSize
	if s.ended || k.c.live[s.index] != s || s.cache != k.c {
		k.fail("sequence %d is not live", s.index)
	}
	if !s.matched {
		if len(s.table) != 0 || s.spare != 0 || len(s.nodes) != 0 || s.src != nil || s.top != nil || s.computed != 0 || len(s.fresh) != 0 {
			k.fail("sequence %d has no match and holds something", s.index)
		}
		return
	}
	if len(s.table) != (len(s.tokens)+b-1)/b || len(s.nodes) != len(s.table) {
		k.fail("sequence %d: %d tokens, %d blocks, %d nodes", s.index, len(s.tokens), len(s.table), len(s.nodes))
		return
	}
	if s.top != nil {
		k.refs[s.top]++
	}
	if s.src != nil {
		k.refs[s.src]++
		if s.copy.Src != s.src.block || s.copy.Dst != s.table[s.shared] || s.copy.Tokens > len(s.src.tokens) ||
			common(s.src.tokens, s.block(s.shared, len(s.tokens))) < s.copy.Tokens {
			k.fail("sequence %d: wrong copy %+v", s.index, s.copy)
		}
	}
	if s.polled > s.shared || s.shared > s.linked || s.computed > len(s.tokens) || !s.waiting && s.polled < s.shared {
		k.fail("sequence %d: polled %d, shared %d, linked %d, computed %d of %d", s.index, s.polled, s.shared, s.linked, s.computed, len(s.tokens))
	}
	for _, b := range s.Table()[len(s.table):] {
		k.use(b, "reserved")
	}
	for i, n := range s.nodes {
		if n == nil {
			if i < s.linked {
				k.fail("sequence %d: linked block %d has no node", s.index, i)
			}
			k.use(s.table[i], "private")
			continue
		}
		k.refs[n]++
		if n.detached || n.block != s.table[i] || n.parent != s.parent(i) {
			k.fail("sequence %d: node of block %d is not its place in the tree", s.index, i)
		}
		if common(n.tokens, s.block(i, len(s.tokens))) != len(n.tokens) || i < s.linked && !n.full(b) {
			k.fail("sequence %d: node of block %d has other tokens %v", s.index, i, n.tokens)
		}
		if i < s.shared && n.owner == s || i >= s.shared && n.owner != nil && n.owner != s {
			k.fail("sequence %d: block %d has the wrong owner", s.index, i)
		}
		if rows := min(len(n.tokens), s.computed-i*b); int(n.filled) < rows || n.owner == s && int(n.filled) != max(0, rows) {
			k.fail("sequence %d: node of block %d has %d rows, computed %d", s.index, i, n.filled, s.computed)
		}
		if i >= s.polled && i < s.linked && !s.waiting && !n.ready() {
			k.fail("sequence %d: linked block %d is not ready", s.index, i)
		}
	}
}

// subtree checks a node and all below it.
func (k *checker) subtree(n *node) {
	k.seen[n] = true
	b := k.c.blockSize
	if n.refs != k.refs[n] {
		k.fail("node %v has %d references, counts %d", n.tokens, k.refs[n], n.refs)
	}
	if n.block != noBlock {
		k.use(n.block, "tree")
		if len(n.tokens) == 0 || len(n.tokens) > b || n.filled < 0 || int(n.filled) > len(n.tokens) || n.detached {
			k.fail("node %v with %d filled is malformed", n.tokens, n.filled)
		}
		if len(n.children) > 0 && !n.full(b) {
			k.fail("partial node %v has children", n.tokens)
		}
		if n.ready() != (n.owner == nil) || n.owner != nil && (n.owner.ended || !slices.Contains(n.owner.nodes, n)) {
			k.fail("node %v: %d filled, wrong owner", n.tokens, n.filled)
		}
		if n.filled > 0 && !n.parent.ready() {
			k.fail("node %v has rows below a pending node", n.tokens)
		}
		if n.ready() && n.full(b) && n.key != Chain(n.parent.key, nil, n.tokens) {
			k.fail("node %v has a wrong key", n.tokens)
		}
		if n.refs > 0 && n.parent.refs == 0 {
			k.fail("node %v is referenced, its parent is not", n.tokens)
		}
		if n.refs == 0 {
			k.cached++
		}
		leaf := n.refs == 0 && len(n.children) == 0
		if leaf {
			k.leaves++
		}
		if leaf != (n.heapPos >= 0) {
			k.fail("node %v: evictable %v, heap place %d", n.tokens, leaf, n.heapPos)
		}
	}
	for i, child := range n.children {
		if child.parent != n {
			k.fail("node %v has a wrong parent", child.tokens)
			continue
		}
		if i > 0 && slices.Compare(n.children[i-1].tokens, child.tokens) >= 0 {
			k.fail("children %v and %v are out of order", n.children[i-1].tokens, child.tokens)
		}
		k.subtree(child)
	}
}
