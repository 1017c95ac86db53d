package openai

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"kvasir/internal/llm"
)

const (
	maxInt32         = math.MaxInt32
	maxTemplateBytes = 1 << 16 // of chat_template_kwargs, whose decoded form is several times larger
)

// A decoder fills a Call from the body, field by field; what depends on several fields waits here for check.
type decoder struct {
	reader
	call *Call

	maxTokens, maxCompletionTokens int // -1: absent
	bestOf                         int
	hasBestOf                      bool
	logprobs                       bool // chat
	topLogprobs                    int  // -1: absent
	hasStreamOptions               bool
	constrained                    []string // fields that say what the text must be
}

// wrongType reports a value of another type than field wants; a malformed value is reported as such.
func (d *decoder) wrongType(param, field, want string) error {
	names := map[byte]string{'{': "an object", '[': "an array", '"': "a string", 't': "a boolean", 'f': "a boolean", 'n': "null", '0': "a number"}
	k := d.kind()
	if names[k] == "" {
		return d.syntax("a value")
	}
	if err := d.skip(); err != nil {
		return err
	}
	return &llm.Error{Kind: llm.KindInvalid, Param: param, Code: "invalid_type", Message: field + " must be " + want + ", not " + names[k]}
}

func intInto(low, high int64, into func(*decoder) *int) func(*decoder, *Field) error {
	return func(d *decoder, f *Field) error {
		v, err := d.intIn(f.Name, low, high)
		if err == nil {
			*into(d) = int(v)
		}
		return err
	}
}

// intIn takes a whole number between low and high.
func (d *decoder) intIn(field string, low, high int64) (int64, error) {
	if d.kind() != '0' {
		return 0, d.wrongType(field, field, "an integer")
	}
	v, ok, err := d.integer()
	if err != nil {
		return 0, err
	}
	if !ok || v < low || v > high {
		return 0, rangeError(field, "an integer from "+strconv.FormatInt(low, 10)+" to "+strconv.FormatInt(high, 10))
	}
	return v, nil
}

func floatInto(low, high float64, into func(*decoder) *float32) func(*decoder, *Field) error {
	return func(d *decoder, f *Field) error {
		v, err := d.floatIn(f.Name, low, high)
		if err == nil {
			*into(d) = float32(v)
		}
		return err
	}
}

// floatIn takes a number between low and high; JSON has no NaN, and what overflows is out of range.
func (d *decoder) floatIn(field string, low, high float64) (float64, error) {
	if d.kind() != '0' {
		return 0, d.wrongType(field, field, "a number")
	}
	s, err := d.number()
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseFloat(string(s), 64)
	if err != nil || !(v >= low && v <= high) {
		return 0, rangeError(field, "a number from "+strconv.FormatFloat(low, 'g', -1, 64)+" to "+strconv.FormatFloat(high, 'g', -1, 64))
	}
	return v, nil
}

func boolInto(into func(*decoder) *bool) func(*decoder, *Field) error {
	return func(d *decoder, f *Field) error {
		v, err := d.boolean(f.Name)
		if err == nil {
			*into(d) = v
		}
		return err
	}
}

func (d *decoder) boolean(field string) (bool, error) {
	switch d.kind() {
	case 't':
		return true, d.literal("true")
	case 'f':
		return false, d.literal("false")
	}
	return false, d.wrongType(field, field, "a boolean")
}

func (d *decoder) text(field string) (string, error) {
	if d.kind() != '"' {
		return "", d.wrongType(field, field, "a string")
	}
	return d.str()
}

func (d *decoder) model(f *Field) error {
	s, err := d.text(f.Name)
	if err != nil {
		return err
	}
	if len(s) > MaxNameLen {
		return rangeError(f.Name, "at most "+strconv.Itoa(MaxNameLen)+" bytes long")
	}
	d.call.Request.Model = s
	return nil
}

func (d *decoder) best(f *Field) (err error) {
	v, err := d.intIn(f.Name, 1, MaxN)
	d.bestOf, d.hasBestOf = int(v), true
	return err
}

func (d *decoder) seed(f *Field) error {
	if d.kind() != '0' {
		return d.wrongType(f.Name, f.Name, "an integer")
	}
	s, err := d.number()
	if err != nil {
		return err
	}
	if v, ok := wholeNumber(s); ok {
		d.call.Request.Sampling.Seed = uint64(v) // a negative seed is a seed like any other
	} else if u, err := strconv.ParseUint(string(s), 10, 64); err == nil {
		d.call.Request.Sampling.Seed = u
	} else {
		return rangeError(f.Name, "an integer of 64 bits")
	}
	d.call.HasSeed = true
	return nil
}

func (d *decoder) topK(f *Field) error {
	v, err := d.intIn(f.Name, -1, maxInt32)
	d.call.Request.Sampling.TopK = int(max(v, 0))
	return err
}

