package template

import "strconv"

// whole reads all of toks as one expression.
func whole(toks []token) *expression {
	p := &expressionReader{toks: toks}
	e, err := p.condition()
	if err != nil || len(p.toks) > 0 {
		return &expression{}
	}
	return e
}

// An expressionReader reads by Jinja2's precedence: if, or, and, not, comparison, + and -, ~, %, and the postfix forms.
type expressionReader struct{ toks []token }

func (p *expressionReader) peek() token {
	if len(p.toks) == 0 {
		return token{kind: tokRaw}
	}
	return p.toks[0]
}

func (p *expressionReader) next() token {
	t := p.peek()
	if len(p.toks) > 0 {
		p.toks = p.toks[1:]
	}
	return t
}

// condition reads a value, a value if condition, or one with an else. More than one if without an else is left to the engine.
func (p *expressionReader) condition() (*expression, error) {
	e, err := p.or()
	if err != nil || !p.peek().name("if") {
		return e, err
	}
	p.next()
	c, err := p.or()
	if err != nil {
		return nil, err
	}
	otherwise := &expression{op: opLiteral} // undefined
	if p.peek().name("else") {
		p.next()
		if otherwise, err = p.condition(); err != nil {
			return nil, err
		}
	}
	return &expression{op: opCondition, of: []*expression{e, c, otherwise}}, nil
}

// several reads operands that one operator joins, all of them into one expression.
func (p *expressionReader) several(op operator, is func(token) bool, operand func() (*expression, error)) (*expression, error) {
	e, err := operand()
	if err != nil || !is(p.peek()) {
		return e, err
	}
	out := &expression{op: op, of: []*expression{e}}
	for is(p.peek()) {
		p.next()
		if e, err = operand(); err != nil {
			return nil, err
		}
		out.of = append(out.of, e)
	}
	if op != opAnd && op != opOr {
		for _, part := range out.of {
			if part.tested { // how the engine groups these is not looked into
				return nil, errGiveUp
			}
		}
	}
	return out, nil
}

func (p *expressionReader) or() (*expression, error) {
	return p.several(opOr, func(t token) bool { return t.name("or") }, p.and)
}

func (p *expressionReader) and() (*expression, error) {
	return p.several(opAnd, func(t token) bool { return t.name("and") }, p.not)
}

func (p *expressionReader) not() (*expression, error) {
	if !p.peek().name("not") {
		return p.comparison()
	}
	p.next()
	e, err := p.not()
	if err != nil {
		return nil, err
	}
	return &expression{op: opNot, of: []*expression{e}}, nil
}

func comparing(t token) bool {
	return t.is("==") || t.is("!=") || t.is("<") || t.is(">") || t.is("<=") || t.is(">=")
}

func (p *expressionReader) comparison() (*expression, error) {
	left, err := p.sum()
	if err != nil {
		return nil, err
	}
	out := &expression{op: opCompare}
	switch t := p.peek(); {
	case comparing(t):
		out.name = t.val
	case t.name("in"):
		out.op = opIn
	case t.name("not") && len(p.toks) > 1 && p.toks[1].name("in"):
		out.op, out.negated = opIn, true
		p.next()
	default:
		return left, nil
	}
	p.next()
	var right *expression
	if out.op == opIn && p.peek().is("[") {
		right, err = p.list()
	} else {
		right, err = p.sum()
	}
	if err != nil {
		return nil, err
	}
	if t := p.peek(); comparing(t) || t.name("in") || t.name("not") || left.tested || right.tested {
		return nil, errGiveUp
	}
	out.of = []*expression{left, right}
	return out, nil
}

// list reads a list of expressions in brackets, after which nothing postfix may come.
func (p *expressionReader) list() (*expression, error) {
	out := &expression{op: opList}
	p.next()
	for !p.peek().is("]") {
		e, err := p.condition()
		if err != nil {
			return nil, err
		}
		out.of = append(out.of, e)
		if p.peek().is(",") {
			p.next()
		} else if !p.peek().is("]") {
			return nil, errGiveUp
		}
	}
	p.next()
	if t := p.peek(); t.is("[") || t.is(".") || t.is("|") || t.is("(") || t.name("is") || t.is("+") {
		return nil, errGiveUp
	}
	return out, nil
}

// sum reads one of a + b + c and a - b - c; for both in one there is no need.
func (p *expressionReader) sum() (*expression, error) {
	e, err := p.several(opAdd, func(t token) bool { return t.is("+") }, p.joined)
	if err != nil || !p.peek().is("-") {
		return e, err
	}
	if e.op == opAdd {
		return nil, errGiveUp
	}
	first := e
	e, err = p.several(opSubtract, func(t token) bool { return t.is("-") }, func() (*expression, error) {
		if first != nil {
			f := first
			first = nil
			return f, nil
		}
		return p.joined()
	})
	if err == nil && p.peek().is("+") {
		return nil, errGiveUp
	}
	return e, err
}

func (p *expressionReader) joined() (*expression, error) {
	return p.several(opJoin, func(t token) bool { return t.is("~") }, p.product)
}

