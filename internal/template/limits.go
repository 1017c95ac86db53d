package template

import (
	"errors"
	"fmt"
	"time"

	"github.com/ardanlabs/jinja"
)

// A template comes from a model file that nobody has looked at. The engine itself knows no bounds, so the rewritten source
// calls back here at every output, assignment, iteration and macro call. Between two of these calls lies one expression,
// which can grow what it reads by a factor of maxJoins at the most; filters and methods that can grow more ask allow first.
const (
	maxSteps   = 1 << 20 // callbacks in one render
	maxDepth   = 64      // macro calls within macro calls
	maxNesting = 64      // lists and dicts within each other
	maxTime    = 5 * time.Second

	// A value, and the rendered text, may be baseSize plus sizeFactor times the input's size, in bytes and elements;
	// all that is printed, into variables too, outputFactor times that.
	baseSize     = 1 << 20
	sizeFactor   = 8
	outputFactor = 16
)

// errLimit is what the errors about these bounds wrap.
var errLimit = errors.New("the chat template does too much for this request")

func limitError(what string) error { return fmt.Errorf("%w: %s", errLimit, what) }

// raised is what raise_exception throws.
type raised struct{ message string }

func (r *raised) Error() string { return r.message }

// state is one render's.
type state struct {
	steps, depth int
	size         int // bound of a value
	output       int // bytes that may yet be printed
	deadline     time.Time
	namespaces   map[*jinja.Dict]bool
	now          func() time.Time
}

func (s *state) step() error {
	if s.steps++; s.steps > maxSteps {
		return limitError("too many steps")
	}
	if s.steps%64 == 0 && time.Now().After(s.deadline) {
		return limitError("out of time")
	}
	return nil
}

// allow says whether a value of size n may be built.
func (s *state) allow(n int) error {
	if n < 0 || n > s.size {
		return limitError("a value is too large")
	}
	return nil
}

// check bounds the size of a value as it would be printed: a list that holds another one twice counts it twice.
func (s *state) check(vs ...jinja.Value) error {
	left := s.size
	for _, v := range vs {
		if !measure(v, &left, 0, nil) {
			return limitError("a value is too large")
		}
	}
	return nil
}

// measure takes v's size off left and reports whether something is left. It also reports false at a dict that is in without.
func measure(v jinja.Value, left *int, depth int, without map[*jinja.Dict]bool) bool {
	if *left--; *left < 0 || depth > maxNesting {
		return false
	}
	switch {
	case v.IsString():
		*left -= len(v.AsString())
	case v.IsList():
		for _, item := range v.AsList().Items {
			if !measure(item, left, depth+1, without) {
				return false
			}
		}
	case v.IsDict():
		d := v.AsDict()
		if without[d] {
			return false
		}
		for _, k := range d.Keys {
			if *left -= len(k); !measure(d.Data[k], left, depth+1, without) {
				return false
			}
		}
	}
	return *left >= 0
}

// function is a callable of the engine.
type function = func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error)

func undefined(err error) (jinja.Value, error) { return jinja.Undefined(), err }

