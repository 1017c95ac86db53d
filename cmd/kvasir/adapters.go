package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"

	"kvasir/internal/hub"
	"kvasir/internal/llm"
	"kvasir/internal/lora"
	"kvasir/internal/pipeline"
)

// adapt gives a model, which is served under the names, its adapters of --lora: those that name it, or all if there is one model only. It opens
// each, so that one that is no adapter is found out now.
func (h *host) adapt(m *found, names []string) error {
	all, err := h.s.Adapters()
	if err != nil {
		return fmt.Errorf("--lora: %w", err)
	}
	for _, a := range all {
		if a.Model != "" && !slices.Contains(names, a.Model) {
			continue
		}
		f, err := lora.Open(a.Path)
		if err != nil {
			return fmt.Errorf("--lora %s: %w", a.Name, err)
		}
		size, memory := f.Size, f.Memory()
		digest, err := adapterDigest(a.Path, hubOptions(h.s, os.Stderr).DigestFile)
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("--lora %s: %w", a.Name, err)
		}
		m.adapters = append(m.adapters, pipeline.Adapter{Name: a.Name, Path: a.Path, Digest: digest, Scale: a.Scale})
		m.adapterInfo = append(m.adapterInfo, llm.ModelInfo{ID: a.Name, Parent: names[0], Bytes: size, Digest: fmt.Sprintf("%x", digest)})
		m.adapterBytes += memory
	}
	return nil
}

// adapterDigest is the digest of a file, or of a folder one over those of its files.
func adapterDigest(path, cacheFile string) ([32]byte, error) {
	files, err := lora.Files(path)
	if err != nil {
		return [32]byte{}, err
	}
	if len(files) == 1 {
		return hub.Digest(files[0], cacheFile)
	}
	text := "kvasir adapter folder 1\n"
	for _, f := range files {
		d, err := hub.Digest(f, cacheFile)
		if err != nil {
			return d, err
		}
		text += fmt.Sprintf("%x\n", d)
	}
	return sha256.Sum256([]byte(text)), nil
}
