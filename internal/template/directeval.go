package template

import (
	"strconv"
	"strings"
)

func (d *direct) eval(e *expression) (datum, error) {
	switch e.op {
	case opLiteral:
		return e.literal, nil
	case opName:
		return d.lookup(e.name), nil
	case opAttribute:
		v, err := d.eval(e.of[0])
		if err != nil {
			return v, err
		}
		return d.attribute(v, e.name)
	case opIndex:
		return d.index(e)
	case opSlice:
		return d.slice(e)
	case opAdd, opSubtract, opModulo:
		return d.arithmetic(e)
	case opJoin:
		return d.concatenate(e)
	case opNot:
		yes, err := d.truth(e.of[0])
		return boolOf(!yes), err
	case opAnd, opOr:
		for _, part := range e.of[:len(e.of)-1] {
			v, err := d.eval(part)
			if err != nil {
				return v, err
			}
			yes, err := v.truthy()
			if err != nil || yes == (e.op == opOr) {
				return v, err
			}
		}
		return d.eval(e.of[len(e.of)-1])
	case opCondition: // of: value, condition, otherwise
		yes, err := d.truth(e.of[1])
		if err != nil {
			return datum{}, err
		}
		if yes {
			return d.eval(e.of[0])
		}
		return d.eval(e.of[2])
	case opCompare:
		return d.compare(e)
	case opIn:
		return d.contains(e)
	case opIs:
		return d.is(e)
	case opMethod, opFilter:
		return d.method(e)
	case opCall:
		return d.call(e)
	}
	return datum{}, errGiveUp
}

// dictAttributes are defined for the engine although no message or namespace has them: the methods of its dicts.
var dictAttributes = map[string]bool{"items": true, "keys": true, "values": true, "get": true, "pop": true, "update": true}

func (d *direct) attribute(v datum, name string) (datum, error) {
	switch v.kind {
	case messageKind, namespaceKind:
		x := v.fields[name]
		if v.kind == messageKind {
			x = d.field(v.n, name)
		}
		if x.kind == undefinedKind && dictAttributes[name] {
			return x, errGiveUp
		}
		return x, nil
	case loopKind:
		l := v.loop
		switch name {
		case "index":
			return intOf(l.index + 1), nil
		case "index0":
			return intOf(l.index), nil
		case "first":
			return boolOf(l.index == 0), nil
		case "last":
			return boolOf(l.index == l.length-1), nil
		case "length":
			return intOf(l.length), nil
		case "revindex":
			return intOf(l.length - l.index), nil
		case "revindex0":
			return intOf(l.length - l.index - 1), nil
		}
	}
	return datum{}, errGiveUp
}

func (d *direct) index(e *expression) (datum, error) {
	v, err := d.eval(e.of[0])
	if err != nil {
		return v, err
	}
	k, err := d.eval(e.of[1])
	if err != nil {
		return k, err
	}
	switch {
	case v.kind == messageKind && k.kind == textKind:
		return d.field(v.n, k.text), nil
	case v.kind == messagesKind && k.kind == intKind:
		if k.n < 0 {
			k.n += len(v.list)
		}
		if k.n < 0 || k.n >= len(v.list) {
			return datum{}, nil
		}
		return datum{kind: messageKind, n: v.list[k.n]}, nil
	}
	return datum{}, errGiveUp
}

// slice is messages[a:b] with parts that may be missing, or messages[::-1].
func (d *direct) slice(e *expression) (datum, error) {
	v, err := d.eval(e.of[0])
	if err != nil || v.kind != messagesKind {
		return v, errGiveUp
	}
	bounds := [2]int{0, len(v.list)}
	for i, part := range e.of[1:3] {
		if part == nil {
			continue
		}
		k, err := d.eval(part)
		if err != nil || k.kind != intKind {
			return k, errGiveUp
		}
		if k.n < 0 {
			k.n += len(v.list)
		}
		bounds[i] = min(max(k.n, 0), len(v.list))
	}
	if e.of[3] == nil {
		v.list = v.list[bounds[0]:max(bounds[0], bounds[1])]
		return v, nil
	}
	if k, err := d.eval(e.of[3]); err != nil || k.kind != intKind || k.n != -1 || e.of[1] != nil || e.of[2] != nil {
		return v, errGiveUp
	}
	list := make([]int, len(v.list))
	for i, m := range v.list {
		list[len(list)-1-i] = m
	}
	if d.space -= 8 * len(list); d.space < 0 {
		return v, errGiveUp
	}
	v.list = list
	return v, nil
}

func (d *direct) arithmetic(e *expression) (datum, error) {
	v, err := d.eval(e.of[0])
	if err != nil {
		return v, err
	}
	for _, part := range e.of[1:] {
		w, err := d.eval(part)
		if err != nil {
			return w, err
		}
		switch {
		case e.op == opAdd && v.kind == textKind && w.kind == textKind:
			if v, err = d.join(v, w); err != nil {
				return v, err
			}
		case v.kind != intKind || w.kind != intKind || max(v.n, -v.n, w.n, -w.n) > 1<<31:
			return v, errGiveUp
		case e.op == opAdd:
			v.n += w.n
		case e.op == opSubtract:
			v.n -= w.n
		case v.n >= 0 && w.n > 0:
			v.n %= w.n
		default:
			return v, errGiveUp
		}
	}
	return v, nil
}

func (d *direct) concatenate(e *expression) (datum, error) {
	out := textOf("")
	for _, part := range e.of {
		v, err := d.eval(part)
		if err != nil {
			return v, err
		}
		if v.kind == intKind {
			v = textOf(strconv.Itoa(v.n))
		}
		if v.kind != textKind {
			return v, errGiveUp
		}
		if out, err = d.join(out, v); err != nil {
			return v, err
		}
	}
	return out, nil
}

