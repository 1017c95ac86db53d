package folders

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Default returns the folders of this user, where the programs' own environment variables and settings put them. They need not exist.
func Default() []Folder {
	home, _ := os.UserHomeDir() // without one, only what the environment names is left
	return places(os.Getenv, home, runtime.GOOS)
}

func places(getenv func(string) string, home, goos string) []Folder {
	var out []Folder
	seen := map[Folder]bool{}
	add := func(p Program, dir ...string) {
		if dir[0] == "" {
			return
		}
		dir[0] = expand(dir[0], home)
		if f := (Folder{p, filepath.Join(dir...)}); filepath.IsAbs(f.Dir) && !seen[f] {
			seen[f] = true
			out = append(out, f)
		}
	}
	// first adds the first of some alternatives that is set.
	first := func(p Program, alternatives ...[]string) {
		for _, a := range alternatives {
			if a[0] != "" {
				add(p, a...)
				return
			}
		}
	}

	llama := getenv("LLAMA_CACHE")
	add(HuggingFace, llama) // where newer versions of llama.cpp keep that layout
	first(HuggingFace, []string{getenv("HF_HUB_CACHE")}, []string{getenv("HUGGINGFACE_HUB_CACHE")}, []string{getenv("HF_HOME"), "hub"},
		[]string{getenv("XDG_CACHE_HOME"), "huggingface", "hub"}, []string{home, ".cache", "huggingface", "hub"})

	studio := filepath.Join(home, ".lmstudio")
	if p, err := os.ReadFile(filepath.Join(home, ".lmstudio-home-pointer")); err == nil && home != "" {
		if dir := strings.TrimSpace(string(p)); filepath.IsAbs(dir) {
			studio = dir
		}
	}
	if home != "" {
		add(LMStudio, downloadsFolder(studio))
		add(LMStudio, studio, "models")
		add(LMStudio, home, ".cache", "lm-studio", "models")
	}

	first(Ollama, []string{getenv("OLLAMA_MODELS")}, []string{home, ".ollama", "models"})
	if goos == "linux" && getenv("OLLAMA_MODELS") == "" {
		add(Ollama, "/usr/share/ollama/.ollama/models") // where it runs as a service
	}

	switch goos {
	case "darwin":
		first(LlamaCpp, []string{llama}, []string{home, "Library", "Caches", "llama.cpp"})
	case "windows":
		first(LlamaCpp, []string{llama}, []string{getenv("LOCALAPPDATA"), "llama.cpp"})
	default:
		first(LlamaCpp, []string{llama}, []string{getenv("XDG_CACHE_HOME"), "llama.cpp"}, []string{home, ".cache", "llama.cpp"})
	}
	return out
}

// expand puts the user's directory in the place of a leading ~.
func expand(dir, home string) string {
	if rest, ok := strings.CutPrefix(dir, "~"); ok && (rest == "" || os.IsPathSeparator(rest[0])) && home != "" {
		return filepath.Join(home, rest)
	}
	return dir
}

// downloadsFolder is where LM Studio's settings put models, "" if they say nothing.
func downloadsFolder(studio string) string {
	var s struct {
		Folder string `json:"downloadsFolder"`
	}
	if data, err := os.ReadFile(filepath.Join(studio, "settings.json")); err != nil || json.Unmarshal(data, &s) != nil {
		return ""
	}
	return s.Folder
}
