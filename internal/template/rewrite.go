package template

import (
	"fmt"
	"slices"
	"strings"
)

// This file turns the lexed template into source for the engine (github.com/ardanlabs/jinja) that
//
//   - has no literal text: text becomes {{ out("…") }}, whitespace control being done already;
//   - calls back at every output, assignment, iteration and macro call, so that a render is bounded (limits.go);
//   - uses this package's filters and methods in place of the engine's, to behave as Python's do (filters.go, methods.go);
//   - gives each iteration of a loop fresh variables, as Jinja2 does.
//
// A construct that the engine would silently misread is refused with an error that names its line.

// hook is the prefix of all names that the rewritten source uses; templates may not use it.
const hook = "__kv_"

const (
	hookOut     = hook + "out"     // out(value): prints
	hookSet     = hook + "set"     // set(value…): checks a value that is being assigned
	hookSetAttr = hook + "setattr" // setattr(namespace, value…)
	hookIter    = hook + "iter"    // iter(value): checks what a loop goes over
	hookStep    = hook + "step"    // step(args…): one iteration or call block
	hookEnter   = hook + "enter"   // enter(args…), leave(): a macro call
	hookLeave   = hook + "leave"
	hookMul     = hook + "mul"  // mul(a, b)
	hookMethod  = hook + "call" // a filter: object | call("method", args…)
	hookFilter  = hook + "f_"   // prefix of filters
	hookVoid    = hook + "void" // a variable that takes results of no use
)

// maxBlocks bounds how deep statements nest.
const maxBlocks = 64

// block is an open statement.
type block struct {
	keyword string
	seg     int
	inElse  bool
}

type rewriter struct {
	segs  []segment
	out   strings.Builder
	line  int              // current line of out
	local map[int][]string // for's segment → variables that its body sets
}

func rewrite(segs []segment) (string, error) {
	r := &rewriter{segs: segs, line: 1, local: map[int][]string{}}
	if err := r.scopes(); err != nil {
		return "", err
	}
	for i := range segs {
		s := &segs[i]
		var err error
		switch s.kind {
		case segText:
			r.tag("{{", hookOut+"("+quote(s.text)+")", "}}", s.end)
		case segExpr:
			var e string
			if e, err = r.expr(s.toks); err == nil {
				r.tag("{{", hookOut+"("+e+")", "}}", s.end)
			}
		case segStmt:
			err = r.stmt(i, s)
		}
		if err != nil {
			return "", fmt.Errorf("line %d: %w", s.line, err)
		}
	}
	return r.out.String(), nil
}

// tag writes a tag, and newlines within it until out is at line, so that the engine's errors name the template's lines.
func (r *rewriter) tag(open, body, end string, line int) {
	r.out.WriteString(open + " " + body + " ")
	r.line += strings.Count(body, "\n")
	for ; r.line < line; r.line++ {
		r.out.WriteByte('\n')
	}
	r.out.WriteString(end)
}

func (r *rewriter) stmtTag(body string, line int) { r.tag("{%", body, "%}", line) }

// void calls a hook for its effect.
func (r *rewriter) void(call string) { r.stmtTag("set "+hookVoid+" = "+call, 0) }

// scopes checks the nesting of statements and finds the variables that each loop's body sets.
func (r *rewriter) scopes() error {
	var stack []block
	for i := range r.segs {
		s := &r.segs[i]
		if s.kind != segStmt {
			continue
		}
		if len(s.toks) == 0 || s.toks[0].kind != tokName {
			return fmt.Errorf("line %d: a statement begins with a name", s.line)
		}
		switch k := s.toks[0].val; k {
		case "set":
			for j := len(stack) - 1; j >= 0; j-- {
				b := stack[j]
				if b.keyword == "macro" || b.keyword == "call" {
					break
				}
				if b.keyword == "for" {
					if n := s.toks; !b.inElse && len(n) > 1 && n[1].kind == tokName && (len(n) == 2 || n[2].is("=")) && !slices.Contains(r.local[b.seg], n[1].val) {
						r.local[b.seg] = append(r.local[b.seg], n[1].val)
					}
					break
				}
			}
			if !slices.ContainsFunc(s.toks, func(t token) bool { return t.is("=") }) {
				stack = append(stack, block{keyword: k, seg: i})
			}
		case "for", "if", "macro", "call", "filter", "generation":
			if stack = append(stack, block{keyword: k, seg: i}); len(stack) > maxBlocks {
				return fmt.Errorf("line %d: statements are nested more than %d deep", s.line, maxBlocks)
			}
		case "else":
			if len(stack) > 0 {
				stack[len(stack)-1].inElse = true
			}
		default:
			if open, ok := strings.CutPrefix(k, "end"); ok {
				if len(stack) == 0 || stack[len(stack)-1].keyword != open {
					return fmt.Errorf("line %d: unexpected %s", s.line, k)
				}
				stack = stack[:len(stack)-1]
			}
		}
	}
	if len(stack) > 0 {
		b := stack[len(stack)-1]
		return fmt.Errorf("line %d: %s is not closed", r.segs[b.seg].line, b.keyword)
	}
	return nil
}

