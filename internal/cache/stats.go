package cache

// Stats are the state of the block pool, in blocks, and counters since New.
// Free + Cached + Held = Total.
type Stats struct {
	Total  int
	Free   int // hold nothing
	Cached int // hold stored KV that no sequence uses now; can be evicted
	Held   int // used by sequences

	Evicted       uint64 // cached blocks given to others
	Deduplicated  uint64 // computed blocks given up for an identical stored one
	Copies        uint64 // copies done
	QueriesTokens uint64 // prompt tokens of the sequences that became Ready, those without cache excepted
	HitTokens     uint64 // those of them that were reused
	Unsaved       uint64 // blocks that were evicted before a lower tier could take them
}

// Stats returns the current state.
func (c *Cache) Stats() Stats {
	st := c.counters
	st.Total, st.Free, st.Cached = c.blocks, len(c.free), c.cached
	st.Held = st.Total - st.Free - st.Cached
	return st
}

// EventKind is what happened to a full block.
type EventKind int

// The kinds of events.
const (
	Stored  EventKind = iota // its KV is complete and can be found
	Removed                  // it cannot be found any more
)

// An Event tells of a full block that was stored or removed; partial tails make none. A block is stored after its parent and removed before it.
type Event struct {
	Seq    uint64 // 1, 2, 3, …
	Kind   EventKind
	Root   Key // of its tree, as given to Begin
	Parent Key // of the block before it; Root for a first block
	Key    Key
	Tokens []int32 // must not be changed; may be kept
}

func (c *Cache) emit(kind EventKind, n *node) {
	if c.onEvent == nil {
		return
	}
	root := n
	for root.parent != nil {
		root = root.parent
	}
	c.eventSeq++
	c.onEvent(Event{Seq: c.eventSeq, Kind: kind, Root: root.key, Parent: n.parent.key, Key: n.key, Tokens: n.tokens})
}