func (p *expressionReader) product() (*expression, error) {
	return p.several(opModulo, func(t token) bool { return t.is("%") }, p.postfix)
}

func (p *expressionReader) postfix() (*expression, error) {
	e, err := p.primary()
	if err != nil {
		return nil, err
	}
	filtered := false
	for {
		t := p.peek()
		switch {
		case t.is(".") && !filtered:
			p.next()
			name := p.next()
			if name.kind != tokName {
				return nil, errGiveUp
			}
			if !p.peek().is("(") {
				e = &expression{op: opAttribute, of: []*expression{e}, name: name.val}
				continue
			}
			args, keywords, err := p.arguments()
			if err != nil || keywords != nil && anyKeyword(keywords) {
				return nil, errGiveUp
			}
			e = &expression{op: opMethod, name: name.val, of: append([]*expression{e}, args...)}
		case t.is("[") && !filtered:
			if e, err = p.subscript(e); err != nil {
				return nil, err
			}
		case t.is("|"):
			p.next()
			name := p.next()
			if name.kind != tokName || p.peek().is("(") || e.tested {
				return nil, errGiveUp
			}
			e, filtered = &expression{op: opFilter, name: name.val, of: []*expression{e}}, true
		case t.name("is"):
			p.next()
			if e.tested {
				return nil, errGiveUp
			}
			e = &expression{op: opIs, of: []*expression{e}, tested: true}
			if p.peek().name("not") {
				p.next()
				e.negated = true
			}
			e.name = p.next().val
			if p.peek().is("(") {
				return nil, errGiveUp
			}
		case t.is("(") || (t.is(".") || t.is("[")) && filtered || t.is("*") || t.is("/") || t.is("//") || t.is("**"):
			return nil, errGiveUp
		default:
			return e, nil
		}
	}
}

func anyKeyword(keywords []string) bool {
	for _, k := range keywords {
		if k != "" {
			return true
		}
	}
	return false
}

func (p *expressionReader) subscript(e *expression) (*expression, error) {
	p.next()
	parts := []*expression{e, nil, nil, nil}
	n := 1
	for !p.peek().is("]") {
		if p.peek().is(":") {
			p.next()
			if n++; n > 3 {
				return nil, errGiveUp
			}
			continue
		}
		k, err := p.condition()
		if err != nil || !p.peek().is(":") && !p.peek().is("]") {
			return nil, errGiveUp
		}
		parts[n] = k
	}
	p.next()
	if n > 1 {
		return &expression{op: opSlice, of: parts}, nil
	}
	if parts[1] == nil {
		return nil, errGiveUp
	}
	return &expression{op: opIndex, of: parts[:2]}, nil
}

// arguments reads what is between the brackets of a call.
func (p *expressionReader) arguments() (args []*expression, keywords []string, err error) {
	p.next()
	for !p.peek().is(")") {
		keyword := ""
		if len(p.toks) > 1 && p.toks[0].kind == tokName && p.toks[1].is("=") {
			keyword = p.next().val
			p.next()
		}
		e, err := p.condition()
		if err != nil {
			return nil, nil, err
		}
		args, keywords = append(args, e), append(keywords, keyword)
		if p.peek().is(",") {
			p.next()
		} else if !p.peek().is(")") {
			return nil, nil, errGiveUp
		}
	}
	p.next()
	return args, keywords, nil
}

func (p *expressionReader) primary() (*expression, error) {
	t := p.next()
	switch {
	case t.kind == tokString:
		return &expression{op: opLiteral, literal: textOf(t.val)}, nil
	case t.kind == tokNumber, t.is("-") && p.peek().kind == tokNumber:
		sign := 1
		if t.kind != tokNumber {
			sign, t = -1, p.next()
			if p.peek().is("|") || p.peek().name("is") {
				return nil, errGiveUp
			}
		}
		n, err := strconv.ParseInt(t.val, 10, 32)
		if err != nil {
			return nil, errGiveUp
		}
		return &expression{op: opLiteral, literal: intOf(sign * int(n))}, nil
	case t.kind == tokName && keyword(t.val):
		return nil, errGiveUp
	case t.kind == tokName:
		switch t.val {
		case "true", "True":
			return &expression{op: opLiteral, literal: boolOf(true)}, nil
		case "false", "False":
			return &expression{op: opLiteral, literal: boolOf(false)}, nil
		case "none", "None":
			return &expression{op: opLiteral, literal: datum{kind: noneKind}}, nil
		case "self", "caller", "varargs", "kwargs":
			return nil, errGiveUp
		}
		if !p.peek().is("(") {
			return &expression{op: opName, name: t.val}, nil
		}
		args, keywords, err := p.arguments()
		if err != nil {
			return nil, err
		}
		return &expression{op: opCall, name: t.val, of: args, keywords: keywords}, nil
	case t.is("("):
		e, err := p.condition()
		if err != nil || !p.next().is(")") {
			return nil, errGiveUp
		}
		if e.tested {
			c := *e
			c.tested = false
			e = &c
		}
		return e, nil
	}
	return nil, errGiveUp
}
