package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kvasir/internal/config"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv("KVASIR_FAKE_PIP"); mode != "" {
		os.Exit(fakePip(mode, os.Args[1:]))
	}
	for _, k := range []string{"HF_ENDPOINT", "KVASIR_HF_ENDPOINT", "HF_TOKEN", "LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "OLLAMA_MODELS"} {
		os.Unsetenv(k)
	}
	// No test must see the models of whoever runs it.
	home, err := os.MkdirTemp("", "hub-test")
	if err != nil {
		panic(err)
	}
	for _, k := range []string{"HOME", "USERPROFILE", "LOCALAPPDATA"} {
		os.Setenv(k, home)
	}
	code := m.Run()
	os.RemoveAll(home)
	os.Exit(code)
}

// content returns n bytes that begin like a GGUF file.
func content(seed uint64, n int) []byte {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	b := make([]byte, n)
	r.Read(b)
	copy(b, "GGUF")
	return b
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// mirror is a hub with one file and planned faults.
type mirror struct {
	data    []byte
	etag    string
	linked  string // announced SHA-256
	cuts    []int  // how many bytes of the body each answer has, -1 all; beyond the list: all
	noRange bool   // answers 200 with the whole file always
	handler func(w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests []*http.Request
	sent     int
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	n := len(m.requests)
	m.requests = append(m.requests, r)
	handler := m.handler
	m.mu.Unlock()
	if handler != nil && handler(w, r) {
		return
	}
	m.mu.Lock()
	data, etag, cuts := m.data, m.etag, m.cuts
	m.mu.Unlock()
	if r.URL.Path != "/o/r/resolve/main/m.gguf" {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	if etag != "" {
		h.Set("ETag", etag)
	}
	if m.linked != "" {
		h.Set("X-Linked-Etag", `"`+m.linked+`"`)
	}
	start, code := 0, http.StatusOK
	if v, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok && !m.noRange && (r.Header.Get("If-Range") == "" || r.Header.Get("If-Range") == etag) {
		start, _ = strconv.Atoi(strings.TrimSuffix(v, "-"))
		if start >= len(data) {
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", len(data)))
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return
		}
		code = http.StatusPartialContent
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(data)-1, len(data)))
	}
	body := data[start:]
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	if n < len(cuts) && cuts[n] >= 0 {
		body = body[:min(cuts[n], len(body))]
		m.count(len(body))
		w.Write(body)
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	m.count(len(body))
	w.Write(body)
}

func (m *mirror) count(n int) {
	m.mu.Lock()
	m.sent += n
	m.mu.Unlock()
}

// total is how many bytes of bodies were sent.
func (m *mirror) total() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent
}

// set changes the mirror between requests.
func (m *mirror) set(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *mirror) header(i int, name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i >= len(m.requests) {
		return "no such request"
	}
	return m.requests[i].Header.Get(name)
}

func (m *mirror) calls() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.requests)
}

const ref = "hf:o/r/m.gguf"

// serve starts the mirror and returns options that use it, with an own cache directory.
func serve(t *testing.T, h http.Handler) Options {
	t.Helper()
	srv := httptest.NewServer(h)
	srv.Config.ErrorLog = nil
	t.Cleanup(srv.Close)
	return Options{CacheDir: t.TempDir(), HFEndpoint: srv.URL, limits: limits{backoff: func(int) time.Duration { return 0 }}}
}

// useCatalog replaces the catalog by one entry for data during a test.
func useCatalog(t *testing.T, data []byte, mirrors ...string) {
	t.Helper()
	old := catalog
	t.Cleanup(func() { catalog = old })
	catalog = []Entry{{Name: "test-model", Aliases: []string{"test:1b"}, File: "m.gguf", Bytes: int64(len(data)), SHA256: sumOf(data), Mirrors: mirrors}}
}

func check(t *testing.T, m *Model, err error, data []byte) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(m.Path)
	if err != nil {
		t.Fatal(err)
	}
	if sumOf(got) != sumOf(data) || m.SHA256 != sumOf(data) || m.Bytes != int64(len(data)) {
		t.Fatalf("the file differs: %d bytes, want %d; %+v", len(got), len(data), m)
	}
}

