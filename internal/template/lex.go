package template

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// This file splits a template into literal text and tags by the rules of Jinja2's lexer with trim_blocks and lstrip_blocks
// set and keep_trailing_newline unset, as transformers' apply_chat_template has them. The engine's own whitespace control
// looks past neighbouring tags, so it is never given literal text: see rewrite.go.

type segmentKind uint8

const (
	segText segmentKind = iota // literal text, whitespace control applied
	segExpr                    // {{ … }}
	segStmt                    // {% … %}
)

// segment is a piece of the template. line and end are the 1-based lines of its first and last byte.
type segment struct {
	kind      segmentKind
	text      string
	toks      []token
	line, end int
}

type tokenKind uint8

const (
	tokName tokenKind = iota
	tokNumber
	tokString // val is the decoded literal
	tokOp
	tokRaw // text that rewrite.go made; goes out as it is
)

// token is a token within a tag. val is its text; of a string, its value.
type token struct {
	kind tokenKind
	val  string
}

func (t token) is(op string) bool  { return t.kind == tokOp && t.val == op }
func (t token) name(n string) bool { return t.kind == tokName && t.val == n }
func (t token) opens() bool        { return t.kind == tokOp && (t.val == "(" || t.val == "[" || t.val == "{") }
func (t token) closes() bool {
	return t.kind == tokOp && (t.val == ")" || t.val == "]" || t.val == "}")
}
func isSpace(r rune) bool            { return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f } // Python's str.isspace
func trimRightSpace(s string) string { return strings.TrimRightFunc(s, isSpace) }

// Limits on a template's source. The largest templates in circulation are near 20 KiB.
const (
	maxSource   = 256 << 10
	maxBrackets = 64 // nesting within a tag
	maxJoins    = 64 // "+" and "~" in one tag: what one expression can grow a value by
)

type lexer struct {
	src  string
	pos  int
	line int
	segs []segment
	// lineStart: nothing but a newline came before the current text, so that lstrip_blocks applies to its first line
	lineStart bool
}

func (l *lexer) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: %s", l.line, fmt.Sprintf(format, args...))
}

// advance moves over n bytes and counts lines.
func (l *lexer) advance(n int) {
	l.line += strings.Count(l.src[l.pos:l.pos+n], "\n")
	l.pos += n
}

// lex splits source, whose newlines are already normalised to "\n".
func lex(source string) ([]segment, error) {
	l := &lexer{src: source, line: 1, lineStart: true}
	for l.pos < len(l.src) {
		rest := l.src[l.pos:]
		open := nextTag(rest)
		if open < 0 {
			l.text(rest, len(rest))
			break
		}
		kind := rest[open+1]
		sign := byte(0)
		skip := open + 2
		if skip < len(rest) && (rest[skip] == '-' || rest[skip] == '+') {
			sign = rest[skip]
			skip++
		}
		l.text(l.strip(rest[:open], sign, kind != '{'), skip)
		var err error
		switch kind {
		case '#':
			err = l.comment()
		case '{':
			err = l.tag(segExpr, "}}")
		default:
			if raw, ok := rawBegin(l.src[l.pos:]); ok {
				err = l.raw(raw)
			} else {
				err = l.tag(segStmt, "%}")
			}
		}
		if err != nil {
			return nil, err
		}
		l.lineStart = l.src[l.pos-1] == '\n'
	}
	return l.segs, nil
}

func nextTag(s string) int {
	for i := 0; i+1 < len(s); i++ {
		if s[i] == '{' && (s[i+1] == '{' || s[i+1] == '%' || s[i+1] == '#') {
			return i
		}
	}
	return -1
}

// text adds literal text and moves over n source bytes.
func (l *lexer) text(s string, n int) {
	line := l.line
	l.advance(n)
	if s != "" {
		l.segs = append(l.segs, segment{kind: segText, text: s, line: line, end: line + strings.Count(s, "\n")})
	}
}

