package token

import (
	"slices"
	"unicode/utf8"
)

// A stage is one of several patterns of which each cuts the pieces of the one before. It returns the end of the piece that
// begins at s[i]: of a match of its pattern, or of what lies before the next match. s ends where the piece of the stage
// before ends, so that this is the end of the text for it. i is where a piece of this stage begins.
type stage func(s string, i int) int

// maxStages bounds how many stages there are.
const maxStages = 6

var (
	// deepseekV3 is [\p{N}{1,3}], [一-龥぀-ゟ゠-ヿ]+ and deepseekWord.
	deepseekV3 = []stage{threeNumbers, runs(runeRanges{{0x3040, 0x30FF}, {0x4E00, 0x9FA5}}.has), deepseekWord}

	// deepseekLLM is [\r\n], \s?[cased]+, \s?[marks]+, \s+$, [一-龥ࠀ-一가-퟿]+ and single \p{N}.
	deepseekLLM = []stage{lineEnds, words(casedLetters.has), words(asciiMarks.has), trailingSpace, runs(asian.has), oneNumber}

	// deepseekCoder is [\r\n], \s?\p{L}+, \s?\p{P}+, [一-龥ࠀ-一가-퟿]+ and single \p{N}.
	deepseekCoder = []stage{lineEnds, words(func(r rune) bool { return classOf(r)&coarse == letter }),
		words(func(r rune) bool { return classOf(r) == punct }), runs(asian.has), oneNumber}

	// falcon is runs of punctuation (\p{P} of Unicode 8 or so, and all of ASCII), GPT-2's pattern, and then, in GPT-2's byte alphabet, runs of
	// \p{N} and each three digits.
	falcon = []stage{runs(isFalconPunct), splitGPT2, numericBytes, threeDigits}
)

func isFalconPunct(r rune) bool {
	c := classOf(r)
	if r < utf8.RuneSelf {
		return c == punct || c == symbol
	}
	return (c == punct) != punctDiffers.has(r)
}

// runeRanges are in order.
type runeRanges [][2]rune

func (rr runeRanges) has(r rune) bool {
	_, found := slices.BinarySearchFunc(rr, r, func(e [2]rune, r rune) int {
		switch {
		case e[1] < r:
			return -1
		case e[0] > r:
			return 1
		}
		return 0
	})
	return found
}

var asian = runeRanges{{0x0800, 0x9FA5}, {0xAC00, 0xD7FF}}

// asciiMarks are [!-/:-~！-／：-～‘-‟　-。] of DeepSeek LLM.
var asciiMarks = runeRanges{{'!', '/'}, {':', '~'}, {0x2018, 0x201F}, {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}}

// casedLetters are the letters that the pattern of DeepSeek LLM lists.
var casedLetters = runeRanges{
	{'A', 'Z'}, {'a', 'z'}, {0xB5, 0xB5}, {0xC0, 0xD6}, {0xD8, 0xF6}, {0xF8, 0x1BA}, {0x1BC, 0x1BF}, {0x1C4, 0x293}, {0x295, 0x2AF},
	{0x370, 0x373}, {0x376, 0x377}, {0x37B, 0x37D}, {0x37F, 0x37F}, {0x386, 0x386}, {0x388, 0x38A}, {0x38C, 0x38C}, {0x38E, 0x3A1},
	{0x3A3, 0x3F5}, {0x3F7, 0x481}, {0x48A, 0x52F}, {0x531, 0x556}, {0x10A0, 0x10C5}, {0x13A0, 0x13F5}, {0x13F8, 0x13FD},
	{0x1C90, 0x1CBA}, {0x1CBD, 0x1CBF}, {0x1D00, 0x1D2B}, {0x1D6B, 0x1D77}, {0x1D79, 0x1D9A}, {0x1E00, 0x1F15}, {0x1F18, 0x1F1D},
	{0x1F20, 0x1F45}, {0x1F48, 0x1F4D}, {0x1F50, 0x1F57}, {0x1F59, 0x1F59}, {0x1F5B, 0x1F5B}, {0x1F5D, 0x1F5D}, {0x1F5F, 0x1F7D},
	{0x1F80, 0x1FB4}, {0x1FB6, 0x1FBC}, {0x1FBE, 0x1FBE}, {0x1FC2, 0x1FC4}, {0x1FC6, 0x1FCC}, {0x1FD0, 0x1FD3}, {0x1FD6, 0x1FDB},
	{0x1FE0, 0x1FEC}, {0x1FF2, 0x1FF4}, {0x1FF6, 0x1FFC}, {0x2102, 0x2102}, {0x2107, 0x2107}, {0x210A, 0x2113}, {0x2115, 0x2115},
	{0x2119, 0x211D}, {0x2124, 0x2124}, {0x2126, 0x2126}, {0x2128, 0x2128}, {0x212A, 0x212D}, {0x212F, 0x2134}, {0x2139, 0x2139},
	{0x213C, 0x213F}, {0x2145, 0x2149}, {0x214E, 0x214E}, {0x2183, 0x2184}, {0x2C00, 0x2C7B}, {0x2C7E, 0x2CE4}, {0x2CEB, 0x2CEE},
	{0x2CF2, 0x2CF3}, {0xA640, 0xA66D}, {0xA680, 0xA69B}, {0xA722, 0xA76F}, {0xA771, 0xA787}, {0xA78B, 0xA78E}, {0xAB70, 0xABBF},
	{0xFB00, 0xFB06}, {0xFB13, 0xFB17}, {0xFF21, 0xFF3A}, {0xFF41, 0xFF5A}, {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB},
	{0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2}, {0x118A0, 0x118DF}, {0x1E900, 0x1E943},
}

