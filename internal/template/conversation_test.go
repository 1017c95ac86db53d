package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"kvasir/internal/llm"
)

func TestFields(t *testing.T) {
	const print = "{% for m in messages %}{{ m | tojson }};{% endfor %}{{ tools | tojson }}"
	r, err := open(t, print).Render(Input{
		Messages: []llm.Message{{Role: "user", Content: "q w"}, {Role: "assistant", Content: "gone", Name: "n"}},
		Fields:   []json.RawMessage{nil, json.RawMessage(`{"zeta": [1, 2.0, 1e2, -0.5, true, null, "x y", "\u003cz\n"], "content": null, "a": {"k k": {}, "b": [], "a": 3, "b": "plain"}}`)},
		Tools:    json.RawMessage(`[{"b": "t t"}, "<t>"]`),
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"role": "user", "content": "q w"};{"role": "assistant", "content": null, "name": "n", "zeta": [1, 2.0, 100.0, -0.5, true, null, "x y", "<z\n"], ` +
		`"a": {"k k": {}, "b": "plain", "a": 3}};[{"b": "t t"}, "<t>"]`
	if r.Text != want || !r.Exact {
		t.Errorf("got %s exact %v", r.Text, r.Exact)
	}
	var got []string
	for _, s := range r.Spans {
		got = append(got, fmt.Sprintf("%d:%s:%s", s.Message, s.Field, r.Text[s.Start:s.End]))
	}
	if want := `0:content:q w|1:name:n|1:zeta:x y|1:zeta:<z\n|1:a:k k|-1:tools:t t|-1:tools:<t>`; strings.Join(got, "|") != want {
		t.Errorf("spans %q", got)
	}
}

// What a template takes apart at tags has spans for its parts.
func TestDividedSpans(t *testing.T) {
	const source = "{% for m in messages %}{% set c = m.content %}{% if '</think>' in c %}" +
		"[{{ c.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') }}]{% set c = c.split('</think>')[-1].lstrip('\\n') %}{% endif %}" +
		"<|{{ m.role }}|>{{ c }}<|end|>{% endfor %}"
	r, err := open(t, source).Render(Input{Messages: talk("user", " a ", "assistant", "<think>\nwhy <|end|>\n</think>\n\nso <|end|>", "user", "b")})
	if err != nil {
		t.Fatal(err)
	}
	if want := "<|user|> a <|end|>[why <|end|>]<|assistant|>so <|end|><|end|><|user|>b<|end|>"; r.Text != want {
		t.Fatalf("got %q", r.Text)
	}
	var got []string
	for _, s := range r.Spans {
		got = append(got, fmt.Sprintf("%d:%s", s.Message, r.Text[s.Start:s.End]))
	}
	if want := "0:a|1:why <|end|>|1:so <|end|>|2:b"; strings.Join(got, "|") != want {
		t.Errorf("spans %q, want %s", got, want)
	}
}

func TestFieldErrors(t *testing.T) {
	tp := open(t, "{{ messages | tojson }}{{ tools }}")
	deep := strings.Repeat("[", maxNesting+2) + strings.Repeat("]", maxNesting+2)
	for raw, want := range map[string]string{
		`{`:                   "EOF",
		`[1]`:                 "not an object",
		`{"a": 1} 2`:          "more than one",
		`{"a": ` + deep + `}`: "nested",
		`{"a": 1` + strings.Repeat("0", 400) + `}`: "too large",
		`{"a": 1e999}`: "too large",
		`{"a": }`:      "invalid character",
	} {
		var e *llm.Error
		if _, err := tp.Render(Input{Messages: talk("user", "x"), Fields: []json.RawMessage{json.RawMessage(raw)}}); !errors.As(err, &e) || e.Param != "messages" || !strings.Contains(e.Message, want) {
			t.Errorf("%.40s: error %v, want one with %q", raw, err, want)
		}
	}
	var e *llm.Error
	if _, err := tp.Render(Input{Messages: talk("user", "x"), Tools: json.RawMessage(`[`)}); !errors.As(err, &e) || e.Param != "tools" {
		t.Errorf("tools: %v", err)
	}
	if _, err := tp.Render(Input{Fields: make([]json.RawMessage, 1)}); err == nil {
		t.Error("fields without a message")
	}
}

// FuzzFields renders any JSON as a message's fields and as tools with templates that look into it.
func FuzzFields(f *testing.F) {
	f.Add(`{"tool_calls":[{"function":{"name":"f","arguments":{"a":"<b> c"}}}]}`, `[{"function":{"name":"f","parameters":{"properties":{"x":{"type":"string"}}}}}]`, "<think>a</think> b")
	f.Add(`{"content":[{"type":"text","text":" a "}],"reasoning_content":"r"}`, `{"a":[1,2.5e3,"\ud800"]}`, "")
	var templates []*Template
	for _, name := range []string{"qwen3", "qwen3-coder", "harmony", "llama3", "mistral-v3"} {
		templates = append(templates, open(f, read(f, "families/"+name+".jinja")))
	}
	f.Fuzz(func(t *testing.T, fields, tools, content string) {
		in := Input{Messages: talk("user", content, "assistant", content), Fields: []json.RawMessage{nil, json.RawMessage(fields)}, Tools: json.RawMessage(tools)}
		for _, tp := range templates {
			r, err := tp.Render(in)
			if e := (*llm.Error)(nil); err != nil && !errors.As(err, &e) {
				t.Fatalf("not a caller's error: %v", err)
			}
			if err != nil {
				continue
			}
			end := 0
			for _, s := range r.Spans {
				if s.Start < end || s.End <= s.Start || s.End > len(r.Text) || s.Message < -1 || s.Message > 1 {
					t.Fatalf("bad span %+v after %d in %d bytes", s, end, len(r.Text))
				}
				end = s.End
			}
		}
	})
}

func BenchmarkAgent(b *testing.B) {
	in := Input{AddGenerationPrompt: true, Messages: talk("user", "go"), Fields: []json.RawMessage{nil},
		Tools: json.RawMessage(`[{"type":"function","function":{"name":"read_file","description":"Reads a file.","parameters":{"type":"object","properties":{"path":{"type":"string"}}}}}]`)}
	for i := range 50 {
		in.Messages = append(in.Messages, talk("assistant", "", "tool", strings.Repeat("what the tool says. ", 50))...)
		in.Fields = append(in.Fields, json.RawMessage(fmt.Sprintf(`{"tool_calls":[{"id":"a1B2c3D4e","type":"function","function":{"name":"read_file","arguments":{"path":"/a b/%d"}}}]}`, i)),
			json.RawMessage(`{"tool_call_id":"a1B2c3D4e"}`))
	}
	for _, name := range []string{"qwen3", "llama3", "harmony", "qwen3-coder"} {
		b.Run(name, func(b *testing.B) {
			tp := open(b, read(b, "families/"+name+".jinja"))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := tp.Render(in); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
