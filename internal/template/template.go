// Package template renders a model's own chat template, which is written in Jinja2, as transformers'
// apply_chat_template does (trim_blocks, lstrip_blocks, no trailing newline kept), and remembers which message each part
// of the text came from.
//
// github.com/ardanlabs/jinja parses and evaluates. This package puts itself between: it does the whitespace control
// (lex.go), rewrites the source so that a render is bounded and behaves like Python where the engine does not
// (rewrite.go, limits.go, filters.go, methods.go), and finds the spans (spans.go). What templates do for conversations
// without tools is evaluated without the engine (direct.go), since it takes part in the time to the first token.
//
// Differences from Jinja2: undefined values are silent also when their attributes are read, and a loop over None is
// empty; what an expression joins with ~ or + takes None as empty and 2.0 as 2; tuples print as lists; set does not unpack
// tuples; macros have no varargs. Recursive loops, with, do, include, import, extends and block are refused when the
// template is read, and so is every unknown filter, test and statement. Templates reach no files, network or environment.
package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/ardanlabs/jinja"

	"kvasir/internal/llm"
)

// ErrNoTemplate is New's error for a model without a chat template. There is no default one: a model would be given
// a layout that it was not trained on.
var ErrNoTemplate = errors.New("the model has no chat template; use the completions API with a prompt of your own")

// Options are what a template may read besides the request.
type Options struct {
	BOS, EOS string           // the texts of these tokens: bos_token and eos_token
	Now      func() time.Time // for strftime_now; time.Now if nil
}

// Template is a parsed chat template. It is safe for concurrent use.
type Template struct {
	engine   *jinja.Template
	program  []statement // for direct evaluation
	source   string
	bos, eos jinja.Value
	now      func() time.Time
}

// New parses a template. Its errors say which line is at fault, and of a construct that is not supported, what is.
func New(source string, o Options) (*Template, error) {
	if source == "" {
		return nil, ErrNoTemplate
	}
	if len(source) > maxSource {
		return nil, fmt.Errorf("chat template: %d bytes are more than the %d allowed", len(source), maxSource)
	}
	source = strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(source)
	source = strings.TrimSuffix(source, "\n")
	segs, err := lex(source)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	rewritten, err := rewrite(segs)
	if err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	t := &Template{source: source, program: program(segs), bos: jinja.NewString(o.BOS), eos: jinja.NewString(o.EOS), now: o.Now}
	if t.now == nil {
		t.now = time.Now
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("chat template: the parser failed: %v", r)
		}
	}()
	if t.engine, err = jinja.Compile(rewritten); err != nil {
		return nil, fmt.Errorf("chat template: %w", err)
	}
	return t, err
}

// Input is what a template is given. Args are further variables (chat_template_kwargs); they cannot replace messages,
// bos_token, eos_token or add_generation_prompt. tools and documents are None, as in transformers, unless Tools or Args has them.
type Input struct {
	Messages            []llm.Message
	AddGenerationPrompt bool
	Args                map[string]any

	// Fields are what messages have besides, by message: each is empty or a JSON object such as
	// {"reasoning_content": "…", "tool_calls": […]}. "content" in it, a list of parts or null, takes the place of Content. Templates expect
	// the arguments of tool calls as objects, not as the texts of OpenAI's API. Fields may be shorter than Messages.
	Fields []json.RawMessage

	// Tools is the JSON list of the tools' definitions, as OpenAI's API has them. Keys keep their order.
	Tools json.RawMessage
}

// run renders once, with marks in the fields if fields is not nil.
func (t *Template) run(c *conversation, fields []field) (text string, err error) {
	messages := make([]jinja.Value, len(c.messages))
	for i := range c.messages {
		messages[i] = c.messages[i].build(fields)
	}
	data := map[string]jinja.Value{"tools": jinja.None(), "documents": jinja.None()}
	if c.tools != nil {
		data["tools"] = c.tools.build(fields)
	}
	maps.Copy(data, c.args)
	s := &state{now: t.now, deadline: time.Now().Add(maxTime), namespaces: map[*jinja.Dict]bool{}}
	s.size = baseSize + sizeFactor*c.size
	s.output = outputFactor * s.size
	for name, f := range s.hooks() {
		data[name] = jinja.NewCallable(name, f)
	}
	for name, f := range filters {
		data[hookFilter+name] = s.bind(name, f)
	}
	data[hookMethod] = s.bind(hookMethod, callMethod)
	data["messages"] = jinja.NewList(messages)
	data["add_generation_prompt"] = jinja.NewBool(c.in.AddGenerationPrompt)
	data["bos_token"], data["eos_token"] = t.bos, t.eos

	defer func() {
		if r := recover(); r != nil {
			text, err = "", fmt.Errorf("the chat template's engine failed: %v", r)
		}
	}()
	text, err = t.engine.RenderValues(data)
	var r *raised
	switch {
	case errors.As(err, &r):
		return "", llm.Invalid("messages", "%s", r.message)
	case errors.Is(err, errLimit):
		return "", llm.Invalid("messages", "%v", err)
	case err != nil:
		return "", llm.Invalid("messages", "the model's chat template cannot render this conversation: %v", err)
	case len(text) > s.size:
		return "", llm.Invalid("messages", "%v", limitError("the output is too long"))
	}
	return text, nil
}

func (s *state) bind(name string, f filter) jinja.Value {
	return jinja.NewCallable(name, func(args []jinja.Value, kwargs map[string]jinja.Value) (jinja.Value, error) {
		if len(args) == 0 {
			return undefined(fmt.Errorf("%s is a filter", name))
		}
		return f(s, args[0], arguments{args[1:], kwargs})
	})
}