// invalidRune is what runeAt returns for a byte that is no UTF-8; it is in no set.
const invalidRune rune = -1

func runeAt(s string, i int) (rune, int) {
	if b := s[i]; b < utf8.RuneSelf {
		return rune(b), 1
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	if n == 1 {
		r = invalidRune
	}
	return r, n
}

// classOf is fineAt of a character.
func classOf(r rune) uint8 {
	if r < 0 {
		return other
	}
	return classRows()[r>>classShift][r&(1<<classShift-1)]
}

// runs is the stage of in+: runs of characters that are all in the set, or all not.
func runs(in func(rune) bool) stage {
	return func(s string, i int) int {
		r, n := runeAt(s, i)
		for first := in(r); ; {
			if i += n; i == len(s) {
				return i
			}
			if r, n = runeAt(s, i); in(r) != first {
				return i
			}
		}
	}
}

// words is the stage of \s?in+.
func words(in func(rune) bool) stage {
	return func(s string, i int) int {
		for start := i; ; {
			r, n := runeAt(s, i)
			match := in(r)
			if !match && i+n < len(s) && classOf(r) == space {
				var m int
				if r, m = runeAt(s, i+n); in(r) {
					match, n = true, n+m
				}
			}
			if match && i > start {
				return i
			}
			i += n
			if match {
				for i < len(s) {
					if r, n = runeAt(s, i); !in(r) {
						break
					}
					i += n
				}
				return i
			}
			if i == len(s) {
				return i
			}
		}
	}
}

// lineEnds is the stage of [\r\n].
func lineEnds(s string, i int) int {
	if s[i] == '\r' || s[i] == '\n' {
		return i + 1
	}
	for i < len(s) && s[i] != '\r' && s[i] != '\n' {
		i++
	}
	return i
}

// trailingSpace is the stage of \s+$, behind lineEnds.
func trailingSpace(s string, i int) int {
	end := len(s)
	for end > i {
		_, n := utf8.DecodeLastRuneInString(s[i:end])
		if c, _ := classAt(s, end-n); c != space {
			return end
		}
		end -= n
	}
	return len(s)
}

// oneNumber is the stage of \p{N}, and threeNumbers that of \p{N}{1,3}.
func oneNumber(s string, i int) int    { return numbers(s, i, 1) }
func threeNumbers(s string, i int) int { return numbers(s, i, 3) }

func numbers(s string, i, most int) int {
	c, n := classAt(s, i)
	for first := c == number; ; {
		i += n
		if most--; first && most == 0 || i == len(s) {
			return i
		}
		if c, n = classAt(s, i); (c == number) != first {
			return i
		}
	}
}

// deepseekWord is the stage of
//
//	[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
func deepseekWord(s string, i int) int {
	b := s[i]
	c, n := fineAt(s, i)
	j := i + n
	if setVisible>>c&1 != 0 {
		if b < utf8.RuneSelf && j < len(s) && isASCIILetter(s[j]) {
			for j++; j < len(s) && isASCIILetter(s[j]); j++ {
			}
			return j
		}
		return newlines(s, skipSet(s, j, setVisible))
	}
	if setMarked>>c&1 != 0 {
		return skipSet(s, j, setMarked)
	}
	if j < len(s) && b != '\r' && b != '\n' {
		d, m := fineAt(s, j)
		if setMarked>>d&1 != 0 {
			return skipSet(s, j+m, setMarked)
		}
		if b == ' ' && setVisible>>d&1 != 0 {
			return newlines(s, skipSet(s, j+m, setVisible))
		}
	}
	if c == space {
		return whiteSpace(s, i)
	}
	// Numbers and characters of no class match nothing: up to where something does.
	for j < len(s) {
		c, n := fineAt(s, j)
		if c != other && c != number {
			break
		}
		if j+n < len(s) {
			if d, _ := fineAt(s, j+n); setMarked>>d&1 != 0 {
				break
			}
		}
		j += n
	}
	return j
}

func isASCIILetter(b byte) bool { return b|0x20 >= 'a' && b|0x20 <= 'z' }

// numericBytes is the stage of runs of \p{N} in GPT-2's byte alphabet, where ten digits, ², ³, ¹, ¼, ½ and ¾ are numbers.
func numericBytes(s string, i int) int {
	for first := isNumericByte(s[i]); i < len(s) && isNumericByte(s[i]) == first; i++ {
	}
	return i
}

func isNumericByte(b byte) bool {
	switch b {
	case 0xB2, 0xB3, 0xB9, 0xBC, 0xBD, 0xBE:
		return true
	}
	return b >= '0' && b <= '9'
}

// threeDigits is the stage of [0-9][0-9][0-9].
func threeDigits(s string, i int) int {
	for j, n := i, 0; j < len(s); j++ {
		if n++; s[j] < '0' || s[j] > '9' {
			n = 0
		}
		if n == 3 {
			if j-2 > i {
				return j - 2
			}
			return j + 1
		}
	}
	return len(s)
}
