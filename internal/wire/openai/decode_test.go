package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kvasir/internal/llm"
)

// base is the smallest request of each endpoint, without its closing brace.
var base = map[Endpoint]string{
	Completions: `{"model":"m","prompt":"p"`,
	Chat:        `{"model":"m","messages":[{"role":"user","content":"hi"}]`,
}

func mustDecode(t *testing.T, e Endpoint, body string) *Call {
	t.Helper()
	c, err := Decode(e, []byte(body))
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return c
}

func TestDecodeDefaults(t *testing.T) {
	want := &Call{Endpoint: Completions, Request: llm.Request{Model: "m", Prompts: []llm.Prompt{{Text: "p", IsText: true}},
		N: 1, MaxTokens: 16, Logprobs: -1, Sampling: llm.DefaultSampling()}}
	if d := cmp.Diff(want, mustDecode(t, Completions, base[Completions]+"}")); d != "" {
		t.Error(d)
	}
	want = &Call{Endpoint: Chat, Request: llm.Request{Model: "m", Prompts: []llm.Prompt{{Messages: []llm.Message{{Role: "user", Content: "hi"}}}},
		N: 1, Logprobs: -1, Sampling: llm.DefaultSampling()}}
	if d := cmp.Diff(want, mustDecode(t, Chat, base[Chat]+"}")); d != "" {
		t.Error(d)
	}
}

