package token

import (
	"fmt"
	"math/bits"
	"strings"
	"sync"
	"unsafe"
)

// noRank is the rank of a pair that does not merge.
const noRank = ^uint32(0)

// A mergeTable maps a pair of token ids to the rank of its merge: open addressing with linear probing. Merging is mostly
// waiting for memory, so a slot is one word.
type mergeTable struct {
	slots   []uint64 // left, right and rank, idBits each; emptySlot
	shift   uint
	into    []int32          // by rank: the token that the pair becomes; None if several tokens have the rank
	ties    map[uint64]int32 // by pair: the same where into has None
	crowded bool             // as of wordTable
	bytes   []uint32         // by two bytes, the left one first: the rank of their tokens' merge
}

// idBits bounds ids and ranks. The largest vocabularies in use have 2^18 tokens.
const (
	idBits    = 21
	emptySlot = ^uint64(0)
)

func pairOf(left, right int32) uint64 { return uint64(uint32(left))<<idBits | uint64(uint32(right)) }

// init makes room for n merges of some number of ranks, and with pairs of bytes for merges that begin with bytes.
func (m *mergeTable) init(n, ranks int, bytes bool) {
	log := bits.Len(uint(n + n/2 + 1)) // at most two thirds full
	m.slots = make([]uint64, 1<<log)
	m.shift = uint(64 - log)
	for i := range m.slots {
		m.slots[i] = emptySlot
	}
	m.into = make([]int32, ranks)
	if bytes {
		m.bytes = make([]uint32, 1<<16)
		for i := range m.bytes {
			m.bytes[i] = noRank
		}
	}
}

// made returns the token that a merge makes.
func (m *mergeTable) made(rank uint32, left, right int32) int32 {
	if id := m.into[rank]; id != None {
		return id
	}
	return m.ties[pairOf(left, right)]
}

func (m *mergeTable) rank(left, right int32) uint32 {
	pair := pairOf(left, right)
	for i := pair * mix >> m.shift; ; i++ {
		s := m.slots[i&uint64(len(m.slots)-1)]
		if s>>idBits == pair {
			return uint32(s & (1<<idBits - 1))
		}
		if s == emptySlot {
			return noRank
		}
	}
}

// add notes a merge. It reports false if the pair has one already.
func (m *mergeTable) add(left, right int32, rank uint32) bool {
	pair := pairOf(left, right)
	home := pair * mix >> m.shift
	for i := home; ; i++ {
		s := &m.slots[i&uint64(len(m.slots)-1)]
		if i-home > mostProbes {
			m.crowded = true
			return false
		}
		if *s>>idBits == pair {
			return false
		}
		if *s == emptySlot {
			*s = pair<<idBits | uint64(rank)
			return true
		}
	}
}

// buildMerges fills merges. A merge into a control token is left out: ordinary text never becomes one.
func (t *Tokenizer) buildMerges() error {
	if n := max(len(t.cfg.Tokens), len(t.cfg.Merges)); n >= 1<<idBits {
		return fmt.Errorf("%w: %d tokens or merges (supported: fewer than %d)", ErrUnsupported, n, 1<<idBits)
	}
	written, first := t.writtenTable()
	if written.crowded {
		return errCrowded
	}
	t.merges.init(len(t.cfg.Merges), len(t.cfg.Merges), t.chars == nil)
	made := make([]origin, len(t.cfg.Tokens))
	scratch, next := make([]byte, 0, 256), None
	for rank, line := range t.cfg.Merges {
		space := strings.IndexByte(line, ' ')
		if space < 1 || space == len(line)-1 || strings.IndexByte(line[space+1:], ' ') >= 0 {
			return fmt.Errorf("%w: merge %d is %q, not two tokens", ErrInvalid, rank, line)
		}
		left, right := line[:space], line[space+1:]
		ids := [3]int32{written.get(left), written.get(right), next}
		if next == None || !joins(t.cfg.Tokens[next], left, right) {
			scratch = append(append(scratch[:0], left...), right...)
			ids[2] = written.get(unsafe.String(&scratch[0], len(scratch)))
		}
		// Most files number the tokens in the order of the merges that make them.
		if next = ids[2] + 1; int(next) >= len(first) || !first[next] {
			next = None
		}
		for i, id := range ids {
			if id == None {
				return fmt.Errorf("%w: merge %d, %q, needs the token %q, which is not in the vocabulary", ErrInvalid, rank, line,
					[3]string{left, right, left + right}[i])
			}
		}
		if t.has(ids[2], kindControl) {
			continue
		}
		added := t.merges.add(ids[0], ids[1], uint32(rank))
		if t.merges.crowded {
			return errCrowded
		}
		if added {
			t.merges.into[rank] = ids[2]
			m := &made[ids[2]]
			*m = origin{left: ids[0], right: ids[1], rank: uint32(rank), ways: m.ways + 1}
		}
	}
	if t.chars != nil {
		return t.buildMerged()
	}
	for l, left := range t.byteID {
		for r, right := range t.byteID {
			if left != None && right != None {
				t.merges.bytes[l<<8|r] = t.merges.rank(left, right)
			}
		}
	}
	t.findAlone(made)
	return nil
}

