package cache

import (
	"errors"
	"fmt"
	"slices"

	"kvasir/internal/llm"
)

var (
	// ErrNoSpace says that too few blocks are free or evictable now. Nothing has changed; it may work after another sequence's End.
	ErrNoSpace = errors.New("cache: no free KV blocks")
	// ErrTooLong says that the sequence needs more blocks than there are, so it can never run. Nothing has changed.
	ErrTooLong = errors.New("cache: sequence does not fit into the KV blocks")
	// ErrEmpty says that a prompt has no tokens, so there is nothing to compute logits from.
	ErrEmpty = errors.New("cache: empty prompt")
)

// Config is what New needs.
type Config struct {
	Blocks    int // how many KV blocks there are, at least 1
	BlockSize int // tokens in a block, at least 1
	// OnEvent, if not nil, is called for every event within the call that causes it. It must not call the Cache.
	OnEvent func(Event)
	// Saving says that there is a lower tier: NextSave returns what it is to keep.
	Saving bool
}

// A Cache keeps the books. See the package comment; not safe for concurrent use.
//
// Calling a method with a Sequence in a state that its comment excludes (ended, of another Cache, not Ready) is a bug of the caller and panics.
type Cache struct {
	blockSize int
	blocks    int
	onEvent   func(Event)

	roots     map[Key]*node
	free      []BlockID // a stack
	evictable evictable
	live      []*Sequence // begun and not ended; Sequence.index is the place
	cached    int         // nodes without references, evictable now or after their descendants
	clock     uint64      // rises at each match and End
	counters  Stats       // the counters only
	eventSeq  uint64

	saving  bool
	unsaved []*node // ready when they were put here, the oldest first
	saves   []*Save // between NextSave and Saved; Save.index is the place
}

// New returns an empty cache. It panics if Blocks or BlockSize is out of range.
func New(cfg Config) *Cache {
	if cfg.Blocks < 1 || cfg.Blocks > 1<<31-1 || cfg.BlockSize < 1 {
		panic(fmt.Sprintf("cache: %d blocks of %d tokens", cfg.Blocks, cfg.BlockSize))
	}
	c := &Cache{blockSize: cfg.BlockSize, blocks: cfg.Blocks, onEvent: cfg.OnEvent, saving: cfg.Saving, roots: make(map[Key]*node), free: make([]BlockID, cfg.Blocks)}
	for i := range c.free {
		c.free[i] = BlockID(cfg.Blocks - 1 - i)
	}
	return c
}

// BlockSize is the number of tokens in a block.
func (c *Cache) BlockSize() int { return c.blockSize }

// Blocks is the number of blocks.
func (c *Cache) Blocks() int { return c.blocks }

// Begin starts a sequence with a prompt, which it copies. It references what the tree already has of the prompt's full blocks, computed or
// pending, chooses a copy for the tokens behind them, allocates blocks for the rest of the prompt, and puts these into the tree as pending, so
// that whoever comes next can join. At most len(prompt)-1 tokens are reused. With noCache it does none of this but allocate, and nothing of the
// sequence is ever stored.
//
// Errors: ErrEmpty, ErrTooLong, ErrNoSpace; then nothing has changed. Every sequence must be given to End.
func (c *Cache) Begin(root Key, prompt []int32, noCache bool) (*Sequence, error) {
	if len(prompt) == 0 {
		return nil, ErrEmpty
	}
	s := &Sequence{cache: c, root: root, noCache: noCache, tokens: slices.Clone(prompt)}
	if err := c.match(s); err != nil {
		return nil, err
	}
	s.index = len(c.live)
	c.live = append(c.live, s)
	return s, nil
}

// Match says what Begin would reuse now. It changes nothing.
func (c *Cache) Match(root Key, prompt []int32) llm.Decision {
	if len(prompt) == 0 {
		return llm.Decision{Reason: llm.ReasonNeverSeen}
	}
	return c.lookup(root, prompt).decision
}

// A match is what lookup found for a prompt.
type match struct {
	shared   []*node // full nodes for the prompt's [0, len(shared)·BlockSize)
	src      *node   // the next k tokens are src.tokens[:k]; nil if k = 0
	k        int
	decision llm.Decision
}

