package token

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

func TestSpecial(t *testing.T) {
	tok := build(t, small("gpt2", map[string]int32{
		"<s>": TypeControl, "<s><s>": TypeControl, "<end>": TypeControl, "<unk>": TypeUnknown, "<think>": TypeUserDefined, "[X]": TypeUserDefined, "<gone>": TypeUnused,
	}))
	// Ids as text: special tokens in braces.
	show := func(ids []int32) string {
		var out []string
		for _, id := range ids {
			s := string(tok.Bytes(id))
			if tok.has(id, kindControl|kindUser) {
				s = "{" + s + "}"
			}
			out = append(out, s)
		}
		return strings.Join(out, "|")
	}
	parse := Options{ParseSpecial: true}
	for _, c := range []struct {
		text string
		o    Options
		want string
	}{
		{"", parse, ""},
		{"abc", parse, "a|bc"},
		{"<end>", parse, "{<end>}"},
		{"<end>", Options{}, "<|e|n|d|>"},
		{"ab<end> a<end", parse, "ab|{<end>}| a|<|e|n|d"},
		{"<s><s><s>", parse, "{<s><s>}|{<s>}"},
		{"<<s>", parse, "<|{<s>}"},
		{"<unk>", parse, "{<unk>}"},
		{"<gone>", parse, "<|g|o|n|e|>"},
		{"a<think>[X]", Options{}, "a|{<think>}|{[X]}"},
		{"b c", Options{}, "b| |c"}, // the cut comes before the merge
		{"b<s>c", parse, "b|{<s>}|c"},

		{"<s>ab<s>", Options{ParseSpecial: true, NoSpecial: []Range{{3, 5}}}, "{<s>}|ab|{<s>}"},
		{"<s>ab<s>", Options{ParseSpecial: true, NoSpecial: []Range{{3, 6}}}, "{<s>}|ab|<|s|>"},
		{"<s>ab<s>", Options{ParseSpecial: true, NoSpecial: []Range{{2, 5}}}, "<|s|>|ab|{<s>}"},
		{"<s><s>ab", Options{ParseSpecial: true, NoSpecial: []Range{{5, 8}}}, "{<s>}|<|s|>|ab"}, // the longer one is forbidden, the shorter is not
		{"<s><end><s>", Options{ParseSpecial: true, NoSpecial: []Range{{4, 4}, {9, 10}, {0, 1}, {2, 2}}}, "<|s|>|{<end>}|<|s|>"},
		{"<s><end><s>", Options{ParseSpecial: true, NoSpecial: []Range{{-5, 2}, {-4, -3}, {9, 1000}}}, "<|s|>|{<end>}|<|s|>"},
		{"<s><think>", Options{ParseSpecial: true, NoSpecial: []Range{{0, 10}}}, "<|s|>|{<think>}"},
		{"<s><s>", Options{ParseSpecial: true, NoSpecial: []Range{{0, 0}, {5, 2}}}, "{<s><s>}"},
		{"ab", Options{NoSpecial: []Range{{1, 2}}}, "ab"}, // a range does not cut
	} {
		ranges := slices.Clone(c.o.NoSpecial)
		if got := show(tok.Encode(nil, c.text, c.o)); got != c.want {
			t.Errorf("%q %+v: got %q, want %q", c.text, c.o, got, c.want)
		}
		if !slices.Equal(ranges, c.o.NoSpecial) {
			t.Errorf("%q: Encode changed the caller's ranges", c.text)
		}
	}
}

func TestAddBOS(t *testing.T) {
	c := small("gpt2", map[string]int32{"<s>": TypeControl})
	c.BOS = int32(len(c.Tokens) - 1)
	for _, model := range []bool{false, true} {
		c.AddBOS = model
		tok := build(t, c)
		for _, ask := range []bool{false, true} {
			got := tok.Encode([]int32{7}, "", Options{AddBOS: ask})
			want := []int32{7}
			if model && ask {
				want = append(want, c.BOS)
			}
			if !slices.Equal(got, want) {
				t.Errorf("model %v, options %v: %v", model, ask, got)
			}
		}
	}
}

