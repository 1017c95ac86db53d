package openai

import (
	"strings"
	"sync"

	"kvasir/internal/llm"
)

// A Use says what the server does with a request field.
type Use int

// The uses.
const (
	Honoured Use = iota
	Ignored      // accepted as a hint that changes nothing in the answer
	Rejected     // a 400 that names the field, except for values that ask for nothing
)

func (u Use) String() string { return [...]string{"honoured", "ignored", "rejected"}[u] }

// A Field is one row of the table of request fields.
type Field struct {
	Name      string
	Endpoints Endpoint
	Use       Use
	Note      string   // why, or what the value means
	NoOp      []string // of a rejected field: the JSON values beside null that ask for nothing and are accepted

	read func(*decoder, *Field) error
}

const both = Completions | Chat

// honoured fields know their reader; it runs with the reader before a value that is not null.
func honoured(e Endpoint, name, note string, read func(*decoder, *Field) error) Field {
	return Field{Name: name, Endpoints: e, Use: Honoured, Note: note, read: read}
}

func ignored(e Endpoint, name, note string) Field {
	return Field{Name: name, Endpoints: e, Use: Ignored, Note: note, read: func(d *decoder, _ *Field) error { return d.skip() }}
}

func rejected(e Endpoint, name, note string, noOp ...string) Field {
	return Field{Name: name, Endpoints: e, Use: Rejected, Note: note, NoOp: noOp, read: (*decoder).onlyNoOp}
}

// Fields is the table: OpenAI's own fields of both endpoints, and those of vLLM's and llama.cpp's extensions that are honoured here or
// that would change an answer if they were ignored. null is accepted everywhere and means absent. A field that is not in the table is ignored.
var Fields = sync.OnceValue(func() []Field {
	return []Field{
		honoured(both, "model", "a served model's name", (*decoder).model),
		honoured(Completions, "prompt", "string, strings, token ids, or arrays of token ids", (*decoder).prompt),
		honoured(Chat, "messages", "text only; an array of text parts is joined with newlines", (*decoder).messages),
		honoured(both, "max_tokens", "1 or more; completions default to 16, chats to what the context allows", intInto(1, maxInt32, func(d *decoder) *int { return &d.maxTokens })),
		honoured(Chat, "max_completion_tokens", "1 or more; the same as max_tokens", intInto(1, maxInt32, func(d *decoder) *int { return &d.maxCompletionTokens })),
		honoured(both, "n", "1 to 128", intInto(1, MaxN, func(d *decoder) *int { return &d.call.Request.N })),
		honoured(Completions, "best_of", "only equal to n", (*decoder).best),
		honoured(Completions, "echo", "not together with logprobs", boolInto(func(d *decoder) *bool { return &d.call.Request.Echo })),
		honoured(Completions, "logprobs", "0 to 5 alternatives", intInto(0, maxCompletionLogprobs, func(d *decoder) *int { return &d.call.Request.Logprobs })),
		honoured(Chat, "logprobs", "true or false", boolInto(func(d *decoder) *bool { return &d.logprobs })),
		honoured(Chat, "top_logprobs", "0 to 20, with logprobs: true", intInto(0, maxTopLogprobs, func(d *decoder) *int { return &d.topLogprobs })),
		honoured(both, "temperature", "0 (greedy) to 2", floatInto(0, 2, func(d *decoder) *float32 { return &d.call.Request.Sampling.Temperature })),
		honoured(both, "top_p", "0 to 1 (off)", floatInto(0, 1, func(d *decoder) *float32 { return &d.call.Request.Sampling.TopP })),
		honoured(both, "presence_penalty", "-2 to 2", floatInto(-2, 2, func(d *decoder) *float32 { return &d.call.Request.Sampling.PresencePenalty })),
		honoured(both, "frequency_penalty", "-2 to 2", floatInto(-2, 2, func(d *decoder) *float32 { return &d.call.Request.Sampling.FrequencyPenalty })),
		honoured(both, "seed", "a whole number; without one a random seed is taken", (*decoder).seed),
		honoured(both, "logit_bias", "token id → -100 to 100", (*decoder).logitBias),
		honoured(both, "stop", "a string or up to 16 of them", (*decoder).stop),
		honoured(both, "stream", "server-sent events", boolInto(func(d *decoder) *bool { return &d.call.Stream })),
		honoured(both, "stream_options", "include_usage; the optional obfuscation is never sent", (*decoder).streamOptions),

		honoured(both, "response_format", "text, json_object or json_schema; strict or not, the text is made to fit", (*decoder).responseFormat),

		honoured(both, "structured_outputs", "extension: an object with one of json, regex, choice and json_object: true; disable_any_whitespace", (*decoder).structuredOutputs),
		honoured(both, "guided_json", "extension: a JSON Schema, or a string with one", (*decoder).guidedJSON),
		honoured(both, "guided_regex", "extension: the whole text matches", (*decoder).guidedRegex),
		honoured(both, "guided_choice", "extension: one of these strings", (*decoder).guidedChoice),
		honoured(both, "json_schema", "extension: a JSON Schema", (*decoder).guidedJSON),
		honoured(both, "top_k", "extension: 1 or more; 0 or -1 is off", (*decoder).topK),
		honoured(both, "min_p", "extension: 0 (off) to 1", floatInto(0, 1, func(d *decoder) *float32 { return &d.call.Request.Sampling.MinP })),
		honoured(both, "repetition_penalty", "extension: 0.01 to 10, 1 is off", floatInto(0.01, 10, func(d *decoder) *float32 { return &d.call.Request.Sampling.RepetitionPenalty })),
		honoured(both, "ignore_eos", "extension: go on to max_tokens", boolInto(func(d *decoder) *bool { return &d.call.Request.IgnoreEOS })),
		honoured(both, "cache_prompt", "extension: false neither reads nor fills the prefix cache", (*decoder).cachePrompt),
		honoured(both, "truncate_prompt", "extension: drop the oldest tokens of a prompt that does not fit", boolInto(func(d *decoder) *bool { return &d.call.Request.TruncatePrompt })),
		honoured(both, "lora", "extension: adapters for this request, in order: [{\"name\" or \"id\", \"scale\"}]; scale 0 leaves one out", (*decoder).lora),
		honoured(Chat, "chat_template_kwargs", "extension: variables of the chat template", (*decoder).templateArgs),

		ignored(both, "user", "the tenant comes from the API key"),
		ignored(Chat, "safety_identifier", "the tenant comes from the API key"),
		ignored(Chat, "metadata", "nothing is stored"),
		ignored(Chat, "prompt_cache_key", "a hint for routing; every prefix of the tenant is found without it"),
		ignored(Chat, "prompt_cache_retention", "retention follows the server's memory budget"),
		ignored(Chat, "prompt_cache_options", "every prefix is cached; breakpoints are not needed"),
		ignored(Chat, "parallel_tool_calls", "means nothing without tools"),
		ignored(both, "priority", "extension: all requests queue alike"),
		ignored(both, "id_slot", "extension: prefixes are found wherever they are"),

		rejected(Completions, "suffix", "filling in the middle", `""`),
		rejected(Chat, "tools", "tool calling", `[]`),
		rejected(Chat, "tool_choice", "tool calling", `"none"`, `"auto"`),
		rejected(Chat, "functions", "tool calling", `[]`),
		rejected(Chat, "function_call", "tool calling", `"none"`, `"auto"`),
		rejected(Chat, "modalities", "other output than text", `["text"]`),
		rejected(Chat, "audio", "other output than text"),
		rejected(Chat, "prediction", "predicted output"),
		rejected(Chat, "reasoning_effort", "reasoning control", `"none"`),
		rejected(Chat, "verbosity", "verbosity control", `"medium"`),
		rejected(Chat, "web_search_options", "web search"),
		rejected(Chat, "moderation", "moderation"),
		rejected(Chat, "store", "stored completions", `false`),
		rejected(both, "service_tier", "service tiers", `"auto"`, `"default"`),

		rejected(both, "cache_salt", "extension: separation beyond the tenant's"),
		rejected(both, "min_tokens", "extension", `0`),
		rejected(both, "stop_token_ids", "extension", `[]`),
		rejected(both, "allowed_token_ids", "extension", `[]`),
		rejected(both, "bad_words", "extension", `[]`),
		rejected(both, "use_beam_search", "extension", `false`),
		rejected(both, "prompt_logprobs", "extension"),
		rejected(both, "truncate_prompt_tokens", "extension; truncate_prompt: true drops what does not fit"),
		rejected(both, "include_stop_str_in_output", "extension", `false`),
		rejected(both, "skip_special_tokens", "extension", `true`),
		rejected(both, "add_special_tokens", "extension: the model's own rule decides"),
		rejected(Chat, "add_generation_prompt", "extension", `true`),
		rejected(Chat, "continue_final_message", "extension", `false`),
		rejected(Chat, "chat_template", "extension: the model's own template is used"),
		rejected(Chat, "documents", "extension", `[]`),
		rejected(both, "grammar", "extension: grammars in GBNF; response_format and structured_outputs take JSON Schema, regular expressions and choices", `""`),
		rejected(both, "guided_grammar", "extension: grammars in GBNF or Lark; structured_outputs takes JSON Schema, regular expressions and choices"),
	}
})

