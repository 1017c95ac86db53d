package disk

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"

	"kvasir/internal/cache"
)

func littleEndian() bool { return binary.NativeEndian.Uint16([]byte{1, 0}) == 1 }

const journalMost = 8 << 30

// scan indexes what is in the directory: files that the journal knows without opening them, others by their header.
func (t *Tier) scan() error {
	files, err := t.list()
	if err != nil {
		return err
	}
	t.index = newIndex(len(files))
	var old []record
	whole, journal := false, int64(0)
	if b, err := readAll(t.fs, journalName, journalMost); err == nil {
		journal = int64(len(b))
		if old, whole, err = readJournal(b); err != nil {
			t.log.Warn("disk cache: the journal is made anew", "err", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.stats.ReadFaults++
		t.log.Warn("disk cache: the journal is made anew", "err", err)
	}
	dead := 0
	for i := range old {
		r := &old[i]
		if r.gone || !files[r.key] || r.size < unit || r.size > maxPayload {
			dead++
			continue
		}
		files[r.key] = false
		t.enter(r)
	}
	var rest []cache.Key
	for k, unknown := range files {
		if unknown {
			rest = append(rest, k)
		}
	}
	t.openAll(rest)
	if whole && len(rest) == 0 && dead <= len(files)/4 {
		if t.journal.file, err = t.fs.Append(journalName); err == nil {
			t.journal.bytes = journal
			return nil
		}
	}
	t.rewriteJournal()
	return nil
}

// enter puts a record that was found at the start into the index. If others make it superfluous or the other way round, one is trash.
func (t *Tier) enter(r *record) {
	if t.index.covered(r.parent, r.tokens) {
		t.trash = append(t.trash, r)
		r.gone = true
		return
	}
	for _, s := range t.index.add(r) {
		t.index.remove(s)
		t.trash = append(t.trash, s)
	}
}

// list reads the names in the directory: the keys of all files that are records by their name. What an interrupted write left is deleted. Others are left alone.
func (t *Tier) list() (map[cache.Key]bool, error) {
	names, err := t.fs.Names(".")
	if err != nil {
		return nil, err
	}
	files := make(map[cache.Key]bool)
	for _, dir := range names {
		switch dir {
		case journalName, "lock":
			continue
		case tempName, journalNew:
			if err := t.fs.Remove(dir); err != nil {
				t.stats.WriteFaults++
			}
			continue
		}
		d := strings.Index("0123456789abcdef", dir)
		if d < 0 || len(dir) != 1 {
			t.foreign(dir)
			continue
		}
		t.dirs[d] = true
		inside, err := t.fs.Names(dir)
		if err != nil {
			t.stats.ReadFaults++
			t.log.Warn("disk cache: a directory is skipped", "name", dir, "err", err)
			continue
		}
		for _, name := range inside {
			var k cache.Key
			if len(name) != 2*len(k)+len(suffix) || name[2*len(k):] != suffix || name[:1] != dir || !lower(name[:2*len(k)]) {
				t.foreign(dir + "/" + name)
				continue
			}
			if _, err := hex.Decode(k[:], []byte(name[:2*len(k)])); err != nil {
				t.foreign(dir + "/" + name)
				continue
			}
			files[k] = true
		}
	}
	return files, nil
}

func lower(s string) bool {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'F' {
			return false
		}
	}
	return true
}

// foreign counts a file that is not ours. It takes from the quota as long as it is there.
func (t *Tier) foreign(name string) {
	t.stats.Skipped++
	if f, err := t.fs.Open(name); err == nil {
		if n, err := f.Size(); err == nil {
			t.other += onDisk(n)
		}
		f.Close()
	}
	t.log.Warn("disk cache: a file that is no record is skipped", "name", name)
}

// openAll indexes records by their headers, several at once.
func (t *Tier) openAll(keys []cache.Key) {
	slices.SortFunc(keys, func(a, b cache.Key) int { return slices.Compare(a[:], b[:]) })
	found := make([]*record, len(keys))
	errs := make([]error, len(keys))
	var wg sync.WaitGroup
	const workers = 8
	for w := range workers {
		wg.Go(func() {
			buf := make([]byte, 4096)
			for i := w; i < len(keys); i += workers {
				found[i], errs[i] = t.openHeader(keys[i], buf)
			}
		})
	}
	wg.Wait()
	for i, k := range keys {
		switch err := errs[i]; {
		case err == nil:
			t.enter(found[i])
		case errors.Is(err, ErrForeign):
			t.foreign(fileName(k))
		case errors.Is(err, ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
			t.stats.Skipped++
			t.log.Warn("disk cache: a torn record is deleted", "name", fileName(k), "err", err)
			t.trash = append(t.trash, &record{key: k, gone: true, size: unit})
		default:
			t.stats.ReadFaults++
			t.log.Warn("disk cache: a record is skipped", "name", fileName(k), "err", err)
			t.trash = append(t.trash, &record{key: k, gone: true, size: unit})
		}
	}
}

// openHeader reads the header of a record and checks its length. buf is scratch.
func (t *Tier) openHeader(k cache.Key, buf []byte) (*record, error) {
	f, err := t.fs.Open(fileName(k))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	have, err := io.ReadFull(f, buf[:min(int64(len(buf)), size)])
	if err != nil {
		return nil, err
	}
	if have < offSums {
		return nil, fmt.Errorf("%d bytes: %w", have, ErrCorrupt)
	}
	n, payload, err := lengths(buf[:have])
	if err != nil {
		return nil, err
	}
	if size != int64(n)+payload {
		return nil, fmt.Errorf("%d bytes instead of %d: %w", size, int64(n)+payload, ErrCorrupt)
	}
	if n > have {
		buf = append(buf[:have:have], make([]byte, n-have)...)
		if _, err := io.ReadFull(f, buf[have:n]); err != nil {
			return nil, err
		}
	}
	m, err := parseHeader(buf[:n])
	if err != nil {
		return nil, err
	}
	if m.Key != k {
		return nil, fmt.Errorf("under the name of another: %w", ErrCorrupt)
	}
	return &record{key: k, parent: m.Parent, root: m.Root, tokens: m.Tokens, size: onDisk(size), used: m.Created * 1e9, place: -1}, nil
}
