// Package llm holds the vocabulary that every other package speaks: requests, events, usage and errors.
// It has no behaviour beyond small accessors and imports nothing of this module.
package llm

import "context"

// A Message is one turn of a chat, as a dialect decoded it.
type Message struct {
	Role    string // "system", "developer", "user", "assistant", "tool"
	Content string
	Name    string // optional participant name
}

// A Prompt is one of: Messages (chat), Text, or Tokens. Exactly one is set.
type Prompt struct {
	Messages []Message
	Text     string
	Tokens   []int32
	IsText   bool // distinguishes an empty Text from an unset one
}

// Sampling says how logits become a token. The zero value is not the default: see DefaultSampling.
type Sampling struct {
	Temperature       float32 // 0 is greedy
	TopK              int     // 0 is off
	TopP              float32 // 1 is off
	MinP              float32 // 0 is off
	RepetitionPenalty float32 // 1 is off; over the prompt and the generated tokens
	PresencePenalty   float32 // 0 is off; over the generated tokens
	FrequencyPenalty  float32 // 0 is off; over the generated tokens
	Seed              uint64  // always set by the time a sampler sees it
	LogitBias         map[int32]float32
}

// DefaultSampling returns OpenAI's defaults.
func DefaultSampling() Sampling {
	return Sampling{Temperature: 1, TopP: 1, RepetitionPenalty: 1}
}

// A Request is one generation call, independent of the dialect that it came in.
type Request struct {
	ID     string // as in the response body, e.g. "chatcmpl-…"
	Tenant string // from the API key, never from the caller's word
	Model  string // as the caller named it

	Prompts []Prompt // at least one; a chat has exactly one
	N       int      // choices for each prompt, at least 1

	MaxTokens      int // 0: as many as the context allows
	Sampling       Sampling
	Stop           []string
	IgnoreEOS      bool
	Logprobs       int  // -1: none; else how many alternatives beside the chosen token (0 to 20)
	Echo           bool // completions: the prompt's text comes first in the choice
	NoCache        bool // neither read nor fill the prefix cache
	TruncatePrompt bool // drop the oldest prompt tokens when the prompt does not fit (only when the caller asked)

	// Adapters change the model for this request, in this order. nil: those of the name in Model, if it is an adapter's.
	Adapters []AdapterChoice

	// Constraint limits the generated text; nil: not at all.
	Constraint *Constraint

	// TemplateArgs are extra variables of the chat template (vLLM's chat_template_kwargs).
	TemplateArgs map[string]any
}

// An AdapterChoice names one of the model's adapters.
type AdapterChoice struct {
	Name  string
	ID    int      // its place in the order in which they are loaded, where Name is ""
	Scale *float32 // nil: the adapter's default; 0 leaves it out
}

// A ConstraintKind says what a Constraint demands.
type ConstraintKind int

// The kinds.
const (
	ConstrainObject ConstraintKind = iota // any JSON object
	ConstrainSchema                       // a JSON value that the schema in Text allows
	ConstrainRegex                        // a text that the expression in Text matches as a whole
	ConstrainChoice                       // one of Choices
)

// A Constraint is what the text of every choice must be, unless it is cut off by a limit.
type Constraint struct {
	Kind    ConstraintKind
	Text    string
	Choices []string
	Compact bool   // no white space between the parts of a JSON text
	Param   string // the request field that it came in, for errors
}

// TokenLogprob is a token with its log-probability (natural logarithm) under the model's own distribution,
// before temperature and truncation.
type TokenLogprob struct {
	ID      int32
	Bytes   []byte
	Logprob float32
}

// TokenInfo is one generated token and, if asked for, its best alternatives, most likely first.
type TokenInfo struct {
	TokenLogprob
	Top []TokenLogprob
}

// Finish reasons.
const (
	FinishStop   = "stop"   // end-of-generation token or stop string
	FinishLength = "length" // MaxTokens or the context was reached
)

// An Event is a piece of one choice. Choice counts over prompts and choices: prompt*N + choice.
type Event struct {
	Choice int
	Text   string      // complete UTF-8 only
	Tokens []TokenInfo // the tokens whose text ended in Text; set only when Logprobs >= 0
	Finish string      // set on the choice's last event
}

// Usage counts tokens. CachedTokens is part of PromptTokens.
type Usage struct {
	PromptTokens     int
	CachedTokens     int
	LoadedTokens     int // part of CachedTokens that came from disk
	CompletionTokens int
}

// A Decision says for one prompt how much of it was reused, and why reuse ended where it did.
type Decision struct {
	PromptTokens int    `json:"prompt_tokens"`
	Reused       int    `json:"cached_tokens"`
	Joined       int    `json:"joined_tokens"` // part of Reused that another request was computing at the time
	Loaded       int    `json:"loaded_tokens"` // part of Reused that was loaded from the disk tier
	Reason       string `json:"reason"`        // one of the Reason constants
}

// Why reuse ended.
const (
	ReasonFull      = "full"       // every token but the last, which is always computed
	ReasonNeverSeen = "never_seen" // nothing of this tenant begins like this prompt
	ReasonDiverged  = "diverged"   // a stored prefix agrees up to Reused and differs after it
	ReasonExtended  = "extended"   // everything stored agrees; the prompt goes on beyond it
	ReasonDisabled  = "disabled"   // the request or the server switched the cache off
	// Beyond Reused there is more on disk,
	ReasonRecomputed = "recomputed"  // but computing it was quicker than loading it
	ReasonLoadFailed = "load_failed" // but it could not be read or was damaged
)

// A Stream delivers the events of one request. Close may be called at any time and stops all computing for it.
type Stream interface {
	// Next blocks for the next event; io.EOF after the last one.
	Next(ctx context.Context) (Event, error)
	// Usage is complete after io.EOF; before the first event it already has PromptTokens and CachedTokens.
	// Prompt tokens count once a prompt, not once a choice.
	Usage() Usage
	// Decisions has one entry a prompt, valid once Next has returned.
	Decisions() []Decision
	// Timings of the whole request so far.
	Timings() Timings
	Close()
}

// Timings are in seconds.
type Timings struct {
	Queue   float64 // from submission to the first computed token
	Prefill float64 // from there to the first sampled token
	Decode  float64 // from there to the last sampled token
}

// ModelInfo describes a served model.
type ModelInfo struct {
	ID      string
	Aliases []string
	Parent  string // of an adapter: the ID of the model that it changes
	Created int64  // Unix seconds
	Context int    // tokens a sequence may hold
	Vocab   int
	Bytes   int64  // weights
	Quant   string // e.g. "Q4_1"
	Digest  string // SHA-256 of the weights file, hex
}