// leftovers lists what lies under downloads and models.
func leftovers(t *testing.T, o Options, dir string) []string {
	t.Helper()
	var out []string
	filepath.WalkDir(filepath.Join(o.CacheDir, dir), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, filepath.Base(p))
		}
		return nil
	})
	return out
}

func TestFresh(t *testing.T) {
	data := content(1, 300_000)
	m := &mirror{data: data, etag: `"v1"`, linked: sumOf(data)}
	o := serve(t, m)
	o.DigestFile = filepath.Join(t.TempDir(), "state", "digests.json")
	got, err := Resolve(context.Background(), ref, o)
	check(t, got, err, data)
	if !got.Fetched || !got.Verified || got.Name != "m" || got.Ref != ref || got.Source != ref {
		t.Errorf("%+v", got)
	}
	if want := filepath.Join(o.CacheDir, "models", sumOf(data), "m.gguf"); got.Path != want {
		t.Errorf("path %s, want %s", got.Path, want)
	}
	if info, _ := os.Stat(got.Path); runtime.GOOS != "windows" && info.Mode().Perm() != 0o644 {
		t.Errorf("mode %v", info.Mode())
	}
	if l := leftovers(t, o, "downloads"); len(l) != 0 {
		t.Errorf("left in downloads: %v", l)
	}
	if d := readDigests(o.DigestFile); len(d.Files) != 1 {
		t.Errorf("the digest was not recorded: %v", d)
	}

	// Once is enough; without network too.
	o.Offline = true
	again, err := Resolve(context.Background(), ref, o)
	check(t, again, err, data)
	if again.Fetched || m.calls() != 1 {
		t.Errorf("fetched again: %d requests", m.calls())
	}
	if _, err := Resolve(context.Background(), "hf:o/r/other.gguf", o); !errors.Is(err, ErrOffline) {
		t.Errorf("another model, offline: %v", err)
	}
}

func TestResumeAtRandomCuts(t *testing.T) {
	for seed := range uint64(25) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := content(seed, 1000+r.IntN(200_000))
		m := &mirror{data: data, etag: `"v1"`}
		for range r.IntN(maxFailures) {
			m.cuts = append(m.cuts, r.IntN(len(data)))
		}
		o := serve(t, m)
		got, err := Resolve(context.Background(), ref, o)
		check(t, got, err, data)
		if m.total() < len(data) || m.total() > len(data) && seed == 0 {
			t.Errorf("seed %d: %d bytes sent for %d", seed, m.total(), len(data))
		}
		if got.Verified {
			t.Error("verified against nothing")
		}
	}
}

// An interrupted call keeps its part; the next one asks for the rest only, of the same version only.
func TestResumeByTheNextCall(t *testing.T) {
	data := content(2, 100_000)
	m := &mirror{data: data, etag: `"v1"`, cuts: []int{50_000, 0, 0, 0, 0}}
	o := serve(t, m)
	_, err := Resolve(context.Background(), ref, o)
	var fe *FetchError
	if !errors.As(err, &fe) || len(fe.Tries) != 1 {
		t.Fatalf("%v, want a FetchError", err)
	}
	got, err := Resolve(context.Background(), ref, o)
	check(t, got, err, data)
	last := m.calls() - 1
	if m.header(last, "Range") != "bytes=50000-" || m.header(last, "If-Range") != `"v1"` {
		t.Errorf("Range %q If-Range %q", m.header(last, "Range"), m.header(last, "If-Range"))
	}
	if m.total() != len(data) {
		t.Errorf("%d bytes sent for %d", m.total(), len(data))
	}
}

