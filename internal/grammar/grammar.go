package grammar

import (
	"errors"
	"fmt"
	"strings"
	"sync"
)

// A Kind says what a Spec's text is.
type Kind int

// The kinds.
const (
	JSONObject Kind = iota // any JSON object; there is no text
	JSONSchema             // the schema
	Regex                  // an expression that the whole text matches
	Choice                 // there is no text, but choices
)

// A Spec says what texts are allowed.
type Spec struct {
	Kind    Kind
	Text    string
	Choices []string
	// Compact leaves no white space between the parts of a JSON text. Else there may be a space behind a colon or comma, and a line break with up to
	// maxIndent spaces behind a bracket or comma and before a closing bracket.
	Compact bool
}

// Limits of a Spec.
const (
	MaxText    = 256 << 10 // bytes
	MaxChoices = 4096
	maxRules   = 1 << 12
	maxIndent  = 16
	maxBytes   = 64 << 20 // of the automata of one grammar
)

// An Error says why a Spec has no grammar.
type Error struct {
	Path    string // where in a schema, as a JSON pointer behind '#'; "" if it is no schema
	Keyword string // of the schema, "" if it is not about one
	Message string
}

func (e *Error) Error() string {
	switch {
	case e.Path == "":
		return e.Message
	case e.Keyword == "":
		return fmt.Sprintf("the schema at %s: %s", e.Path, e.Message)
	}
	return fmt.Sprintf("the schema at %s: %s: %s", e.Path, e.Keyword, e.Message)
}

// A Grammar is a compiled Spec, for one vocabulary. It is safe for concurrent use.
type Grammar struct {
	vocabulary *Vocabulary
	rules      []*rule
	start      *expr
	fixed      int // bytes of its automata

	mu        sync.Mutex // for what follows, and what terms remember
	terms     map[termKey]*term
	termCount uint64
	end       *term
	root      *term
	used      int
	scratch   []uint64
}

// Compile makes the grammar of a Spec. Every error is an *Error.
func Compile(v *Vocabulary, s Spec) (*Grammar, error) {
	g := &Grammar{vocabulary: v}
	if len(s.Text) > MaxText {
		return nil, &Error{Message: fmt.Sprintf("it is longer than %d bytes", MaxText)}
	}
	var err error
	switch s.Kind {
	case Regex:
		d, rerr := regex(s.Text, false, plain)
		if rerr != nil {
			return nil, &Error{Message: "the regular expression: " + rerr.Error()}
		}
		g.start = g.automaton(d)
	case Choice:
		if len(s.Choices) == 0 || len(s.Choices) > MaxChoices {
			return nil, &Error{Message: fmt.Sprintf("there must be 1 to %d choices, not %d", MaxChoices, len(s.Choices))}
		}
		if n := len(strings.Join(s.Choices, "")); n > MaxText {
			return nil, &Error{Message: fmt.Sprintf("the choices are longer than %d bytes", MaxText)}
		}
		d, derr := texts(s.Choices...)
		if derr != nil {
			return nil, &Error{Message: "the choices: " + derr.Error()}
		}
		g.start = g.automaton(d)
	case JSONObject:
		err = g.schema(`{"type":"object"}`, s.Compact)
	default:
		err = g.schema(s.Text, s.Compact)
	}
	if err != nil {
		return nil, asError(err)
	}
	if err := g.settle(); err != nil {
		return nil, err
	}
	g.mu.Lock()
	g.warm()
	g.mu.Unlock()
	return g, nil
}

func asError(err error) error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Message: err.Error()}
}

// Bytes is about how much memory the grammar holds.
func (g *Grammar) Bytes() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.fixed + g.used + len(g.rules)*200
}

// An expr is a term before it is known which rules are live.
type expr struct {
	op        operation
	d         *dfa
	subs      []*expr
	low, high int32
	rule      *rule

	live bool
}

func nothing() *expr { return &expr{op: opEnd} }

// automaton is a leaf; of nil, one that takes nothing.
func (g *Grammar) automaton(d *dfa) *expr {
	if d != nil {
		g.fixed += d.bytes()
	}
	return &expr{op: opLeaf, d: d}
}

func sequence(subs ...*expr) *expr { return &expr{op: opSeq, subs: subs} }

func either(subs ...*expr) *expr { return &expr{op: opAlt, subs: subs} }

func repeated(e *expr, low, high int32) *expr {
	return &expr{op: opRepeat, subs: []*expr{e}, low: low, high: high}
}

