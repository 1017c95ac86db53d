package disk

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"kvasir/internal/cache"
	"kvasir/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tiny is the format of most tests: blocks of 4 tokens, 3 layers of 1,024 bytes.
var tiny = Format{Weights: [32]byte{7}, BlockSize: 4, Group: "all", Layout: "test", DType: "f16", Numerics: 2, Layers: 3, Bytes: 3 << 10}

var (
	rootA = cache.Key{0xa}
	rootB = cache.Key{0xb}
)

// A rig is a tier with one model.
type rig struct {
	*Tier
	m *Model
	t testing.TB
}

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	if o.Quota == 0 {
		o.Quota = 1 << 30
	}
	d, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	m, err := d.Model(tiny)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range []cache.Key{rootA, rootB} {
		if err := m.Root(k, []byte{byte(i), 1, 2}); err != nil {
			t.Fatal(err)
		}
	}
	return &rig{d, m, t}
}

// kv is the KV of a block: a function of all tokens up to its last.
func kv(tokens []int32) []byte {
	h := uint64(14695981039346656037)
	for _, t := range tokens {
		h = (h ^ uint64(uint32(t))) * 1099511628211
	}
	r := rand.New(rand.NewPCG(h, 1))
	b := make([]byte, tiny.Bytes)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// save saves blocks [from, …) of the text and returns the outcomes.
func (r *rig) save(root cache.Key, text []int32, from int) []cache.Outcome {
	r.t.Helper()
	var out []cache.Outcome
	parent := root
	for at := 0; at < len(text); at += tiny.BlockSize {
		ids := text[at:min(at+tiny.BlockSize, len(text))]
		s := &cache.Save{Root: root, Parent: parent, Key: cache.Chain(parent, nil, ids), Tokens: ids}
		parent = s.Key
		if at < from*tiny.BlockSize {
			continue
		}
		done := make(chan cache.Outcome)
		source := func([]byte) []byte { return kv(text[:at+len(ids)]) }
		for !r.m.Save(s, source, func(o cache.Outcome) { done <- o }) {
			if r.paused.Load() > time.Now().UnixNano() {
				return append(out, cache.SaveLater)
			}
			runtime.Gosched()
		}
		out = append(out, <-done)
	}
	return out
}

// A sink takes what is loaded and checks it.
type sink struct {
	t      testing.TB
	prompt []int32
	found  store.Found
	mu     sync.Mutex
	got    map[int]bool
	end    chan error
}

func (s *sink) Wanted() bool  { return true }
func (s *sink) End(err error) { s.end <- err }
func (s *sink) Put(block int, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if block < s.found.First || block >= s.found.First+s.found.Blocks || s.got[block] {
		s.t.Errorf("block %d of %+v, had %v", block, s.found, s.got)
	}
	s.got[block] = true
	if end := (block + 1) * tiny.BlockSize; end <= s.found.Tokens && !slices.Equal(b, kv(s.prompt[:end])) {
		s.t.Errorf("block %d is wrong", block)
	}
}

// load loads all that is found from a position on.
func (r *rig) load(root cache.Key, prompt []int32, from int) (store.Found, int, error) {
	r.t.Helper()
	f := r.m.Find(root, prompt, from)
	if f.Tokens <= from {
		return f, 0, nil
	}
	s := &sink{t: r.t, prompt: prompt, found: f, got: map[int]bool{}, end: make(chan error, 1)}
	r.m.Load(f, s)
	err := <-s.end
	if err == nil && len(s.got) != f.Blocks {
		r.t.Errorf("%d of %d blocks came", len(s.got), f.Blocks)
	}
	return f, len(s.got), err
}

// text is n ids, which begin like all texts of the same name.
func text(name, n int) []int32 {
	r := rand.New(rand.NewPCG(uint64(name), 3))
	v := make([]int32, n)
	for i := range v {
		v[i] = r.Int32N(1000)
	}
	return v
}

func allDone(o []cache.Outcome) bool {
	return !slices.ContainsFunc(o, func(o cache.Outcome) bool { return o != cache.SaveDone })
}

// What was saved is found, after a restart too, exact to the token, and for its own root only.
func TestFindAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "kv")
	for _, journal := range []bool{true, false} {
		r := newRig(t, Options{Dir: dir})
		long := text(1, 23)
		if o := r.save(rootA, long, 0); !allDone(o) {
			t.Fatal(o)
		}
		for range 2 {
			for shared := range 24 {
				prompt := append(slices.Clone(long[:shared]), 5000, 5001)
				f, blocks, err := r.load(rootA, prompt, 0)
				if f.Tokens != shared || err != nil || shared > 0 && blocks != (shared+3)/4 {
					t.Errorf("%d shared: %+v, %d blocks, %v", shared, f, blocks, err)
				}
				if f.Continues != (shared < 23) {
					t.Errorf("%d shared: continues %v", shared, f.Continues)
				}
				if shared > 5 {
					if f, blocks, _ := r.load(rootA, prompt, 5); f.First != 1 || blocks != (shared+3)/4-1 {
						t.Errorf("from 5, %d shared: %+v", shared, f)
					}
				}
				if f := r.m.Find(rootB, prompt, 0); f.Tokens != 0 {
					t.Errorf("another root: %+v", f)
				}
			}
			if f := r.m.Find(rootA, long, 0); f.Tokens != len(long)-1 {
				t.Errorf("the last token was found: %+v", f)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if !journal {
				if err := os.Remove(filepath.Join(dir, journalName)); err != nil {
					t.Fatal(err)
				}
			}
			r = newRig(t, Options{Dir: dir})
			if s := r.Stats(); s.Records != 6 || s.Skipped != 0 {
				t.Fatalf("%+v", s)
			}
		}
		r.Close()
	}
}

