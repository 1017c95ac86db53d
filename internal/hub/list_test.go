package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"kvasir/internal/folders"
)

// A site behaves as the public hub does: an API that lists a repository in pages, and files that it does not send itself but redirects to a
// storage host, whose addresses are signed and which refuses a token.
type site struct {
	files   map[string][]byte
	perPage int
	token   string // "": public
	gated   bool
	status  []int             // of the next answers of the hub; 0 is as usual
	header  map[string]string // with these
	cut     map[string]int    // storage: bytes after which the first answer for a file breaks off
	swap    map[string][]byte // storage: what it sends in a file's place

	hub, storage *httptest.Server
	mu           sync.Mutex
	log          []string // "hub /path" or "storage /path bytes=1-"
}

func newSite(t *testing.T, files map[string][]byte) (*site, Options) {
	t.Helper()
	s := &site{files: files, perPage: 3, cut: map[string]int{}, swap: map[string][]byte{}}
	s.hub, s.storage = httptest.NewServer(http.HandlerFunc(s.serveHub)), httptest.NewServer(http.HandlerFunc(s.serveStorage))
	t.Cleanup(s.hub.Close)
	t.Cleanup(s.storage.Close)
	return s, Options{CacheDir: t.TempDir(), HFEndpoint: s.hub.URL, Folders: []folders.Folder{}, limits: limits{backoff: func(int) time.Duration { return 0 }}}
}

func (s *site) note(r *http.Request, who string) {
	s.log = append(s.log, strings.TrimSpace(who+" "+r.URL.Path+" "+r.Header.Get("Range")))
}

