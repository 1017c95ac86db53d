package token

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"kvasir/internal/gguf"
)

func readGzip(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// smolConfig reads SmolLM 2's vocabulary; testdata/golden.py describes the file.
func smolConfig(t testing.TB) Config {
	t.Helper()
	s := bufio.NewScanner(bytes.NewReader(readGzip(t, "testdata/smollm2.txt.gz")))
	line := func() string {
		if !s.Scan() {
			t.Fatal("the vocabulary ends too early")
		}
		return s.Text()
	}
	number := func() int {
		n, err := strconv.Atoi(line())
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	c := Config{Model: "gpt2", BOS: 1, EOS: 2, EOT: None, EOM: None, Unknown: 0, Pad: 2}
	c.Pre = line()
	n, control := number(), number()
	for i := range n {
		c.Tokens = append(c.Tokens, line())
		typ := TypeNormal
		if i < control {
			typ = TypeControl
		}
		c.Types = append(c.Types, typ)
	}
	for s.Scan() {
		c.Merges = append(c.Merges, s.Text())
	}
	return c
}

var smolOnce struct {
	sync.Once
	t *Tokenizer
}

func smol(t testing.TB) *Tokenizer {
	t.Helper()
	smolOnce.Do(func() { smolOnce.t = build(t, smolConfig(t)) })
	return smolOnce.t
}

func build(t testing.TB, c Config) *Tokenizer {
	t.Helper()
	tok, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// alphabet writes bytes in GPT-2's byte alphabet, by searching alphabetByte.
var alphabet = func() (a [256]string) {
	for r := rune(0); r < 0x200; r++ {
		if b, ok := alphabetByte(r); ok {
			a[b] += string(r)
		}
	}
	return a
}()

func written(s string) string {
	var b strings.Builder
	for i := range len(s) {
		b.WriteString(alphabet[s[i]])
	}
	return b.String()
}

// small is a vocabulary of the 256 bytes, "ab", "abc", "bc", " a" and the given special tokens.
func small(pre string, special map[string]int32) Config {
	c := Config{Model: "gpt2", Pre: pre, BOS: None, EOS: None, EOT: None, EOM: None, Unknown: None, Pad: None}
	add := func(s string, typ int32) {
		c.Tokens = append(c.Tokens, s)
		c.Types = append(c.Types, typ)
	}
	for b := range 256 {
		add(alphabet[b], TypeNormal)
	}
	for _, s := range []string{"ab", "abc", "bc", " a"} {
		add(written(s), TypeNormal)
	}
	names := make([]string, 0, len(special))
	for s := range special {
		names = append(names, s)
	}
	slices.Sort(names)
	for _, s := range names {
		add(s, special[s])
	}
	c.Merges = []string{"b c", "a b", "Ġ a"} // abc as a whole is never merged
	return c
}

func TestAlphabet(t *testing.T) {
	seen := map[string]bool{}
	for b, s := range alphabet {
		if len([]rune(s)) != 1 || seen[s] {
			t.Errorf("byte %#x is written %q", b, s)
		}
		seen[s] = true
	}
	for b, want := range map[byte]string{' ': "Ġ", '\n': "Ċ", 'a': "a", 0: "Ā", 0x7F: "ġ", 0xAD: "Ń", 0xFF: "ÿ"} {
		if alphabet[b] != want {
			t.Errorf("byte %#x is written %q, not %q", b, alphabet[b], want)
		}
	}
}

func TestReferenceIDs(t *testing.T) {
	b, err := os.ReadFile("../testdata/smollm2-135m.json")
	if err != nil {
		t.Fatal(err)
	}
	var ref struct {
		Cases []struct {
			Kind, Text string
			IDs        []int32
		}
	}
	if err := json.Unmarshal(b, &ref); err != nil {
		t.Fatal(err)
	}
	if len(ref.Cases) != 23 {
		t.Fatalf("%d cases", len(ref.Cases))
	}
	tok := smol(t)
	for _, c := range ref.Cases {
		o := Options{AddBOS: true, ParseSpecial: c.Kind == "chat"}
		if got := tok.Encode(nil, c.Text, o); !slices.Equal(got, c.IDs) {
			t.Errorf("%q:\ngot  %v\nwant %v", c.Text, got, c.IDs)
		}
		if got := tok.Decode(c.IDs, true); got != c.Text {
			t.Errorf("%v:\ngot  %q\nwant %q", c.IDs, got, c.Text)
		}
	}
}

// golden calls check with each line of a fixture; TOKEN_GOLDEN names larger ones (see testdata/golden.py).
func golden(t *testing.T, name string, check func(line []byte)) {
	prefix := "testdata/"
	if p := os.Getenv("TOKEN_GOLDEN"); p != "" {
		prefix = p
	}
	n := 0
	for line := range bytes.Lines(readGzip(t, prefix+name)) {
		check(line)
		if n++; t.Failed() && n > 20 {
			break
		}
	}
	if n < 20 {
		t.Errorf("only %d lines", n)
	}
}

func TestGoldenIDs(t *testing.T) {
	tok := smol(t)
	golden(t, "ids.jsonl.gz", func(line []byte) {
		var c struct {
			T   string
			IDs []int32
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		for _, memo := range []string{"cold", "warm"} {
			if got := tok.Encode(nil, c.T, Options{}); !slices.Equal(got, c.IDs) {
				t.Errorf("%s %q:\ngot  %v\nwant %v", memo, c.T, got, c.IDs)
			}
		}
	})
}

func TestNewErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Config)
		want   error
		text   string
	}{
		"model":         {func(c *Config) { c.Model = "t5" }, ErrUnsupported, `"t5" (supported: gemma4, gpt2, llama)`},
		"pre":           {func(c *Config) { c.Pre = "kimi-k2" }, ErrUnsupported, `"kimi-k2" (supported: a.x-4.0, bailingmoe, `},
		"no tokens":     {func(c *Config) { c.Tokens, c.Types = nil, nil }, ErrInvalid, "no tokens"},
		"few types":     {func(c *Config) { c.Types = c.Types[1:] }, ErrInvalid, "260 tokens but 259"},
		"strange type":  {func(c *Config) { c.Types[3] = 9 }, ErrInvalid, "type 9"},
		"id too large":  {func(c *Config) { c.EOS = 260 }, ErrInvalid, "EOS token id 260"},
		"id negative":   {func(c *Config) { c.EOG = []int32{-2} }, ErrInvalid, "id -2"},
		"no BOS":        {func(c *Config) { c.AddBOS = true }, ErrInvalid, "BOS"},
		"merge of one":  {func(c *Config) { c.Merges[1] = "ab" }, ErrInvalid, "merge 1"},
		"merge of four": {func(c *Config) { c.Merges[1] = "a b c" }, ErrInvalid, "merge 1"},
		"merge unknown": {func(c *Config) { c.Merges[1] = "b a" }, ErrInvalid, `"ba"`},
		"byte token":    {func(c *Config) { c.Types[3] = TypeByte }, ErrInvalid, "<0xFF>"},
	} {
		cfg := small("gpt2", nil)
		c.change(&cfg)
		if _, err := New(cfg); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestKinds(t *testing.T) {
	cfg := small("gpt2", map[string]int32{"<|im_end|>": TypeControl, "<|a|>": TypeControl, "<|b|>": TypeControl, "<think>": TypeUserDefined, "</s>": TypeUserDefined})
	cfg.Tokens = append(cfg.Tokens, "<eos>") // a normal token is no end, whatever it looks like
	cfg.Types = append(cfg.Types, TypeNormal)
	tok := build(t, cfg)
	cfg.EOS, _ = tok.Lookup("<|a|>")
	tok = build(t, cfg)
	for text, want := range map[string][2]bool{ // control, end of generation
		"<|im_end|>": {true, true}, "<|a|>": {true, true}, "<|b|>": {true, false}, "<think>": {false, false}, "<eos>": {false, false}, "</s>": {false, false}, "ab": {false, false},
	} {
		id, ok := tok.Lookup(text)
		if !ok || tok.IsControl(id) != want[0] || tok.IsEOG(id) != want[1] || string(tok.Bytes(id)) != text {
			t.Errorf("%s: id %d %v, control %v, EOG %v, bytes %q", text, id, ok, tok.IsControl(id), tok.IsEOG(id), tok.Bytes(id))
		}
	}
	if id, ok := tok.Lookup("abab"); ok || id != None {
		t.Errorf("found %d", id)
	}
	for _, id := range []int32{None, int32(tok.Vocab()), 1 << 30, -1 << 31} {
		if tok.IsControl(id) || tok.IsEOG(id) || tok.Bytes(id) != nil || tok.Decode([]int32{id}, true) != "" {
			t.Errorf("id %d exists", id)
		}
	}
}

func TestConfigFromGGUF(t *testing.T) {
	load := func(change func(w *gguf.Writer)) (Config, error) {
		w := gguf.NewWriter()
		w.SetString("tokenizer.ggml.model", "gpt2")
		w.SetStrings("tokenizer.ggml.tokens", []string{"a", "b", "ab", "<s>", "</s>"})
		w.SetStrings("tokenizer.ggml.merges", []string{"a b"})
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
	types := func(w *gguf.Writer) { w.SetInts("tokenizer.ggml.token_type", []int32{1, 1, 1, 3, 3}) }
	c, err := load(func(w *gguf.Writer) {
		types(w)
		w.SetString("tokenizer.ggml.pre", "llama-bpe")
		w.SetUint32("tokenizer.ggml.bos_token_id", 3)
		w.SetUint32("tokenizer.ggml.eos_token_id", 4)
		w.SetUint32("tokenizer.ggml.padding_token_id", 1<<32-1)
	})
	if err != nil {
		t.Fatal(err)
	}
	if !c.AddBOS || c.BOS != 3 || c.EOS != 4 || c.EOT != None || c.Pad != None || c.Pre != "llama-bpe" || c.Types[3] != TypeControl {
		t.Errorf("%+v", c)
	}
	if got := build(t, c).Encode(nil, "ab", Options{AddBOS: true}); !slices.Equal(got, []int32{3, 2}) {
		t.Errorf("ids %v", got)
	}
	for name, c := range map[string]struct {
		change func(w *gguf.Writer)
		want   error
		text   string
	}{
		"no pre":     {types, ErrUnsupported, "tokenizer.ggml.pre"},
		"pre":        {func(w *gguf.Writer) { w.SetString("tokenizer.ggml.pre", "chameleon") }, ErrUnsupported, "chameleon"},
		"pre's type": {func(w *gguf.Writer) { w.SetUint32("tokenizer.ggml.pre", 1) }, ErrInvalid, "not a string but uint32"},
		"no types":   {func(w *gguf.Writer) { w.SetString("tokenizer.ggml.pre", "gpt-2") }, ErrInvalid, "no tokenizer.ggml.token_type"},
		"id too large": {func(w *gguf.Writer) {
			types(w)
			w.SetString("tokenizer.ggml.pre", "gpt-2")
			w.SetUint32("tokenizer.ggml.eos_token_id", 1<<31)
		}, ErrInvalid, "2147483648"},
	} {
		if _, err := load(c.change); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A file whose tokens were chosen to collide is refused instead of being loaded for hours.
func TestCollidingTokens(t *testing.T) {
	const n = mostProbes + 100
	c := small("gpt2", nil)
	var w wordTable
	w.init("", make([]uint32, len(c.Tokens)+n+1))
	text := make([]byte, 8)
	for i, found := uint32(0), 0; found < n; i++ {
		for j := range text {
			text[j] = 'a' + byte(i>>(4*j)&15)
		}
		if (wordKey(string(text))^8)*mix>>w.shift == 5 {
			c.Tokens, c.Types = append(c.Tokens, string(text)), append(c.Types, TypeNormal)
			found++
		}
	}
	if _, err := New(c); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "collide") {
		t.Errorf("error %v", err)
	}
}
