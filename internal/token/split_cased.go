package token

// splitO200k is the pattern of GPT-4o, gpt-oss and Llama 4, which cuts between a lower and an upper case letter:
//
//	[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?
//	|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
func splitO200k(s string, i int) int { return splitCased(s, i, 3, true) }

// splitTekken is the pattern of Mistral's Tekken: that of GPT-4o without contractions and with single digits.
func splitTekken(s string, i int) int { return splitCased(s, i, 1, false) }

func splitCased(s string, i, digits int, contractions bool) int {
	b := s[i]
	c, n := fineAt(s, i)
	j := i + n
	if c == number {
		for k := 1; k < digits && j < len(s); k++ {
			c, n := classAt(s, j)
			if c != number {
				break
			}
			j += n
		}
		return j
	}
	// The character before the letters is tried first, then none; a mark may be either.
	end := 0
	before := c&coarse != letter && b != '\r' && b != '\n'
	if before {
		end = lowerWord(s, j)
	}
	if end == 0 && setMarked>>c&1 != 0 {
		end = lowerWord(s, i)
	}
	if end == 0 && before {
		end = upperWord(s, j)
	}
	if end == 0 && setMarked>>c&1 != 0 {
		end = upperWord(s, i)
	}
	if end > 0 {
		if contractions && end < len(s) && s[end] == '\'' {
			end += foldedContraction(s[end:])
		}
		return end
	}
	if b == ' ' && j < len(s) {
		if d, m := classAt(s, j); d == other {
			c, j = other, j+m
		}
	}
	if c&coarse == other {
		j = skip(s, j, other)
		for j < len(s) && (s[j] == '\r' || s[j] == '\n' || s[j] == '/') {
			j++
		}
		return j
	}
	return whiteSpace(s, i)
}

// lowerWord is [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ at i: the end of the match, or 0.
func lowerWord(s string, i int) int {
	both := 0 // the end of the last character that either class has: what the first gives back if no lower case follows
	for i < len(s) {
		c, n := fineAt(s, i)
		if c == lower {
			return skipSet(s, i+n, setNoUpper)
		}
		if setNoLower>>c&1 == 0 {
			break
		}
		i += n
		if c != upper {
			both = i
		}
	}
	return both
}

// upperWord is [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]* at i where lowerWord does not match: the end of
// the match, or 0.
func upperWord(s string, i int) int {
	if end := skipSet(s, i, setNoLower); end > i {
		return end
	}
	return 0
}
