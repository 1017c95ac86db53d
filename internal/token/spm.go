package token

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"unicode/utf8"
)

// SentencePiece's BPE (github.com/google/sentencepiece, bpe_model.cc) begins with characters and joins, as long as there is one,
// the pair of neighbours that together are the token with the highest score, the leftmost of equals. Characters that are left and have
// no token become bytes.
//
// What happens within a stretch of text that ends up as one symbol does not depend on what is around it: merges there are done in
// the same order as if it stood alone. So a token can come to be only if its text alone becomes it, and then always by the
// same last merge. A vocabulary with scores is therefore one of at most one merge for each token, ranked by score, and
// buildScored finds them by merging each token's text, short ones first. Two characters that no such token has beside each
// other are never joined: there the text is cut into pieces (splitChars), without which a text of n bytes would be one piece.

// spaceMark is how SentencePiece writes a space.
const spaceMark = "\u2581"

// A charTable knows the symbols of characters: tokens, and for characters that occur only in longer tokens numbers from the
// vocabulary's size on.
type charTable struct {
	vocab int
	ascii [utf8.RuneSelf]int32
	rows  [(utf8.MaxRune >> classShift) + 1]*[1 << classShift]int32
	more  []rune // of the symbols behind the vocabulary

	pairsASCII [utf8.RuneSelf][2]uint64 // by the left character: which right ones some token has beside it
	pairs      []uint64                 // the same for all others: a set of hashes, in which there may be too many
	shift      uint
}

func newCharTable(vocab int) *charTable {
	c := &charTable{vocab: vocab}
	for i := range c.ascii {
		c.ascii[i] = None
	}
	return c
}

// symbol returns the number of a character, or None.
func (c *charTable) symbol(r rune) int32 {
	switch {
	case r == '\u2581':
		return c.ascii[' ']
	case uint32(r) < utf8.RuneSelf:
		return c.ascii[r]
	case r < 0:
		return None
	}
	if row := c.rows[r>>classShift]; row != nil {
		return row[r&(1<<classShift-1)]
	}
	return None
}

func (c *charTable) set(r rune, id int32) {
	if r < utf8.RuneSelf {
		c.ascii[r] = id
		return
	}
	row := &c.rows[r>>classShift]
	if *row == nil {
		*row = new([1 << classShift]int32)
		for i := range *row {
			(*row)[i] = None
		}
	}
	(*row)[r&(1<<classShift-1)] = id
}

func pairHash(a, b rune) uint64 { return (uint64(uint32(a))<<21 | uint64(uint32(b))) * mix }

// joins reports whether a merge may cross the place between two characters.
func (c *charTable) joins(a, b rune) bool {
	if a == '\u2581' {
		a = ' '
	}
	if b == '\u2581' {
		b = ' '
	}
	if uint32(a|b) < utf8.RuneSelf {
		return c.pairsASCII[a][b>>6]>>(b&63)&1 != 0
	}
	h := pairHash(a, b) >> c.shift
	return c.pairs[h>>6]>>(h&63)&1 != 0 && c.symbol(a) != None && c.symbol(b) != None
}

// buildChars gives every character of normal tokens its symbol and checks that each byte has a token.
func (t *Tokenizer) buildChars() error {
	for b, id := range t.byteID {
		if id == None {
			return fmt.Errorf("%w: a SentencePiece vocabulary without the token <0x%02X> (supported: those with all 256 byte tokens)", ErrUnsupported, b)
		}
	}
	for _, single := range []bool{true, false} {
		for id, typ := range t.cfg.Types {
			s := t.tokenText(int32(id))
			if typ != TypeNormal || !utf8.ValidString(s) {
				continue
			}
			if single && utf8.RuneCountInString(s) != 1 {
				continue
			}
			for _, r := range s {
				if t.chars.symbol(r) != None {
					continue
				}
				symbol := int32(id)
				if !single {
					symbol = int32(t.chars.vocab + len(t.chars.more))
					t.chars.more = append(t.chars.more, r)
				}
				t.chars.set(r, symbol)
			}
		}
	}
	if id := t.chars.ascii[' ']; id == None || int(id) >= t.chars.vocab {
		return fmt.Errorf("%w: a SentencePiece vocabulary without the token \u2581 (supported: those with one)", ErrUnsupported)
	}
	if n := len(t.cfg.Tokens) + len(t.chars.more); n >= 1<<idBits {
		return fmt.Errorf("%w: %d tokens and characters (supported: fewer than %d)", ErrUnsupported, n, 1<<idBits)
	}
	return nil
}