func (d *decoder) cachePrompt(f *Field) error {
	v, err := d.boolean(f.Name)
	d.call.Request.NoCache = !v
	return err
}

func (d *decoder) logitBias(f *Field) error {
	if d.kind() != '{' {
		return d.wrongType(f.Name, f.Name, "an object")
	}
	bias := map[int32]float32{}
	err := d.object(func(key []byte) error {
		id, err := strconv.ParseInt(string(key), 10, 32)
		if err != nil || id < 0 {
			return llm.Invalid(f.Name, "%s: its keys must be token ids, whole numbers from 0 to %d", f.Name, maxInt32)
		}
		v, err := d.floatIn(f.Name, -100, 100)
		if err != nil {
			return err
		}
		if bias[int32(id)] = float32(v); len(bias) > MaxBias {
			return llm.Invalid(f.Name, "%s may have at most %d entries", f.Name, MaxBias)
		}
		return nil
	})
	if len(bias) == 0 {
		bias = nil
	}
	d.call.Request.Sampling.LogitBias = bias
	return err
}

func (d *decoder) stop(f *Field) error {
	d.call.Request.Stop = nil
	one := func(field string) error {
		s, err := d.text(field)
		if err != nil {
			return err
		}
		if s == "" || len(s) > MaxStopLen {
			return llm.Invalid(f.Name, "%s must be 1 to %d bytes long", field, MaxStopLen)
		}
		if d.call.Request.Stop = append(d.call.Request.Stop, s); len(d.call.Request.Stop) > MaxStops {
			return llm.Invalid(f.Name, "%s may have at most %d strings", f.Name, MaxStops)
		}
		return nil
	}
	switch d.kind() {
	case '"':
		return one(f.Name)
	case '[':
		return d.array(func(i int) error { return one(at(f.Name, i)) })
	}
	return d.wrongType(f.Name, f.Name, "a string or an array of strings")
}

func (d *decoder) streamOptions(f *Field) error {
	if d.kind() != '{' {
		return d.wrongType(f.Name, f.Name, "an object")
	}
	d.hasStreamOptions = true
	return d.object(func(key []byte) (err error) {
		switch {
		case d.kind() == 'n':
			return d.null()
		case string(key) == "include_usage":
			d.call.IncludeUsage, err = d.boolean("stream_options.include_usage")
			return err
		case string(key) == "continuous_usage_stats":
			v, err := d.boolean("stream_options.continuous_usage_stats")
			if err == nil && v {
				return llm.Invalid("stream_options.continuous_usage_stats", "stream_options.continuous_usage_stats is not supported yet; supported: include_usage, which sends the usage last")
			}
			return err
		}
		return d.skip()
	})
}

func (d *decoder) templateArgs(f *Field) error {
	if d.kind() != '{' {
		return d.wrongType(f.Name, f.Name, "an object")
	}
	start := d.i
	if err := d.skip(); err != nil {
		return err
	}
	if d.i-start > maxTemplateBytes {
		return llm.Invalid(f.Name, "%s may be at most %d bytes long", f.Name, maxTemplateBytes)
	}
	d.i = start
	v, err := d.any()
	if err != nil {
		return err
	}
	d.call.Request.TemplateArgs, _ = v.(map[string]any)
	return nil
}

// prompt takes one of the four shapes of a completions prompt.
func (d *decoder) prompt(f *Field) error {
	r := &d.call.Request
	r.Prompts = nil
	switch d.kind() {
	case '"':
		s, err := d.str()
		r.Prompts = []llm.Prompt{{Text: s, IsText: true}}
		return err
	case '[':
	default:
		return d.wrongType(f.Name, f.Name, "a string or an array")
	}
	start := d.i
	d.i++
	first := d.kind()
	d.i = start
	if first == '0' {
		ids, err := d.tokens(f.Name)
		r.Prompts = []llm.Prompt{{Tokens: ids}}
		return err
	}
	return d.array(func(i int) error {
		if i >= MaxPrompts {
			return llm.Invalid(f.Name, "%s may have at most %d prompts", f.Name, MaxPrompts)
		}
		switch k := d.kind(); {
		case k == '"' && first == '"':
			s, err := d.str()
			r.Prompts = append(r.Prompts, llm.Prompt{Text: s, IsText: true})
			return err
		case k == '[' && first == '[':
			ids, err := d.tokens(at(f.Name, i))
			r.Prompts = append(r.Prompts, llm.Prompt{Tokens: ids})
			return err
		}
		return d.wrongType(f.Name, at(f.Name, i), "like the others: all strings, all token ids, or all arrays of token ids")
	})
}

