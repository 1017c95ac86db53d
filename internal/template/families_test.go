package template

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"kvasir/internal/llm"
)

// A familyCase is a line of families.json.gz.
type familyCase struct {
	Template, Name, Text, Error, Fault string
	Messages                           []json.RawMessage
	Tools                              json.RawMessage
	Args                               map[string]any
	Prompt                             bool
}

func familyCases(t testing.TB) []familyCase {
	t.Helper()
	b, err := os.ReadFile("testdata/families.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var cases []familyCase
	s := bufio.NewScanner(z)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		var c familyCase
		if err := json.Unmarshal(s.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return cases
}

// input takes role, content and name of the messages out of their JSON.
func (c *familyCase) input(t testing.TB) Input {
	t.Helper()
	in := Input{AddGenerationPrompt: c.Prompt, Args: c.Args}
	if string(c.Tools) != "null" {
		in.Tools = c.Tools
	}
	for _, raw := range c.Messages {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		var message llm.Message
		for key, to := range map[string]*string{"role": &message.Role, "content": &message.Content, "name": &message.Name} {
			if m[key] != nil && m[key][0] == '"' {
				if err := json.Unmarshal(m[key], to); err != nil {
					t.Fatal(err)
				}
				delete(m, key)
			}
		}
		in.Messages = append(in.Messages, message)
		var rest json.RawMessage
		if len(m) > 0 {
			rest, _ = json.Marshal(m)
		}
		in.Fields = append(in.Fields, rest)
	}
	for len(in.Fields) > 0 && in.Fields[len(in.Fields)-1] == nil {
		in.Fields = in.Fields[:len(in.Fields)-1]
	}
	return in
}

func TestFamilies(t *testing.T) {
	templates, seen, lost := map[string]*Template{}, 0, 0
	for _, c := range familyCases(t) {
		tp := templates[c.Template]
		if tp == nil {
			tp = open(t, read(t, "families/"+c.Template))
			templates[c.Template] = tp
		}
		in := c.input(t)
		got, err := tp.Render(in)
		name := fmt.Sprintf("%s/%s/%v", c.Template, c.Name, c.Prompt)
		switch {
		case c.Fault != "": // what Python cannot add up, this package may
			continue
		case c.Error != "":
			var e *llm.Error
			if !errors.As(err, &e) || e.Param != "messages" || e.Message != c.Error {
				t.Errorf("%s: error %v, want %q", name, err, c.Error)
			}
			continue
		case err != nil:
			t.Errorf("%s: %v", name, err)
			continue
		case got.Text != c.Text:
			t.Errorf("%s: got\n%q\nwant\n%q", name, got.Text, c.Text)
			continue
		}
		checkFamilySpans(t, name, got, c.Messages, in)
		seen++
		if words := outside(tp.source, got, c.Messages, in.Tools); len(words) > 0 {
			lost++
			if got.Exact {
				t.Errorf("%s: %q are outside of spans in %q", name, words, got.Text)
			}
		}
	}
	if len(templates) < 11 || seen < 2000 || lost > seen/100 {
		t.Errorf("of %d renders of %d templates %d have text of participants outside of spans", seen, len(templates), lost)
	}
}

// outside lists words of the participants, none of the template's own, that are in the text outside of all spans.
func outside(source string, r *Rendered, messages []json.RawMessage, tools json.RawMessage) (words []string) {
	var rest strings.Builder
	done := 0
	for _, s := range r.Spans {
		rest.WriteString(r.Text[done:s.Start] + "\x00")
		done = s.End
	}
	rest.WriteString(r.Text[done:])
	var search func(v any)
	note := func(s string) {
		for _, word := range strings.Fields(s) {
			if len(word) > 3 && !plainWord(word) && !strings.Contains(word, `"`) && !strings.Contains(source, word) && strings.Contains(rest.String(), word) {
				words = append(words, word)
			}
		}
	}
	search = func(v any) {
		switch v := v.(type) {
		case string:
			note(v)
		case []any:
			for _, item := range v {
				search(item)
			}
		case map[string]any:
			for k, item := range v {
				note(k)
				search(item)
			}
		}
	}
	for _, raw := range append(messages, tools) {
		var v any
		if json.Unmarshal(raw, &v) == nil {
			search(v)
		}
	}
	return words
}

// checkFamilySpans holds that spans are in order and that each is text of its message's field, or JSON of it.
func checkFamilySpans(t *testing.T, name string, r *Rendered, messages []json.RawMessage, in Input) {
	t.Helper()
	end := 0
	for _, s := range r.Spans {
		if s.Start < end || s.End <= s.Start || s.End > len(r.Text) || s.Message < -1 || s.Message >= len(messages) {
			t.Fatalf("%s: bad span %+v after %d in %d bytes", name, s, end, len(r.Text))
		}
		end = s.End
		raw := in.Tools
		if s.Message >= 0 {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(messages[s.Message], &m); err != nil {
				t.Fatal(err)
			}
			if raw = m[s.Field]; raw == nil {
				t.Errorf("%s: message %d has no %s", name, s.Message, s.Field)
			}
		}
		if text := r.Text[s.Start:s.End]; !inLeaf(raw, text) {
			t.Errorf("%s: span %+v is %q, not of %s", name, s, text, raw)
		}
	}
}

// inLeaf reports whether text is in a string of the JSON value, as it is or escaped.
func inLeaf(raw json.RawMessage, text string) bool {
	var v any
	if json.Unmarshal(raw, &v) != nil {
		return false
	}
	var search func(v any) bool
	has := func(s string) bool {
		var b strings.Builder
		quoteJSON(&b, s)
		return strings.Contains(s, text) || strings.Contains(b.String(), text)
	}
	search = func(v any) bool {
		switch v := v.(type) {
		case string:
			return has(v)
		case []any:
			for _, item := range v {
				if search(item) {
					return true
				}
			}
		case map[string]any:
			for k, item := range v {
				if has(k) || search(item) {
					return true
				}
			}
		}
		return false
	}
	return search(v)
}
