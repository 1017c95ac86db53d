package hub

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kvasir/internal/machine/osfile"
)

// A store is an open cache directory. All writes go through its root, which no name can leave.
type store struct {
	dir  string
	root *os.Root
}

// record is models/<sha256>/model.json.
type record struct {
	Name     string       `json:"name,omitempty"` // in the catalog
	File     string       `json:"file"`           // the first part of a split model
	SHA256   string       `json:"sha256"`         // over all parts, see Digest
	Bytes    int64        `json:"bytes"`          // of all parts
	Parts    []recordPart `json:"parts,omitempty"`
	Verified bool         `json:"verified"`
	Source   string       `json:"source"`
	Refs     []string     `json:"refs"` // references that lead here
	Pulled   time.Time    `json:"pulled"`
}

// recordPart is one file of a split model.
type recordPart struct {
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// files lists the model's files.
func (r *record) files() []recordPart {
	if len(r.Parts) > 0 {
		return r.Parts
	}
	return []recordPart{{r.File, r.SHA256, r.Bytes}}
}

const recordName = "model.json"

func openStore(dir string) (*store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("model cache: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("model cache: %w", err)
	}
	for _, d := range []string{"models", "downloads", "locks"} {
		if err := root.MkdirAll(d, 0o755); err != nil {
			root.Close()
			return nil, fmt.Errorf("model cache: %w", err)
		}
	}
	return &store{dir, root}, nil
}

func (s *store) close() { s.root.Close() }

// lockPath takes a name that this package made: a prefix and hex digits.
func (s *store) lockPath(name string) string { return filepath.Join(s.dir, "locks", name+".lock") }

func (s *store) abs(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

// read returns the record of one file; fs.ErrNotExist if there is none.
func (s *store) read(sum string) (record, error) {
	var r record
	f, err := s.root.Open(path.Join("models", sum, recordName))
	if err != nil {
		return r, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("%s: %w", s.abs(path.Join("models", sum, recordName)), err)
	}
	odd := func(p recordPart) bool { return !filePattern.MatchString(p.File) || !sumPattern.MatchString(p.SHA256) }
	if r.SHA256 != sum || slices.ContainsFunc(r.files(), odd) || r.files()[0].File != r.File {
		return r, fmt.Errorf("%s does not belong here", s.abs(path.Join("models", sum, recordName)))
	}
	return r, nil
}

func (s *store) write(r record) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	dir := path.Join("models", r.SHA256)
	if err := s.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	tmp := path.Join(dir, recordName+".new") // no two writers: commit and Remove hold the lock
	if err := s.root.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		return err
	}
	return s.root.Rename(tmp, path.Join(dir, recordName))
}

// whole says whether the record's files are there with their sizes.
func (s *store) whole(r record) error {
	for _, p := range r.files() {
		info, err := s.root.Stat(path.Join("models", r.SHA256, p.File))
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Size() != p.Bytes {
			return fmt.Errorf("%s: %w", p.File, ErrSize)
		}
	}
	return nil
}

// sums lists the digests that have a directory under models.
func (s *store) sums() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), "models")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && sumPattern.MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, nil
}

// find returns a target's file if it is here and good, nil if it must be fetched.
func (s *store) find(t target, o Options) (*Model, error) {
	var found *record
	if t.entry != nil {
		r, err := s.read(t.entry.SHA256)
		if err == nil {
			found = &r
		} else if !errors.Is(err, fs.ErrNotExist) {
			o.Progress(Progress{Model: t.name(), Stage: Connecting, Note: err.Error() + "; fetching the model again"})
		}
	} else {
		sums, err := s.sums()
		if err != nil {
			return nil, fmt.Errorf("model cache: %w", err)
		}
		for _, sum := range sums {
			if r, err := s.read(sum); err == nil && slices.Contains(r.Refs, t.ref) && (found == nil || r.Pulled.After(found.Pulled)) {
				found = &r
			}
		}
	}
	if found == nil || s.whole(*found) != nil {
		return nil, nil
	}
	m := s.model(*found, t)
	if o.DigestFile == "" {
		return m, nil
	}
	for _, p := range found.files() {
		at := s.abs(path.Join("models", found.SHA256, p.File))
		sum, err := fileDigest(at, o.DigestFile)
		if err != nil {
			return nil, err
		}
		if got := hex.EncodeToString(sum[:]); got != p.SHA256 {
			o.Progress(Progress{Model: t.name(), Stage: Verifying, Note: fmt.Sprintf("%s has changed since it was fetched (SHA-256 %s…)", at, got[:12])})
			if o.Offline {
				return nil, fmt.Errorf("%s: %w: it has changed since it was fetched", at, ErrChecksum)
			}
			return nil, nil
		}
	}
	return m, nil
}

func (s *store) model(r record, t target) *Model {
	name := r.Name
	if name == "" {
		name = modelName(r.File)
	}
	return &Model{Name: name, Ref: t.ref, Path: s.abs(path.Join("models", r.SHA256, r.File)), Bytes: r.Bytes, SHA256: r.SHA256, Source: r.Source, Verified: r.Verified}
}

