package token

import (
	"fmt"
	"math/bits"
)

// A wordTable finds the token that stands for given bytes: open addressing with linear probing, without pointers.
type wordTable struct {
	slots  []wordSlot
	shift  uint
	text   string   // the bytes of all tokens
	offset []uint32 // token id is text[offset[id]:offset[id+1]]

	crowded bool // an entry would lie further than mostProbes from its place: the table is not whole
}

// mostProbes is how far from its place in a table an entry may lie. In the vocabularies that are in use it is some twenty; a file
// that is made so that its entries collide would take hours to load.
const mostProbes = 4096

// A wordSlot is empty where size is 0. Up to eight bytes the key is the bytes themselves; else it is a hash, and the bytes are compared.
type wordSlot struct {
	key  uint64
	size uint32
	id   int32
}

var errCrowded = fmt.Errorf("%w: tokens or merges that are made to collide in a table", ErrInvalid)

// alone is a bit of a slot's size: the bytes, if they are a piece by themselves, become this token.
const alone = 1 << 31

func (w *wordTable) init(text string, offset []uint32) {
	n := len(offset)
	log := bits.Len(uint(n + n/2 + 1)) // at most two thirds full
	*w = wordTable{slots: make([]wordSlot, 1<<log), shift: uint(64 - log), text: text, offset: offset}
}

const mix = 0x9E3779B97F4A7C15 // 2^64 over the golden ratio: Fibonacci hashing

func load32(s string, i int) uint64 {
	s = s[i : i+4]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}

func load64(s string, i int) uint64 {
	s = s[i : i+8]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

// wordKey is what identifies s together with its length up to eight bytes, and a hash of longer ones. s is not empty.
func wordKey(s string) uint64 {
	n := len(s)
	switch {
	case n > 8:
		h := load64(s, n-8)
		for i := 0; i < n-8; i += 8 {
			h = bits.RotateLeft64(h*mix, 29) ^ load64(s, i)
		}
		return h
	case n >= 4:
		return load32(s, 0) | load32(s, n-4)<<32
	}
	return uint64(s[0]) | uint64(s[n/2])<<8 | uint64(s[n-1])<<16
}

// find returns the slot of s, which is not empty, or the empty slot where it would go.
func (w *wordTable) find(s string) *wordSlot {
	e, _ := w.probe(s)
	return e
}

// probe is find, and tells how many slots it passed.
func (w *wordTable) probe(s string) (e *wordSlot, passed int) {
	key, size := wordKey(s), uint32(len(s))
	i := (key ^ uint64(size)) * mix >> w.shift
	for ; ; passed++ {
		e = &w.slots[(i+uint64(passed))&uint64(len(w.slots)-1)]
		if e.size == 0 || e.key == key && e.size&^alone == size && (size <= 8 || w.text[w.offset[e.id]:w.offset[e.id+1]] == s) {
			return e, passed
		}
	}
}

// add notes the bytes of token id. It reports false if there are none, or if another token has the same ones already.
func (w *wordTable) add(id int32) bool {
	s := w.text[w.offset[id]:w.offset[id+1]]
	if s == "" || w.crowded {
		return false
	}
	e, passed := w.probe(s)
	w.crowded = passed > mostProbes
	if e.size != 0 {
		return false
	}
	*e = wordSlot{key: wordKey(s), size: uint32(len(s)), id: id}
	return true
}

// get returns the token with the bytes of s, or None.
func (w *wordTable) get(s string) int32 {
	if s == "" {
		return None
	}
	if e := w.find(s); e.size != 0 {
		return e.id
	}
	return None
}
