package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata anew")

// A fake is a server whose tokens are words and whose prefix cache is exact: what it reports follows from what it was sent.
type fake struct {
	*httptest.Server
	name    string
	context int // tokens a call may have; 0 is no limit
	silent  bool

	mu     sync.Mutex
	seen   [][]string
	bodies []map[string]any
	log    *callLog
	gate   *gate
}

// A callLog is the order of calls over several fakes.
type callLog struct {
	mu    sync.Mutex
	calls []string
}

// A gate lets calls of a crowd through when all are there.
type gate struct {
	size int
	mu   sync.Mutex
	in   int
	open chan struct{}
}

func (g *gate) pass() {
	g.mu.Lock()
	open := g.open
	if g.in++; g.in == g.size {
		close(open)
		g.in, g.open = 0, make(chan struct{})
	}
	g.mu.Unlock()
	<-open
}

func newFake(t *testing.T, name string, log *callLog, clients int) *fake {
	f := &fake{name: name, log: log, gate: &gate{size: clients, open: make(chan struct{})}}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	prompt, n := body["prompt"].(string), int(body["max_tokens"].(float64))
	words := strings.Fields(prompt)
	if f.context > 0 && len(words)+n > f.context {
		http.Error(w, `{"error":{"code":"context_length_exceeded"}}`, http.StatusBadRequest)
		return
	}
	crowd := strings.Contains(prompt, "# Question 1") && !strings.Contains(prompt, "# Question 1:")
	if crowd {
		f.gate.pass() // all clients of a crowd must be there at once
	} else {
		f.log.mu.Lock()
		f.log.calls = append(f.log.calls, fmt.Sprintf("%s/%d", f.name, n))
		f.log.mu.Unlock()
	}
	f.mu.Lock()
	cached := 0
	for _, s := range f.seen {
		k := 0
		for k < len(s) && k < len(words)-1 && s[k] == words[k] {
			k++
		}
		cached = max(cached, k)
	}
	f.seen = append(f.seen, words)
	f.bodies = append(f.bodies, body)
	f.mu.Unlock()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Server", "fake")
	for range n {
		fmt.Fprintf(w, "data: {\"system_fingerprint\":\"fp-%s\",\"choices\":[{\"text\":\" x\"}]}\n\n", f.name)
	}
	if !f.silent {
		fmt.Fprintf(w, "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"prompt_tokens_details\":{\"cached_tokens\":%d}}}\n\n", len(words), n, cached)
	}
	fmt.Fprint(w, "data: [DONE]\n\n")
}

