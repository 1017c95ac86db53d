package bench

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Scenario is something that callers do with a model, and what of it is measured.
type Scenario struct {
	Name string
	Help string

	load  bool // a closed loop of clients: not part of Standard
	steps func(o *Options) []step
}

// step is a part of a scenario that one target takes at a time.
type step struct {
	scenario string
	name     string
	run      func(ctx context.Context, t *turn) error
}

// Scenarios lists all of them, in the order in which they run.
func Scenarios() []Scenario {
	return []Scenario{
		{"cold", "first token of a prompt that the server has never seen", false, forLengths("%d tokens cold", cold)},
		{"warm", "first token of a prompt that was seen but for its last ten tokens", false, forLengths("%d tokens warm", warm)},
		{"extend", "prefill of new tokens behind a cached prompt", false, forLengths("prefill behind %d tokens", extend)},
		{"decode", "one stream, behind prompts of several lengths, and the time between its tokens", false, decodeSteps},
		{"streams", "streams of many clients whose prompts share a cached prefix", false, func(o *Options) []step {
			return []step{{name: fmt.Sprintf("%d streams on a cached prefix", o.Clients), run: streams}}
		}},
		{"together", "clients who arrive at once with one fresh prefix, against one cold prompt of its length", false, func(o *Options) []step {
			return []step{{name: fmt.Sprintf("%d clients at once on a fresh prefix", o.Clients), run: fresh}}
		}},
		{"keys", "code completion: a request at every keystroke in the middle of a file", false, func(*Options) []step {
			return []step{{name: "keystrokes", run: keystrokes}}
		}},
		{"long", "first token of a long prompt that the server has never seen", false, func(o *Options) []step {
			return []step{{name: fmt.Sprintf("%d tokens cold", o.LongTokens), run: cold(o.LongTokens)}}
		}},
		{"itl", "time between the tokens of running streams while a long prompt comes in, and what the streams do to that prompt", false, func(o *Options) []step {
			return []step{{name: fmt.Sprintf("%d streams and a prompt of %d tokens", o.ITLStreams, o.ITLTokens), run: itl}}
		}},
		{"chat", "load: users with growing conversations on one system prompt", true, loadSteps("chat", chat)},
		{"code", "load: users who type in their open files", true, loadSteps("code", code)},
		{"rag", "load: changing questions to the same instructions and documents", true, loadSteps("rag", rag)},
	}
}

// Standard names the scenarios that are not loads.
func Standard() []string { return names(false) }

// Loads names the scenarios that are loads: what they cost is measured, and how many requests a second are answered.
func Loads() []string { return names(true) }

func names(load bool) []string {
	var n []string
	for _, s := range Scenarios() {
		if s.load == load {
			n = append(n, s.Name)
		}
	}
	return n
}

func scenarioOf(name string) (Scenario, error) {
	all := Scenarios()
	i := slices.IndexFunc(all, func(s Scenario) bool { return s.Name == name })
	if i < 0 {
		return Scenario{}, fmt.Errorf("no scenario %q; there are %s", name, strings.Join(append(names(false), names(true)...), ", "))
	}
	return all[i], nil
}

const (
	minPrompt   = 64   // shorter prompts are mostly salt and question
	sampleChars = 4000 // of the text that calibrates
	shortChars  = 200
)

// longText labels the text that warm, decode and streams share: the longer prompt begins with the shorter one, so that a target which
// remembers has to compute it once.
const longText = "long"

type runner struct {
	o       Options
	targets []Target
	report  *Report
	perChar float64 // tokens that a byte of prose takes
	fixed   float64 // tokens of the first line and the question beyond that

	answers map[answerKey]string // of the loads, by target 0
}

// turn is one target's turn at a step.
type turn struct {
	*runner
	target, round int
	scenario      string
}

// steps lists what one round does.
func (r *runner) steps() []step {
	var all []step
	for _, s := range Scenarios() {
		if !slices.Contains(r.o.Only, s.Name) {
			continue
		}
		for _, st := range s.steps(&r.o) {
			st.scenario = s.Name
			all = append(all, st)
		}
	}
	return all
}

func forLengths(format string, run func(n int) func(context.Context, *turn) error) func(*Options) []step {
	return func(o *Options) []step {
		var s []step
		for _, n := range o.PromptTokens {
			s = append(s, step{name: fmt.Sprintf(format, n), run: run(n)})
		}
		return s
	}
}

// calibrate warms every target up and learns from the first how many bytes of text make a token. All targets then get equally long
// texts; one with another tokenizer reports its own counts.
func (r *runner) calibrate(ctx context.Context) error {
	for i, t := range r.targets {
		name := t.Describe().Name
		if _, err := t.Complete(ctx, Call{Prompt: "Hello", MaxTokens: 2}); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if i > 0 {
			continue
		}
		var tokens [2]int
		for k, chars := range [2]int{shortChars, sampleChars} {
			res, err := t.Complete(ctx, Call{Prompt: r.text("calibrate", "0", chars) + r.question("calibrate"), MaxTokens: 1})
			if err != nil {
				return fmt.Errorf("%s: calibrating: %w", name, err)
			}
			tokens[k] = res.PromptTokens
		}
		if tokens[0] <= 0 || tokens[1] <= tokens[0] {
			return fmt.Errorf("%s: %w", name, ErrUsage)
		}
		r.perChar = float64(tokens[1]-tokens[0]) / (sampleChars - shortChars)
		r.fixed = max(0, float64(tokens[0])-r.perChar*shortChars)
	}
	return nil
}

// text makes a text that nobody has seen before this run, and whose beginning belongs to salt.
func (r *runner) text(label, salt string, chars int) string {
	return prose(r.o.Seed, label, salt, chars)
}

// question is about ten tokens that differ from their first word on.
func (r *runner) question(label string) string {
	p := newPicker(r.o.Seed, "question/"+label)
	var b strings.Builder
	b.WriteString("\n\n")
	for range 8 {
		b.WriteString(p.word() + " ")
	}
	return strings.TrimRight(b.String(), " ") + "?\n"
}

// chars is the length of a text that makes a prompt of so many tokens with a question behind it.
func (r *runner) chars(tokens int) int {
	return max(shortChars, int((float64(tokens)-r.fixed)/r.perChar+0.5))
}

// prefix is a text for a prompt of so many tokens that only this turn's target sees.
func (t *turn) prefix(label string, tokens int) string {
	return t.text(label, fmt.Sprint(t.target), t.chars(tokens))
}

// ask is a question that is asked once in a run.
func (t *turn) ask(i int) string {
	return t.question(fmt.Sprintf("%s/%d/%d", t.scenario, t.round, i))
}

// roundText labels a text of this round alone.
func (t *turn) roundText(label string) string { return fmt.Sprintf("round %d, %s", t.round, label) }

func (t *turn) complete(ctx context.Context, prompt string, maxTokens int) (Result, error) {
	return t.targets[t.target].Complete(ctx, Call{Prompt: prompt, MaxTokens: maxTokens})
}

// record adds a value of this turn. rs are the calls that it comes from.
func (t *turn) record(metric string, tokens int, value float64, rs ...Result) {
	t.report.add(t.target, t.scenario, metric, tokens, value, rs)
}

func (t *turn) note(metric string, tokens int, format string, args ...any) {
	t.report.note(t.target, t.scenario, metric, tokens, fmt.Sprintf(format, args...))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// rate records tokens a second, where both are known.
func (t *turn) rate(metric string, tokens, n int, d time.Duration, r Result) {
	if n > 0 && d > 0 {
		t.record(metric, tokens, float64(n)/d.Seconds(), r)
	}
}
