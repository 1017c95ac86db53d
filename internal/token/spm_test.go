package token

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"kvasir/internal/gguf"
)

// spmConfig is a vocabulary of testdata/spm.py.
func spmConfig(t testing.TB, name string) Config {
	t.Helper()
	var all map[string]struct {
		Model  string
		Prefix bool
		Tokens []string
		Types  []int32
		Scores []float32
		Merges []string
	}
	if err := json.Unmarshal(readGzip(t, "testdata/spm.json.gz"), &all); err != nil {
		t.Fatal(err)
	}
	c, ok := all[name]
	if !ok {
		t.Fatalf("no vocabulary %q", name)
	}
	return Config{Model: c.Model, Tokens: c.Tokens, Types: c.Types, Scores: c.Scores, Merges: c.Merges, AddSpacePrefix: c.Prefix,
		BOS: None, EOS: None, EOT: None, EOM: None, Unknown: None, Pad: None}
}

var spmNames = []string{"llama", "gemma", "loose", "gemma4"}

func TestGoldenSPM(t *testing.T) {
	toks, memos := map[string]*Tokenizer{}, map[string]*Memo{}
	for _, name := range spmNames {
		toks[name] = build(t, spmConfig(t, name))
		memos[name] = toks[name].NewMemo(1 << 20)
	}
	golden(t, "spm_ids.jsonl.gz", func(line []byte) {
		text, all := patternLine[[]int32](t, line)
		if len(all) != len(spmNames) {
			t.Fatalf("%d vocabularies", len(all))
		}
		for name, want := range all {
			tok := toks[name]
			got := tok.Encode(nil, text, Options{})
			if !slices.Equal(got, want) {
				t.Errorf("%s %q:\ngot  %v\nwant %v", name, text, got, want)
			}
			if s := tok.Decode(got, false); s != text {
				t.Errorf("%s %q became %q", name, text, s)
			}
			long := strings.Repeat(text+" ", 40) + text
			if got, want := memos[name].Encode(nil, "a", long, Options{}), tok.Encode(nil, long, Options{}); !slices.Equal(got, want) {
				t.Errorf("%s: the memo changes the ids of 41 times %q", name, text)
			}
		}
	})
}

// naiveSPM is SentencePiece's BPE by its definition, over the whole text.
func naiveSPM(c Config, text string) []int32 {
	byText := map[string]int32{}
	var bytes [256]int32
	for id, s := range c.Tokens {
		switch c.Types[id] {
		case TypeNormal:
			byText[s] = int32(id)
		case TypeByte:
			var b int
			fmt.Sscanf(s, "<0x%X>", &b)
			bytes[b] = int32(id)
		}
	}
	var symbols []string
	for i := 0; i < len(text); {
		_, n := utf8.DecodeRuneInString(text[i:])
		symbols = append(symbols, strings.ReplaceAll(text[i:i+n], " ", spaceMark))
		i += n
	}
	for {
		best, at := None, 0
		for i := 0; i+1 < len(symbols); i++ {
			if id, ok := byText[symbols[i]+symbols[i+1]]; ok && (best == None || c.Scores[id] > c.Scores[best]) {
				best, at = id, i
			}
		}
		if best == None {
			break
		}
		symbols = slices.Replace(symbols, at, at+2, symbols[at]+symbols[at+1])
	}
	var ids []int32
	for _, s := range symbols {
		if id, ok := byText[s]; ok {
			ids = append(ids, id)
			continue
		}
		for i := range len(s) {
			ids = append(ids, bytes[s[i]])
		}
	}
	return ids
}

