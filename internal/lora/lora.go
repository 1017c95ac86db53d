// Package lora reads low-rank adapters (LoRA, Hu and others 2021): for some matrices W of a base model a pair A and B, so that the adapted
// matrix is W + scale·B·A. Two forms are read: GGUF files as llama.cpp's convert_lora_to_gguf.py writes them, and the folders of the PEFT
// library (adapter_config.json and adapter_model.safetensors).
//
// Files come from strangers: every size and offset is checked before it is used, and nothing in a file is ever run.
package lora

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"kvasir/internal/gguf"
)

var (
	// ErrFormat is wrapped by every error about what an adapter's files say.
	ErrFormat = errors.New("malformed adapter")
	// ErrUnsupported is wrapped by errors about adapters that are well-formed but ask for what is not done here.
	ErrUnsupported = errors.New("adapter is not supported")
)

// maxRank bounds the rank of a pair; real ones have 4 to 256.
const maxRank = 4096

// A File is an adapter. Its data lies in mapped files until Close.
type File struct {
	Arch  string // of the base model, as GGUF names it; "" if the file does not say
	Pairs []Pair // at least one, sorted by Base
	// HF says that the rows of queries and keys are in the order of Hugging Face's models. GGUF files of the architectures that
	// turn neighbours have them in another one.
	HF bool
	// Size of the files in bytes.
	Size int64

	closers []io.Closer
}

// A Pair is what an adapter has for one matrix.
type Pair struct {
	Base  string  // name of the matrix in a GGUF file of the base model, e.g. "blk.0.attn_q.weight"
	A     Tensor  // rank × in
	B     Tensor  // out × rank
	Scale float64 // alpha/rank, or what takes its place
}

// Rank is the number of rows of A.
func (p *Pair) Rank() int { return p.A.Rows }

// A Tensor is a matrix, row by row.
type Tensor struct {
	Type       gguf.Type
	Rows, Cols int
	Data       []byte // read-only
}

// Open reads the adapter at path: a GGUF file, or a folder of PEFT. Errors are those of the operating system, or wrap ErrFormat,
// ErrUnsupported or gguf.ErrFormat.
func Open(path string) (*File, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	var f *File
	if st.IsDir() {
		f, err = openFolder(path)
	} else {
		f, err = openGGUF(path)
	}
	if err != nil {
		return nil, fmt.Errorf("adapter %s: %w", path, err)
	}
	return f, nil
}

// Files are the paths of the files that Open(path) reads, in a fixed order.
func Files(path string) ([]string, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return []string{filepath.Join(path, configName), filepath.Join(path, weightsName)}, nil
	}
	return gguf.Parts(path)
}

// Memory is what the adapter takes once it is packed for a model, in bytes: ranks and outputs are padded to 32, half floats stay what they
// are, and all else becomes float32. It may be less by what a model's matrices share.
func (f *File) Memory() (n uint64) {
	pad := func(n int) uint64 { return uint64(n+31) &^ 31 }
	for _, p := range f.Pairs {
		for _, m := range []struct {
			t       Tensor
			out, in uint64
		}{{p.A, pad(p.A.Rows), uint64(p.A.Cols)}, {p.B, pad(p.B.Rows), pad(p.B.Cols)}} {
			size := uint64(4)
			if m.t.Type == gguf.F16 || m.t.Type == gguf.BF16 {
				size = 2
			}
			n += m.out * m.in * size
		}
	}
	return n
}

// Close gives the files back. The data of the pairs is gone with them.
func (f *File) Close() error {
	var err error
	for _, c := range f.closers {
		err = errors.Join(err, c.Close())
	}
	f.Pairs, f.closers = nil, nil
	return err
}

// check holds the pairs against each other and sorts them.
func (f *File) check() error {
	if len(f.Pairs) == 0 {
		return fmt.Errorf("no pairs of lora_a and lora_b: %w", ErrFormat)
	}
	for i := range f.Pairs {
		p := &f.Pairs[i]
		switch {
		case p.A.Rows == 0 || p.B.Rows == 0:
			return fmt.Errorf("%s has one of A and B only: %w", p.Base, ErrFormat)
		case p.A.Rows != p.B.Cols:
			return fmt.Errorf("%s: A is %d×%d and B %d×%d, which do not fit: %w", p.Base, p.A.Rows, p.A.Cols, p.B.Rows, p.B.Cols, ErrFormat)
		case p.Rank() > maxRank:
			return fmt.Errorf("%s has rank %d: %w; up to %d is", p.Base, p.Rank(), ErrUnsupported, maxRank)
		case !(p.Scale > -1e6 && p.Scale < 1e6):
			return fmt.Errorf("%s has scale %g: %w", p.Base, p.Scale, ErrFormat)
		}
	}
	slices.SortFunc(f.Pairs, func(a, b Pair) int { return cmp.Compare(a.Base, b.Base) })
	return nil
}
