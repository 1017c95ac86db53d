package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/store"
)

// A save waits for the writer.
type save struct {
	meta   Meta
	source store.Source
	done   func(cache.Outcome)
}

var errFull = errors.New("no room")

// write is the writer goroutine.
func (t *Tier) write() {
	tick := time.NewTicker(every)
	defer tick.Stop()
	t.maintain()
	for {
		select {
		case s := <-t.saves:
			s.done(t.keep(&s))
		case <-t.wake:
			t.empty()
		case <-tick.C:
			t.maintain()
		case <-t.stop:
			for {
				select {
				case s := <-t.saves:
					s.done(t.keep(&s))
					continue
				default:
				}
				break
			}
			t.empty()
			t.rewriteJournal()
			t.journal.close()
			return
		}
	}
}

// keep writes a record, unless it is there already.
func (t *Tier) keep(s *save) cache.Outcome {
	m := &s.meta
	t.mu.Lock()
	there := t.index.records[m.Key] != nil || t.index.covered(m.Parent, m.Tokens)
	parent := t.index.records[m.Parent]
	t.mu.Unlock()
	switch {
	case there:
		return cache.SaveDone
	case parent == nil && m.Parent != m.Root:
		return cache.SaveOrphan
	case time.Now().UnixNano() < t.paused.Load():
		return cache.SaveLater
	}
	size := onDisk(int64(m.recordBytes(len(m.Tokens))))
	if !t.pace(size) {
		return cache.SaveDone
	}
	t.empty()
	err := t.makeRoom(size, parent)
	if err == nil {
		err = t.writeFile(m, s.source)
	}
	if err == nil {
		t.faults = 0
		t.publish(m, size)
		return cache.SaveDone
	}
	if errors.Is(err, errFull) {
		t.count(&t.stats.Full, 1)
		return cache.SaveDone
	}
	t.writeFault("a record was not written", err)
	pause := t.o.Pause << min(t.faults, 6)
	t.faults++
	t.paused.Store(time.Now().Add(pause).UnixNano())
	return cache.SaveLater
}

func (t *Tier) writeFault(what string, err error) {
	t.count(&t.stats.WriteFaults, 1)
	t.log.Warn("disk cache: "+what, "err", err)
}

// pace waits for the write rate to allow n more bytes, or returns false if the tier is closed before.
func (t *Tier) pace(n int64) bool {
	if t.o.WriteRate == 0 {
		return true
	}
	now := time.Now()
	if wait := t.next.Sub(now); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-t.stop:
			return false
		}
		now = time.Now()
	}
	if t.next.Before(now) {
		t.next = now
	}
	t.next = t.next.Add(time.Duration(float64(n) / float64(t.o.WriteRate) * 1e9))
	return true
}

