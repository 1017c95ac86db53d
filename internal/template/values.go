package template

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ardanlabs/jinja"
)

// value converts a request's argument. Whole floats become integers, since JSON's numbers arrive as floats.
func value(v any) (jinja.Value, error) {
	switch v := v.(type) {
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return jinja.NewInt(int64(v)), nil
		}
		return jinja.NewFloat(v), nil
	case []any:
		items := make([]jinja.Value, len(v))
		for i := range v {
			var err error
			if items[i], err = value(v[i]); err != nil {
				return undefined(err)
			}
		}
		return jinja.NewList(items), nil
	case map[string]any:
		m := make(map[string]jinja.Value, len(v))
		for k := range v {
			var err error
			if m[k], err = value(v[k]); err != nil {
				return undefined(err)
			}
		}
		return newDict(m), nil
	}
	out := jinja.FromGoValue(v)
	if out.IsUndefined() {
		return undefined(fmt.Errorf("a value of type %T cannot be given to the chat template", v))
	}
	return out, nil
}

// newDict makes a dict with sorted keys, so that renders are the same every time.
func newDict(m map[string]jinja.Value) jinja.Value {
	v := jinja.NewDict()
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		v.AsDict().Set(k, m[k])
	}
	return v
}

func number(v jinja.Value) float64 {
	if v.IsInt() {
		return float64(v.AsInt())
	}
	return v.AsFloat()
}

// str is Python's str(), and the empty string for an undefined value.
func str(v jinja.Value) string {
	switch {
	case v.IsString():
		return v.AsString()
	case v.IsUndefined():
		return ""
	}
	return repr(v)
}

// repr is Python's repr().
func repr(v jinja.Value) string {
	var b strings.Builder
	writeRepr(&b, v)
	return b.String()
}

func writeRepr(b *strings.Builder, v jinja.Value) {
	switch {
	case v.IsString():
		quoteRepr(b, v.AsString())
	case v.IsFloat():
		b.WriteString(floatRepr(v.AsFloat()))
	case v.IsList():
		b.WriteByte('[')
		for i, item := range v.AsList().Items {
			if i > 0 {
				b.WriteString(", ")
			}
			writeRepr(b, item)
		}
		b.WriteByte(']')
	case v.IsDict():
		b.WriteByte('{')
		for i, k := range v.AsDict().Keys {
			if i > 0 {
				b.WriteString(", ")
			}
			quoteRepr(b, k)
			b.WriteString(": ")
			writeRepr(b, v.AsDict().Data[k])
		}
		b.WriteByte('}')
	default:
		b.WriteString(v.String())
	}
}

func floatRepr(f float64) string {
	if math.IsInf(f, 0) || math.IsNaN(f) {
		return strings.TrimPrefix(strings.ToLower(strconv.FormatFloat(f, 'g', -1, 64)), "+")
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(f, 'e', -1, 64)
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

func quoteRepr(b *strings.Builder, s string) {
	q := '\''
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		q = '"'
	}
	b.WriteRune(q)
	for _, r := range s {
		switch {
		case r == q || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == ' ' || unicode.IsPrint(r) || unicode.Is(unicode.Co, r):
			// Python escapes private-use characters. Here they stand for themselves, since spans are found with them.
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(b, `\u%04x`, r)
		default:
			fmt.Fprintf(b, `\U%08x`, r)
		}
	}
	b.WriteRune(q)
}

// jsonStyle is the layout of Python's json.dumps.
type jsonStyle struct {
	item, key string
	indent    string
	sort      bool
}

// writeJSON is json.dumps with ensure_ascii=False, as transformers' tojson has it.
func writeJSON(b *strings.Builder, v jinja.Value, s jsonStyle, depth int) error {
	newline := func(depth int) {
		if s.indent != "" {
			b.WriteByte('\n')
			for range depth {
				b.WriteString(s.indent)
			}
		}
	}
	switch {
	case v.IsUndefined() || v.IsCallable():
		return errors.New("tojson: an undefined value is not JSON serializable")
	case v.IsNone():
		b.WriteString("null")
	case v.IsBool():
		b.WriteString(strconv.FormatBool(v.AsBool()))
	case v.IsString():
		quoteJSON(b, v.AsString())
	case v.IsFloat():
		switch f := v.AsFloat(); {
		case math.IsNaN(f):
			b.WriteString("NaN")
		case math.IsInf(f, 0):
			b.WriteString(strings.TrimPrefix(strconv.FormatFloat(f, 'g', -1, 64)+"inity", "+"))
		default:
			b.WriteString(floatRepr(f))
		}
	case v.IsList():
		items := v.AsList().Items
		b.WriteByte('[')
		for i, item := range items {
			if i > 0 {
				b.WriteString(s.item)
			}
			newline(depth + 1)
			if err := writeJSON(b, item, s, depth+1); err != nil {
				return err
			}
		}
		if len(items) > 0 {
			newline(depth)
		}
		b.WriteByte(']')
	case v.IsDict():
		keys := v.AsDict().OrderedKeys()
		if s.sort {
			slices.Sort(keys)
		}
		b.WriteByte('{')
		for i, k := range keys {
			if i > 0 {
				b.WriteString(s.item)
			}
			newline(depth + 1)
			quoteJSON(b, k)
			b.WriteString(s.key)
			if err := writeJSON(b, v.AsDict().Data[k], s, depth+1); err != nil {
				return err
			}
		}
		if len(keys) > 0 {
			newline(depth)
		}
		b.WriteByte('}')
	default:
		b.WriteString(v.String())
	}
	return nil
}

func quoteJSON(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '"', '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		case '\b':
			b.WriteString(`\b`)
		case '\f':
			b.WriteString(`\f`)
		default:
			if c < 0x20 {
				fmt.Fprintf(b, `\u%04x`, c)
			} else {
				b.WriteByte(c)
			}
		}
	}
	b.WriteByte('"')
}

// strftime is Python's, in the C locale and the time's own zone.
func strftime(format string, t time.Time) (string, error) {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		c := format[i]
		bare := c == '-' && i+1 < len(format) // glibc: no padding
		if bare {
			i++
			c = format[i]
		}
		var s string
		switch c {
		case '%':
			s = "%"
		case 'j':
			s = fmt.Sprintf("%03d", t.YearDay())
		case 'w':
			s = strconv.Itoa(int(t.Weekday()))
		case 'u':
			s = strconv.Itoa((int(t.Weekday())+6)%7 + 1)
		case 'f':
			s = fmt.Sprintf("%06d", t.Nanosecond()/1000)
		case 'e':
			s = fmt.Sprintf("%2d", t.Day())
		case 's':
			s = strconv.FormatInt(t.Unix(), 10)
		case 'G', 'V':
			y, w := t.ISOWeek()
			if s = fmt.Sprintf("%02d", w); c == 'G' {
				s = strconv.Itoa(y)
			}
		default:
			layout, ok := layouts[c]
			if !ok {
				return "", fmt.Errorf("strftime_now: %%%c is not supported", c)
			}
			s = t.Format(layout)
		}
		if bare {
			if s = strings.TrimLeft(s, "0 "); s == "" {
				s = "0"
			}
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

var layouts = map[byte]string{
	'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
	'B': "January", 'b': "Jan", 'h': "Jan", 'A': "Monday", 'a': "Mon", 'Z': "MST", 'z': "-0700",
	'F': "2006-01-02", 'T': "15:04:05", 'R': "15:04", 'D': "01/02/06", 'x': "01/02/06", 'X': "15:04:05",
	'c': "Mon Jan _2 15:04:05 2006",
}