// commit moves fetched files into models and records them. Records come first: one without its files counts as absent, files without a
// record would never be found again.
func (s *store) commit(ctx context.Context, t target, f fetched, o Options) (*Model, error) {
	total := f.sum()
	lock, err := osfile.Acquire(ctx, s.lockPath("sha256-"+total), nil)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	r, err := s.read(total)
	if err != nil {
		r = record{SHA256: total}
	}
	r.File, r.Parts = f.parts[0].file, nil
	if len(f.parts) > 1 {
		for _, p := range f.parts {
			r.Parts = append(r.Parts, recordPart{p.file, p.sum, p.bytes})
		}
	}
	r.Bytes, r.Source, r.Pulled = f.bytes(), f.source, time.Now().UTC().Truncate(time.Second)
	r.Verified = r.Verified || f.verified
	if t.entry != nil {
		r.Name = t.entry.Name
	}
	for _, ref := range []string{t.ref, f.source} {
		if !slices.Contains(r.Refs, ref) {
			r.Refs = append(r.Refs, ref)
		}
	}
	dir := path.Join("models", total)
	if err := s.write(r); err != nil {
		return nil, fmt.Errorf("model cache: %w", err)
	}
	for _, p := range f.parts {
		if err := s.root.Chmod(p.at, 0o644); err != nil {
			return nil, fmt.Errorf("model cache: %w", err)
		}
		if err := s.root.Rename(p.at, path.Join(dir, p.file)); err != nil {
			return nil, fmt.Errorf("model cache: %w", err)
		}
	}
	if err := osfile.SyncDir(s.abs(dir)); err != nil {
		return nil, fmt.Errorf("model cache: %w", err)
	}
	if o.DigestFile != "" {
		for _, p := range f.parts {
			sum, _ := hex.DecodeString(p.sum)
			if err := recordDigest(s.abs(path.Join(dir, p.file)), o.DigestFile, [32]byte(sum)); err != nil {
				return nil, err
			}
		}
	}
	return s.model(r, t), nil
}

// Local is a model in the cache directory.
type Local struct {
	Name    string // catalog name; else the file's name without .gguf
	Refs    []string
	Path    string
	SHA256  string
	Bytes   int64
	Source  string
	Pulled  time.Time
	Problem string // not "": why the model cannot be used as it is
}

// List returns the models in the cache directory, by name.
func List(o Options) ([]Local, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.CacheDir); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	s, err := openStore(o.CacheDir)
	if err != nil {
		return nil, err
	}
	defer s.close()
	return s.list()
}

func (s *store) list() ([]Local, error) {
	sums, err := s.sums()
	if err != nil {
		return nil, fmt.Errorf("model cache: %w", err)
	}
	var out []Local
	for _, sum := range sums {
		r, err := s.read(sum)
		if err != nil {
			out = append(out, Local{Name: sum[:12], SHA256: sum, Path: s.abs("models/" + sum), Problem: err.Error()})
			continue
		}
		m := s.model(r, target{})
		l := Local{Name: m.Name, Refs: r.Refs, Path: m.Path, SHA256: sum, Bytes: r.Bytes, Source: r.Source, Pulled: r.Pulled}
		if err := s.whole(r); err != nil {
			l.Problem = err.Error()
		}
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b Local) int {
		return strings.Compare(a.Name+"\x00"+a.SHA256, b.Name+"\x00"+b.SHA256)
	})
	return out, nil
}

// Remove deletes one model from the cache directory: by catalog name, alias, reference, file name without .gguf, or at least 8 hex digits of its
// SHA-256. What was fetched of it and not finished goes too. It fails with ErrNotFound if there is none.
func Remove(o Options, name string) (Local, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Local{}, err
	}
	s, err := openStore(o.CacheDir)
	if err != nil {
		return Local{}, err
	}
	defer s.close()
	all, err := s.list()
	if err != nil {
		return Local{}, err
	}
	t, refErr := parseRef(name)
	var hits []Local
	for _, l := range all {
		switch {
		case t.entry != nil && l.SHA256 == t.entry.SHA256,
			refErr == nil && slices.Contains(l.Refs, t.ref),
			l.Name == name,
			len(name) >= 8 && strings.HasPrefix(l.SHA256, strings.ToLower(name)):
			hits = append(hits, l)
		}
	}
	partial := refErr == nil && t.path == "" && s.removePartial(t)
	switch {
	case len(hits) > 1:
		return Local{}, fmt.Errorf("%q fits %d models; give the SHA-256", name, len(hits))
	case len(hits) == 0 && partial:
		return Local{Name: t.name(), Problem: "was not complete"}, nil
	case len(hits) == 0:
		return Local{}, fmt.Errorf("%q: %w", name, ErrNotFound)
	}
	l := hits[0]
	lock, err := osfile.Acquire(context.Background(), s.lockPath("sha256-"+l.SHA256), nil)
	if err != nil {
		return Local{}, err
	}
	defer lock.Release()
	if err := s.root.RemoveAll(path.Join("models", l.SHA256)); err != nil {
		return Local{}, fmt.Errorf("model cache: %w", err)
	}
	return l, nil
}

// removePartial deletes an interrupted fetch, unless a process is at it now. It says whether there was one.
func (s *store) removePartial(t target) bool {
	dir := path.Join("downloads", t.key())
	if _, err := s.root.Stat(dir); err != nil {
		return false
	}
	lock, err := osfile.TryAcquire(s.lockPath("ref-" + t.key()))
	if err != nil {
		return false
	}
	defer lock.Release()
	return s.root.RemoveAll(dir) == nil
}