func TestWholePiece(t *testing.T) {
	for pre, want := range map[string][]int{"qwen2": {1, 2}, "llama3": {3}} {
		tok := build(t, small(pre, nil))
		var got []int
		for _, id := range tok.Encode(nil, "abc", Options{}) {
			got = append(got, len(tok.Bytes(id)))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: lengths %v, want %v", pre, got, want)
		}
	}
}

// A byte that has no token is left out, and its neighbours become neighbours; a byte token stands in if there is one.
func TestMissingByte(t *testing.T) {
	c := small("gpt2", nil)
	c.Tokens[1] = "lost"
	tok := build(t, c)
	if got := tok.Decode(tok.Encode(nil, "a\x01b", Options{}), false); got != "ab" {
		t.Errorf("%q", got)
	}
	c.Tokens[2], c.Types[2] = "<0x01>", TypeByte
	tok = build(t, c)
	if got := tok.Encode(nil, "\x01\x02", Options{}); !slices.Equal(got, []int32{2}) {
		t.Errorf("%v", got)
	}
}

func TestNoMergeIntoControl(t *testing.T) {
	c := small("gpt2", nil)
	for id, s := range c.Tokens {
		if s == "ab" {
			c.Types[id] = TypeControl
		}
	}
	tok := build(t, c)
	for _, id := range tok.Encode(nil, "ab abab", Options{}) {
		if tok.IsControl(id) {
			t.Errorf("text became the control token %q", tok.Bytes(id))
		}
	}
}

// naive merges in the plainest way.
func naive(tok *Tokenizer, piece string) []int32 {
	var ids []int32
	for i := range len(piece) {
		if id := tok.byteID[piece[i]]; id != None {
			ids = append(ids, id)
		}
	}
	for {
		best, at := noRank, 0
		for i := 0; i+1 < len(ids); i++ {
			if r := tok.merges.rank(ids[i], ids[i+1]); r < best {
				best, at = r, i
			}
		}
		if best == noRank {
			return ids
		}
		ids = append(append(slices.Clone(ids[:at]), tok.merges.into[best]), ids[at+2:]...)
	}
}

// merge and mergeLong are two algorithms for one result; a third, naive one judges both.
func TestMergeAlgorithms(t *testing.T) {
	tok := smol(t)
	rng := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		var b []byte
		letters := "etaoin shrdlu\xc3\xa9\x01\n"[:1+rng.IntN(17)]
		for range 1 + rng.IntN(shortPiece) {
			b = append(b, letters[rng.IntN(len(letters))])
		}
		want := naive(tok, string(b))
		if got := tok.merge(nil, string(b)); !slices.Equal(got, want) {
			t.Fatalf("merge %q: got %v, want %v", b, got, want)
		}
		if got := tok.mergeLong([]int32{9}, string(b)); !slices.Equal(got[1:], want) {
			t.Fatalf("mergeLong %q: got %v, want %v", b, got, want)
		}
	}
	for _, unit := range []string{"a", " ", "=", "ab", "hello", "\n", "\x01"} {
		s := strings.Repeat(unit, 1500/len(unit))
		if got, want := tok.mergeLong(nil, s), naive(tok, s); !slices.Equal(got, want) {
			t.Fatalf("mergeLong of 1500 bytes of %q differs", unit)
		}
	}
}

