package openai

import (
	"bytes"
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"kvasir/internal/llm"
)

// maxDepth bounds the nesting of arrays and objects, and with it the stack.
const maxDepth = 64

// A reader walks a JSON text (RFC 8259) once. It exists because encoding/json validates before it decodes, matches keys without
// regard to case, and cannot say which array element was wrong; a prompt of 30,000 tokens is read in one pass here.
// Every method that takes a value leaves the reader behind that value. Of duplicate keys the last one counts.
type reader struct {
	b     []byte
	i     int
	depth int
	fresh bool // what bytes returned last is a slice of its own
}

func (r *reader) syntax(what string) error {
	if r.i >= len(r.b) {
		return llm.Invalid("", "the body is not valid JSON: it ends too early")
	}
	return llm.Invalid("", "the body is not valid JSON: expected %s at byte %d", what, r.i)
}

// kind skips white space and says what value follows: one of { [ " t f n, 0 for a number, 'e' at the end, '?' for anything else.
func (r *reader) kind() byte {
	for r.i < len(r.b) {
		switch c := r.b[r.i]; c {
		case ' ', '\t', '\n', '\r':
			r.i++
		case '{', '[', '"', 't', 'f', 'n':
			return c
		case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
			return '0'
		default:
			return '?'
		}
	}
	return 'e'
}

// punct skips white space and takes c, if it is next.
func (r *reader) punct(c byte) bool {
	r.kind()
	if r.i < len(r.b) && r.b[r.i] == c {
		r.i++
		return true
	}
	return false
}

func (r *reader) literal(s string) error {
	r.kind()
	if len(r.b)-r.i < len(s) || string(r.b[r.i:r.i+len(s)]) != s {
		return r.syntax("a value")
	}
	r.i += len(s)
	return nil
}

func (r *reader) null() error { return r.literal("null") }

// end reports anything but white space behind the outermost value.
func (r *reader) end() error {
	if r.kind() != 'e' {
		return r.syntax("the end")
	}
	return nil
}

// object calls f for each key, with the reader before the key's value, which f must take. key is valid during the call.
func (r *reader) object(f func(key []byte) error) error {
	if !r.punct('{') {
		return r.syntax("an object")
	}
	if err := r.enter(); err != nil {
		return err
	}
	defer r.leave()
	if r.punct('}') {
		return nil
	}
	for {
		if r.kind() != '"' {
			return r.syntax("a key")
		}
		key, err := r.bytes()
		if err != nil {
			return err
		}
		if !r.punct(':') {
			return r.syntax("':'")
		}
		if err := f(key); err != nil {
			return err
		}
		if r.punct('}') {
			return nil
		}
		if !r.punct(',') {
			return r.syntax("',' or '}'")
		}
	}
}

// array calls f for each element, with the reader before it; f must take the element.
func (r *reader) array(f func(i int) error) error {
	if !r.punct('[') {
		return r.syntax("an array")
	}
	if err := r.enter(); err != nil {
		return err
	}
	defer r.leave()
	if r.punct(']') {
		return nil
	}
	for i := 0; ; i++ {
		if err := f(i); err != nil {
			return err
		}
		if r.punct(',') {
			continue
		}
		if !r.punct(']') {
			return r.syntax("',' or ']'")
		}
		return nil
	}
}

func (r *reader) enter() error {
	if r.depth++; r.depth > maxDepth {
		return llm.Invalid("", "the body nests arrays and objects deeper than %d", maxDepth)
	}
	return nil
}

func (r *reader) leave() { r.depth-- }

// str takes a string.
func (r *reader) str() (string, error) {
	b, err := r.bytes()
	if len(b) > 0 && r.fresh {
		return unsafe.String(&b[0], len(b)), err // nobody else has b
	}
	return string(b), err
}

// bytes takes a string and returns its content: a part of the text where it has no escapes, else a new slice.
// A lone surrogate escape becomes U+FFFD, since clients that cut strings by UTF-16 units send them; bytes that are not UTF-8 are an error.
func (r *reader) bytes() ([]byte, error) {
	if r.kind() != '"' {
		return nil, r.syntax("a string")
	}
	r.i++
	r.fresh = false
	s := r.b[r.i:]
	end := closingQuote(s)
	if end < 0 {
		r.i = len(r.b)
		return nil, r.syntax("'\"'")
	}
	s = s[:end]
	if i := controlIndex(s); i >= 0 {
		r.i += i
		return nil, r.syntax("an escape for the control character")
	}
	if !utf8.Valid(s) {
		return nil, llm.Invalid("", "the body is not valid UTF-8")
	}
	if i := bytes.IndexByte(s, '\\'); i >= 0 {
		r.fresh = true
		return r.unescape(s, i)
	}
	r.i += len(s) + 1
	return s, nil
}

// closingQuote is the index of the first quote in s that no backslash escapes, or -1.
func closingQuote(s []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(s[from:], '"')
		if i < 0 {
			return -1
		}
		i += from
		n := 0
		for i-n > from && s[i-n-1] == '\\' {
			n++
		}
		if n%2 == 0 {
			return i
		}
		from = i + 1
	}
}