func TestDecodeEverything(t *testing.T) {
	got := mustDecode(t, Chat, `{"model":"m","messages":[
		{"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b","prompt_cache_breakpoint":{"mode":"explicit"}}]},
		{"content":"c\n\u00e9","role":"user","name":"Bo"},{"role":"assistant","content":"d","tool_calls":null,"refusal":null},{"role":"tool","content":"e","tool_call_id":"x"}],
		"max_completion_tokens":7,"n":2,"logprobs":true,"top_logprobs":20,"temperature":0,"top_p":0.5,"presence_penalty":-2,"frequency_penalty":2,"seed":-1,
		"logit_bias":{"5":-100,"6":1.5},"stop":["x","y"],"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false},"top_k":-1,"min_p":0.1,
		"repetition_penalty":1.1,"ignore_eos":true,"cache_prompt":false,"truncate_prompt":true,"chat_template_kwargs":{"enable_thinking":false,"k":[1,2.5,"s",null]},
		"user":"u","metadata":{"a":"b"},"prompt_cache_key":"k","store":false,"service_tier":"auto","tools":[],"tool_choice":"none","response_format":{ "type" : "text" },
		"modalities":["text"],"parallel_tool_calls":true,"never_heard_of":{"deep":[1]}}`)
	want := &Call{Endpoint: Chat, HasSeed: true, Stream: true, IncludeUsage: true, Request: llm.Request{
		Model: "m", N: 2, MaxTokens: 7, Logprobs: 20, Stop: []string{"x", "y"}, IgnoreEOS: true, NoCache: true, TruncatePrompt: true,
		Prompts: []llm.Prompt{{Messages: []llm.Message{{Role: "developer", Content: "a\nb"}, {Role: "user", Content: "c\né", Name: "Bo"}, {Role: "assistant", Content: "d"}, {Role: "tool", Content: "e"}}}},
		Sampling: llm.Sampling{Temperature: 0, TopP: 0.5, MinP: 0.1, RepetitionPenalty: 1.1, PresencePenalty: -2, FrequencyPenalty: 2, Seed: math.MaxUint64,
			LogitBias: map[int32]float32{5: -100, 6: 1.5}},
		TemplateArgs: map[string]any{"enable_thinking": false, "k": []any{int64(1), 2.5, "s", nil}},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestDecodePrompts(t *testing.T) {
	text := func(s string) llm.Prompt { return llm.Prompt{Text: s, IsText: true} }
	for body, want := range map[string][]llm.Prompt{
		`""`:                {text("")},
		`"a\u0000b"`:        {text("a\x00b")},
		`["a","",  "c"]`:    {text("a"), text(""), text("c")},
		`[1, 2,2147483647]`: {{Tokens: []int32{1, 2, math.MaxInt32}}},
		`[ [1],[2,3.0] ]`:   {{Tokens: []int32{1}}, {Tokens: []int32{2, 3}}},
	} {
		c := mustDecode(t, Completions, `{"model":"m","prompt":`+body+`}`)
		if d := cmp.Diff(want, c.Request.Prompts); d != "" {
			t.Errorf("%s: %s", body, d)
		}
	}
	c := mustDecode(t, Completions, `{"prompt":"old","model":"old","model":"new","prompt":["x"],"n":3,"n":2}`)
	if c.Request.Model != "new" || c.Request.N != 2 || c.Request.Prompts[0].Text != "x" {
		t.Errorf("of duplicate keys the last should count: %+v", c.Request)
	}
}

// TestDecodeErrors checks that each fault is a 400 that names the field.
func TestDecodeErrors(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, c := range []struct {
		e           Endpoint
		body, param string
		message     string // a part of it
	}{
		{Completions, ``, "", "not valid JSON"},
		{Completions, `[]`, "", "must be a JSON object, not an array"},
		{Completions, `"x"`, "", "must be a JSON object, not a string"},
		{Completions, `{"model":"m","prompt":"p"`, "", "ends too early"},
		{Completions, `{"model":"m","prompt":"p"} x`, "", "expected the end"},
		{Completions, `{"model":"m" "prompt":"p"}`, "", "',' or '}' at byte 13"},
		{Completions, "{\"model\":\"m\",\"prompt\":\"\xff\"}", "", "UTF-8"},
		{Completions, `{"prompt":"p"}`, "model", "required"},
		{Completions, `{"model":"","prompt":"p"}`, "model", "required"},
		{Completions, `{"model":1,"prompt":"p"}`, "model", "must be a string, not a number"},
		{Completions, `{"model":"` + long + `","prompt":"p"}`, "model", "512"},
		{Completions, `{"model":"m"}`, "prompt", "required"},
		{Completions, `{"model":"m","prompt":null}`, "prompt", "required"},
		{Completions, `{"model":"m","prompt":[]}`, "prompt", "required"},
		{Completions, `{"model":"m","prompt":[[]]}`, "prompt", "prompt[0] is empty"},
		{Completions, `{"model":"m","prompt":{}}`, "prompt", "not an object"},
		{Completions, `{"model":"m","prompt":[1,"a"]}`, "prompt", "prompt[1] must be a token id, not a string"},
		{Completions, `{"model":"m","prompt":["a",1]}`, "prompt", "prompt[1] must be like the others"},
		{Completions, `{"model":"m","prompt":["a",[1]]}`, "prompt", "prompt[1] must be like the others"},
		{Completions, `{"model":"m","prompt":[1,-1]}`, "prompt", "prompt[1] is not a token id"},
		{Completions, `{"model":"m","prompt":[1.5]}`, "prompt", "prompt[0] is not a token id"},
		{Completions, `{"model":"m","prompt":[[7],[2147483648]]}`, "prompt", "prompt[1][0] is not a token id"},
		{Completions, `{"model":"m","prompt":[1,]}`, "", "expected a value"},
		{Completions, `{"model":"m","prompt":[` + strings.Repeat(`"a",`, MaxPrompts) + `"a"]}`, "prompt", "2048"},
		{Completions, `{"model":"m","n":3,"prompt":[` + strings.Repeat(`"a",`, 1000) + `"a"]}`, "n", "3003 choices"},
		{Completions, base[Completions] + `,"n":0}`, "n", "1 to 128"},
		{Completions, base[Completions] + `,"n":129}`, "n", "1 to 128"},
		{Completions, base[Completions] + `,"n":1.5}`, "n", "an integer"},
		{Completions, base[Completions] + `,"n":"1"}`, "n", "not a string"},
		{Completions, base[Completions] + `,"n":99999999999999999999}`, "n", "out of range"},
		{Completions, base[Completions] + `,"best_of":2}`, "best_of", "equal to n (1)"},
		{Completions, base[Completions] + `,"max_tokens":0}`, "max_tokens", "1 to"},
		{Completions, base[Completions] + `,"max_tokens":true}`, "max_tokens", "not a boolean"},
		{Completions, base[Completions] + `,"logprobs":6}`, "logprobs", "0 to 5"},
		{Completions, base[Completions] + `,"logprobs":true}`, "logprobs", "not a boolean"},
		{Completions, base[Completions] + `,"logprobs":0,"echo":true}`, "logprobs", "echo"},
		{Completions, base[Completions] + `,"temperature":2.1}`, "temperature", "0 to 2"},
		{Completions, base[Completions] + `,"temperature":1e999}`, "temperature", "0 to 2"},
		{Completions, base[Completions] + `,"temperature":NaN}`, "", "not valid JSON"},
		{Completions, base[Completions] + `,"top_p":-0.1}`, "top_p", "0 to 1"},
		{Completions, base[Completions] + `,"top_k":-2}`, "top_k", "-1 to"},
		{Completions, base[Completions] + `,"min_p":2}`, "min_p", "0 to 1"},
		{Completions, base[Completions] + `,"repetition_penalty":0}`, "repetition_penalty", "0.01 to 10"},
		{Completions, base[Completions] + `,"presence_penalty":-3}`, "presence_penalty", "-2 to 2"},
		{Completions, base[Completions] + `,"frequency_penalty":[]}`, "frequency_penalty", "not an array"},
		{Completions, base[Completions] + `,"seed":1.5}`, "seed", "64 bits"},
		{Completions, base[Completions] + `,"seed":"a"}`, "seed", "an integer"},
		{Completions, base[Completions] + `,"logit_bias":[]}`, "logit_bias", "an object"},
		{Completions, base[Completions] + `,"logit_bias":{"a":1}}`, "logit_bias", "token ids"},
		{Completions, base[Completions] + `,"logit_bias":{"-1":1}}`, "logit_bias", "token ids"},
		{Completions, base[Completions] + `,"logit_bias":{"1":101}}`, "logit_bias", "-100 to 100"},
		{Completions, base[Completions] + `,"stop":""}`, "stop", "1 to 4096"},
		{Completions, base[Completions] + `,"stop":["a",1]}`, "stop[1]", "a string"},
		{Completions, base[Completions] + `,"stop":[` + strings.Repeat(`"a",`, 16) + `"a"]}`, "stop", "at most 16"},
		{Completions, base[Completions] + `,"stop":"` + long + `"}`, "stop", "4096"},
		{Completions, base[Completions] + `,"stream":1}`, "stream", "a boolean"},
		{Completions, base[Completions] + `,"stream_options":{}}`, "stream_options", "stream: true"},
		{Completions, base[Completions] + `,"stream":true,"stream_options":{"include_usage":1}}`, "stream_options.include_usage", "a boolean"},
		{Completions, base[Completions] + `,"stream":true,"stream_options":{"continuous_usage_stats":true}}`, "stream_options.continuous_usage_stats", "include_usage"},
		{Completions, base[Completions] + `,"echo":"yes"}`, "echo", "a boolean"},
		{Chat, `{"model":"m"}`, "messages", "required"},
		{Chat, `{"model":"m","messages":[]}`, "messages", "at least one"},
		{Chat, `{"model":"m","messages":"hi"}`, "messages", "not a string"},
		{Chat, `{"model":"m","messages":["hi"]}`, "messages[0]", "an object, not a string"},
		{Chat, `{"model":"m","messages":[{"content":"x"}]}`, "messages[0].role", "required"},
		{Chat, `{"model":"m","messages":[{"role":"function","content":"x"}]}`, "messages[0].role", "supported roles"},
		{Chat, `{"model":"m","messages":[{"role":1,"content":"x"}]}`, "messages[0].role", "a string"},
		{Chat, `{"model":"m","messages":[{"role":"user","content":"x"},{"role":"user"}]}`, "messages[1].content", "required"},
		{Chat, `{"model":"m","messages":[{"role":"user","content":null}]}`, "messages[0].content", "required"},
		{Chat, `{"model":"m","messages":[{"role":"user","content":5}]}`, "messages[0].content", "text parts"},
		{Chat, `{"model":"m","messages":[{"role":"user","content":["x"]}]}`, "messages[0].content[0]", "an object"},
		{Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{"url":"x"}}]}]}`, "messages[0].content[1].type", "text"},
		{Chat, `{"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]}`, "messages[0].content[0].text", "required"},
		{Chat, `{"model":"m","messages":[{"role":"assistant","content":"x","tool_calls":[{"id":"a"}]}]}`, "messages[0].tool_calls", "not supported yet"},
		{Chat, `{"model":"m","messages":[{"role":"user","content":"x","name":"` + long + `"}]}`, "messages[0].name", "512"},
		{Chat, base[Chat] + `,"top_logprobs":3}`, "top_logprobs", "logprobs: true"},
		{Chat, base[Chat] + `,"logprobs":true,"top_logprobs":21}`, "top_logprobs", "0 to 20"},
		{Chat, base[Chat] + `,"logprobs":5}`, "logprobs", "a boolean"},
		{Chat, base[Chat] + `,"max_tokens":5,"max_completion_tokens":6}`, "max_tokens", "differ"},
		{Chat, base[Chat] + `,"max_completion_tokens":-1}`, "max_completion_tokens", "1 to"},
		{Chat, base[Chat] + `,"tools":[{"type":"function"}]}`, "tools", "not supported yet"},
		{Chat, base[Chat] + `,"chat_template_kwargs":[]}`, "chat_template_kwargs", "an object"},
		{Chat, base[Chat] + `,"chat_template_kwargs":{"a":"` + strings.Repeat("x", maxTemplateBytes) + `"}}`, "chat_template_kwargs", "65536"},
		{Chat, base[Chat] + `,"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, "", "deeper"},
	} {
		_, err := Decode(c.e, []byte(c.body))
		var e *llm.Error
		if !errors.As(err, &e) || e.Kind != llm.KindInvalid || e.Param != c.param || !strings.Contains(e.Message, c.message) {
			t.Errorf("%.80s: got %#v; want param %q and a message with %q", c.body, err, c.param, c.message)
		}
	}
}

// TestFields walks the table: every rejected field gives a 400 that names it unless its value asks for nothing, every ignored field changes
// nothing, every honoured one complains about a value of a wrong type, and null means absent.
func TestFields(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Fields() {
		if f.Note == "" || f.read == nil {
			t.Errorf("%s: no note or no reader", f.Name)
		}
		for _, e := range []Endpoint{Completions, Chat} {
			if f.Endpoints&e == 0 {
				continue
			}
			key := fmt.Sprint(e, f.Name)
			if seen[key] {
				t.Errorf("%s %s is in the table twice", e, f.Name)
			}
			seen[key] = true
			with := func(v string) (*Call, error) { return Decode(e, []byte(base[e]+`,"`+f.Name+`":`+v+`}`)) }
			plain := mustDecode(t, e, base[e]+"}")
			odd := `{"odd":[1]}`
			if f.Name == "logit_bias" || f.Name == "stream_options" || f.Name == "chat_template_kwargs" {
				odd = `"odd"`
			}
			if f.Name == "guided_json" || f.Name == "json_schema" { // any object may be a schema
				odd = `[1]`
			}
			switch c, err := with(odd); f.Use {
			case Ignored:
				if err != nil || !reflect.DeepEqual(c, plain) {
					t.Errorf("%s %s is not ignored: %v", e, f.Name, err)
				}
			case Rejected:
				var le *llm.Error
				if !errors.As(err, &le) || le.Param != f.Name || le.Code != "unsupported_parameter" || !strings.Contains(le.Message, "supported: ") {
					t.Errorf("%s %s: %#v", e, f.Name, err)
				}
				for _, v := range f.NoOp {
					if c, err := with(" " + v + " "); err != nil || !reflect.DeepEqual(c, plain) {
						t.Errorf("%s %s=%s is not accepted as asking for nothing: %v", e, f.Name, v, err)
					}
				}
			case Honoured:
				var le *llm.Error
				if !errors.As(err, &le) || le.Param != f.Name {
					t.Errorf("%s %s=%s: %#v", e, f.Name, odd, err)
				}
			}
			if c, err := with("null"); err != nil || !reflect.DeepEqual(c, plain) {
				t.Errorf("%s %s=null: %v", e, f.Name, err)
			}
		}
	}
}

func checkInvariants(t *testing.T, e Endpoint, c *Call) {
	r := &c.Request
	s := r.Sampling
	in := func(v, low, high float32) bool { return v >= low && v <= high }
	for name, ok := range map[string]bool{
		"model": r.Model != "" && len(r.Model) <= MaxNameLen, "n": r.N >= 1 && r.N <= MaxN, "choices": c.Choices() >= 1 && c.Choices() <= MaxChoices,
		"max_tokens": r.MaxTokens >= 0 && (e == Chat || r.MaxTokens > 0), "logprobs": r.Logprobs >= -1 && r.Logprobs <= maxTopLogprobs,
		"temperature": in(s.Temperature, 0, 2), "top_p": in(s.TopP, 0, 1), "min_p": in(s.MinP, 0, 1), "top_k": s.TopK >= 0,
		"repetition": in(s.RepetitionPenalty, 0.01, 10), "presence": in(s.PresencePenalty, -2, 2), "frequency": in(s.FrequencyPenalty, -2, 2),
		"stop": len(r.Stop) <= MaxStops, "bias": len(s.LogitBias) <= MaxBias, "id": r.ID == "" && r.Tenant == "", "echo": !r.Echo || (r.Logprobs < 0 && e == Completions),
		"usage": !c.IncludeUsage || c.Stream, "one prompt": e == Completions || len(r.Prompts) == 1,
	} {
		if !ok {
			t.Errorf("%s: %+v", name, c)
		}
	}
	for id, v := range s.LogitBias {
		if id < 0 || !in(v, -100, 100) {
			t.Errorf("bias %d: %v", id, v)
		}
	}
	for _, stop := range r.Stop {
		if stop == "" {
			t.Error("empty stop string")
		}
	}
	for _, p := range r.Prompts {
		kinds := 0
		for _, set := range []bool{p.IsText, len(p.Tokens) > 0, len(p.Messages) > 0} {
			if set {
				kinds++
			}
		}
		if kinds != 1 || (e == Chat) != (len(p.Messages) > 0) {
			t.Errorf("prompt %+v", p)
		}
		for _, id := range p.Tokens {
			if id < 0 {
				t.Errorf("token %d", id)
			}
		}
	}
}

func fuzzDecode(f *testing.F, e Endpoint) {
	for _, s := range []string{
		base[e] + "}", base[e] + `,"n":2,"stop":["a"],"logit_bias":{"1":2},"stream":true,"stream_options":{"include_usage":true}}`,
		`{"model":"m","prompt":[[1,2],[3]],"best_of":1,"suffix":"","logprobs":5}`, `{"model":"m","prompt":[1,2.0,3e1]}`, `{"model":"m","prompt":["a","\ud83d"]}`,
		`{"model":"m","messages":[{"role":"system","content":[{"type":"text","text":"x"}]},{"role":"assistant","content":"y","tool_calls":[]}],"chat_template_kwargs":{"a":[{}]}}`,
		`{"model":"m","messages":[{"role":"tool","content":""}],"logprobs":true,"top_logprobs":2,"response_format":{"type":"text"},"max_completion_tokens":1}`,
	} {
		f.Add([]byte(s))
	}
	for _, field := range Fields() {
		for _, v := range append(field.NoOp, "1", "-1", `"x"`, "[]", "{}", "true") {
			f.Add([]byte(base[e] + `,"` + field.Name + `":` + v + `}`))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(e, b)
		if err != nil {
			var le *llm.Error
			if !errors.As(err, &le) || le.Kind != llm.KindInvalid || c != nil {
				t.Fatalf("%q: %#v", b, err)
			}
			if !json.Valid(AppendError(nil, le)) {
				t.Fatalf("%q: the error body is not JSON", b)
			}
			return
		}
		if !json.Valid(b) {
			t.Fatalf("accepted invalid JSON %q", b)
		}
		checkInvariants(t, e, c)
	})
}

func FuzzDecodeCompletions(f *testing.F) { fuzzDecode(f, Completions) }
func FuzzDecodeChat(f *testing.F)        { fuzzDecode(f, Chat) }

func BenchmarkDecode(b *testing.B) {
	line := "    if self.value is not None and other.value == \"x\":\n        return self._compare(other)\n"
	ids := strings.Repeat("12345, ", 29999) + "7"
	text, _ := json.Marshal(strings.Repeat(line, 1400))
	for name, prompt := range map[string]string{"text": string(text), "tokens": "[" + ids + "]"} {
		body := []byte(`{"model":"m","prompt":` + prompt + `,"stream":true}`)
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Decode(Completions, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
