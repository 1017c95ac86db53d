package template

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// This file evaluates the part of the language that templates go through for conversations without tools, and knows of
// each piece of text which field it came from: one pass gives text and spans, in less than a tenth of the time that the
// engine needs for two. What it does not know makes it give up, and then the engine renders (spans.go); so it knows
// nothing that it could get wrong: no errors, no types that the operators would have to convert. directparse.go and
// directexpr.go build what it walks.

// errGiveUp leaves the render to the engine.
var errGiveUp = errors.New("not for direct evaluation")

// Ends of an iteration.
var errBreak, errContinue = errors.New("break"), errors.New("continue")

type kind uint8

const (
	undefinedKind kind = iota
	noneKind
	boolKind
	intKind
	textKind
	messagesKind // a list of messages
	messageKind
	namespaceKind
	loopKind
	callableKind // only whether it is defined is known
)

// A datum is a value.
type datum struct {
	kind   kind
	n      int    // of intKind; 0 or 1; the message's number
	text   string // of textKind
	parts  []Span // which parts of text came from fields, in order; shared, never changed
	list   []int  // of messagesKind: their numbers
	fields map[string]datum
	loop   *loopState
}

type loopState struct{ index, length int }

func textOf(s string) datum { return datum{kind: textKind, text: s} }
func intOf(n int) datum     { return datum{kind: intKind, n: n} }
func boolOf(b bool) datum {
	d := datum{kind: boolKind}
	if b {
		d.n = 1
	}
	return d
}

func (d *datum) truthy() (bool, error) {
	switch d.kind {
	case undefinedKind, noneKind:
		return false, nil
	case boolKind, intKind:
		return d.n != 0, nil
	case textKind:
		return d.text != "", nil
	case messagesKind:
		return len(d.list) > 0, nil
	case messageKind, callableKind:
		return true, nil
	}
	return false, errGiveUp
}

// A binding is a variable; the last one with its name counts.
type binding struct {
	name  string
	value datum
}

type direct struct {
	t     *Template
	in    Input
	limit *state
	vars  []binding
	frame int // where the variables of the current iteration begin
	own   []Span
	out   strings.Builder
	spans []Span
	space int // bytes that joined texts may yet take
}

// direct renders without the engine, or gives up.
func (t *Template) direct(in Input) (*Rendered, error) {
	if t.program == nil || len(in.Fields) > 0 || len(in.Tools) > 0 {
		return nil, errGiveUp
	}
	size := 0
	d := &direct{t: t, in: in, own: make([]Span, 2*len(in.Messages))}
	list := make([]int, len(in.Messages))
	for i, m := range in.Messages {
		size += len(m.Role) + len(m.Content) + len(m.Name) + 32
		list[i] = i
		d.own[2*i] = Span{End: len(m.Content), Message: i, Field: "content"}
		d.own[2*i+1] = Span{End: len(m.Name), Message: i, Field: "name"}
	}
	d.limit = &state{size: baseSize + sizeFactor*size, now: t.now, deadline: time.Now().Add(maxTime)}
	d.space = outputFactor * d.limit.size
	d.out.Grow(size + 64)
	d.vars = append(make([]binding, 0, 24),
		binding{"messages", datum{kind: messagesKind, list: list}},
		binding{"add_generation_prompt", boolOf(in.AddGenerationPrompt)},
		binding{"bos_token", textOf(t.bos.AsString())},
		binding{"eos_token", textOf(t.eos.AsString())},
		binding{"tools", datum{kind: noneKind}},
		binding{"documents", datum{kind: noneKind}})
	for name, v := range in.Args {
		switch name {
		case "messages", "add_generation_prompt", "bos_token", "eos_token":
			return nil, errGiveUp
		}
		b := binding{name: name}
		switch v := v.(type) {
		case nil:
			b.value.kind = noneKind
		case bool:
			b.value = boolOf(v)
		case string:
			b.value = textOf(v)
		default:
			return nil, errGiveUp
		}
		if strings.HasPrefix(name, "__") || callables[name] || len(b.value.text) > 1024 { // functions go before Args
			return nil, errGiveUp
		}
		d.vars = append(d.vars, b)
	}
	d.frame = len(d.vars)
	if err := d.run(t.program); err != nil || d.out.Len() > d.limit.size {
		return nil, errGiveUp
	}
	return &Rendered{Text: d.out.String(), Spans: d.spans, Exact: true}, nil
}

