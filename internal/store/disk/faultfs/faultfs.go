// Package faultfs is a file system in memory for tests of the disk tier: it can lose what was not synced, as a power cut does, and fail any call.
// Nothing is synced unless a test says so, since the tier syncs nothing.
package faultfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"sync"
	"syscall"

	"kvasir/internal/store"
)

// Op is a call of the file system.
type Op string

// The calls. Those from Create on change something.
const (
	Open   Op = "open"
	Size   Op = "size"
	Read   Op = "read"
	Names  Op = "names"
	Free   Op = "free"
	Create Op = "create"
	Append Op = "append"
	Write  Op = "write"
	Close  Op = "close"
	Rename Op = "rename"
	Remove Op = "remove"
	Mkdir  Op = "mkdir"
)

// Changes says whether the call can change what is stored.
func (o Op) Changes() bool {
	switch o {
	case Open, Size, Read, Names, Free, Close:
		return false
	}
	return true
}

// ErrShort, from a Hook, makes a write take half of what it is given and fail.
var ErrShort = errors.New("short write")

// FS is the file system. Safe for concurrent use.
type FS struct {
	// Hook, if not nil, is called before each call, without a lock. An error that it returns is the call's, which then does nothing.
	// Set it before the FS is used, or from within itself.
	Hook func(op Op, name string) error
	// Capacity is how many bytes all files may have; 0: no limit. More is ENOSPC.
	Capacity int64

	mu      sync.Mutex
	names   map[string]*inode
	dirs    map[string]bool
	durable map[string]*inode // names, as of the last Sync or Crash
	pending []change          // of names, since then
}

const block = 4096

type inode struct {
	data []byte
	kept []byte // durable content
}

// A change is a name that was set, or removed (nil).
type change struct {
	from string // of a rename
	to   string
	node *inode
}

// New returns an empty file system.
func New() *FS {
	return &FS{names: map[string]*inode{}, dirs: map[string]bool{}, durable: map[string]*inode{}}
}

func (f *FS) hook(op Op, name string) error {
	if f.Hook != nil {
		if err := f.Hook(op, name); err != nil {
			if errors.Is(err, ErrShort) {
				return err
			}
			return &fs.PathError{Op: string(op), Path: name, Err: err}
		}
	}
	return nil
}

// Crash returns what a power cut leaves: what was durable, and of each block and each change of a name since then the given share. The file system
// itself goes on.
func (f *FS) Crash(share float64, rnd *rand.Rand) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := map[string]*inode{}
	for n, i := range f.durable {
		names[n] = i
	}
	for _, c := range f.pending {
		if rnd.Float64() >= share {
			continue
		}
		if c.from != "" {
			delete(names, c.from)
		}
		if c.node == nil {
			delete(names, c.to)
		} else {
			names[c.to] = c.node
		}
	}
	out := New()
	done := map[*inode]*inode{}
	for n, i := range names {
		if done[i] == nil {
			size := len(i.kept)
			if rnd.Float64() < share {
				size = len(i.data)
			}
			data := make([]byte, size)
			copy(data, i.kept)
			for at := 0; at < size; at += block {
				if end := min(at+block, size, len(i.data)); rnd.Float64() < share && end > at {
					copy(data[at:end], i.data[at:end])
				}
			}
			done[i] = &inode{data, append([]byte(nil), data...)}
		}
		out.names[n], out.durable[n] = done[i], done[i]
		out.dirs[path.Dir(n)] = true
	}
	for d := range f.dirs {
		if rnd.Float64() < share {
			out.dirs[d] = true
		}
	}
	out.Capacity = f.Capacity
	return out
}

// Data returns the content of a file, which the caller may change in place, or nil.
func (f *FS) Data(name string) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := f.names[name]; i != nil {
		return i.data
	}
	return nil
}

// Set makes a file of this content.
func (f *FS) Set(name string, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := &inode{data: data}
	f.names[name] = i
	f.dirs[path.Dir(name)] = true
	f.pending = append(f.pending, change{"", name, i})
}

// Files returns all names of files.
func (f *FS) Files() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for n := range f.names {
		all = append(all, n)
	}
	return all
}

// Used is what all files take on a disk of blocks.
func (f *FS) Used() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.used()
}

func (f *FS) used() (n int64) {
	for _, i := range f.names {
		n += int64(len(i.data)+block-1) / block * block
	}
	return n
}

type file struct {
	fs   *FS
	name string
	node *inode
	at   int
	open bool
}

