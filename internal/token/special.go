package token

import (
	"bytes"
	"strings"
)

// A specialSet finds special tokens in text: a trie over their bytes, entered by the first byte.
type specialSet struct {
	first [256]*specialNode
	bytes string // the distinct first bytes
}

type specialNode struct {
	id    int32          // None: no token ends here
	bytes []byte         // what may come next; mostly one byte
	next  []*specialNode // the node of each
}

// after returns the node that c leads to, or nil.
func (n *specialNode) after(c byte) *specialNode {
	if i := bytes.IndexByte(n.bytes, c); i >= 0 {
		return n.next[i]
	}
	return nil
}

// add puts a token into the set; an empty text is ignored, and the first of two tokens with the same text counts.
func (s *specialSet) add(text string, id int32) {
	if text == "" {
		return
	}
	n := s.first[text[0]]
	if n == nil {
		n = &specialNode{id: None}
		s.first[text[0]] = n
		s.bytes += text[:1]
	}
	for i := 1; i < len(text); i++ {
		next := n.after(text[i])
		if next == nil {
			next = &specialNode{id: None}
			n.bytes, n.next = append(n.bytes, text[i]), append(n.next, next)
		}
		n = next
	}
	if n.id == None {
		n.id = id
	}
}

// candidate returns the first index from i on where a special token may begin, or len(text).
func (s *specialSet) candidate(text string, i int) int {
	switch len(s.bytes) {
	case 0:
		return len(text)
	case 1:
		if n := strings.IndexByte(text[i:], s.bytes[0]); n >= 0 {
			return i + n
		}
		return len(text)
	}
	for i < len(text) && s.first[text[i]] == nil {
		i++
	}
	return i
}

// match returns the longest special token at text[i] that ok allows, and its end; None if there is none.
func (s *specialSet) match(text string, i int, ok func(id int32, start, end int) bool) (id int32, end int) {
	id = None
	n := s.first[text[i]]
	for j := i + 1; n != nil; j++ {
		if n.id != None && ok(n.id, i, j) {
			id, end = n.id, j
		}
		if j == len(text) {
			break
		}
		n = n.after(text[j])
	}
	return id, end
}
