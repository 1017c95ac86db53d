package token

import (
	"strings"
	"unicode/utf8"
)

const replacement = "\uFFFD"

// Decode returns the text of ids. What is no UTF-8 becomes U+FFFD, one for each maximal part of a character (Unicode
// 16, section 3.9; Python's errors="replace"). Control tokens are left out unless withSpecial is set, ids outside the
// vocabulary always, and so is the space that Encode has put before the text or behind a special token.
func (t *Tokenizer) Decode(ids []int32, withSpecial bool) string {
	d := t.NewDecoder(withSpecial)
	d.After(None)
	var b strings.Builder
	for _, id := range ids {
		b.WriteString(d.Push(id))
	}
	b.WriteString(d.Flush())
	return b.String()
}

// A Decoder is Decode for a stream of tokens: a character comes out once its last byte is there.
type Decoder struct {
	t           *Tokenizer
	withSpecial bool
	prefixed    bool    // the next token begins with the space that Encode puts there
	n           int     // bytes that are held back
	held        [4]byte // a proper prefix of a character
	buf         []byte
}

// NewDecoder returns a decoder for a text that goes on behind a token which is not special; see After. It is not safe for
// concurrent use.
func (t *Tokenizer) NewDecoder(withSpecial bool) *Decoder {
	return &Decoder{t: t, withSpecial: withSpecial}
}

// After tells a new decoder which token is before its text, None if none is. Where that is none or a special one, the space that
// begins the text is what Config.AddSpacePrefix says of, and is left out.
func (d *Decoder) After(id int32) {
	d.prefixed = d.t.cfg.AddSpacePrefix && (id == None || d.t.has(id, kindControl|kindUser))
}

// Push takes the next token and returns the text that it completes, which may be empty.
func (d *Decoder) Push(id int32) string {
	if uint32(id) >= uint32(len(d.t.kind)) {
		return ""
	}
	prefixed := d.prefixed
	if d.t.cfg.AddSpacePrefix {
		d.prefixed = d.t.has(id, kindControl|kindUser)
	}
	if !d.withSpecial && d.t.IsControl(id) {
		return ""
	}
	s := d.t.tokenText(id)
	if prefixed && !d.prefixed && s != "" && s[0] == ' ' {
		s = s[1:]
	}
	if d.n == 0 && utf8.ValidString(s) {
		return s
	}
	d.buf = append(append(d.buf[:0], d.held[:d.n]...), s...)
	var out strings.Builder
	rest := d.buf
	for len(rest) > 0 {
		n, st := scan(rest)
		if st == partial {
			break
		}
		if st == valid {
			out.Write(rest[:n])
		} else {
			out.WriteString(replacement)
		}
		rest = rest[n:]
	}
	d.n = copy(d.held[:], rest)
	return out.String()
}

// Flush ends the text: what is still held back is no character. The decoder is then at the start of a new text.
func (d *Decoder) Flush() string {
	if d.n == 0 {
		return ""
	}
	d.n = 0
	return replacement
}

type status uint8

const (
	valid   status = iota // a character
	invalid               // the maximal part of one that cannot go on
	partial               // the beginning of one, up to the end of the bytes
)

// scan looks at the first character of b, which is not empty, and returns its length, or that of the bytes that
// U+FFFD stands for (Unicode 16, table 3-7).
func scan(b []byte) (int, status) {
	lo, hi := byte(0x80), byte(0xBF) // bounds of the second byte
	var size int
	switch c := b[0]; {
	case c < 0x80:
		return 1, valid
	case c < 0xC2:
		return 1, invalid
	case c < 0xE0:
		size = 2
	case c < 0xF0:
		size = 3
		switch c {
		case 0xE0:
			lo = 0xA0
		case 0xED:
			hi = 0x9F
		}
	case c < 0xF5:
		size = 4
		switch c {
		case 0xF0:
			lo = 0x90
		case 0xF4:
			hi = 0x8F
		}
	default:
		return 1, invalid
	}
	for i := 1; i < size; i++ {
		if i == len(b) {
			return i, partial
		}
		if b[i] < lo || b[i] > hi {
			return i, invalid
		}
		lo, hi = 0x80, 0xBF
	}
	return size, valid
}