func TestChangedOnServer(t *testing.T) {
	for _, ignoresIfRange := range []bool{false, true} {
		m := &mirror{data: content(3, 100_000), etag: `"v1"`, cuts: []int{60_000, 0, 0, 0, 0}}
		o := serve(t, m)
		if _, err := Resolve(context.Background(), ref, o); err == nil {
			t.Fatal("whole after a cut")
		}
		m.set(func() {
			m.data, m.etag = content(4, 90_000), `"v2"`
			if ignoresIfRange {
				m.handler = func(_ http.ResponseWriter, r *http.Request) bool { r.Header.Del("If-Range"); return false }
			}
		})
		got, err := Resolve(context.Background(), ref, o)
		check(t, got, err, m.data)
	}
}

func TestServerWithoutRange(t *testing.T) {
	data := content(5, 80_000)
	for _, etag := range []string{`"v1"`, `W/"weak"`, ""} {
		m := &mirror{data: data, etag: etag, cuts: []int{70_000}, noRange: true}
		got, err := Resolve(context.Background(), ref, serve(t, m))
		check(t, got, err, data)
		if m.calls() != 2 {
			t.Errorf("ETag %q: %d requests", etag, m.calls())
		}
	}
}

func TestWholePartIsNotFetchedAgain(t *testing.T) {
	data := content(6, 50_000)
	for _, catalogued := range []bool{false, true} {
		m := &mirror{data: data, etag: `"v1"`, cuts: []int{len(data) - 1, 0, 0, 0, 0}}
		o := serve(t, m)
		if catalogued {
			useCatalog(t, data, ref)
		}
		if _, err := Resolve(context.Background(), ref, o); err == nil {
			t.Fatal("whole after a cut")
		}
		parts, _ := filepath.Glob(filepath.Join(o.CacheDir, "downloads", "*", "*.part"))
		if len(parts) != 1 {
			t.Fatalf("parts: %v", parts)
		}
		if err := os.WriteFile(parts[0], data, 0o644); err != nil {
			t.Fatal(err)
		}
		sent := m.total()
		got, err := Resolve(context.Background(), ref, o)
		check(t, got, err, data)
		if m.total() != sent {
			t.Errorf("catalogued %v: %d bytes sent again", catalogued, m.total()-sent)
		}
	}
}

