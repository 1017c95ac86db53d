package disk

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"kvasir/internal/cache"
	"kvasir/internal/store/disk/faultfs"
)

var write = flag.Bool("write", false, "write the stored files of the current version anew")

// sample is a record whose every field says something.
func sample() (*Meta, []byte) {
	m := &Meta{Format: tiny, Created: 1_700_000_000, Tokens: []int32{5, 0, 1<<31 - 1}}
	m.Root, m.Parent = rootA, cache.Key{1, 2, 3}
	for i := range m.Scope {
		m.Scope[i] = byte(i)
	}
	m.Key = cache.Chain(m.Parent, nil, m.Tokens)
	return m, kv(m.Tokens)
}

func TestRecord(t *testing.T) {
	m, payload := sample()
	h := appendHeader([]byte("x"), m, payload)[1:]
	if len(h)%align != 0 || len(h)+len(payload) != m.recordBytes(3) {
		t.Errorf("a header of %d bytes", len(h))
	}
	got, p, err := openRecord(append(h, payload...))
	if err != nil || !bytes.Equal(p, payload) {
		t.Fatal(err)
	}
	if err := got.is(m); err != nil || got.Created != m.Created {
		t.Errorf("%v %+v", err, got)
	}
	for name, change := range map[string]func(*Meta){
		"weights": func(m *Meta) { m.Weights[0]++ }, "block size": func(m *Meta) { m.BlockSize++ }, "group": func(m *Meta) { m.Group += "x" },
		"layout": func(m *Meta) { m.Layout += "x" }, "dtype": func(m *Meta) { m.DType = "i8" }, "numerics": func(m *Meta) { m.Numerics++ },
		"layers": func(m *Meta) { m.Layers = 6 }, "bytes": func(m *Meta) { m.Bytes *= 2 }, "key": func(m *Meta) { m.Key[31]++ },
		"parent": func(m *Meta) { m.Parent[0]++ }, "root": func(m *Meta) { m.Root[0]++ }, "scope": func(m *Meta) { m.Scope[31]++ },
		"tokens": func(m *Meta) { m.Tokens = []int32{5, 0, 1} },
	} {
		w := *m
		change(&w)
		if err := got.is(&w); !errors.Is(err, ErrOther) {
			t.Errorf("another %s: %v", name, err)
		}
	}
}

// damages are all ways in which the tests damage a record: every byte of the header and every 512th one flipped, in one bit and in all; cut
// there; and made longer.
func damages(whole []byte, header int, each func(what string, b []byte)) {
	for at := range whole {
		if at >= header && at%512 != 0 && at != len(whole)-1 {
			continue
		}
		for _, x := range []byte{1, 0x80, 0xff} {
			b := slices.Clone(whole)
			b[at] ^= x
			each(fmt.Sprintf("byte %d of %d changed by %#x", at, len(b), x), b)
		}
		each(fmt.Sprintf("cut after %d bytes of %d", at, len(whole)), slices.Clone(whole[:at]))
	}
	each("one byte longer", append(slices.Clone(whole), 0))
	b := slices.Clone(whole)
	n := len(b) - 512
	copy(b[n-512:], whole[n:])
	each("512 bytes of it out of place", b)
}

// Whatever is damaged, the record is refused.
func TestDamage(t *testing.T) {
	m, payload := sample()
	h := appendHeader(nil, m, payload)
	n := 0
	damages(append(h, payload...), len(h), func(what string, b []byte) {
		n++
		got, _, err := openRecord(b)
		if err == nil && got.is(m) == nil {
			t.Errorf("%s: not seen", what)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", what, err)
		}
	})
	t.Logf("%d damages", n)
}

