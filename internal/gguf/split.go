package gguf

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Large models come in several files, as llama.cpp's gguf-split writes them: each is a GGUF file of its own with some of the tensors and the keys
// below, the first has the metadata as well, and their names end in -00001-of-00003.gguf and so on.
const (
	splitNoKey      = "split.no"            // counted from 0
	splitCountKey   = "split.count"         // of parts
	splitTensorsKey = "split.tensors.count" // of all parts together
	maxParts        = 65535                 // split.count is a uint16 where it is written
)

var partName = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})(\.[gG][gG][uU][fF])$`)

// SplitName takes the name of a part of a split model apart: "m-00002-of-00003.gguf" is part 2 (counted from 1) of 3, and stem is "m".
// ok is false for any other name.
func SplitName(name string) (stem string, part, parts int, ok bool) {
	m := partName.FindStringSubmatch(name)
	if m == nil {
		return "", 0, 0, false
	}
	part, _ = strconv.Atoi(m[2]) // five digits
	parts, _ = strconv.Atoi(m[3])
	return m[1], part, parts, part >= 1 && part <= parts
}

// PartNames returns the names of all parts of the split model that name is a part of, in order, and just name if it is none.
func PartNames(name string) []string {
	stem, _, n, ok := SplitName(name)
	if !ok {
		return []string{name}
	}
	ext := name[strings.LastIndexByte(name, '.'):]
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%05d-of-%05d%s", stem, i+1, n, ext)
	}
	return names
}

// Parts returns the paths of all files of the model at path, in order: path alone, or all parts if the file says that it is one of several.
// Parts that are missing are an error that wraps fs.ErrNotExist and names them.
func Parts(path string) ([]string, error) {
	f, err := openPart(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.parts(path)
}

// parts is Parts for the file that f was opened from. What the file says counts; the name must agree, since it leads to the other parts.
func (f *File) parts(path string) ([]string, error) {
	no, count, err := f.split()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if count == 1 {
		return []string{path}, nil
	}
	dir, name := filepath.Split(path)
	_, part, n, ok := SplitName(name)
	if !ok || part != no+1 || n != count {
		return nil, fmt.Errorf("%s: %w: it is part %d of %d of a split model, so that its name must end in -%05d-of-%05d.gguf for the others to be found beside it",
			path, ErrFormat, no+1, count, no+1, count)
	}
	names := PartNames(name)
	var missing []string
	for i, name := range names {
		names[i] = dir + name
		if _, err := os.Stat(names[i]); errors.Is(err, fs.ErrNotExist) {
			missing = append(missing, name)
		} else if err != nil {
			return nil, err
		}
	}
	if n := len(missing); n > 0 {
		more := ""
		if n > 3 {
			missing, more = missing[:3], ", …"
		}
		return nil, fmt.Errorf("%s: %d of the %d parts of this split model are missing: %s%s: %w", path, n, count, strings.Join(missing, ", "), more, fs.ErrNotExist)
	}
	return names, nil
}

// split returns which part of how many the file is; 0 of 1 if it is whole.
func (f *File) split() (no, count int, err error) {
	if !f.Has(splitCountKey) {
		return 0, 1, nil
	}
	n, ok := f.Uint(splitCountKey)
	if !ok || n > maxParts {
		return 0, 0, fmt.Errorf("%w: %s must be a number up to %d", ErrFormat, splitCountKey, maxParts)
	}
	if n <= 1 {
		return 0, 1, nil
	}
	i, ok := f.Uint(splitNoKey)
	if !ok || i >= n {
		return 0, 0, fmt.Errorf("%w: %s must be a number below %s, which is %d", ErrFormat, splitNoKey, splitCountKey, n)
	}
	return int(i), int(n), nil
}

// openParts opens the other parts beside f, which is the part at path, and joins all. It owns f.
func openParts(f *File, path string, names []string) (_ *File, err error) {
	files := make([]*File, len(names))
	defer func() {
		if err != nil {
			f.Close()
			for _, p := range files {
				if p != nil {
					p.Close()
				}
			}
		}
	}()
	for i, name := range names {
		if name == path {
			files[i] = f
		} else if files[i], err = openPart(name); err != nil {
			return nil, err
		}
	}
	return join(files, names)
}

// join makes one File of all parts, in order; names are for errors. The parts must not be used afterwards unless it fails. Beside the
// parts' own tables it allocates one more table of all tensors.
func join(files []*File, names []string) (*File, error) {
	first := files[0]
	want, ok := first.Uint(splitTensorsKey)
	if !ok || want > math.MaxInt32 {
		return nil, fmt.Errorf("%s: %w: %s must be a number below 2^31", names[0], ErrFormat, splitTensorsKey)
	}
	total := uint64(0)
	for i, f := range files {
		foreign := func(format string, args ...any) error {
			return fmt.Errorf("%s: %w: it does not belong to the split model of %s: %s", names[i], ErrFormat, names[0], fmt.Sprintf(format, args...))
		}
		no, count, err := f.split()
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s: %w", names[i], err)
		case count != len(files):
			return nil, foreign("it is one of %d parts, not %d", count, len(files))
		case no != i:
			return nil, foreign("it is part %d, not %d", no+1, i+1)
		}
		if key, differs := first.conflict(f); differs {
			return nil, foreign("its %s is another one", quote([]byte(key)))
		}
		total += uint64(len(f.Tensors))
	}
	if total != want {
		return nil, fmt.Errorf("%s: %w: the parts have %d tensors together, %s says %d", names[0], ErrFormat, total, splitTensorsKey, want)
	}
	all := &File{Version: first.Version, Alignment: first.Alignment, Tensors: make([]Tensor, 0, total), data: first.data, keys: first.keys}
	for _, f := range files {
		all.Tensors = append(all.Tensors, f.Tensors...)
		all.mappings = append(all.mappings, f.mappings...)
		all.size += f.size
	}
	for i := range all.Tensors {
		all.Tensors[i].byName = uint32(i) // total is split.tensors.count
	}
	if name, twice := all.index(); twice {
		return nil, fmt.Errorf("%s: %w: tensor %s is in two parts", names[0], ErrFormat, quote([]byte(name)))
	}
	return all, nil
}

// conflict finds a key that both files have with different values. Which part it is and how its tensors are aligned is each file's own.
func (f *File) conflict(other *File) (key string, differs bool) {
	for _, off := range other.keys {
		k := string(other.keyAt(off))
		if k == splitNoKey || k == alignmentKey {
			continue
		}
		if mine := f.raw(k); mine != nil && !bytes.Equal(mine, other.raw(k)) {
			return k, true
		}
	}
	return "", false
}

// raw returns type and value of a key as they are in the file, nil if there is none.
func (f *File) raw(key string) []byte {
	t, b, ok := f.value(key)
	if !ok {
		return nil
	}
	c := cursor{data: b}
	c.skipValue(t, 0)
	end := len(f.data) - len(b) + c.off
	return f.data[len(f.data)-len(b)-4 : end : end]
}
