package token

import (
	"strings"
	"testing"
	"unicode/utf8"
)

// byteTokens is a tokenizer whose id is the byte for ids below 256.
func byteTokens(t testing.TB) *Tokenizer {
	return build(t, small("gpt2", map[string]int32{"<end>": TypeControl, "<think>": TypeUserDefined, "\xe2\x82": TypeUserDefined}))
}

func TestDecode(t *testing.T) {
	tok := byteTokens(t)
	// What Python's bytes.decode(errors="replace") gives.
	for in, want := range map[string]string{
		"":                         "",
		"aé€😀":                     "aé€😀",
		"\x80":                     "\ufffd",
		"\xc0\xaf":                 "\ufffd\ufffd",
		"\xe0\x80\x80":             "\ufffd\ufffd\ufffd",
		"\xe2\x82":                 "\ufffd",
		"\xe2\x82a":                "\ufffda",
		"\xe2\x82\xe2\x82\xac":     "\ufffd€",
		"\xed\xa0\x80":             "\ufffd\ufffd\ufffd",
		"\xf0\x9f\x98":             "\ufffd",
		"\xf0\x9f\x98\xf0\x9f\x98": "\ufffd\ufffd",
		"\xf0\x80\x80":             "\ufffd\ufffd\ufffd",
		"\xf4\x8f\xbf\xbf":         "\U0010ffff",
		"\xf4\x90\x80\x80":         "\ufffd\ufffd\ufffd\ufffd",
		"\xf5\x80":                 "\ufffd\ufffd",
		"\xffx\xfe":                "\ufffdx\ufffd",
	} {
		ids := make([]int32, len(in))
		for i := range len(in) {
			ids[i] = int32(in[i])
		}
		if got := tok.Decode(ids, false); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestDecodeSpecial(t *testing.T) {
	tok := byteTokens(t)
	end, _ := tok.Lookup("<end>")
	think, _ := tok.Lookup("<think>")
	ids := []int32{'a', 0xC3, end, 0xA9, think, end} // a hidden token does not break a character
	if got := tok.Decode(ids, false); got != "aé<think>" {
		t.Errorf("hidden: %q", got)
	}
	if got := tok.Decode(ids, true); got != "a\ufffd<end>\ufffd<think><end>" {
		t.Errorf("shown: %q", got)
	}
}

func TestDecoderStreams(t *testing.T) {
	tok := byteTokens(t)
	d := tok.NewDecoder(false)
	for i, step := range []struct {
		id   int32
		want string
	}{
		{'a', "a"}, {0xF0, ""}, {0x9F, ""}, {0x98, ""}, {0x80, "😀"}, // a character comes out with its last byte
		{0xE2, ""}, {'b', "\ufffdb"}, // and a mistake as soon as it is one
		{0x80, "\ufffd"}, {0xE2, ""}, {0x82, ""}, {0xE2, "\ufffd"}, {0x82, ""}, {0xAC, "€"}, {0xED, ""}, {0xA0, "\ufffd\ufffd"}, {0xC3, ""},
	} {
		if got := d.Push(step.id); got != step.want {
			t.Errorf("step %d: got %q, want %q", i, got, step.want)
		}
	}
	if got := d.Flush() + d.Flush() + d.Push(0xA9); got != "\ufffd\ufffd" {
		t.Errorf("end: %q", got)
	}
}

// replaced is what Decode promises, by way of the standard library: a maximal part of a character is the longest
// beginning of the bytes that some bytes complete to one.
func replaced(s string) string {
	completes := func(s string) bool {
		for _, end := range []string{"\x80", "\xBF", "\x80\x80", "\xBF\x80", "\x80\x80\x80", "\x90\x80\x80", "\xA0\x80"} {
			if r, n := utf8.DecodeRuneInString(s + end); n == len(s+end) && (r != utf8.RuneError || n > 1) {
				return true
			}
		}
		return false
	}
	var b strings.Builder
	for s != "" {
		if r, n := utf8.DecodeRuneInString(s); n > 1 || r != utf8.RuneError {
			b.WriteString(s[:n])
			s = s[n:]
			continue
		}
		n := 1
		for k := 2; k <= min(3, len(s)); k++ {
			if completes(s[:k]) {
				n = k
			}
		}
		b.WriteString("\ufffd")
		s = s[n:]
	}
	return b.String()
}

func FuzzDecoder(f *testing.F) {
	f.Add([]byte("a\xe2\x82\xac\xf0\x9f\x98\xff\xed\xa0\x80\xf4\x90"), true)
	f.Add([]byte{0xE0, 0x80, 0xF0, 0x90, 0x80, 0xC2}, false)
	tok := byteTokens(f)
	f.Fuzz(func(t *testing.T, data []byte, withSpecial bool) {
		d := tok.NewDecoder(withSpecial)
		var out strings.Builder
		var raw []byte
		var ids []int32
		for i, b := range data {
			id := int32(b)
			if i%3 == 2 {
				id = 256 + id%8 // the longer tokens, and one that does not exist
			}
			ids = append(ids, id)
			if withSpecial || !tok.IsControl(id) {
				raw = append(raw, tok.Bytes(id)...)
			}
			s := d.Push(id)
			if !utf8.ValidString(s) {
				t.Fatalf("%q is not UTF-8", s)
			}
			out.WriteString(s)
			if len(data) > 100 { // or this would be quadratic
				continue
			}
			if held := len(replaced(string(raw))) - out.Len(); held != 0 && held != 3 {
				t.Fatalf("after %q, %q is out", raw, out.String())
			}
		}
		out.WriteString(d.Flush())
		if want := replaced(string(raw)); out.String() != want {
			t.Fatalf("%q became %q, want %q", raw, out.String(), want)
		}
		if got := tok.Decode(ids, withSpecial); got != out.String() {
			t.Fatalf("Decode %q, Decoder %q", got, out.String())
		}
	})
}