func (d *direct) run(body []statement) error {
	for i := range body {
		if err := d.statement(&body[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *direct) statement(s *statement) error {
	switch s.kind {
	case printStatement:
		if err := d.limit.step(); err != nil {
			return err
		}
		return d.print(s.value)
	case ifStatement:
		for ; s != nil; s = s.otherwise {
			if s.value == nil { // else
				return d.run(s.body)
			}
			yes, err := d.truth(s.value)
			if err != nil {
				return err
			}
			if yes {
				return d.run(s.body)
			}
		}
		return nil
	case setStatement:
		v, err := d.eval(s.value)
		if err != nil {
			return err
		}
		if v.kind == loopKind || v.kind == callableKind {
			return errGiveUp
		}
		if err := d.limit.step(); err != nil {
			return err
		}
		if s.attribute == "" {
			return d.set(s.name, v)
		}
		ns := d.lookup(s.name)
		if ns.kind != namespaceKind || v.kind == namespaceKind {
			return errGiveUp
		}
		ns.fields[s.attribute] = v
		return nil
	case macroStatement:
		return d.set(s.name, datum{kind: callableKind})
	case forStatement:
		return d.loop(s)
	case breakStatement:
		return errBreak
	case continueStatement:
		return errContinue
	}
	return errGiveUp
}

func (d *direct) set(name string, v datum) error {
	for i := d.frame; i < len(d.vars); i++ {
		if d.vars[i].name == name {
			d.vars[i].value = v
			return nil
		}
	}
	d.vars = append(d.vars, binding{name, v})
	return nil
}

var callables = map[string]bool{"namespace": true, "raise_exception": true, "range": true, "joiner": true, "dict": true, "cycler": true, "strftime_now": true}

func (d *direct) lookup(name string) datum {
	for i := len(d.vars) - 1; i >= 0; i-- {
		if d.vars[i].name == name {
			return d.vars[i].value
		}
	}
	if callables[name] {
		return datum{kind: callableKind}
	}
	return datum{}
}

func (d *direct) loop(s *statement) error {
	over, err := d.eval(s.value)
	if err != nil {
		return err
	}
	if over.kind != messagesKind && over.kind != noneKind && over.kind != undefinedKind {
		return errGiveUp
	}
	outer, n := d.frame, len(d.vars)
	defer func() { d.frame, d.vars = outer, d.vars[:n] }()
	list := over.list
	if s.where != nil {
		list = nil
		for _, m := range over.list {
			if err := d.limit.step(); err != nil {
				return err
			}
			d.vars = append(d.vars[:n], binding{s.name, datum{kind: messageKind, n: m}})
			yes, err := d.truth(s.where)
			if err != nil {
				return err
			}
			if yes {
				list = append(list, m)
			}
		}
		d.vars = d.vars[:n]
	}
	if len(list) == 0 {
		if len(s.orElse) > 0 {
			return errGiveUp
		}
		return nil
	}
	state := &loopState{length: len(list)}
	d.frame = n
	for i, m := range list {
		if err := d.limit.step(); err != nil {
			return err
		}
		state.index = i
		d.vars = append(d.vars[:n], binding{s.name, datum{kind: messageKind, n: m}}, binding{"loop", datum{kind: loopKind, loop: state}})
		err := d.run(s.body)
		if errors.Is(err, errBreak) {
			break
		}
		if err != nil && !errors.Is(err, errContinue) {
			return err
		}
	}
	return nil
}

// print writes a value, and the parts of a joined one without joining them.
func (d *direct) print(e *expression) error {
	if e.op == opJoin || e.op == opAdd && e.texts() {
		for _, part := range e.of {
			v, err := d.eval(part)
			if err != nil {
				return err
			}
			if v.kind != textKind && (e.op == opAdd || v.kind != intKind) {
				return errGiveUp
			}
			if err := d.write(v); err != nil {
				return err
			}
		}
		return nil
	}
	v, err := d.eval(e)
	if err != nil {
		return err
	}
	return d.write(v)
}

func (d *direct) write(v datum) error {
	switch v.kind {
	case undefinedKind:
		return nil
	case intKind:
		v.text = strconv.Itoa(v.n)
	case textKind:
	default:
		return errGiveUp
	}
	if d.out.Len()+len(v.text) > d.limit.size {
		return errGiveUp
	}
	for _, p := range v.parts {
		p.Start += d.out.Len()
		p.End += d.out.Len()
		d.spans = append(d.spans, p)
	}
	d.out.WriteString(v.text)
	return nil
}

// field is an attribute of a message; one that it does not have is undefined.
func (d *direct) field(message int, name string) datum {
	m := &d.in.Messages[message]
	switch name {
	case "role":
		return textOf(m.Role)
	case "content":
		return d.owned(2*message, m.Content)
	case "name":
		if m.Name != "" {
			return d.owned(2*message+1, m.Name)
		}
	}
	return datum{}
}

func (d *direct) owned(i int, text string) datum {
	v := textOf(text)
	if text != "" {
		v.parts = d.own[i : i+1 : i+1]
	}
	return v
}

// clip is text[from:to] with its parts.
func clip(v datum, from, to int) datum {
	out := textOf(v.text[from:to])
	if from == 0 && to == len(v.text) {
		out.parts = v.parts
		return out
	}
	for _, p := range v.parts {
		if p.Start, p.End = max(p.Start, from)-from, min(p.End, to)-from; p.Start < p.End {
			out.parts = append(out.parts, p)
		}
	}
	return out
}

// stripped is strip with the parts.
func stripped(v datum, chars string, left, right bool) datum {
	from := len(v.text) - len(strip(v.text, chars, left, false))
	to := len(v.text)
	if right {
		to = from + len(strip(v.text[from:], chars, false, true))
	}
	if !left {
		from, to = 0, len(strip(v.text, chars, false, right))
	}
	return clip(v, from, to)
}

// join is a + b or a ~ b for texts.
func (d *direct) join(a, b datum) (datum, error) {
	if d.space -= len(a.text) + len(b.text); d.space < 0 || len(a.text)+len(b.text) > d.limit.size {
		return datum{}, errGiveUp
	}
	out := textOf(a.text + b.text)
	switch {
	case len(b.parts) == 0:
		out.parts = a.parts
	default:
		out.parts = make([]Span, 0, len(a.parts)+len(b.parts))
		out.parts = append(out.parts, a.parts...)
		for _, p := range b.parts {
			p.Start += len(a.text)
			p.End += len(a.text)
			out.parts = append(out.parts, p)
		}
	}
	return out, nil
}

func (d *direct) truth(e *expression) (bool, error) {
	v, err := d.eval(e)
	if err != nil {
		return false, err
	}
	return v.truthy()
}