func (r *rewriter) stmt(i int, s *segment) error {
	keyword, toks := s.toks[0].val, s.toks[1:]
	switch keyword {
	case "if", "elif":
		e, err := r.expr(toks)
		if err != nil {
			return err
		}
		r.stmtTag(keyword+" "+e, s.end)
	case "for":
		return r.loop(i, toks, s.end)
	case "set":
		return r.set(toks, s.end)
	case "macro":
		return r.macro(toks, s.end)
	case "endmacro":
		r.void(hookLeave + "()")
		r.stmtTag(keyword, s.end)
	case "call":
		return r.call(toks, s.end)
	case "filter":
		if len(toks) != 1 || toks[0].kind != tokName {
			return fmt.Errorf("a filter block takes the name of one filter")
		}
		if err := knownFilter(toks[0].val); err != nil {
			return err
		}
		r.stmtTag("filter "+toks[0].val, s.end)
	case "else", "endif", "endfor", "endset", "endcall", "endfilter", "generation", "endgeneration", "break", "continue":
		if len(toks) != 0 {
			return fmt.Errorf("%s takes no arguments", keyword)
		}
		r.stmtTag(keyword, s.end)
	default:
		return fmt.Errorf("the statement %q is not supported; supported are if, for, set, macro, call, filter, raw, break, continue and generation", keyword)
	}
	return nil
}

func (r *rewriter) loop(i int, toks []token, end int) error {
	in := slices.IndexFunc(toks, func(t token) bool { return t.name("in") })
	if in != 1 && in != 3 || toks[0].kind != tokName || in == 3 && (!toks[1].is(",") || toks[2].kind != tokName) {
		return fmt.Errorf("a for loop has one variable, or two with a comma, before \"in\"")
	}
	targets := []string{toks[0].val}
	if in == 3 {
		targets = append(targets, toks[2].val)
	}
	iter := toks[in+1:]
	var cond []token
	depth := 0
	for j, t := range iter {
		switch {
		case t.opens():
			depth++
		case t.closes():
			depth--
		case depth == 0 && t.name("recursive"):
			return fmt.Errorf("recursive loops are not supported")
		case depth == 0 && t.name("if") && cond == nil:
			cond = iter[j+1:]
			iter = iter[:j]
		}
		if cond != nil {
			break
		}
	}
	e, err := r.expr(iter)
	if err != nil {
		return err
	}
	body := "for " + strings.Join(targets, ", ") + " in " + hookIter + "(" + e + ")"
	if cond != nil {
		c, err := r.expr(cond)
		if err != nil {
			return err
		}
		body += " if " + c
	}
	// The engine keeps one scope for all iterations. What the body sets is put back to its outer value at each start.
	names := slices.DeleteFunc(r.local[i], func(n string) bool { return slices.Contains(targets, n) })
	for _, n := range names {
		r.stmtTag(fmt.Sprintf("set %so%d_%s = %s", hook, i, n, n), 0)
	}
	r.stmtTag(body, end)
	r.void(hookStep + "()")
	for _, n := range names {
		r.stmtTag(fmt.Sprintf("set %s = %so%d_%s", n, hook, i, n), 0)
	}
	return nil
}

