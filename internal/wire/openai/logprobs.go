package openai

import (
	"strconv"
	"unicode/utf8"

	"kvasir/internal/llm"
)

// appendChatLogprobs appends the value of a chat choice's "logprobs".
func appendChatLogprobs(dst []byte, tokens []llm.TokenInfo) []byte {
	dst = append(dst, `{"content":[`...)
	for i, t := range tokens {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendChatToken(dst, t.TokenLogprob)
		dst = append(dst, `,"top_logprobs":[`...)
		for j, alt := range t.Top {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendChatToken(dst, alt), '}')
		}
		dst = append(dst, `]}`...)
	}
	return append(dst, `],"refusal":null}`...)
}

// appendChatToken leaves the object open.
func appendChatToken(dst []byte, t llm.TokenLogprob) []byte {
	dst = append(dst, `{"token":`...)
	dst = appendString(dst, t.Bytes)
	dst = append(dst, `,"logprob":`...)
	dst = appendLogprob(dst, t.Logprob)
	dst = append(dst, `,"bytes":[`...)
	for i, b := range t.Bytes {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendUint(dst, uint64(b), 10)
	}
	return append(dst, ']')
}

// appendCompletionLogprobs appends the value of a completion choice's "logprobs". offset is the place in the choice's text, in
// characters, where the first token starts. top_logprobs has the alternatives and the chosen token; where several tokens have the
// same text (parts of characters do), the most likely one stands for it, since the texts are keys. It returns the offset behind the last token.
func appendCompletionLogprobs(dst []byte, tokens []llm.TokenInfo, offset int) ([]byte, int) {
	dst = append(dst, `{"tokens":[`...)
	for i, t := range tokens {
		dst = appendString(comma(dst, i), t.Bytes)
	}
	dst = append(dst, `],"token_logprobs":[`...)
	for i, t := range tokens {
		dst = appendLogprob(comma(dst, i), t.Logprob)
	}
	dst = append(dst, `],"top_logprobs":[`...)
	for i, t := range tokens {
		dst = appendTopMap(comma(dst, i), t)
	}
	dst = append(dst, `],"text_offset":[`...)
	for i, t := range tokens {
		dst = appendInt(comma(dst, i), offset)
		offset += characters(t.Bytes)
	}
	return append(dst, `]}`...), offset
}

func appendTopMap(dst []byte, t llm.TokenInfo) []byte {
	if t.Logprob != t.Logprob {
		return append(dst, "null"...)
	}
	dst = append(dst, '{')
	seen := make([]string, 0, 8)
	put := func(p llm.TokenLogprob) {
		text := replaced(p.Bytes)
		for _, s := range seen {
			if s == text {
				return
			}
		}
		dst = append(appendString(comma(dst, len(seen)), text), ':')
		dst = appendLogprob(dst, p.Logprob)
		seen = append(seen, text)
	}
	for _, alt := range t.Top {
		put(alt)
	}
	put(t.TokenLogprob)
	return append(dst, '}')
}

// characters counts the characters that start in b.
func characters(b []byte) int {
	n := 0
	for _, c := range b {
		if utf8.RuneStart(c) {
			n++
		}
	}
	return n
}

func comma(dst []byte, i int) []byte {
	if i > 0 {
		dst = append(dst, ',')
	}
	return dst
}