// asked counts the requests that begin like this.
func (s *site) asked(prefix string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.log {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

func (s *site) serveHub(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(r, "hub")
	if len(s.status) > 0 {
		code := s.status[0]
		s.status = s.status[1:]
		if code != 0 {
			for k, v := range s.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(code)
			return
		}
	}
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		w.Header().Set("X-Error-Code", "RepoNotFound")
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if s.gated {
		w.Header().Set("X-Error-Code", "GatedRepo")
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if file, ok := strings.CutPrefix(r.URL.Path, "/o/r/resolve/main/"); ok {
		data, ok := s.files[file]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("X-Linked-Etag", strconv.Quote(sumOf(data)))
		w.Header().Set("X-Linked-Size", strconv.Itoa(len(data)))
		w.Header().Set("ETag", strconv.Quote("of the redirect"))
		http.Redirect(w, r, s.storage.URL+"/blob/"+file+"?Signature=hush", http.StatusFound)
		return
	}
	if r.URL.Path != "/api/models/o/r/tree/main" || r.URL.Query().Get("recursive") != "true" {
		http.NotFound(w, r)
		return
	}
	var names []string
	for n := range s.files {
		names = append(names, n)
	}
	slices.Sort(names)
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
	to := min(from+s.perPage, len(names))
	page := []map[string]any{{"type": "directory", "path": "dir", "size": 0, "oid": strings.Repeat("0", 40)}}
	for _, n := range names[from:to] {
		page = append(page, map[string]any{"type": "file", "path": n, "size": len(s.files[n]), "oid": strings.Repeat("1", 40),
			"lfs": map[string]any{"oid": sumOf(s.files[n]), "size": len(s.files[n]), "pointerSize": 135}})
	}
	if to < len(names) {
		w.Header().Set("Link", fmt.Sprintf(`<%s/api/models/o/r/tree/main?recursive=true&cursor=%d>; rel="next"`, s.hub.URL, to))
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(page)
}

func (s *site) serveStorage(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note(r, "storage")
	file := strings.TrimPrefix(r.URL.Path, "/blob/")
	data, ok := s.files[file]
	if !ok || r.Header.Get("Authorization") != "" || r.URL.Query().Get("Signature") != "hush" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if d, ok := s.swap[file]; ok {
		data = d
	}
	w.Header().Set("ETag", strconv.Quote(sumOf(data)[:32]))
	if n, ok := s.cut[file]; ok {
		delete(s.cut, file)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data[:n])
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(data))) // ranges, If-Range, 416
}

func repository() map[string][]byte {
	return map[string][]byte{
		"m-Q4_K_M.gguf": content(1, 50_000), "m-Q8_0.gguf": content(2, 60_000), "mmproj-F16.gguf": content(3, 100), "README.gguf.md": content(4, 10),
		"BF16/m-BF16-00001-of-00003.gguf": content(5, 70_000), "BF16/m-BF16-00002-of-00003.gguf": content(6, 80_000), "BF16/m-BF16-00003-of-00003.gguf": content(7, 90_000),
	}
}

func TestFetchByTag(t *testing.T) {
	for ref, file := range map[string]string{"hf:o/r": "m-Q4_K_M.gguf", "hf:o/r:q8_0": "m-Q8_0.gguf", "hf.co/o/r:Q4_K_M": "m-Q4_K_M.gguf"} {
		s, o := newSite(t, repository())
		s.token, o.HFToken = "hf_x", "hf_x"
		m, err := Resolve(context.Background(), ref, o)
		check(t, m, err, s.files[file])
		if !m.Fetched || !m.Verified || m.Source != "hf:o/r/"+file || m.Name != strings.TrimSuffix(file, ".gguf") || m.Ref != ref {
			t.Errorf("%s: %+v", ref, m)
		}
		// By the tag or by the name of the file: it is there now.
		o.Offline = true
		for _, r := range []string{ref, "hf:o/r/" + file} {
			if m, err := Resolve(context.Background(), r, o); err != nil || m.Fetched {
				t.Errorf("%s again: %+v, %v", r, m, err)
			}
		}
		if _, err := Resolve(context.Background(), "hf:o/r:F16", o); !errors.Is(err, ErrOffline) {
			t.Errorf("another tag: %v", err)
		}
	}
}

// parts checks a split model on disk.
func parts(t *testing.T, m *Model, err error, files map[string][]byte) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var sums []string
	size := 0
	for i := range 3 {
		name := fmt.Sprintf("m-BF16-%05d-of-00003.gguf", i+1)
		want := files["BF16/"+name]
		got, err := os.ReadFile(filepath.Join(filepath.Dir(m.Path), name))
		if err != nil || sumOf(got) != sumOf(want) {
			t.Fatalf("%s differs: %v", name, err)
		}
		sums = append(sums, sumOf(want))
		size += len(want)
	}
	if want := fmt.Sprintf("%x", joinSums(sums)); m.SHA256 != want || m.Bytes != int64(size) || filepath.Base(m.Path) != "m-BF16-00001-of-00003.gguf" || m.Name != "m-BF16" || !m.Verified {
		t.Errorf("%+v, want SHA-256 %s and %d bytes", m, want, size)
	}
}

func TestFetchSplit(t *testing.T) {
	for _, ref := range []string{"hf:o/r:BF16", "hf:o/r/BF16/m-BF16-00002-of-00003.gguf"} {
		s, o := newSite(t, repository())
		o.DigestFile = filepath.Join(t.TempDir(), "digests.json")
		second := "BF16/m-BF16-00002-of-00003.gguf"
		s.cut[second] = 30_000
		last := int64(0)
		o.Progress = func(p Progress) {
			if p.Stage == Downloading && p.Note == "" {
				last = max(last, p.Done)
			}
		}
		m, err := Resolve(context.Background(), ref, o)
		parts(t, m, err, s.files)
		if s.asked("storage /blob/"+second+" bytes=") != 1 || s.asked("storage /blob/BF16/m-BF16-00001-of-00003.gguf") != 1 {
			t.Errorf("%s: requests %q", ref, s.log)
		}
		if ref == "hf:o/r:BF16" && last != m.Bytes {
			t.Errorf("progress ends at %d of %d", last, m.Bytes)
		}
		if d := readDigests(o.DigestFile); len(d.Files) != 3 {
			t.Errorf("%d digests are remembered", len(d.Files))
		}
		if l := leftovers(t, o, "downloads"); len(l) != 0 {
			t.Errorf("left in downloads: %v", l)
		}
		o.Offline = true
		for _, r := range []string{ref, "hf:o/r/BF16/m-BF16-00003-of-00003.gguf"} {
			m, err := Resolve(context.Background(), r, o)
			parts(t, m, err, s.files)
		}
		local, err := List(o)
		if err != nil || len(local) != 1 || local[0].Bytes != 240_000 || local[0].Problem != "" {
			t.Errorf("%+v, %v", local, err)
		}

		// One part that changes or goes is noticed.
		p2 := filepath.Join(filepath.Dir(m.Path), filepath.Base(second))
		old := time.Now().Add(-time.Hour)
		changed := slices.Clone(s.files[second])
		changed[99]++
		os.WriteFile(p2, changed, 0o644)
		os.Chtimes(p2, old, old)
		if _, err := Resolve(context.Background(), ref, o); !errors.Is(err, ErrChecksum) {
			t.Errorf("a changed part: %v", err)
		}
		os.Remove(p2)
		if _, err := Resolve(context.Background(), ref, o); !errors.Is(err, ErrOffline) {
			t.Errorf("a missing part: %v", err)
		}
		if local, _ := List(o); local[0].Problem == "" {
			t.Error("a missing part is not listed as a problem")
		}
		o.Offline = false
		m, err = Resolve(context.Background(), ref, o)
		parts(t, m, err, s.files)
		if _, err := Remove(o, ref); err != nil {
			t.Error(err)
		}
		if l := leftovers(t, o, "models"); len(l) != 0 {
			t.Errorf("left in models: %v", l)
		}
	}
}

// What an interrupted call has fetched, whole parts too, is not fetched again.
func TestSplitGoesOn(t *testing.T) {
	s, o := newSite(t, repository())
	third := "BF16/m-BF16-00003-of-00003.gguf"
	ctx, cancel := context.WithCancelCause(context.Background())
	o.Progress = func(p Progress) {
		if p.Stage == Downloading && p.Done > 160_000 {
			cancel(errors.New("enough"))
		}
	}
	if _, err := Resolve(ctx, "hf:o/r:BF16", o); err == nil {
		t.Fatal("not interrupted")
	}
	first := len(s.log)
	o.Progress = nil
	m, err := Resolve(context.Background(), "hf:o/r:BF16", o)
	parts(t, m, err, s.files)
	for _, l := range s.log[first:] {
		if strings.Contains(l, "00001-of") || strings.Contains(l, "00002-of") || strings.HasPrefix(l, "storage /blob/"+third) && l == "storage /blob/"+third && s.asked("storage /blob/"+third+" bytes=") == 0 {
			t.Errorf("fetched again: %s", l)
		}
	}
}

func TestHubFaults(t *testing.T) {
	big := content(1, 50_000)
	for _, c := range []struct {
		name, ref string
		change    func(s *site, o *Options)
		ok        bool
		want      []string // in the error
		lists     int      // requests for lists, 0: any
	}{
		{name: "no such tag", ref: "hf:o/r:Q2_K", want: []string{`"Q2_K"`, "Q4_K_M", "Q8_0", "BF16"}},
		{name: "no such repository", ref: "hf:o/none", want: []string{"no repository o/none"}, lists: 1},
		{name: "no such file", ref: "hf:o/r/none.gguf", want: []string{"404"}},
		{name: "private without a token", ref: "hf:o/r", change: func(s *site, o *Options) { s.token = "hf_x" }, want: []string{"401", "HF_TOKEN"}, lists: 1},
		{name: "private with another token", ref: "hf:o/r", change: func(s *site, o *Options) { s.token, o.HFToken = "hf_x", "hf_y" }, want: []string{"401", "does not give access to o/r"}},
		{name: "gated", ref: "hf:o/r", change: func(s *site, o *Options) { s.gated = true; o.HFToken = "hf_y" }, want: []string{"403", "accept the terms of o/r"}},
		{name: "busy twice", ref: "hf:o/r", change: func(s *site, o *Options) {
			s.status, s.header = []int{429, 503, 0, 0, 0, 429, 0}, map[string]string{"Retry-After": "0"}
		}, ok: true},
		{name: "always busy", ref: "hf:o/r", change: func(s *site, o *Options) { s.status = []int{429, 429, 429, 429, 429, 429, 429} }, want: []string{"429"}, lists: maxFailures},
		{name: "no API", ref: "hf:o/r", change: func(s *site, o *Options) { s.status = []int{405} }, want: []string{"405"}},
		{name: "repository without models", ref: "hf:o/r", change: func(s *site, o *Options) { s.files = map[string][]byte{"model.safetensors": big} }, want: []string{"no model in the GGUF format", "-GGUF"}},
		{name: "a part is not in the list", ref: "hf:o/r:BF16", change: func(s *site, o *Options) { delete(s.files, "BF16/m-BF16-00003-of-00003.gguf") }, want: []string{"incomplete", "m-BF16-00003"}},
		{name: "other bytes", ref: "hf:o/r", change: func(s *site, o *Options) { s.swap["m-Q4_K_M.gguf"] = content(9, 50_000) }, want: []string{"SHA-256 differs"}},
		{name: "other size", ref: "hf:o/r", change: func(s *site, o *Options) { s.swap["m-Q4_K_M.gguf"] = content(9, 5000) }, want: []string{"size differs"}},
		{name: "a part with other bytes", ref: "hf:o/r:BF16", change: func(s *site, o *Options) { s.swap["BF16/m-BF16-00002-of-00003.gguf"] = content(9, 80_000) }, want: []string{"m-BF16-00002", "SHA-256 differs"}},
		{name: "not GGUF", ref: "hf:o/r", change: func(s *site, o *Options) { s.files["m-Q4_K_M.gguf"] = []byte("<html>") }, want: []string{"not a GGUF file"}},
	} {
		s, o := newSite(t, repository())
		if c.change != nil {
			c.change(s, &o)
		}
		m, err := Resolve(context.Background(), c.ref, o)
		if c.ok != (err == nil) {
			t.Errorf("%s: %+v, %v", c.name, m, err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q lacks %q", c.name, err, w)
			}
		}
		if err != nil && strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: the error shows a signature: %v", c.name, err)
		}
		if n := s.asked("hub /api/"); c.lists > 0 && n != c.lists {
			t.Errorf("%s: %d requests for the list, want %d", c.name, n, c.lists)
		}
		if l := leftovers(t, o, "models"); err != nil && len(l) != 0 {
			t.Errorf("%s: in models: %v", c.name, l)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for header, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "99999": 30 * time.Second, "soon": 0,
		now.Add(7 * time.Second).Format(http.TimeFormat): 7 * time.Second, now.Add(-time.Hour).Format(http.TimeFormat): 0,
	} {
		if got := retryAfter(header, now); got != want {
			t.Errorf("%q: %s, want %s", header, got, want)
		}
	}
}

func TestNextPage(t *testing.T) {
	end := mustURL("https://hub.example")
	at := mustURL("https://hub.example/api/models/o/r/tree/main?recursive=true")
	for link, want := range map[string]string{
		"": "", `<https://hub.example/x?cursor=ab%3D>; rel="next"`: "https://hub.example/x?cursor=ab%3D", `</x?c=1>; rel=next`: "https://hub.example/x?c=1",
		`<https://hub.example/p>; rel="prev", <https://hub.example/n>; rel="next"`: "https://hub.example/n", `<https://hub.example/p>; rel="prev"`: "", "garbage": "",
		`<https://evil.example/x>; rel="next"`: "error", `<http://hub.example/x>; rel="next"`: "error", `<://>; rel="next"`: "error",
	} {
		u, err := nextPage(at, []string{link}, end)
		switch {
		case want == "error" && err == nil, want != "error" && err != nil, want == "" && u != nil, want != "" && want != "error" && (u == nil || u.String() != want):
			t.Errorf("%q: %v, %v", link, u, err)
		}
	}
}

func FuzzParseList(f *testing.F) {
	f.Add([]byte(`[{"type":"file","path":"d/m-Q4_0.gguf","size":5,"lfs":{"oid":"` + strings.Repeat("a", 64) + `","size":7}}]`))
	f.Add([]byte(`[{"type":"file","path":"../m.gguf"},{"type":"file","path":"/etc/m.gguf"},{"type":"file","path":"a//m.gguf"}]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := parseList(data)
		if err != nil {
			return
		}
		for _, l := range files {
			if _, err := parseSource("hf:o/r/" + l.path); err != nil && strings.Count(l.path, "/") < 6 {
				t.Fatalf("%q is no path of a file: %v", l.path, err)
			}
			if l.bytes < 0 || l.sum != "" && !sumPattern.MatchString(l.sum) {
				t.Fatalf("%+v", l)
			}
		}
	})
}