func (r *rewriter) set(toks []token, end int) error {
	eq := slices.IndexFunc(toks, func(t token) bool { return t.is("=") })
	target := toks
	if eq >= 0 {
		target = toks[:eq]
	}
	switch {
	case len(target) == 1 && target[0].kind == tokName:
		if eq < 0 {
			r.stmtTag("set "+target[0].val, end)
			return nil
		}
		e, err := r.expr(toks[eq+1:])
		if err != nil {
			return err
		}
		r.stmtTag("set "+target[0].val+" = "+hookSet+"("+e+")", end)
		return nil
	case len(target) == 3 && eq >= 0 && target[0].kind == tokName && target[1].is(".") && target[2].kind == tokName:
		e, err := r.expr(toks[eq+1:])
		if err != nil {
			return err
		}
		ns := target[0].val
		r.stmtTag("set "+ns+"."+target[2].val+" = "+hookSetAttr+"("+ns+", "+e+")", end)
		return nil
	}
	return fmt.Errorf("set assigns to one variable or to one attribute of a namespace")
}

func (r *rewriter) macro(toks []token, end int) error {
	bad := fmt.Errorf("a macro is name(parameter, parameter=default, …), where a default is a literal, a name, [] or {}")
	n := len(toks)
	if n < 3 || toks[0].kind != tokName || !toks[1].is("(") || !toks[n-1].is(")") {
		return bad
	}
	var params, names []string
	for rest := toks[2 : n-1]; len(rest) > 0; {
		if rest[0].kind != tokName {
			return bad
		}
		name, value := rest[0].val, ""
		j := 1
		if j < len(rest) && rest[j].is("=") {
			for j++; j < len(rest) && !rest[j].is(","); j++ {
				t := rest[j]
				if t.is("(") || t.is("*") || t.is("|") {
					return bad
				}
				// The engine splits parameters at every comma, quoted or not.
				if t.kind == tokString && strings.ContainsAny(t.val, ",=") {
					return bad
				}
			}
			e, err := r.expr(rest[2:j])
			if err != nil {
				return err
			}
			value = "=" + e
		}
		params, names = append(params, name+value), append(names, name)
		if j < len(rest) && !rest[j].is(",") {
			return bad
		}
		rest = rest[min(j+1, len(rest)):]
	}
	r.stmtTag("macro "+toks[0].val+"("+strings.Join(params, ", ")+")", end)
	r.void(hookEnter + "(" + strings.Join(names, ", ") + ")")
	return nil
}

func (r *rewriter) call(toks []token, end int) error {
	var names []string
	if len(toks) > 0 && toks[0].is("(") {
		j := 1
		for ; j < len(toks) && !toks[j].is(")"); j++ {
			if toks[j].kind == tokName {
				names = append(names, toks[j].val)
			} else if !toks[j].is(",") {
				return fmt.Errorf("the parameters of a call block are names")
			}
		}
		toks = toks[min(j+1, len(toks)):]
	}
	if len(toks) < 3 || toks[0].kind != tokName || !toks[1].is("(") || matching(toks, 1) != len(toks)-1 {
		return fmt.Errorf("a call block calls one macro")
	}
	e, err := r.expr(toks)
	if err != nil {
		return err
	}
	params := ""
	if len(names) > 0 {
		params = "(" + strings.Join(names, ", ") + ") "
	}
	r.stmtTag("call "+params+e, end)
	r.void(hookStep + "(" + strings.Join(names, ", ") + ")")
	return nil
}

