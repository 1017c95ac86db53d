package token

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

var splitters = map[string]splitFunc{"gpt2": splitGPT2, "smollm": splitSmolLM, "llama3": splitLlama3, "qwen2": splitQwen2}

func pieces(split splitFunc, s string) []string {
	var out []string
	for i := 0; i < len(s); {
		j := split(s, i)
		out = append(out, s[i:j])
		i = j
	}
	return out
}

func TestGoldenSplit(t *testing.T) {
	golden(t, "split.jsonl.gz", func(line []byte) {
		var c struct {
			T                           string
			GPT2, SmolLM, Llama3, Qwen2 []int
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]int{"gpt2": c.GPT2, "smollm": c.SmolLM, "llama3": c.Llama3, "qwen2": c.Qwen2} {
			var got []int
			for _, p := range pieces(splitters[name], c.T) {
				got = append(got, len(p))
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s %q:\ngot  %v\nwant %v", name, c.T, got, want)
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
	} {
		if got := strings.Join(pieces(splitters[name], text), "|"); got != want {
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

func FuzzSplit(f *testing.F) {
	f.Add("it's 12345 \r\n\n  x\u00a0\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for name, split := range splitters {
			if got := strings.Join(pieces(split, s), ""); got != s {
				t.Errorf("%s: %q became %q", name, s, got)
			}
		}
	})
}
