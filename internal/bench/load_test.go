package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// shop is a target that answers every request after 2 s of its own clock, and counts.
type shop struct {
	name    string
	answer  string
	fail    string // prompts that hold this fail
	noMeter error
	mu      sync.Mutex
	inside  int
	most    int
	prompts []string
	open    chan struct{} // closed when all clients are inside for the first time
	clients int
}

func newShop(name, answer string, clients int) *shop {
	return &shop{name: name, answer: answer, clients: clients, open: make(chan struct{})}
}

func (s *shop) Describe() Description { return Description{Name: s.name, Kind: "http", Model: "m"} }

func (s *shop) CPU() (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(len(s.prompts)) * 500 * time.Millisecond, s.noMeter
}

func (s *shop) Complete(ctx context.Context, c Call) (Result, error) {
	s.mu.Lock()
	s.inside++
	s.most = max(s.most, s.inside)
	load := len(c.Prompt) > 4100 // longer than what calibrates
	if load {
		s.prompts = append(s.prompts, c.Prompt)
		if s.inside == s.clients {
			select {
			case <-s.open:
			default:
				close(s.open)
			}
		}
	}
	s.mu.Unlock()
	if load {
		select {
		case <-s.open:
		case <-ctx.Done():
		}
	}
	defer func() {
		s.mu.Lock()
		s.inside--
		s.mu.Unlock()
	}()
	if s.fail != "" && strings.Contains(c.Prompt, s.fail) {
		return Result{}, errors.New("out of blocks")
	}
	n := len(strings.Fields(c.Prompt))
	return Result{Start: time.Now(), Events: []time.Duration{2 * time.Second}, Text: s.answer, PromptTokens: n, CompletionTokens: c.MaxTokens, CachedTokens: n / 2}, ctx.Err()
}

func loadOptions(scenario string) Options {
	return Options{Rounds: 2, Only: []string{scenario}, Clients: 3, Requests: 11, Seed: 5, SameTexts: true}
}

func TestLoadIsAClosedLoop(t *testing.T) {
	for _, scenario := range []string{"code", "rag"} {
		a, b := newShop("a", " yes", 3), newShop("b", " yes", 3)
		rep, err := Run(context.Background(), []Target{a, b}, loadOptions(scenario))
		if err != nil || len(rep.Errors) > 0 {
			t.Fatal(err, rep.Errors)
		}
		for _, s := range []*shop{a, b} {
			if len(s.prompts) != 22 || s.most != 3 {
				t.Errorf("%s: %d requests, at most %d at once", scenario, len(s.prompts), s.most)
			}
		}
		// The same texts for both, in whatever order the clients came.
		if x, y := slices.Sorted(slices.Values(a.prompts)), slices.Sorted(slices.Values(b.prompts)); !slices.Equal(x, y) {
			t.Errorf("%s: the targets got different texts", scenario)
		}
		for name, want := range map[string]float64{CPUSeconds: 0.5, TTFT50: 2000, TTFT95: 2000} {
			if s := rep.measure(scenario, name, 0).series("b"); len(s.Values) != 2 || s.Median != want || s.Calls[0] != 11 {
				t.Errorf("%s/%s: %+v, want %v", scenario, name, s, want)
			}
		}
		if s := rep.measure(scenario, CachedShare, 0).series("a"); s.Median < 49 || s.Median > 50 {
			t.Errorf("cached share %v", s.Median)
		}
		s := rep.measure(scenario, PerSecond, 0).series("b")
		if len(s.Values) != 2 || !(s.Median > 0) || !slices.Equal(s.Notes, []string{"answers equal those of a"}) {
			t.Errorf("%s: %+v", scenario, s)
		}
	}
}

