package template

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ardanlabs/jinja"
)

// arguments are those of a filter or a method, without the value that it is applied to.
type arguments struct {
	args   []jinja.Value
	kwargs map[string]jinja.Value
}

// at returns the argument that has position i or is called name. With i -1 it has no position, with "" no name.
func (a arguments) at(i int, name string) (jinja.Value, bool) {
	if i >= 0 && i < len(a.args) {
		return a.args[i], true
	}
	v, ok := a.kwargs[name]
	return v, ok && name != ""
}

func (a arguments) text(i int, name, otherwise string) string {
	if v, ok := a.at(i, name); ok && !v.IsNone() {
		return str(v)
	}
	return otherwise
}

func (a arguments) integer(i int, name string, otherwise int) (int, error) {
	v, ok := a.at(i, name)
	switch {
	case !ok || v.IsNone():
		return otherwise, nil
	case v.IsInt():
		return int(min(max(v.AsInt(), math.MinInt32), math.MaxInt32)), nil
	}
	return 0, fmt.Errorf("an integer is expected, not %s", repr(v))
}

func (a arguments) truth(i int, name string) bool {
	v, ok := a.at(i, name)
	return ok && v.IsTruthy()
}

// filter is a filter or a method of this package.
type filter func(s *state, v jinja.Value, a arguments) (jinja.Value, error)

// filters take the place of the engine's, where those differ from Python's, have no bound or are missing.
var filters map[string]filter

func init() { // not a literal: map applies filters by name
	filters = map[string]filter{
		"tojson":     filterToJSON,
		"trim":       filterTrim,
		"join":       filterJoin,
		"replace":    method("replace"),
		"indent":     filterIndent,
		"map":        filterMap,
		"select":     choose(true, false),
		"reject":     choose(false, false),
		"selectattr": choose(true, true),
		"rejectattr": choose(false, true),
		"sort":       filterSort,
		"first":      edge(func(n int) int { return 0 }),
		"last":       edge(func(n int) int { return n - 1 }),
		"list":       filterList,
		"int":        filterInt,
		"float":      filterFloat,
		"string": func(s *state, v jinja.Value, _ arguments) (jinja.Value, error) {
			return jinja.NewString(str(v)), s.check(v)
		},
		"upper":      method("upper"),
		"lower":      method("lower"),
		"title":      method("title"),
		"capitalize": method("capitalize"),
		"default":    filterDefault,
		"d":          filterDefault,
		"length":     filterLength,
		"count":      filterLength,
	}
}

// engineFilters are the engine's own that are used as they are.
var engineFilters = []string{"items", "reverse", "unique", "safe", "round", "abs", "wordcount", "escape", "e", "dictsort", "max", "min", "sum", "batch", "fromjson", "from_json"}

// tests are the engine's.
var tests = []string{"defined", "undefined", "none", "boolean", "integer", "float", "number", "string", "mapping", "iterable", "sequence",
	"callable", "true", "false", "eq", "equalto", "ne", "gt", "greaterthan", "ge", "lt", "lessthan", "le", "in", "odd", "even", "upper", "lower", "sameas"}

func knownFilter(name string) error {
	if _, ok := filters[name]; ok || slices.Contains(engineFilters, name) {
		return nil
	}
	names := append(slices.Sorted(maps.Keys(filters)), engineFilters...)
	slices.Sort(names)
	return fmt.Errorf("the filter %q is not supported; supported are %s", name, strings.Join(names, ", "))
}

// method applies a string's method as a filter.
func method(name string) filter {
	return func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		if err := s.check(v); err != nil {
			return undefined(err)
		}
		return stringMethods[name](s, jinja.NewString(str(v)), a)
	}
}

func filterToJSON(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	if err := s.check(v); err != nil {
		return undefined(err)
	}
	style := jsonStyle{item: ", ", key: ": ", sort: a.truth(-1, "sort_keys")}
	if in, ok := a.kwargs["indent"]; ok && !in.IsNone() {
		style.item = ","
		if style.indent = "\t"; !in.IsString() || in.AsString() != "\t" {
			n, err := a.integer(-1, "indent", 0)
			if err != nil || n < 0 || n > 16 {
				return undefined(errors.New("tojson: indent is a number from 0 to 16"))
			}
			style.indent = strings.Repeat(" ", n)
		}
	}
	if sep, ok := a.kwargs["separators"]; ok && !sep.IsNone() {
		if !sep.IsList() || sep.AsList().Len() != 2 {
			return undefined(errors.New("tojson: separators are two strings"))
		}
		style.item, style.key = str(sep.AsList().Get(0)), str(sep.AsList().Get(1))
	}
	if len(a.args) > 0 || a.truth(-1, "ensure_ascii") {
		return undefined(errors.New("tojson takes indent, separators and sort_keys, by name"))
	}
	if len(style.item)+len(style.key) > 64 {
		return undefined(errors.New("tojson: separators are too long"))
	}
	var b strings.Builder
	err := writeJSON(&b, v, style, 0)
	return jinja.NewString(b.String()), err
}

