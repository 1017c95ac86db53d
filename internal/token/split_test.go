package token

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"
)

// splitters are tokenizers of all patterns, by the name in the golden files, which is a pre-tokenizer's too.
var splitters = sync.OnceValue(func() map[string]*Tokenizer {
	m := map[string]*Tokenizer{}
	for _, pre := range strings.Fields("gpt2 smollm llama3 qwen2 qwen35 seed-coder minicpm5 tekken gpt-4o deepseek-llm deepseek-coder deepseek-v3 falcon") {
		t, err := New(small(pre, nil))
		if err != nil {
			panic(err)
		}
		m[pre] = t
	}
	return m
})

func pieces(t *Tokenizer, s string) []string {
	var out []string
	var ends [maxStages]int
	for i := 0; i < len(s); {
		j := t.pieceEnd(s, i, &ends)
		out = append(out, s[i:j])
		i = j
	}
	return out
}

func TestGoldenSplit(t *testing.T) {
	golden(t, "split.jsonl.gz", func(line []byte) {
		text, all := patternLine[[]int](t, line)
		for name, want := range all {
			var got []int
			for _, p := range pieces(splitters()[name], text) {
				got = append(got, len(p))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s %q:\ngot  %v\nwant %v", name, text, got, want)
			}
		}
	})
}

// patternLine reads a line of a golden file that has an answer of every pattern.
func patternLine[T any](t *testing.T, line []byte) (text string, all map[string]T) {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(line, &raw); err != nil {
		t.Fatal(err)
	}
	all = map[string]T{}
	for name, v := range raw {
		var err error
		if name == "t" {
			err = json.Unmarshal(v, &text)
		} else {
			var x T
			err = json.Unmarshal(v, &x)
			all[name] = x
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return text, all
}

// Ids of SmolLM 2's vocabulary behind the other pre-tokenizers.
func TestGoldenPre(t *testing.T) {
	toks := map[string]*Tokenizer{}
	for name := range splitters() {
		c := smolConfig(t)
		c.Pre = name
		toks[name] = build(t, c)
	}
	golden(t, "pre.jsonl.gz", func(line []byte) {
		text, all := patternLine[[]int32](t, line)
		if len(all) != len(toks)-1 {
			t.Fatalf("%d patterns", len(all))
		}
		for name, want := range all {
			if got := toks[name].Encode(nil, text, Options{}); !slices.Equal(got, want) {
				t.Errorf("%s %q:\ngot  %v\nwant %v", name, text, got, want)
			}
		}
	})
}

func TestSplit(t *testing.T) {
	const text = "I'LL  pay $1234\r\n \n  for it's\u00a0x '\u017f"
	for name, want := range map[string]string{
		"gpt2":   "I|'|LL| | pay| $|1234|\r\n \n | for| it|'s|\u00a0|x| '|\u017f",
		"smollm": "I|'|LL| | pay| $|1|2|3|4|\r\n \n | for| it|'s|\u00a0|x| '|\u017f",
		"llama3": "I|'LL| | pay| $|123|4|\r\n \n| | for| it|'s|\u00a0x| '|\u017f",
		"qwen2":  "I|'LL| | pay| $|1|2|3|4|\r\n \n| | for| it|'s|\u00a0x| '|\u017f",
		"gpt-4o": "I'LL| | pay| $|123|4|\r\n \n| | for| it's|\u00a0x| '|\u017f",
	} {
		if got := strings.Join(pieces(splitters()[name], text), "|"); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// The tables may differ from the standard library's only in what came after its Unicode.
func TestClasses(t *testing.T) {
	last := rune(-1)
	for _, r := range classRanges {
		if r.lo <= last || r.hi < r.lo {
			t.Fatalf("range %v is out of order", r)
		}
		last = r.hi
	}
	newer := 0
	for r := range utf8.MaxRune + 1 {
		want := other
		switch {
		case unicode.IsLetter(r):
			want = letter
		case unicode.IsNumber(r):
			want = number
		case unicode.IsSpace(r):
			want = space
		}
		s := string(r)
		got, n := classAt(s, 0)
		if n != len(s) {
			t.Fatalf("%U: length %d", r, n)
		}
		if got == want {
			continue
		}
		newer++
		if unicode.In(r, unicode.L, unicode.N, unicode.P, unicode.S, unicode.Z, unicode.M) && got != other {
			t.Errorf("%U: class %d, want %d", r, got, want)
		}
	}
	if newer > 10_000 {
		t.Errorf("%d code points differ", newer)
	}
}

// Every name of a pre-tokenizer makes a tokenizer, and one that is not known is told which are.
func TestPreNames(t *testing.T) {
	for name, pre := range preTokenizers {
		if pre.chars != (name == "gemma4") || len(pre.stages) > maxStages || (pre.split == nil) != (len(pre.stages) > 0 || pre.chars) {
			t.Errorf("%s: %+v", name, pre)
		}
	}
	_, err := New(small("chameleon", nil))
	for name := range preTokenizers {
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("it's 12345 \r\n\n  x\u00a0\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for name, split := range splitters() {
			if got := strings.Join(pieces(split, s), ""); got != s {
				t.Errorf("%s: %q became %q", name, s, got)
			}
		}
	})
}