func TestChecksum(t *testing.T) {
	data := content(7, 60_000)
	bad := append([]byte(nil), data...)
	bad[40_000] ^= 1
	t.Run("from the catalog", func(t *testing.T) {
		useCatalog(t, data, ref)
		m := &mirror{data: bad, etag: `"v1"`}
		o := serve(t, m)
		_, err := Resolve(context.Background(), "test-model", o)
		if !errors.Is(err, ErrChecksum) || !strings.Contains(err.Error(), sumOf(bad)) || !strings.Contains(err.Error(), sumOf(data)) {
			t.Errorf("%v", err)
		}
		if l := append(leftovers(t, o, "downloads"), leftovers(t, o, "models")...); len(l) != 0 {
			t.Errorf("left behind: %v", l)
		}
		m.set(func() { m.data = data })
		got, err := Resolve(context.Background(), "TEST:1B", o)
		check(t, got, err, data)
		if got.Name != "test-model" || !got.Verified {
			t.Errorf("%+v", got)
		}
	})
	t.Run("from the hub", func(t *testing.T) {
		o := serve(t, &mirror{data: bad, etag: `"v1"`, linked: sumOf(data)})
		if _, err := Resolve(context.Background(), ref, o); !errors.Is(err, ErrChecksum) {
			t.Errorf("%v", err)
		}
	})
	t.Run("hub and catalog disagree", func(t *testing.T) {
		useCatalog(t, data, ref)
		m := &mirror{data: data, etag: `"v1"`, linked: sumOf(bad)}
		if _, err := Resolve(context.Background(), ref, serve(t, m)); !errors.Is(err, ErrChecksum) {
			t.Errorf("%v", err)
		}
	})
	t.Run("part damaged on disk", func(t *testing.T) {
		useCatalog(t, data, ref)
		m := &mirror{data: data, etag: `"v1"`, cuts: []int{50_000, 0, 0, 0, 0}}
		o := serve(t, m)
		if _, err := Resolve(context.Background(), ref, o); err == nil {
			t.Fatal("whole after a cut")
		}
		parts, _ := filepath.Glob(filepath.Join(o.CacheDir, "downloads", "*", "*.part"))
		b, err := os.ReadFile(parts[0])
		if err != nil || len(b) != 50_000 {
			t.Fatalf("part of %d bytes, %v", len(b), err)
		}
		b[49_999] ^= 0x80
		if err := os.WriteFile(parts[0], b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Resolve(context.Background(), ref, o); !errors.Is(err, ErrChecksum) {
			t.Errorf("%v", err)
		}
		got, err := Resolve(context.Background(), ref, o)
		check(t, got, err, data)
	})
}

func TestSizesAndForms(t *testing.T) {
	data := content(8, 40_000)
	longer := content(8, 40_001)
	chunked := func(body []byte, linkedSize int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if linkedSize > 0 {
				w.Header().Set("X-Linked-Size", strconv.Itoa(linkedSize))
			}
			w.WriteHeader(200)
			w.(http.Flusher).Flush() // so it has no Content-Length
			w.Write(body)
			return true
		}
	}
	for _, c := range []struct {
		name       string
		m          *mirror
		catalogued bool
		want       error
		mention    string
	}{
		{"larger than the catalog says", &mirror{data: longer}, true, ErrSize, "40001"},
		{"smaller than the catalog says", &mirror{data: data[:39_999]}, true, ErrSize, "39999"},
		{"more than announced", &mirror{handler: chunked(longer, len(data))}, false, ErrSize, "more than"},
		{"no size", &mirror{handler: chunked(data, 0)}, false, nil, "announce"},
		{"a web page", &mirror{data: []byte("<html>sign in</html>")}, false, ErrNotGGUF, "<htm"},
		{"empty", &mirror{data: nil}, false, ErrNotGGUF, ""},
		{"encoded", &mirror{data: data, handler: func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Encoding", "gzip")
			return false
		}}, false, nil, "gzip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.catalogued {
				useCatalog(t, data, ref)
			}
			o := serve(t, c.m)
			_, err := Resolve(context.Background(), ref, o)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.mention) {
				t.Errorf("%v, want %v with %q", err, c.want, c.mention)
			}
			if l := leftovers(t, o, "models"); len(l) != 0 {
				t.Errorf("in the cache: %v", l)
			}
		})
	}
	t.Run("chunked with announced size", func(t *testing.T) {
		got, err := Resolve(context.Background(), ref, serve(t, &mirror{handler: chunked(data, len(data))}))
		check(t, got, err, data)
	})
}

func TestTokenStaysWithItsHost(t *testing.T) {
	data := content(9, 20_000)
	elsewhere := &mirror{data: data, etag: `"v1"`, handler: func(w http.ResponseWriter, r *http.Request) bool {
		r.URL.Path = "/o/r/resolve/main/m.gguf"
		return false
	}}
	cdn := httptest.NewServer(elsewhere)
	defer cdn.Close()
	hub := &mirror{}
	hub.handler = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("X-Linked-Etag", `"`+sumOf(data)+`"`)
		if r.URL.Path == "/moved" {
			http.Redirect(w, r, cdn.URL+"/blob?signature=abc", http.StatusFound)
		} else {
			http.Redirect(w, r, "/moved", http.StatusTemporaryRedirect)
		}
		return true
	}
	o := serve(t, hub)
	o.HFToken = "hf_secret"
	got, err := Resolve(context.Background(), ref, o)
	check(t, got, err, data)
	if !got.Verified {
		t.Error("the hub's SHA-256 was not used")
	}
	for i := range 2 {
		if a := hub.header(i, "Authorization"); a != "Bearer hf_secret" {
			t.Errorf("request %d to the endpoint: Authorization %q", i, a)
		}
	}
	if a := elsewhere.header(0, "Authorization"); a != "" {
		t.Errorf("the token went to another host: %q", a)
	}
	// Another host that sends us back gets nothing either, and no error shows the signature or the token.
	elsewhere.set(func() {
		elsewhere.handler = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(http.StatusForbidden); return true }
	})
	_, err = Resolve(context.Background(), "hf:o/r/n.gguf", o)
	if err == nil || strings.Contains(err.Error(), "abc") || strings.Contains(err.Error(), "hf_secret") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(fmt.Sprint(err), "403") {
		t.Errorf("%v", err)
	}
}

