package template

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"kvasir/internal/llm"
)

// same holds direct evaluation against the engine; it reports whether there was any.
func same(t *testing.T, tp *Template, in Input) bool {
	t.Helper()
	got, err := tp.direct(in)
	if err != nil {
		return false
	}
	want, err := tp.indirect(in)
	if err != nil {
		t.Fatalf("%q\n%+v\ngot %q, the engine %v", tp.source, in, got.Text, err)
	}
	if got.Text != want.Text {
		t.Fatalf("%q\n%+v\ngot  %q\nwant %q", tp.source, in, got.Text, want.Text)
	}
	checkSpans(t, got, in.Messages)
	if want.Exact {
		a, b := covered(got), covered(want)
		if a != b {
			t.Fatalf("%q\n%+v\ntext %q\ngot  %v\nwant %v", tp.source, in, got.Text, got.Spans, want.Spans)
		}
	}
	return true
}

// covered shows for each byte of the text which message it is from.
func covered(r *Rendered) string {
	b := []byte(strings.Repeat(".", len(r.Text)))
	for _, s := range r.Spans {
		for i := s.Start; i < s.End; i++ {
			b[i] = byte('0' + s.Message%10)
		}
	}
	return string(b)
}

func TestDirectGolden(t *testing.T) {
	var cases []struct {
		Template, Name, Error string
		Messages              []llm.Message
		Args                  map[string]any
		Prompt                bool
	}
	if err := json.Unmarshal([]byte(read(t, "golden.json")), &cases); err != nil {
		t.Fatal(err)
	}
	n, all := map[string]int{}, map[string]int{}
	for _, c := range cases {
		tp := open(t, read(t, c.Template))
		all[c.Template]++
		if same(t, tp, Input{Messages: c.Messages, AddGenerationPrompt: c.Prompt, Args: c.Args}) {
			n[c.Template]++
			if c.Error != "" {
				t.Errorf("%s %s was evaluated directly, but should fail", c.Template, c.Name)
			}
		}
	}
	// Templates of the usual kinds are evaluated directly, but for tools and errors.
	for _, name := range []string{"chatml.jinja", "headers.jinja", "inst.jinja", "turns.jinja"} {
		if n[name] < all[name]/3 {
			t.Errorf("%s: %d of %d cases were evaluated directly", name, n[name], all[name])
		}
	}
}

// A writer makes random templates, of what direct evaluation knows above all.
type writer struct {
	rng   *rand.Rand
	depth int
}

func (w *writer) pick(options ...string) string { return options[w.rng.IntN(len(options))] }

func (w *writer) text() string {
	if w.depth++; w.depth > 5 {
		w.depth--
		return w.pick("m.content", "'x'")
	}
	defer func() { w.depth-- }()
	switch w.rng.IntN(16) {
	case 0:
		return w.text() + " + " + w.text()
	case 1:
		return w.text() + " ~ " + w.text()
	case 2:
		return w.text() + "|trim"
	case 3:
		return "(" + w.text() + " if " + w.truth() + " else " + w.text() + ")"
	case 4:
		return "(" + w.text() + ")." + w.pick("strip", "lstrip", "rstrip") + "(" + w.pick("", "'x'", "' '", "'\\n'") + ")"
	case 5:
		return "messages[" + w.number() + "].content"
	case 6:
		return w.pick("m.name", "m['content']", "m.nosuch", "v", "ns.x", "bos_token", "none", "enable", "loop.index", "loop.first")
	case 7:
		return "(" + w.text() + " or " + w.text() + ")"
	case 8:
		return w.number()
	case 9:
		return "(" + w.truth() + " and " + w.text() + ")"
	case 10, 11, 12:
		return "m.content"
	}
	return w.pick("'x'", "' y '", "'\\n'", "m.role", "'<|im_end|>'", "''")
}

func (w *writer) number() string {
	switch w.rng.IntN(6) {
	case 0:
		return w.pick("loop.index0", "loop.index", "loop.length", "loop.revindex0")
	case 1:
		return "(messages|length)"
	case 2:
		return "(" + w.number() + w.pick(" + ", " - ", " % ") + w.number() + ")"
	}
	return w.pick("0", "1", "-1", "2")
}

func (w *writer) truth() string {
	if w.depth++; w.depth > 5 {
		w.depth--
		return "loop.first"
	}
	defer func() { w.depth-- }()
	switch w.rng.IntN(12) {
	case 0:
		return w.truth() + w.pick(" and ", " or ") + w.truth()
	case 1:
		return "not " + w.truth()
	case 2:
		return w.text() + w.pick(" == ", " != ") + w.text()
	case 3:
		return w.number() + w.pick(" == ", " != ", " < ", " >= ") + w.number()
	case 4:
		return w.text() + w.pick(" in ", " not in ") + w.pick("m", "m.content", "['user', 'x']", "'xyz'")
	case 5:
		return w.pick("m", "m.content", "v", "ns", "tools", "loop", "nothing", "messages", "m.name", "add_generation_prompt", "enable") + w.pick(" is ", " is not ") +
			w.pick("defined", "none", "string", "mapping", "iterable", "sequence", "undefined", "true", "false")
	case 6:
		return "(" + w.text() + ")." + w.pick("startswith", "endswith") + "(" + w.pick("'x'", "' '", "m.role") + ")"
	case 7:
		return "m.role == " + w.pick("'user'", "'system'", "\"assistant\"")
	case 8:
		return "(" + w.truth() + ")"
	}
	return w.pick("loop.first", "loop.last", "add_generation_prompt", "m.content", "tools", "messages[0].role == 'system'", "ns.x", "v")
}

