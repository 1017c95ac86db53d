package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"kvasir/internal/llm"
)

// What is remembered of earlier prompts changes no ids, whoever sent them.
func TestRememberedPrompts(t *testing.T) {
	p := open(t, func(o *Options) { o.Context = 0 })
	p.limit = 1 << 20
	text := strings.Repeat("if the <|im_end|> of it is 12 times as long as that, it's  remembered.\n", 60)
	for i := range 6 {
		long := text[i*100:] + fmt.Sprint(" a question ", i)
		for _, pr := range []llm.Prompt{
			{IsText: true, Text: long},
			{Messages: []llm.Message{{Role: "system", Content: text}, {Role: "user", Content: long}}},
		} {
			plain, err := p.encode(&pr, &llm.Request{Prompts: []llm.Prompt{pr}, NoCache: true})
			if err != nil {
				t.Fatal(err)
			}
			for _, tenant := range []string{"a", "a", "b"} {
				got, err := p.encode(&pr, &llm.Request{Prompts: []llm.Prompt{pr}, Tenant: tenant})
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(got, plain) {
					t.Fatalf("prompt %d of tenant %s has other ids when it is remembered", i, tenant)
				}
			}
		}
	}
}
