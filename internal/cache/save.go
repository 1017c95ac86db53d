package cache

// A Save is a stored block that a lower tier is to keep. From NextSave to Saved its KV stays where it is.
type Save struct {
	Root   Key // of its tree, as given to Begin
	Parent Key // of the block before it; Root for a first block
	Key    Key
	Tokens []int32 // must not be changed; may be kept
	Block  BlockID // rows [0, len(Tokens)) do not change

	node  *node
	index int // in Cache.saves
}

// Outcome is what became of a Save.
type Outcome int

// The outcomes.
const (
	SaveDone   Outcome = iota // it is kept, or never will be
	SaveLater                 // to be tried again
	SaveOrphan                // the tier does not have the block before it: to be tried again after all before it
)

// enqueue marks a ready node as one that a lower tier is to keep.
func (c *Cache) enqueue(n *node) {
	if c.saving && !n.queued {
		n.queued = true
		c.unsaved = append(c.unsaved, n)
	}
}

// NextSave returns the block that has waited longest for a lower tier to keep it, or nil. Blocks come after those before them. Until Saved it
// cannot be evicted.
func (c *Cache) NextSave() *Save {
	for len(c.unsaved) > 0 {
		n := c.unsaved[0]
		c.unsaved[0] = nil
		if c.unsaved = c.unsaved[1:]; len(c.unsaved) == 0 {
			c.unsaved = nil
		}
		n.queued = false
		if n.detached || n.parent == nil || !n.ready() {
			if n.full(c.blockSize) {
				c.counters.Unsaved++
			}
			continue
		}
		s := &Save{Parent: n.parent.key, Key: n.key, Tokens: n.tokens, Block: n.block, node: n, index: len(c.saves)}
		if !n.full(c.blockSize) {
			s.Key = Chain(s.Parent, nil, n.tokens)
		}
		a := n
		for ; a.block != noBlock; a = a.parent {
			if a.refs++; a.refs == 1 {
				c.cached--
				c.settle(a)
			}
		}
		a.refs++
		s.Root = a.key
		c.saves = append(c.saves, s)
		return s
	}
	return nil
}

// Unsaved is how many blocks wait for NextSave, at most.
func (c *Cache) Unsaved() int { return len(c.unsaved) }

// Saved ends a Save. Each must be given back once.
func (c *Cache) Saved(s *Save, o Outcome) {
	if s.index >= len(c.saves) || c.saves[s.index] != s {
		panic("cache: Saved twice")
	}
	last := c.saves[len(c.saves)-1]
	c.saves[s.index], last.index = last, s.index
	c.saves[len(c.saves)-1] = nil
	c.saves = c.saves[:len(c.saves)-1]
	n := s.node
	switch {
	case o == SaveLater:
		c.again(n)
	case o == SaveOrphan && !n.retried:
		n.retried = true
		var path []*node
		for a := n; a.block != noBlock; a = a.parent {
			path = append(path, a)
		}
		c.again(path...)
	}
	a := n
	for a.block != noBlock {
		up := a.parent
		c.unref(a)
		a = up
	}
	a.refs--
	c.settle(a)
}

// again puts nodes, the lowest first, in front of all that wait.
func (c *Cache) again(nodes ...*node) {
	for _, n := range nodes {
		if !n.queued {
			n.queued = true
			c.unsaved = append(c.unsaved, nil)
			copy(c.unsaved[1:], c.unsaved)
			c.unsaved[0] = n
		}
	}
}

// Loaded is Advance for KV that came from a lower tier, which needs not be told to keep it.
func (c *Cache) Loaded(s *Sequence, n int) {
	saving := c.saving
	c.saving = false
	c.Advance(s, n)
	c.saving = saving
}