func (w *writer) body(n int) string {
	if w.depth++; w.depth > 4 {
		n = 0
	}
	defer func() { w.depth-- }()
	out := ""
	for range n {
		switch w.rng.IntN(9) {
		case 0:
			out += "{% if " + w.truth() + " %}" + w.body(2) + w.pick("", "{% else %}"+w.body(1), "{% elif "+w.truth()+" %}"+w.body(1)) + "{% endif %}"
		case 1:
			out += "{% set " + w.pick("v", "ns.x", "v") + " = " + w.text() + " %}"
		case 2:
			out += "{% for m in " + w.pick("messages", "messages[1:]", "messages[::-1]", "messages[:-1]", "messages[1:2]") + w.pick("", "", " if "+w.truth()) + " %}" + w.body(3) +
				w.pick("", "", "{% break %}", "{% if loop.first %}{% continue %}{% endif %}"+w.body(1)) + "{% endfor %}"
		case 3:
			out += w.pick("text ", "\n", "<|im_start|>")
		default:
			out += "{{ " + w.text() + " }}"
		}
	}
	return out
}

func TestDirectRandom(t *testing.T) {
	w := &writer{rng: rand.New(rand.NewPCG(1, 2))}
	contents := []string{"x", " a b ", "", "\n", "<|im_end|>", "xx y", "é", "user"}
	n := 0
	for range 4000 {
		source := "{% set ns = namespace(x='n') %}{% set v = 'v' %}{% set m = messages[0] %}" + w.pick("", "{% set messages = messages[1:] %}") + "{% for m in messages %}" + w.body(4) + "{% endfor %}" + w.body(2)
		tp, err := New(source, Options{BOS: "<s>"})
		if err != nil {
			t.Fatalf("%q: %v", source, err)
		}
		var ms []llm.Message
		for range 1 + w.rng.IntN(4) {
			m := llm.Message{Role: w.pick("user", "assistant", "system"), Content: w.pick(contents...)}
			if w.rng.IntN(4) == 0 {
				m.Name = "ann"
			}
			ms = append(ms, m)
		}
		in := Input{Messages: ms, AddGenerationPrompt: w.rng.IntN(2) == 0}
		if w.rng.IntN(3) == 0 {
			in.Args = map[string]any{"enable": []any{true, false, nil, "x"}[w.rng.IntN(4)]}
		}
		if same(t, tp, in) {
			n++
		}
	}
	if n < 600 {
		t.Errorf("only %d of the random templates were evaluated directly", n)
	}
}

// Where the engine has its own mind.
func TestDirectEdges(t *testing.T) {
	args := map[string]any{"range": "r", "strftime_now": "s"}
	for source, want := range map[string]string{
		"{% for m in messages %}{% if m.items is defined and m.get is defined %}yes{% endif %}{% endfor %}":          "yes",
		"{% set ns = namespace(items='x') %}{{ ns.items }}{% if ns.keys is defined %}yes{% endif %}":                 "xyes",
		"{% if range is string or strftime_now is string %}yes{% endif %}{{ strftime_now('%Y') }}":                   "2026",
		"{% if messages[0].content is sequence and tools is not sequence %}yes{% endif %}":                           "yes",
		"{% if messages is sequence and messages[0] is sequence %}{{ ['a', 1]|select('sequence')|join }}{% endif %}": "a",
	} {
		tp := open(t, source)
		in := Input{Messages: talk("user", "x"), Args: args}
		same(t, tp, in)
		for name, render := range map[string]func(Input) (*Rendered, error){"Render": tp.Render, "the engine": tp.indirect} {
			if r, err := render(in); err != nil || r.Text != want {
				t.Errorf("%s of %q: %v, %v, want %q", name, source, r, err, want)
			}
		}
	}
}

// What the engine refuses is not evaluated.
func TestDirectRefuses(t *testing.T) {
	for _, source := range []string{
		"{{ 'x' if true if true else 'y' }}",
		"{{ 'x' if true if (true) else 'y' }}",
		"{% set ns = namespace() %}{% set ns.x = ns %}",
		"{{ nothing.strip() }}",
		"{% set x = 'a' %}{% set x.y = 'b' %}",
	} {
		tp := open(t, source)
		in := Input{Messages: talk("user", "x")}
		if _, err := tp.indirect(in); err == nil {
			t.Errorf("the engine renders %q", source)
		}
		if r, err := tp.direct(in); err == nil {
			t.Errorf("%q is evaluated: %q", source, r.Text)
		}
	}
}

// A template that would not end gives up in time.
func TestDirectLimits(t *testing.T) {
	source := strings.Repeat("{% for m in messages %}", 12) + "{{ m.content }}" + strings.Repeat("{% endfor %}", 12)
	tp := open(t, source)
	if _, err := tp.direct(Input{Messages: talk(strings.Split(strings.Repeat("user x ", 20), " ")...)}); err == nil {
		t.Error("20^12 iterations were made")
	}
	source = "{% set ns = namespace(x='xxxxxxxx') %}" + strings.Repeat("{% set ns.x = ns.x ~ ns.x %}", 60)
	if _, err := open(t, source).direct(Input{Messages: talk("user", "x")}); err == nil {
		t.Error("2^63 bytes were made")
	}
}

func BenchmarkDirect(b *testing.B) {
	for _, n := range []int{1, 100} {
		var turns []string
		for range n {
			turns = append(turns, "user", strings.Repeat("some words ", 12000/n))
		}
		for _, name := range []string{"chatml", "headers"} {
			b.Run(fmt.Sprint(name, n), func(b *testing.B) {
				tp := open(b, read(b, name+".jinja"))
				in := Input{Messages: talk(turns...), AddGenerationPrompt: true}
				b.ReportAllocs()
				for b.Loop() {
					if _, err := tp.direct(in); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