// lookup walks the tree. It changes nothing.
func (c *Cache) lookup(root Key, prompt []int32) match {
	var m match
	m.decision = llm.Decision{PromptTokens: len(prompt), Reason: llm.ReasonNeverSeen}
	d := &m.decision
	n := c.roots[root]
	if n == nil {
		return m
	}
	limit := len(prompt) - 1 // the last token is always computed
	for d.Reused+c.blockSize <= limit {
		child := n.find(prompt[d.Reused : d.Reused+c.blockSize])
		if child == nil {
			break
		}
		n = child
		m.shared = append(m.shared, n)
		d.Reused += c.blockSize
		d.Joined += c.blockSize - int(n.filled)
	}
	rest := prompt[d.Reused:min(d.Reused+c.blockSize, limit)]
	if m.src, m.k = n.longest(rest); m.k > 0 {
		d.Reused += m.k
		d.Joined += max(0, m.k-int(m.src.filled))
	}
	switch {
	case d.Reused == limit && (limit > 0 || n.cover(prompt) != nil):
		d.Reason = llm.ReasonFull
	case d.Reused == 0:
	case n.continues(rest[:m.k]):
		d.Reason = llm.ReasonDiverged
	default:
		d.Reason = llm.ReasonExtended
	}
	return m
}

// match gives s, which has no blocks, its table. On an error nothing has changed.
func (c *Cache) match(s *Sequence) error {
	blocks := (len(s.tokens) + c.blockSize - 1) / c.blockSize
	if blocks > c.blocks {
		return ErrTooLong
	}
	m := match{decision: llm.Decision{PromptTokens: len(s.tokens), Reason: llm.ReasonDisabled}}
	if !s.noCache {
		m = c.lookup(s.root, s.tokens)
	}

	// What is matched cannot be evicted to make space.
	space := len(c.free) + c.cached
	for _, n := range m.shared {
		if n.refs == 0 {
			space--
		}
	}
	need := blocks - len(m.shared)
	if need > space {
		return ErrNoSpace
	}
	if m.src != nil && m.src.refs == 0 && need > space-1 {
		// Only the copy's source is left to evict: computing its tokens again is better than never running.
		m.decision.Reused -= m.k
		m.src, m.k = nil, 0
		m.decision.Reason = llm.ReasonExtended
		if m.decision.Reused == 0 {
			m.decision.Reason = llm.ReasonNeverSeen
		}
	}

	c.clock++
	s.decision, s.matched, s.waiting = m.decision, true, true
	s.nodes = make([]*node, 0, blocks+1)
	s.table = make([]BlockID, 0, blocks+1)
	for _, n := range m.shared {
		c.ref(n)
		s.nodes = append(s.nodes, n)
		s.table = append(s.table, n.block)
	}
	s.shared = len(m.shared)
	s.linked = s.shared
	if m.src != nil {
		c.ref(m.src)
		s.src = m.src
	}
	for len(s.table) < blocks {
		c.allocate(s)
	}
	if s.src != nil {
		s.copy = Copy{Src: s.src.block, Dst: s.table[s.shared], Tokens: m.k}
	}
	if !s.noCache {
		c.register(s)
	}
	return nil
}

// register puts the blocks of s behind the shared ones into the tree as pending, [filled, len) = [0, len), owned by s.
func (c *Cache) register(s *Sequence) {
	parent := c.roots[s.root]
	if parent == nil {
		parent = &node{block: noBlock, heapPos: -1, key: s.root}
		c.roots[s.root] = parent
	}
	s.top = parent
	parent.refs++
	if s.shared > 0 {
		parent = s.nodes[s.shared-1]
	}
	for i := s.shared; i < len(s.table); i++ {
		tokens := s.block(i, len(s.tokens))
		if parent.find(tokens) != nil {
			return // Only the last block can be there already. Ours stays private until it has more to offer.
		}
		n := &node{tokens: slices.Clone(tokens), owner: s, lastUse: c.clock, block: s.table[i], refs: 1, heapPos: -1}
		c.link(parent, n)
		s.nodes[i] = n
		parent = n
	}
}

// allocate adds a private block to the table of s: a reserved one, else a free one, evicting if there is none. The caller has made sure that there
// is one.
func (c *Cache) allocate(s *Sequence) {
	if s.spare > 0 {
		s.spare--
		s.table = s.table[:len(s.table)+1]
		s.nodes = append(s.nodes, nil)
		return
	}
	if len(c.free) == 0 {
		c.counters.Evicted++
		c.drop(c.evictable[0])
	}
	b := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	s.table = append(s.table, b)
	s.nodes = append(s.nodes, nil)
	s.fresh = append(s.fresh, b)
}
