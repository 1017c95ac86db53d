package grammar

import (
	"fmt"
	"unicode/utf8"
)

// An encoding says how the characters of a text become bytes.
type encoding int

const (
	plain  encoding = iota // UTF-8
	quoted                 // within a JSON string, each character in one way: as it is if that is allowed, else in its shortest escape
)

const (
	surrogateMin, surrogateMax = 0xD800, 0xDFFF
	firstPrintable             = 0x20
)

// shortEscapes are the characters with an escape of two bytes that JSON needs one for.
var shortEscapes = map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}

// escaped is the escape of a character that needs one, else "".
func escaped(r rune) string {
	if s, ok := shortEscapes[r]; ok {
		return s
	}
	if r < firstPrintable {
		return fmt.Sprintf(`\u%04x`, r)
	}
	return ""
}

// appendQuoted appends s as a JSON string in the quoted encoding.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		if e := escaped(r); e != "" {
			dst = append(dst, e...)
		} else {
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// runes leads from one state to another by any of the characters from lo to hi. Surrogates are none.
func (n *nfa) runes(from, to int32, lo, hi rune, e encoding) {
	if lo <= surrogateMax && hi >= surrogateMin {
		if lo < surrogateMin {
			n.runes(from, to, lo, surrogateMin-1, e)
		}
		if hi > surrogateMax {
			n.runes(from, to, surrogateMax+1, hi, e)
		}
		return
	}
	if e == quoted {
		for r := lo; r <= min(hi, '\\'); r++ {
			if s := escaped(r); s != "" {
				n.text(from, to, s)
			}
		}
		for _, gap := range [][2]rune{{firstPrintable, '"' - 1}, {'"' + 1, '\\' - 1}, {'\\' + 1, utf8.MaxRune}} {
			if l, h := max(lo, gap[0]), min(hi, gap[1]); l <= h {
				n.utf8(from, to, l, h)
			}
		}
		return
	}
	n.utf8(from, to, lo, hi)
}

// utf8 leads on by the UTF-8 of the characters from lo to hi, none of them a surrogate. A range is cut until its first and last character differ
// only in bits that all values of a byte range have.
func (n *nfa) utf8(from, to int32, lo, hi rune) {
	for _, last := range []rune{0x7F, 0x7FF, 0xFFFF} {
		if lo <= last && hi > last {
			n.utf8(from, to, lo, last)
			n.utf8(from, to, last+1, hi)
			return
		}
	}
	if hi >= utf8.RuneSelf {
		for bits := 6; bits <= 18; bits += 6 {
			low := rune(1)<<bits - 1
			if lo&^low == hi&^low {
				break
			}
			if lo&low != 0 {
				n.utf8(from, to, lo, lo|low)
				n.utf8(from, to, lo|low+1, hi)
				return
			}
			if hi&low != low {
				n.utf8(from, to, lo, hi&^low-1)
				n.utf8(from, to, hi&^low, hi)
				return
			}
		}
	}
	var a, b [utf8.UTFMax]byte
	size := utf8.EncodeRune(a[:], lo)
	utf8.EncodeRune(b[:], hi)
	for i := range size {
		next := to
		if rest := size - 1 - i; rest > 0 {
			if full := isFull(a[i+1:size], b[i+1:size]); full {
				next = n.continuation(to, rest)
			} else {
				next = n.state()
			}
			n.byteRange(from, next, a[i], b[i])
			if isFull(a[i+1:size], b[i+1:size]) {
				return
			}
		} else {
			n.byteRange(from, next, a[i], b[i])
		}
		from = next
	}
}

func isFull(lo, hi []byte) bool {
	for i := range lo {
		if lo[i] != 0x80 || hi[i] != 0xBF {
			return false
		}
	}
	return true
}

// continuation is the state from which any count continuation bytes lead to a state.
func (n *nfa) continuation(to int32, count int) int32 {
	if count == 0 {
		return to
	}
	if n.tails == nil {
		n.tails = map[tail]int32{}
	}
	s, ok := n.tails[tail{to, count}]
	if !ok {
		next := n.continuation(to, count-1)
		s = n.state()
		n.byteRange(s, next, 0x80, 0xBF)
		n.tails[tail{to, count}] = s
	}
	return s
}

// character leads on by one character of a JSON string in any of the ways in which JSON writes it, surrogates only in pairs.
func (n *nfa) character(from, to int32) {
	n.runes(from, to, firstPrintable, '"'-1, plain)
	n.runes(from, to, '"'+1, '\\'-1, plain)
	n.runes(from, to, '\\'+1, utf8.MaxRune, plain)
	escape := n.state()
	n.byteRange(from, escape, '\\', '\\')
	for _, b := range []byte(`"\/bfnrt`) {
		n.byteRange(escape, to, b, b)
	}
	hex := func(from, to int32, digits ...string) {
		for i, set := range digits {
			next := to
			if i < len(digits)-1 {
				next = n.state()
			}
			for _, b := range []byte(set) {
				n.byteRange(from, next, b, b)
			}
			from = next
		}
	}
	const any = "0123456789abcdefABCDEF"
	u, low, slash := n.state(), n.state(), n.state()
	n.byteRange(escape, u, 'u', 'u')
	hex(u, to, "0123456789abcefABCEF", any, any, any)
	hex(u, to, "dD", "01234567", any, any)
	hex(u, slash, "dD", "89abAB", any, any)
	n.text(slash, low, `\u`)
	hex(low, to, "dD", "cdefCDEF", any, any)
}
