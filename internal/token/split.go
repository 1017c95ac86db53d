package token

import "strings"

// A splitFunc returns the end of the piece that begins at s[i]; i < len(s), and the result is greater than i.
// Each is a hand-written scanner for one published pattern: the alternatives are tried in the pattern's order, and the
// first that matches wins, as in a backtracking engine. Scanning a whole text is linear in its length.
type splitFunc func(s string, i int) int

// splitGPT2 is GPT-2's pattern:
//
//	's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
func splitGPT2(s string, i int) int {
	if s[i] == '\'' {
		if n := contraction(s[i:]); n > 0 {
			return i + n
		}
	}
	j := i
	if s[j] == ' ' && j+1 < len(s) {
		j++
	}
	c, n := classAt(s, j)
	if c == space {
		return spaceRun(s, i, false)
	}
	return skip(s, j+n, c)
}

// splitSmolLM first cuts out every single \p{N} and then applies GPT-2's pattern to what lies between: a digit is
// always alone, and white space before one is a piece by itself, as at the end of a text.
func splitSmolLM(s string, i int) int {
	if s[i] == '\'' {
		if n := contraction(s[i:]); n > 0 {
			return i + n
		}
	}
	c, n := classAt(s, i)
	if c == number {
		return i + n
	}
	if s[i] == ' ' && i+1 < len(s) {
		if d, m := classAt(s, i+1); d == letter || d == other {
			return skip(s, i+1+m, d)
		}
	}
	if c == space {
		return spaceRun(s, i, true)
	}
	return skip(s, i+n, c)
}

// spaceRun is \s+(?!\S)|\s+ at a white space: the run, but for its last character if something follows that would take it.
// With digitEnds a number counts as the end of the text.
func spaceRun(s string, i int, digitEnds bool) int {
	last, j := i, i
	for j < len(s) {
		c, n := classAt(s, j)
		if c != space {
			if digitEnds && c == number {
				return j
			}
			if last > i {
				return last
			}
			return j
		}
		last = j
		j += n
	}
	return j
}

// contraction returns the length of 's, 't, 're, 've, 'm, 'll or 'd at the start of s, or 0.
func contraction(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] {
	case 's', 't', 'm', 'd':
		return 2
	}
	if len(s) > 2 {
		switch s[1:3] {
		case "re", "ve", "ll":
			return 3
		}
	}
	return 0
}

// foldedContraction is contraction without regard to case. The long s, U+017F, folds to s.
func foldedContraction(s string) int {
	if len(s) < 2 {
		return 0
	}
	switch s[1] | 0x20 {
	case 's', 't', 'm', 'd':
		return 2
	}
	if strings.HasPrefix(s[1:], "\u017f") {
		return 3
	}
	if len(s) > 2 {
		switch [2]byte{s[1] | 0x20, s[2] | 0x20} {
		case [2]byte{'r', 'e'}, [2]byte{'v', 'e'}, [2]byte{'l', 'l'}:
			return 3
		}
	}
	return 0
}

// splitLlama3 is Llama 3's pattern:
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func splitLlama3(s string, i int) int { return splitTiktoken(s, i, 3, true) }

// splitQwen2 is Llama 3's pattern with \p{N} in place of \p{N}{1,3}.
func splitQwen2(s string, i int) int { return splitTiktoken(s, i, 1, true) }

// splitSeedCoder is Qwen 2's pattern with " ?[^\s\p{L}\p{N}\r\n]+" in place of " ?[^\s\p{L}\p{N}]+[\r\n]*".
func splitSeedCoder(s string, i int) int { return splitTiktoken(s, i, 1, false) }

func splitTiktoken(s string, i, digits int, lines bool) int {
	b := s[i]
	if b == '\'' {
		if n := foldedContraction(s[i:]); n > 0 {
			return i + n
		}
	}
	c, n := classAt(s, i)
	j := i + n
	switch c {
	case letter:
		return skip(s, j, letter)
	case number:
		for k := 1; k < digits && j < len(s); k++ {
			c, n := classAt(s, j)
			if c != number {
				break
			}
			j += n
		}
		return j
	}
	if j < len(s) && b != '\r' && b != '\n' {
		d, m := classAt(s, j)
		if d == letter {
			return skip(s, j+m, letter)
		}
		if b == ' ' && d == other {
			c, j = other, j+m
		}
	}
	if c == other {
		if j = skip(s, j, other); lines {
			j = newlines(s, j)
		}
		return j
	}
	return whiteSpace(s, i)
}

// whiteSpace is \s*[\r\n]+|\s+(?!\S)|\s+ at a white space: up to the last line end of the run if there is one.
func whiteSpace(s string, i int) int {
	end, k := -1, i
	for k < len(s) {
		c, n := classAt(s, k)
		if c != space {
			break
		}
		if s[k] == '\n' || s[k] == '\r' {
			end = k + 1
		}
		k += n
	}
	if end >= 0 {
		return end
	}
	return spaceRun(s, i, false)
}

// newlines returns the first index from i on that is neither \r nor \n.
func newlines(s string, i int) int {
	for i < len(s) && (s[i] == '\n' || s[i] == '\r') {
		i++
	}
	return i
}

// splitQwen35 is Qwen 3.5's pattern, in which marks belong to letters:
//
//	(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func splitQwen35(s string, i int) int {
	b := s[i]
	if b == '\'' {
		if n := foldedContraction(s[i:]); n > 0 {
			return i + n
		}
	}
	c, n := fineAt(s, i)
	j := i + n
	switch {
	case setMarked>>c&1 != 0:
		return skipSet(s, j, setMarked)
	case c == number:
		return j
	}
	if j < len(s) && b != '\r' && b != '\n' {
		d, m := fineAt(s, j)
		if setMarked>>d&1 != 0 {
			return skipSet(s, j+m, setMarked)
		}
		if b == ' ' && setUnmarked>>d&1 != 0 {
			c, j = d, j+m
		}
	}
	if c != space {
		return newlines(s, skipSet(s, j, setUnmarked))
	}
	return whiteSpace(s, i)
}
