package cache

import (
	"container/heap"
	"slices"
)

// BlockID names a block of KV memory: 0 to Config.Blocks-1. It is an alias, so that a block table needs no copy to be the engine's.
type BlockID = int32

// noBlock is the block of a root.
const noBlock BlockID = -1

// A node is one block in a prefix tree. A root has no parent, no tokens and no block; its key is the root key.
type node struct {
	tokens   []int32 // 1 to BlockSize ids; replaced, never written to
	children []*node // sorted by tokens; distinct
	parent   *node
	owner    *Sequence // who computes the rows [filled, len(tokens)); nil when ready
	lastUse  uint64    // fixed while in the heap, since every use takes a reference
	key      Key       // of a ready full node, and of a root
	block    BlockID
	filled   int32
	refs     int32
	heapPos  int32 // index in Cache.evictable, or -1
	detached bool  // out of the tree; the block goes with the last reference
	queued   bool  // in Cache.unsaved
	retried  bool  // was queued once more, with all before it
}

// search returns the index of n's first child that is not below q, that is, where q is or would be.
func (n *node) search(q []int32) int {
	lo, hi := 0, len(n.children)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		t := n.children[mid].tokens
		if k := common(t, q); k < len(q) && (k == len(t) || t[k] < q[k]) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// find returns the child of exactly these tokens, or nil.
func (n *node) find(q []int32) *node {
	if c := n.cover(q); c != nil && len(c.tokens) == len(q) {
		return c
	}
	return nil
}

// cover returns the first child that begins with q, or nil.
func (n *node) cover(q []int32) *node {
	if i := n.search(q); i < len(n.children) && common(n.children[i].tokens, q) == len(q) {
		return n.children[i]
	}
	return nil
}

// longest returns the child with the longest common prefix with q, and its length k. Of several, it is one with [0, k) filled, else one with
// the most filled. It returns nil, 0 if no child begins with q[0].
func (n *node) longest(q []int32) (*node, int) {
	at, k := n.search(q), 0
	if at < len(n.children) {
		k = common(n.children[at].tokens, q)
	}
	if at > 0 {
		k = max(k, common(n.children[at-1].tokens, q))
	}
	if k == 0 {
		return nil, 0
	}
	// The children that begin with q[:k] lie around at. Those that are not filled are pending, hence few.
	var best *node
	for i := at; i < len(n.children) && common(n.children[i].tokens, q) == k; i++ {
		if c := n.children[i]; best == nil || c.filled > best.filled {
			best = c
		}
		if int(best.filled) >= k {
			return best, k
		}
	}
	for i := at - 1; i >= 0 && common(n.children[i].tokens, q) == k; i-- {
		if c := n.children[i]; best == nil || c.filled > best.filled {
			best = c
		}
		if int(best.filled) >= k {
			break
		}
	}
	return best, k
}

// latest returns the child, used last of those looked at, that begins with q and goes on behind it, or nil.
func (n *node) latest(q []int32) *node {
	const look = 8
	var best *node
	i := n.search(q)
	for end := min(len(n.children), i+look); i < end && common(n.children[i].tokens, q) == len(q); i++ {
		if c := n.children[i]; len(c.tokens) > len(q) && (best == nil || c.lastUse > best.lastUse) {
			best = c
		}
	}
	return best
}

// continues reports whether a child goes on behind the prefix q (which may be empty).
func (n *node) continues(q []int32) bool {
	i := n.search(q)
	if i < len(n.children) && len(n.children[i].tokens) == len(q) {
		i++ // ids that end with q itself come first
	}
	return i < len(n.children) && common(n.children[i].tokens, q) == len(q)
}

// common returns the length of the longest common prefix.
func common(a, b []int32) int {
	a = a[:min(len(a), len(b))]
	b = b[:len(a)]
	for i, x := range a {
		if x != b[i] {
			return i
		}
	}
	return len(a)
}

func (n *node) full(blockSize int) bool { return len(n.tokens) == blockSize }
func (n *node) ready() bool             { return int(n.filled) == len(n.tokens) }

// link puts n under parent.
func (c *Cache) link(parent, n *node) {
	n.parent = parent
	parent.children = slices.Insert(parent.children, parent.search(n.tokens), n)
	c.settle(parent)
}

// unlink takes n from its parent. It leaves n's own state alone.
func (c *Cache) unlink(n *node) {
	p := n.parent
	i := p.search(n.tokens)
	p.children = slices.Delete(p.children, i, i+1)
	n.parent = nil
	c.settle(p)
}

// settle puts n into the eviction heap or takes it out, as its state demands, and forgets a root that nobody needs.
func (c *Cache) settle(n *node) {
	if n.block == noBlock {
		if n.refs == 0 && len(n.children) == 0 {
			delete(c.roots, n.key)
		}
		return
	}
	switch want := n.refs == 0 && len(n.children) == 0 && !n.detached; {
	case want && n.heapPos < 0:
		heap.Push(&c.evictable, n)
	case !want && n.heapPos >= 0:
		heap.Remove(&c.evictable, int(n.heapPos))
	}
}

// ref takes a reference to a node of the tree.
func (c *Cache) ref(n *node) {
	if n.refs++; n.refs == 1 {
		c.cached--
		c.settle(n)
	}
	n.lastUse = c.clock
}

// unref gives up a reference. Without references, a detached node's block is free and a node of the tree is cached.
func (c *Cache) unref(n *node) {
	if n.refs--; n.refs > 0 {
		return
	}
	if n.detached {
		c.free = append(c.free, n.block)
		return
	}
	c.cached++
	c.settle(n)
}

// drop takes a cached leaf out of the tree and frees its block.
func (c *Cache) drop(n *node) {
	n.detached = true
	c.cached--
	c.settle(n)
	if n.full(c.blockSize) {
		c.emit(Removed, n)
	}
	c.unlink(n)
	c.free = append(c.free, n.block)
}

// detach takes a pending node and all below it (pending, too) out of the tree.
func (c *Cache) detach(n *node) {
	c.unlink(n)
	var mark func(*node)
	mark = func(n *node) {
		n.detached, n.owner = true, nil
		for _, d := range n.children {
			mark(d)
		}
		n.children = nil
	}
	mark(n)
}

// complete makes n, which is in the tree with all its rows computed, ready, and drops the cached partial nodes that it makes superfluous.
func (c *Cache) complete(n *node) {
	n.owner = nil
	if n.full(c.blockSize) {
		n.key = Chain(n.parent.key, nil, n.tokens)
		c.emit(Stored, n)
		c.enqueue(n)
	}
	// p is the last sibling that is not above n.tokens[:k]. If it is no prefix of n, it differs at l < k, and so do all between n.tokens[:l] and it.
	for k := len(n.tokens) - 1; k > 0; {
		i := n.parent.search(n.tokens[:k])
		if len(n.parent.children[i].tokens) != k { // not n.tokens[:k] itself; n keeps i in range
			i--
		}
		if i < 0 {
			return
		}
		p := n.parent.children[i]
		l := common(p.tokens, n.tokens)
		if k = l; l == len(p.tokens) {
			if k--; p.refs == 0 {
				c.drop(p)
			}
		}
	}
}

// evictable is a heap of cached leaves, the least recently used first. It implements heap.Interface.
type evictable []*node

func (h evictable) Len() int           { return len(h) }
func (h evictable) Less(i, j int) bool { return h[i].lastUse < h[j].lastUse }
func (h evictable) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapPos, h[j].heapPos = int32(i), int32(j)
}
func (h *evictable) Push(x any) {
	n := x.(*node)
	n.heapPos = int32(len(*h))
	*h = append(*h, n)
}
func (h *evictable) Pop() any {
	old := *h
	n := old[len(old)-1]
	n.heapPos = -1
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return n
}
