// Package openaigo holds the server and its JSON against OpenAI's Go client: its requests, its types, its errors and retries.
// The client is slow to compile, with -race and for fuzzing above all; so no other package's tests import it but test/e2e's.
package openaigo

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"

	"kvasir/internal/llm"
	"kvasir/internal/server"
)

// sdk is OpenAI's own client of a server with generator g.
func sdk(t *testing.T, g server.Generator, o server.Options) openai.Client {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	ts := httptest.NewServer(server.New(g, o).Handler())
	t.Cleanup(ts.Close)
	return openai.NewClient(option.WithBaseURL(ts.URL+"/v1"), option.WithAPIKey("sk-test"), option.WithHTTPClient(ts.Client()))
}

// sdkOf is the same as a pointer, so that its services can be called in one expression.
func sdkOf(t *testing.T, g server.Generator) *openai.Client {
	c := sdk(t, g, server.Options{})
	return &c
}

func sdkChat() openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "smol", Messages: []openai.ChatCompletionMessageParamUnion{
		openai.SystemMessage("be kind"), openai.DeveloperMessage("be brief"), openai.UserMessage("hi"), openai.AssistantMessage("hello"),
		openai.UserMessage([]openai.ChatCompletionContentPartUnionParam{openai.TextContentPart("and"), openai.TextContentPart("now?")})},
		Temperature: openai.Float(0), Seed: openai.Int(3), MaxCompletionTokens: openai.Int(5)}
}

func TestOpenAIGoChat(t *testing.T) {
	g := newFake(always(hello()))
	c := sdk(t, g, server.Options{Keys: fakeKeys{"sk-test": "alice"}})
	got, err := c.Chat.Completions.New(t.Context(), sdkChat())
	if err != nil {
		t.Fatal(err)
	}
	if ch := got.Choices[0]; ch.Message.Content != "Hello" || ch.FinishReason != "stop" || got.Usage.PromptTokensDetails.CachedTokens != 8 || got.Usage.TotalTokens != 12 {
		t.Errorf("%s", got.RawJSON())
	}
	r := g.last(t)
	roles := ""
	for _, m := range r.Prompts[0].Messages {
		roles += m.Role + ":" + m.Content + " "
	}
	if roles != "system:be kind developer:be brief user:hi assistant:hello user:and\nnow? " || r.Tenant != "alice" || r.MaxTokens != 5 || r.Sampling.Temperature != 0 || r.Sampling.Seed != 3 {
		t.Errorf("%q %+v", roles, r)
	}
}

func TestOpenAIGoChatStream(t *testing.T) {
	tok := llm.TokenInfo{TokenLogprob: llm.TokenLogprob{ID: 5, Bytes: []byte("Hel"), Logprob: -0.5}, Top: []llm.TokenLogprob{{ID: 5, Bytes: []byte("Hel"), Logprob: -0.5}}}
	s := hello()
	s.steps[0].event.Tokens = []llm.TokenInfo{tok}
	c := sdk(t, newFake(always(s)), server.Options{})
	p := sdkChat()
	p.Logprobs, p.TopLogprobs = openai.Bool(true), openai.Int(1)
	p.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := c.Chat.Completions.NewStreaming(t.Context(), p)
	defer stream.Close()
	var acc openai.ChatCompletionAccumulator
	chunks, logprobs := 0, 0
	for stream.Next() {
		chunks++
		if !acc.AddChunk(stream.Current()) {
			t.Errorf("the accumulator refuses %s", stream.Current().RawJSON())
		}
		for _, ch := range stream.Current().Choices {
			logprobs += len(ch.Logprobs.Content)
		}
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	if ch := acc.Choices[0]; chunks != 5 || logprobs != 1 || ch.Message.Content != "Hello" || ch.Message.Role != "assistant" || ch.FinishReason != "stop" || acc.Usage.PromptTokensDetails.CachedTokens != 8 {
		t.Errorf("%d chunks, %d log-probabilities, %+v", chunks, logprobs, acc.ChatCompletion)
	}
}

func TestOpenAIGoCompletions(t *testing.T) {
	s := hello()
	s.steps = []step{text("a"), {event: llm.Event{Choice: 1, Text: "b", Finish: "length"}}, finish("stop")}
	g := newFake(always(s))
	c := sdk(t, g, server.Options{})
	p := openai.CompletionNewParams{Model: "org/smol", Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfTokenArrays: [][]int64{{1, 2}, {3}}},
		LogitBias: map[string]int64{"7": -100}, Stop: openai.CompletionNewParamsStopUnion{OfStringArray: []string{"\n"}}}
	got, err := c.Completions.New(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Choices) != 2 || got.Choices[0].Text != "a" || got.Choices[1].Text != "b" || got.Choices[1].FinishReason != "length" || got.Model != "org/smol" || got.Usage.PromptTokensDetails.CachedTokens != 8 {
		t.Errorf("%s", got.RawJSON())
	}
	if r := g.last(t); len(r.Prompts) != 2 || r.Prompts[0].Tokens[1] != 2 || r.MaxTokens != 16 || r.Sampling.LogitBias[7] != -100 || r.Stop[0] != "\n" {
		t.Errorf("%+v", r)
	}
	p.StreamOptions = openai.ChatCompletionStreamOptionsParam{IncludeUsage: openai.Bool(true)}
	stream := c.Completions.NewStreaming(t.Context(), p)
	defer stream.Close()
	texts := map[int64]string{}
	var cached int64
	for stream.Next() {
		for _, ch := range stream.Current().Choices {
			texts[ch.Index] += ch.Text
		}
		cached = max(cached, stream.Current().Usage.PromptTokensDetails.CachedTokens)
	}
	if err := stream.Err(); err != nil || texts[0] != "a" || texts[1] != "b" || cached != 8 {
		t.Errorf("%v %v, cached %d", err, texts, cached)
	}
}

