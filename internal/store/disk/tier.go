package disk

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/machine/osfile"
	"kvasir/internal/store"
)

// ErrInUse says that another process has the directory.
var ErrInUse = errors.New("another process keeps its disk cache there")

// Options of Open.
type Options struct {
	Dir       string        // the tier's own directory, made if it is not there
	FS        store.FS      // instead of Dir, for tests: no lock is taken
	Quota     int64         // bytes that the directory may take, all files included
	Share     float64       // of what is free at the start and what the tier takes then, instead of Quota if it is not 0
	Floor     int64         // bytes of the file system that stay free, others' doing aside
	Retention time.Duration // records that no request used for so long are deleted; 0: never
	WriteRate int64         // bytes a second that are written at most; 0: as many as come
	Pause     time.Duration // without writes after a fault, doubled with each up to 64 times that; 0: a second
	Log       *slog.Logger  // faults; nil: nowhere
}

const (
	readers     = 2
	queueLength = 8           // saves that wait for the writer
	unit        = 4096        // bytes of disk that a file takes a multiple of
	every       = time.Minute // between two looks for what is too old or too much
	stalled     = 2 * time.Second
	tempName    = "new"
	nameBytes   = 128
)

// Stats of a Tier: its state, and counters since Open.
type Stats struct {
	Records int   // stored
	Bytes   int64 // they take, journal and directories included
	Quota   int64

	Written, WrittenBytes int64 // records
	Read, ReadBytes       int64 // records that were verified and handed on
	Evicted               int64 // records deleted for the quota or for free space
	Expired               int64 // records deleted for their age
	Full                  int64 // records not written because there was no room
	Skipped               int64 // files that are no whole records, found at the start or when they were read
	Lost                  int64 // records that were gone when they were to be read
	ReadFaults            int64 // reads that failed
	WriteFaults           int64 // writes, renames and deletions that failed
	OpenSeconds           float64
}

// A Tier is a directory of records of any number of models. Safe for concurrent use.
type Tier struct {
	o    Options
	fs   store.FS
	lock *osfile.Lock // nil with Options.FS
	root *rootFS      // the same
	log  *slog.Logger

	mu    sync.Mutex // held for moments only, never during I/O
	index *index
	trash []*record // out of the index, their files still there
	stats Stats

	saves  chan save
	wake   chan struct{} // there is trash
	stop   chan struct{}
	paused atomic.Int64 // no writes before, Unix nanoseconds

	// Owned by the writer.
	journal journal
	dirs    [16]bool
	other   int64 // bytes of files that are not records
	kept    int64 // bytes of trash that could not be deleted
	buf     []byte
	head    []byte
	next    time.Time // for WriteRate
	faults  int       // in a row

	reads   readQueue
	writer  sync.WaitGroup
	closing sync.Once
	err     error
}

// Open opens the directory and indexes what is in it. Files that are no records, or damaged, are counted and skipped: they are no errors.
// Errors are ErrInUse, and those of a directory that cannot be made or read.
func Open(o Options) (_ *Tier, err error) {
	begin := time.Now()
	t := &Tier{o: o, fs: o.FS, log: o.Log, saves: make(chan save, queueLength), wake: make(chan struct{}, 1), stop: make(chan struct{})}
	if t.o.Pause == 0 {
		t.o.Pause = time.Second
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if !littleEndian() {
		return nil, errors.New("disk: records are little endian, this machine is not")
	}
	if t.fs == nil {
		if t.root, err = openDir(o.Dir); err != nil {
			return nil, fmt.Errorf("disk cache: %w", err)
		}
		t.fs = t.root
		if t.lock, err = osfile.TryAcquire(filepath.Join(o.Dir, "lock")); err != nil {
			t.root.Close()
			if errors.Is(err, osfile.ErrLocked) {
				return nil, fmt.Errorf("%s: %w", o.Dir, ErrInUse)
			}
			return nil, fmt.Errorf("disk cache: %w", err)
		}
	}
	t.journal.fs = t.fs
	if err := t.scan(); err != nil {
		t.release()
		return nil, fmt.Errorf("disk cache: %w", err)
	}
	if t.o.Share > 0 {
		free, err := t.fs.Free()
		if err != nil {
			t.release()
			return nil, fmt.Errorf("disk cache: %w", err)
		}
		t.o.Quota = int64(t.o.Share * float64(free+uint64(t.taken())))
	}
	t.stats.OpenSeconds = time.Since(begin).Seconds()
	t.reads.start(t)
	t.writer.Go(t.write)
	return t, nil
}

func (t *Tier) release() {
	if t.lock != nil {
		t.lock.Release()
		t.root.Close()
	}
}

// Close ends writing and reading and gives the directory back. What was saved before is written; what waits in memory is lost, so the caller
// flushes first. A read that hangs is waited for no longer than a moment.
func (t *Tier) Close() error {
	t.closing.Do(func() {
		close(t.stop)
		t.writer.Wait()
		t.reads.close(stalled)
		t.release()
	})
	return t.err
}

// Stats returns the current state.
func (t *Tier) Stats() Stats {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.stats
	s.Records, s.Quota = len(t.index.records), t.o.Quota
	return s
}

// count changes a counter.
func (t *Tier) count(n *int64, by int64) {
	t.mu.Lock()
	*n += by
	t.mu.Unlock()
}

// fileName is where the record with a key is.
func fileName(k cache.Key) string {
	s := k.String()
	return s[:1] + "/" + s + suffix
}

const suffix = ".kv"

// onDisk is what a file of n bytes takes.
func onDisk(n int64) int64 { return (n + unit - 1) / unit * unit }
