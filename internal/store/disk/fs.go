package disk

import (
	"errors"
	"io/fs"
	"os"

	"kvasir/internal/machine/osfile"
	"kvasir/internal/store"
)

// rootFS is a directory of the operating system. os.Root keeps every access inside it, whatever links somebody puts there.
type rootFS struct {
	root *os.Root
	dir  string
}

type rootFile struct{ *os.File }

func (f rootFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// openDir opens the directory dir, made if it is not there, for the owner alone.
func openDir(dir string) (*rootFS, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return &rootFS{r, dir}, nil
}

func (f *rootFS) open(name string, flag int) (store.File, error) {
	file, err := f.root.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return rootFile{file}, nil
}

func (f *rootFS) Open(name string) (store.File, error) { return f.open(name, os.O_RDONLY) }

func (f *rootFS) Create(name string) (store.File, error) {
	return f.open(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL)
}

func (f *rootFS) Append(name string) (store.File, error) {
	return f.open(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND)
}

func (f *rootFS) Rename(from, to string) error { return f.root.Rename(from, to) }
func (f *rootFS) Remove(name string) error     { return f.root.Remove(name) }

func (f *rootFS) Mkdir(name string) error {
	if err := f.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

func (f *rootFS) Names(dir string) ([]string, error) {
	d, err := f.root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (f *rootFS) Free() (uint64, error) { return osfile.Free(f.dir) }
func (f *rootFS) Close() error          { return f.root.Close() }