func (f *fake) target(t *testing.T) Target {
	h, err := ParseHTTP(f.name+"="+f.URL+"#m", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func TestRunAlternatesAndCounts(t *testing.T) {
	const rounds, clients, gen = 2, 3, 5
	log := &callLog{}
	a, b := newFake(t, "a", log, clients), newFake(t, "b", log, clients)
	var progress []string
	rep, err := Run(context.Background(), []Target{a.target(t), b.target(t)}, Options{Rounds: rounds, PromptTokens: []int{100, 300}, ExtendTokens: 80, GenTokens: gen,
		Clients: clients, Seed: 7, Progress: func(done, total int, step string) { progress = append(progress, fmt.Sprintf("%d/%d", done, total)) }})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Errors) > 0 {
		t.Fatal(rep.Errors)
	}

	// Calls before the rounds: both warmed up, the first calibrates. Then every step a, b.
	want := []string{"a/2", "a/1", "a/1", "b/2"}
	for range rounds {
		for _, n := range []int{1, 1, 1, gen, 1, 1, 1, gen, gen, 1} {
			want = append(want, fmt.Sprintf("a/%d", n), fmt.Sprintf("b/%d", n))
		}
	}
	if !slices.Equal(log.calls, want) {
		t.Errorf("calls\n%v, want\n%v", log.calls, want)
	}
	if n := rounds * 11 * 2; len(progress) != n || progress[0] != fmt.Sprintf("0/%d", n) || progress[n-1] != fmt.Sprintf("%d/%d", n-1, n) {
		t.Errorf("progress %v", progress)
	}

	questionWords := len(strings.Fields(question(1)))
	names := map[string]int{}
	for _, m := range rep.Results {
		names[m.Name]++
		if len(m.Series) != 2 || m.Series[0].Target != "a" || m.Series[1].Target != "b" {
			t.Fatalf("%s: series %+v", m.Name, m.Series)
		}
		for _, s := range m.Series {
			if len(s.Values) != rounds || len(s.Prompt) != rounds || len(s.Cached) != rounds {
				t.Fatalf("%s %s: %+v", m.Name, s.Target, s)
			}
			for i := range rounds {
				p, c := s.Prompt[i], s.Cached[i]
				switch m.Name {
				case ColdTTFT, Prefill:
					if off := p - m.PromptTokens; off < -m.PromptTokens/8 || off > m.PromptTokens/8 || c != 0 {
						t.Errorf("%s %d %s: a prompt of %d tokens, %d cached", m.Name, m.PromptTokens, s.Target, p, c)
					}
				case WarmTTFT:
					// Shared with the cold prompt: the prefix and the beginning of the question.
					if p-c < 1 || p-c > questionWords {
						t.Errorf("%s %d %s: %d of %d cached", m.Name, m.PromptTokens, s.Target, c, p)
					}
				case Extend:
					if n := p - c; n < 60 || n > 100 || p < m.PromptTokens {
						t.Errorf("%s %d %s: %d computed", m.Name, m.PromptTokens, s.Target, n)
					}
				case TogetherTokens:
					// The fake computes the fresh prefix once, as an exact server does.
					if v := int(s.Values[i]); v != p-c || v < 300*7/8 || v > 300*9/8+clients*questionWords {
						t.Errorf("%s: %v computed of %d, %d cached", m.Name, v, p, c)
					}
				case SharedDecode:
					if p-c > clients*questionWords {
						t.Errorf("%s: %d of %d cached", m.Name, c, p)
					}
				}
			}
		}
		if r := m.Series[0].Ratio; r == nil || *r != 1 {
			t.Errorf("%s: ratio of the first target to itself %v", m.Name, r)
		}
		if r := m.Series[1].Ratio; r == nil || *r != m.Series[1].Median/m.Series[0].Median {
			t.Errorf("%s: ratio %v", m.Name, r)
		}
	}
	for name, n := range map[string]int{ColdTTFT: 2, WarmTTFT: 2, Prefill: 2, Extend: 2, Decode: 3, SharedDecode: 1, Together: 1, TogetherFirst: 1, TogetherTokens: 1, EnginePrefill: 0} {
		if names[name] != n {
			t.Errorf("%d figures %s, want %d", names[name], name, n)
		}
	}
	for _, f := range []*fake{a, b} {
		for _, body := range f.bodies {
			if body["model"] != "m" || body["temperature"] != 0.0 || body["ignore_eos"] != true || body["stream"] != true || fmt.Sprint(body["stream_options"]) != "map[include_usage:true]" {
				t.Fatalf("body %v", body)
			}
		}
	}
	// No text of one target is warm for another, even if both are the same server.
	for _, p := range a.seen[1:] {
		for _, q := range b.seen[1:] {
			if len(p) > 20 && len(q) > 20 && p[0] == q[0] && p[1] == q[1] {
				t.Fatalf("both targets got a text that begins with %q", p[:2])
			}
		}
	}
	if d := rep.Targets[1]; d.Name != "b" || d.Server != "fake" || d.Version != "fp-b" {
		t.Errorf("description %+v", d)
	}
}

func TestRunNotesFailedSteps(t *testing.T) {
	log := &callLog{}
	f := newFake(t, "a", log, 1)
	f.context = 900 // the calibrating text fits
	rep, err := Run(context.Background(), []Target{f.target(t)}, Options{Rounds: 1, PromptTokens: []int{100, 2000}, GenTokens: 2, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, e := range rep.Errors {
		if e.Target != "a" || e.Round != 1 || !strings.Contains(e.Error, "400") || !strings.Contains(e.Error, "context_length_exceeded") {
			t.Errorf("%+v", e)
		}
		steps = append(steps, e.Step)
	}
	if want := "2000 tokens cold, 2000 tokens warm, decode behind 2000 tokens"; strings.Join(steps, ", ") != want {
		t.Errorf("failed %q, want %q", steps, want)
	}
	for _, m := range rep.Results {
		if m.PromptTokens == 2000 {
			t.Errorf("a figure %s of calls that failed", m.Name)
		}
	}
	var b bytes.Buffer
	if err := rep.WriteTable(&b); err != nil || strings.Count(b.String(), "failed: a, round 1, ") != 3 {
		t.Errorf("%v, table\n%s", err, &b)
	}
}

func TestRunErrors(t *testing.T) {
	f := newFake(t, "a", &callLog{}, 1)
	ok := Options{Rounds: 1, PromptTokens: []int{100}, GenTokens: 2}
	mute := newFake(t, "mute", &callLog{}, 1)
	mute.silent = true
	gone := newFake(t, "gone", &callLog{}, 1)
	gone.Close()
	change := func(f func(*Options)) Options { o := ok; f(&o); return o }
	for _, c := range []struct {
		name    string
		targets []Target
		o       Options
		want    string
	}{
		{"no target", nil, ok, "nothing to measure"},
		{"same name", []Target{f.target(t), f.target(t)}, ok, "two targets"},
		{"rounds", []Target{f.target(t)}, change(func(o *Options) { o.Rounds = 0 }), "rounds"},
		{"no length", []Target{f.target(t)}, change(func(o *Options) { o.PromptTokens = nil }), "no prompt length"},
		{"short prompt", []Target{f.target(t)}, change(func(o *Options) { o.PromptTokens = []int{8} }), "at least 64"},
		{"one token", []Target{f.target(t)}, change(func(o *Options) { o.GenTokens = 1 }), "at least 2"},
		{"negative", []Target{f.target(t)}, change(func(o *Options) { o.Clients = -1 }), "negative"},
		{"no usage", []Target{mute.target(t)}, ok, "mute: the target reports no usage"},
		{"not there", []Target{f.target(t), gone.target(t)}, ok, "gone: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Run(context.Background(), c.targets, c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if c.name == "no usage" && !errors.Is(err, ErrUsage) {
				t.Errorf("%v is not ErrUsage", err)
			}
		})
	}
}

func TestRunCanceled(t *testing.T) {
	f := newFake(t, "a", &callLog{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	rep, err := Run(ctx, []Target{f.target(t)}, Options{Rounds: 100, PromptTokens: []int{100}, GenTokens: 2, Progress: func(done, total int, step string) {
		if done == 5 { // the second round's second step
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || rep == nil || len(rep.Errors) > 0 {
		t.Fatalf("%v, %+v", err, rep)
	}
	if m := rep.measure(ColdTTFT, 100); len(m.Series) != 1 || len(m.Series[0].Values) != 2 || m.Series[0].Median == 0 {
		t.Errorf("what was measured before: %+v", m)
	}
}

// engine is a target that tells its own times.
type engine struct{ cached int }

func (engine) Describe() Description {
	return Description{Name: "engine", Kind: "engine", Model: "m", Path: "go", Threads: 2, Version: "v1"}
}

func (e engine) Complete(_ context.Context, c Call) (Result, error) {
	n := len(strings.Fields(c.Prompt))
	return Result{First: 2 * time.Second, Last: 4 * time.Second, PromptTokens: n, CompletionTokens: c.MaxTokens, CachedTokens: e.cached,
		Prefill: time.Second, Decode: time.Second}, nil
}

func TestRates(t *testing.T) {
	rep, err := Run(context.Background(), []Target{engine{cached: 10}}, Options{Rounds: 3, PromptTokens: []int{200}, ExtendTokens: 100, GenTokens: 11, Seed: 3})
	if err != nil || len(rep.Errors) > 0 {
		t.Fatal(err, rep.Errors)
	}
	value := func(name string, tokens int) (float64, int) {
		s := rep.measure(name, tokens).series("engine")
		return s.Median, medianInt(s.Prompt)
	}
	for _, c := range []struct {
		name    string
		tokens  int
		seconds float64
	}{{Prefill, 200, 2}, {EnginePrefill, 200, 1}, {Extend, 200, 2}, {EngineExtend, 200, 1}} {
		if v, prompt := value(c.name, c.tokens); v != float64(prompt-10)/c.seconds {
			t.Errorf("%s: %v tokens/s for %d tokens in %v s", c.name, v, prompt-10, c.seconds)
		}
	}
	for _, n := range []int{0, 200} {
		if v, _ := value(Decode, n); v != 5 {
			t.Errorf("decode at %d: %v, want 5", n, v)
		}
		if v, _ := value(EngineDecode, n); v != 10 {
			t.Errorf("engine decode at %d: %v, want 10", n, v)
		}
	}
	if v, _ := value(ColdTTFT, 200); v != 2000 {
		t.Errorf("cold TTFT %v ms, want 2000", v)
	}

	// A target that does not say what was cached gets no rate that would need it.
	rep, err = Run(context.Background(), []Target{engine{cached: -1}}, Options{Rounds: 1, PromptTokens: []int{200}, ExtendTokens: 100, GenTokens: 2, Clients: 2})
	if err != nil || len(rep.Errors) > 0 {
		t.Fatal(err, rep.Errors)
	}
	for _, m := range rep.Results {
		if m.Name == Extend || m.Name == EngineExtend || m.Name == TogetherTokens {
			t.Errorf("%s without cached tokens", m.Name)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{{[]float64{3}, 3}, {[]float64{3, 1}, 2}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.v); got != c.want {
			t.Errorf("median(%v) = %v", c.v, got)
		}
	}
}

// The JSON form and the table are read by others: a change of testdata is a change for them.
func TestReportForms(t *testing.T) {
	r := newReport(Options{Rounds: 3, PromptTokens: []int{2000}, ExtendTokens: 512, GenTokens: 64, Clients: 8, Seed: 42})
	r.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.Machine = Machine{CPU: "Some CPU", CPUs: 2, OS: "linux/amd64", Kvasir: "v1.0.0", Go: "go1.26"}
	r.Targets = []Description{{Name: "a", Kind: "http", URL: "http://127.0.0.1:1", Model: "m", Server: "s", Version: "fp"}, {Name: "long-name", Kind: "engine", Model: "m", Path: "avx2", Threads: 2, Version: "v1"}}
	for i, v := range []float64{700, 680, 690} {
		r.add(0, ColdTTFT, 2000, v, []Result{{PromptTokens: 2001, CachedTokens: 0}})
		r.add(1, ColdTTFT, 2000, v*2, []Result{{PromptTokens: 2001, CachedTokens: -1}})
		r.add(1, Decode, 0, 100.26+float64(i), []Result{{PromptTokens: 12, CachedTokens: 11}})
		r.add(0, TogetherTokens, 2000, 2080, []Result{{PromptTokens: 2010, CachedTokens: 2000}, {PromptTokens: 2010, CachedTokens: -1}})
	}
	r.fail(0, 1, "decode", errors.New("it broke"))
	r.finish()
	var js, table bytes.Buffer
	if err := errors.Join(r.WriteJSON(&js), r.WriteTable(&table)); err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{"testdata/report.json": js.Bytes(), "testdata/report.txt": table.Bytes()} {
		if *update {
			if err := os.WriteFile(name, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs (-update writes it anew); got\n%s", name, got)
		}
	}
}

func TestProse(t *testing.T) {
	a := prose(1, "x", "0", 3000)
	if a != prose(1, "x", "0", 3000) {
		t.Error("the same arguments gave two texts")
	}
	if len(a) > 3000 || len(a) < 2980 {
		t.Errorf("%d bytes, want just under 3000", len(a))
	}
	if !strings.HasPrefix(prose(1, "x", "0", 5000), a) {
		t.Error("length changes the beginning of a text")
	}
	_, rest, _ := strings.Cut(a, "\n")
	_, other, _ := strings.Cut(prose(1, "x", "1", 3000), "\n")
	if n := min(len(rest), len(other)) - 20; rest[:n] != other[:n] {
		t.Error("salt changes more than the first line")
	}
	first := map[string]bool{}
	for seed := range uint64(50) {
		for _, label := range []string{"x", "y"} {
			for _, salt := range []string{"0", "1"} {
				line, _, _ := strings.Cut(prose(seed, label, salt, 500), "\n")
				first[line] = true
			}
		}
	}
	if len(first) != 200 {
		t.Errorf("%d first lines of 200 texts", len(first))
	}
}