// The same through a tier, which may find the damage at the start or when the record is read: nothing of it comes out, and the record is gone.
func TestDamagedFile(t *testing.T) {
	files := faultfs.New()
	r := newRig(t, Options{FS: files})
	long := text(3, 12)
	r.save(rootA, long, 0)
	r.Close()
	name := fileName(cache.Chain(cache.Chain(rootA, nil, long[:4]), nil, long[4:8]))
	whole, journal := slices.Clone(files.Data(name)), slices.Clone(files.Data(journalName))
	n := 0
	damages(whole, headerBytes(tiny.Layers, 4), func(what string, b []byte) {
		n++
		for _, known := range []bool{true, false} {
			if known {
				files.Set(journalName, slices.Clone(journal))
			} else if err := files.Remove(journalName); err != nil {
				t.Fatal(err)
			}
			files.Set(name, b)
			r := newRig(t, Options{FS: files})
			f, blocks, err := r.load(rootA, append(slices.Clone(long), 1), 4)
			if err == nil && blocks > 0 && f.First <= 1 {
				t.Errorf("%s, in the journal %v: %d blocks came", what, known, blocks)
			}
			if f := r.m.Find(rootA, long, 0); f.Tokens > 4 {
				t.Errorf("%s: still found: %+v", what, f)
			}
			s := r.Stats()
			r.Close()
			if s.Skipped != 1 || s.ReadFaults+s.WriteFaults != 0 {
				t.Errorf("%s: %+v", what, s)
			}
		}
	})
	t.Logf("%d damages, at the start and when read", n)
}

