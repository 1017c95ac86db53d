package openaigo

import (
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"

	"kvasir/internal/llm"
	wire "kvasir/internal/wire/openai"
)

func info(text string, lp float32, top ...llm.TokenLogprob) llm.TokenInfo {
	return llm.TokenInfo{TokenLogprob: llm.TokenLogprob{Bytes: []byte(text), Logprob: lp}, Top: top}
}

func alt(text string, lp float32) llm.TokenLogprob {
	return llm.TokenLogprob{Bytes: []byte(text), Logprob: lp}
}

// TestFieldsCoverOpenAI holds the table against the fields of OpenAI's own Go client.
func TestFieldsCoverOpenAI(t *testing.T) {
	for e, params := range map[wire.Endpoint]any{wire.Completions: openai.CompletionNewParams{}, wire.Chat: openai.ChatCompletionNewParams{}} {
		known := map[string]bool{}
		for _, f := range wire.Fields() {
			known[f.Name] = known[f.Name] || f.Endpoints&e != 0
		}
		n := 0
		for _, f := range reflect.VisibleFields(reflect.TypeOf(params)) {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || name == "-" {
				continue
			}
			n++
			if !known[name] {
				t.Errorf("%s: OpenAI's field %s is not in the table", e, name)
			}
		}
		if n < 15 {
			t.Errorf("%s: only %d fields found by reflection", e, n)
		}
	}
}

// TestResponsesParse reads whole bodies with OpenAI's own types.
func TestResponsesParse(t *testing.T) {
	usage := llm.Usage{PromptTokens: 9, CachedTokens: 0, CompletionTokens: 3}
	halves := []llm.Event{
		{Text: "é", Tokens: []llm.TokenInfo{info("\xc3", -0.5, alt("\xc3", -0.5), alt("\xe2", -1), alt("a", -2)), info("\xa9", 0, alt("\xa9", 0))}},
		{Text: "x", Tokens: []llm.TokenInfo{info("x", float32(math.Inf(-1)), alt("y", -0.25))}},
		{Finish: "length"},
	}
	head := wire.Head{ID: "id-1", Model: `m"x`, Created: 12, Fingerprint: "fp"}
	decode := func(e wire.Endpoint, body string) *wire.Call {
		c, err := wire.Decode(e, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := decode(wire.Chat, `{"model":"m","messages":[{"role":"user","content":"hi"}],"logprobs":true,"top_logprobs":3,"n":2}`)
	r := wire.NewResponse(c)
	for _, ev := range halves {
		r.Add(ev)
		ev.Choice = 1
		r.Add(ev)
	}
	body := r.Append(nil, head, usage)
	var chat openai.ChatCompletion
	if err := json.Unmarshal(body, &chat); err != nil {
		t.Fatal(err)
	}
	ch := chat.Choices[1]
	if chat.ID != "id-1" || chat.Model != `m"x` || ch.Index != 1 || ch.Message.Content != "éx" || ch.Message.Role != "assistant" || ch.FinishReason != "length" {
		t.Errorf("%+v", chat)
	}
	if lp := ch.Logprobs.Content; len(lp) != 3 || lp[0].Bytes[0] != 0xc3 || len(lp[0].TopLogprobs) != 3 || lp[2].TopLogprobs[0].Token != "y" {
		t.Errorf("%+v", lp)
	}
	if u := chat.Usage; u.PromptTokens != 9 || u.CompletionTokens != 3 || u.TotalTokens != 12 || !u.PromptTokensDetails.JSON.CachedTokens.Valid() {
		t.Errorf("usage %s", u.RawJSON())
	}
	c = decode(wire.Completions, `{"model":"m","prompt":"p","logprobs":1}`)
	r = wire.NewResponse(c)
	for _, ev := range halves {
		r.Add(ev)
	}
	var comp openai.Completion
	if err := json.Unmarshal(r.Append(nil, head, usage), &comp); err != nil {
		t.Fatal(err)
	}
	if ch := comp.Choices[0]; ch.Text != "éx" || ch.FinishReason != "length" || len(ch.Logprobs.Tokens) != 3 || ch.Logprobs.TopLogprobs[0]["a"] != -2 || ch.Logprobs.TextOffset[2] != 1 {
		t.Errorf("%+v", comp)
	}
}
