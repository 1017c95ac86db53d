package openai

import (
	"strconv"
	"strings"

	"kvasir/internal/llm"
)

// A Head is what every body and chunk of one response begins with.
type Head struct {
	ID          string // "cmpl-…" or "chatcmpl-…"
	Model       string // as the caller named it
	Created     int64  // Unix seconds
	Fingerprint string // changes when weights or numerics change
}

// appendHead appends the outer object up to the array of choices, which it leaves open.
func appendHead(dst []byte, h Head, object string) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, h.ID)
	dst = append(dst, `,"object":"`...)
	dst = append(dst, object...)
	dst = append(dst, `","created":`...)
	dst = strconv.AppendInt(dst, h.Created, 10)
	dst = append(dst, `,"model":`...)
	dst = appendString(dst, h.Model)
	dst = append(dst, `,"system_fingerprint":`...)
	dst = appendString(dst, h.Fingerprint)
	return append(dst, `,"choices":[`...)
}

func appendUsage(dst []byte, u llm.Usage) []byte {
	dst = append(dst, `{"prompt_tokens":`...)
	dst = appendInt(dst, u.PromptTokens)
	dst = append(dst, `,"completion_tokens":`...)
	dst = appendInt(dst, u.CompletionTokens)
	dst = append(dst, `,"total_tokens":`...)
	dst = appendInt(dst, u.PromptTokens+u.CompletionTokens)
	dst = append(dst, `,"prompt_tokens_details":{"cached_tokens":`...)
	dst = appendInt(dst, u.CachedTokens)
	if u.LoadedTokens > 0 { // not OpenAI's: the part that was loaded from disk
		dst = append(dst, `,"disk_cached_tokens":`...)
		dst = appendInt(dst, u.LoadedTokens)
	}
	return append(dst, `}}`...)
}

// A StreamEncoder turns the events of one response into server-sent events. Its methods append to a buffer that the caller
// reuses; they do not allocate unless the caller asked for log-probabilities.
type StreamEncoder struct {
	chat     bool
	logprobs bool
	usage    bool
	prefix   []byte // "data: " and the head, the same for every chunk
	begun    []bool // by choice: the role was sent
	offset   []int  // by choice: characters of the tokens sent so far
}

// NewStream returns the encoder of the response to c.
func NewStream(c *Call, h Head) *StreamEncoder {
	e := &StreamEncoder{
		chat: c.Endpoint == Chat, logprobs: c.Request.Logprobs >= 0, usage: c.IncludeUsage,
		begun: make([]bool, c.Choices()), offset: make([]int, c.Choices()),
	}
	object := "text_completion"
	if e.chat {
		object = "chat.completion.chunk"
	}
	e.prefix = appendHead([]byte("data: "), h, object)
	return e
}

// AppendEvent appends the chunks that ev makes: for a chat the role before the choice's first text and the finish reason in a chunk
// of its own; an event that says nothing makes none. ev.Choice must be below the call's Choices.
func (e *StreamEncoder) AppendEvent(dst []byte, ev llm.Event) []byte {
	if ev.Text == "" && len(ev.Tokens) == 0 && ev.Finish == "" {
		return dst
	}
	if !e.chat {
		dst = e.open(dst, ev.Choice)
		dst = append(dst, `,"text":`...)
		dst = appendString(dst, ev.Text)
		dst = append(dst, `,"logprobs":`...)
		if e.logprobs && len(ev.Tokens) > 0 {
			dst, e.offset[ev.Choice] = appendCompletionLogprobs(dst, ev.Tokens, e.offset[ev.Choice])
		} else {
			dst = append(dst, "null"...)
		}
		return e.close(dst, ev.Finish)
	}
	if !e.begun[ev.Choice] {
		e.begun[ev.Choice] = true
		dst = e.open(dst, ev.Choice)
		dst = append(dst, `,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null`...)
		dst = e.close(dst, "")
	}
	if ev.Text != "" || len(ev.Tokens) > 0 {
		dst = e.open(dst, ev.Choice)
		dst = append(dst, `,"delta":{"content":`...)
		dst = appendString(dst, ev.Text)
		dst = append(dst, `},"logprobs":`...)
		if e.logprobs && len(ev.Tokens) > 0 {
			dst = appendChatLogprobs(dst, ev.Tokens)
		} else {
			dst = append(dst, "null"...)
		}
		dst = e.close(dst, "")
	}
	if ev.Finish != "" {
		dst = e.open(dst, ev.Choice)
		dst = append(dst, `,"delta":{},"logprobs":null`...)
		dst = e.close(dst, ev.Finish)
	}
	return dst
}

