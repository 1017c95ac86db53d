package server

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"kvasir/internal/llm"
)

// benchGenerator gives n events at once.
type benchGenerator struct{ n int }

func (g benchGenerator) Generate(context.Context, *llm.Request) (llm.Stream, error) {
	return &benchStream{left: g.n}, nil
}
func (g benchGenerator) Models() []llm.ModelInfo {
	return []llm.ModelInfo{{ID: "m", Digest: "0123456789abcdef"}}
}
func (g benchGenerator) Ready() bool { return true }

type benchStream struct{ left int }

func (s *benchStream) Next(context.Context) (llm.Event, error) {
	s.left--
	switch {
	case s.left > 0:
		return llm.Event{Text: " word"}, nil
	case s.left == 0:
		return llm.Event{Finish: llm.FinishLength}, nil
	}
	return llm.Event{}, io.EOF
}
func (s *benchStream) Usage() llm.Usage          { return llm.Usage{PromptTokens: 10, CompletionTokens: 1} }
func (s *benchStream) Decisions() []llm.Decision { return []llm.Decision{{PromptTokens: 10}} }
func (s *benchStream) Timings() llm.Timings      { return llm.Timings{} }
func (s *benchStream) Close()                    {}

// BenchmarkHTTP is what the server and a connection on the loopback interface add, the client's part included: prompt is a
// request of some thousand bytes and one token, stream the cost of each of the tokens of one response.
func BenchmarkHTTP(b *testing.B) {
	for _, size := range []int{8 << 10, 120 << 10} {
		b.Run(fmt.Sprintf("prompt/%dk", size>>10), func(b *testing.B) {
			ts := httptest.NewServer(New(benchGenerator{2}, Options{Log: quiet()}).Handler())
			defer ts.Close()
			body := `{"model":"m","stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("some words\\n", size/12) + `"}]}`
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.Post(ts.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, r.Body); err != nil || n < 100 {
					b.Fatal(n, err)
				}
				r.Body.Close()
			}
		})
	}
	b.Run("stream", func(b *testing.B) {
		ts := httptest.NewServer(New(benchGenerator{max(b.N, 2)}, Options{Log: quiet()}).Handler())
		defer ts.Close()
		b.ReportAllocs()
		r, err := http.Post(ts.URL+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"m","stream":true,"messages":[{"role":"user","content":"x"}]}`))
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n < int64(b.N)*100 {
			b.Fatal(n, err)
		}
		r.Body.Close()
	})
}