func filterTrim(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	if err := s.check(v); err != nil {
		return undefined(err)
	}
	return jinja.NewString(strip(str(v), a.text(0, "chars", ""), true, true)), nil
}

// elements lists what iterating over v gives.
func elements(v jinja.Value) ([]jinja.Value, error) {
	switch {
	case v.IsList():
		return v.AsList().Items, nil
	case v.IsUndefined():
		return nil, nil
	case v.IsString():
		var out []jinja.Value
		for _, r := range v.AsString() {
			out = append(out, jinja.NewString(string(r)))
		}
		return out, nil
	case v.IsDict():
		var out []jinja.Value
		for _, k := range v.AsDict().Keys {
			out = append(out, jinja.NewString(k))
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s is not iterable", repr(v))
}

// elementsOrNone is elements for the filters that take every false value as an empty sequence.
func elementsOrNone(v jinja.Value) ([]jinja.Value, error) {
	if !v.IsTruthy() {
		return nil, nil
	}
	return elements(v)
}

// attribute follows a dotted path of names and indices.
func attribute(v jinja.Value, path string) jinja.Value {
	for name := range strings.SplitSeq(path, ".") {
		switch i, err := strconv.Atoi(name); {
		case v.IsDict():
			v, _ = v.AsDict().Get(name)
		case v.IsList() && err == nil && i >= 0 && i < v.AsList().Len():
			v = v.AsList().Get(i)
		default:
			return jinja.Undefined()
		}
	}
	return v
}

func filterJoin(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	items, err := elements(v)
	if err != nil {
		return undefined(err)
	}
	if at, ok := a.at(1, "attribute"); ok && !at.IsNone() {
		items = slices.Clone(items)
		for i := range items {
			items[i] = attribute(items[i], str(at))
		}
	}
	return s.join(items, a.text(0, "d", ""))
}

func (s *state) join(items []jinja.Value, sep string) (jinja.Value, error) {
	if err := s.check(items...); err != nil {
		return undefined(err)
	}
	if len(sep) > 0 {
		if err := s.allow(min(len(items), s.size+1) * len(sep)); err != nil {
			return undefined(err)
		}
	}
	parts := make([]string, len(items))
	for i := range items {
		parts[i] = str(items[i])
	}
	return jinja.NewString(strings.Join(parts, sep)), nil
}

func (s *state) repeat(t string, n int) (jinja.Value, error) {
	if len(t) > 0 && n > s.size/len(t) {
		return undefined(limitError("a value is too large"))
	}
	return jinja.NewString(strings.Repeat(t, max(n, 0))), nil
}

func filterIndent(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	if err := s.check(v); err != nil {
		return undefined(err)
	}
	pad := ""
	if w, ok := a.at(0, "width"); ok && w.IsString() {
		pad = w.AsString()
	} else {
		n, err := a.integer(0, "width", 4)
		if err != nil {
			return undefined(err)
		}
		p, err := s.repeat(" ", n)
		if err != nil {
			return undefined(err)
		}
		pad = p.AsString()
	}
	first, blank := a.truth(1, "first"), a.truth(2, "blank")
	lines := strings.Split(str(v), "\n")
	if err := s.allow(len(lines) * len(pad)); err != nil {
		return undefined(err)
	}
	for i, l := range lines {
		if i == 0 && first || i > 0 && (blank || l != "") {
			lines[i] = pad + l
		}
	}
	return jinja.NewString(strings.Join(lines, "\n")), nil
}

func filterMap(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	items, err := elementsOrNone(v)
	if err != nil {
		return undefined(err)
	}
	out := make([]jinja.Value, len(items))
	if at, ok := a.kwargs["attribute"]; ok {
		for i := range items {
			if out[i] = attribute(items[i], str(at)); out[i].IsUndefined() {
				if d, ok := a.kwargs["default"]; ok {
					out[i] = d
				}
			}
		}
		return jinja.NewList(out), nil
	}
	name := a.text(0, "", "")
	f, ok := filters[name]
	if !ok {
		return undefined(fmt.Errorf("map: the filter %q is not supported here", name))
	}
	left := s.size
	for i := range items {
		if out[i], err = f(s, items[i], arguments{a.args[1:], a.kwargs}); err != nil {
			return undefined(err)
		}
		if !measure(out[i], &left, 0, nil) {
			return undefined(limitError("a value is too large"))
		}
	}
	return jinja.NewList(out), nil
}

// choose is select, reject, selectattr and rejectattr. The test is the engine's, run through its own filter on one element.
func choose(want, attr bool) filter {
	return func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		items, err := elementsOrNone(v)
		if err != nil {
			return undefined(err)
		}
		args, path := a.args, ""
		if attr {
			if len(args) == 0 {
				return undefined(errors.New("the attribute's name is missing"))
			}
			path, args = str(args[0]), args[1:]
		}
		test := ""
		if len(args) > 0 {
			if test = str(args[0]); !slices.Contains(tests, test) && !slices.Contains([]string{"==", "!=", "<", "<=", ">", ">="}, test) {
				return undefined(fmt.Errorf("the test %q is not supported; supported are %s", test, strings.Join(tests, ", ")))
			}
			args = args[1:]
		}
		var out []jinja.Value
		for _, item := range items {
			x := item
			if attr {
				x = attribute(item, path)
			}
			ok := x.IsTruthy()
			if test != "" {
				if ok, err = runTest(test, x, args); err != nil {
					return undefined(err)
				}
			}
			if ok == want {
				out = append(out, item)
			}
		}
		return jinja.NewList(out), nil
	}
}

// engineTest is the engine's test for one of tests. Its sequence takes lists only; Python's texts and dicts are sequences too.
func engineTest(name string) string {
	if name == "sequence" {
		return "iterable"
	}
	return name
}

// testers run one of the engine's tests, with an argument and without.
var testers = func() map[string][2]*jinja.Template {
	m := map[string][2]*jinja.Template{}
	for _, t := range tests {
		m[t] = [2]*jinja.Template{compile("{{ x is " + engineTest(t) + " }}"), compile("{{ x is " + engineTest(t) + "(y) }}")}
	}
	for _, t := range []string{"==", "!=", "<", "<=", ">", ">="} {
		m[t] = [2]*jinja.Template{nil, compile("{{ x " + t + " y }}")}
	}
	return m
}()

func compile(source string) *jinja.Template {
	t, err := jinja.Compile(source)
	if err != nil {
		panic(err) // a constant of this package
	}
	return t
}

func runTest(name string, x jinja.Value, args []jinja.Value) (bool, error) {
	data := map[string]jinja.Value{"x": x}
	if len(args) > 0 {
		data["y"] = args[0]
	}
	t := testers[name][min(len(args), 1)]
	if t == nil {
		return false, fmt.Errorf("the test %q takes an argument", name)
	}
	out, err := t.RenderValues(data)
	return out == "True", err
}

func filterSort(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	items, err := elements(v)
	if err != nil {
		return undefined(err)
	}
	items = slices.Clone(items)
	path, sensitive := a.text(2, "attribute", ""), a.truth(1, "case_sensitive")
	key := func(v jinja.Value) jinja.Value {
		if path != "" {
			v = attribute(v, path)
		}
		if v.IsString() && !sensitive {
			v = jinja.NewString(strings.ToLower(v.AsString()))
		}
		return v
	}
	slices.SortStableFunc(items, func(x, y jinja.Value) int {
		kx, ky := key(x), key(y)
		switch {
		case kx.IsString() && ky.IsString():
			return strings.Compare(kx.AsString(), ky.AsString())
		case kx.IsNumber() && ky.IsNumber():
			return int(number(kx) - number(ky))
		}
		err = fmt.Errorf("sort cannot compare %s and %s", repr(kx), repr(ky))
		return 0
	})
	if err != nil {
		return undefined(err)
	}
	if a.truth(0, "reverse") { // equal elements stay in order, as in Python
		slices.Reverse(items)
		for i := 0; i < len(items); {
			j := i + 1
			for j < len(items) && key(items[j]).Equals(key(items[i])) {
				j++
			}
			slices.Reverse(items[i:j])
			i = j
		}
	}
	return jinja.NewList(items), nil
}

func edge(index func(n int) int) filter {
	return func(s *state, v jinja.Value, _ arguments) (jinja.Value, error) {
		items, err := elements(v)
		if err != nil || len(items) == 0 {
			return undefined(err)
		}
		return items[index(len(items))], nil
	}
}

func filterList(s *state, v jinja.Value, _ arguments) (jinja.Value, error) {
	items, err := elements(v)
	return jinja.NewList(slices.Clone(items)), err
}

func filterInt(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	switch {
	case v.IsInt():
		return v, nil
	case v.IsBool() && v.AsBool():
		return jinja.NewInt(1), nil
	case v.IsFloat() && math.Abs(v.AsFloat()) < 1<<63:
		return jinja.NewInt(int64(v.AsFloat())), nil
	case v.IsString():
		t := strip(v.AsString(), "", true, true)
		if n, err := strconv.ParseInt(t, 10, 64); err == nil {
			return jinja.NewInt(n), nil
		}
		if f, err := strconv.ParseFloat(t, 64); err == nil && math.Abs(f) < 1<<63 {
			return jinja.NewInt(int64(f)), nil
		}
	}
	if d, ok := a.at(0, "default"); ok {
		return d, nil
	}
	return jinja.NewInt(0), nil
}

func filterFloat(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	switch {
	case v.IsNumber():
		return jinja.NewFloat(number(v)), nil
	case v.IsString():
		if f, err := strconv.ParseFloat(strip(v.AsString(), "", true, true), 64); err == nil {
			return jinja.NewFloat(f), nil
		}
	}
	if d, ok := a.at(0, "default"); ok {
		return d, nil
	}
	return jinja.NewFloat(0), nil
}

func filterDefault(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	if v.IsUndefined() || a.truth(1, "boolean") && !v.IsTruthy() {
		if d, ok := a.at(0, "default_value"); ok {
			return d, nil
		}
		return jinja.NewString(""), nil
	}
	return v, nil
}

func filterLength(s *state, v jinja.Value, _ arguments) (jinja.Value, error) {
	items, err := elements(v)
	return jinja.NewInt(int64(len(items))), err
}
