package token

import (
	"strings"
	"unicode/utf8"
)

// A text without special tokens may be cut into chunks that are encoded each by itself, with the same ids as the whole. That holds
// at a place between two characters where every pattern ends a piece whatever comes later, and ends it there
// too if the text ends. The patterns look ahead only, so what follows such a place does not depend on what came before.
//
// Two kinds of place qualify for the patterns of cutWords:
//   - between a character that is no white space and a plain space: a piece has spaces at its beginning only, or is
//     nothing but white space;
//   - behind a letter or a number, if the next character is of another class: such a piece ends with its run. Not before
//     a mark, which some patterns count among the letters, and not before an apostrophe, with which a contraction begins.
//
// The first is used with visible ASCII before the space. Places that do not qualify are, for example, those before or
// after line ends and white space: patterns disagree on who takes them.
type cutRule uint8

const (
	cutWords cutRule = iota

	// cutLines is for patterns which isolate line ends and single numbers, but leave together what no stage knows: the first
	// kind of place behind letters, numbers and punctuation, and behind a line end.
	cutLines

	// cutPairs is between two characters that no token has beside each other: no merge crosses it (spm.go).
	cutPairs
)

// Lengths of a chunk in bytes. Where it ends is decided by the few bytes before the place, not by the place's number: so a
// text that was changed in the middle has its old chunks again soon after the change.
const (
	minChunk = 128
	maxChunk = 2048 // from here on the next place will do
	oneIn    = 4    // of 2^4 plain spaces one ends a chunk
)

// chunkEnd returns the end of the chunk that begins at s[i], i < len(s).
func (t *Tokenizer) chunkEnd(s string, i int) int {
	if len(s)-i <= minChunk {
		return len(s)
	}
	limit := min(len(s), i+maxChunk)
	for j := i + minChunk; j < limit; j++ {
		n := strings.IndexByte(s[j:limit], ' ')
		if n < 0 {
			break
		}
		j += n
		if load64(s, j-8)*mix>>(64-oneIn) == 0 && t.cutsSpace(s, j) {
			return j
		}
	}
	switch t.cut {
	case cutLines:
		for j := limit; j < len(s); j++ {
			if s[j-1] == '\n' || s[j] == ' ' && t.cutsSpace(s, j) {
				return j
			}
		}
	case cutPairs:
		for j := limit; j < len(s); j++ {
			if utf8.RuneStart(s[j]) && t.cutsPair(s, j) {
				return j
			}
		}
	case cutWords:
		last := other
		for j := limit; j < len(s); {
			c, n := fineAt(s, j)
			if (last == letter || last == number) && c&coarse != last && c != mark && s[j] != '\'' {
				return j
			}
			last = c & coarse
			j += n
		}
	}
	return len(s)
}

// cutsSpace reports whether a text may be cut before the plain space at s[j], j > 0.
func (t *Tokenizer) cutsSpace(s string, j int) bool {
	c := s[j-1]
	switch {
	case t.cut == cutPairs:
		return t.cutsPair(s, j)
	case c <= ' ' || c >= 0x7F:
		return false
	case t.cut == cutLines:
		return asciiFine[c] != symbol
	}
	return true
}

// cutsPair reports whether no merge crosses the place at j, 0 < j < len(s), where a character begins.
func (t *Tokenizer) cutsPair(s string, j int) bool {
	a, n := utf8.DecodeLastRuneInString(s[:j])
	if a == utf8.RuneError && n == 1 {
		return true
	}
	b, _ := runeAt(s, j)
	return !t.chars.joins(a, b)
}
