package openai

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// decodeAny reads a whole JSON text.
func decodeAny(b []byte) (any, error) {
	r := reader{b: b}
	v, err := r.any()
	if err == nil {
		err = r.end()
	}
	return v, err
}

// floats turns the integers of v into float64, as encoding/json has them.
func floats(v any) any {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case []any:
		for i := range v {
			v[i] = floats(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = floats(v[k])
		}
	}
	return v
}

// FuzzReader holds the reader against encoding/json: the same texts are valid and mean the same, but for depth and UTF-8.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		`{}`, `[]`, `null`, `true`, `false`, `0`, `-0`, `1e5`, `1.`, `01`, `-`, `1e`, `1e+`, `.5`, `12.50E-3`, `1e999`, `"`, `"\`, `"a\nb\u00e9\ud83d\ude00"`,
		`"\ud83d"`, `"\ud83dx"`, `"\ud83d\u0041"`, `"\ude00\ud83d"`, `"\u12"`, `"\x"`, "\"\x01\"", "\"\xff\"", "\"\\n\xff\"", `{"a":1,"a":[2,{"b":null}]}`, `{"a"}`, `{"a":}`, `{,}`, `[1,]`,
		`[,1]`, `{"a":1,}`, `[1 2]`, " \t\r\n[ 1 , 2 ] \n", `1 2`, `nul`, `truex`, `"` + strings.Repeat(`\"`, 50) + `"`, strings.Repeat("[", 70) + strings.Repeat("]", 70), ``, `{"a\u0062":"\/"}`,
		`"a\\"`, `["\\\\","\\\""]`, `"\\\"`, "\"\x1f\"", "\"1234567\x1f\"", "\"123456789\x00abcdefgh\"", "\"\x7f\x80\"",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeAny(b)
		r := reader{b: b}
		skipErr := r.skip()
		if skipErr == nil {
			skipErr = r.end()
		}
		var want any
		wantErr := json.Unmarshal(b, &want)
		if err == nil && skipErr != nil {
			t.Fatalf("any accepts %q, skip says %v", b, skipErr)
		}
		if !utf8.Valid(b) || strings.Count(string(b), "[")+strings.Count(string(b), "{") > maxDepth {
			if err == nil && wantErr != nil {
				t.Fatalf("accepts %q, encoding/json says %v", b, wantErr)
			}
			return
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: got error %v, encoding/json %v", b, err, wantErr)
		}
		if err == nil && !reflect.DeepEqual(floats(got), want) {
			t.Fatalf("%q: got %#v, want %#v", b, got, want)
		}
	})
}

func TestReaderDepth(t *testing.T) {
	ok := strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth)
	if _, err := decodeAny([]byte(ok)); err != nil {
		t.Errorf("depth %d: %v", maxDepth, err)
	}
	if _, err := decodeAny([]byte("[" + ok + "]")); err == nil || !strings.Contains(err.Error(), "deeper") {
		t.Errorf("depth %d: %v", maxDepth+1, err)
	}
	if err := (&reader{b: []byte(strings.Repeat(`{"a":`, 1<<20))}).skip(); err == nil {
		t.Error("a million open objects were accepted")
	}
}

func TestReaderRejectsInvalidUTF8(t *testing.T) {
	for _, s := range []string{"\"\xff\"", "\"\\n\xe2\x80\""} {
		if _, err := decodeAny([]byte(s)); err == nil || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestAppendString(t *testing.T) {
	all := make([]rune, 0, 0x3000)
	for r := rune(0); r < 0x3000; r++ {
		all = append(all, r)
	}
	for _, c := range []struct{ in, want string }{
		{string(all) + "😀 日本", string(all) + "😀 日本"},
		{"", ""},
		{"a\xffb", "a\uFFFDb"},
		{"\xe2\x80", "\uFFFD"},                 // half a character is one
		{"\xe2\x80x", "\uFFFDx"},               //
		{"\x80\x80", "\uFFFD\uFFFD"},           // continuation bytes alone are one each
		{"\xed\xa0\x80", "\uFFFD\uFFFD\uFFFD"}, // a surrogate: no byte of it can continue 0xED
		{"\xf0\x9f\x98", "\uFFFD"},
		{"\xf0\x9f\x98\xf0\x9f\x98\x80", "\uFFFD😀"},
		{"\xc0\xaf\xf4\x90", "\uFFFD\uFFFD\uFFFD\uFFFD"},
	} {
		var got string
		if err := json.Unmarshal(appendString(nil, c.in), &got); err != nil || got != c.want {
			t.Errorf("%q: got %q, %v; want %q", c.in, got, err, c.want)
		}
		if got := replaced([]byte(c.in)); got != c.want {
			t.Errorf("replaced(%q) = %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"\\\n\x00\x7f\u2028é😀\xff\xe2\x80")
	f.Fuzz(func(t *testing.T, s string) {
		b := appendString(nil, s)
		if !utf8.Valid(b) {
			t.Fatalf("%q: %q is not UTF-8", s, b)
		}
		var got string
		if err := json.Unmarshal(b, &got); err != nil || got != replaced([]byte(s)) {
			t.Fatalf("%q: got %q, %v", s, got, err)
		}
		if utf8.ValidString(s) && got != s {
			t.Fatalf("%q became %q", s, got)
		}
	})
}
