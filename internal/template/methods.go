package template

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ardanlabs/jinja"
)

// callMethod is the filter that the rewritten source calls for object.method(args…).
func callMethod(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	name := str(a.args[0])
	a.args = a.args[1:]
	table, kind := map[string]filter(nil), ""
	switch {
	case v.IsString():
		table, kind = stringMethods, "a string"
	case v.IsList():
		table, kind = listMethods, "a list"
	case v.IsDict():
		table, kind = dictMethods, "a dict"
		if f, ok := v.AsDict().Get(name); ok && f.IsCallable() { // loop.cycle(…), or a macro in a namespace
			return f.AsCallable().Fn(a.args, a.kwargs)
		}
	default:
		return undefined(fmt.Errorf("%s has no method %q", repr(v), name))
	}
	if f, ok := table[name]; ok {
		return f(s, v, a)
	}
	return undefined(fmt.Errorf("%s has no method %q that a template may call; supported are %s", kind, name, strings.Join(slices.Sorted(maps.Keys(table)), ", ")))
}

// Lists and dicts have no methods that change them: transformers' sandbox forbids those too.
var listMethods = map[string]filter{
	"index": func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		x, _ := a.at(0, "")
		i := slices.IndexFunc(v.AsList().Items, x.Equals)
		if i < 0 {
			return undefined(fmt.Errorf("%s is not in the list", repr(x)))
		}
		return jinja.NewInt(int64(i)), nil
	},
	"count": func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		x, _ := a.at(0, "")
		n := 0
		for _, item := range v.AsList().Items {
			if item.Equals(x) {
				n++
			}
		}
		return jinja.NewInt(int64(n)), nil
	},
}

var dictMethods = map[string]filter{
	"get": func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		k, ok := a.at(0, "")
		if !ok {
			return undefined(errors.New("get takes a key"))
		}
		if x, ok := v.AsDict().Get(str(k)); ok {
			return x, nil
		}
		if d, ok := a.at(1, ""); ok {
			return d, nil
		}
		return jinja.None(), nil
	},
	"items": func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		var out []jinja.Value
		for _, k := range v.AsDict().Keys {
			out = append(out, jinja.NewList([]jinja.Value{jinja.NewString(k), v.AsDict().Data[k]}))
		}
		return jinja.NewList(out), nil
	},
	"keys": func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		items, err := elements(v)
		return jinja.NewList(items), err
	},
	"values": func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		var out []jinja.Value
		for _, k := range v.AsDict().Keys {
			out = append(out, v.AsDict().Data[k])
		}
		return jinja.NewList(out), nil
	},
}

// text makes a method of a function of the string alone.
func text(f func(string) string) filter {
	return func(s *state, v jinja.Value, _ arguments) (jinja.Value, error) {
		return jinja.NewString(f(v.AsString())), nil
	}
}

// truth makes a method of a property of the string.
func truth(f func(string) bool) filter {
	return func(s *state, v jinja.Value, _ arguments) (jinja.Value, error) {
		return jinja.NewBool(f(v.AsString())), nil
	}
}

// every makes the property that a string is not empty and has f in all its characters.
func every(f func(rune) bool) filter {
	return truth(func(t string) bool { return t != "" && strings.IndexFunc(t, func(r rune) bool { return !f(r) }) < 0 })
}

func list(out ...string) (jinja.Value, error) {
	items := make([]jinja.Value, len(out))
	for i := range out {
		items[i] = jinja.NewString(out[i])
	}
	return jinja.NewList(items), nil
}

var stringMethods = map[string]filter{
	"strip":      stripMethod(true, true),
	"lstrip":     stripMethod(true, false),
	"rstrip":     stripMethod(false, true),
	"split":      split(false),
	"rsplit":     split(true),
	"splitlines": splitLines,
	"partition":  partition(strings.Index, false),
	"rpartition": partition(strings.LastIndex, true),
	"startswith": affix(strings.HasPrefix),
	"endswith":   affix(strings.HasSuffix),
	"replace":    replace,
	"join":       joinMethod,
	"upper":      text(strings.ToUpper),
	"lower":      text(strings.ToLower),
	"title":      text(title),
	"capitalize": text(capitalize),
	"count":      search(strings.Count, false),
	"find":       search(strings.Index, true),
	"rfind":      search(strings.LastIndex, true),
	"isdigit":    every(unicode.IsDigit),
	"isalpha":    every(unicode.IsLetter),
	"isalnum":    every(func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }),
	"isspace":    every(isSpace),
	"isupper":    truth(func(t string) bool { return t == strings.ToUpper(t) && t != strings.ToLower(t) }),
	"islower":    truth(func(t string) bool { return t == strings.ToLower(t) && t != strings.ToUpper(t) }),
	"removeprefix": func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		return jinja.NewString(strings.TrimPrefix(v.AsString(), a.text(0, "", ""))), nil
	},
	"removesuffix": func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		return jinja.NewString(strings.TrimSuffix(v.AsString(), a.text(0, "", ""))), nil
	},
	"format": format,
}

// strip is str.strip: chars is a set of characters, all whitespace if empty.
func strip(t, chars string, left, right bool) string {
	cut := isSpace
	if chars != "" {
		cut = func(r rune) bool { return strings.ContainsRune(chars, r) }
	}
	if left {
		t = strings.TrimLeftFunc(t, cut)
	}
	if right {
		t = strings.TrimRightFunc(t, cut)
	}
	return t
}

func stripMethod(left, right bool) filter {
	return func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		return jinja.NewString(strip(v.AsString(), a.text(0, "", ""), left, right)), nil
	}
}

