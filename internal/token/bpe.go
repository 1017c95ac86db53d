package token

import (
	"fmt"
	"math/bits"
	"strings"
	"sync"
)

// noRank is the rank of a pair that does not merge.
const noRank = ^uint32(0)

// A mergeTable maps a pair of token ids to the rank of its merge: open addressing with linear probing.
type mergeTable struct {
	slots []mergeSlot
	shift uint
	into  []int32 // by rank: the token that the pair becomes
}

type mergeSlot struct {
	pair uint64 // left<<32 | right
	rank uint32 // noRank: empty
}

func pairOf(left, right int32) uint64 { return uint64(uint32(left))<<32 | uint64(uint32(right)) }

func (m *mergeTable) init(n int) {
	log := bits.Len(uint(n + n/2 + 1)) // at most two thirds full
	m.slots = make([]mergeSlot, 1<<log)
	m.shift = uint(64 - log)
	for i := range m.slots {
		m.slots[i].rank = noRank
	}
	m.into = make([]int32, n)
}

// find returns the slot of the pair, or the empty one where it would go.
func (m *mergeTable) find(pair uint64) *mergeSlot {
	i := pair * 0x9E3779B97F4A7C15 >> m.shift // Fibonacci hashing
	for {
		s := &m.slots[i]
		if s.pair == pair || s.rank == noRank {
			return s
		}
		if i++; i == uint64(len(m.slots)) {
			i = 0
		}
	}
}

func (m *mergeTable) rank(left, right int32) uint32 { return m.find(pairOf(left, right)).rank }

// buildMerges fills merges. A merge into a control token is left out: ordinary text never becomes one.
func (t *Tokenizer) buildMerges() error {
	byText := make(map[string]int32, len(t.cfg.Tokens))
	for id, s := range t.cfg.Tokens {
		setDefault(byText, s, int32(id))
	}
	t.merges.init(len(t.cfg.Merges))
	for rank, line := range t.cfg.Merges {
		left, right, ok := strings.Cut(line, " ")
		if !ok || left == "" || right == "" || strings.Contains(right, " ") {
			return fmt.Errorf("%w: merge %d is %q, not two tokens", ErrInvalid, rank, line)
		}
		var ids [3]int32
		for i, s := range [3]string{left, right, left + right} {
			id, ok := byText[s]
			if !ok {
				return fmt.Errorf("%w: merge %d, %q, needs the token %q, which is not in the vocabulary", ErrInvalid, rank, line, s)
			}
			ids[i] = id
		}
		if t.has(ids[2], kindControl) {
			continue
		}
		if s := t.merges.find(pairOf(ids[0], ids[1])); s.rank == noRank {
			*s = mergeSlot{pairOf(ids[0], ids[1]), uint32(rank)}
			t.merges.into[rank] = ids[2]
		}
	}
	return nil
}

// shortPiece is the length in bytes up to which merging by repeated scans of a stack array is the quicker way.
const shortPiece = 48

// appendPiece appends the ids of one piece.
func (t *Tokenizer) appendPiece(dst []int32, piece string) []int32 {
	if len(piece) == 1 {
		if id := t.byteID[piece[0]]; id != None {
			dst = append(dst, id)
		}
		return dst
	}
	e, h := t.memo.get(piece)
	if e != nil {
		return append(dst, e.ids[:e.n]...)
	}
	start := len(dst)
	dst = t.merge(dst, piece)
	t.memo.put(h, piece, dst[start:])
	return dst
}

// merge appends the ids of piece: from its bytes, the pair of lowest rank, leftmost first, is joined until none is left.
// A byte that the vocabulary lacks is left out, as the tokenizers library does.
func (t *Tokenizer) merge(dst []int32, piece string) []int32 {
	if t.whole {
		if id, ok := t.byBytes[piece]; ok {
			return append(dst, id)
		}
	}
	if len(piece) > shortPiece {
		return t.mergeLong(dst, piece)
	}
	var ids [shortPiece]int32
	var ranks [shortPiece]uint32 // ranks[i] is that of the pair ids[i], ids[i+1]
	n := 0
	for i := range len(piece) {
		if id := t.byteID[piece[i]]; id != None {
			ids[n] = id
			n++
		}
	}
	for i := 0; i+1 < n; i++ {
		ranks[i] = t.merges.rank(ids[i], ids[i+1])
	}
	for n > 1 {
		best, at := noRank, 0
		for i, r := range ranks[:n-1] {
			if r < best {
				best, at = r, i
			}
		}
		if best == noRank {
			break
		}
		ids[at] = t.merges.into[best]
		n--
		copy(ids[at+1:n], ids[at+2:n+1])
		if at+1 < n {
			copy(ranks[at+1:n-1], ranks[at+2:n])
			ranks[at] = t.merges.rank(ids[at], ids[at+1])
		}
		if at > 0 {
			ranks[at-1] = t.merges.rank(ids[at-1], ids[at])
		}
	}
	return append(dst, ids[:n]...)
}