// settle finds out which rules are live, and makes the terms.
func (g *Grammar) settle() error {
	for again := true; again; {
		again = false
		known := map[*expr]bool{}
		for i := len(g.rules) - 1; i >= 0; i-- { // a rule comes before those that it was the first to call
			if r := g.rules[i]; !r.live && isLive(r.expr, known) {
				r.live, again = true, true
			}
		}
	}
	known := map[*expr]bool{}
	for _, r := range g.rules {
		isLive(r.expr, known)
	}
	if !isLive(g.start, known) {
		return &Error{Message: "no text satisfies it"}
	}
	for e, live := range known {
		e.live = live
	}
	if err := g.checkHeads(); err != nil {
		return err
	}
	g.instantiate()
	return nil
}

// isLive says whether a text can be derived from rules that are known to be live.
func isLive(e *expr, known map[*expr]bool) bool {
	if ok, found := known[e]; found {
		return ok
	}
	ok := false
	switch e.op {
	case opEnd:
		ok = true
	case opLeaf:
		ok = e.d != nil
	case opSeq:
		ok = true
		for _, s := range e.subs {
			ok = isLive(s, known) && ok
		}
	case opAlt:
		for _, s := range e.subs {
			ok = isLive(s, known) || ok
		}
	case opRepeat:
		ok = isLive(e.subs[0], known) || e.low == 0
	case opCall:
		ok = e.rule.live
	}
	known[e] = ok
	return ok
}

// checkHeads refuses rules that call themselves before they take a byte.
func (g *Grammar) checkHeads() error {
	const open, closed = 1, 2
	state := map[*rule]int{}
	var visit func(r *rule) *rule
	var heads func(e *expr) *rule
	heads = func(e *expr) *rule {
		switch e.op {
		case opCall:
			if e.rule.live {
				return visit(e.rule)
			}
		case opSeq:
			for _, s := range e.subs {
				if bad := heads(s); bad != nil {
					return bad
				}
				if !canBeEmpty(s) {
					break
				}
			}
		case opAlt, opRepeat:
			for _, s := range e.subs {
				if s.live {
					if bad := heads(s); bad != nil {
						return bad
					}
				}
			}
		}
		return nil
	}
	visit = func(r *rule) *rule {
		switch state[r] {
		case open:
			return r
		case closed:
			return nil
		}
		state[r] = open
		bad := heads(r.expr)
		state[r] = closed
		return bad
	}
	for _, r := range g.rules {
		if r.live {
			if bad := visit(r); bad != nil {
				return &Error{Path: bad.name, Keyword: "$ref", Message: "it refers to itself without an object or array between"}
			}
		}
	}
	return nil
}

func canBeEmpty(e *expr) bool {
	switch e.op {
	case opEnd:
		return true
	case opLeaf:
		return e.d != nil && e.d.accept[e.d.start]
	case opSeq:
		for _, s := range e.subs {
			if !canBeEmpty(s) {
				return false
			}
		}
		return true
	case opAlt:
		for _, s := range e.subs {
			if canBeEmpty(s) {
				return true
			}
		}
		return false
	case opRepeat:
		return e.low == 0
	}
	return false
}

// instantiate makes the terms anew.
func (g *Grammar) instantiate() {
	g.terms = map[termKey]*term{}
	g.used = 0
	g.end = &term{termKey: termKey{op: opEnd}, nullable: true}
	g.end.wide = g.end
	made := map[*expr]*term{}
	for _, r := range g.rules {
		if r.live {
			r.body = g.termOf(r.expr, made)
		}
	}
	g.root = g.termOf(g.start, made)
}

func (g *Grammar) termOf(e *expr, made map[*expr]*term) *term {
	if t := made[e]; t != nil {
		return t
	}
	var t *term
	switch e.op {
	case opEnd:
		t = g.end
	case opLeaf:
		t = g.leaf(e.d, e.d.start)
	case opSeq:
		t = g.end
		for i := len(e.subs) - 1; i >= 0; i-- {
			t = g.seq(g.termOf(e.subs[i], made), t)
		}
	case opAlt:
		for i := len(e.subs) - 1; i >= 0; i-- {
			if s := e.subs[i]; !s.live {
				continue
			} else if u := g.termOf(s, made); t == nil {
				t = u
			} else {
				t = g.alt(u, t)
			}
		}
	case opRepeat:
		if t = g.end; e.subs[0].live {
			t = g.repeat(g.termOf(e.subs[0], made), e.low, e.high)
		}
	case opCall:
		t = g.call(e.rule)
	}
	made[e] = t
	return t
}

// forget drops what was remembered. Matchers go on with the terms that they have.
func (g *Grammar) forget() { g.instantiate() }

// warm makes the masks that take longest: those within strings, and the first.
func (g *Grammar) warm() {
	g.maskOf(g.root)
	for _, r := range g.rules {
		if !r.live {
			continue
		}
		for _, m := range g.after(r.body, '"') {
			if m.rest != nil && m.rest.op != opEnd {
				g.maskOf(m.rest)
			}
		}
	}
}