func split(fromRight bool) filter {
	return func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		t := v.AsString()
		limit, err := a.integer(1, "maxsplit", -1)
		if err != nil {
			return undefined(err)
		}
		sepValue, ok := a.at(0, "sep")
		if !ok || sepValue.IsNone() {
			if limit >= 0 {
				return undefined(errors.New("split with maxsplit needs a separator"))
			}
			return list(strings.FieldsFunc(t, isSpace)...)
		}
		sep := str(sepValue)
		switch {
		case sep == "":
			return undefined(errors.New("empty separator"))
		case limit < 0:
			return list(strings.Split(t, sep)...)
		case !fromRight:
			return list(strings.SplitN(t, sep, limit+1)...)
		}
		var parts []string
		for ; limit > 0; limit-- {
			i := strings.LastIndex(t, sep)
			if i < 0 {
				break
			}
			parts = append(parts, t[i+len(sep):])
			t = t[:i]
		}
		parts = append(parts, t)
		slices.Reverse(parts)
		return list(parts...)
	}
}

func splitLines(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	var out []string
	keep := a.truth(0, "keepends")
	for t := v.AsString(); t != ""; {
		i := strings.IndexFunc(t, func(r rune) bool {
			return r >= '\n' && r <= '\r' || r >= 0x1c && r <= 0x1e || r == 0x85 || r == 0x2028 || r == 0x2029
		})
		end := len(t)
		if i < 0 {
			i = end
		} else if _, n := utf8.DecodeRuneInString(t[i:]); strings.HasPrefix(t[i:], "\r\n") {
			end = i + 2
		} else {
			end = i + n
		}
		if keep {
			i = end
		}
		out = append(out, t[:i])
		t = t[end:]
	}
	return list(out...)
}

func partition(index func(s, sep string) int, last bool) filter {
	return func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		t, sep := v.AsString(), a.text(0, "", "")
		if sep == "" {
			return undefined(errors.New("empty separator"))
		}
		i := index(t, sep)
		switch {
		case i >= 0:
			return list(t[:i], sep, t[i+len(sep):])
		case last:
			return list("", "", t)
		}
		return list(t, "", "")
	}
}

func affix(has func(s, affix string) bool) filter {
	return func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		if len(a.args) != 1 {
			return undefined(errors.New("startswith and endswith take one string or a tuple of strings"))
		}
		options := []jinja.Value{a.args[0]}
		if a.args[0].IsList() {
			options = a.args[0].AsList().Items
		}
		for _, o := range options {
			if !o.IsString() {
				return undefined(fmt.Errorf("startswith and endswith take strings, not %s", repr(o)))
			}
			if has(v.AsString(), o.AsString()) {
				return jinja.NewBool(true), nil
			}
		}
		return jinja.NewBool(false), nil
	}
}

func replace(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	if len(a.args) < 2 {
		return undefined(errors.New("replace takes an old and a new string"))
	}
	t, from, to := v.AsString(), str(a.args[0]), str(a.args[1])
	n, err := a.integer(2, "count", -1)
	if err != nil {
		return undefined(err)
	}
	if found := strings.Count(t, from); len(to) > len(from) && found > 0 {
		if err := s.allow(len(t) + min(len(to)-len(from), s.size/found+1)*found); err != nil {
			return undefined(err)
		}
	}
	return jinja.NewString(strings.Replace(t, from, to, n)), nil
}

func joinMethod(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	x, _ := a.at(0, "")
	items, err := elements(x)
	if err != nil {
		return undefined(err)
	}
	return s.join(items, v.AsString())
}

// search makes count, find and rfind; positions are in characters.
func search(f func(s, sub string) int, position bool) filter {
	return func(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
		if len(a.args) != 1 {
			return undefined(errors.New("count, find and rfind take one string"))
		}
		n := f(v.AsString(), str(a.args[0]))
		if position && n > 0 {
			n = utf8.RuneCountInString(v.AsString()[:n])
		}
		return jinja.NewInt(int64(n)), nil
	}
}

func title(t string) string {
	word := false
	return strings.Map(func(r rune) rune {
		if !unicode.IsUpper(r) && !unicode.IsLower(r) && !unicode.IsTitle(r) {
			word = false
			return r
		}
		if word {
			return unicode.ToLower(r)
		}
		word = true
		return unicode.ToTitle(r)
	}, t)
}

func capitalize(t string) string {
	_, n := utf8.DecodeRuneInString(t)
	return strings.ToUpper(t[:n]) + strings.ToLower(t[n:])
}

// format is str.format with {}, {0} and {name}, without conversions and format specifications.
func format(s *state, v jinja.Value, a arguments) (jinja.Value, error) {
	if err := s.check(a.args...); err != nil {
		return undefined(err)
	}
	var b strings.Builder
	next := 0
	for t := v.AsString(); t != ""; {
		i := strings.IndexAny(t, "{}")
		if i < 0 {
			i = len(t)
		}
		b.WriteString(t[:i])
		if t = t[i:]; t == "" {
			break
		}
		if len(t) > 1 && t[1] == t[0] {
			b.WriteByte(t[0])
			t = t[2:]
			continue
		}
		end := strings.IndexByte(t, '}')
		if end < 1 {
			return undefined(errors.New("format: a single brace"))
		}
		field := t[1:end]
		t = t[end+1:]
		n, err := strconv.Atoi(field)
		if field == "" {
			n, err = next, nil
			next++
		}
		x, ok := a.kwargs[field]
		if err == nil {
			if ok = n >= 0 && n < len(a.args); ok {
				x = a.args[n]
			}
		}
		if !ok {
			return undefined(fmt.Errorf("format: the field {%s} is not supported or has no argument", field))
		}
		b.WriteString(str(x))
		if err := s.allow(b.Len()); err != nil {
			return undefined(err)
		}
	}
	return jinja.NewString(b.String()), nil
}