// randomSPM is a vocabulary that no training would give: scores of any order, many of them equal, tokens that begin and end
// anywhere, and characters that are in tokens without being one.
func randomSPM(rng *rand.Rand) (c Config, letters []string) {
	c = Config{Model: "llama", BOS: None, EOS: None, EOT: None, EOM: None, Unknown: None, Pad: None}
	add := func(s string, typ int32, score float32) {
		c.Tokens, c.Types, c.Scores = append(c.Tokens, s), append(c.Types, typ), append(c.Scores, score)
	}
	for b := range 256 {
		add(fmt.Sprintf("<0x%02X>", b), TypeByte, 0)
	}
	letters = []string{spaceMark, "a", "b", "é", "日", "x"}
	seen := map[string]bool{}
	for _, s := range letters[:1+rng.IntN(5)] {
		seen[s] = true
		add(s, TypeNormal, -1000)
	}
	known := slices.Clone(letters)
	scores := 1 + rng.IntN(40)
	for range rng.IntN(80) {
		s := known[rng.IntN(len(known))] + known[rng.IntN(len(known))]
		if len(s) > 24 || seen[s] {
			continue
		}
		seen[s] = true
		known = append(known, s)
		add(s, TypeNormal, float32(-rng.IntN(scores)))
	}
	return c, append(letters, "q", " ", "\xff", "\xe6\x97", "\U0001F600", "\n")
}

func TestRandomSPM(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	ties, cuts := 0, 0
	for range 400 {
		c, letters := randomSPM(rng)
		c.AddSpacePrefix = rng.IntN(4) == 0
		tok := build(t, c)
		ties += len(tok.merges.ties)
		memo := tok.NewMemo(1 << 16)
		for range 30 {
			var b strings.Builder
			for range 1 + rng.IntN(60) {
				b.WriteString(letters[rng.IntN(len(letters))])
			}
			text := b.String()
			whole := text
			if c.AddSpacePrefix {
				whole = " " + text
			}
			want := naiveSPM(c, whole)
			if got := tok.Encode(nil, text, Options{}); !slices.Equal(got, want) {
				t.Fatalf("%q with %+v:\ngot  %v\nwant %v", text, c, got, want)
			}
			cuts += len(pieces(tok, text)) - 1
			long := strings.Repeat(text+text[:len(text)/2], 1+rng.IntN(40))
			if got, want := memo.Encode(nil, "a", long, Options{}), tok.Encode(nil, long, Options{}); !slices.Equal(got, want) {
				t.Fatalf("the memo changes the ids of %q with %+v:\ngot  %v\nwant %v", long, c, got, want)
			}
		}
	}
	if ties < 1000 || cuts < 10000 {
		t.Errorf("only %d tied merges, %d cuts", ties, cuts)
	}
}

// Long pieces, which are merged with a heap.
func TestLongSPM(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for range 60 {
		c, letters := randomSPM(rng)
		tok := build(t, c)
		var b strings.Builder
		for b.Len() < 300 {
			b.WriteString(letters[rng.IntN(4)])
		}
		if got, want := tok.Encode(nil, b.String(), Options{}), naiveSPM(c, b.String()); !slices.Equal(got, want) {
			t.Fatalf("%q with %+v:\ngot  %v\nwant %v", b.String(), c, got, want)
		}
	}
	tok := build(t, spmConfig(t, "loose"))
	const n = 1 << 20
	for _, unit := range []string{"a", " ", "é", "cache "} {
		s := strings.Repeat(unit, n/len(unit))
		if got := tok.Decode(tok.Encode(nil, s, Options{}), true); got != s {
			t.Errorf("%q is not given back", unit)
		}
	}
}

