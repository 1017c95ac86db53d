package template

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// A field is a text that a participant wrote, in pieces of which some have marks around them.
type field struct {
	message int
	name    string
	pieces  []piece
}

// piece is a part of a field. Without marks open and close are 0.
type piece struct {
	text        string
	open, close rune
}

func (f *field) marked() string {
	if len(f.pieces) == 1 && f.pieces[0].open == 0 {
		return f.pieces[0].text
	}
	var b strings.Builder
	for _, p := range f.pieces {
		if p.open == 0 {
			b.WriteString(p.text)
			continue
		}
		b.WriteRune(p.open)
		b.WriteString(p.text)
		b.WriteRune(p.close)
	}
	return b.String()
}

// text is the field without marks.
func (f *field) text() string {
	if len(f.pieces) == 1 {
		return f.pieces[0].text
	}
	var b strings.Builder
	for _, p := range f.pieces {
		b.WriteString(p.text)
	}
	return b.String()
}

// Marks are from the supplementary private use areas.
const (
	firstMark = rune(0xF0000)
	lastMark  = rune(0x10FFFD)

	markLead = "\xf3\xf4" // what their UTF-8 begins with
)

// marks gives out marks that occur nowhere in the request or the template.
type marks struct {
	used map[rune]bool
	next rune
}

func (t *Template) freeMarks(c *conversation) *marks {
	m := &marks{next: firstMark}
	m.avoid(t.source)
	for _, message := range c.in.Messages {
		m.avoid(message.Role)
	}
	for i := range c.fields {
		m.avoid(c.fields[i].text())
	}
	return m
}

func (m *marks) avoid(s string) {
	if strings.IndexByte(s, markLead[0]) < 0 && strings.IndexByte(s, markLead[1]) < 0 {
		return
	}
	for _, r := range s {
		if r >= firstMark {
			if m.used == nil {
				m.used = map[rune]bool{}
			}
			m.used[r] = true
		}
	}
}

// pair returns two marks, and false if there are none left.
func (m *marks) pair() (open, close rune, ok bool) {
	one := func() rune {
		for m.used[m.next] || m.next&0xfffe == 0xfffe {
			m.next++
		}
		m.next++
		return m.next - 1
	}
	open, close = one(), one()
	return open, close, close <= lastMark
}

// marker renders with marks.
type marker struct {
	t       *Template
	c       *conversation
	marks   *marks
	plain   string
	renders int
	found   []Span
	lost    bool // a mark came out without its partner
}

// whole puts marks around all fields. It reports false when there are more fields than marks; the last ones then have none.
func (m *marker) whole() ([]field, bool) {
	fields := slices.Clone(m.c.fields)
	for i := range fields {
		open, close, ok := m.marks.pair()
		if !ok {
			return fields, false
		}
		fields[i].pieces = []piece{{fields[i].text(), open, close}}
	}
	return fields, true
}

// trimmed moves the whitespace around the fields' text out of the marks.
func trimmed(fields []field) ([]field, bool) {
	out, changed := slices.Clone(fields), false
	for i := range out {
		if pieces, yes := trimmedPiece(out[i].pieces[0]); yes {
			out[i].pieces, changed = pieces, true
		}
	}
	return out, changed
}

func trimmedPiece(p piece) ([]piece, bool) {
	core := strip(p.text, "", true, true)
	if core == p.text {
		return nil, false
	}
	if core == "" {
		return []piece{{text: p.text}}, true // nothing to mark
	}
	i := strings.Index(p.text, core)
	return []piece{{text: p.text[:i]}, {core, p.open, p.close}, {text: p.text[i+len(core):]}}, true
}

// bare are the fields without marks and without the whitespace around them.
func bare(fields []field) []field {
	out := slices.Clone(fields)
	for i := range out {
		out[i].pieces = []piece{{text: strip(out[i].text(), "", true, true)}}
	}
	return out
}

// tags are what templates look for in contents.
var tags = []string{"<think>", "</think>", "<tool_response>", "</tool_response>"}

// divided leaves tags in fields out of the marks, and the whitespace beside them, each part of the field having marks of its own.
func (m *marker) divided(fields []field) ([]field, bool) {
	out, changed := slices.Clone(fields), false
	for i := range out {
		text := out[i].text()
		var pieces []piece
		add := func(s string) {
			p := piece{text: s}
			var ok bool
			if p.open, p.close, ok = m.marks.pair(); !ok {
				p.open = 0
			}
			if inner, yes := trimmedPiece(p); yes {
				pieces = append(pieces, inner...)
			} else if s != "" {
				pieces = append(pieces, p)
			}
		}
		for {
			at, tag := len(text), ""
			for _, t := range tags {
				if k := strings.Index(text, t); k >= 0 && k < at {
					at, tag = k, t
				}
			}
			if tag == "" {
				break
			}
			add(text[:at])
			pieces = append(pieces, piece{text: tag})
			text = text[at+len(tag):]
		}
		if pieces != nil {
			add(text)
			out[i].pieces, changed = pieces, true
		}
	}
	return out, changed
}

// all renders with all marks, and reports whether that finds every field that is printed. What it finds otherwise is kept if it
// is more than before.
func (m *marker) all(fields []field) bool {
	found, lost := m.found, m.lost
	m.found, m.lost = nil, false
	if !m.try(fields, 0, len(fields)) || len(m.found) < len(found) {
		m.found, m.lost = found, lost
		return false
	}
	return !m.lost
}

// try renders with the marks of fields[from:to], and keeps their spans if the text is the plain one.
func (m *marker) try(fields []field, from, to int) bool {
	m.renders++
	if to-from < len(fields) {
		fields = slices.Clone(fields)
		for i := range fields {
			if f := &fields[i]; i < from || i >= to {
				f.pieces = []piece{{text: f.text()}}
			}
		}
	}
	text, err := m.t.run(m.c, fields)
	if err != nil {
		return false
	}
	type place struct {
		field *field
		open  rune // of the pair that the mark belongs to
	}
	places := make(map[rune]place, 2*len(fields))
	for i := range fields {
		for _, p := range fields[i].pieces {
			if p.open != 0 {
				places[p.open], places[p.close] = place{&fields[i], p.open}, place{&fields[i], p.open}
			}
		}
	}
	var b strings.Builder
	b.Grow(len(m.plain))
	var spans []Span
	open, start, lost := rune(0), 0, false
	done := 0
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
		at, ok := places[r]
		if !ok {
			i += n
			continue
		}
		b.WriteString(text[done:i])
		i += n
		done = i
		switch {
		case r == at.open && open == 0:
			open, start = r, b.Len()
		case r != at.open && open == at.open:
			if b.Len() > start {
				spans = append(spans, Span{Start: start, End: b.Len(), Message: at.field.message, Field: at.field.name})
			}
			open = 0
		default:
			lost, open = true, 0
		}
	}
	b.WriteString(text[done:])
	if b.String() != m.plain {
		return false
	}
	m.found = append(m.found, spans...)
	m.lost = m.lost || lost || open != 0
	return true
}

// search halves fields[from:to] until those which cannot be marked stand alone.
func (m *marker) search(fields []field, from, to int) {
	if to-from < 2 || m.renders >= maxRenders {
		return
	}
	mid := (from + to) / 2
	for _, half := range [][2]int{{from, mid}, {mid, to}} {
		if m.renders < maxRenders && !m.try(fields, half[0], half[1]) {
			m.search(fields, half[0], half[1])
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
