package pipeline

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"kvasir/internal/llm"
	"kvasir/internal/model"
	"kvasir/internal/template"
	"kvasir/internal/token"
	"kvasir/internal/wire/openai"
)

// smolVocab reads SmolLM 2's vocabulary from the token package's fixture, which testdata/golden.py there describes.
func smolVocab(tb testing.TB) token.Config {
	tb.Helper()
	f, err := os.Open("../token/testdata/smollm2.txt.gz")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		tb.Fatal(err)
	}
	s := bufio.NewScanner(z)
	line := func() string {
		if !s.Scan() {
			tb.Fatal("the vocabulary ends too early")
		}
		return s.Text()
	}
	number := func() int {
		n, err := strconv.Atoi(line())
		if err != nil {
			tb.Fatal(err)
		}
		return n
	}
	c := token.Config{Model: "gpt2", BOS: 1, EOS: 2, EOT: token.None, EOM: token.None, Unknown: 0, Pad: 2}
	c.Pre = line()
	n, control := number(), number()
	for i := range n {
		c.Tokens = append(c.Tokens, line())
		typ := token.TypeNormal
		if i < control {
			typ = token.TypeControl
		}
		c.Types = append(c.Types, typ)
	}
	for s.Scan() {
		c.Merges = append(c.Merges, s.Text())
	}
	return c
}

// chatML is SmolLM 2's template in its shape.
const chatML = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful assistant<|im_end|>\n' }}{% endif %}" +
	"{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

// A corpus writes text of the model's own words, the common ones often.
type corpus struct {
	words []string
	rng   *rand.Rand
}

func newCorpus(c token.Config, seed uint64) *corpus {
	w := &corpus{rng: rand.New(rand.NewPCG(seed, 1))}
	for _, s := range c.Tokens[:20000] {
		if word, ok := strings.CutPrefix(s, "Ġ"); ok && len(word) > 1 && strings.Trim(word, "abcdefghijklmnopqrstuvwxyz") == "" {
			w.words = append(w.words, word)
		}
	}
	return w
}

func (w *corpus) word() string {
	u := w.rng.Float64()
	s := w.words[int(u*u*u*float64(len(w.words)))]
	if w.rng.IntN(12) == 0 { // a word that the model has no token for
		s += w.words[w.rng.IntN(len(w.words))]
	}
	return s
}

func (w *corpus) english(b *strings.Builder) {
	for i := range 6 + w.rng.IntN(18) {
		s := w.word()
		if i == 0 {
			s = strings.ToUpper(s[:1]) + s[1:]
		} else {
			b.WriteString([]string{" ", " ", " ", " ", " ", " ", " ", " ", ", ", " - "}[w.rng.IntN(10)])
		}
		b.WriteString(s)
	}
	b.WriteString([]string{". ", ". ", ". ", "? ", ".\n\n"}[w.rng.IntN(5)])
}

func (w *corpus) code(b *strings.Builder) {
	in := strings.Repeat("    ", w.rng.IntN(4))
	name := func() string { return w.word() + "_" + w.word() }
	switch w.rng.IntN(4) {
	case 0:
		fmt.Fprintf(b, "\n%sdef %s(self, %s, %s=None):\n", in, name(), w.word(), w.word())
	case 1:
		fmt.Fprintf(b, "%sif %s.%s >= %d and not self._%s:\n%s    return %s[%q]\n", in, w.word(), name(), w.rng.IntN(1000), name(), in, name(), w.word())
	case 2:
		fmt.Fprintf(b, "%sself.%s = %s(%s, %d)  # %s %s\n", in, name(), name(), w.word(), w.rng.IntN(100), w.word(), w.word())
	case 3:
		fmt.Fprintf(b, "%sfor %s in range(len(%s)):\n%s    %s += 0x%x\n", in, w.word(), name(), in, w.word(), w.rng.IntN(1<<20))
	}
}

// text is some n tokens of it.
func (w *corpus) text(n int, sentence func(*strings.Builder), t *token.Tokenizer) string {
	var b, part strings.Builder
	for n > 0 {
		part.Reset()
		sentence(&part)
		n -= len(t.Encode(nil, part.String(), token.Options{}))
		b.WriteString(part.String())
	}
	return b.String()
}

// pathPipeline is a pipeline of template and tokenizer alone.
func pathPipeline(tb testing.TB, c token.Config) *Pipeline {
	tb.Helper()
	p := &Pipeline{limit: 1 << 20, longest: 64, model: &model.Model{}}
	p.model.Vocab = len(c.Tokens)
	var err error
	if p.tokenizer, err = token.New(c); err != nil {
		tb.Fatal(err)
	}
	p.memo = p.tokenizer.NewMemo(memoBytes)
	if p.template, err = template.New(chatML, template.Options{Now: time.Now}); err != nil {
		tb.Fatal(err)
	}
	return p
}

