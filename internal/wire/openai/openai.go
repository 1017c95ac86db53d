// Package openai translates between OpenAI's JSON (completions, chat completions, models, errors) and the types of llm.
// It is pure: bytes in, values out, and back. It knows no HTTP beyond status codes and the framing of server-sent events.
//
// The shapes follow OpenAI's published API description; the extension fields follow vLLM's and llama.cpp's names. fields.go is
// the one table of what is honoured, ignored and rejected.
package openai

import (
	"fmt"

	"kvasir/internal/llm"
)

// Limits of one request. They bound work that is proportional to counts, not to the body's length, which the server bounds.
const (
	MaxPrompts     = 2048    // prompts of one completions request
	MaxN           = 128     // choices of one prompt
	MaxChoices     = 2048    // prompts × n
	MaxMessages    = 1 << 16 // messages of a chat, and content parts of a message
	MaxStops       = 16      // stop strings (OpenAI allows 4)
	MaxStopLen     = 4096    // bytes of one stop string
	MaxBias        = 4096    // entries of logit_bias
	MaxAdapters    = 64      // entries of lora; the model may allow fewer
	MaxChoiceTexts = 4096    // of guided_choice
	MaxNameLen     = 512     // bytes of a model's or a participant's name

	maxCompletionLogprobs = 5
	maxTopLogprobs        = 20
	defaultMaxTokens      = 16 // of /v1/completions, as OpenAI's
)

// An Endpoint is one of the two generating routes.
type Endpoint int

// The endpoints. They are bits, so that a field can name both.
const (
	Completions Endpoint = 1 << iota
	Chat
)

func (e Endpoint) String() string {
	switch e {
	case Completions:
		return "/v1/completions"
	case Chat:
		return "/v1/chat/completions"
	}
	return "both"
}

// A Call is a decoded request: what to generate, and how the caller wants it delivered.
type Call struct {
	// Request lacks ID and Tenant, and Sampling.Seed where HasSeed is false; the server sets them.
	Request      llm.Request
	Endpoint     Endpoint
	HasSeed      bool
	Stream       bool
	IncludeUsage bool // a last chunk with the usage
}

// Choices is the number of choices of the response: prompts × n.
func (c *Call) Choices() int { return len(c.Request.Prompts) * c.Request.N }

// Decode reads the body of a request to endpoint e. Every error is an *llm.Error of KindInvalid that names the field.
// The result does not alias body.
func Decode(e Endpoint, body []byte) (*Call, error) {
	c := &Call{Endpoint: e, Request: llm.Request{N: 1, Logprobs: -1, Sampling: llm.DefaultSampling()}}
	if e == Completions {
		c.Request.MaxTokens = defaultMaxTokens
	}
	d := decoder{reader: reader{b: body}, call: c, topLogprobs: -1, maxTokens: -1, maxCompletionTokens: -1}
	if err := d.request(); err != nil {
		return nil, err
	}
	if err := d.check(); err != nil {
		return nil, err
	}
	return c, nil
}

// request reads the outer object and hands each known field to its row of the table.
func (d *decoder) request() error {
	if k := d.kind(); k != '{' {
		return d.wrongType("", "the body", "a JSON object")
	}
	known := fieldsOf(d.call.Endpoint)
	err := d.object(func(key []byte) error {
		f := known[string(key)]
		if f == nil {
			return d.skip() // unknown fields are ignored, as other servers do
		}
		if d.kind() == 'n' {
			return d.null() // null is the same as absent
		}
		return f.read(d, f)
	})
	if err != nil {
		return err
	}
	return d.end()
}

// check applies the rules that need more than one field.
func (d *decoder) check() error {
	c, r := d.call, &d.call.Request
	if r.Model == "" {
		return llm.Invalid("model", "model is required: the name of a served model, as GET /v1/models lists it")
	}
	if len(r.Prompts) == 0 {
		if c.Endpoint == Chat {
			return llm.Invalid("messages", "messages is required: an array of at least one message")
		}
		return llm.Invalid("prompt", "prompt is required: a string, an array of strings, an array of token ids, or an array of such arrays")
	}
	if n := c.Choices(); n > MaxChoices {
		return llm.Invalid("n", "%d prompts × n=%d is %d choices; at most %d are supported in one request", len(r.Prompts), r.N, n, MaxChoices)
	}
	if d.hasBestOf && d.bestOf != r.N {
		return llm.Invalid("best_of", "best_of=%d is not supported yet; supported: absent, or equal to n (%d)", d.bestOf, r.N)
	}
	if d.hasStreamOptions && !c.Stream {
		return llm.Invalid("stream_options", "stream_options is only allowed with stream: true")
	}
	switch {
	case d.maxCompletionTokens >= 0 && d.maxTokens >= 0 && d.maxCompletionTokens != d.maxTokens:
		return llm.Invalid("max_tokens", "max_tokens (%d) and max_completion_tokens (%d) differ; send one of them", d.maxTokens, d.maxCompletionTokens)
	case d.maxCompletionTokens >= 0:
		r.MaxTokens = d.maxCompletionTokens
	case d.maxTokens >= 0:
		r.MaxTokens = d.maxTokens
	}
	if c.Endpoint == Chat {
		if d.topLogprobs > 0 && !d.logprobs {
			return llm.Invalid("top_logprobs", "top_logprobs needs logprobs: true")
		}
		if d.logprobs {
			r.Logprobs = max(d.topLogprobs, 0)
		}
	}
	if len(d.constrained) > 1 {
		return llm.Invalid(d.constrained[1], "%s and %s both say what the text must be; send one of them", d.constrained[0], d.constrained[1])
	}
	if r.Echo && r.Logprobs >= 0 {
		return llm.Invalid("logprobs", "logprobs together with echo (log-probabilities of the prompt) is not supported yet; supported: either alone")
	}
	return nil
}

func rangeError(field, want string) error {
	return llm.Invalid(field, "%s is out of range: must be %s", field, want)
}

func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
