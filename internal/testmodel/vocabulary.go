package testmodel

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// text is what the merges are learnt from.
const text = `The server keeps the state of a prompt so that the next prompt that begins the same way is cheap. It reads the
file, finds the longest prefix that it has seen before, and computes only what is new. When there is no room left, the
oldest blocks are given up first. You are a helpful assistant. Answer the question in one short sentence. What is the
capital of France? The capital of France is Paris. Thank you, that is all I wanted to know. Is there anything else that
I can do for you today? Please write a function that adds two numbers and returns the result, and then explain how it
works. He said that they would have been there, but she could not find them with the map which we had made for her.
package main

import "fmt"

func add(a, b int) int {
	return a + b
}

func main() {
	for i := 0; i < 10; i++ {
		if i % 2 == 0 {
			fmt.Println("value", add(i, 1))
		}
	}
}

def count(words):
    total = {}
    for word in words:
        if word not in total:
            total[word] = 0
        total[word] += 1
    return total

class Cache:
    def __init__(self, size):
        self.size = size
        self.items = []

    def get(self, key):
        return self.items.get(key, None)
`

// vocabulary returns n tokens and the merges that make all but the first 259 of them: three special tokens, the 256
// bytes, and then one token a merge.
func vocabulary(n int) (tokens, merges []string, err error) {
	letters := byteLetters()
	tokens = append(tokens, "<|endoftext|>", "<|im_start|>", "<|im_end|>")
	order := slices.Clone(letters[:]) // GPT-2's order: bytes that print, then the others
	slices.Sort(order)
	for _, r := range order {
		tokens = append(tokens, string(r))
	}
	known := map[string]bool{}
	for _, t := range tokens {
		known[t] = true
	}
	add := func(a, b string) {
		if len(tokens) < n && !known[a+b] {
			known[a+b] = true
			tokens = append(tokens, a+b)
			merges = append(merges, a+" "+b)
		}
	}
	learn(letters, n-len(tokens), add)
	// The text is exhausted before large vocabularies are full: go on with strings of small letters.
	for length := 2; len(tokens) < n && length <= 4; length++ {
		for _, stem := range strings26(length - 1) {
			if length > 2 && !known[stem] {
				continue
			}
			for c := 'a'; c <= 'z'; c++ {
				add(stem, string(c))
			}
		}
	}
	if len(tokens) < n {
		return nil, nil, fmt.Errorf("testmodel: vocabulary of %d, at most %d are possible", n, len(tokens))
	}
	return tokens, merges, nil
}

// strings26 lists all strings of n small letters in order.
func strings26(n int) []string {
	list := []string{""}
	for range n {
		var longer []string
		for _, s := range list {
			for c := 'a'; c <= 'z'; c++ {
				longer = append(longer, s+string(c))
			}
		}
		list = longer
	}
	return list
}

// learn is byte pair encoding (Sennrich et al., 2016): it merges the most frequent pair of neighbours again and again, the
// smaller pair where two are equally frequent, and reports each merge.
func learn(letters [256]rune, n int, add func(a, b string)) {
	counts := map[string]int{}
	for _, word := range split(text) {
		counts[word]++
	}
	type wordCount struct {
		parts []string
		n     int
	}
	var words []wordCount
	for _, word := range slices.Sorted(maps.Keys(counts)) {
		var parts []string
		for _, b := range []byte(word) {
			parts = append(parts, string(letters[b]))
		}
		words = append(words, wordCount{parts, counts[word]})
	}
	type pair struct{ a, b string }
	for range n {
		pairs := map[pair]int{}
		for _, w := range words {
			for i := 1; i < len(w.parts); i++ {
				pairs[pair{w.parts[i-1], w.parts[i]}] += w.n
			}
		}
		if len(pairs) == 0 {
			return
		}
		best := slices.MaxFunc(slices.Collect(maps.Keys(pairs)), func(p, q pair) int {
			return cmp.Or(cmp.Compare(pairs[p], pairs[q]), cmp.Compare(q.a, p.a), cmp.Compare(q.b, p.b))
		})
		add(best.a, best.b)
		for k, w := range words {
			var parts []string
			for i := 0; i < len(w.parts); i++ {
				if i+1 < len(w.parts) && w.parts[i] == best.a && w.parts[i+1] == best.b {
					parts = append(parts, best.a+best.b)
					i++
				} else {
					parts = append(parts, w.parts[i])
				}
			}
			words[k].parts = parts
		}
	}
}

// split cuts a text much as GPT-2's tokenizer does: runs of letters or of other signs, each with the blank before it, digits
// one by one, and runs of white space. So no merge joins what the tokenizer will have separated.
func split(s string) []string {
	class := func(r rune) int {
		switch {
		case unicode.IsLetter(r):
			return 1
		case unicode.IsDigit(r):
			return 2
		case unicode.IsSpace(r):
			return 3
		}
		return 4
	}
	var words []string
	for s != "" {
		rest := strings.TrimLeftFunc(s, unicode.IsSpace)
		if blanks := len(s) - len(rest); blanks > 0 {
			if rest != "" && s[blanks-1] == ' ' && class(rune(rest[0])) != 2 {
				blanks-- // the last blank belongs to the word
			}
			if blanks > 0 {
				words = append(words, s[:blanks])
				s = s[blanks:]
				continue
			}
		}
		start := len(s) - len(rest)
		c := class(rune(rest[0]))
		end := start + 1
		for c != 2 && end < len(s) && class(rune(s[end])) == c {
			end++
		}
		words = append(words, s[:end])
		s = s[end:]
	}
	return words
}

// byteLetters maps every byte to the letter that stands for it in token strings (GPT-2's bytes_to_unicode): printing
// characters of Latin-1 stand for themselves, the others are numbered from U+0100.
func byteLetters() (letters [256]rune) {
	next := rune(256)
	for b := range rune(256) {
		if b >= '!' && b <= '~' || b >= '¡' && b <= '¬' || b >= '®' && b <= 'ÿ' {
			letters[b] = b
		} else {
			letters[b] = next
			next++
		}
	}
	return letters
}