func TestRequestsAreCountedUntilTheFirstClientIsDone(t *testing.T) {
	r := newReport(loadOptions("chat"))
	r.Targets = []Description{{Name: "a"}}
	tr := &turn{runner: &runner{o: loadOptions("chat"), report: r}, scenario: "chat"}
	begin := time.Unix(50, 0)
	ends := func(s ...int) (c []answered) {
		for _, x := range s {
			c = append(c, answered{Result{Events: []time.Duration{time.Second}, PromptTokens: 4, CachedTokens: 1}, begin.Add(time.Duration(x) * time.Second)})
		}
		return c
	}
	tr.recordLoad(begin, [][]answered{ends(1, 3, 4), ends(2, 5, 90)}) // four are answered within 4 s: 1, 2, 3, 4
	if s := r.measure("chat", PerSecond, 0).series("a"); s.Values[0] != 1 {
		t.Errorf("%v requests/s, want 1", s.Values)
	}
}

// A chat's next prompt is the last one, the answer, and the next message. The system prompt is the same for all.
func TestChatGrows(t *testing.T) {
	tr := &turn{runner: &runner{o: loadOptions("chat")}, scenario: "chat"}
	a, b := chat(tr, 0), chat(tr, 1)
	first := a.next(0, "")
	second := a.next(1, " an answer")
	if !strings.HasPrefix(second.Prompt, first.Prompt+" an answer\n\nUser: ") || !strings.HasSuffix(second.Prompt, "\nAssistant:") {
		t.Errorf("the second prompt does not go on from the first")
	}
	other := b.next(0, "").Prompt
	n := 0
	for n < len(other) && n < len(first.Prompt) && other[n] == first.Prompt[n] {
		n++
	}
	if n < chatSystem-40 || n > chatSystem+40 {
		t.Errorf("two users share %d bytes, want about %d", n, chatSystem)
	}
}

// In an editor the text before and behind the cursor stays while what is typed grows.
func TestCodeTypes(t *testing.T) {
	tr := &turn{runner: &runner{o: loadOptions("code")}, scenario: "code"}
	s := code(tr, 0)
	head, tail := "", ""
	for i := range 11 {
		h, rest, ok := strings.Cut(s.next(i, "").Prompt, "<|fim_suffix|>")
		if !ok || i > 0 && (!strings.HasPrefix(h, head) || len(h) == len(head) || rest != tail) {
			t.Fatalf("request %d does not go on from the one before", i)
		}
		head, tail = h, rest
	}
}

func TestLoadFailures(t *testing.T) {
	a, b := newShop("a", " yes", 3), newShop("b", " no", 3)
	rep, err := Run(context.Background(), []Target{a, b}, loadOptions("rag"))
	if err != nil || len(rep.Errors) != 2 || rep.Errors[0].Target != "b" || !strings.Contains(rep.Errors[0].Error, "answers differ from those of a") {
		t.Errorf("other answers: %v, %+v", err, rep.Errors)
	}
	if s := rep.measure("rag", PerSecond, 0).series("b"); !slices.Contains(s.Notes, "ANSWERS DIFFER from those of a") {
		t.Errorf("notes %q", s.Notes)
	}
	// Different servers answer differently: that is none of our business unless the texts are meant to be the same.
	o := loadOptions("rag")
	o.SameTexts = false
	rep, err = Run(context.Background(), []Target{newShop("a", " yes", 3), newShop("b", " no", 3)}, o)
	if err != nil || len(rep.Errors) > 0 {
		t.Errorf("%v, %+v", err, rep.Errors)
	}

	a = newShop("a", "", 3)
	a.fail = "Assistant:"
	o = loadOptions("chat")
	o.Rounds = 1
	a.clients = 0
	close(a.open)
	rep, err = Run(context.Background(), []Target{a}, o)
	if err != nil || len(rep.Errors) != 1 || len(rep.Results) > 0 {
		t.Fatalf("%v, %+v", err, rep)
	}
	for c := range 3 {
		if want := fmt.Sprintf("client %d, request 1: out of blocks", c+1); !strings.Contains(rep.Errors[0].Error, want) {
			t.Errorf("%q lacks %q", rep.Errors[0].Error, want)
		}
	}

	a = newShop("a", "", 3)
	a.noMeter = errors.New("no such process")
	rep, err = Run(context.Background(), []Target{a}, loadOptions("rag"))
	if err != nil || len(rep.Errors) != 2 || !strings.Contains(rep.Errors[0].Error, "no such process") {
		t.Errorf("%v, %+v", err, rep.Errors)
	}
}