var fieldIndex = sync.OnceValue(func() map[Endpoint]map[string]*Field {
	m := map[Endpoint]map[string]*Field{Completions: {}, Chat: {}}
	fields := Fields()
	for i := range fields {
		for e, byName := range m {
			if fields[i].Endpoints&e != 0 {
				byName[fields[i].Name] = &fields[i]
			}
		}
	}
	return m
})

func fieldsOf(e Endpoint) map[string]*Field { return fieldIndex()[e] }

// onlyNoOp takes the value of a rejected field and accepts it only if it asks for nothing.
func (d *decoder) onlyNoOp(f *Field) error {
	d.kind()
	start := d.i
	if err := d.skip(); err != nil {
		return err
	}
	value := d.b[start:d.i]
	if len(value) <= 64 { // no-ops are short
		compact := compactJSON(value)
		for _, ok := range f.NoOp {
			if compact == ok {
				return nil
			}
		}
	}
	supported := "leaving it out"
	if len(f.NoOp) > 0 {
		supported += " or " + strings.Join(f.NoOp, ", ")
	}
	return &llm.Error{Kind: llm.KindInvalid, Param: f.Name, Code: "unsupported_parameter",
		Message: f.Name + " is not supported yet (" + f.Note + "); supported: " + supported}
}

// compactJSON drops the white space between the tokens of a valid JSON text.
func compactJSON(b []byte) string {
	var out strings.Builder
	inString := false
	for i := 0; i < len(b); i++ {
		c := b[i]
		switch {
		case inString && c == '\\':
			out.WriteByte(c)
			i++
			c = b[i]
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\n' || c == '\r'):
			continue
		}
		out.WriteByte(c)
	}
	return out.String()
}
