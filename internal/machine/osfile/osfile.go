// Package osfile holds the few file operations whose meaning differs by operating system: advisory locks between
// processes, whole-or-not-at-all writes, free space, and the identity of a file.
package osfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// ErrLocked means that another holder has the lock.
var ErrLocked = errors.New("locked by another process")

// A Lock is an exclusive advisory lock on a file that exists only to be locked. The operating system drops it when the
// process ends, however it ends. The lock file stays: deleting it would let two processes lock two different files.
type Lock struct{ f *os.File }

// TryAcquire takes the lock on path, creating the file (0600) if needed. It fails with ErrLocked if somebody has it,
// another Lock of this process included.
func TryAcquire(path string) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		f.Close()
		if errors.Is(err, ErrLocked) {
			return nil, err
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f}, nil
}

// Acquire waits for the lock until ctx ends. If it has to wait it first calls waiting once, if that is not nil.
func Acquire(ctx context.Context, path string, waiting func()) (*Lock, error) {
	// Polling, because a blocking lock call cannot be cancelled.
	const every = 50 * time.Millisecond
	for told := false; ; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		l, err := TryAcquire(path)
		if !errors.Is(err, ErrLocked) {
			return l, err
		}
		if !told && waiting != nil {
			waiting()
		}
		told = true
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(every):
		}
	}
}

// Release gives the lock back. A second call does nothing.
func (l *Lock) Release() error {
	if l.f == nil {
		return nil
	}
	f := l.f
	l.f = nil
	return errors.Join(unlockFile(f), f.Close())
}

// WriteAtomic puts data at path with the permissions perm, so that a reader or a crash sees the old file or the new one,
// never a mixture: it writes a temporary file beside path, syncs it, and renames it.
func WriteAtomic(path string, data []byte, perm fs.FileMode) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, "."+base+".*") // 0600 until it is whole
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return err
	}
	if err = f.Chmod(perm); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return SyncDir(dir)
}

// Free returns the bytes that this user may still write to the file system that holds dir.
func Free(dir string) (uint64, error) {
	n, err := freeSpace(dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", dir, err)
	}
	return n, nil
}

// Identity names the file that path leads to, after symbolic links: device and inode where the operating system has them, else the
// absolute path. info must be of that file. Two names of one file have one identity on Unix.
func Identity(path string, info fs.FileInfo) (string, error) { return identity(path, info) }
