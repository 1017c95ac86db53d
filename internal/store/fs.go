package store

import "io"

// A File is open for reading, or for writing at its end.
type File interface {
	io.Reader
	io.Writer
	io.Closer
	// Size is the length of the file in bytes.
	Size() (int64, error)
}

// FS is what the disk tier needs of a file system: the directory that is its own. Names have at most one directory before them and use slashes.
// Errors wrap those of package fs where they mean the same.
type FS interface {
	Open(name string) (File, error)     // for reading
	Create(name string) (File, error)   // for writing; it must not exist; only the owner may read it
	Append(name string) (File, error)   // for writing at its end; made if it is not there
	Rename(from, to string) error       // replaces to
	Remove(name string) error           //
	Mkdir(name string) error            // no error if it is there
	Names(dir string) ([]string, error) // all names in a directory, "." for the tier's own, in any order
	Free() (uint64, error)              // bytes that may still be written
}
