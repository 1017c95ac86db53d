package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestAdapters(t *testing.T) {
	for _, c := range []struct {
		lora, models []string
		want         string // of the list, or of the error
	}{
		{nil, nil, "[]"},
		{[]string{"a=x.gguf", "b = /dir/peft:0.5 "}, nil, "[{a  x.gguf 1} {b  /dir/peft 0.5}]"},
		{[]string{`a=C:\x.gguf`, `b=C:\x.gguf:-2`, "c=x:y", "d=x=1:1e-1"}, nil, `[{a  C:\x.gguf 1} {b  C:\x.gguf -2} {c  x:y 1} {d  x=1 0.1}]`},
		{[]string{"a@small=x", "b@big=y:2"}, []string{"small=m", "big=n", "alias=n"}, "[{a small x 1} {b big y 2}]"},
		{[]string{"a@x=y"}, nil, "[{a@x  y 1}]"},
		{[]string{"a=x"}, []string{"small=m"}, "with --models"},
		{[]string{"a@other=x"}, []string{"small=m"}, "with --models"},
		{[]string{"a"}, nil, "want name=path"},
		{[]string{"a="}, nil, "want name=path"},
		{[]string{"a=:2"}, nil, "want name=path"},
		{[]string{"=x"}, nil, "a name has"},
		{[]string{"a b=x"}, nil, "a name has"},
		{[]string{"a=x", "a=y"}, nil, "twice"},
		{[]string{"small@small=x"}, []string{"small=m"}, "twice"},
		{[]string{"a=x:0"}, nil, "a scale is"},
		{[]string{"a=x:1001"}, nil, "a scale is"},
		{[]string{"a=x:nan"}, nil, "a scale is"},
		{[]string{"a=x:inf"}, nil, "a scale is"},
	} {
		s := Serve{Lora: c.lora, Models: c.models}
		list, err := s.Adapters()
		got := fmt.Sprint(list)
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%q with models %q: %s, want %s", c.lora, c.models, got, c.want)
		}
	}
}

// The file may have a mapping; faults name their source; a default model may be an adapter.
func TestAdapterSettings(t *testing.T) {
	load := func(text string) (*Serve, error) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var s Serve
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		Bind(flags, &s)
		if err := flags.Parse([]string{"--config", path}); err != nil {
			t.Fatal(err)
		}
		if err := load(flags, func(string) (string, bool) { return "", false }); err != nil {
			return nil, err
		}
		return &s, s.Validate()
	}
	s, err := load("models: {small: m}\nlora:\n  a@small: x.gguf:0.5\n  b@small: y\ndefault-model: b\n")
	if err != nil {
		t.Fatal(err)
	}
	if list, err := s.Adapters(); err != nil || fmt.Sprint(list) != "[{a small x.gguf 0.5} {b small y 1}]" {
		t.Errorf("%v, %v", list, err)
	}
	for text, says := range map[string]string{
		"lora: [a]\n":                               "lora: \"a\": want name=path",
		"lora: {a: [x]}\n":                          "want a mapping of names",
		"models: {small: m}\ndefault-model: b\n":    "is not a name of --models or --lora",
		"served-model-name: a\nlora: {a: x.gguf}\n": "twice",
	} {
		if _, err := load(text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