// pathBody is the request of a workload with its prompt of some n tokens; tail goes to its end.
func pathBody(kind string, n int, w *corpus, t *token.Tokenizer, tail string) (openai.Endpoint, []byte) {
	quoted := func(s string) string { b, _ := json.Marshal(s); return string(b) }
	switch kind {
	case "english":
		return openai.Completions, []byte(`{"model":"m","stream":true,"prompt":` + quoted(w.text(n, w.english, t)+tail) + `}`)
	case "code":
		return openai.Completions, []byte(`{"model":"m","stream":true,"prompt":` + quoted(w.text(n, w.code, t)+tail) + `}`)
	}
	turns := 1
	if kind == "chat" {
		turns = 100
	}
	var ms []string
	for i := range turns {
		role := []string{"user", "assistant"}[i%2]
		content := w.text(n/turns, w.english, t)
		if i == turns-1 {
			content += tail
		}
		ms = append(ms, `{"role":"`+role+`","content":`+quoted(content)+`}`)
	}
	return openai.Chat, []byte(`{"model":"m","stream":true,"messages":[` + strings.Join(ms, ",") + `]}`)
}

func pathDecode(b *testing.B, p *Pipeline, e openai.Endpoint, body []byte) []int32 {
	call, err := openai.Decode(e, body)
	if err != nil {
		b.Fatal(err)
	}
	ids, err := p.encode(&call.Request.Prompts[0], &call.Request)
	if err != nil {
		b.Fatal(err)
	}
	return ids
}

// BenchmarkPrompt is a request's way from its bytes to token ids: JSON, template, tokenizer. new is a text that was never
// seen, same one that was, and grown one that begins like another that was.
func BenchmarkPrompt(b *testing.B) {
	c := smolVocab(b)
	lone := pathPipeline(b, c)
	for _, kind := range []string{"english", "code", "message", "chat"} {
		for _, n := range []int{2000, 30000} {
			name := fmt.Sprintf("%s/%d/", kind, n)
			b.Run(name+"new", func(b *testing.B) {
				p := pathPipeline(b, c)
				w := newCorpus(c, 1)
				var bodies [16][]byte
				var e openai.Endpoint
				for i := range bodies {
					e, bodies[i] = pathBody(kind, n, w, lone.tokenizer, "")
				}
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					if i == len(bodies) {
						b.StopTimer()
						for i = range bodies {
							_, bodies[i] = pathBody(kind, n, w, lone.tokenizer, "")
						}
						i = 0
						b.StartTimer()
					}
					pathDecode(b, p, e, bodies[i])
					i++
				}
			})
			b.Run(name+"same", func(b *testing.B) {
				p := pathPipeline(b, c)
				e, body := pathBody(kind, n, newCorpus(c, 2), lone.tokenizer, "")
				pathDecode(b, p, e, body)
				b.ReportAllocs()
				for b.Loop() {
					pathDecode(b, p, e, body)
				}
			})
			b.Run(name+"grown", func(b *testing.B) {
				p := pathPipeline(b, c)
				e, body := pathBody(kind, n, newCorpus(c, 3), lone.tokenizer, "a tail of 20 characters")
				pathDecode(b, p, e, body)
				at := strings.LastIndex(string(body), "tail")
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					copy(body[at:], fmt.Sprintf("%04d", i%10000))
					pathDecode(b, p, e, body)
				}
			})
		}
	}
}

// BenchmarkToken is a generated token's way out: detokenizer, event, server-sent event.
func BenchmarkToken(b *testing.B) {
	c := smolVocab(b)
	p := pathPipeline(b, c)
	w := newCorpus(c, 4)
	ids := p.tokenizer.Encode(nil, w.text(2000, w.english, p.tokenizer), token.Options{})
	call, err := openai.Decode(openai.Chat, []byte(`{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`))
	if err != nil {
		b.Fatal(err)
	}
	enc := openai.NewStream(call, openai.Head{ID: "chatcmpl-x", Model: "m", Fingerprint: "f"})
	d := p.tokenizer.NewDecoder(false)
	var buf []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		buf = enc.AppendEvent(buf[:0], llm.Event{Text: d.Push(ids[i%len(ids)])})
	}
	if !slices.Contains(buf, '{') {
		b.Fatal("nothing was written")
	}
}