// controlIndex is the index of the first byte of s below 0x20, or -1. It looks at eight bytes at a time.
func controlIndex(s []byte) int {
	const ones, tops = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(s); i += 8 {
		if v := binary.LittleEndian.Uint64(s[i:]); (v-ones*' ')&^v&tops != 0 {
			break // a byte below 0x20 is among these eight
		}
	}
	for ; i < len(s); i++ {
		if s[i] < ' ' {
			return i
		}
	}
	return -1
}

// unescape takes the string whose text between the quotes is s, with r at its start and its first backslash at i.
func (r *reader) unescape(s []byte, i int) ([]byte, error) {
	out := make([]byte, 0, len(s))
	bad := func(what string) ([]byte, error) {
		r.i += i
		return nil, r.syntax(what)
	}
	for {
		out = append(out, s[:i]...)
		s = s[i:]
		r.i += i
		switch i = 2; s[1] { // s has a byte behind the backslash, or the quote would not have closed it
		case '"', '\\', '/':
			out = append(out, s[1])
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			u, ok := hex4(s[2:])
			if !ok {
				return bad("four hex digits")
			}
			i = 6
			if utf16.IsSurrogate(u) {
				low := rune(-1)
				if len(s) >= 12 && s[6] == '\\' && s[7] == 'u' {
					if v, ok := hex4(s[8:]); ok {
						low = v
					}
				}
				if u = utf16.DecodeRune(u, low); u != utf8.RuneError {
					i = 12
				}
			}
			out = utf8.AppendRune(out, u)
		default:
			return bad("a known escape")
		}
		s = s[i:]
		r.i += i
		if i = bytes.IndexByte(s, '\\'); i < 0 {
			r.i += len(s) + 1
			return append(out, s...), nil
		}
	}
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var u rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		u = u<<4 | rune(c)
	}
	return u, true
}

// number takes a number and returns its text, a part of the body.
func (r *reader) number() ([]byte, error) {
	if r.kind() != '0' {
		return nil, r.syntax("a number")
	}
	start := r.i
	if r.b[r.i] == '-' {
		r.i++
	}
	if r.i < len(r.b) && r.b[r.i] == '0' {
		r.i++ // no digit may follow a leading zero
	} else if r.digits() == 0 {
		return nil, r.syntax("a digit")
	}
	if r.i < len(r.b) && r.b[r.i] == '.' {
		r.i++
		if r.digits() == 0 {
			return nil, r.syntax("a digit")
		}
	}
	if r.i < len(r.b) && r.b[r.i]|0x20 == 'e' {
		r.i++
		if r.i < len(r.b) && (r.b[r.i] == '+' || r.b[r.i] == '-') {
			r.i++
		}
		if r.digits() == 0 {
			return nil, r.syntax("a digit")
		}
	}
	return r.b[start:r.i], nil
}

func (r *reader) digits() int {
	start := r.i
	for r.i < len(r.b) && r.b[r.i]-'0' <= 9 {
		r.i++
	}
	return r.i - start
}

// integer takes a number; ok says that it is a whole number of int64. 1.0 and 1e3 are, since some clients send them.
func (r *reader) integer() (v int64, ok bool, err error) {
	for i := r.i; i < len(r.b) && i-r.i < 10; i++ { // the usual case: a few digits, as a token id has
		c := r.b[i]
		if c-'0' <= 9 && (v > 0 || i == r.i) {
			v = v*10 + int64(c-'0')
			continue
		}
		if i > r.i && (c == ',' || c == ']' || c == '}' || c == ' ') {
			r.i = i
			return v, true, nil
		}
		break
	}
	s, err := r.number()
	if err != nil {
		return 0, false, err
	}
	v, ok = wholeNumber(s)
	return v, ok, nil
}

func wholeNumber(s []byte) (int64, bool) {
	if v, err := strconv.ParseInt(string(s), 10, 64); err == nil {
		return v, true
	}
	f, err := strconv.ParseFloat(string(s), 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

// skip takes any value and checks that it is well formed.
func (r *reader) skip() error {
	switch r.kind() {
	case '{':
		return r.object(func([]byte) error { return r.skip() })
	case '[':
		return r.array(func(int) error { return r.skip() })
	case '"':
		_, err := r.bytes()
		return err
	case '0':
		_, err := r.number()
		return err
	case 't':
		return r.literal("true")
	case 'f':
		return r.literal("false")
	case 'n':
		return r.null()
	}
	return r.syntax("a value")
}

// any takes a value as Go's nil, bool, int64 or float64, string, []any or map[string]any.
func (r *reader) any() (any, error) {
	switch r.kind() {
	case '{':
		m := map[string]any{}
		err := r.object(func(key []byte) error {
			k := string(key)
			v, err := r.any()
			m[k] = v
			return err
		})
		return m, err
	case '[':
		l := []any{}
		err := r.array(func(int) error {
			v, err := r.any()
			l = append(l, v)
			return err
		})
		return l, err
	case '"':
		return r.str()
	case '0':
		s, err := r.number()
		if err != nil {
			return nil, err
		}
		if v, err := strconv.ParseInt(string(s), 10, 64); err == nil {
			return v, nil
		}
		v, err := strconv.ParseFloat(string(s), 64)
		if err != nil {
			return nil, llm.Invalid("", "the number at byte %d of the body is out of range", r.i-len(s))
		}
		return v, nil
	case 't':
		return true, r.literal("true")
	case 'f':
		return false, r.literal("false")
	case 'n':
		return nil, r.null()
	}
	return nil, r.syntax("a value")
}