// The words that are not merged are those that merging gives back.
func TestAlone(t *testing.T) {
	check := func(tok *Tokenizer) (n, all int) {
		t.Helper()
		for _, e := range tok.words.slots {
			if e.size == 0 {
				continue
			}
			all++
			s := string(tok.Bytes(e.id))
			if id := tok.words.get(s); id != e.id {
				t.Fatalf("%q is token %d, found as %d", s, e.id, id)
			}
			got := naive(tok, s)
			if e.size&alone != 0 {
				n++
				if len(got) != 1 || got[0] != e.id {
					t.Fatalf("%q is not token %d alone but %v", s, e.id, got)
				}
			}
		}
		return n, all
	}
	if n, all := check(smol(t)); n < all*99/100 {
		t.Errorf("of SmolLM 2's %d words only %d are alone", all, n)
	}
	rng := rand.New(rand.NewPCG(3, 4))
	total := 0
	for range 300 { // merges in an order in which no training would give them, of few letters, so that they overlap
		c := Config{Model: "gpt2", Pre: "gpt2", BOS: None, EOS: None, EOT: None, EOM: None, Unknown: None, Pad: None}
		add := func(s string, typ int32) { c.Tokens, c.Types = append(c.Tokens, s), append(c.Types, typ) }
		for _, s := range []string{"a", "b", "Ġ", "\n", "<0x63>"} {
			add(s, TypeNormal)
		}
		c.Types[4] = TypeByte
		seen := map[string]bool{}
		for range 60 {
			l, r := c.Tokens[rng.IntN(len(c.Tokens))], c.Tokens[rng.IntN(len(c.Tokens))]
			if len(l+r) > 12 || seen[l+" "+r] {
				continue
			}
			seen[l+" "+r] = true
			c.Merges = append(c.Merges, l+" "+r)
			if !slices.Contains(c.Tokens, l+r) {
				add(l+r, TypeNormal)
			}
		}
		rng.Shuffle(len(c.Merges), func(i, k int) { c.Merges[i], c.Merges[k] = c.Merges[k], c.Merges[i] })
		n, _ := check(build(t, c))
		total += n
	}
	if total < 2000 {
		t.Errorf("only %d words of the random vocabularies are alone", total)
	}
}

// One piece of a megabyte: with quadratic work, of some 10^12 steps, this test would not end.
func TestLongPiece(t *testing.T) {
	tok := smol(t)
	const n = 1 << 20
	for _, unit := range []string{"a", " ", "é", "<", "ab"} {
		s := strings.Repeat(unit, n/len(unit))
		ids := tok.Encode(nil, s, Options{ParseSpecial: true})
		if got := tok.Decode(ids, true); got != s {
			t.Errorf("%q is not given back", unit)
		}
		if len(ids) > n/2 {
			t.Errorf("%q: %d ids", unit, len(ids))
		}
	}
}

func TestConcurrent(t *testing.T) {
	tok := build(t, smolConfig(t)) // an empty memo
	texts := []string{sample, strings.ToUpper(sample), strings.Repeat("naïve café ", 300)}
	want := make([][]int32, len(texts))
	for i, s := range texts {
		want[i] = smol(t).Encode(nil, s, Options{})
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 6 {
				n := (i + k) % len(texts)
				if !slices.Equal(tok.Encode(nil, texts[n], Options{}), want[n]) {
					t.Errorf("text %d differs", n)
				}
			}
		})
	}
	wg.Wait()
}

