package bench

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
)

// A script is what one client of a load does. next returns its request number i; answer is the text that it got for the one before.
type script interface {
	next(i int, answer string) Call
}

// Lengths of the loads' texts, in bytes (about four a token), and of the answers, in tokens.
const (
	chatSystem, chatFirst, chatTurn, chatAnswer = 1500, 600, 250, 32
	ragRules, ragDocument, ragAnswer            = 1200, 4500, 24
	ragDocuments                                = 4
	codeAnswer                                  = 8
)

// salt sets the texts of targets apart, unless they are to be the same.
func (t *turn) salt() string {
	if t.o.SameTexts {
		return ""
	}
	return fmt.Sprint(t.target)
}

// chat is a user with a conversation. The system prompt is the same for all users of a round; the model's own answers are part of
// the next prompt.
func chat(t *turn, client int) script {
	return &chatScript{t: t, client: client, history: t.text(t.roundText("system"), t.salt(), chatSystem)}
}

type chatScript struct {
	t       *turn
	client  int
	history string
}

func (c *chatScript) next(i int, answer string) Call {
	n := chatTurn
	if i == 0 {
		n = chatFirst
	}
	c.history += answer + "\n\nUser: " + c.t.text(c.t.roundText(fmt.Sprintf("user %d, turn %d", c.client, i)), "", n) + "\nAssistant:"
	return Call{Prompt: c.history, MaxTokens: chatAnswer}
}

// code is a user who types in the middle of a file; the editor asks for a completion after every few characters.
func code(t *turn, client int) script {
	file := t.roundText(fmt.Sprintf("file %d", client))
	return &codeScript{file: source(t.o.Seed, file, t.salt(), fileHead+fileTail), typed: source(t.o.Seed, file+", typed", "", 4*t.o.Requests+100)}
}

type codeScript struct {
	file, typed string
	at          int
}

func (c *codeScript) next(i int, _ string) Call {
	call := Call{Prompt: infill(c.file[:fileHead]+c.typed[:c.at], c.file[fileHead:]), MaxTokens: codeAnswer}
	c.at += 1 + i%3
	return call
}

// rag is a user whose questions are put behind the rules and one of a few documents.
func rag(t *turn, client int) script {
	return &ragScript{t: t, client: client, pick: newPicker(t.o.Seed, t.roundText(fmt.Sprintf("documents of client %d", client)))}
}

type ragScript struct {
	t      *turn
	client int
	pick   picker
}

func (r *ragScript) next(i int, _ string) Call {
	t := r.t
	document := fmt.Sprintf("document %d", r.pick.pick(ragDocuments))
	return Call{MaxTokens: ragAnswer, Prompt: t.text(t.roundText("rules"), t.salt(), ragRules) + "\n\n" +
		t.text(t.roundText(document), "", ragDocument) + t.ask(1000*r.client+i)}
}

// answerKey says which texts must be the same for all targets if SameTexts is set.
type answerKey struct {
	scenario string
	round    int
}

func loadSteps(name string, make func(t *turn, client int) script) func(*Options) []step {
	return func(o *Options) []step {
		return []step{{name: fmt.Sprintf("%s, %d clients", name, o.Clients), run: func(ctx context.Context, t *turn) error { return t.load(ctx, make) }}}
	}
}

// answered is a request of a load.
type answered struct {
	Result
	end time.Time
}

// load runs a closed loop: each client sends its next request when it has the answer to the one before. Requests a second are counted
// until the first client is done, so that the last ones, who have the target for themselves, do not count.
func (t *turn) load(ctx context.Context, begins func(t *turn, client int) script) error {
	target := t.targets[t.target]
	meter, metered := target.(Meter)
	before, err := cpu(meter)
	if err != nil {
		return err
	}
	begin := time.Now()
	all := make([][]answered, t.o.Clients)
	errs := make([]error, t.o.Clients)
	var wg sync.WaitGroup
	for c := range all {
		n := t.o.Requests / t.o.Clients
		if c < t.o.Requests%t.o.Clients {
			n++
		}
		s := begins(t, c)
		wg.Go(func() {
			text := ""
			for i := range n {
				r, err := target.Complete(ctx, s.next(i, text))
				if err != nil {
					errs[c] = fmt.Errorf("client %d, request %d: %w", c+1, i+1, err)
					return
				}
				text = r.Text
				all[c] = append(all[c], answered{r, time.Now()})
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	after, err := cpu(meter)
	if err != nil {
		return err
	}
	t.recordLoad(begin, all)
	if metered {
		var rs []Result
		for _, c := range all {
			for _, r := range c {
				rs = append(rs, r.Result)
			}
		}
		t.record(CPUSeconds, 0, (after-before).Seconds()/float64(t.o.Requests), rs...)
	}
	t.compareAnswers(all)
	return nil
}

func cpu(m Meter) (time.Duration, error) {
	if m == nil {
		return 0, nil
	}
	return m.CPU()
}

func (t *turn) recordLoad(begin time.Time, all [][]answered) {
	var firstDone time.Time
	for _, c := range all {
		if end := c[len(c)-1].end; firstDone.IsZero() || end.Before(firstDone) {
			firstDone = end
		}
	}
	var rs []Result
	var ttft []float64
	done, prompt, cached, known := 0, 0, 0, true
	for _, c := range all {
		for _, r := range c {
			rs = append(rs, r.Result)
			ttft = append(ttft, ms(r.First()))
			prompt += r.PromptTokens
			cached += r.CachedTokens
			known = known && r.CachedTokens >= 0
			if !r.end.After(firstDone) {
				done++
			}
		}
	}
	t.record(PerSecond, 0, float64(done)/firstDone.Sub(begin).Seconds(), rs...)
	t.record(TTFT50, 0, quantile(ttft, 0.5), rs...)
	t.record(TTFT95, 0, quantile(ttft, 0.95), rs...)
	if known && prompt > 0 {
		t.record(CachedShare, 0, 100*float64(cached)/float64(prompt), rs...)
	} else {
		t.note(PerSecond, 0, "the server does not say what was cached")
	}
}

// compareAnswers notes where a target's texts differ from the first target's.
func (t *turn) compareAnswers(all [][]answered) {
	if !t.o.SameTexts {
		return
	}
	h := sha256.New()
	for _, c := range all {
		for _, r := range c {
			h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(r.Text))))
			h.Write([]byte(r.Text))
		}
	}
	k := answerKey{t.scenario, t.round}
	sum := string(h.Sum(nil))
	first, ok := t.answers[k]
	switch {
	case !ok:
		t.answers[k] = sum
	case first == sum:
		t.note(PerSecond, 0, "answers equal those of %s", t.report.Targets[0].Name)
	default:
		t.note(PerSecond, 0, "ANSWERS DIFFER from those of %s", t.report.Targets[0].Name)
		t.report.fail(t.target, t.round, t.scenario, errors.New("the answers differ from those of "+t.report.Targets[0].Name))
	}
}

// source is a text of code: source lines beginning with a comment line that belongs to salt.
func source(seed uint64, label, salt string, chars int) string {
	var b strings.Builder
	head := newPicker(seed, label+"/"+salt)
	fmt.Fprintf(&b, "# %s %s %s\n", head.word(), head.word(), head.word())
	p := newPicker(seed, label)
	for b.Len() < chars {
		p.function(&b)
	}
	return b.String()[:chars]
}