func failed(op Op, name string, err error) error {
	return &fs.PathError{Op: string(op), Path: name, Err: err}
}

// Open implements store.FS.
func (f *FS) Open(name string) (store.File, error) {
	if err := f.hook(Open, name); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.names[name]
	if i == nil {
		return nil, failed(Open, name, fs.ErrNotExist)
	}
	return &file{f, name, i, 0, true}, nil
}

// Create implements store.FS.
func (f *FS) Create(name string) (store.File, error) {
	if err := f.hook(Create, name); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[name] != nil {
		return nil, failed(Create, name, fs.ErrExist)
	}
	return f.make(Create, name)
}

// make makes a file. mu is held.
func (f *FS) make(op Op, name string) (store.File, error) {
	if d := path.Dir(name); d != "." && !f.dirs[d] {
		return nil, failed(op, name, fs.ErrNotExist)
	}
	i := &inode{}
	f.names[name] = i
	f.pending = append(f.pending, change{"", name, i})
	return &file{f, name, i, 0, true}, nil
}

// Append implements store.FS.
func (f *FS) Append(name string) (store.File, error) {
	if err := f.hook(Append, name); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := f.names[name]; i != nil {
		return &file{f, name, i, 0, true}, nil
	}
	return f.make(Append, name)
}

// Rename implements store.FS.
func (f *FS) Rename(from, to string) error {
	if err := f.hook(Rename, to); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.names[from]
	if d := path.Dir(to); i == nil || d != "." && !f.dirs[d] {
		return failed(Rename, from, fs.ErrNotExist)
	}
	delete(f.names, from)
	f.names[to] = i
	f.pending = append(f.pending, change{from, to, i})
	return nil
}

// Remove implements store.FS.
func (f *FS) Remove(name string) error {
	if err := f.hook(Remove, name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names[name] == nil {
		return failed(Remove, name, fs.ErrNotExist)
	}
	delete(f.names, name)
	f.pending = append(f.pending, change{"", name, nil})
	return nil
}

// Mkdir implements store.FS.
func (f *FS) Mkdir(name string) error {
	if err := f.hook(Mkdir, name); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dirs[name] = true
	return nil
}

// Names implements store.FS.
func (f *FS) Names(dir string) ([]string, error) {
	if err := f.hook(Names, dir); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []string
	for n := range f.names {
		if path.Dir(n) == dir {
			all = append(all, path.Base(n))
		}
	}
	if dir == "." {
		for d := range f.dirs {
			if d != "." {
				all = append(all, d)
			}
		}
	} else if !f.dirs[dir] {
		return nil, failed(Names, dir, fs.ErrNotExist)
	}
	return all, nil
}

// Free implements store.FS.
func (f *FS) Free() (uint64, error) {
	if err := f.hook(Free, "."); err != nil {
		return 0, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.Capacity == 0 {
		return 1 << 60, nil
	}
	return uint64(max(0, f.Capacity-f.used())), nil
}

// Read implements store.File.
func (f *file) Read(b []byte) (int, error) {
	if err := f.fs.hook(Read, f.name); err != nil {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if !f.open {
		return 0, failed(Read, f.name, fs.ErrClosed)
	}
	if f.at >= len(f.node.data) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[f.at:])
	f.at += n
	return n, nil
}

// Write implements store.File.
func (f *file) Write(b []byte) (int, error) {
	err := f.fs.hook(Write, f.name)
	if err != nil && !errors.Is(err, ErrShort) {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if !f.open {
		return 0, failed(Write, f.name, fs.ErrClosed)
	}
	n := len(b)
	if err != nil {
		n /= 2
		err = failed(Write, f.name, io.ErrShortWrite)
	}
	if f.fs.Capacity > 0 {
		if room := f.fs.Capacity - f.fs.used(); int64(n) > room {
			n, err = int(max(0, room)), failed(Write, f.name, syscall.ENOSPC)
		}
	}
	f.node.data = append(f.node.data, b[:n]...)
	return n, err
}

// Size implements store.File.
func (f *file) Size() (int64, error) {
	if err := f.fs.hook(Size, f.name); err != nil {
		return 0, err
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.node.data)), nil
}

// Close implements store.File.
func (f *file) Close() error {
	err := f.fs.hook(Close, f.name)
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if !f.open {
		return failed(Close, f.name, fs.ErrClosed)
	}
	f.open = false
	return err
}

// String names the file system in messages.
func (f *FS) String() string { return fmt.Sprintf("%d files, %d bytes", len(f.Files()), f.Used()) }