func (e *StreamEncoder) open(dst []byte, choice int) []byte {
	dst = append(dst, e.prefix...)
	dst = append(dst, `{"index":`...)
	return appendInt(dst, choice)
}

func (e *StreamEncoder) close(dst []byte, finish string) []byte {
	dst = appendFinish(dst, finish)
	dst = append(dst, `}]`...)
	if e.usage {
		dst = append(dst, `,"usage":null`...)
	}
	return append(dst, "}\n\n"...)
}

// AppendEnd appends what follows the last event: the chunk with the usage if the caller asked for it, and [DONE].
func (e *StreamEncoder) AppendEnd(dst []byte, u llm.Usage) []byte {
	if e.usage {
		dst = append(dst, e.prefix...)
		dst = append(dst, `],"usage":`...)
		dst = appendUsage(dst, u)
		dst = append(dst, "}\n\n"...)
	}
	return append(dst, "data: [DONE]\n\n"...)
}

// AppendError appends the event that ends a stream which fails midway; no [DONE] follows it.
func (e *StreamEncoder) AppendError(dst []byte, err *llm.Error) []byte {
	dst = append(dst, "data: "...)
	dst = AppendError(dst, err)
	return append(dst, "\n\n"...)
}

func appendFinish(dst []byte, finish string) []byte {
	dst = append(dst, `,"finish_reason":`...)
	if finish == "" {
		return append(dst, "null"...)
	}
	return appendString(dst, finish)
}

// A Response gathers the events of one response that is not streamed.
type Response struct {
	call    *Call
	choices []choice
}

type choice struct {
	text   strings.Builder
	tokens []llm.TokenInfo
	finish string
}

// NewResponse returns an empty response to c.
func NewResponse(c *Call) *Response { return &Response{call: c, choices: make([]choice, c.Choices())} }

// Add takes an event. ev.Choice must be below the call's Choices.
func (r *Response) Add(ev llm.Event) {
	c := &r.choices[ev.Choice]
	c.text.WriteString(ev.Text)
	c.tokens = append(c.tokens, ev.Tokens...)
	if ev.Finish != "" {
		c.finish = ev.Finish
	}
}

// Append appends the body.
func (r *Response) Append(dst []byte, h Head, u llm.Usage) []byte {
	chat := r.call.Endpoint == Chat
	object := "text_completion"
	if chat {
		object = "chat.completion"
	}
	dst = appendHead(dst, h, object)
	for i := range r.choices {
		c := &r.choices[i]
		dst = append(comma(dst, i), `{"index":`...)
		dst = appendInt(dst, i)
		if chat {
			dst = append(dst, `,"message":{"role":"assistant","content":`...)
			dst = appendString(dst, c.text.String())
			dst = append(dst, `,"refusal":null}`...)
		} else {
			dst = append(dst, `,"text":`...)
			dst = appendString(dst, c.text.String())
		}
		dst = append(dst, `,"logprobs":`...)
		switch {
		case r.call.Request.Logprobs < 0:
			dst = append(dst, "null"...)
		case chat:
			dst = appendChatLogprobs(dst, c.tokens)
		default:
			dst, _ = appendCompletionLogprobs(dst, c.tokens, 0)
		}
		dst = append(appendFinish(dst, c.finish), '}')
	}
	dst = append(dst, `],"usage":`...)
	dst = appendUsage(dst, u)
	return append(dst, '}')
}

// AppendModels appends the list of models; every name that a model is served by is an entry.
func AppendModels(dst []byte, models []llm.ModelInfo) []byte {
	dst = append(dst, `{"object":"list","data":[`...)
	n := 0
	for _, m := range models {
		for _, name := range append([]string{m.ID}, m.Aliases...) {
			dst = AppendModel(comma(dst, n), name, m)
			n++
		}
	}
	return append(dst, `]}`...)
}

// AppendModel appends one model under one of its names. max_model_len and parent are vLLM's fields: the tokens
// that a sequence may hold, and the model that an adapter changes.
func AppendModel(dst []byte, name string, m llm.ModelInfo) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendString(dst, name)
	dst = append(dst, `,"object":"model","created":`...)
	dst = strconv.AppendInt(dst, m.Created, 10)
	dst = append(dst, `,"owned_by":"kvasir","max_model_len":`...)
	dst = appendInt(dst, m.Context)
	if m.Parent != "" {
		dst = append(dst, `,"parent":`...)
		dst = appendString(dst, m.Parent)
	}
	return append(dst, '}')
}
