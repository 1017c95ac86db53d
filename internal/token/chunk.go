package token

import "strings"

// A text without special tokens may be cut into chunks that are encoded each by itself, with the same ids as the whole. That holds
// at a place between two characters where every pattern of split.go ends a piece whatever comes later, and ends it there
// too if the text ends. The patterns look ahead only, so what follows such a place does not depend on what came before.
//
// Two kinds of place qualify for all of the patterns:
//   - between a character that is no white space and a plain space: a piece has spaces at its beginning only, or is
//     nothing but white space;
//   - behind a letter or a number, if the next character is of another class: such a piece ends with its run (a
//     contraction, too, is an apostrophe and letters).
//
// The first is used with visible ASCII before the space. Places that do not qualify are, for example, those before or
// after line ends and white space: patterns disagree on who takes them.

// Lengths of a chunk in bytes. Where it ends is decided by the few bytes before the place, not by the place's number: so a
// text that was changed in the middle has its old chunks again soon after the change.
const (
	minChunk = 128
	maxChunk = 2048 // from here on the next place will do
	oneIn    = 4    // of 2^4 plain spaces one ends a chunk
)

// chunkEnd returns the end of the chunk that begins at s[i], i < len(s).
func chunkEnd(s string, i int) int {
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
		if c := s[j-1]; c > ' ' && c < 0x7F && load64(s, j-8)*mix>>(64-oneIn) == 0 {
			return j
		}
	}
	last := other
	for j := limit; j < len(s); {
		c, n := classAt(s, j)
		if c != last && (last == letter || last == number) {
			return j
		}
		last = c
		j += n
	}
	return len(s)
}
