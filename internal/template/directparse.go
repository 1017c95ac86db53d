package template

type statementKind uint8

const (
	unknownStatement statementKind = iota // to come to it is to give up
	printStatement
	ifStatement
	setStatement
	macroStatement
	forStatement
	breakStatement
	continueStatement
)

type statement struct {
	kind      statementKind
	name      string // set, for, macro
	attribute string // set: of the namespace called name
	value     *expression
	where     *expression // for … if
	body      []statement
	otherwise *statement // if: elif or else, whose value is nil
	orElse    []statement
}

type operator uint8

const (
	opUnknown operator = iota
	opLiteral
	opName
	opAttribute
	opIndex
	opSlice
	opList
	opAdd
	opSubtract
	opModulo
	opJoin
	opNot
	opAnd
	opOr
	opCondition
	opCompare
	opIn
	opIs
	opMethod
	opFilter
	opCall
)

type expression struct {
	op       operator
	of       []*expression
	name     string   // of the variable, attribute, operator, test, method, filter or function
	keywords []string // of a call's arguments
	literal  datum
	negated  bool
	tested   bool // an "is" that no brackets enclose
}

// texts reports whether a + can be taken for one of texts, which print writes part by part: some part is a literal text.
func (e *expression) texts() bool {
	for _, part := range e.of {
		if part.op == opLiteral && part.literal.kind == textKind {
			return true
		}
	}
	return false
}

// A reader builds statements from segments. What it does not know becomes an unknown statement or expression.
type reader struct {
	segs []segment
	i    int
}

// program builds what direct walks.
func program(segs []segment) []statement {
	r := &reader{segs: segs}
	body, _ := r.body()
	return body
}

// body reads up to a statement that ends or divides the enclosing one, and returns its keyword.
func (r *reader) body() (out []statement, end string) {
	for r.i < len(r.segs) {
		seg := &r.segs[r.i]
		r.i++
		switch seg.kind {
		case segText:
			out = append(out, statement{kind: printStatement, value: &expression{op: opLiteral, literal: textOf(seg.text)}})
			continue
		case segExpr:
			out = append(out, statement{kind: printStatement, value: whole(seg.toks)})
			continue
		}
		keyword, toks := seg.toks[0].val, seg.toks[1:]
		switch keyword {
		case "endif", "endfor", "endmacro", "endset", "endcall", "endfilter", "else", "elif":
			return out, keyword
		case "generation", "endgeneration":
		case "if":
			out = append(out, r.conditional(toks))
		case "for":
			out = append(out, r.loop(toks))
		case "set":
			out = append(out, r.set(toks))
		case "macro":
			r.body()
			s := statement{}
			if len(toks) > 0 && toks[0].kind == tokName {
				s = statement{kind: macroStatement, name: toks[0].val}
			}
			out = append(out, s)
		case "break":
			out = append(out, statement{kind: breakStatement})
		case "continue":
			out = append(out, statement{kind: continueStatement})
		case "call", "filter":
			r.body()
			out = append(out, statement{})
		default:
			out = append(out, statement{})
		}
	}
	return out, ""
}

func (r *reader) conditional(toks []token) statement {
	s := statement{kind: ifStatement, value: whole(toks)}
	last := &s
	for {
		var end string
		from := r.i
		last.body, end = r.body()
		if r.i == from || end != "elif" && end != "else" {
			return s
		}
		next := &statement{kind: ifStatement}
		if end == "elif" {
			next.value = whole(r.segs[r.i-1].toks[1:])
		}
		last.otherwise = next
		last = next
	}
}

func (r *reader) loop(toks []token) statement {
	s := statement{kind: forStatement}
	var end string
	if s.body, end = r.body(); end == "else" {
		s.orElse, _ = r.body()
		s.orElse = append(s.orElse, statement{})
	}
	p := &expressionReader{toks: toks}
	if p.next().kind != tokName || !p.next().name("in") {
		return statement{}
	}
	s.name = toks[0].val
	// An inline if after the iterable would be its condition: so read no conditional expression.
	var err error
	if s.value, err = p.or(); err != nil {
		return statement{}
	}
	if p.peek().name("if") {
		p.next()
		if s.where, err = p.or(); err != nil {
			return statement{}
		}
	}
	if len(p.toks) > 0 {
		return statement{}
	}
	return s
}

func (r *reader) set(toks []token) statement {
	s := statement{kind: setStatement}
	var rest []token
	switch {
	case len(toks) > 2 && toks[0].kind == tokName && toks[1].is("="):
		s.name, rest = toks[0].val, toks[2:]
	case len(toks) > 4 && toks[0].kind == tokName && toks[1].is(".") && toks[2].kind == tokName && toks[3].is("="):
		s.name, s.attribute, rest = toks[0].val, toks[2].val, toks[4:]
	default:
		assigned := false
		for _, t := range toks {
			assigned = assigned || t.is("=")
		}
		if !assigned { // a block
			r.body()
		}
		return statement{}
	}
	s.value = whole(rest)
	return s
}