func TestRedirectRules(t *testing.T) {
	for _, c := range []struct {
		from, to string
		ok       bool
	}{
		{"https://a/x", "https://b/y", true}, {"https://a/x", "/y", true}, {"http://a/x", "https://b/y", true}, {"http://a/x", "http://b/y", true},
		{"https://a/x", "http://a/x", false}, {"https://a/x", "file:///etc/passwd", false}, {"https://a/x", "", false}, {"https://a/x", "ftp://b/", false}, {"https://a/x", "https:///y", false},
	} {
		u, err := redirect(mustURL(c.from), c.to)
		if (err == nil) != c.ok {
			t.Errorf("%s to %q: %v, %v", c.from, c.to, u, err)
		}
	}
	loop := &mirror{}
	loop.handler = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
		return true
	}
	if _, err := Resolve(context.Background(), ref, serve(t, loop)); err == nil || loop.calls() != maxRedirects {
		t.Errorf("%v after %d requests", err, loop.calls())
	}
	for _, c := range []struct {
		endpoint, to string
		want         bool
	}{
		{"https://hub.example", "https://hub.example/x", true}, {"https://hub.example", "https://HUB.example/x", true},
		{"https://hub.example", "https://cdn.hub.example/x", false}, {"https://hub.example", "http://hub.example/x", false}, {"https://hub.example", "https://hub.example:444/x", false},
		{"http://hub.example", "http://hub.example/x", false}, {"http://127.0.0.1:9", "http://127.0.0.1:9/x", true}, {"http://[::1]:9", "http://[::1]:9/x", true}, {"http://localhost", "http://localhost/", true},
	} {
		d := &download{endpoint: mustURL(c.endpoint)}
		if got := d.tokenAllowed(mustURL(c.to)); got != c.want {
			t.Errorf("token for %s to %s: %v", c.endpoint, c.to, got)
		}
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		status, calls int
		mention       string
	}{{404, 1, "404"}, {401, 1, "HF_TOKEN"}, {403, 1, "HF_TOKEN"}, {500, maxFailures, "500"}, {503, maxFailures, "503"}, {429, maxFailures, "429"}, {204, 1, "204"}} {
		m := &mirror{handler: func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(c.status)
			return true
		}}
		_, err := Resolve(context.Background(), ref, serve(t, m))
		if err == nil || !strings.Contains(err.Error(), c.mention) || m.calls() != c.calls {
			t.Errorf("%d: %v after %d requests, want %d", c.status, err, m.calls(), c.calls)
		}
	}
	// A refusal that passes is waited for.
	data := content(10, 1000)
	m := &mirror{data: data}
	m.handler = func(w http.ResponseWriter, _ *http.Request) bool {
		if m.calls() < 3 {
			w.WriteHeader(503)
			return true
		}
		return false
	}
	got, err := Resolve(context.Background(), ref, serve(t, m))
	check(t, got, err, data)
}

