package folders

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

var (
	commitName = regexp.MustCompile(`^[0-9a-f]{40}$`)
	plainName  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]*$`)
	blobDigest = regexp.MustCompile(`^sha256[:-]([0-9a-f]{64})$`)
)

// hubCache is the layout of the Hugging Face cache. A file in several snapshots is listed once, as the newest main has it.
func (t *tree) hubCache() []Model {
	var out []Model
	entries, err := fs.ReadDir(t.root.FS(), ".")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), "models--")
		owner, repo, two := strings.Cut(name, "--")
		if !ok || !two || !e.IsDir() || !plainName.MatchString(owner) || !plainName.MatchString(repo) {
			continue
		}
		seen := map[string]bool{}
		for _, dir := range t.snapshots(e.Name()) {
			for _, m := range t.models(dir, t.files(dir), func(m *Model, file string) {
				m.Repo, m.File = owner+"/"+repo, file
				m.Ref = "hf:" + m.Repo + "/" + file
			}) {
				if !seen[m.Ref] {
					seen[m.Ref] = true
					out = append(out, m)
				}
			}
		}
	}
	return out
}

// snapshots lists the commits of a repository that are here, main's first.
func (t *tree) snapshots(repo string) []string {
	entries, err := fs.ReadDir(t.root.FS(), path.Join(repo, "snapshots"))
	if err != nil {
		return nil
	}
	main, _ := t.read(path.Join(repo, "refs", "main"), 100)
	var out []string
	for _, e := range entries {
		if !e.IsDir() || !commitName.MatchString(e.Name()) {
			continue
		}
		dir := path.Join(repo, "snapshots", e.Name())
		if e.Name() == strings.TrimSpace(string(main)) {
			out = slices.Insert(out, 0, dir)
		} else {
			out = append(out, dir)
		}
	}
	return out
}

// read returns a small file.
func (t *tree) read(name string, limit int64) ([]byte, error) {
	f, err := t.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, errors.New("not a regular file"))
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}

// manifest is what counts of Ollama's description of a model. Its layers are files under blobs.
type manifest struct {
	Layers []struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	} `json:"layers"`
}

const (
	layerModel   = "application/vnd.ollama.image.model"
	layerAdapter = "application/vnd.ollama.image.adapter"
	ollamaHost   = "registry.ollama.ai"
	ollamaOwner  = "library"
)

// ollama is the layout of Ollama. The file is the model's first layer; further layers (template, parameters) are Ollama's own.
func (t *tree) ollama() []Model {
	var out []Model
	_ = fs.WalkDir(t.root.FS(), "manifests", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return fs.SkipDir
		}
		p := strings.Split(name, "/")[1:]
		if e.IsDir() {
			if len(p) > 3 {
				return fs.SkipDir
			}
			return nil
		}
		if len(p) != 4 || slices.ContainsFunc(p, func(s string) bool { return !plainName.MatchString(s) }) {
			return nil
		}
		out = append(out, t.ollamaModel(name, p[0], p[1], p[2], p[3]))
		return nil
	})
	return out
}

func (t *tree) ollamaModel(name, host, owner, model, tag string) Model {
	m := Model{Program: Ollama, Path: t.abs(name)}
	switch {
	case host == ollamaHost && owner == ollamaOwner:
		m.Ref = "ollama:" + model + ":" + tag
	case host == ollamaHost:
		m.Ref = "ollama:" + owner + "/" + model + ":" + tag
	default:
		m.Ref = "ollama:" + host + "/" + owner + "/" + model + ":" + tag
	}
	if host == "hf.co" || host == "huggingface.co" {
		m.Repo, m.Tag = owner+"/"+model, tag
	}
	var mf manifest
	data, err := t.read(name, 1<<20)
	if err == nil {
		err = json.Unmarshal(data, &mf)
	}
	if err != nil {
		m.Problem = "damaged: its manifest cannot be read: " + reason(err)
		return m
	}
	weights := 0
	for _, l := range mf.Layers {
		switch l.MediaType {
		case layerAdapter:
			m.Problem = "it is a LoRA adapter over a base model, which Ollama joins itself"
		case layerModel:
			d := blobDigest.FindStringSubmatch(l.Digest)
			if d == nil {
				m.Problem = "damaged: its manifest names no SHA-256"
				continue
			}
			weights++
			blob := "blobs/sha256-" + d[1]
			size, _, err := t.stat(blob)
			switch {
			case errors.Is(err, fs.ErrNotExist):
				m.Problem = "damaged: its weights are missing"
			case err != nil:
				m.Problem = reason(err)
			case l.Size > 0 && size != l.Size:
				m.Problem = fmt.Sprintf("damaged: its weights have %d bytes, the manifest says %d", size, l.Size)
			}
			m.Path, m.Bytes = t.abs(blob), m.Bytes+size
			m.Parts, m.SHA256 = append(m.Parts, m.Path), append(m.SHA256, d[1])
		}
	}
	switch {
	case m.Problem != "":
	case weights == 0:
		m.Problem = "it has no weights in one GGUF file"
	case weights > 1:
		m.Problem = fmt.Sprintf("its weights are %d files without the names of parts", weights)
	}
	return m
}