// mostChars bounds the tokens that text can become, in characters. The longest in use has some hundred.
const mostChars = 1 << 10

var errTooLong = fmt.Errorf("%w: a token of more than %d characters", ErrUnsupported, mostChars)

// buildScored makes the merges of a vocabulary with scores.
func (t *Tokenizer) buildScored() error {
	if len(t.cfg.Scores) != len(t.cfg.Tokens) {
		return fmt.Errorf("%w: %d tokens but %d scores", ErrInvalid, len(t.cfg.Tokens), len(t.cfg.Scores))
	}
	length := t.lengths()
	if length == nil {
		return errTooLong
	}
	var ids []int32 // those of two characters or more, best first
	for id, n := range length {
		if n > 1 {
			ids = append(ids, int32(id))
			if s := t.cfg.Scores[id]; s != s {
				return fmt.Errorf("%w: the score of token %d is not a number", ErrInvalid, id)
			}
		}
	}
	slices.SortStableFunc(ids, func(a, b int32) int {
		switch x, y := t.cfg.Scores[a], t.cfg.Scores[b]; {
		case x > y:
			return -1
		case x < y:
			return 1
		}
		return 0
	})
	rank := make([]uint32, len(length))
	ranks, last := uint32(0), float32(math.Inf(1))
	for i, id := range ids {
		if s := t.cfg.Scores[id]; i == 0 || s != last {
			ranks, last = ranks+1, s
		}
		rank[id] = ranks - 1
	}
	m := &t.merges
	m.init(len(ids), int(ranks), false)
	for i := range m.into {
		m.into[i] = None
	}
	m.ties = map[uint64]int32{}
	for i, id := range ids { // ranks that several tokens have stay None
		if r := rank[id]; (i == 0 || rank[ids[i-1]] != r) && (i == len(ids)-1 || rank[ids[i+1]] != r) {
			m.into[r] = id
		}
	}
	slices.SortStableFunc(ids, func(a, b int32) int { return int(length[a] - length[b]) })
	var parts []int32
	for _, id := range ids {
		if parts = t.merge(parts[:0], t.tokenText(id)); len(parts) != 2 {
			length[id] = 0
			continue
		}
		if m.into[rank[id]] == None {
			m.ties[pairOf(parts[0], parts[1])] = id
		}
		if m.add(parts[0], parts[1], rank[id]); m.crowded {
			return errCrowded
		}
	}
	t.findPairs(func(id int32) bool { return length[id] > 0 })
	return nil
}

// lengths returns for each token its length in characters, 0 if it is not one that text may become; nil if a token is too long.
func (t *Tokenizer) lengths() []int32 {
	length := make([]int32, len(t.cfg.Tokens))
	for i := range length {
		id := int32(i)
		s := t.tokenText(id)
		if t.cfg.Types[id] != TypeNormal || !utf8.ValidString(s) || t.words.get(s) != id {
			continue
		}
		n := utf8.RuneCountInString(s)
		if n > mostChars {
			return nil
		}
		length[id] = int32(n)
	}
	return length
}

