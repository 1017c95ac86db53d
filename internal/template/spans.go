package template

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Span says that Text[Start:End] came from a field of a message.
type Span struct {
	Start, End int
	Message    int
	Field      string // "content" or "name"
}

// Rendered is a prompt's text. Spans are in rising order and do not overlap.
//
// Exact says that all text which came from contents and names lies in spans. It is false when the template did more to
// a field than copy it or trim the whitespace around it, so that its place could not be found for certain; such a field
// has no span. Roles have no spans: templates compare them rather than print them.
type Rendered struct {
	Text  string
	Spans []Span
	Exact bool
}

// field is a message's field with marks around its text (before + text + after are what the template gets).
type field struct {
	message             int
	name                string
	before, text, after string
	open, close         rune
}

func (f *field) marked() string {
	if f.open == 0 {
		return f.text
	}
	return f.before + string(f.open) + f.text + string(f.close) + f.after
}

// maxRenders bounds the search for the fields that cannot be marked.
const maxRenders = 24

// Render renders a conversation. An error that the template raises is an invalid-request error about "messages" with the
// template's own words.
func (t *Template) Render(in Input) (*Rendered, error) {
	if out, err := t.direct(in); err == nil {
		return out, nil
	}
	return t.indirect(in)
}

// indirect renders with the engine.
//
// Spans are found by rendering a second time with private-use characters around every field. If what is left without them
// is the plain text, they did not change what the template does, and they say where each field went.
func (t *Template) indirect(in Input) (*Rendered, error) {
	plain, err := t.run(in, nil)
	if err != nil {
		return nil, err
	}
	out := &Rendered{Text: plain, Exact: true}
	fields, ok := t.fields(in)
	out.Exact = ok
	if len(fields) == 0 {
		return out, nil
	}
	m := &marker{t: t, in: in, plain: plain}
	if m.try(fields) {
		return m.result(out), nil
	}
	// A template that trims sees the marks in place of the whitespace: put them inside it. That says where all of the field
	// is if the whitespace is lost on the way, which a render without it shows.
	if inner, changed := trimmed(fields); changed {
		bare := slices.Clone(inner)
		for i := range bare {
			bare[i].text, bare[i].open = strip(bare[i].text, "", true, true), 0
		}
		if text, err := t.run(in, bare); err != nil || text != plain {
			out.Exact = false
		}
		if fields = inner; m.try(fields) {
			return m.result(out), nil
		}
	}
	out.Exact = false
	m.search(fields)
	return m.result(out), nil
}

// fields lists the fields that have text, with marks that occur nowhere in the request or the template. It reports false
// when there are more fields than marks.
func (t *Template) fields(in Input) ([]field, bool) {
	var used map[rune]bool
	note := func(s string) {
		if strings.IndexByte(s, markLead[0]) < 0 && strings.IndexByte(s, markLead[1]) < 0 {
			return
		}
		for _, r := range s {
			if r >= firstMark {
				if used == nil {
					used = map[rune]bool{}
				}
				used[r] = true
			}
		}
	}
	note(t.source)
	for _, m := range in.Messages {
		note(m.Role)
		note(m.Content)
		note(m.Name)
	}
	next := firstMark
	mark := func() rune {
		for used[next] || next&0xfffe == 0xfffe {
			next++
		}
		next++
		return next - 1
	}
	var fs []field
	for i, m := range in.Messages {
		for _, f := range [...]field{{message: i, name: "content", text: m.Content}, {message: i, name: "name", text: m.Name}} {
			if f.text == "" {
				continue
			}
			if f.open, f.close = mark(), mark(); f.close > lastMark {
				return fs, false
			}
			fs = append(fs, f)
		}
	}
	return fs, true
}

// Marks are from the supplementary private use areas.
const (
	firstMark = rune(0xF0000)
	lastMark  = rune(0x10FFFD)

	markLead = "\xf3\xf4" // what their UTF-8 begins with
)

// trimmed moves the whitespace around the fields' text out of the marks.
func trimmed(fields []field) ([]field, bool) {
	out, changed := make([]field, 0, len(fields)), false
	for _, f := range fields {
		core := strip(f.text, "", true, true)
		if core != f.text {
			changed = true
			if core == "" {
				f.open = 0 // nothing to mark
			} else {
				i := strings.Index(f.text, core)
				f.before, f.after, f.text = f.text[:i], f.text[i+len(core):], core
			}
		}
		out = append(out, f)
	}
	return out, changed
}

// marker renders with marks.
type marker struct {
	t       *Template
	in      Input
	plain   string
	renders int
	found   []Span
	lost    bool // a mark came out without its partner
}

// try renders with marks around fields, and keeps their spans if the text is the plain one.
func (m *marker) try(fields []field) bool {
	m.renders++
	text, err := m.t.run(m.in, fields)
	if err != nil {
		return false
	}
	marks := make(map[rune]int, 2*len(fields))
	for i, f := range fields {
		if f.open != 0 {
			marks[f.open], marks[f.close] = i, i
		}
	}
	var b strings.Builder
	b.Grow(len(m.plain))
	var spans []Span
	open, start, lost := -1, 0, false
	from := 0
	var next [2]int // where either lead comes next
	for i := 0; ; {
		for k := range next {
			if next[k] < i || i == 0 {
				if next[k] = strings.IndexByte(text[i:], markLead[k]) + i; next[k] < i {
					next[k] = len(text)
				}
			}
		}
		if i = min(next[0], next[1]); i == len(text) {
			break
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		k, ok := marks[r]
		if !ok {
			i += n
			continue
		}
		b.WriteString(text[from:i])
		i += n
		from = i
		switch f := &fields[k]; {
		case r == f.open && open < 0:
			open, start = k, b.Len()
		case r == f.close && open == k:
			if b.Len() > start {
				spans = append(spans, Span{Start: start, End: b.Len(), Message: f.message, Field: f.name})
			}
			open = -1
		default:
			lost, open = true, -1
		}
	}
	b.WriteString(text[from:])
	if b.String() != m.plain {
		return false
	}
	m.found = append(m.found, spans...)
	m.lost = m.lost || lost || open >= 0
	return true
}

// search halves the fields until those which cannot be marked stand alone.
func (m *marker) search(fields []field) {
	if len(fields) < 2 || m.renders >= maxRenders {
		return
	}
	for _, half := range [][]field{fields[:len(fields)/2], fields[len(fields)/2:]} {
		if m.renders < maxRenders && !m.try(half) {
			m.search(half)
		}
	}
}

// result puts the spans in order. Spans that overlap another are of a template that nests fields, and are dropped.
func (m *marker) result(out *Rendered) *Rendered {
	out.Exact = out.Exact && !m.lost
	slices.SortFunc(m.found, func(a, b Span) int { return a.Start - b.Start })
	for _, s := range m.found {
		if n := len(out.Spans); n > 0 && s.Start < out.Spans[n-1].End {
			out.Exact = false
			continue
		}
		out.Spans = append(out.Spans, s)
	}
	return out
}
