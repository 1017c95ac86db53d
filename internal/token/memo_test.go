package token

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

// odd are characters of all classes and those that the patterns treat specially.
var odd = []string{"a", "B", "s", "t", "re", "ll", "'", "'s", "1", "23", " ", " ", "  ", "\n", "\r\n", "\t", ".", ",", "_", "é", "ſ", "日", "，", "\u0301", "²",
	"\u00a0", "\u2028", "\xff", "\xe3", "\x81", "=", "/", "\x01", "\u0e31", "ǅ", "ʰ", "א", "½", "word", "Word", "<|im_end|>", "<", "😀"}

func oddText(rng *rand.Rand, n int) string {
	var b strings.Builder
	letters := odd[:1+rng.IntN(len(odd))]
	for b.Len() < n {
		b.WriteString(letters[rng.IntN(len(letters))])
	}
	return b.String()
}

// Cutting where chunk.go says that one may changes no pattern's pieces.
func TestCutPlaces(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	cuts := map[string]int{}
	for range 4000 {
		s := oddText(rng, 1+rng.IntN(60))
		last, visible := other, false
		for j := 0; j < len(s); {
			c, n := fineAt(s, j)
			behindRun := c&coarse != last && (last == letter || last == number) && c != mark && s[j] != '\''
			for name, tok := range splitters() {
				cut := behindRun || visible && s[j] == ' '
				if tok.cut == cutLines {
					cut = j > 0 && s[j-1] == '\n' || s[j] == ' ' && j > 0 && tok.cutsSpace(s, j)
				}
				if !cut {
					continue
				}
				cuts[name]++
				if got, want := append(pieces(tok, s[:j]), pieces(tok, s[j:])...), pieces(tok, s); !slices.Equal(got, want) {
					t.Fatalf("%s: %q cut at %d: %q, whole %q", name, s, j, got, want)
				}
			}
			last, visible = c&coarse, s[j] > ' ' && s[j] < 0x7F
			j += n
		}
	}
	for name := range splitters() {
		if cuts[name] < 2000 {
			t.Errorf("cut at only %v places", cuts)
		}
	}
}

func TestChunks(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		s := oddText(rng, rng.IntN(6000))
		for name, split := range splitters() {
			var got []string
			for i := 0; i < len(s); {
				end := split.chunkEnd(s, i)
				if end <= i {
					t.Fatalf("an empty chunk at %d", i)
				}
				got = append(got, pieces(split, s[i:end])...)
				i = end
			}
			if !slices.Equal(got, pieces(split, s)) {
				t.Fatalf("%s: chunks of %q have other pieces", name, s)
			}
		}
	}
	long := strings.Repeat(sample, 20)
	var sizes []int
	for i := 0; i < len(long); {
		end := smol(t).chunkEnd(long, i)
		sizes = append(sizes, end-i)
		i = end
	}
	if n := len(long) / len(sizes); n < minChunk || n > maxChunk/2 {
		t.Errorf("chunks of %d bytes in the mean", n)
	}
}

// A change in the middle costs the chunks around it, not those behind it.
func TestMemoRemembers(t *testing.T) {
	tok := smol(t)
	m := tok.NewMemo(1 << 20)
	text := strings.Repeat(sample, 10) + strings.ToUpper(sample)
	known := func() int { return len(m.young) + len(m.old) }
	m.Encode(nil, "a", text, Options{})
	all := known()
	if want := len(text) / maxChunk; all < want {
		t.Fatalf("%d chunks are remembered, at least %d are expected", all, want)
	}
	m.Encode(nil, "a", text+" and more", Options{})
	if n := known() - all; n > 1 {
		t.Errorf("a longer text has %d new chunks", n)
	}
	all = known()
	m.Encode(nil, "a", text[:len(text)/2]+" a change "+text[len(text)/2:], Options{})
	if n := known() - all; n < 1 || n > 20 {
		t.Errorf("a changed text has %d new chunks", n)
	}
	all = known()
	m.Encode(nil, "b", text, Options{})
	if n := known() - all; n < len(text)/maxChunk {
		t.Errorf("another tenant found all but %d chunks", n)
	}
}

func TestMemoIsBounded(t *testing.T) {
	const limit = 64 << 10
	m := smol(t).NewMemo(limit)
	rng := rand.New(rand.NewPCG(9, 10))
	most := 0
	for i := range 200 {
		m.Encode(nil, fmt.Sprint(i%3), oddText(rng, 5000), Options{ParseSpecial: i%2 == 0})
		size := 0
		for _, g := range []map[uint64]*chunk{m.young, m.old} {
			for _, c := range g {
				size += c.bytes()
			}
		}
		if size > limit {
			t.Fatalf("%d bytes are remembered, %d are allowed", size, limit)
		}
		most = max(most, size)
	}
	if most < limit/2 {
		t.Errorf("never more than %d bytes were remembered", most)
	}
}

func TestMemoConcurrent(t *testing.T) {
	tok := smol(t)
	m := tok.NewMemo(64 << 10)
	texts := []string{strings.Repeat(sample, 3), strings.ToUpper(sample), strings.Repeat("naïve café ", 900), "<|im_start|>" + sample + "<|im_end|>" + sample}
	o := Options{ParseSpecial: true}
	want := make([][]int32, len(texts))
	for i, s := range texts {
		want[i] = tok.Encode(nil, s, o)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 12 {
				n := (i + k) % len(texts)
				if !slices.Equal(m.Encode(nil, fmt.Sprint(k%2), texts[n], o), want[n]) {
					t.Errorf("text %d differs", n)
				}
			}
		})
	}
	wg.Wait()
}

// FuzzMemo encodes texts made of parts of its input, which come again in other surroundings, with a memo that is often full.
func FuzzMemo(f *testing.F) {
	f.Add("<|im_start|>user\nIt's 2024<|im_end|>\n", strings.Repeat("def f(x):\n    return x + 1\n", 20), []byte{1, 2, 3, 200, 90, 17})
	f.Add(strings.Repeat("日本語、", 400), " x", []byte{0, 255, 128, 7})
	f.Add(strings.Repeat("1,2;3\r\n", 500), "'re \u00a0", []byte{9, 9, 4, 4, 1})
	var memos []*Memo
	for pre := range splitters() {
		tok := build(f, small(pre, map[string]int32{"<|im_start|>": TypeControl, "<|im_end|>": TypeControl, "<think>": TypeUserDefined}))
		memos = append(memos, tok.NewMemo(20<<10))
	}
	memos = append(memos, smol(f).NewMemo(20<<10))
	f.Fuzz(func(t *testing.T, a, b string, script []byte) {
		if len(a)+len(b) > 1<<12 {
			return
		}
		text := ""
		for i, c := range script[:min(len(script), 6)] {
			from := a
			if c&1 != 0 {
				from = b
			}
			at := len(from) * int(c) / 256
			switch c >> 1 & 3 {
			case 0:
				text += from
			case 1:
				text += from[at:]
			case 2:
				text = from[:at] + text
			case 3:
				text = text[:len(text)*int(c)/256] + from
			}
			if len(text) > 1<<13 {
				return
			}
			o := Options{ParseSpecial: c&8 != 0, NoSpecial: []Range{{at, at + int(c)}}}
			for k, m := range memos {
				want := m.t.Encode(nil, text, o)
				if got := m.Encode(nil, string(rune('a'+i%2)), text, o); !slices.Equal(got, want) {
					t.Fatalf("tokenizer %d: %q\ngot  %v\nwant %v", k, text, got, want)
				}
			}
		}
	})
}
