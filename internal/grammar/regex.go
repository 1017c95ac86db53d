package grammar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxRegexWork bounds the transitions that are tried for one expression.
const maxRegexWork = 1 << 23

// Perl's classes differ between dialects: ECMAScript's \d is ASCII, Python's is not, and so on. Texts must match in all of them, so a class stands for
// what is in it everywhere, and a negated one for what is out of it everywhere.
var (
	alwaysSpace = " \\t\\n\\f\\r"
	everSpace   = alwaysSpace + `\x0b\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}`
	neverSpace  = `\x00-\x08\x0e-\x1b!-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{fefe}\x{ff00}-\x{10ffff}`
	neverWord   = `\x00-/:-@\[-\^` + "`" + `{-\x{a9}\x{2010}-\x{2027}`
)

// classes are, by letter: alone, within a class, within a negated class, where they are what is excluded.
var classes = map[byte][3]string{
	'd': {`[0-9]`, `0-9`, `\p{Nd}`},
	'D': {`\P{Nd}`, `\P{Nd}`, `\x00-/:-\x{10ffff}`},
	's': {"[" + alwaysSpace + "]", alwaysSpace, everSpace},
	'S': {"[" + neverSpace + "]", neverSpace, `\x00-\x08\x0b\x0e-\x1f!-\x{10ffff}`},
	'w': {`[0-9A-Za-z_]`, `0-9A-Za-z_`, `\p{L}\p{N}\p{M}_`},
	'W': {`[^\p{L}\p{N}\p{M}_]`, neverWord, "\\x00-/:-@\\[-\\^`{-\\x{10ffff}"},
}

