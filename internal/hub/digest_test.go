package hub

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// aged writes a file whose last change is long ago.
func aged(t *testing.T, path string, data []byte, age time.Duration) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	when := time.Now().Add(-age)
	if err := os.Chtimes(path, when, when); err != nil {
		t.Fatal(err)
	}
}

func TestDigest(t *testing.T) {
	dir := t.TempDir()
	path, cache := filepath.Join(dir, "f"), filepath.Join(dir, "state", "d.json")
	data := []byte("some weights")
	aged(t, path, data, time.Hour)
	want := sha256.Sum256(data)
	ask := func(path string) [32]byte {
		t.Helper()
		got, err := Digest(path, cache)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if ask(path) != want {
		t.Fatal("wrong digest")
	}
	// The second answer comes from the cache: put a mark there and see it come back.
	b, err := os.ReadFile(cache)
	if err != nil {
		t.Fatal(err)
	}
	real := fmt.Sprintf("%x", want)
	marked := bytes.Replace(b, []byte(real[:8]), []byte("00000000"), 1)
	if err := os.WriteFile(cache, marked, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := ask(path); fmt.Sprintf("%x", got) != "00000000"+real[8:] {
		t.Errorf("the file was hashed again: %x", got)
	}
	if runtime.GOOS != "windows" {
		// Another name of the file has its digest, a copy has not.
		link := filepath.Join(dir, "link")
		if err := os.Link(path, link); err != nil {
			t.Fatal(err)
		}
		if got := ask(link); got == want {
			t.Error("a hard link was hashed again")
		}
	}
	// Any change of size or time is seen, and so is another file under the name.
	aged(t, path, []byte("SOME weights"), time.Hour+time.Nanosecond)
	if ask(path) != sha256.Sum256([]byte("SOME weights")) {
		t.Error("a change of time was not seen")
	}
	aged(t, path, []byte("more weights than before"), time.Hour)
	if ask(path) != sha256.Sum256([]byte("more weights than before")) {
		t.Error("a change of size was not seen")
	}
	// A damaged or foreign cache is made anew.
	for _, junk := range []string{"{", "null", `{"version":99,"files":{}}`, `{"version":1,"files":{"x":{"path":"` + filepath.ToSlash(filepath.Join(dir, "gone")) + `"}}}`} {
		if err := os.WriteFile(cache, []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
		if ask(path) != sha256.Sum256([]byte("more weights than before")) {
			t.Errorf("wrong after %s", junk)
		}
		if d := readDigests(cache); len(d.Files) != 1 {
			t.Errorf("after %s: %v", junk, d)
		}
	}
}

func TestDigestOfAFreshFileIsNotRemembered(t *testing.T) {
	dir := t.TempDir()
	path, cache := filepath.Join(dir, "f"), filepath.Join(dir, "d.json")
	aged(t, path, []byte("one"), 0)
	if _, err := Digest(path, cache); err != nil {
		t.Fatal(err)
	}
	if d := readDigests(cache); len(d.Files) != 0 {
		t.Errorf("remembered: %v", d)
	}
}

func TestDigestErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Digest(filepath.Join(dir, "none"), ""); err == nil {
		t.Error("a missing file has a digest")
	}
	if _, err := Digest(dir, ""); err == nil {
		t.Error("a directory has a digest")
	}
}

func TestConcurrentDigestsKeepAll(t *testing.T) {
	dir := t.TempDir()
	cache := filepath.Join(dir, "d.json")
	var wg sync.WaitGroup
	for i := range 10 {
		path := filepath.Join(dir, fmt.Sprint(i))
		aged(t, path, []byte(path), time.Hour)
		wg.Go(func() {
			if got, err := Digest(path, cache); err != nil || got != sha256.Sum256([]byte(path)) {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if d := readDigests(cache); len(d.Files) != 10 {
		t.Errorf("%d of 10 are remembered", len(d.Files))
	}
}

func TestLines(t *testing.T) {
	var out bytes.Buffer
	show := NewBar(&out)
	show(Progress{Model: "m", Source: "hf:a", Stage: Connecting, Total: 1000})
	show(Progress{Model: "m", Source: "hf:a", Stage: Connecting, Note: "hf:a: gone; trying pypi:b"})
	for i := range int64(101) {
		show(Progress{Model: "m", Source: "pypi:b", Stage: Downloading, Done: 10 * i, Total: 1000})
	}
	show(Progress{Model: "m", Source: "pypi:b", Stage: Verifying, Done: 1000, Total: 1000})
	show(Progress{Model: "m", Source: "pypi:b", Stage: Ready, Done: 1000, Total: 1000})
	s := out.String()
	if strings.Count(s, "\n") != 1+1+11+1+1 || strings.ContainsAny(s, "\r\x1b") || !strings.Contains(s, "trying pypi:b\n") || !strings.HasSuffix(s, "m: ready, 1000B from pypi:b\n") {
		t.Errorf("%s", s)
	}
}

func TestBar(t *testing.T) {
	var out bytes.Buffer
	show := newBar(&out)
	for i := range int64(11) {
		show(Progress{Model: "m", Source: "hf:a", Stage: Downloading, Done: 300 * i, Total: 3000})
	}
	show(Progress{Model: "m", Source: "hf:a", Stage: Downloading, Done: 9000, Total: 3000}) // more than announced is no crash
	show(Progress{Model: "m", Source: "hf:a", Stage: Downloading, Done: 1})                 // nor an unknown total
	show(Progress{Model: "m", Source: "hf:a", Stage: Ready, Done: 3000, Total: 3000})
	if s := out.String(); !strings.Contains(s, "100%") || !strings.Contains(s, "m: downloading") || !strings.HasSuffix(s, "\nm: ready, 2.9KiB from hf:a\n") {
		t.Errorf("%q", s)
	}
}
