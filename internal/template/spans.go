package template

// Span says that Text[Start:End] came from a field of a message.
type Span struct {
	Start, End int
	Message    int    // -1 for the definitions of tools
	Field      string // "content", "name", "tools", or a key of Input.Fields: "tool_calls", "reasoning_content", …
}

// Rendered is a prompt's text. Spans are in rising order and do not overlap.
//
// Exact says that all text which came from contents, names and what else messages and tools have lies in spans. It is false when the
// template did more to a field than copy it, trim the whitespace around it or write it as JSON, so that its place could not be found
// for certain; such a field has no span. Roles have no spans, nor have plain words in other fields than prose (names of
// functions, types, ids): templates compare them, and they look like no special token.
type Rendered struct {
	Text  string
	Spans []Span
	Exact bool
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
	c, err := newConversation(in)
	if err != nil {
		return nil, err
	}
	plain, err := t.run(c, nil)
	if err != nil {
		return nil, err
	}
	out := &Rendered{Text: plain, Exact: true}
	if len(c.fields) == 0 {
		return out, nil
	}
	m := &marker{t: t, c: c, plain: plain, marks: t.freeMarks(c)}
	fields, ok := m.whole()
	out.Exact = ok
	if m.all(fields) {
		return m.result(out), nil
	}
	// A template that trims sees the marks in place of the whitespace: put them inside it. That says where all of the field
	// is if the whitespace is lost on the way, which a render without it shows.
	inner, changed := trimmed(fields)
	if changed && len(m.found) == 0 {
		if text, err := t.run(c, bare(fields)); err != nil || text != plain {
			out.Exact = false
		}
		if m.all(inner) {
			return m.result(out), nil
		}
	}
	// One that takes thoughts out of a content looks for the tags around them: leave those as they are.
	out.Exact = false
	if divided, changed := m.divided(inner); changed {
		if inner = divided; m.all(inner) {
			return m.result(out), nil
		}
	}
	if len(m.found) == 0 {
		m.search(inner, 0, len(inner))
	}
	return m.result(out), nil
}