// translate writes an expression of ECMAScript's or Python's dialect in Go's.
func translate(p string) (string, error) {
	var out strings.Builder
	class := 0 // 1 in a class, 2 in a negated one
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch {
		case c == '\\' && i+1 < len(p):
			i++
			e := p[i]
			if set, ok := classes[e]; ok {
				out.WriteString(set[class])
				continue
			}
			if e == 'u' && i+4 < len(p) && isHex(p[i+1:i+5]) {
				fmt.Fprintf(&out, `\x{%s}`, p[i+1:i+5])
				i += 4
				continue
			}
			if e == '/' || e == '-' && class == 0 {
				out.WriteString(`\` + string(e))
				continue
			}
			out.WriteByte('\\')
			out.WriteByte(e)
		case class > 0 && c == ']':
			class = 0
			out.WriteByte(c)
		case class > 0 && c == '[': // literal in ECMAScript
			out.WriteString(`\[`)
		case class == 0 && c == '[':
			out.WriteByte(c)
			class = 1
			if i+1 < len(p) && p[i+1] == '^' {
				class = 2
				i++
				out.WriteByte('^')
			}
			if i+1 < len(p) && p[i+1] == ']' {
				return "", errors.New("an empty character class")
			}
		case class == 0 && c == '.':
			out.WriteString(`[^\n\r\x{2028}\x{2029}]`)
		case class == 0 && strings.HasPrefix(p[i:], "(?") && len(p) > i+2 && (p[i+2] == '=' || p[i+2] == '!' || strings.HasPrefix(p[i+2:], "<=") || strings.HasPrefix(p[i+2:], "<!")):
			return "", errors.New("lookahead and lookbehind cannot be masked")
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), nil
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// runeDFA is an automaton over classes of characters.
type runeDFA struct {
	prog     *syntax.Prog
	bounds   []rune // first character of each class
	anywhere bool   // a match may be anywhere in the text
	work     int

	ids    map[string]int32
	sets   [][]uint32
	begins []bool
}

// regex compiles an expression to the texts that match: the whole of them, or with anywhere some part. The characters are written in the given encoding.
func regex(pattern string, anywhere bool, e encoding) (*dfa, error) {
	goPattern, err := translate(pattern)
	if err != nil {
		return nil, err
	}
	re, err := syntax.Parse(goPattern, syntax.Perl)
	if err != nil {
		var se *syntax.Error
		if errors.As(err, &se) {
			return nil, fmt.Errorf("%s: %q", se.Code, se.Expr)
		}
		return nil, err
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, err
	}
	r := &runeDFA{prog: prog, anywhere: anywhere, ids: map[string]int32{}}
	if err := r.split(); err != nil {
		return nil, err
	}
	return r.build(e)
}

// split finds the classes.
func (r *runeDFA) split() error {
	starts := map[rune]bool{0: true}
	add := func(lo, hi rune) { starts[lo], starts[hi+1] = true, true }
	for i := range r.prog.Inst {
		in := &r.prog.Inst[i]
		switch in.Op {
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^(syntax.EmptyBeginText|syntax.EmptyEndText) != 0 {
				return errors.New("word boundaries and line anchors cannot be masked; ^ and $ can")
			}
		case syntax.InstRune, syntax.InstRune1:
			if len(in.Rune) == 1 {
				add(in.Rune[0], in.Rune[0])
				if syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
					for f := unicode.SimpleFold(in.Rune[0]); f != in.Rune[0]; f = unicode.SimpleFold(f) {
						add(f, f)
					}
				}
			}
			for k := 0; k+1 < len(in.Rune); k += 2 {
				add(in.Rune[k], in.Rune[k+1])
			}
		case syntax.InstRuneAnyNotNL:
			add('\n', '\n')
		}
	}
	for b := range starts {
		if b <= utf8.MaxRune {
			r.bounds = append(r.bounds, b)
		}
	}
	slices.Sort(r.bounds)
	return nil
}

// closure follows moves without a character. What waits for the end of the text stays in the set.
func (r *runeDFA) closure(from []uint32, begin, end bool) (set []uint32, match bool) {
	seen := map[uint32]bool{}
	var visit func(pc uint32)
	visit = func(pc uint32) {
		if seen[pc] {
			return
		}
		seen[pc] = true
		r.work++
		in := &r.prog.Inst[pc]
		switch in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			visit(in.Out)
			visit(in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			visit(in.Out)
		case syntax.InstEmptyWidth:
			op := syntax.EmptyOp(in.Arg)
			switch {
			case op&syntax.EmptyBeginText != 0 && !begin:
			case op&syntax.EmptyEndText != 0 && !end:
				set = append(set, pc)
			default:
				visit(in.Out)
			}
		case syntax.InstMatch:
			match = true
			set = append(set, pc)
		case syntax.InstFail:
		default:
			set = append(set, pc)
		}
	}
	for _, pc := range from {
		visit(pc)
	}
	slices.Sort(set)
	return set, match
}

// enter returns the state of a set, a new one if need be; dead if it is empty.
func (r *runeDFA) enter(from []uint32, begin bool) (int32, error) {
	set, match := r.closure(from, begin, false)
	if r.work > maxRegexWork {
		return 0, errStates
	}
	if len(set) == 0 {
		return dead, nil
	}
	if match && r.anywhere {
		set = set[:0] // whatever follows: the empty set stands for that
	}
	key := make([]byte, 0, 4*len(set)+1)
	if begin {
		key = append(key, 1)
	}
	for _, pc := range set {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	id, ok := r.ids[string(key)]
	if !ok {
		if id = int32(len(r.sets)); id >= maxStates/4 {
			return 0, errStates
		}
		r.ids[string(key)] = id
		r.sets, r.begins = append(r.sets, set), append(r.begins, begin)
	}
	return id, nil
}

// build makes the automaton over bytes.
func (r *runeDFA) build(e encoding) (*dfa, error) {
	n := &nfa{}
	if start, err := r.enter([]uint32{uint32(r.prog.Start)}, true); start == dead || err != nil {
		return nil, err
	}
	type run struct {
		lo, hi rune
		to     int32
	}
	var all [][]run
	for s := 0; s < len(r.sets); s++ {
		var runs []run
		for c, lo := range r.bounds {
			hi := rune(utf8.MaxRune)
			if c+1 < len(r.bounds) {
				hi = r.bounds[c+1] - 1
			}
			if r.work += len(r.sets[s]) + 1; r.work > maxRegexWork {
				return nil, errStates
			}
			to, err := r.after(s, lo)
			if err != nil {
				return nil, err
			}
			if to == dead {
				continue
			}
			if k := len(runs) - 1; k >= 0 && runs[k].to == to && runs[k].hi == lo-1 {
				runs[k].hi = hi
			} else {
				runs = append(runs, run{lo, hi, to})
			}
		}
		all = append(all, runs)
	}
	for range r.sets { // the first states of n are those of r
		n.state()
	}
	for s, runs := range all {
		n.accept[s] = r.accepts(s)
		for _, t := range runs {
			n.runes(int32(s), t.to, t.lo, t.hi, e)
		}
	}
	return n.deterministic(0)
}

// everything says that any text may follow in the state.
func (r *runeDFA) everything(s int) bool { return r.anywhere && len(r.sets[s]) == 0 }

func (r *runeDFA) accepts(s int) bool {
	if r.everything(s) {
		return true
	}
	_, match := r.closure(r.sets[s], r.begins[s], true)
	return match
}

// after is the state behind a character.
func (r *runeDFA) after(s int, c rune) (int32, error) {
	if r.everything(s) {
		return int32(s), nil
	}
	var to []uint32
	for _, pc := range r.sets[s] {
		if in := &r.prog.Inst[pc]; in.Op != syntax.InstMatch && in.Op != syntax.InstEmptyWidth && in.MatchRune(c) {
			to = append(to, in.Out)
		}
	}
	if r.anywhere {
		to = append(to, uint32(r.prog.Start))
	}
	if len(to) == 0 {
		return dead, nil
	}
	return r.enter(to, false)
}