func TestSPMSpecial(t *testing.T) {
	c := spmConfig(t, "llama")
	for _, s := range []string{"<|user|>", "<|end|>", "<think>"} {
		c.Tokens, c.Types, c.Scores = append(c.Tokens, s), append(c.Types, TypeControl), append(c.Scores, 0)
	}
	c.Types[len(c.Types)-1] = TypeUserDefined
	show := func(tok *Tokenizer, text string) string {
		var out []string
		for _, id := range tok.Encode(nil, text, Options{ParseSpecial: true}) {
			out = append(out, string(tok.Bytes(id)))
		}
		return strings.Join(out, "|")
	}
	tok := build(t, c)
	c.StripAfter = true
	strip := build(t, c)
	for text, want := range map[string][2]string{
		"":                          {"", ""},
		"cache":                     {" cache", " cache"},
		" cache":                    {" | cache", " | cache"},
		"<|user|>\n cache<|end|>\n": {"<|user|>| |\n| cache|<|end|>| |\n", "<|user|>| cache|<|end|>"},
		"<s> cache</s>":             {"<s>| | cache|</s>", "<s>| | cache|</s>"},
		"a<think>b":                 {" |a|<think>| b", " |a|<think>| b"},
	} {
		for i, tok := range []*Tokenizer{tok, strip} {
			if got := show(tok, text); got != want[i] {
				t.Errorf("%q, strip %v: %q, want %q", text, i == 1, got, want[i])
			}
		}
		if got := tok.Decode(tok.Encode(nil, text, Options{ParseSpecial: true}), true); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

// A stream begins with the first token's space unless the token before the stream says that Encode would have put it there.
func TestSPMStream(t *testing.T) {
	tok := build(t, spmConfig(t, "llama"))
	text := " cache 日本 é\U0001F600."
	ids := tok.Encode(nil, text[1:], Options{})
	control, _ := tok.Lookup("<s>")
	for _, c := range []struct {
		after int32
		want  string
	}{{None, text[1:]}, {control, text[1:]}, {ids[0], text}} {
		d := tok.NewDecoder(false)
		d.After(c.after)
		var got, parts string
		for _, id := range ids {
			part := d.Push(id)
			if !utf8.ValidString(part) {
				t.Errorf("a part is %q", part)
			}
			parts += part
		}
		if got = parts + d.Flush(); got != c.want {
			t.Errorf("after %d: %q, want %q", c.after, got, c.want)
		}
	}
	if bytes := tok.Encode(nil, "\U0001F600", Options{}); len(bytes) != 5 || tok.Decode(bytes, false) != "\U0001F600" {
		t.Errorf("an emoji is %v", bytes)
	}
}

func TestSPMErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   error
		text   string
	}{
		"no scores":   {func(c *Config) { c.Scores = nil }, ErrInvalid, "0 scores"},
		"no number":   {func(c *Config) { c.Scores[800] = float32(math.NaN()) }, ErrInvalid, "not a number"},
		"byte absent": {func(c *Config) { c.Types[3+7] = TypeControl }, ErrUnsupported, "<0x07>"},
		"no space":    {func(c *Config) { c.Types[slices.Index(c.Tokens, spaceMark)] = TypeUnused }, ErrUnsupported, "\u2581"},
		"long token":  {func(c *Config) { c.Tokens[800] = strings.Repeat("x", mostChars+1) }, ErrUnsupported, "characters"},
		"no EOS":      {func(c *Config) { c.AddEOS = true }, ErrInvalid, "EOS"},
	} {
		cfg := spmConfig(t, "llama")
		c.change(&cfg)
		if _, err := New(cfg); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSPMFromGGUF(t *testing.T) {
	c := spmConfig(t, "llama")
	load := func(change func(w *gguf.Writer)) (Config, error) {
		w := gguf.NewWriter()
		w.SetString("tokenizer.ggml.model", "llama")
		w.SetStrings("tokenizer.ggml.tokens", c.Tokens)
		w.SetInts("tokenizer.ggml.token_type", c.Types)
		change(w)
		b, err := w.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		f, err := gguf.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		return ConfigFromGGUF(f)
	}
	got, err := load(func(w *gguf.Writer) {
		w.SetFloats("tokenizer.ggml.scores", c.Scores)
		w.SetString("general.architecture", "phi3")
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.BOS != 1 || got.EOS != 2 || got.Unknown != 0 || !got.AddBOS || got.AddEOS || !got.AddSpacePrefix || !got.StripAfter || !slices.Equal(got.Scores, c.Scores) {
		t.Errorf("%+v", got)
	}
	if ids := build(t, got).Encode(nil, "", Options{AddBOS: true, AddEOS: true}); !slices.Equal(ids, []int32{1}) {
		t.Errorf("ids %v", ids)
	}
	got, err = load(func(w *gguf.Writer) {
		w.SetFloats("tokenizer.ggml.scores", c.Scores)
		w.SetBool("tokenizer.ggml.add_space_prefix", false)
		w.SetBool("tokenizer.ggml.add_bos_token", false)
		w.SetBool("tokenizer.ggml.add_eos_token", true)
	})
	if err != nil || got.AddBOS || got.AddSpacePrefix || got.StripAfter || !got.AddEOS {
		t.Errorf("%+v, %v", got, err)
	}
	if ids := build(t, got).Encode(nil, "", Options{AddBOS: true, AddEOS: true}); !slices.Equal(ids, []int32{2}) {
		t.Errorf("ids %v", ids)
	}
	if _, err := load(func(*gguf.Writer) {}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "scores") {
		t.Errorf("no scores: %v", err)
	}
	if _, err := load(func(w *gguf.Writer) {
		w.SetFloats("tokenizer.ggml.scores", c.Scores)
		w.SetBool("tokenizer.ggml.remove_extra_whitespaces", true)
	}); !errors.Is(err, ErrUnsupported) {
		t.Errorf("extra white space: %v", err)
	}
}

// FuzzSPM compares pieces, special tokens and memo with the definition, and checks that text comes back.
func FuzzSPM(f *testing.F) {
	f.Add("the cache  \n\n 12<b>x</b>", uint64(1), uint8(3))
	f.Add("\u2581a\u2581\u2581 日本\xff\xe3\x81é", uint64(9), uint8(0))
	f.Add(strings.Repeat("aab ab", 60), uint64(5), uint8(7))
	var toks []*Tokenizer
	var memos []*Memo
	for _, name := range spmNames {
		toks = append(toks, build(f, spmConfig(f, name)))
		memos = append(memos, toks[len(toks)-1].NewMemo(20<<10))
	}
	var configs []Config
	var random []*Tokenizer
	for seed := range uint64(64) {
		c, _ := randomSPM(rand.New(rand.NewPCG(seed, 1)))
		configs, random = append(configs, c), append(random, build(f, c))
	}
	f.Fuzz(func(t *testing.T, text string, seed uint64, times uint8) {
		if len(text) > 1<<8 {
			return
		}
		n := seed % 64
		if got, want := random[n].Encode(nil, text, Options{}), naiveSPM(configs[n], text); !slices.Equal(got, want) {
			t.Fatalf("%q:\ngot  %v\nwant %v", text, got, want)
		}
		long := strings.Repeat(text, 1+int(times)%8)
		for i, tok := range toks {
			o := Options{ParseSpecial: times&1 != 0}
			want := tok.Encode(nil, long, o)
			for range 2 {
				if got := memos[i].Encode(nil, "a", long, o); !slices.Equal(got, want) {
					t.Fatalf("%s: the memo changes the ids of %q:\ngot  %v\nwant %v", spmNames[i], long, got, want)
				}
			}
			back := strings.ToValidUTF8(strings.ReplaceAll(long, spaceMark, " "), "")
			if got := tok.Decode(want, true); utf8.ValidString(long) && got != back {
				t.Fatalf("%s: %q became %q", spmNames[i], long, got)
			}
		}
	})
}

func BenchmarkSPM(b *testing.B) {
	tok := build(b, spmConfig(b, "gemma"))
	text := strings.Repeat(sample, 32)
	memo := tok.NewMemo(32 << 20)
	dst := memo.Encode(nil, "", text, Options{})
	for name, encode := range map[string]func(){
		"encode": func() { dst = tok.Encode(dst[:0], text, Options{}) },
		"memo":   func() { dst = memo.Encode(dst[:0], "", text, Options{}) },
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				encode()
			}
			b.ReportMetric(float64(len(dst))*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
