package draft

// Sizes of an Archive, in tokens.
const (
	archiveRoot = 1 << 15 // of one root
	archiveAll  = 1 << 19 // of all: about 10 MiB
)

// An Archive holds text that was generated lately, by the root key under which its KV is cached: what one root has is never seen under another.
// It is bounded; the root that was used least lately goes first. Not safe for concurrent use.
type Archive struct {
	roots map[[32]byte]*shelf
	room  int // tokens that all indexes have room for
	clock uint64
}

type shelf struct {
	index *Index
	used  uint64
}

// NewArchive makes an empty archive.
func NewArchive() *Archive { return &Archive{roots: map[[32]byte]*shelf{}} }

// Index returns the text of the root, nil if there is none. It is good for reading until it is changed by Add.
func (a *Archive) Index(root [32]byte) *Index {
	s := a.roots[root]
	if s == nil {
		return nil
	}
	a.clock++
	s.used = a.clock
	return s.index
}

// Add adds a text to the root's.
func (a *Archive) Add(root [32]byte, ids []int32) {
	s := a.roots[root]
	if s == nil {
		s = &shelf{index: NewIndex(archiveRoot)}
		a.roots[root] = s
		a.room += len(s.index.ids)
	}
	a.clock++
	s.used = a.clock
	a.room -= len(s.index.ids)
	for _, id := range ids[max(0, len(ids)-archiveRoot/2):] {
		s.index.Append(id)
	}
	s.index.Break()
	a.room += len(s.index.ids)
	for a.room > archiveAll {
		a.drop()
	}
}

// drop forgets the root that was used least lately.
func (a *Archive) drop() {
	var oldest [32]byte
	used := a.clock + 1
	for k, s := range a.roots {
		if s.used < used {
			oldest, used = k, s.used
		}
	}
	a.room -= len(a.roots[oldest].index.ids)
	delete(a.roots, oldest)
}
