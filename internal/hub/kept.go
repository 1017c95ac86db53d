package hub

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"kvasir/internal/folders"
)

// keptByRef finds a model of another program by that program's reference.
func keptByRef(ref string, o Options) (*Model, error) {
	k, err := folders.Lookup(o.Folders, ref)
	if err != nil {
		return nil, err
	}
	if k.Problem != "" {
		return nil, fmt.Errorf("%s (%s): %s", k.Ref, k.Path, k.Problem)
	}
	return kept(k, o)
}

// keptOfHub finds what another program has of the target's repositories, nil if that is nothing good.
func keptOfHub(t target, o Options) *Model {
	for _, src := range t.sources {
		if src.repo == "" {
			continue
		}
		k, ok := folders.LookupHub(o.Folders, src.repo, src.file, src.tag)
		if !ok {
			continue
		}
		m, err := kept(k, o)
		if err == nil && t.entry != nil {
			// The catalog knows the only right bytes, so they are looked at even if nothing is remembered.
			var sum [32]byte
			if sum, err = Digest(m.Path, o.DigestFile); err == nil && hex.EncodeToString(sum[:]) != t.entry.SHA256 {
				err = fmt.Errorf("%s: %w", m.Path, ErrChecksum)
			}
			m.Name, m.SHA256, m.Verified = t.entry.Name, t.entry.SHA256, true
		}
		if err != nil {
			o.Progress(Progress{Model: t.name(), Source: src.ref, Stage: Connecting, Note: err.Error() + "; not used"})
			continue
		}
		return m
	}
	return nil
}

// kept makes a Model of what another program keeps. Where the program says what a file's SHA-256 is and digests are remembered, the file is held against
// it: what these programs leave after an interruption may have the right name.
func kept(k folders.Model, o Options) (*Model, error) {
	m := &Model{Name: modelName(filepath.Base(filepath.FromSlash(k.File))), Ref: k.Ref, Path: k.Path, Source: k.Ref}
	if k.File == "" {
		_, m.Name, _ = strings.Cut(k.Ref, ":")
		m.Name = modelName(m.Name)
	}
	known := true
	for i, p := range k.Parts {
		n, err := checkFile(p)
		if err != nil {
			return nil, err
		}
		m.Bytes += n
		known = known && k.SHA256[i] != ""
		if o.DigestFile == "" || k.SHA256[i] == "" {
			continue
		}
		sum, err := fileDigest(p, o.DigestFile)
		if err != nil {
			return nil, err
		}
		if got := hex.EncodeToString(sum[:]); got != k.SHA256[i] {
			return nil, fmt.Errorf("%s: %w: it is damaged (got %s…, its name says %s…)", p, ErrChecksum, got[:12], k.SHA256[i][:12])
		}
	}
	if len(k.Parts) == 0 {
		return nil, errors.New(k.Ref + " has no files")
	}
	if known {
		m.SHA256 = k.SHA256[0]
		if len(k.Parts) > 1 {
			sum := joinSums(k.SHA256)
			m.SHA256 = hex.EncodeToString(sum[:])
		}
	}
	return m, nil
}
