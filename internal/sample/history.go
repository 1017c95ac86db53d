package sample

import (
	"math/bits"
	"slices"
)

// A history is what penalties apply to. Prompts have tens of thousands of tokens, which must not take longer than the rest of a
// request: of them there is a list and a bit for each token of the vocabulary.
type history struct {
	prompt    []int32  // each id once
	isPrompt  []uint64 // a bit for each id
	generated []generated
	table     []entry // at least twice as long as generated, and a power of two; open addressing
}

// generated is a token that the choice has.
type generated struct {
	id       int32
	count    int32
	isPrompt bool // too
}

// entry says where in a history a generated token is.
type entry struct {
	id    int32
	place int32 // + 1; 0 in an empty entry
}

func (h *history) empty() bool { return len(h.prompt) == 0 && len(h.generated) == 0 }

// addPrompt takes in tokens of the prompt, before any that is generated.
func (h *history) addPrompt(ids []int32) {
	if len(ids) == 0 {
		return
	}
	if n := int(slices.Max(ids))/64 + 1; n > len(h.isPrompt) {
		h.isPrompt = append(h.isPrompt, make([]uint64, n-len(h.isPrompt))...)
	}
	for _, id := range ids {
		word, bit := &h.isPrompt[id/64], uint64(1)<<(id%64)
		if *word&bit == 0 {
			*word |= bit
			h.prompt = append(h.prompt, id)
		}
	}
}

// add counts a generated token.
func (h *history) add(id int32) {
	if 2*len(h.generated) >= len(h.table) {
		h.table = make([]entry, max(16, 2*len(h.table)))
		for i, g := range h.generated {
			*h.find(g.id) = entry{g.id, int32(i + 1)}
		}
	}
	e := h.find(id)
	if e.place == 0 {
		word := int(id / 64)
		h.generated = append(h.generated, generated{id: id, isPrompt: word < len(h.isPrompt) && h.isPrompt[word]>>(id%64)&1 == 1})
		*e = entry{id, int32(len(h.generated))}
	}
	h.generated[e.place-1].count++
}

// find returns the id's entry, or the empty one where it belongs.
func (h *history) find(id int32) *entry {
	mask := uint32(len(h.table) - 1)
	i := uint32(id) * 0x9E3779B1 >> (33 - bits.Len(uint(len(h.table)))) // the upper bits of the product
	for h.table[i].place != 0 && h.table[i].id != id {
		i = (i + 1) & mask
	}
	return &h.table[i]
}