// strip applies the left side of a tag's whitespace control to the text before it.
func (l *lexer) strip(s string, sign byte, block bool) string {
	if sign == '-' {
		return trimRightSpace(s)
	}
	if sign == '+' || !block {
		return s
	}
	nl := strings.LastIndexByte(s, '\n') + 1
	if (nl > 0 || l.lineStart) && trimRightSpace(s[nl:]) == "" {
		return s[:nl]
	}
	return s
}

// close moves over a tag's end: "-" eats all whitespace after it, a block's plain end one newline.
func (l *lexer) close(n int, sign byte, block bool) {
	l.advance(n)
	rest := l.src[l.pos:]
	switch {
	case sign == '-':
		l.advance(len(rest) - len(strings.TrimLeftFunc(rest, isSpace)))
	case sign != '+' && block && strings.HasPrefix(rest, "\n"):
		l.advance(1)
	}
}

func (l *lexer) comment() error {
	i := strings.Index(l.src[l.pos:], "#}")
	if i < 0 {
		return l.errorf("a comment is not closed")
	}
	sign := byte(0)
	if i > 0 {
		sign = l.src[l.pos+i-1]
	}
	l.close(i+2, sign, true)
	return nil
}

// rawBegin recognises the rest of a raw tag after its "{%" and returns its length.
func rawBegin(s string) (int, bool) {
	t := strings.TrimLeftFunc(s, isSpace)
	if !strings.HasPrefix(t, "raw") {
		return 0, false
	}
	t = strings.TrimLeftFunc(t[3:], isSpace)
	switch {
	case strings.HasPrefix(t, "%}"):
		t = t[2:]
	case strings.HasPrefix(t, "-%}"):
		t = strings.TrimLeftFunc(t[3:], isSpace)
	default:
		return 0, false
	}
	return len(s) - len(t), true
}

func (l *lexer) raw(n int) error {
	l.advance(n)
	from := l.src[l.pos:]
	for i := 0; ; i += 2 {
		j := strings.Index(from[i:], "{%")
		if j < 0 {
			return l.errorf("raw without endraw")
		}
		i += j
		k := i + 2
		sign := byte(0)
		if k < len(from) && (from[k] == '-' || from[k] == '+') {
			sign = from[k]
			k++
		}
		t, ok := strings.CutPrefix(strings.TrimLeftFunc(from[k:], isSpace), "endraw")
		if !ok {
			continue
		}
		t = strings.TrimLeftFunc(t, isSpace)
		end, m := byte(0), 2
		if strings.HasPrefix(t, "-%}") || strings.HasPrefix(t, "+%}") {
			end, m = t[0], 3
		} else if !strings.HasPrefix(t, "%}") {
			continue
		}
		l.lineStart = false
		l.text(l.strip(from[:i], sign, true), len(from)-len(t))
		l.close(m, end, true)
		return nil
	}
}

// tag reads the tokens of a tag up to closer.
func (l *lexer) tag(kind segmentKind, closer string) error {
	seg := segment{kind: kind, line: l.line}
	var stack []byte
	joins := 0
	for {
		rest := l.src[l.pos:]
		if rest == "" {
			return fmt.Errorf("line %d: a tag is not closed by %s", seg.line, closer)
		}
		if len(stack) == 0 {
			sign := byte(0)
			if rest[0] == '-' || rest[0] == '+' && kind == segStmt {
				sign = rest[0]
			}
			if n := min(int(sign), 1); strings.HasPrefix(rest[n:], closer) {
				seg.end = l.line
				l.segs = append(l.segs, seg)
				l.close(n+2, sign, kind == segStmt)
				return nil
			}
		}
		r, size := utf8.DecodeRuneInString(rest)
		if isSpace(r) {
			l.advance(size)
			continue
		}
		t, n, err := nextToken(rest)
		if err != nil {
			return fmt.Errorf("line %d: %w", l.line, err)
		}
		if t.kind == tokOp {
			switch t.val {
			case "+", "~":
				if joins++; joins > maxJoins {
					return l.errorf("more than %d concatenations in one tag", maxJoins)
				}
			case "(", "[", "{":
				if stack = append(stack, t.val[0]); len(stack) > maxBrackets {
					return l.errorf("brackets are nested more than %d deep", maxBrackets)
				}
			case ")", "]", "}":
				if len(stack) == 0 || closing[stack[len(stack)-1]] != t.val[0] {
					return l.errorf("unbalanced %q", t.val)
				}
				stack = stack[:len(stack)-1]
			}
		}
		if t.kind == tokName && strings.HasPrefix(t.val, hook) {
			return l.errorf("names that begin with %s are reserved", hook)
		}
		seg.toks = append(seg.toks, t)
		l.advance(n)
	}
}