func TestOpenAIGoModels(t *testing.T) {
	c := sdk(t, newFake(always(hello())), server.Options{})
	list, err := c.Models.List(t.Context())
	if err != nil || len(list.Data) != 2 || list.Data[1].ID != "org/smol" {
		t.Errorf("%+v %v", list, err)
	}
	m, err := c.Models.Get(t.Context(), "org/smol")
	if err != nil || m.ID != "org/smol" || m.Created != 7 {
		t.Errorf("%+v %v", m, err)
	}
}

func TestOpenAIGoErrors(t *testing.T) {
	g := newFake(always(hello()))
	for name, c := range map[string]struct {
		o           server.Options
		script      func(*llm.Request) (*fakeStream, error)
		change      func(*openai.ChatCompletionNewParams)
		status      int
		code, param string
	}{
		"key":   {o: server.Options{Keys: fakeKeys{"other": "x"}}, status: 401, code: "invalid_api_key"},
		"model": {change: func(p *openai.ChatCompletionNewParams) { p.Model = "gpt-9" }, status: 404, code: "model_not_found", param: "model"},
		"tools": {change: func(p *openai.ChatCompletionNewParams) {
			p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{Name: "f"})}
		}, status: 400, code: "unsupported_parameter", param: "tools"},
		"context": {script: func(*llm.Request) (*fakeStream, error) {
			return nil, &llm.Error{Kind: llm.KindContextLength, Param: "messages", Message: "the prompt has 9 tokens, and 8 fit"}
		}, status: 400, code: "context_length_exceeded", param: "messages"},
	} {
		g.script = always(hello())
		if c.script != nil {
			g.script = c.script
		}
		p := sdkChat()
		if c.change != nil {
			c.change(&p)
		}
		client := sdk(t, g, c.o)
		_, err := client.Chat.Completions.New(t.Context(), p)
		stream := client.Chat.Completions.NewStreaming(t.Context(), p)
		for stream.Next() {
			t.Errorf("%s: an event", name)
		}
		for _, err := range []error{err, stream.Err()} {
			var e *openai.Error
			if !errors.As(err, &e) || e.StatusCode != c.status || e.Code != c.code || e.Param != c.param || e.Message == "" || e.Response.Header.Get("X-Request-Id") == "" {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestOpenAIGoRetries: the client comes back after a 429 or a 503 by itself, and not after a timeout.
func TestOpenAIGoRetries(t *testing.T) {
	for name, first := range map[string]*llm.Error{"429": {Kind: llm.KindOverloaded, Message: "full", RetryAfter: 1}, "503": {Kind: llm.KindUnavailable, Message: "starting", RetryAfter: 1}} {
		tries := 0
		g := newFake(func(r *llm.Request) (*fakeStream, error) {
			if tries++; tries == 1 {
				return nil, first
			}
			return always(hello())(r)
		})
		got, err := sdkOf(t, g).Chat.Completions.New(t.Context(), sdkChat())
		if err != nil || tries != 2 || got.Choices[0].Message.Content != "Hello" {
			t.Errorf("%s: %d tries, %v", name, tries, err)
		}
	}
	tries := 0
	g := newFake(func(r *llm.Request) (*fakeStream, error) {
		tries++
		return nil, &llm.Error{Kind: llm.KindUnavailable, Code: "timeout", Message: "too long"}
	})
	if _, err := sdkOf(t, g).Chat.Completions.New(t.Context(), sdkChat()); err == nil || tries != 1 {
		t.Errorf("timeout: %d tries, %v", tries, err)
	}
}

func TestOpenAIGoStreamError(t *testing.T) {
	c := sdk(t, newFake(always(fakeStream{steps: []step{text("a"), {err: &llm.Error{Kind: llm.KindUnavailable, Message: "went away"}}}})), server.Options{})
	stream := c.Chat.Completions.NewStreaming(t.Context(), sdkChat())
	defer stream.Close()
	chunks := 0
	for stream.Next() {
		chunks++
	}
	if err := stream.Err(); err == nil || !strings.Contains(err.Error(), "went away") || chunks != 2 {
		t.Errorf("%d chunks, %v", chunks, err)
	}
}

func TestOpenAIGoCancel(t *testing.T) {
	s := &fakeStream{steps: []step{text("a"), never()}}
	c := sdk(t, newFake(one(s)), server.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	stream := c.Chat.Completions.NewStreaming(ctx, sdkChat())
	if !stream.Next() {
		t.Fatal(stream.Err())
	}
	cancel()
	<-s.closed
	for stream.Next() { // what was sent before
	}
	if !errors.Is(stream.Err(), context.Canceled) {
		t.Error(stream.Err())
	}
	stream.Close()
}
