package disk

import (
	"container/heap"
	"slices"

	"kvasir/internal/cache"
)

// An index knows what is stored: a tree of records below each root key, in which a record whose parent is not there can wait for it. Not safe
// for concurrent use.
type index struct {
	records map[cache.Key]*record
	// The records whose parent is no record, by it: the first blocks of a root, and those that lost their parent.
	heads  map[cache.Key]*siblings
	leaves leaves
	bytes  int64 // of all records, as they count against the quota
}

// siblings are records with the same parent, sorted by their token ids, which differ.
type siblings struct{ list []*record }

// A record is one file.
type record struct {
	key, parent, root cache.Key
	tokens            []int32
	children          siblings
	up                *record // nil if the parent is no record
	size              int64   // as it counts against the quota
	used              int64   // last use, Unix nanoseconds; a parent's is never before its child's
	place             int32   // in index.leaves, or -1
	gone              bool    // not in the index any more
}

func newIndex(n int) *index {
	return &index{records: make(map[cache.Key]*record, n), heads: make(map[cache.Key]*siblings)}
}

// beside returns the siblings of r, itself included if it is in.
func (x *index) beside(r *record) *siblings {
	if r.up != nil {
		return &r.up.children
	}
	h := x.heads[r.parent]
	if h == nil {
		h = &siblings{}
		x.heads[r.parent] = h
	}
	return h
}

// add puts in a record whose key is not in. It returns the siblings that it makes superfluous: those whose ids it begins with. They have no
// children, since only a full block has.
func (x *index) add(r *record) (superfluous []*record) {
	r.up, r.place = x.records[r.parent], -1
	s := x.beside(r)
	i := s.search(r.tokens)
	s.list = slices.Insert(s.list, i, r)
	x.records[r.key] = r
	x.bytes += r.size
	if h := x.heads[r.key]; h != nil { // children that waited for it
		delete(x.heads, r.key)
		r.children.list = h.list
		for _, c := range h.list {
			c.up = r
			r.used = max(r.used, c.used)
		}
	}
	if r.up != nil {
		x.settle(r.up)
	}
	x.settle(r)
	x.raise(r.up, r.used)
	// A prefix of r is before it, with only what begins with that prefix between.
	for j := i - 1; j >= 0; j-- {
		k := common(s.list[j].tokens, r.tokens)
		if k == 0 {
			break
		}
		if k == len(s.list[j].tokens) && len(s.list[j].children.list) == 0 {
			superfluous = append(superfluous, s.list[j])
		}
	}
	return superfluous
}

// covered says whether a record has the same rows as one with this parent and these ids, and more.
func (x *index) covered(parent cache.Key, tokens []int32) bool {
	s := x.below(parent)
	if s == nil {
		return false
	}
	i := s.search(tokens)
	return i < len(s.list) && common(s.list[i].tokens, tokens) == len(tokens)
}

// below returns the records whose parent has the key, or nil.
func (x *index) below(key cache.Key) *siblings {
	if r := x.records[key]; r != nil {
		return &r.children
	}
	return x.heads[key]
}

// remove takes a record out. Its children wait for it to come back.
func (x *index) remove(r *record) {
	if r.gone {
		return
	}
	r.gone = true
	s := x.beside(r)
	i := s.search(r.tokens)
	s.list = slices.Delete(s.list, i, i+1)
	if r.up == nil && len(s.list) == 0 {
		delete(x.heads, r.parent)
	}
	delete(x.records, r.key)
	x.bytes -= r.size
	if len(r.children.list) > 0 {
		x.heads[r.key] = &siblings{r.children.list}
		for _, c := range r.children.list {
			c.up = nil
		}
		r.children.list = nil
	}
	x.settle(r)
	if r.up != nil {
		x.settle(r.up)
	}
}

// settle puts r among the leaves or takes it out.
func (x *index) settle(r *record) {
	switch leaf := !r.gone && len(r.children.list) == 0; {
	case leaf && r.place < 0:
		heap.Push(&x.leaves, r)
	case !leaf && r.place >= 0:
		heap.Remove(&x.leaves, int(r.place))
	}
}

// raise notes a use of r and of all above it.
func (x *index) raise(r *record, now int64) {
	for ; r != nil && r.used < now; r = r.up {
		r.used = now
		if r.place >= 0 {
			heap.Fix(&x.leaves, int(r.place))
		}
	}
}

// oldest returns the leaf whose last use is longest ago, other than but, or nil.
func (x *index) oldest(but *record) *record {
	if len(x.leaves) == 0 {
		return nil
	}
	if r := x.leaves[0]; r != but {
		return r
	}
	var best *record
	for _, i := range []int{1, 2} {
		if i < len(x.leaves) && (best == nil || x.leaves[i].used < best.used) {
			best = x.leaves[i]
		}
	}
	return best
}

// find returns the records that hold the longest prefix of the prompt's tokens below limit, in order, and its length. continues says that
// something stored goes on behind it in another way. It notes a use of all of them.
func (x *index) find(root cache.Key, prompt []int32, blockSize, limit int, now int64) (path []*record, tokens int, continues bool) {
	at := x.below(root)
	for at != nil && tokens < limit {
		rest := prompt[tokens:min(tokens+blockSize, limit)]
		r, k := at.longest(rest)
		if k == 0 {
			break
		}
		path = append(path, r)
		tokens += k
		if k < blockSize {
			continues = len(r.tokens) > k || at.continues(rest[:k])
			x.raise(r, now)
			return path, tokens, continues
		}
		at = &r.children
	}
	if len(path) > 0 {
		x.raise(path[len(path)-1], now)
	}
	return path, tokens, at != nil && len(at.list) > 0
}

// search returns the index of the first record that is not below q.
func (s *siblings) search(q []int32) int {
	i, _ := slices.BinarySearchFunc(s.list, q, func(r *record, q []int32) int { return slices.Compare(r.tokens, q) })
	return i
}

// longest returns a record with the longest common prefix with q, and its length.
func (s *siblings) longest(q []int32) (best *record, k int) {
	i := s.search(q)
	for _, j := range []int{i, i - 1} {
		if j >= 0 && j < len(s.list) {
			if l := common(s.list[j].tokens, q); l > k {
				best, k = s.list[j], l
			}
		}
	}
	return best, k
}

// continues says whether a record goes on behind q.
func (s *siblings) continues(q []int32) bool {
	i := s.search(q)
	if i < len(s.list) && len(s.list[i].tokens) == len(q) {
		i++
	}
	return i < len(s.list) && common(s.list[i].tokens, q) == len(q)
}

// common returns the length of the longest common prefix.
func common(a, b []int32) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// leaves is a heap of records without children, the one whose last use is longest ago first. It implements heap.Interface.
type leaves []*record

func (h leaves) Len() int           { return len(h) }
func (h leaves) Less(i, j int) bool { return h[i].used < h[j].used }
func (h leaves) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = int32(i), int32(j)
}
func (h *leaves) Push(v any) {
	r := v.(*record)
	r.place = int32(len(*h))
	*h = append(*h, r)
}
func (h *leaves) Pop() any {
	old := *h
	r := old[len(old)-1]
	r.place = -1
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return r
}
