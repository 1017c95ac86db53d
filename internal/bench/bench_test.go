package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

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
	if n == togetherTokens {
		f.gate.pass() // all clients must be there at once
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
		fmt.Fprintf(w, "data: {\"system_fingerprint\":\"fp-%s\",\"choices\":[{\"text\":\" x\",\"finish_reason\":null}]}\n\n", f.name)
	}
	fmt.Fprint(w, "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n")
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

// small are the options of the tests: everything but itl and the loads.
func small() Options {
	return Options{Rounds: 2, Only: []string{"cold", "warm", "extend", "decode", "streams", "together", "keys", "long"}, PromptTokens: []int{100, 300}, LongTokens: 400,
		ExtendTokens: 80, Depths: []int{0, 300}, GenTokens: 5, SharedTokens: 200, Clients: 3, Keystrokes: 2, Seed: 7}
}

func TestRunAlternatesAndCounts(t *testing.T) {
	o := small()
	log := &callLog{}
	a, b := newFake(t, "a", log, o.Clients), newFake(t, "b", log, o.Clients)
	var progress []string
	rounds := []int{}
	o.Progress = func(done, total int, step string) { progress = append(progress, fmt.Sprintf("%d/%d", done, total)) }
	o.BeforeRound = func(_ context.Context, round int) error { rounds = append(rounds, round); return nil }
	rep, err := Run(context.Background(), []Target{a.target(t), b.target(t)}, o)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Errors) > 0 {
		t.Fatal(rep.Errors)
	}

	// Calls before the rounds: both warmed up, the first calibrates. Then every step a, b; those of the crowd in together are not logged.
	want := []string{"a/2", "a/1", "a/1", "b/2"}
	steps := [][]int{{1}, {1}, {1, 1, 1, 1}, {1, 1, 1, 1}, {1, 1}, {1, 1}, {5}, {5}, {1, 5, 5, 5}, {1}, {1, 1, 1}, {1}}
	for range o.Rounds {
		for _, calls := range steps {
			for _, target := range "ab" {
				for _, n := range calls {
					want = append(want, fmt.Sprintf("%c/%d", target, n))
				}
			}
		}
	}
	if !slices.Equal(log.calls, want) {
		t.Errorf("calls\n%v, want\n%v", log.calls, want)
	}
	if n := o.Rounds * len(steps) * 2; len(progress) != n || progress[0] != fmt.Sprintf("0/%d", n) || progress[n-1] != fmt.Sprintf("%d/%d", n-1, n) {
		t.Errorf("progress %v", progress)
	}
	if !slices.Equal(rounds, []int{0, 1}) {
		t.Errorf("before rounds %v", rounds)
	}

	const questionWords = 8
	count := map[string]int{}
	for _, m := range rep.Results {
		count[m.Scenario+"/"+m.Name]++
		if len(m.Series) != 2 || m.Series[0].Target != "a" || m.Series[1].Target != "b" {
			t.Fatalf("%s: series %+v", m.Name, m.Series)
		}
		for _, s := range m.Series {
			quick := m.Name == Running || m.Name == ITL50 || m.Name == ITL95 // a fake may be so quick that these have no values
			if len(s.Values) == 0 && quick {
				continue
			}
			perRound := map[string]int{"warm": warmQuestions, "keys": o.Keystrokes}[m.Scenario]
			if n := o.Rounds * max(1, perRound); !quick && len(s.Values) != n || len(s.Values) != len(s.Prompt) || len(s.Prompt) != len(s.Cached) {
				t.Fatalf("%s/%s %s: %+v", m.Scenario, m.Name, s.Target, s)
			}
			for i := range s.Values {
				p, c := s.Prompt[i], s.Cached[i]
				switch m.Scenario {
				case "cold", "long":
					if off := p - m.PromptTokens; off < -m.PromptTokens/8 || off > m.PromptTokens/8 || c != 0 {
						t.Errorf("%s %d %s: a prompt of %d tokens, %d cached", m.Name, m.PromptTokens, s.Target, p, c)
					}
				case "warm":
					if p-c != questionWords {
						t.Errorf("warm %d %s: %d of %d cached", m.PromptTokens, s.Target, c, p)
					}
				case "extend":
					if n := p - c; n < 60 || n > 100 || p < m.PromptTokens {
						t.Errorf("%s %d %s: %d computed", m.Name, m.PromptTokens, s.Target, n)
					}
				case "together":
					if v := int(s.Values[i]); m.Name == Computed && (v != p-c || v < 200*7/8 || v > 200*9/8+o.Clients*questionWords) {
						t.Errorf("%v computed of %d, %d cached", v, p, c)
					}
				case "streams":
					if p-c != o.Clients*questionWords || s.Calls[i] != o.Clients {
						t.Errorf("%s: %d of %d cached in %d calls", m.Name, c, p, s.Calls[i])
					}
				}
			}
		}
		if m.Series[0].Ahead != nil {
			t.Errorf("%s: the first target is ahead of itself by %v", m.Name, *m.Series[0].Ahead)
		}
		if v, w := m.Series[0].Median, m.Series[1].Median; v > 0 && w > 0 {
			if k := metricOf(m.Scenario, m.Name); k.more {
				v, w = 1/v, 1/w
			}
			if r := m.Series[1].Ahead; r == nil || *r/(w/v) < 0.999 || *r/(w/v) > 1.001 {
				t.Errorf("%s: ahead %v, want %v", m.Name, r, w/v)
			}
		}
	}
	for name, n := range map[string]int{"cold/ttft": 2, "cold/prefill": 2, "warm/ttft": 2, "extend/prefill": 2, "decode/decode": 2, "decode/itl_p50": 2, "decode/itl_p95": 2, "streams/total": 1,
		"together/wall": 1, "together/wall_by_cold": 1, "together/slowest_ttft": 1, "together/computed": 1, "keys/ttft": 1, "long/ttft": 1, "cold/engine_prefill": 0} {
		if count[name] != n {
			t.Errorf("%d figures %s, want %d", count[name], name, n)
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
			if len(p) > 20 && len(q) > 20 && p[0] == q[0] && p[1] == q[1] && p[2] == q[2] && p[3] == q[3] {
				t.Fatalf("both targets got a text that begins with %q", p[:4])
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
	o := Options{Rounds: 1, Only: []string{"long", "cold", "decode"}, PromptTokens: []int{100}, LongTokens: 2000, Depths: []int{2000, 0}, GenTokens: 2, Seed: 1}
	rep, err := Run(context.Background(), []Target{f.target(t)}, o)
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
	if want := "decode behind 2000 tokens, 2000 tokens cold"; strings.Join(steps, ", ") != want {
		t.Errorf("failed %q, want %q", steps, want)
	}
	for _, m := range rep.Results {
		if m.PromptTokens == 2000 {
			t.Errorf("a figure %s of calls that failed", m.Name)
		}
	}
	var b bytes.Buffer
	if err := rep.WriteTable(&b); err != nil || strings.Count(b.String(), "failed: a, round 1, ") != 2 {
		t.Errorf("%v, table\n%s", err, &b)
	}
}

func TestRunErrors(t *testing.T) {
	f := newFake(t, "a", &callLog{}, 1)
	mute := newFake(t, "mute", &callLog{}, 1)
	mute.silent = true
	gone := newFake(t, "gone", &callLog{}, 1)
	gone.Close()
	change := func(f func(*Options)) Options { o := small(); f(&o); return o }
	for _, c := range []struct {
		name    string
		targets []Target
		o       Options
		want    string
	}{
		{"no target", nil, small(), "nothing to measure"},
		{"same name", []Target{f.target(t), f.target(t)}, small(), "two targets"},
		{"rounds", []Target{f.target(t)}, change(func(o *Options) { o.Rounds = 0 }), "rounds: 0"},
		{"no such scenario", []Target{f.target(t)}, change(func(o *Options) { o.Only = []string{"cold", "hot"} }), `no scenario "hot"; there are cold, warm`},
		{"no scenario", []Target{f.target(t)}, change(func(o *Options) { o.Only = []string{} }), "no scenario"},
		{"no length", []Target{f.target(t)}, change(func(o *Options) { o.PromptTokens = nil }), "prompt tokens: 0"},
		{"short prompt", []Target{f.target(t)}, change(func(o *Options) { o.PromptTokens = []int{8} }), "at least 64"},
		{"short depth", []Target{f.target(t)}, change(func(o *Options) { o.Depths = []int{0, 8} }), "decode depth: 8"},
		{"one token", []Target{f.target(t)}, change(func(o *Options) { o.GenTokens = 1 }), "at least 2"},
		{"negative", []Target{f.target(t)}, change(func(o *Options) { o.Clients = -1 }), "clients: -1"},
		{"requests", []Target{f.target(t)}, change(func(o *Options) { o.Only = []string{"rag"}; o.Requests = 2 }), "requests: 2; at least 3"},
		{"no usage", []Target{mute.target(t)}, small(), "mute: the target reports no usage"},
		{"not there", []Target{f.target(t), gone.target(t)}, small(), "gone: "},
		{"before a round", []Target{f.target(t)}, change(func(o *Options) {
			o.BeforeRound = func(context.Context, int) error { return errors.New("no limits") }
		}), "no limits"},
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
	// What a scenario does not need is not asked for.
	if _, err := Run(context.Background(), []Target{f.target(t)}, Options{Rounds: 1, Only: []string{"cold"}, PromptTokens: []int{100}}); err != nil {
		t.Error(err)
	}
}

func TestRunCanceled(t *testing.T) {
	f := newFake(t, "a", &callLog{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	o := Options{Rounds: 100, Only: []string{"cold", "decode"}, PromptTokens: []int{100}, Depths: []int{0}, GenTokens: 2, Progress: func(done, total int, step string) {
		if done == 3 { // the second round's second step
			cancel()
		}
	}}
	rep, err := Run(ctx, []Target{f.target(t)}, o)
	if !errors.Is(err, context.Canceled) || rep == nil || len(rep.Errors) > 0 {
		t.Fatalf("%v, %+v", err, rep)
	}
	if m := rep.measure("cold", TTFT, 100); len(m.Series) != 1 || len(m.Series[0].Values) != 2 || m.Series[0].Median == 0 {
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
	return Result{Events: []time.Duration{2 * time.Second, 3 * time.Second, 4 * time.Second}, PromptTokens: n, CompletionTokens: c.MaxTokens, CachedTokens: e.cached,
		Prefill: time.Second, Decode: time.Second}, nil
}

func TestRates(t *testing.T) {
	o := Options{Rounds: 3, Only: []string{"cold", "extend", "decode"}, PromptTokens: []int{200}, ExtendTokens: 100, Depths: []int{0, 200}, GenTokens: 11, Seed: 3}
	rep, err := Run(context.Background(), []Target{engine{cached: 10}}, o)
	if err != nil || len(rep.Errors) > 0 {
		t.Fatal(err, rep.Errors)
	}
	value := func(scenario, name string, tokens int) (float64, int) {
		s := rep.measure(scenario, name, tokens).series("engine")
		return s.Median, medianInt(s.Prompt)
	}
	for _, c := range []struct {
		scenario, name string
		seconds        float64
	}{{"cold", Prefill, 2}, {"cold", EnginePrefill, 1}, {"extend", Prefill, 2}, {"extend", EnginePrefill, 1}} {
		if v, prompt := value(c.scenario, c.name, 200); v != float64(prompt-10)/c.seconds {
			t.Errorf("%s/%s: %v tokens/s for %d tokens in %v s", c.scenario, c.name, v, prompt-10, c.seconds)
		}
	}
	for _, n := range []int{0, 200} {
		for name, want := range map[string]float64{Decode: 5, EngineDecode: 10, EngineSteps: 2, ITL50: 1000, ITL95: 1000} {
			if v, _ := value("decode", name, n); v != want {
				t.Errorf("%s at %d: %v, want %v", name, n, v, want)
			}
		}
		if s := rep.measure("decode", Decode, n).series("engine"); !slices.Equal(s.Notes, []string{severalAtOnce}) {
			t.Errorf("notes %q", s.Notes)
		}
	}
	if v, _ := value("cold", TTFT, 200); v != 2000 {
		t.Errorf("cold TTFT %v ms, want 2000", v)
	}

	// A target that does not say what was cached gets no rate that would need it, and that is said.
	o.Only, o.Rounds, o.Clients, o.SharedTokens = []string{"extend", "together"}, 1, 2, 200
	rep, err = Run(context.Background(), []Target{engine{cached: -1}}, o)
	if err != nil || len(rep.Errors) > 0 {
		t.Fatal(err, rep.Errors)
	}
	for _, m := range rep.Results {
		if m.Name == Computed || m.Scenario == "extend" && (len(m.Series[0].Values) > 0 || len(m.Series[0].Notes) != 1) {
			t.Errorf("%s without cached tokens: %+v", m.Name, m.Series[0])
		}
	}
}

// Tokens that arrive together are one arrival, whatever comes between two of them.
func TestArrivals(t *testing.T) {
	us := func(v ...int) (d []time.Duration) {
		for _, x := range v {
			d = append(d, time.Duration(x)*time.Microsecond)
		}
		return d
	}
	for _, c := range []struct{ events, want []time.Duration }{
		{nil, nil}, {us(5), us(5)}, {us(0, 200, 400, 601), us(0, 601)}, {us(0, 1000, 1001, 1002, 2000, 3000), us(0, 1000, 2000, 3000)},
	} {
		if got := arrivals(c.events); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.events, got, c.want)
		}
	}
	if g := gaps(us(0, 1000, 4000)); !slices.Equal(g, []float64{1, 3}) {
		t.Errorf("gaps %v", g)
	}
	if r := (Result{Events: us(0, 1, 2, 3000), CompletionTokens: 4}); !inBursts(&r) {
		t.Error("three tokens at once were not noticed")
	}
	if r := (Result{Events: us(0, 1000, 2000, 3000), CompletionTokens: 4}); inBursts(&r) {
		t.Error("tokens one by one were taken for several")
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		v       []float64
		q, want float64
	}{{[]float64{3}, 0.5, 3}, {[]float64{3, 1}, 0.5, 2}, {[]float64{9, 1, 2}, 0.5, 2}, {[]float64{4, 1, 3, 2}, 0.5, 2.5}, {[]float64{0, 10}, 0.1, 1}, {[]float64{0, 10}, 0.9, 9},
		{[]float64{5, 1, 2, 3, 4}, 0, 1}, {[]float64{5, 1, 2, 3, 4}, 1, 5}, {[]float64{5, 1, 2, 3, 4}, 0.25, 2}} {
		if got := quantile(c.v, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.v, c.q, got, c.want)
		}
	}
}

func TestTexts(t *testing.T) {
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
	f := source(1, "x", "0", 3000)
	if len(f) != 3000 || f != source(1, "x", "0", 4000)[:3000] {
		t.Errorf("source: %d bytes", len(f))
	}
	if g := source(1, "x", "1", 3000); g == f || strings.SplitN(g, "\n", 2)[1][:2000] != strings.SplitN(f, "\n", 2)[1][:2000] {
		t.Error("salt changes more or less than the first line of a source")
	}
}