// longMerge is the working memory for a long piece: symbols in a doubly linked list over arrays and a heap of pairs.
type longMerge struct {
	ids        []int32
	next, prev []int32
	ranks      []uint32 // of the pair that begins at the symbol; noRank if none or if the symbol is gone
	heap       []uint64 // rank<<32 | symbol; entries whose rank is not that of ranks are stale
}

var longMerges = sync.Pool{New: func() any { return new(longMerge) }}

// keepLong bounds the pieces, in bytes, whose working memory is kept for later.
const keepLong = 1 << 16

// mergeLong is merge in O(n log n) for a piece of any length.
func (t *Tokenizer) mergeLong(dst []int32, piece string) []int32 {
	w := longMerges.Get().(*longMerge)
	if len(piece) <= keepLong {
		defer longMerges.Put(w)
	}
	w.ids = w.ids[:0]
	for i := range len(piece) {
		if id := t.byteID[piece[i]]; id != None {
			w.ids = append(w.ids, id)
		}
	}
	n := len(w.ids)
	w.next, w.prev, w.ranks, w.heap = grow(w.next, n), grow(w.prev, n), grow(w.ranks, n), w.heap[:0]
	for i := range n {
		w.next[i], w.prev[i], w.ranks[i] = int32(i+1), int32(i-1), noRank
		if i+1 < n {
			if r := t.merges.rank(w.ids[i], w.ids[i+1]); r != noRank {
				w.ranks[i] = r
				w.heap = append(w.heap, uint64(r)<<32|uint64(i))
			}
		}
	}
	for i := len(w.heap)/2 - 1; i >= 0; i-- {
		w.down(i)
	}
	for len(w.heap) > 0 {
		top := w.heap[0]
		last := len(w.heap) - 1
		w.heap[0] = w.heap[last]
		w.heap = w.heap[:last]
		if last > 0 {
			w.down(0)
		}
		rank, i := uint32(top>>32), int32(uint32(top))
		if w.ranks[i] != rank {
			continue
		}
		right := w.next[i]
		w.ids[i] = t.merges.into[rank]
		w.ranks[right] = noRank
		w.next[i] = w.next[right]
		if int(w.next[i]) < n {
			w.prev[w.next[i]] = i
		}
		t.rerank(w, i, n)
		if w.prev[i] >= 0 {
			t.rerank(w, w.prev[i], n)
		}
	}
	for i := 0; i < n; i = int(w.next[i]) {
		dst = append(dst, w.ids[i])
	}
	return dst
}

// rerank sets the rank of the pair that begins at symbol i and queues it.
func (t *Tokenizer) rerank(w *longMerge, i int32, n int) {
	w.ranks[i] = noRank
	if int(w.next[i]) >= n {
		return
	}
	r := t.merges.rank(w.ids[i], w.ids[w.next[i]])
	w.ranks[i] = r
	if r == noRank {
		return
	}
	w.heap = append(w.heap, uint64(r)<<32|uint64(i))
	for k := len(w.heap) - 1; k > 0; {
		parent := (k - 1) / 2
		if w.heap[parent] <= w.heap[k] {
			break
		}
		w.heap[parent], w.heap[k] = w.heap[k], w.heap[parent]
		k = parent
	}
}

// down restores the heap below k.
func (w *longMerge) down(k int) {
	h := w.heap
	for {
		c := 2*k + 1
		if c >= len(h) {
			return
		}
		if c+1 < len(h) && h[c+1] < h[c] {
			c++
		}
		if h[k] <= h[c] {
			return
		}
		h[k], h[c] = h[c], h[k]
		k = c
	}
}

func grow[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
