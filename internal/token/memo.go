package token

import (
	"hash/maphash"
	"sync/atomic"
)

// Sizes of the memo: 2^15 entries of one cache line each, so it never holds more than some 2 MB.
const (
	memoLog   = 15
	memoBytes = 30 // longer pieces rarely come again
	memoIDs   = 8
)

// A memo remembers the ids of pieces. It is a two-way set-associative table of immutable entries behind atomic
// pointers: readers and writers never wait, and a lost race costs an entry, not a wrong answer.
type memo struct {
	seed  maphash.Seed
	slots []atomic.Pointer[memoEntry]
}

type memoEntry struct {
	len, n uint8
	bytes  [memoBytes]byte
	ids    [memoIDs]int32
}

func (m *memo) init() {
	m.seed = maphash.MakeSeed()
	m.slots = make([]atomic.Pointer[memoEntry], 1<<memoLog)
}

// get returns the entry of piece or nil, and the piece's hash for put.
func (m *memo) get(piece string) (*memoEntry, uint64) {
	if len(piece) > memoBytes {
		return nil, 0
	}
	h := maphash.String(m.seed, piece)
	set := m.set(h)
	for i := range set {
		if e := set[i].Load(); e != nil && string(e.bytes[:e.len]) == piece {
			return e, h
		}
	}
	return nil, h
}

func (m *memo) set(h uint64) []atomic.Pointer[memoEntry] {
	i := h % (1 << (memoLog - 1)) * 2
	return m.slots[i : i+2]
}

// put remembers ids for piece. The set's newer entry moves to the place of its older one.
func (m *memo) put(h uint64, piece string, ids []int32) {
	if len(piece) > memoBytes || len(ids) > memoIDs {
		return
	}
	e := &memoEntry{len: uint8(len(piece)), n: uint8(len(ids))}
	copy(e.bytes[:], piece)
	copy(e.ids[:], ids)
	set := m.set(h)
	set[1].Store(set[0].Load())
	set[0].Store(e)
}