func TestUnreachableSilentAndStalled(t *testing.T) {
	data := content(11, 30_000)
	srv := httptest.NewServer(http.NotFoundHandler())
	gone := srv.URL
	srv.Close()
	if _, err := Resolve(context.Background(), ref, Options{CacheDir: t.TempDir(), HFEndpoint: gone}); err == nil || !strings.Contains(err.Error(), "no answer from") {
		t.Errorf("unreachable: %v", err)
	}

	silent := &mirror{handler: func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }}
	o := serve(t, silent)
	o.limits.header = 20 * time.Millisecond
	if _, err := Resolve(context.Background(), ref, o); err == nil || silent.calls() != 1 {
		t.Errorf("silent: %v after %d requests", err, silent.calls())
	}

	// A transfer that stands still is cut, and its bytes are kept for the next attempt.
	stalls := &mirror{data: data, etag: `"v1"`}
	stalls.handler = func(w http.ResponseWriter, r *http.Request) bool {
		if stalls.calls() > 1 {
			return false
		}
		w.Header().Set("ETag", `"v1"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:10_000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	o = serve(t, stalls)
	o.limits.idle = 50 * time.Millisecond
	var notes []string
	o.Progress = func(p Progress) {
		if p.Note != "" {
			notes = append(notes, p.Note)
		}
	}
	got, err := Resolve(context.Background(), ref, o)
	check(t, got, err, data)
	if stalls.header(1, "Range") != "bytes=10000-" || len(notes) != 1 || !strings.Contains(notes[0], "stalled") {
		t.Errorf("Range %q, notes %q", stalls.header(1, "Range"), notes)
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	m := &mirror{handler: func(_ http.ResponseWriter, r *http.Request) bool { cancel(); <-r.Context().Done(); return true }}
	useCatalog(t, content(12, 10), ref, "hf:o/r/second.gguf")
	_, err := Resolve(ctx, "test-model", serve(t, m))
	if !errors.Is(err, context.Canceled) || m.calls() != 1 {
		t.Errorf("%v after %d requests", err, m.calls())
	}
}

func TestConcurrentResolveFetchesOnce(t *testing.T) {
	data := content(13, 500_000)
	m := &mirror{data: data, etag: `"v1"`}
	o := serve(t, m)
	useCatalog(t, data, ref)
	var wg sync.WaitGroup
	var mu sync.Mutex
	fetched := 0
	for i := range 8 {
		wg.Go(func() {
			got, err := Resolve(context.Background(), []string{ref, "test-model", "test:1b"}[i%3], o)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if got.Fetched {
				fetched++
			}
			if b, err := os.ReadFile(got.Path); err != nil || sumOf(b) != sumOf(data) {
				t.Errorf("a caller got a bad file: %v", err)
			}
		})
	}
	wg.Wait()
	if m.calls() != 1 || fetched != 1 || m.total() != len(data) {
		t.Errorf("%d requests, %d fetched, %d bytes", m.calls(), fetched, m.total())
	}
}

func TestChangedInTheCache(t *testing.T) {
	data := content(14, 30_000)
	m := &mirror{data: data, etag: `"v1"`}
	o := serve(t, m)
	o.DigestFile = filepath.Join(t.TempDir(), "d.json")
	got, err := Resolve(context.Background(), ref, o)
	check(t, got, err, data)
	bad := append([]byte(nil), data...)
	bad[9] ^= 1
	if err := os.WriteFile(got.Path, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(got.Path, old, old); err != nil {
		t.Fatal(err)
	}
	off := o
	off.Offline = true
	if _, err := Resolve(context.Background(), ref, off); !errors.Is(err, ErrChecksum) {
		t.Errorf("offline: %v", err)
	}
	got, err = Resolve(context.Background(), ref, o)
	check(t, got, err, data)
	if m.calls() != 2 {
		t.Errorf("%d requests", m.calls())
	}
	// So is a file that was cut short, without any digest cache.
	if err := os.Truncate(got.Path, 100); err != nil {
		t.Fatal(err)
	}
	o.DigestFile = ""
	got, err = Resolve(context.Background(), ref, o)
	check(t, got, err, data)
}

func TestListAndRemove(t *testing.T) {
	a, b := content(15, 1000), content(16, 2000)
	m := &mirror{data: a}
	o := serve(t, m)
	if l, err := List(Options{CacheDir: filepath.Join(o.CacheDir, "none")}); err != nil || len(l) != 0 {
		t.Fatalf("%v, %v", l, err)
	}
	useCatalog(t, a, ref)
	if _, err := Resolve(context.Background(), "test:1b", o); err != nil {
		t.Fatal(err)
	}
	// Another reference to the same bytes is another name of the same file.
	m.set(func() {
		m.handler = func(_ http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, "/b.gguf") {
				m.set(func() { m.data = b })
			}
			r.URL.Path = "/o/r/resolve/main/m.gguf"
			return false
		}
	})
	for _, r := range []string{"hf:x/y/copy.gguf", "hf:x/y/b.gguf"} {
		if _, err := Resolve(context.Background(), r, o); err != nil {
			t.Fatal(err)
		}
	}
	l, err := List(o)
	if err != nil || len(l) != 2 || l[0].Name != "b" || l[1].Name != "test-model" || l[1].Bytes != 1000 || len(l[1].Refs) != 3 || l[0].Problem != "" {
		t.Fatalf("%+v, %v", l, err)
	}
	if err := os.Remove(l[0].Path); err != nil {
		t.Fatal(err)
	}
	if l, err = List(o); err != nil || len(l) != 2 || l[0].Problem == "" {
		t.Errorf("a missing file is not told: %+v, %v", l, err)
	}
	for _, name := range []string{"nothing", "../../x", "hf:no/such/m.gguf", l[0].SHA256[:7]} {
		if _, err := Remove(o, name); !errors.Is(err, ErrNotFound) {
			t.Errorf("Remove(%q): %v", name, err)
		}
	}
	if r, err := Remove(o, l[0].SHA256[:8]); err != nil || r.SHA256 != l[0].SHA256 {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := Remove(o, "hf:x/y/copy.gguf"); err != nil || r.Name != "test-model" {
		t.Errorf("%+v, %v", r, err)
	}
	if l, err := List(o); err != nil || len(l) != 0 {
		t.Errorf("%v, %v", l, err)
	}
	// What was not complete goes as well.
	n := m.calls() + maxFailures
	m.set(func() { m.cuts = make([]int, n) })
	if _, err := Resolve(context.Background(), "hf:o/r/m.gguf", o); err == nil {
		t.Fatal("whole after cuts")
	}
	if len(leftovers(t, o, "downloads")) == 0 {
		t.Fatal("no part")
	}
	if _, err := Remove(o, "test-model"); err != nil || len(leftovers(t, o, "downloads")) != 0 {
		t.Errorf("%v, %v", err, leftovers(t, o, "downloads"))
	}
}

func TestPaths(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "My Model.gguf")
	if err := os.WriteFile(path, content(17, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Resolve(context.Background(), path, Options{CacheDir: dir})
	if err != nil || m.Path != path || m.Name != "My Model" || m.Bytes != 100 || m.SHA256 != "" {
		t.Errorf("%+v, %v", m, err)
	}
	text := filepath.Join(dir, "x.gguf")
	if err := os.WriteFile(text, []byte("no"), 0o600); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]error{text: ErrNotGGUF, dir: ErrNotGGUF, filepath.Join(dir, "missing.gguf"): os.ErrNotExist, "missing.gguf": os.ErrNotExist, "no-such-model": ErrReference, "": ErrReference} {
		if _, err := Resolve(context.Background(), p, Options{CacheDir: dir}); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", p, err, want)
		}
	}
}

func TestCatalog(t *testing.T) {
	if Catalog()[0].Name != config.DefaultModel {
		t.Errorf("the first entry %q is not the default %q", Catalog()[0].Name, config.DefaultModel)
	}
	seen := map[string]bool{}
	for _, e := range Catalog() {
		if !sumPattern.MatchString(e.SHA256) || e.Bytes <= 0 || !filePattern.MatchString(e.File) || len(e.Mirrors) == 0 || e.Description == "" {
			t.Errorf("%+v", e)
		}
		for _, n := range append([]string{e.Name}, e.Aliases...) {
			if seen[n] || lookup(n) == nil || lookup(n).Name != e.Name {
				t.Errorf("name %q", n)
			}
			seen[n] = true
		}
		for _, m := range e.Mirrors {
			got, err := parseRef(m)
			if err != nil || got.entry == nil || got.entry.Name != e.Name {
				t.Errorf("mirror %s: %+v, %v", m, got, err)
			}
		}
	}
}