// A longer tail takes the place of a shorter one, and a full block of all its tails. Nothing is written twice.
func TestTails(t *testing.T) {
	r := newRig(t, Options{Dir: t.TempDir()})
	long := text(1, 16)
	for _, n := range []int{9, 10, 11, 10, 12, 11, 16} {
		if o := r.save(rootA, long[:n], 0); !allDone(o) {
			t.Fatal(o)
		}
	}
	if s := r.Stats(); s.Records != 4 || s.Written != 7 {
		t.Errorf("%+v", s)
	}
	if o := r.save(rootA, long[:11], 0); !allDone(o) || r.Stats().Written != 7 {
		t.Errorf("%v %+v", o, r.Stats())
	}
	if got := len(recordFiles(t, r.o.Dir)); got != 4 {
		t.Errorf("%d files", got)
	}
}

// recordFiles are the names of all records in a directory. It checks who may read them.
func recordFiles(t testing.TB, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := os.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if runtime.GOOS != "windows" && path != dir && info.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		if strings.HasSuffix(path, suffix) {
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A block whose parent is not there is an orphan, and is not written.
func TestOrphan(t *testing.T) {
	r := newRig(t, Options{Dir: t.TempDir()})
	long := text(1, 16)
	if o := r.save(rootA, long, 1); o[0] != cache.SaveOrphan || r.Stats().Written != 0 {
		t.Errorf("%v %+v", o, r.Stats())
	}
	if o := r.save(rootA, long, 0); !allDone(o) {
		t.Error(o)
	}
}

// A root that was not made known is not kept, and holds up nobody.
func TestUnknownRoot(t *testing.T) {
	r := newRig(t, Options{Dir: t.TempDir()})
	if o := r.save(cache.Key{0xc}, text(1, 8), 0); !allDone(o) || r.Stats().Written != 0 {
		t.Errorf("%v %+v", o, r.Stats())
	}
	if f := r.m.Find(cache.Key{0xc}, text(1, 8), 0); f.Tokens != 0 {
		t.Errorf("%+v", f)
	}
}

// A second tier on the same directory is refused, and the first one's end lets it in.
func TestLock(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, Options{Dir: dir})
	if _, err := Open(Options{Dir: dir, Quota: 1 << 30}); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("%v", err)
	}
	r.Close()
	newRig(t, Options{Dir: dir})
}

// usage is what a directory takes.
func usage(t testing.TB, dir string) (n int64) {
	t.Helper()
	filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil {
			return nil // deleted meanwhile
		}
		if info, err := e.Info(); err == nil {
			n += onDisk(info.Size())
		}
		return nil
	})
	return n
}

// The quota is kept, at the start too; what was used last stays, and heads stay before tails.
func TestQuota(t *testing.T) {
	dir := t.TempDir()
	const quota = 600 << 10
	r := newRig(t, Options{Dir: dir, Quota: quota})
	for i := range 60 {
		if o := r.save(rootA, text(i, 12), 0); !allDone(o) {
			t.Fatal(o)
		}
		r.m.Find(rootA, text(0, 13), 0) // in use
		if n := usage(t, dir); n > quota {
			t.Fatalf("after %d texts: %d bytes", i, n)
		}
		if s := r.Stats(); s.Bytes > quota || s.Bytes < usage(t, dir) {
			t.Fatalf("said %+v, taken %d", s, usage(t, dir))
		}
	}
	for _, i := range []int{0, 58, 59} {
		if f, _, err := r.load(rootA, text(i, 13), 0); f.Tokens != 12 || err != nil {
			t.Errorf("text %d: %+v %v", i, f, err)
		}
	}
	if f := r.m.Find(rootA, text(1, 13), 0); f.Tokens != 0 {
		t.Errorf("text 1 is there: %+v", f)
	}
	if s := r.Stats(); s.Evicted == 0 || s.Full != 0 {
		t.Errorf("%+v", s)
	}
	r.Close()
	r = newRig(t, Options{Dir: dir, Quota: quota / 2})
	if o := r.save(rootA, text(100, 12), 0); !allDone(o) { // behind the first look at the quota
		t.Error(o)
	}
	if n := usage(t, dir); n > quota/2 {
		t.Errorf("%d bytes after the quota was halved", n)
	}
	if f, _, err := r.load(rootA, text(0, 13), 0); f.Tokens != 12 || err != nil {
		t.Errorf("text 0: %+v %v", f, err)
	}
	r.Close()
	r = newRig(t, Options{Dir: dir, Quota: 1000})
	if o := r.save(rootA, text(101, 4), 0); !allDone(o) || r.Stats().Full != 1 || r.Stats().Records != 0 {
		t.Errorf("quota of nothing: %v %+v", o, r.Stats())
	}
}