func joins(s, left, right string) bool {
	return len(s) == len(left)+len(right) && s[:len(left)] == left && s[len(left):] == right
}

// writtenTable finds tokens by the text that they are written as, of which merges are made. first tells which are the first with
// their text.
func (t *Tokenizer) writtenTable() (w *wordTable, first []bool) {
	offset := make([]uint32, len(t.cfg.Tokens)+1)
	var b strings.Builder
	b.Grow(cap(t.raw))
	for id, s := range t.cfg.Tokens {
		b.WriteString(s)
		offset[id+1] = uint32(b.Len())
	}
	w, first = new(wordTable), make([]bool, len(t.cfg.Tokens))
	w.init(b.String(), offset)
	for id := range first {
		first[id] = w.add(int32(id))
	}
	return w, first
}

// An origin says how a token comes to be: by ways merges, of which this is the last.
type origin struct {
	left, right int32
	rank        uint32
	ways        uint32
}

// findAlone marks the words that, being a whole piece, become their token whatever else could be merged: appendPiece does
// not merge those. With whole all do. Else a token is one if both halves of its merge are, and if no two tokens that
// meet at the seam while the halves grow have a merge of an earlier rank (so the bpe crate of github.com/github/rust-gems
// decides whether two tokens may follow each other). Tokens made by several merges are left to be merged.
func (t *Tokenizer) findAlone(made []origin) {
	whole := make([]bool, len(made))
	for _, id := range t.byteID {
		if id != None {
			whole[id] = made[id].ways == 0
		}
	}
	for rank, id := range t.merges.into {
		m := made[id]
		if m.rank == uint32(rank) && m.ways == 1 && whole[m.left] && whole[m.right] {
			// A text that is not in the byte alphabet stands for other bytes than its halves do.
			whole[id] = joins(t.tokenText(id), t.tokenText(m.left), t.tokenText(m.right)) && t.seam(made, m)
		}
	}
	for i := range t.words.slots {
		if s := &t.words.slots[i]; s.size > 0 && (t.whole || whole[s.id]) {
			s.size |= alone
		}
	}
}

// seam reports whether the two halves of a merge come to be without a merge between parts of them. It goes back in time.
func (t *Tokenizer) seam(made []origin, m origin) bool {
	left, right := m.left, m.right
	for {
		l, r := made[left], made[right]
		var since uint32 // the pair stands beside each other until this merge
		switch {
		case l.ways == 0 && r.ways == 0:
			return true
		case r.ways == 0 || l.ways > 0 && l.rank > r.rank:
			left, since = l.right, l.rank
			if t.merges.rank(left, right) < since { // an equal rank is the same merge, and the one to the left goes first
				return false
			}
		default:
			right, since = r.left, r.rank
			if t.merges.rank(left, right) <= since {
				return false
			}
		}
	}
}

// shortPiece is the length in bytes up to which merging by repeated scans of a stack array is the quicker way.
const shortPiece = 48

// appendPiece appends the ids of one piece.
func (t *Tokenizer) appendPiece(dst []int32, piece string) []int32 {
	if t.chars != nil {
		return t.appendChars(dst, piece)
	}
	if len(piece) == 1 {
		if id := t.byteID[piece[0]]; id != None {
			dst = append(dst, id)
		}
		return dst
	}
	if e := t.words.find(piece); e.size&alone != 0 {
		return append(dst, e.id)
	}
	return t.merge(dst, piece)
}

// merge appends the ids of piece: from its bytes or characters, the pair of lowest rank, leftmost first, is joined until none
// is left.
// A byte that the vocabulary lacks is left out, as the tokenizers library does.
func (t *Tokenizer) merge(dst []int32, piece string) []int32 {
	if len(piece) > shortPiece {
		return t.mergeLong(dst, piece)
	}
	var ids [shortPiece]int32
	var ranks [shortPiece]uint32 // ranks[i] is that of the pair ids[i], ids[i+1]
	n, last := 0, 0
	if t.chars != nil {
		n = t.beginChars(&ids, &ranks, piece)
	} else {
		for i := range len(piece) {
			b := piece[i]
			if id := t.byteID[b]; id != None {
				if n > 0 {
					ranks[n-1] = t.merges.bytes[last<<8|int(b)]
				}
				ids[n], last = id, int(b)
				n++
			}
		}
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
		ids[at] = t.merges.made(best, ids[at], ids[at+1])
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
	if w.ids = w.ids[:0]; t.chars != nil {
		w.ids = t.appendSymbols(w.ids, piece)
	} else {
		for i := range len(piece) {
			if id := t.byteID[piece[i]]; id != None {
				w.ids = append(w.ids, id)
			}
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
		w.ids[i] = t.merges.made(rank, w.ids[i], w.ids[right])
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