// matching returns the index of the bracket that closes toks[open]; the lexer made sure that there is one.
func matching(toks []token, open int) int {
	depth := 0
	for i := open; i < len(toks); i++ {
		if toks[i].opens() {
			depth++
		} else if toks[i].closes() {
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return len(toks)
}

// expr writes an expression for the engine.
func (r *rewriter) expr(toks []token) (string, error) {
	if len(toks) == 0 {
		return "", fmt.Errorf("an expression is missing")
	}
	toks, err := products(toks)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i := 0; i < len(toks); i++ {
		t := toks[i]
		next := func(n int) token {
			if i+n < len(toks) {
				return toks[i+n]
			}
			return token{}
		}
		if i > 0 && t.operand() && (toks[i-1].operand() || toks[i-1].closes()) {
			return "", fmt.Errorf("unexpected %q after %q", t.val, toks[i-1].val) // the engine would take it for an argument
		}
		switch {
		case t.kind == tokString:
			b.WriteString(quote(t.val))
		case t.is("|"):
			if next(1).kind != tokName {
				return "", fmt.Errorf("a filter's name is missing after |")
			}
			name := next(1).val
			if err := knownFilter(name); err != nil {
				return "", err
			}
			if _, ok := filters[name]; ok {
				name = hookFilter + name
			}
			b.WriteString("|" + name)
			i++
		case t.is(".") && i > 0 && toks[i-1].name("loop") && slices.Contains(unsupportedLoop, next(1).val):
			return "", fmt.Errorf("loop.%s is not supported", next(1).val)
		case t.is(".") && next(1).kind == tokName && next(2).is("("):
			// Methods are postfix, and so are filters.
			b.WriteString("|" + hookMethod + "(" + quote(next(1).val) + ",")
			i += 2
		case t.name("is"):
			test := next(1)
			if test.name("not") {
				test = next(2)
			}
			if !slices.Contains(tests, test.val) {
				return "", fmt.Errorf("the test %q is not supported; supported are %s", test.val, strings.Join(tests, ", "))
			}
			b.WriteString(t.val)
		case i > 0 && toks[i-1].name("is"), i > 1 && toks[i-1].name("not") && toks[i-2].name("is"):
			b.WriteString(engineTest(t.val))
		default:
			b.WriteString(t.val)
		}
		b.WriteByte(' ')
	}
	return b.String(), nil
}

var unsupportedLoop = []string{"changed", "depth", "depth0"}

// products replaces a * b by mul(a, b), since the engine's product of a string and a number has no bound.
func products(toks []token) ([]token, error) {
	for i := 0; i < len(toks); i++ {
		if !toks[i].is("*") {
			continue
		}
		from, to := operandStart(toks, i-1), operandEnd(toks, i+1)
		if from < 0 || to > len(toks) {
			return nil, fmt.Errorf("an operand of * is missing")
		}
		if from > 0 {
			if p := toks[from-1]; p.is("/") || p.is("//") || p.is("%") || p.is("**") || p.is("*") {
				return nil, fmt.Errorf("* after %s is not supported; put brackets", p.val)
			}
		}
		if to < len(toks) && toks[to].is("**") {
			return nil, fmt.Errorf("* before ** is not supported; put brackets")
		}
		out := append([]token{}, toks[:from]...)
		out = append(out, token{tokRaw, hookMul}, token{tokOp, "("})
		out = append(out, toks[from:i]...)
		out = append(out, token{tokOp, ","})
		out = append(out, toks[i+1:to]...)
		out = append(out, token{tokOp, ")"})
		toks = append(out, toks[to:]...)
		i = from // go on after the call's opening
	}
	return toks, nil
}

// operandStart goes back over the postfix expression that ends at i; -1 if there is none.
func operandStart(toks []token, i int) int {
	for i >= 0 {
		t := toks[i]
		if t.closes() {
			depth := 0
			for ; i >= 0; i-- {
				if toks[i].closes() {
					depth++
				} else if toks[i].opens() {
					if depth--; depth == 0 {
						break
					}
				}
			}
			if i > 0 && (toks[i-1].kind == tokRaw || toks[i-1].closes() || toks[i-1].kind == tokString || toks[i-1].kind == tokName && !keyword(toks[i-1].val)) {
				i--
				continue
			}
			return i
		}
		if t.kind == tokOp || t.kind == tokName && keyword(t.val) {
			return -1
		}
		if i >= 2 && (toks[i-1].is(".") || toks[i-1].is("|")) {
			i -= 2
			continue
		}
		return i
	}
	return -1
}

// operandEnd goes over the postfix expression that begins at i, and returns the index after it.
func operandEnd(toks []token, i int) int {
	for i < len(toks) && (toks[i].is("-") || toks[i].is("+")) {
		i++
	}
	if i >= len(toks) {
		return len(toks) + 1
	}
	switch t := toks[i]; {
	case t.opens():
		i = matching(toks, i) + 1
	case t.kind == tokOp || t.kind == tokName && keyword(t.val):
		return len(toks) + 1
	default:
		i++
	}
	for i < len(toks) {
		switch {
		case toks[i].is("(") || toks[i].is("["):
			i = matching(toks, i) + 1
		case (toks[i].is(".") || toks[i].is("|")) && i+1 < len(toks):
			i += 2
		default:
			return i
		}
	}
	return i
}

// operand reports whether t is a literal or a variable.
func (t token) operand() bool { return t.kind != tokOp && !(t.kind == tokName && keyword(t.val)) }

func keyword(s string) bool {
	switch s {
	case "and", "or", "not", "in", "is", "if", "else":
		return true
	}
	return false
}

// quote writes a string literal with the few escapes that the engine knows.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