// hooks are the functions that the rewritten source calls.
func (s *state) hooks() map[string]function {
	return map[string]function{
		hookOut: func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
			if len(args) != 1 || len(kwargs) != 0 {
				return undefined(errors.New("an output has one expression"))
			}
			if err := s.step(); err != nil {
				return undefined(err)
			}
			if !args[0].IsString() {
				if err := s.check(args[0]); err != nil {
					return undefined(err)
				}
			}
			text := str(args[0])
			if s.output -= len(text); s.output < 0 {
				return undefined(limitError("the output is too long"))
			}
			return jinja.NewString(text), nil
		},
		hookSet: func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
			return s.assign(args, kwargs)
		},
		hookSetAttr: func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
			if !args[0].IsDict() || !s.namespaces[args[0].AsDict()] {
				return undefined(errors.New("cannot assign attribute on non-namespace object"))
			}
			v, err := s.assign(args[1:], kwargs)
			if err != nil {
				return undefined(err)
			}
			return v, s.acyclic(v)
		},
		hookIter: func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
			v, err := s.assign(args, kwargs)
			if err != nil {
				return undefined(err)
			}
			if v.IsNumber() || v.IsBool() || v.IsCallable() {
				return undefined(fmt.Errorf("a for loop cannot go over %s", repr(v)))
			}
			// The engine's loop object refers to the neighbouring items.
			if !v.IsDict() {
				err = s.acyclic(v)
			}
			return v, err
		},
		hookStep: func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
			if err := s.check(args...); err != nil {
				return undefined(err)
			}
			return undefined(s.step())
		},
		hookEnter: func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
			if s.depth++; s.depth > maxDepth {
				return undefined(limitError("macros call each other too deeply"))
			}
			if err := s.check(args...); err != nil {
				return undefined(err)
			}
			return undefined(s.step())
		},
		hookLeave: func([]jinja.Value, map[string]jinja.Value) (jinja.Value, error) {
			s.depth--
			return undefined(nil)
		},
		hookMul: func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
			if len(args) != 2 || len(kwargs) != 0 {
				return undefined(errors.New("* has two operands"))
			}
			return s.product(args[0], args[1])
		},
		"namespace": func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
			if len(args) > 0 {
				return undefined(errors.New("namespace takes named arguments only"))
			}
			v := newDict(kwargs)
			if err := s.acyclic(v); err != nil {
				return undefined(err)
			}
			s.namespaces[v.AsDict()] = true
			return v, nil
		},
		"range": s.rangeOf,
		"raise_exception": func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
			r := &raised{}
			if len(args) > 0 {
				r.message = str(args[0])
			}
			return undefined(r)
		},
		"strftime_now": func(args []jinja.Value, _ map[string]jinja.Value) (jinja.Value, error) {
			if len(args) != 1 || !args[0].IsString() {
				return undefined(errors.New("strftime_now takes one string"))
			}
			text, err := strftime(args[0].AsString(), s.now())
			return jinja.NewString(text), err
		},
	}
}

// assign checks the value of an assignment; more than one make a tuple.
func (s *state) assign(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
	if len(args) == 0 || len(kwargs) != 0 {
		return undefined(errors.New("an expression is expected"))
	}
	if err := s.step(); err != nil {
		return undefined(err)
	}
	v := args[0]
	if len(args) > 1 {
		v = jinja.NewList(args)
	}
	if err := s.check(v); err != nil {
		return undefined(err)
	}
	return v, nil
}

// acyclic refuses a value with a namespace in it, where it could come to hold itself.
func (s *state) acyclic(v jinja.Value) error {
	left := s.size
	if !measure(v, &left, 0, s.namespaces) {
		return errors.New("a namespace within a list, a dict or a namespace is not supported")
	}
	return nil
}

func (s *state) product(a, b jinja.Value) (jinja.Value, error) {
	if b.IsString() || b.IsList() {
		a, b = b, a
	}
	switch {
	case a.IsInt() && b.IsInt():
		return jinja.NewInt(a.AsInt() * b.AsInt()), nil
	case a.IsNumber() && b.IsNumber():
		return jinja.NewFloat(number(a) * number(b)), nil
	case (a.IsString() || a.IsList()) && b.IsInt():
		n := int(min(max(b.AsInt(), 0), int64(s.size)+1))
		if a.IsString() {
			return s.repeat(a.AsString(), n)
		}
		items := a.AsList().Items
		if err := s.allow(len(items) * n); err != nil {
			return undefined(err)
		}
		var out []jinja.Value
		for range n {
			out = append(out, items...)
		}
		v := jinja.NewList(out)
		return v, s.check(v)
	}
	return undefined(fmt.Errorf("cannot multiply %s by %s", repr(a), repr(b)))
}

func (s *state) rangeOf(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
	ints := [3]int64{0, 0, 1}
	if len(args) < 1 || len(args) > 3 || len(kwargs) > 0 {
		return undefined(errors.New("range takes one to three integers"))
	}
	for i, a := range args {
		if !a.IsInt() {
			return undefined(fmt.Errorf("range takes integers, not %s", repr(a)))
		}
		ints[i] = a.AsInt()
	}
	if len(args) == 1 {
		ints[0], ints[1] = 0, ints[0]
	}
	if ints[2] == 0 {
		return undefined(errors.New("range's step must not be zero"))
	}
	var out []jinja.Value
	for i := ints[0]; ints[2] > 0 && i < ints[1] || ints[2] < 0 && i > ints[1]; i += ints[2] {
		if err := s.allow(len(out)); err != nil {
			return undefined(err)
		}
		out = append(out, jinja.NewInt(i))
	}
	return jinja.NewList(out), nil
}