// Files as each version wrote them can be read.
func TestStoredFiles(t *testing.T) {
	m, payload := sample()
	if *write {
		h := appendHeader(nil, m, payload)
		if err := os.WriteFile(fmt.Sprintf("testdata/v%d.kv", Version), append(h, payload...), 0o644); err != nil {
			t.Fatal(err)
		}
		r := record{key: m.Key, parent: m.Parent, root: m.Root, tokens: m.Tokens, size: 4096, used: 1_700_000_000_123_456_789}
		gone := r
		gone.key[0]++
		b := appendJournalHead(nil)
		b = appendEntry(b, kindAdd, &gone)
		b = appendEntry(b, kindAdd, &r)
		b = appendEntry(b, kindRemove, &gone)
		if err := os.WriteFile(fmt.Sprintf("testdata/v%d.journal", journalVersion), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for v := 1; v <= Version; v++ {
		b, err := os.ReadFile(fmt.Sprintf("testdata/v%d.kv", v))
		if err != nil {
			t.Fatal(err)
		}
		got, p, err := openRecord(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := got.is(m); err != nil || got.Created != m.Created || !bytes.Equal(p, payload) {
			t.Errorf("version %d: %v %+v", v, err, got)
		}
	}
	if h := append(appendHeader(nil, m, payload), payload...); true {
		if b, _ := os.ReadFile(fmt.Sprintf("testdata/v%d.kv", Version)); !bytes.Equal(b, h) {
			t.Error("the current version is written otherwise: raise Version")
		}
	}
	for v := 1; v <= journalVersion; v++ {
		b, err := os.ReadFile(fmt.Sprintf("testdata/v%d.journal", v))
		if err != nil {
			t.Fatal(err)
		}
		records, whole, err := readJournal(b)
		if err != nil || !whole || len(records) != 2 || !records[0].gone || records[1].gone {
			t.Fatalf("version %d: %v %v %+v", v, err, whole, records)
		}
		if r := records[1]; r.key != m.Key || r.parent != m.Parent || r.root != m.Root || !slices.Equal(r.tokens, m.Tokens) || r.size != 4096 || r.used != 1_700_000_000_123_456_789 {
			t.Errorf("version %d: %+v", v, r)
		}
	}
}

// A journal that is cut or changed anywhere gives a part of what it held, and nothing else.
func TestTornJournal(t *testing.T) {
	b := appendJournalHead(nil)
	keys := map[cache.Key]bool{}
	for i := range 20 {
		r := &record{key: cache.Key{byte(i)}, parent: rootA, root: rootA, tokens: text(i, 1+i%4), size: 4096}
		keys[r.key] = true
		b = appendEntry(b, kindAdd, r)
		if i%5 == 4 {
			b = appendEntry(b, kindRemove, r)
		}
	}
	for at := range b {
		records, whole, err := readJournal(b[:at])
		if err == nil && at >= journalHead && whole && entryEnds(b, at) == false {
			t.Errorf("cut at %d: whole", at)
		}
		c := slices.Clone(b)
		c[at] ^= 0x10
		changed, whole, err := readJournal(c)
		if whole && err == nil && at >= journalHead {
			t.Errorf("changed at %d: whole", at)
		}
		for _, r := range append(records, changed...) {
			if !keys[r.key] || r.parent != rootA || r.size != 4096 {
				t.Errorf("at %d: %+v", at, r)
			}
		}
	}
}

func entryEnds(b []byte, at int) bool {
	i := journalHead
	for i < at {
		n, _ := entryLength(b[i:])
		i += n
	}
	return i == at
}

func FuzzRecord(f *testing.F) {
	m, payload := sample()
	f.Add(append(appendHeader(nil, m, payload), payload...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, p, err := openRecord(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) {
				t.Error(err)
			}
			return
		}
		// What is whole is what would be written.
		if again := append(appendHeader(nil, m, p), p...); !bytes.Equal(again, b) {
			t.Error("written otherwise")
		}
	})
}

func FuzzJournal(f *testing.F) {
	f.Add(appendEntry(appendJournalHead(nil), kindAdd, &record{tokens: []int32{1, 2}}))
	f.Add(appendEntry(appendJournalHead(nil), kindRemove, &record{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		records, _, _ := readJournal(b)
		n := 0
		for _, r := range records {
			n += len(r.tokens)*4 + entryFixed
		}
		if n > len(b) {
			t.Errorf("%d records with %d bytes out of %d", len(records), n, len(b))
		}
	})
}

// An index under random additions, removals and uses keeps its invariants, and finds what a plain search finds.
func TestIndexAgainstModel(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 5))
		x := newIndex(0)
		var all []*record
		now := int64(0)
		for range 300 {
			now++
			word := make([]int32, rnd.IntN(13))
			for i := range word {
				word[i] = rnd.Int32N(3)
			}
			switch rnd.IntN(4) {
			case 0, 1: // all blocks of a text, some of which may be missing
				parent := rootA
				for at := 0; at < len(word); at += 4 {
					ids := word[at:min(at+4, len(word))]
					r := &record{key: cache.Chain(parent, nil, ids), parent: parent, root: rootA, tokens: ids, size: 1, used: now}
					parent = r.key
					if x.records[r.key] != nil || x.covered(r.parent, ids) || rnd.IntN(8) == 0 {
						continue
					}
					for _, s := range x.add(r) {
						x.remove(s)
					}
					all = append(all, r)
				}
			case 2:
				if len(all) > 0 {
					x.remove(all[rnd.IntN(len(all))])
				}
				if r := x.oldest(nil); r != nil && rnd.IntN(2) == 0 {
					for _, o := range x.leaves {
						if o.used < r.used {
							t.Fatal("not the oldest")
						}
					}
					if second := x.oldest(r); second == r || second == nil && len(x.leaves) > 1 {
						t.Fatal("no second")
					}
					x.remove(r)
				}
			case 3:
				path, n, _ := x.find(rootA, word, 4, len(word), now)
				if want := longest(x, word); n != want || len(path) != (n+3)/4 {
					t.Fatalf("%v: found %d of %d", word, n, want)
				}
			}
			if err := x.check(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}

// longest is how many tokens of the text are stored, the slow way.
func longest(x *index, text []int32) (n int) {
	parent := rootA
	for {
		best, next := 0, cache.Key{}
		for _, r := range x.records {
			if r.parent == parent {
				if k := common(r.tokens, text[n:]); k > best {
					best, next = k, r.key
				}
			}
		}
		n += best
		if best < 4 {
			return n
		}
		parent = next
	}
}