// findPairs marks the words that become their token, and notes which characters such tokens have beside each other.
func (t *Tokenizer) findPairs(becomes func(id int32) bool) {
	c := t.chars
	var hashes []uint64
	for i := range t.words.slots {
		e := &t.words.slots[i]
		if e.size == 0 || !becomes(e.id) {
			continue
		}
		e.size |= alone
		a := invalidRune
		for _, b := range t.tokenText(e.id) {
			switch {
			case a == invalidRune:
			case uint32(a|b) < utf8.RuneSelf:
				c.pairsASCII[a][b>>6] |= 1 << (b & 63)
			default:
				hashes = append(hashes, pairHash(a, b))
			}
			a = b
		}
	}
	log := min(max(6, bits.Len(uint(8*len(hashes)))), 21)
	c.pairs, c.shift = make([]uint64, 1<<(log-6)), uint(64-log)
	for _, h := range hashes {
		h >>= c.shift
		c.pairs[h>>6] |= 1 << (h & 63)
	}
}

// buildMerged finishes a vocabulary over characters whose file has the merges.
func (t *Tokenizer) buildMerged() error {
	length := t.lengths()
	if length == nil {
		return errTooLong
	}
	var parts []int32
	t.findPairs(func(id int32) bool {
		if length[id] == 0 {
			return false
		}
		s := t.tokenText(id)
		parts = t.merge(parts[:0], s)
		// A run of line ends that is a token is that token, as for llama.cpp, also if the file's merges lack it.
		return len(parts) == 1 && parts[0] == id || strings.Trim(s, "\n") == ""
	})
	return nil
}

// splitChars returns the end of the piece that begins at s[i]: the next place that no merge crosses.
func (t *Tokenizer) splitChars(s string, i int) int {
	a, n := runeAt(s, i)
	for i += n; i < len(s); i += n {
		var b rune
		if b, n = runeAt(s, i); !t.chars.joins(a, b) {
			break
		}
		a = b
	}
	return i
}

// appendPrefixed is appendText of text with a space before it.
func (t *Tokenizer) appendPrefixed(dst []int32, text string) []int32 {
	end := 0
	if r, _ := runeAt(text, 0); t.chars.joins(' ', r) {
		end = t.splitChars(text, 0)
	}
	return t.appendText(t.appendChars(dst, " "+text[:end]), text[end:])
}

// appendChars appends the ids of one piece.
func (t *Tokenizer) appendChars(dst []int32, piece string) []int32 {
	if e := t.words.find(piece); e.size&alone != 0 {
		return append(dst, e.id)
	}
	from := len(dst)
	dst = t.merge(dst, piece)
	vocab := uint32(t.chars.vocab)
	for _, symbol := range dst[from:] {
		if uint32(symbol) >= vocab {
			return t.appendBytes(dst[:from], slices.Clone(dst[from:]), piece)
		}
	}
	return dst
}

// appendBytes appends the symbols of a piece, with bytes for those that are no tokens.
func (t *Tokenizer) appendBytes(dst, symbols []int32, piece string) []int32 {
	for _, symbol := range symbols {
		s := piece // a character that no token has is a piece by itself
		if symbol != None {
			if int(symbol) < t.chars.vocab {
				dst = append(dst, symbol)
				continue
			}
			s = string(t.chars.more[int(symbol)-t.chars.vocab])
		}
		for i := range len(s) {
			dst = append(dst, t.byteID[s[i]])
		}
	}
	return dst
}

// appendSymbols appends what merging a piece begins with.
func (t *Tokenizer) appendSymbols(dst []int32, piece string) []int32 {
	for i := 0; i < len(piece); {
		r, n := runeAt(piece, i)
		dst = append(dst, t.chars.symbol(r))
		i += n
	}
	return dst
}

// beginChars is appendSymbols for merge, with the ranks of the pairs.
func (t *Tokenizer) beginChars(ids *[shortPiece]int32, ranks *[shortPiece]uint32, piece string) (n int) {
	for i := 0; i < len(piece); n++ {
		r, size := runeAt(piece, i)
		ids[n] = t.chars.symbol(r)
		if n > 0 {
			ranks[n-1] = t.merges.rank(ids[n-1], ids[n])
		}
		i += size
	}
	return n
}
