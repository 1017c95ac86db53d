package grammar

import (
	"bytes"
	"slices"
)

// A Vocabulary is what masks are about: the tokens' bytes, in a trie. It is immutable and safe for concurrent use.
type Vocabulary struct {
	size    int // ids
	end     []int32
	longest int32 // bytes of the longest token
	texts   [][]byte

	// The trie in preorder: the first child of node i is i+1, its next sibling is next[i]. Node 0 is the root.
	char  []byte
	next  []int32
	first []int32 // index in tokens of the first token of the node; those of its subtree end where the node next[i] begins
	ids   []int32
}

// NewVocabulary makes the trie of the ids below size. text gives a token's bytes, nil for one that must not be generated; ends says that
// a token ends the generation, whatever its text.
func NewVocabulary(size int, text func(id int32) []byte, ends func(id int32) bool) *Vocabulary {
	v := &Vocabulary{size: size, texts: make([][]byte, size)}
	ids := make([]int32, 0, size)
	for id := range int32(size) {
		if ends(id) {
			v.end = append(v.end, id)
			continue
		}
		if b := text(id); len(b) > 0 {
			v.texts[id] = b
			ids = append(ids, id)
			v.longest = max(v.longest, int32(len(b)))
		}
	}
	slices.SortFunc(ids, func(a, b int32) int {
		if c := bytes.Compare(v.texts[a], v.texts[b]); c != 0 {
			return c
		}
		return int(a - b)
	})
	var path []int32 // nodes from the root to the latest one
	push := func(c byte) {
		path = append(path, int32(len(v.char)))
		v.char, v.next, v.first = append(v.char, c), append(v.next, 0), append(v.first, int32(len(v.ids)))
	}
	pop := func() {
		v.next[path[len(path)-1]] = int32(len(v.char))
		path = path[:len(path)-1]
	}
	push(0)
	var last []byte
	for _, id := range ids {
		b := v.texts[id]
		common := 0
		for common < len(last) && common < len(b) && last[common] == b[common] {
			common++
		}
		for len(path)-1 > common {
			pop()
		}
		for _, c := range b[common:] {
			push(c)
		}
		v.ids = append(v.ids, id)
		last = b
	}
	for len(path) > 0 {
		pop()
	}
	v.first = append(v.first, int32(len(v.ids)))
	return v
}

// Size is how many ids there are.
func (v *Vocabulary) Size() int { return v.size }

// words is the length of a set of tokens.
func (v *Vocabulary) words() int { return (v.size + 63) / 64 }

// at are the tokens that end at a node: those of its subtree begin with them.
func (v *Vocabulary) at(node int32) []int32 {
	to := v.first[node+1]
	return v.ids[v.first[node]:to]
}