func TestNoAllocation(t *testing.T) {
	tok := smol(t)
	dst := make([]int32, 0, len(sample))
	o := Options{ParseSpecial: true, NoSpecial: []Range{{10, 20}, {30, 40}}}
	tok.Encode(dst, sample, o)
	if n := testing.AllocsPerRun(20, func() { tok.Encode(dst[:0], sample, o) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzEncode(f *testing.F) {
	f.Add("<|im_start|>user\nIt's 2024<|im_end|>\n", uint8(3), 3, 9, 12, 20)
	f.Add("  \r\n\t x 12 é \xff\x01 <|im_end", uint8(1), 0, 4, -3, 2)
	f.Add(strings.Repeat("aaaa", 100), uint8(0), 5, 1, 0, 0)
	toks := []*Tokenizer{smol(f)}
	for pre := range splitters() {
		c := small(pre, map[string]int32{"<|im_start|>": TypeControl, "<|im_end|>": TypeControl, "<|im": TypeControl, "<think>": TypeUserDefined, "</": TypeUserDefined})
		c.BOS, c.AddBOS = 5, true
		toks = append(toks, build(f, c))
	}
	f.Fuzz(func(t *testing.T, text string, bits uint8, a, b, c, d int) {
		o := Options{ParseSpecial: bits&1 != 0, AddBOS: bits&2 != 0}
		if bits&4 != 0 {
			o.NoSpecial = []Range{{a, b}, {c, d}}
		}
		for i, tok := range toks {
			ids := tok.Encode(nil, text, o)
			if o.AddBOS && tok.AddBOS() {
				if ids[0] != tok.BOS() {
					t.Fatalf("tokenizer %d: no BOS", i)
				}
				ids = ids[1:]
			}
			at, want := 0, make([]byte, 0, len(text))
			for k := range len(text) {
				if i > 0 || tok.byteID[text[k]] != None {
					want = append(want, text[k])
				}
			}
			for _, id := range ids {
				end := at + len(tok.Bytes(id))
				if tok.IsControl(id) {
					if !o.ParseSpecial {
						t.Fatalf("tokenizer %d: control token %d", i, id)
					}
					for _, r := range o.NoSpecial {
						if len(want) == len(text) && r.Start < r.End && r.Start < end && at < r.End {
							t.Fatalf("tokenizer %d: control token %d at %d touches %v", i, id, at, r)
						}
					}
				}
				at = end
			}
			if got := tok.Decode(ids, true); utf8.Valid(want) && got != string(want) {
				t.Fatalf("tokenizer %d: %q became %q", i, want, got)
			}
			var raw []byte
			for _, id := range ids {
				raw = append(raw, tok.Bytes(id)...)
			}
			if string(raw) != string(want) {
				t.Fatalf("tokenizer %d: bytes %q became %q", i, want, raw)
			}
		}
	})
}

// sample is Python source of the usual mixture, some 2 kB.
const sample = `import collections
import os.path


class PrefixTree:
    """A radix tree over token ids; each edge holds a run of ids."""

    def __init__(self, block_size=32):
        self.block_size = block_size
        self.root = Node(parent=None, ids=())
        self._clock = 0  # grows with every lookup

    def match(self, ids):
        """Return (node, matched) for the longest stored prefix of ids."""
        node, matched = self.root, 0
        while matched < len(ids):
            child = node.children.get(ids[matched])
            if child is None:
                break
            n = common_prefix(child.ids, ids[matched:])
            matched += n
            if n < len(child.ids):
                return child, matched
            node = child
        return node, matched

    def insert(self, ids, block):
        node, matched = self.match(ids)
        if matched == len(ids):
            raise ValueError(f"prefix of {len(ids)!r} ids is there already: {ids[:8]}...")
        for i in range(matched, len(ids), self.block_size):
            run = tuple(ids[i:i + self.block_size])
            node = node.children.setdefault(run[0], Node(parent=node, ids=run))
            node.block = block
            block += 1
        return node


def percentile(values, q):
    values = sorted(values)
    if not values:
        raise ValueError("no values")
    k = (len(values) - 1) * q / 100.0
    lo, hi = int(k), min(int(k) + 1, len(values) - 1)
    return values[lo] + (values[hi] - values[lo]) * (k - lo)


if __name__ == '__main__':
    counts = collections.Counter(os.path.splitext(name)[1] for name in os.listdir('.'))
    for ext, n in counts.most_common(10):
        print('%-8s %6d' % (ext or "(none)", n))
    assert abs(percentile([1, 2, 3, 4], 50) - 2.5) < 1e-9, "naïve café"
`

func BenchmarkEncode(b *testing.B) {
	text := strings.Repeat(sample, 32)
	var dst []int32
	b.Run("warm", func(b *testing.B) {
		tok := smol(b)
		dst = tok.Encode(dst[:0], text, Options{})
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			dst = tok.Encode(dst[:0], text, Options{})
		}
	})
	b.Run("cold", func(b *testing.B) { // every piece is merged
		tok := smol(b)
		b.SetBytes(int64(len(text)))
		b.ReportAllocs()
		for b.Loop() {
			dst = dst[:0]
			for i := 0; i < len(text); {
				end := tok.split(text, i)
				dst = tok.merge(dst, text[i:end])
				i = end
			}
		}
	})
	b.Run("split", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			for i := 0; i < len(text); {
				i = splitSmolLM(text, i)
			}
		}
	})
	b.Run("megabyte-of-a", func(b *testing.B) {
		s := strings.Repeat("a", 1<<20)
		tok := smol(b)
		b.SetBytes(int64(len(s)))
		for b.Loop() {
			dst = tok.Encode(dst[:0], s, Options{})
		}
	})
}

func BenchmarkNew(b *testing.B) {
	c := smolConfig(b)
	for b.Loop() {
		build(b, c)
	}
}
