package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"kvasir/internal/store"
)

// A load is what Find found and somebody wants.
type load struct {
	model   *Model
	records []*record
	first   int // block of records[0]
	sink    store.Sink

	// Under readQueue.mu.
	next   int // record that nobody has taken yet
	active int // readers that have one
	queued bool
	err    error
}

// A readQueue hands records to the readers, load after load.
type readQueue struct {
	mu      sync.Mutex
	more    sync.Cond
	loads   []*load
	bytes   int64   // that wait, in all loads
	perByte float64 // seconds that a reader takes a byte, smoothed; 0: not known yet
	closed  bool
	since   [readers]atomic.Int64 // when a reader began what it reads, Unix nanoseconds; 0: it reads nothing
	size    [readers]atomic.Int64 // the bytes of that
	ended   sync.WaitGroup
}

var (
	errUnwanted = errors.New("not wanted any more")
	errClosed   = errors.New("the disk tier is closed")
)

func (q *readQueue) start(t *Tier) {
	q.more.L = &q.mu
	for i := range readers {
		q.ended.Go(func() { t.read(i) })
	}
}

// close ends the readers, and the loads that wait. It waits for at most d.
func (q *readQueue) close(d time.Duration) {
	q.mu.Lock()
	q.closed = true
	loads := q.loads
	q.loads, q.bytes = nil, 0
	var end []*load
	for _, l := range loads {
		l.queued = false
		if l.err == nil {
			l.err = errClosed
		}
		if l.active == 0 {
			end = append(end, l)
		}
	}
	q.more.Broadcast()
	q.mu.Unlock()
	for _, l := range end {
		l.sink.End(l.err)
	}
	done := make(chan struct{})
	go func() { q.ended.Wait(); close(done) }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}

// put queues a load.
func (q *readQueue) put(l *load) {
	q.mu.Lock()
	if q.closed {
		q.mu.Unlock()
		l.sink.End(errClosed)
		return
	}
	l.queued = true
	q.loads = append(q.loads, l)
	for _, r := range l.records {
		q.bytes += r.size
	}
	q.more.Broadcast()
	q.mu.Unlock()
}

// unqueue takes out a load of which nothing more is to be read. mu is held.
func (q *readQueue) unqueue(l *load) {
	if !l.queued {
		return
	}
	l.queued = false
	for i, o := range q.loads {
		if o == l {
			q.loads = append(q.loads[:i], q.loads[i+1:]...)
			break
		}
	}
	for _, r := range l.records[l.next:] {
		q.bytes -= r.size
	}
}

// seconds is how long reading n more bytes should take, behind what waits, and how long a reader takes for one byte; 0 if nothing is known.
func (q *readQueue) seconds(n int64) (all, perByte float64) {
	now := time.Now().UnixNano()
	q.mu.Lock()
	defer q.mu.Unlock()
	perByte = q.perByte
	for i := range q.since {
		if s := q.since[i].Load(); s != 0 { // what has not come back yet says something too
			perByte = max(perByte, float64(now-s)*1e-9/float64(max(1, q.size[i].Load())))
		}
	}
	return float64(q.bytes+n) * perByte / readers, perByte
}

// measured notes how long a reader took for a record.
func (q *readQueue) measured(d time.Duration, size int64) {
	q.mu.Lock()
	s := max(d.Seconds(), 1e-9) / float64(size)
	if q.perByte == 0 {
		q.perByte = s
	}
	q.perByte += (s - q.perByte) / 8
	q.mu.Unlock()
}

// probe reads one record, so that the first request does not have to find out how quick the disk is.
func (t *Tier) probe(i int) {
	t.mu.Lock()
	r := t.index.oldest(nil)
	t.mu.Unlock()
	if r == nil {
		return
	}
	q := &t.reads
	begin := time.Now()
	q.size[i].Store(r.size)
	q.since[i].Store(begin.UnixNano())
	defer q.since[i].Store(0)
	f, err := t.fs.Open(fileName(r.key))
	if err != nil {
		return // whoever wants it will see
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil || n > r.size {
		return
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(f, b); err == nil {
		if _, _, err = openRecord(b); err == nil {
			q.measured(time.Since(begin), r.size)
		}
	}
}

// hangs says whether no reader comes back from what it reads.
func (q *readQueue) hangs() bool {
	limit := time.Now().Add(-stalled).UnixNano()
	for i := range q.since {
		if s := q.since[i].Load(); s == 0 || s > limit {
			return false
		}
	}
	return true
}

// faster makes the tier seem a little faster than measured, so that it is tried again some time.
func (q *readQueue) faster() {
	q.mu.Lock()
	q.perByte *= 0.98
	q.mu.Unlock()
}

// read is reader number i.
func (t *Tier) read(i int) {
	q := &t.reads
	if i == 0 {
		t.probe(i)
	}
	var buf []byte
	for {
		q.mu.Lock()
		for len(q.loads) == 0 && !q.closed {
			q.more.Wait()
		}
		if len(q.loads) == 0 {
			q.mu.Unlock()
			return
		}
		l := q.loads[0]
		at := l.next
		r := l.records[at]
		l.next++
		l.active++
		q.bytes -= r.size
		if l.next == len(l.records) {
			q.unqueue(l)
		}
		q.mu.Unlock()

		err := errUnwanted
		var took time.Duration
		if l.sink.Wanted() {
			begin := time.Now()
			q.size[i].Store(r.size)
			q.since[i].Store(begin.UnixNano())
			if buf, err = t.fetch(l.model, r, buf, func(kv []byte) { l.sink.Put(l.first+at, kv) }); err == nil {
				took = time.Since(begin)
			}
			q.since[i].Store(0)
		}

		if err == nil {
			q.measured(took, r.size)
		}
		q.mu.Lock()
		l.active--
		if err != nil && l.err == nil {
			l.err = err
			q.unqueue(l)
		}
		end := l.active == 0 && !l.queued
		q.mu.Unlock()
		if end {
			l.sink.End(l.err)
		}
	}
}

// fetch reads and verifies a record and gives its payload to put. buf is scratch, which it returns. A record that is not what it should be is thrown away.
func (t *Tier) fetch(m *Model, r *record, buf []byte, put func([]byte)) ([]byte, error) {
	want := m.meta(r)
	n := want.recordBytes(len(r.tokens))
	if len(buf) < n {
		buf = make([]byte, n)
	}
	err := t.readFile(fileName(r.key), buf[:n])
	var got *Meta
	var payload []byte
	if err == nil {
		got, payload, err = openRecord(buf[:n])
	}
	if err == nil {
		err = got.is(want)
	}
	switch {
	case err == nil:
		put(payload)
		t.mu.Lock()
		t.stats.Read++
		t.stats.ReadBytes += int64(n)
		t.mu.Unlock()
	case errors.Is(err, fs.ErrNotExist):
		t.throw(r, &t.stats.Lost)
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrForeign), errors.Is(err, ErrOther):
		t.throw(r, &t.stats.Skipped)
		t.log.Warn("disk cache: a damaged record is deleted", "name", fileName(r.key), "err", err)
	default:
		t.throw(r, &t.stats.ReadFaults)
		t.log.Warn("disk cache: a record was not read", "name", fileName(r.key), "err", err)
	}
	return buf, err
}

// readFile reads a file that must be as long as b.
func (t *Tier) readFile(name string, b []byte) error {
	f, err := t.fs.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size != int64(len(b)) {
		return fmt.Errorf("%d bytes instead of %d: %w", size, len(b), ErrCorrupt)
	}
	if _, err := io.ReadFull(f, b); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return err
	}
	return nil
}