// taken is what all files take.
func (t *Tier) taken() int64 {
	dirs := 0
	for _, d := range t.dirs {
		if d {
			dirs++
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// The journal counts twice: while it is made anew there are two. A name takes some bytes of its directory.
	t.stats.Bytes = t.index.bytes + nameBytes*int64(len(t.index.records)) + t.other + t.kept + 2*onDisk(t.journal.bytes+2*unit) + int64(dirs+2)*unit
	return t.stats.Bytes
}

// makeRoom deletes the records whose use is longest ago until there is room for n more bytes. parent, which may be nil, stays.
func (t *Tier) makeRoom(n int64, parent *record) error {
	const extra = 4 * unit // a new directory, a longer journal
	for {
		over := t.taken()+n+extra > t.o.Quota
		if !over && t.o.Floor > 0 {
			free, err := t.fs.Free()
			if err != nil {
				return err
			}
			over = free < uint64(t.o.Floor+n+extra)
		}
		if !over {
			return nil
		}
		t.mu.Lock()
		r := t.index.oldest(parent)
		if r != nil {
			t.index.remove(r)
			t.stats.Evicted++
		}
		t.mu.Unlock()
		if r == nil {
			return errFull
		}
		if err := t.delete(r); err != nil {
			return err // it would be the same with the next
		}
	}
}

// writeFile writes a record under a temporary name and renames it.
func (t *Tier) writeFile(m *Meta, source store.Source) (err error) {
	if len(t.buf) < m.Bytes {
		t.buf = make([]byte, m.Bytes)
	}
	payload := source(t.buf[:m.Bytes])
	if len(payload) != m.Bytes {
		return fmt.Errorf("a block of %d bytes instead of %d", len(payload), m.Bytes)
	}
	m.Created = time.Now().Unix()
	t.head = appendHeader(t.head[:0], m, payload)
	if d := m.Key[0] >> 4; !t.dirs[d] {
		if err := t.fs.Mkdir(m.Key.String()[:1]); err != nil {
			return err
		}
		t.dirs[d] = true
	}
	f, err := t.fs.Create(tempName)
	if errors.Is(err, fs.ErrExist) { // left by a fault
		t.fs.Remove(tempName)
		f, err = t.fs.Create(tempName)
	}
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			t.fs.Remove(tempName)
		}
	}()
	for _, b := range [][]byte{t.head, payload} {
		n, err := f.Write(b)
		if err == nil && n < len(b) {
			err = io.ErrShortWrite
		}
		if err != nil {
			f.Close()
			return err
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	return t.fs.Rename(tempName, fileName(m.Key))
}

// publish makes a written record one that can be found.
func (t *Tier) publish(m *Meta, size int64) {
	r := &record{key: m.Key, parent: m.Parent, root: m.Root, tokens: m.Tokens, size: size, used: time.Now().UnixNano()}
	t.mu.Lock()
	superfluous := t.index.add(r)
	for _, s := range superfluous {
		t.index.remove(s)
	}
	t.stats.Written++
	t.stats.WrittenBytes += size
	t.mu.Unlock()
	if err := t.journal.write(kindAdd, r); err != nil {
		t.writeFault("the journal was not written", err)
	}
	for _, s := range superfluous {
		t.delete(s)
	}
	t.taken()
}

// delete deletes the file of a record that is out of the index.
func (t *Tier) delete(r *record) error {
	t.mu.Lock()
	again := t.index.records[r.key] != nil // it was written anew
	t.mu.Unlock()
	if again {
		return nil
	}
	if err := t.fs.Remove(fileName(r.key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.writeFault("a record was not deleted", err)
		t.kept += r.size
		t.mu.Lock()
		t.trash = append(t.trash, r)
		t.mu.Unlock()
		return err
	}
	if err := t.journal.write(kindRemove, r); err != nil {
		t.writeFault("the journal was not written", err)
	}
	return nil
}

// empty deletes the trash.
func (t *Tier) empty() {
	t.mu.Lock()
	trash := t.trash
	t.trash = nil
	t.mu.Unlock()
	if len(trash) == 0 {
		return
	}
	t.kept = 0
	for _, r := range trash {
		t.delete(r)
	}
	t.taken()
}

// throw takes a record out of the index, whose file the writer then deletes.
func (t *Tier) throw(r *record, counter *int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*counter++
	if r.gone {
		return
	}
	t.index.remove(r)
	t.trash = append(t.trash, r)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// maintain deletes what is too old or too much, and makes the journal anew when most of it is about what is gone.
func (t *Tier) maintain() {
	t.empty()
	if t.o.Retention > 0 {
		limit := time.Now().Add(-t.o.Retention).UnixNano()
		for {
			t.mu.Lock()
			r := t.index.oldest(nil)
			if r == nil || r.used >= limit {
				t.mu.Unlock()
				break
			}
			t.index.remove(r)
			t.stats.Expired++
			t.mu.Unlock()
			t.delete(r)
		}
	}
	if err := t.makeRoom(0, nil); err != nil && !errors.Is(err, errFull) {
		t.writeFault("free space is not known", err)
	}
	t.mu.Lock()
	n := len(t.index.records)
	t.mu.Unlock()
	if t.journal.file == nil || t.journal.bytes > 1<<20+2*int64(n)*(entryFixed+sumBytes+512) {
		t.rewriteJournal()
	}
}

// rewriteJournal makes the journal anew, with the last uses as they are now.
func (t *Tier) rewriteJournal() {
	t.mu.Lock()
	all := make([]record, 0, len(t.index.records))
	for _, r := range t.index.records {
		all = append(all, record{key: r.key, parent: r.parent, root: r.root, tokens: r.tokens, size: r.size, used: r.used})
	}
	t.mu.Unlock()
	if err := t.journal.replace(all); err != nil {
		t.writeFault("the journal was not written", err)
	}
	t.taken()
}