var closing = map[byte]byte{'(': ')', '[': ']', '{': '}'}

// nextToken reads the token that s begins with and its length in bytes.
func nextToken(s string) (token, int, error) {
	c := s[0]
	switch {
	case c == '\'' || c == '"':
		for i := 1; i < len(s); i++ {
			switch s[i] {
			case '\\':
				i++
			case c:
				v, err := unescape(s[1:i])
				return token{tokString, v}, i + 1, err
			}
		}
		return token{}, 0, fmt.Errorf("a string is not closed")
	case c >= '0' && c <= '9':
		i := 1
		for i < len(s) && (isIdent(s[i]) || s[i] == '.' && i+1 < len(s) && s[i+1] >= '0' && s[i+1] <= '9' && !strings.Contains(s[:i], ".")) {
			i++
		}
		v := strings.ReplaceAll(s[:i], "_", "")
		if _, err := strconv.ParseInt(v, 10, 64); err != nil {
			f, err := strconv.ParseFloat(v, 64)
			if err != nil || strings.ContainsAny(v, "xXpPnNfF") && f == f {
				return token{}, 0, fmt.Errorf("the number %q is not supported; decimal integers and floats are", s[:i])
			}
			v = strconv.FormatFloat(f, 'f', -1, 64)
			if !strings.Contains(v, ".") {
				v += ".0"
			}
		}
		return token{tokNumber, v}, i, nil
	case isIdent(c):
		i := 1
		for i < len(s) && isIdent(s[i]) {
			i++
		}
		return token{tokName, s[:i]}, i, nil
	}
	for _, op := range [...]string{"**", "//", "==", "!=", "<=", ">="} {
		if strings.HasPrefix(s, op) {
			return token{tokOp, op}, 2, nil
		}
	}
	if strings.IndexByte("+-*/%~<>=.,:|()[]{}", c) >= 0 {
		return token{tokOp, s[:1]}, 1, nil
	}
	r, _ := utf8.DecodeRuneInString(s)
	return token{}, 0, fmt.Errorf("unexpected character %q in a tag", r)
}

func isIdent(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// unescape decodes Python's string escapes.
func unescape(s string) (string, error) {
	if strings.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		if j := strings.IndexByte("\n\\'\"abfnrtv", s[i]); j >= 0 {
			b.WriteString([...]string{"", "\\", "'", "\"", "\a", "\b", "\f", "\n", "\r", "\t", "\v"}[j])
			continue
		}
		base, digits, maximum := 16, i+1, 0
		switch s[i] {
		case 'x':
			maximum = 2
		case 'u':
			maximum = 4
		case 'U':
			maximum = 8
		case '0', '1', '2', '3', '4', '5', '6', '7':
			base, digits, maximum = 8, i, 3
		default: // Python keeps an escape that it does not know
			b.WriteByte('\\')
			b.WriteByte(s[i])
			continue
		}
		end := digits
		for end < len(s) && end < digits+maximum {
			if _, err := strconv.ParseUint(s[end:end+1], base, 8); err != nil {
				break
			}
			end++
		}
		n, err := strconv.ParseUint(s[digits:end], base, 32)
		if err != nil || base == 16 && end != digits+maximum || n > unicode.MaxRune {
			return "", fmt.Errorf("bad escape in the string %q", s)
		}
		b.WriteRune(rune(n))
		i = end - 1
	}
	return b.String(), nil
}