// Files that are no records are counted and left alone, torn ones are deleted; both are no errors.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, Options{Dir: dir})
	r.save(rootA, text(1, 12), 0)
	r.Close()
	files := recordFiles(t, dir)
	slices.Sort(files)
	whole, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	newer := slices.Clone(whole)
	newer[offVersion]++
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("note.txt", []byte("x"))
	put("zz/x", []byte("x"))
	put("a/"+strings.Repeat("ab", 31)+suffix, whole)
	put("a/"+strings.Repeat("ab", 32)+suffix, newer)
	put("c/"+strings.Repeat("CD", 32)+suffix, whole)
	put("e/"+strings.Repeat("ef", 32)+suffix, whole)                // under a wrong name
	put("0/"+strings.Repeat("01", 32)+suffix, whole[:len(whole)-1]) // torn
	put("0/"+strings.Repeat("02", 32)+suffix, whole[:100])
	put("0/"+strings.Repeat("03", 32)+suffix, nil)
	put(tempName, whole)
	put(journalNew, whole)
	r = newRig(t, Options{Dir: dir})
	if s := r.Stats(); s.Records != 3 || s.Skipped != 9 || s.ReadFaults+s.WriteFaults != 0 {
		t.Errorf("%+v", s)
	}
	if f, _, err := r.load(rootA, text(1, 13), 0); f.Tokens != 12 || err != nil {
		t.Errorf("%+v %v", f, err)
	}
	r.Close()
	for name, there := range map[string]bool{"note.txt": true, "zz/x": true, "a/" + strings.Repeat("ab", 32) + suffix: true, "c/" + strings.Repeat("CD", 32) + suffix: true,
		"e/" + strings.Repeat("ef", 32) + suffix: false, "0/" + strings.Repeat("01", 32) + suffix: false, tempName: false, journalNew: false} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != there {
			t.Errorf("%s: there %v", name, err == nil)
		}
	}
}

// Many save, find and load at once, with a quota that is too small.
func TestConcurrent(t *testing.T) {
	r := newRig(t, Options{Dir: t.TempDir(), Quota: 400 << 10})
	var wg sync.WaitGroup
	for c := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(c), 9))
			for range 60 {
				i := rnd.IntN(12)
				r.save([]cache.Key{rootA, rootB}[i%2], text(i, 5+rnd.IntN(20)), 0)
				prompt := text(rnd.IntN(12), 26)
				if _, _, err := r.load(rootA, prompt, rnd.IntN(9)); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := r.Stats(); s.Evicted == 0 || s.Read == 0 || s.Skipped+s.ReadFaults+s.WriteFaults != 0 {
		t.Errorf("%+v", s)
	}
	if err := r.index.check(); err != nil {
		t.Error(err)
	}
}

// check verifies the invariants of an index.
func (x *index) check() error {
	var bytes int64
	n := 0
	var walk func(s *siblings, up *record, parent cache.Key) error
	walk = func(s *siblings, up *record, parent cache.Key) error {
		for i, r := range s.list {
			n++
			bytes += r.size
			switch {
			case r.gone || x.records[r.key] != r || r.up != up || r.parent != parent:
				return fmt.Errorf("record %v is not in its place", r.tokens)
			case i > 0 && slices.Compare(s.list[i-1].tokens, r.tokens) >= 0:
				return fmt.Errorf("record %v is out of order", r.tokens)
			case up != nil && up.used < r.used:
				return fmt.Errorf("record %v was used after its parent", r.tokens)
			case (len(r.children.list) == 0) != (r.place >= 0) || r.place >= 0 && x.leaves[r.place] != r:
				return fmt.Errorf("record %v is in place %d of the leaves", r.tokens, r.place)
			case i+1 < len(s.list) && common(s.list[i+1].tokens, r.tokens) == len(r.tokens):
				return fmt.Errorf("record %v is superfluous", r.tokens)
			}
			if err := walk(&r.children, r, r.key); err != nil {
				return err
			}
		}
		return nil
	}
	for k, h := range x.heads {
		if len(h.list) == 0 || x.records[k] != nil {
			return fmt.Errorf("heads of %v are not needed", k)
		}
		if err := walk(h, nil, k); err != nil {
			return err
		}
	}
	if n != len(x.records) || bytes != x.bytes {
		return fmt.Errorf("%d records of %d bytes, counted %d of %d", n, bytes, len(x.records), x.bytes)
	}
	return nil
}
