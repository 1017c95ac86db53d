package pipeline

import (
	"errors"
	"sync"

	"kvasir/internal/grammar"
	"kvasir/internal/llm"
)

// grammarBytes bounds the compiled grammars that are kept.
const grammarBytes = 128 << 20

// errNoToken ends a choice whose grammar asks for bytes that no token of the model has.
var errNoToken = errors.New("no token of the model's vocabulary continues the text as the grammar demands")

// openGrammars makes the trie of the vocabulary when the first request needs it.
func (p *Pipeline) openGrammars() {
	p.grammars = sync.OnceValue(func() *grammar.Cache {
		return grammar.NewCache(grammar.NewVocabulary(p.model.Vocab, p.plainBytes(), p.tokenizer.IsEOG), grammarBytes)
	})
}

// plainBytes returns a function that gives the bytes of a token, nil of one that the text does not show as they are: control tokens, and
// those after which the decoder drops a space.
func (p *Pipeline) plainBytes() func(id int32) []byte {
	t := p.tokenizer
	space := int32(-1) // a token that begins with a space
	for id := range int32(t.Vocab()) {
		if b := t.Bytes(id); len(b) > 0 && b[0] == ' ' && !t.IsControl(id) {
			space = id
			break
		}
	}
	return func(id int32) []byte {
		if int(id) >= t.Vocab() || t.IsControl(id) {
			return nil
		}
		if space >= 0 {
			d := t.NewDecoder(false)
			d.Push(id)
			d.Flush()
			if d.Push(space)+d.Flush() != string(t.Bytes(space)) {
				return nil
			}
		}
		return t.Bytes(id)
	}
}

// grammarOf compiles what the request demands of the text; nil if that is nothing.
func (p *Pipeline) grammarOf(r *llm.Request) (*grammar.Grammar, error) {
	c := r.Constraint
	if c == nil {
		return nil, nil
	}
	kinds := map[llm.ConstraintKind]grammar.Kind{llm.ConstrainObject: grammar.JSONObject, llm.ConstrainSchema: grammar.JSONSchema,
		llm.ConstrainRegex: grammar.Regex, llm.ConstrainChoice: grammar.Choice}
	kind, ok := kinds[c.Kind]
	if !ok {
		return nil, llm.Invalid(c.Param, "%s: an unknown kind of constraint", c.Param)
	}
	g, err := p.grammars().Get(r.Tenant, grammar.Spec{Kind: kind, Text: c.Text, Choices: c.Choices, Compact: c.Compact})
	if err != nil {
		return nil, llm.Invalid(c.Param, "%s: %s", c.Param, err)
	}
	return g, nil
}

// allowed is the set of tokens that the grammar allows next, nil for all. Where the end of the text is ignored it is among them only if there is
// nothing else.
func (c *choice) allowed() ([]uint64, error) {
	if c.matcher == nil {
		return nil, nil
	}
	set, n := c.matcher.Mask(!c.ignoreEOS)
	if n == 0 && c.ignoreEOS {
		set, n = c.matcher.Mask(true)
	}
	if n == 0 {
		return nil, errNoToken
	}
	return set, nil
}
