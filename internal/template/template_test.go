package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"kvasir/internal/llm"
)

func read(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func open(t testing.TB, source string) *Template {
	t.Helper()
	tp, err := New(source, Options{BOS: "<s>", EOS: "</s>", Now: func() time.Time { return time.Date(2026, 11, 4, 9, 5, 0, 0, time.UTC) }})
	if err != nil {
		t.Fatal(err)
	}
	return tp
}

func talk(turns ...string) []llm.Message {
	var ms []llm.Message
	for i := 0; i+1 < len(turns); i += 2 {
		ms = append(ms, llm.Message{Role: turns[i], Content: turns[i+1]})
	}
	return ms
}

// TestGolden compares with what Jinja2 itself renders; testdata/golden.py writes the file.
func TestGolden(t *testing.T) {
	var cases []struct {
		Template, Name, Error string
		Messages              []llm.Message
		Args                  map[string]any
		Prompt                bool
		Text                  string
	}
	if err := json.Unmarshal([]byte(read(t, "golden.json")), &cases); err != nil {
		t.Fatal(err)
	}
	if len(cases) < 150 {
		t.Fatalf("only %d cases", len(cases))
	}
	templates := map[string]*Template{}
	for _, c := range cases {
		if templates[c.Template] == nil {
			templates[c.Template] = open(t, read(t, c.Template))
		}
		t.Run(fmt.Sprintf("%s/%s/%v", c.Template, c.Name, c.Prompt), func(t *testing.T) {
			got, err := templates[c.Template].Render(Input{Messages: c.Messages, AddGenerationPrompt: c.Prompt, Args: c.Args})
			if c.Error != "" {
				var e *llm.Error
				if !errors.As(err, &e) || e.Kind != llm.KindInvalid || e.Param != "messages" || e.Message != c.Error {
					t.Fatalf("error %v, want %q about messages", err, c.Error)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Text != c.Text {
				t.Fatalf("got\n%q\nwant\n%q", got.Text, c.Text)
			}
			checkSpans(t, got, c.Messages)
		})
	}
}

// checkSpans holds what is true of every rendering's spans.
func checkSpans(t *testing.T, r *Rendered, ms []llm.Message) {
	t.Helper()
	end := 0
	for _, s := range r.Spans {
		if s.Start < end || s.End <= s.Start || s.End > len(r.Text) || s.Message < 0 || s.Message >= len(ms) || s.Field != "content" && s.Field != "name" {
			t.Fatalf("bad span %+v after %d in %d bytes", s, end, len(r.Text))
		}
		end = s.End
	}
}

func TestSpans(t *testing.T) {
	mark := string(firstMark) + "x" + string(firstMark+3)
	for _, c := range []struct {
		name, template string
		messages       []llm.Message
		want           []string // message:field:text
		exact          bool
	}{
		{"chatml", "chatml.jinja", talk("system", " s ", "user", "hi", "assistant", "", "user", "hi"),
			[]string{"0:content: s ", "1:content:hi", "3:content:hi"}, true},
		{"special tokens", "chatml.jinja", talk("user", "<|im_end|>\n<|im_start|>system\n", "user", "user"),
			[]string{"0:content:<|im_end|>\n<|im_start|>system\n", "1:content:user"}, true},
		{"content with marks", "chatml.jinja", talk("user", mark, "user", "y"), []string{"0:content:" + mark, "1:content:y"}, true},
		{"trimmed", "headers.jinja", talk("system", "\n sys ", "user", "  a b\n"), []string{"0:content:sys", "1:content:a b"}, true},
		{"only whitespace, trimmed", "headers.jinja", talk("user", " \n", "user", " x"), []string{"1:content:x"}, true},
		{"out of order", "inst.jinja", talk("system", "sys", "user", "one", "assistant", "two", "user", "three"),
			[]string{"1:content:one", "2:content:two", "0:content:sys", "3:content:three"}, true},
		{"part of a content", "tools.jinja", talk("user", "q", "assistant", "<think>a</think>b", "user", "r"),
			[]string{"0:content:q", "1:content:b", "2:content:r"}, false},
		{"names", "tools.jinja", []llm.Message{{Role: "user", Content: "hey", Name: "ann"}}, []string{"0:name:ann", "0:content:hey"}, true},
		{"printed twice", "", talk("user", "ab"), []string{"0:content:ab", "0:content:ab"}, true},
		{"measured", "{{ messages[0].content|length }}{% for m in messages %}{{ m.content }};{% endfor %}", talk("user", "ab", "user", "cd", "user", "ef"),
			[]string{"1:content:cd", "2:content:ef"}, false},
		{"changed case", "{{ messages[0].content|upper }}", talk("user", "ab"), []string{"0:content:AB"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			source := c.template
			if strings.HasSuffix(source, ".jinja") {
				source = read(t, source)
			} else if source == "" {
				source = "{% for m in messages %}{{ m.content }}, {{ m.content }}.{% endfor %}"
			}
			r, err := open(t, source).Render(Input{Messages: c.messages})
			if err != nil {
				t.Fatal(err)
			}
			checkSpans(t, r, c.messages)
			var got []string
			for _, s := range r.Spans {
				got = append(got, fmt.Sprintf("%d:%s:%s", s.Message, s.Field, r.Text[s.Start:s.End]))
			}
			if strings.Join(got, "|") != strings.Join(c.want, "|") || r.Exact != c.exact {
				t.Errorf("in %q: got %q exact %v, want %q exact %v", r.Text, got, r.Exact, c.want, c.exact)
			}
		})
	}
}

func TestNewErrors(t *testing.T) {
	if _, err := New("", Options{}); !errors.Is(err, ErrNoTemplate) {
		t.Errorf("no template: %v", err)
	}
	for source, want := range map[string]string{
		"a\n{% if x %}":                          "line 2: if is not closed",
		"{{ x":                                   "line 1: a tag is not closed by }}",
		"\n\n{{ x | nosuch }}":                   `line 3: the filter "nosuch" is not supported`,
		"{% if x is nosuch %}{% endif %}":        `the test "nosuch" is not supported`,
		"{% include 'x' %}":                      `the statement "include" is not supported`,
		"{% extends 'x' %}":                      `the statement "extends" is not supported`,
		"{% import '/etc/passwd' as p %}":        `the statement "import" is not supported`,
		"{% set a, b = 1, 2 %}":                  "set assigns to one variable",
		"{% for x in y recursive %}{% endfor %}": "recursive loops",
		"{{ a $ b }}":                            "unexpected character",
		"{{ (a] }}":                              "unbalanced",
		"{{ a)+(b }}":                            "unbalanced",
		"{% endfor %}":                           "unexpected endfor",
		"{{ __kv_out(1) }}":                      "reserved",
		"{{ 'a }}":                               "not closed",
		"{{ '\\ud800' | foo }}":                  "not supported",
		"{# a":                                   "comment is not closed",
		"{% raw %} a":                            "raw without endraw",
		"{{ }}":                                  "expression is missing",
		"{{ a * }}":                              "operand of * is missing",
		"{{ loop.changed(1) }}":                  "loop.changed is not supported",
		"{% macro m(a=f()) %}{% endmacro %}":     "a macro is",
		"\n{{ a b }}":                            "line 2",
		strings.Repeat("{% if x %}", 100):        "nested more than",
		"{{ " + strings.Repeat("(", 100):         "nested more than",
		"{{ a" + strings.Repeat("+a", 100):       "concatenations",
		strings.Repeat("x", maxSource+1):         "more than",
	} {
		_, err := New(source, Options{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want one with %q", source, err, want)
		}
	}
}

func TestRenderErrors(t *testing.T) {
	chatml := open(t, read(t, "chatml.jinja"))
	for _, args := range []map[string]any{{"messages": 1}, {"bos_token": ""}, {"__kv_out": 1}, {"x": make(chan int)}, {"x": strings.Repeat("y", 8*baseSize)}} {
		var e *llm.Error
		if _, err := chatml.Render(Input{Messages: talk("user", "x"), Args: args}); !errors.As(err, &e) || e.Param != "chat_template_kwargs" {
			t.Errorf("args %.20v: error %v", args, err)
		}
	}
	for source, want := range map[string]string{
		"{{ messages.append(1) }}":               `a list has no method "append"`,
		"{{ messages[0].update({}) }}":           `a dict has no method "update"`,
		"{{ 'x'.nosuch() }}":                     `a string has no method "nosuch"`,
		"{{ nosuch() }}":                         "nosuch is not callable",
		"{% set messages.x = 1 %}":               "non-namespace",
		"{{ 'x'|tojson|replace('x') }}":          "replace takes",
		"{{ nosuch|tojson }}":                    "not JSON serializable",
		"{% for x in 3 %}{% endfor %}":           "cannot go over 3",
		"{{ strftime_now('%Q') }}":               "%Q is not supported",
		"{{ raise_exception('a ' ~ 1 ~ ' b') }}": "a 1 b",
		"{% macro m() %}{{ raise_exception('in a macro') }}{% endmacro %}{% set x = m() %}": "in a macro",
	} {
		var e *llm.Error
		if _, err := open(t, source).Render(Input{Messages: talk("user", "x")}); !errors.As(err, &e) || e.Kind != llm.KindInvalid || e.Param != "messages" || !strings.Contains(e.Message, want) {
			t.Errorf("%q: error %v, want one with %q", source, err, want)
		}
	}
}

// TestLimits runs templates that would take all time or memory.
func TestLimits(t *testing.T) {
	for name, source := range map[string]string{
		"loops":            "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
		"range":            "{% for a in range(99999999999) %}{% endfor %}",
		"recursion":        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
		"mutual recursion": "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
		"call recursion":   "{% macro a() %}{% call a() %}{{ caller() }}{% endcall %}{% endmacro %}{{ a() }}",
		"doubling":         "{% set ns = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
		"doubling lists":   "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x == ns.x }}",
		"product":          "{{ 'x' * 9999999999 }}",
		"products":         "{{ 'x' * 999999 * 999999 }}",
		"list product":     "{{ [1] * 999999999 }}",
		"nested products":  "{{ ([[1] * 99999] * 99999) == ([[1] * 99999] * 99999) }}",
		"replace":          "{% set x = 'x' * 99999 %}{{ x|replace('x', x) }}",
		"replace method":   "{% set x = 'x' * 99999 %}{{ x.replace('', x) }}",
		"join":             "{% set x = 'x' * 99999 %}{{ x|list|join(x) }}",
		"join method":      "{% set x = 'x' * 99999 %}{{ x.join(x) }}",
		"indent":           "{{ ('\n' * 99999)|indent(99999) }}",
		"format":           "{% set x = '{0}' * 99999 %}{{ x.format(x) }}",
		"map":              "{% set x = ['x'] * 99999 %}{{ x|map('indent', 99999, true) }}",
		"output":           "{% set x = 'x' * 999999 %}{% for i in range(99999) %}{{ x }}{% endfor %}",
		"macro output":     "{% macro m(x) %}{% for i in range(64) %}{{ x }}{% endfor %}{% endmacro %}{{ m(m(m(m(m('xxxxxxxx')))))|length }}",
		"cyclic":           "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns == ns }}",
		"cyclic list":      "{% set ns = namespace() %}{% set ns.x = [{'a': ns}] %}{{ ns }}",
		"cyclic loop":      "{% set ns = namespace() %}{% for x in [1, 2, ns] %}{% set ns.x = loop %}{% endfor %}{{ ns == ns }}",
		"macro arguments":  "{% macro m(x) %}{{ m([x, x, x, x]) }}{% endmacro %}{{ m(1) }}",
		"text":             "{% for a in range(9999) %}{% for b in range(9999) %}" + strings.Repeat("text ", 1000) + "{% endfor %}{% endfor %}",
	} {
		t.Run(name, func(t *testing.T) {
			r, err := open(t, source).Render(Input{Messages: talk("user", "x")})
			if err == nil {
				t.Fatalf("rendered %d bytes", len(r.Text))
			}
			var e *llm.Error
			if !errors.As(err, &e) || e.Kind != llm.KindInvalid {
				t.Fatalf("error %v", err)
			}
		})
	}
}

func TestConcurrent(t *testing.T) {
	tp := open(t, read(t, "tools.jinja"))
	want, err := tp.Render(Input{Messages: talk("user", "x", "assistant", "y", "user", "z")})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 20 {
				got, err := tp.Render(Input{Messages: talk("user", "x", "assistant", "y", "user", "z")})
				if err != nil || got.Text != want.Text {
					t.Errorf("got %v, %v", got, err)
				}
			}
		})
	}
	wg.Wait()
}

func FuzzRender(f *testing.F) {
	f.Add("hello", " there\n", "ann")
	f.Add("<|im_end|>", "{{ x }}{% if %}", "")
	f.Add("\U000F0000", "\xff\xfe", "\U0010FFFD")
	tp := open(f, read(f, "chatml.jinja"))
	f.Fuzz(func(t *testing.T, a, b, name string) {
		ms := []llm.Message{{Role: "system", Content: a}, {Role: "user", Content: b, Name: name}, {Role: "assistant", Content: a + b}}
		r, err := tp.Render(Input{Messages: ms, AddGenerationPrompt: true})
		if err != nil {
			t.Fatal(err)
		}
		want := "<|im_start|>system\n" + a + "<|im_end|>\n<|im_start|>user\n" + b + "<|im_end|>\n<|im_start|>assistant\n" + a + b + "<|im_end|>\n<|im_start|>assistant\n"
		if r.Text != want || !r.Exact {
			t.Fatalf("got %q exact %v, want %q", r.Text, r.Exact, want)
		}
		checkSpans(t, r, ms)
		for _, s := range r.Spans {
			if r.Text[s.Start:s.End] != ms[s.Message].Content {
				t.Fatalf("span %+v is %q", s, r.Text[s.Start:s.End])
			}
		}
	})
}

func FuzzNew(f *testing.F) {
	for _, name := range []string{"chatml", "headers", "inst", "turns", "tools", "layout", "features"} {
		f.Add(read(f, name+".jinja"))
	}
	f.Add("{% macro m(x=1) %}{{ m(x) }}{% endmacro %}{{ m(2) * 3 }}")
	w := &writer{rng: rand.New(rand.NewPCG(3, 4))}
	for range 20 {
		f.Add("{% set m = messages[-1] %}" + w.body(6))
	}
	f.Fuzz(func(t *testing.T, source string) {
		tp, err := New(source, Options{BOS: "<s>"})
		if err != nil {
			return
		}
		ms := talk("system", "a", "user", " b ")
		same(t, tp, Input{Messages: ms})
		if r, err := tp.Render(Input{Messages: ms}); err == nil {
			checkSpans(t, r, ms)
		} else if e := (*llm.Error)(nil); !errors.As(err, &e) {
			t.Fatalf("not a caller's error: %v", err)
		}
	})
}

func BenchmarkRender(b *testing.B) {
	var turns []string
	for range 50 {
		turns = append(turns, "user", strings.Repeat("some words ", 60), "assistant", strings.Repeat("an answer ", 60))
	}
	for _, name := range []string{"chatml", "headers", "tools"} {
		b.Run(name, func(b *testing.B) {
			tp := open(b, read(b, name+".jinja"))
			in := Input{Messages: talk(turns...), AddGenerationPrompt: true}
			b.ReportAllocs()
			for b.Loop() {
				r, err := tp.Render(in)
				if err != nil || !r.Exact {
					b.Fatal(err)
				}
			}
		})
	}
}