// tokens takes a non-empty array of token ids. Whether an id is in the vocabulary is for the tokenizer to say.
func (d *decoder) tokens(field string) ([]int32, error) {
	end := bytes.IndexByte(d.b[d.i:], ']')
	ids := make([]int32, 0, max(0, min(end, 1<<16))/4) // an id and its comma take some four bytes
	err := d.array(func(i int) error {
		if d.kind() != '0' {
			return d.wrongType("prompt", at(field, i), "a token id")
		}
		v, ok, err := d.integer()
		if err != nil {
			return err
		}
		if !ok || v < 0 || v > maxInt32 {
			return llm.Invalid("prompt", "%s is not a token id: must be a whole number from 0 to %d", at(field, i), maxInt32)
		}
		ids = append(ids, int32(v))
		return nil
	})
	if err == nil && len(ids) == 0 {
		err = llm.Invalid("prompt", "%s is empty: a prompt of token ids has at least one", field)
	}
	return ids, err
}

func (d *decoder) messages(f *Field) error {
	if d.kind() != '[' {
		return d.wrongType(f.Name, f.Name, "an array of messages")
	}
	var ms []llm.Message
	err := d.array(func(i int) error {
		if i >= MaxMessages {
			return llm.Invalid(f.Name, "%s may have at most %d messages", f.Name, MaxMessages)
		}
		m, err := d.message(func() string { return at(f.Name, i) })
		ms = append(ms, m)
		return err
	})
	d.call.Request.Prompts = nil
	if len(ms) > 0 {
		d.call.Request.Prompts = []llm.Prompt{{Messages: ms}}
	}
	return err
}

// message takes one message; name gives its name for errors. tool_call_id and unknown keys are ignored.
func (d *decoder) message(name func() string) (m llm.Message, err error) {
	if d.kind() != '{' {
		return m, d.wrongType(name(), name(), "an object")
	}
	hasContent := false
	err = d.object(func(key []byte) (err error) {
		if d.kind() == 'n' {
			return d.null()
		}
		switch k := string(key); k {
		case "role":
			if d.kind() != '"' {
				return d.wrongType(name()+".role", name()+".role", "a string")
			}
			m.Role, err = d.role()
		case "name":
			m.Name, err = d.text(name() + ".name")
			if len(m.Name) > MaxNameLen {
				return rangeError(name()+".name", "at most "+strconv.Itoa(MaxNameLen)+" bytes long")
			}
		case "content":
			hasContent = true
			m.Content, err = d.content(name)
		case "tool_calls":
			err = d.onlyNoOp(&Field{Name: name() + "." + k, Note: "tool calling", NoOp: []string{`[]`}})
		case "function_call", "audio":
			err = d.onlyNoOp(&Field{Name: name() + "." + k, Note: "messages are text only"})
		default:
			err = d.skip()
		}
		return err
	})
	if err != nil {
		return m, err
	}
	switch m.Role {
	case "system", "developer", "user", "assistant", "tool":
	case "":
		return m, llm.Invalid(name()+".role", "%s.role is required: system, developer, user, assistant or tool", name())
	default:
		return m, llm.Invalid(name()+".role", "%s.role is not one of the supported roles system, developer, user, assistant and tool", name())
	}
	if !hasContent {
		return m, llm.Invalid(name()+".content", "%s.content is required: a string or an array of text parts", name())
	}
	return m, nil
}

// role takes a string without a copy of the usual ones.
func (d *decoder) role() (string, error) {
	b, err := d.bytes()
	switch string(b) {
	case "system":
		return "system", err
	case "user":
		return "user", err
	case "assistant":
		return "assistant", err
	}
	return string(b), err
}

// content takes a string or an array of text parts, which it joins with newlines.
func (d *decoder) content(name func() string) (string, error) {
	if d.kind() == '"' {
		return d.str()
	}
	field := name() + ".content"
	if d.kind() != '[' {
		return "", d.wrongType(field, field, "a string or an array of text parts")
	}
	var parts []string
	err := d.array(func(i int) error {
		if i >= MaxMessages {
			return llm.Invalid(field, "%s may have at most %d parts", field, MaxMessages)
		}
		s, err := d.part(at(field, i))
		parts = append(parts, s)
		return err
	})
	return strings.Join(parts, "\n"), err
}

func (d *decoder) part(field string) (string, error) {
	if d.kind() != '{' {
		return "", d.wrongType(field, field, "an object")
	}
	var typ, text string
	hasText := false
	err := d.object(func(key []byte) (err error) {
		switch string(key) {
		case "type":
			typ, err = d.text(field + ".type")
		case "text":
			hasText = true
			text, err = d.text(field + ".text")
		default:
			err = d.skip()
		}
		return err
	})
	switch {
	case err != nil:
		return "", err
	case typ != "text":
		return "", llm.Invalid(field+".type", "%s.type: only parts of type \"text\" are supported", field)
	case !hasText:
		return "", llm.Invalid(field+".text", "%s.text is required", field)
	}
	return text, nil
}
