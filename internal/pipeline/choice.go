package pipeline

import (
	"slices"
	"strings"

	"kvasir/internal/grammar"
	"kvasir/internal/llm"
	"kvasir/internal/sample"
	"kvasir/internal/sched"
	"kvasir/internal/token"
)

type span struct{ start, end int }

// A choice turns the logits of one sequence into text events. Its methods run on the step loop.
type choice struct {
	index     int
	stream    *stream
	job       *sched.Job
	sampler   *sample.Sampler
	tokenizer *token.Tokenizer
	decoder   *token.Decoder
	stop      []string
	ignoreEOS bool
	logprobs  bool
	left      int              // tokens that may still be generated
	matcher   *grammar.Matcher // nil: the text is free

	held    string          // text that may be the beginning of a stop string
	pending []llm.TokenInfo // tokens whose text is not emitted
	spans   []span          // where in held the text of each is; it may begin before held, in what was emitted
}

// next chooses the token at position and emits what became certain.
func (c *choice) next(logits []float32, position int) (int32, bool, error) {
	allowed, err := c.allowed()
	if err != nil {
		return 0, true, err
	}
	tok, top, err := c.sampler.SampleAmong(logits, position, allowed)
	if err != nil {
		return 0, true, err
	}
	if c.matcher != nil {
		if err := c.matcher.Accept(tok.ID); err != nil {
			return 0, true, err
		}
	}
	c.sampler.Accept(tok.ID)
	c.left--
	c.stream.count(c.index)
	if c.tokenizer.IsEOG(tok.ID) && (!c.ignoreEOS || c.matcher != nil) {
		c.held += c.decoder.Flush()
		c.cut()
		c.emit(len(c.held), llm.FinishStop)
		return tok.ID, true, nil
	}
	if c.logprobs {
		tok.Bytes = c.tokenizer.Bytes(tok.ID)
		top = slices.Clone(top) // the sampler uses its buffer again
		for i := range top {
			top[i].Bytes = c.tokenizer.Bytes(top[i].ID)
		}
		c.pending = append(c.pending, llm.TokenInfo{TokenLogprob: tok, Top: top})
	}
	start := len(c.held)
	c.held += c.decoder.Push(tok.ID)
	if c.left == 0 {
		c.held += c.decoder.Flush()
	}
	if c.logprobs {
		c.spans = append(c.spans, span{start, len(c.held)})
	}
	if c.cut() || c.matcher != nil && c.matcher.Done() { // when nothing may follow, the model is not asked for the end
		c.emit(len(c.held), llm.FinishStop)
		return tok.ID, true, nil
	}
	if c.left == 0 {
		c.emit(len(c.held), llm.FinishLength)
		return tok.ID, true, nil
	}
	keep := 0
	for _, s := range c.stop {
		for k := min(len(s)-1, len(c.held)); k > keep; k-- {
			if strings.HasSuffix(c.held, s[:k]) {
				keep = k
			}
		}
	}
	if n := len(c.held) - keep; n > 0 || c.logprobs && keep == 0 {
		c.emit(n, "")
	}
	return tok.ID, false, nil
}

// cut ends the held text before the first stop string in it.
func (c *choice) cut() bool {
	at := -1
	for _, s := range c.stop {
		if i := strings.Index(c.held, s); i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if at < 0 {
		return false
	}
	c.held = c.held[:at]
	return true
}

// emit sends the first n bytes of the held text with the tokens whose text ends in them; at the end also the one that a
// stop string cut off in the middle.
func (c *choice) emit(n int, finish string) {
	e := llm.Event{Choice: c.index, Text: c.held[:n], Finish: finish}
	c.held = c.held[n:]
	k := 0
	for k < len(c.pending) && (c.spans[k].end <= n || finish != "" && c.spans[k].start < n) {
		k++
	}
	e.Tokens = c.pending[:k:k]
	c.pending, c.spans = c.pending[k:], c.spans[k:]
	for i := range c.spans {
		c.spans[i].start -= n
		c.spans[i].end -= n
	}
	c.stream.push(e)
}