func (d *direct) compare(e *expression) (datum, error) {
	a, err := d.eval(e.of[0])
	if err != nil {
		return a, err
	}
	b, err := d.eval(e.of[1])
	if err != nil {
		return b, err
	}
	equal := false
	switch {
	case a.kind == textKind && b.kind == textKind:
		equal = a.text == b.text
	case a.kind == intKind && b.kind == intKind:
		switch e.name {
		case "<":
			return boolOf(a.n < b.n), nil
		case "<=":
			return boolOf(a.n <= b.n), nil
		case ">":
			return boolOf(a.n > b.n), nil
		case ">=":
			return boolOf(a.n >= b.n), nil
		}
		equal = a.n == b.n
	case a.kind == boolKind && b.kind == boolKind:
		equal = a.n == b.n
	case a.kind == noneKind && b.kind == noneKind:
		equal = true
	case a.kind == textKind && (b.kind == undefinedKind || b.kind == noneKind), b.kind == textKind && (a.kind == undefinedKind || a.kind == noneKind):
	default:
		return a, errGiveUp
	}
	switch e.name {
	case "==":
		return boolOf(equal), nil
	case "!=":
		return boolOf(!equal), nil
	}
	return a, errGiveUp
}

// contains is a in b, with a text, a message or a written list of texts on the right side.
func (d *direct) contains(e *expression) (datum, error) {
	a, err := d.eval(e.of[0])
	if err != nil || a.kind != textKind {
		return a, errGiveUp
	}
	found := false
	if e.of[1].op == opList {
		for _, item := range e.of[1].of {
			v, err := d.eval(item)
			if err != nil || v.kind != textKind {
				return v, errGiveUp
			}
			found = found || v.text == a.text
		}
	} else {
		b, err := d.eval(e.of[1])
		if err != nil {
			return b, err
		}
		switch b.kind {
		case textKind:
			found = strings.Contains(b.text, a.text)
		case messageKind:
			found = d.field(b.n, a.text).kind != undefinedKind
		default:
			return b, errGiveUp
		}
	}
	return boolOf(found != e.negated), nil
}

func (d *direct) is(e *expression) (datum, error) {
	v, err := d.eval(e.of[0])
	if err != nil {
		return v, err
	}
	yes := false
	switch e.name {
	case "defined":
		yes = v.kind != undefinedKind
	case "undefined":
		yes = v.kind == undefinedKind
	case "none":
		yes = v.kind == noneKind
	case "string":
		yes = v.kind == textKind
	case "mapping":
		if yes = v.kind == messageKind; v.kind == namespaceKind || v.kind == loopKind {
			return v, errGiveUp
		}
	case "true", "false":
		if v.kind > textKind || v.kind == intKind {
			return v, errGiveUp
		}
		yes = v.kind == boolKind && (v.n != 0) == (e.name == "true")
	case "iterable", "sequence":
		if yes = v.kind == textKind || v.kind == messagesKind; !yes {
			return v, errGiveUp
		}
	default:
		return v, errGiveUp
	}
	return boolOf(yes != e.negated), nil
}

// method is one of the few methods and filters that keep a field's parts or look at it.
func (d *direct) method(e *expression) (datum, error) {
	v, err := d.eval(e.of[0])
	if err != nil {
		return v, err
	}
	chars := ""
	if len(e.of) == 2 {
		a, err := d.eval(e.of[1])
		if err != nil || a.kind != textKind || e.op == opFilter {
			return a, errGiveUp
		}
		chars = a.text
	}
	if e.op == opFilter && v.kind == messagesKind && (e.name == "length" || e.name == "count") {
		return intOf(len(v.list)), nil
	}
	if v.kind != textKind || len(e.of) > 2 {
		return v, errGiveUp
	}
	if e.op == opFilter {
		switch e.name {
		case "trim":
			return stripped(v, "", true, true), nil
		case "string", "safe":
			return v, nil
		}
		return v, errGiveUp
	}
	if len(e.of) == 2 && chars == "" {
		return v, errGiveUp
	}
	switch e.name {
	case "strip":
		return stripped(v, chars, true, true), nil
	case "lstrip":
		return stripped(v, chars, true, false), nil
	case "rstrip":
		return stripped(v, chars, false, true), nil
	case "startswith", "endswith":
		if len(e.of) != 2 {
			return v, errGiveUp
		}
		if e.name == "startswith" {
			return boolOf(strings.HasPrefix(v.text, chars)), nil
		}
		return boolOf(strings.HasSuffix(v.text, chars)), nil
	}
	return v, errGiveUp
}

func (d *direct) call(e *expression) (datum, error) {
	for i := range d.vars {
		if d.vars[i].name == e.name { // a macro, or a variable in the function's place
			return datum{}, errGiveUp
		}
	}
	switch {
	case e.name == "namespace":
		ns := datum{kind: namespaceKind, fields: make(map[string]datum, len(e.of))}
		for i, part := range e.of {
			v, err := d.eval(part)
			if err != nil || e.keywords[i] == "" || v.kind == namespaceKind || v.kind == loopKind || v.kind == callableKind {
				return v, errGiveUp
			}
			ns.fields[e.keywords[i]] = v
		}
		return ns, nil
	case e.name == "strftime_now" && len(e.of) == 1 && e.keywords[0] == "":
		v, err := d.eval(e.of[0])
		if err != nil || v.kind != textKind || len(v.parts) > 0 {
			return v, errGiveUp
		}
		text, err := strftime(v.text, d.t.now())
		return textOf(text), err
	}
	return datum{}, errGiveUp
}
