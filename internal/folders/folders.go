// Package folders finds the model files that other programs keep on this machine: the Hugging Face cache (which newer versions of llama.cpp use,
// too), LM Studio, Ollama and older versions of llama.cpp. Each has a layout of its own, and each model a reference that
// begins with the program's name:
//
//	hf:owner/repo/file.gguf            models--owner--repo/snapshots/<commit>/file.gguf, which links to blobs/<sha256>
//	lmstudio:publisher/model/file.gguf publisher/model/file.gguf
//	ollama:model:tag                   manifests/<host>/<namespace>/model/tag, which names blobs/sha256-<sha256>
//	llamacpp:file.gguf                 file.gguf
//
// It only reads, and only names and sizes: whether a file's contents are good is for its reader to say. Links are followed where they stay in the
// program's folder; one that leads out of it is a problem of that model.
package folders

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"kvasir/internal/gguf"
)

// ErrNotFound is wrapped by Lookup where no folder has the model.
var ErrNotFound = errors.New("no such model in the folders of other programs")

// A Program is one that keeps models, by the word that its references begin with.
type Program string

// The programs.
const (
	HuggingFace Program = "hf"
	LMStudio    Program = "lmstudio"
	Ollama      Program = "ollama"
	LlamaCpp    Program = "llamacpp"
)

// A Folder is where a program keeps models.
type Folder struct {
	Program Program
	Dir     string
}

// A Model is one that a program keeps.
type Model struct {
	Ref     string // what leads here, e.g. "ollama:gemma3:270m"
	Program Program
	Repo    string   // owner/repo on the hub that it came from, as far as the layout tells
	File    string   // its path in that repository
	Tag     string   // of the repository, where the layout has it in place of File
	Path    string   // of the file, or of the first part of a split model
	Parts   []string // paths of all parts, in order
	Bytes   int64    // of all parts
	SHA256  []string // of each part, "" where the layout does not tell; hex
	Problem string   // not "": why the model cannot be used as it is
}

// Find lists the models in the folders, by reference. Folders that are not there are passed over. Of two models with one reference the first
// counts that has no problem.
func Find(folders []Folder) []Model {
	var out []Model
	at := map[string]int{}
	for _, f := range folders {
		for _, m := range f.find() {
			i, there := at[m.Ref]
			switch {
			case !there:
				at[m.Ref] = len(out)
				out = append(out, m)
			case out[i].Problem != "" && m.Problem == "":
				out[i] = m
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Model) int { return strings.Compare(a.Ref, b.Ref) })
	return out
}

func (f Folder) find() []Model {
	root, err := os.OpenRoot(f.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer root.Close()
		t := &tree{f.Program, f.Dir, root}
		switch f.Program {
		case HuggingFace:
			return t.hubCache()
		case Ollama:
			return t.ollama()
		case LMStudio:
			return t.publishers()
		case LlamaCpp:
			return t.flat()
		}
		err = fmt.Errorf("unknown program %q", f.Program)
	}
	return []Model{{Program: f.Program, Ref: string(f.Program) + ":", Path: f.Dir, Problem: reason(err)}}
}

// A tree is an open folder. Nothing outside of it can be reached through root.
type tree struct {
	program Program
	dir     string
	root    *os.Root
}

func (t *tree) abs(name string) string { return filepath.Join(t.dir, filepath.FromSlash(name)) }

// maxDepth bounds how deep folders are searched.
const maxDepth = 8

// files lists the names of the .gguf files at and below dir, links among them. Linked directories are not entered.
func (t *tree) files(dir string) []string {
	var out []string
	_ = fs.WalkDir(t.root.FS(), dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir // what cannot be read is passed over
		}
		if e.IsDir() {
			if strings.Count(name, "/")-strings.Count(dir, "/") > maxDepth {
				return fs.SkipDir
			}
			return nil
		}
		if IsModel(name) && (e.Type().IsRegular() || e.Type()&fs.ModeSymlink != 0) {
			out = append(out, name)
		}
		return nil
	})
	return out
}

var sumName = regexp.MustCompile(`^(sha256-)?([0-9a-f]{64})$`)

// stat returns size and, if the name or the link's target tells it, the SHA-256 of a regular file.
func (t *tree) stat(name string) (size int64, sum string, err error) {
	info, err := t.root.Stat(name)
	link, lerr := t.root.Readlink(name)
	switch {
	case err != nil && lerr == nil && errors.Is(err, fs.ErrNotExist):
		return 0, "", errors.New("the file that it links to is missing")
	case err != nil && lerr == nil && !errors.Is(err, fs.ErrPermission):
		return 0, "", errors.New("it links to a file outside of this folder; name that file itself")
	case err != nil:
		return 0, "", err
	case !info.Mode().IsRegular():
		return 0, "", errors.New("not a regular file")
	case info.Size() == 0:
		return 0, "", errors.New("damaged: the file is empty")
	}
	target := name
	if lerr == nil {
		target = filepath.ToSlash(link)
	}
	if m := sumName.FindStringSubmatch(path.Base(target)); m != nil {
		sum = m[2]
	}
	return info.Size(), sum, nil
}

// models makes a Model of every file, of several parts one. names are below base; describe fills in what the layout tells.
func (t *tree) models(base string, names []string, describe func(m *Model, file string)) []Model {
	have := map[string]bool{}
	for _, n := range names {
		have[n] = true
	}
	var out []Model
	for _, name := range names {
		parts := gguf.PartNames(name)
		if first := slices.IndexFunc(parts, func(p string) bool { return have[p] }); parts[first] != name {
			continue // it is listed with the first that is there
		}
		m := Model{Program: t.program, Path: t.abs(name)}
		missing := 0
		for _, p := range parts {
			if !have[p] {
				missing++
				continue
			}
			size, sum, err := t.stat(p)
			if err != nil && m.Problem == "" {
				m.Problem = reason(err)
			}
			m.Parts, m.SHA256, m.Bytes = append(m.Parts, t.abs(p)), append(m.SHA256, sum), m.Bytes+size
		}
		if missing > 0 {
			m.Problem = fmt.Sprintf("damaged: %d of its %d parts are missing", missing, len(parts))
		}
		describe(&m, strings.TrimPrefix(name, base+"/"))
		out = append(out, m)
	}
	return out
}

// reason is an error without the path that stands beside it anyway.
func reason(err error) string {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err.Error()
	}
	return err.Error()
}

// publishers is the layout of LM Studio: publisher/model/file.gguf, after the names on the hub.
func (t *tree) publishers() []Model {
	return t.models(".", t.files("."), func(m *Model, file string) {
		m.Ref = "lmstudio:" + file
		if p := strings.SplitN(file, "/", 3); len(p) == 3 {
			m.Repo, m.File = p[0]+"/"+p[1], p[2]
		}
	})
}

// flat is the layout of older versions of llama.cpp: files side by side.
func (t *tree) flat() []Model {
	var names []string
	for _, n := range t.files(".") {
		if !strings.Contains(n, "/") {
			names = append(names, n)
		}
	}
	return t.models(".", names, func(m *Model, file string) { m.Ref = "llamacpp:" + file })
}
