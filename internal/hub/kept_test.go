package hub

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kvasir/internal/folders"
	"kvasir/internal/gguf"
)

func put(t *testing.T, dir, name string, data []byte) string {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, data, 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(p, old, old); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestKeptByOllama(t *testing.T) {
	dir, data := t.TempDir(), content(1, 5000)
	sum := sumOf(data)
	blob := put(t, dir, "blobs/sha256-"+sum, data)
	for _, name := range []string{"registry.ollama.ai/library/tiny/1b", "hf.co/o/r/Q4_K_M"} {
		b, _ := json.Marshal(map[string]any{"layers": []any{map[string]any{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:" + sum, "size": len(data)}}})
		put(t, dir, "manifests/"+name, b)
	}
	m := &mirror{data: data}
	o := serve(t, m)
	o.Folders, o.DigestFile = []folders.Folder{{Program: folders.Ollama, Dir: dir}}, filepath.Join(t.TempDir(), "digests.json")
	for ref, name := range map[string]string{"ollama:tiny:1b": "tiny:1b", "ollama:TINY:1b": "tiny:1b", "hf:o/r:Q4_K_M": "hf.co/o/r:Q4_K_M"} {
		got, err := Resolve(context.Background(), ref, o)
		check(t, got, err, data)
		if got.Path != blob || got.Name != name || got.Ref != ref || got.Fetched || got.Source == "" {
			t.Errorf("%s: %+v", ref, got)
		}
	}
	if _, err := Resolve(context.Background(), "ollama:other", o); !errors.Is(err, folders.ErrNotFound) {
		t.Errorf("another name: %v", err)
	}

	put(t, dir, "blobs/sha256-"+sum, content(2, 5000)) // same size
	if _, err := Resolve(context.Background(), "ollama:tiny:1b", o); !errors.Is(err, ErrChecksum) {
		t.Errorf("damaged weights: %v", err)
	}
	put(t, dir, "blobs/sha256-"+sum, data[:100])
	if _, err := Resolve(context.Background(), "ollama:tiny:1b", o); err == nil || !strings.Contains(err.Error(), "100 bytes") {
		t.Errorf("short weights: %v", err)
	}
	if m.calls() != 0 {
		t.Errorf("%d requests", m.calls())
	}
}

// A reference of the hub takes what is there, and fetches what is not or is damaged.
func TestKeptOfHub(t *testing.T) {
	dir, data := t.TempDir(), content(1, 5000)
	put(t, dir, "o/r/m.gguf", data)
	other := content(2, 6000)
	m := &mirror{data: other, linked: sumOf(other)}
	o := serve(t, m)
	o.Folders = []folders.Folder{{Program: folders.LMStudio, Dir: dir}}
	got, err := Resolve(context.Background(), ref, o)
	if err != nil || got.Path != filepath.Join(dir, "o", "r", "m.gguf") || got.Source != "lmstudio:o/r/m.gguf" || m.calls() != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	got, err = Resolve(context.Background(), "lmstudio:o/r", o)
	if err != nil || got.Bytes != 5000 || got.Name != "m" {
		t.Fatalf("%+v, %v", got, err)
	}
	if l := leftovers(t, o, "models"); len(l) != 0 {
		t.Errorf("copied: %v", l)
	}

	// The catalog says what the bytes are.
	useCatalog(t, other, ref)
	got, err = Resolve(context.Background(), "test-model", o)
	check(t, got, err, other)
	if !got.Fetched {
		t.Errorf("%+v: a file of the right name and other bytes was taken", got)
	}
	if _, err := Remove(o, "test-model"); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "o/r/m.gguf", other)
	got, err = Resolve(context.Background(), "test-model", o)
	check(t, got, err, other)
	if got.Fetched || !got.Verified || got.Name != "test-model" {
		t.Errorf("%+v", got)
	}

	put(t, dir, "o/r/m.gguf", []byte("<html>"))
	got, err = Resolve(context.Background(), "test-model", o)
	check(t, got, err, other)
	if !got.Fetched {
		t.Errorf("%+v: a file that is no model was taken", got)
	}
}

func TestSplitByPath(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, no, count uint32) string {
		w := gguf.NewWriter()
		w.SetUint32("split.no", no)
		w.SetUint32("split.count", count)
		w.SetInt32("split.tensors.count", 0)
		b, err := w.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		return put(t, dir, name, b)
	}
	first, second := write("m-00001-of-00002.gguf", 0, 2), write("m-00002-of-00002.gguf", 1, 2)
	a, err := Resolve(context.Background(), first, Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Resolve(context.Background(), second, Options{})
	if err != nil || b.Path != first || b.Name != "m" || b.Bytes != a.Bytes {
		t.Fatalf("%+v and %+v, %v", a, b, err)
	}
	cache := filepath.Join(t.TempDir(), "digests.json")
	d1, err1 := Digest(first, cache)
	d2, err2 := Digest(second, "")
	whole, err3 := fileDigest(first, "")
	if err := errors.Join(err1, err2, err3); err != nil || d1 != d2 || d1 == whole {
		t.Errorf("digests %x, %x, of the first part %x, %v", d1, d2, whole, err)
	}
	if d := readDigests(cache); len(d.Files) != 2 {
		t.Errorf("%d digests are remembered", len(d.Files))
	}
	os.Remove(second)
	if _, err := Resolve(context.Background(), first, Options{}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "m-00002-of-00002.gguf") {
		t.Errorf("a part is missing: %v", err)
	}
	if _, err := Digest(first, ""); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("digest with a part missing: %v", err)
	}
}
