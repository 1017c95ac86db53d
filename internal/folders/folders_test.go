package folders

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const (
	commit  = "0123456789abcdef0123456789abcdef01234567"
	commit2 = "1123456789abcdef0123456789abcdef01234567"
)

var sumA, sumB = strings.Repeat("a", 64), strings.Repeat("b", 64)

// put writes a file below dir.
func put(t *testing.T, dir, name, data string) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, dir, name, target string) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.FromSlash(target), p); err != nil {
		t.Fatal(err)
	}
}

// snapshot reads a tree back, to see that nothing in it has changed.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		b.WriteString(p + info.Mode().String() + info.ModTime().String() + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

type row struct {
	bytes   int64
	sum     string // of the first part
	path    string // below the folder
	problem string // part of it
}

// check compares what a folder holds with what is wanted, by reference.
func check(t *testing.T, f Folder, want map[string]row) {
	t.Helper()
	before := snapshot(t, f.Dir)
	got := Find([]Folder{f})
	if after := snapshot(t, f.Dir); after != before {
		t.Error("the folder was changed")
	}
	for _, m := range got {
		w, ok := want[m.Ref]
		if !ok {
			t.Errorf("%s is listed: %+v", m.Ref, m)
			continue
		}
		delete(want, m.Ref)
		if w.problem == "" && m.Problem != "" || !strings.Contains(m.Problem, w.problem) {
			t.Errorf("%s: problem %q, want %q", m.Ref, m.Problem, w.problem)
		}
		if w.problem == "" && (m.Bytes != w.bytes || m.SHA256[0] != w.sum || m.Path != filepath.Join(f.Dir, filepath.FromSlash(w.path)) || m.Parts[0] != m.Path) {
			t.Errorf("%s: %+v, want %+v", m.Ref, m, w)
		}
	}
	for ref := range want {
		t.Errorf("%s is not listed", ref)
	}
}

func hubCache(t *testing.T) Folder {
	dir := t.TempDir()
	put(t, dir, "models--o--r/refs/main", commit+"\n")
	put(t, dir, "models--o--r/blobs/"+sumA, "12345")
	put(t, dir, "models--o--r/blobs/"+sumB, "123")
	for _, c := range []string{commit, commit2} {
		link(t, dir, "models--o--r/snapshots/"+c+"/m-Q4_K_M.gguf", "../../blobs/"+map[string]string{commit: sumA, commit2: sumB}[c])
	}
	link(t, dir, "models--o--r/snapshots/"+commit2+"/old.gguf", "../../blobs/"+sumB)
	put(t, dir, "models--o--r/snapshots/"+commit+"/dir/plain-Q8_0.gguf", "1234567") // as on systems without links
	link(t, dir, "models--o--r/snapshots/"+commit+"/gone.gguf", "../../blobs/"+strings.Repeat("c", 64))
	link(t, dir, "models--o--r/snapshots/"+commit+"/mmproj-F16.gguf", "../../blobs/"+sumA)
	link(t, dir, "models--o--r/snapshots/"+commit+"/loop", "..")
	put(t, dir, "models--o--r/snapshots/"+commit+"/config.json", "{}")
	put(t, dir, "models--o--s/snapshots/"+commit+"/b-00001-of-00002.gguf", "1")
	put(t, dir, "models--o--s/snapshots/"+commit+"/b-00002-of-00002.gguf", "22")
	put(t, dir, "models--o--s/snapshots/"+commit+"/c-00002-of-00003.gguf", "22")
	put(t, dir, "models--noowner/snapshots/"+commit+"/x.gguf", "1")
	put(t, dir, "datasets--o--d/snapshots/"+commit+"/x.gguf", "1")
	put(t, dir, "models--o--r/snapshots/not-a-commit/x.gguf", "1")
	return Folder{HuggingFace, dir}
}

func TestHubCache(t *testing.T) {
	f := hubCache(t)
	outside := t.TempDir()
	put(t, outside, "secret.gguf", "GGUF")
	link(t, f.Dir, "models--o--r/snapshots/"+commit+"/out.gguf", filepath.Join(outside, "secret.gguf"))
	link(t, f.Dir, "models--o--r/snapshots/"+commit+"/up.gguf", "../../../../"+filepath.Base(outside)+"/secret.gguf")
	link(t, f.Dir, "models--o--r/snapshots/"+commit+"/outdir", outside)
	s := "models--o--r/snapshots/" + commit
	check(t, f, map[string]row{
		"hf:o/r/m-Q4_K_M.gguf":         {5, sumA, s + "/m-Q4_K_M.gguf", ""},
		"hf:o/r/old.gguf":              {3, sumB, "models--o--r/snapshots/" + commit2 + "/old.gguf", ""},
		"hf:o/r/dir/plain-Q8_0.gguf":   {7, "", s + "/dir/plain-Q8_0.gguf", ""},
		"hf:o/r/gone.gguf":             {problem: "missing"},
		"hf:o/r/out.gguf":              {problem: "outside"},
		"hf:o/r/up.gguf":               {problem: "outside"},
		"hf:o/s/b-00001-of-00002.gguf": {3, "", "models--o--s/snapshots/" + commit + "/b-00001-of-00002.gguf", ""},
		"hf:o/s/c-00002-of-00003.gguf": {problem: "2 of its 3 parts are missing"},
	})
}

func ollamaManifest(t *testing.T, dir, name string, layers ...any) {
	t.Helper()
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "layers": layers})
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "manifests/"+name, string(b))
}

func layer(kind, digest string, size int) any {
	return map[string]any{"mediaType": "application/vnd.ollama.image." + kind, "digest": digest, "size": size}
}

func ollamaFolder(t *testing.T) Folder {
	dir := t.TempDir()
	put(t, dir, "blobs/sha256-"+sumA, "12345")
	put(t, dir, "blobs/sha256-"+sumB, "123")
	ollamaManifest(t, dir, "registry.ollama.ai/library/gemma3/270m", layer("license", "sha256:"+sumB, 3), layer("model", "sha256:"+sumA, 5))
	ollamaManifest(t, dir, "registry.ollama.ai/library/gemma3/latest", layer("model", "sha256:"+sumB, 3))
	ollamaManifest(t, dir, "registry.ollama.ai/me/mine/v1", layer("model", "sha256-"+sumA, 5))
	ollamaManifest(t, dir, "hf.co/o/r/Q4_K_M", layer("model", "sha256:"+sumA, 5))
	return Folder{Ollama, dir}
}

func TestOllama(t *testing.T) {
	f := ollamaFolder(t)
	lib := "registry.ollama.ai/library/"
	ollamaManifest(t, f.Dir, lib+"short/latest", layer("model", "sha256:"+sumA, 9))
	ollamaManifest(t, f.Dir, lib+"gone/latest", layer("model", "sha256:"+strings.Repeat("c", 64), 9))
	ollamaManifest(t, f.Dir, lib+"evil/latest", layer("model", "sha256:../../../../etc/passwd", 9))
	ollamaManifest(t, f.Dir, lib+"cloud/latest")
	ollamaManifest(t, f.Dir, lib+"lora/latest", layer("model", "sha256:"+sumA, 5), layer("adapter", "sha256:"+sumB, 3))
	ollamaManifest(t, f.Dir, lib+"two/latest", layer("model", "sha256:"+sumA, 5), layer("model", "sha256:"+sumB, 3))
	put(t, f.Dir, "manifests/"+lib+"bad/latest", "{")
	put(t, f.Dir, "manifests/"+lib+"huge/latest", strings.Repeat(" ", 2<<20))
	put(t, f.Dir, "manifests/"+lib+"odd name/latest", "{}")
	put(t, f.Dir, "manifests/"+lib+"deep/er/latest", "{}")
	a := "blobs/sha256-" + sumA
	check(t, f, map[string]row{
		"ollama:gemma3:270m":      {5, sumA, a, ""},
		"ollama:gemma3:latest":    {3, sumB, "blobs/sha256-" + sumB, ""},
		"ollama:me/mine:v1":       {5, sumA, a, ""},
		"ollama:hf.co/o/r:Q4_K_M": {5, sumA, a, ""},
		"ollama:short:latest":     {problem: "5 bytes, the manifest says 9"},
		"ollama:gone:latest":      {problem: "missing"},
		"ollama:evil:latest":      {problem: "no SHA-256"},
		"ollama:cloud:latest":     {problem: "no weights"},
		"ollama:lora:latest":      {problem: "LoRA"},
		"ollama:two:latest":       {problem: "2 files"},
		"ollama:bad:latest":       {problem: "damaged"},
		"ollama:huge:latest":      {problem: "larger"},
	})
}

func TestFlatLayouts(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "pub/model/m-Q4_K_M.gguf", "123")
	put(t, dir, "pub/model/empty.gguf", "")
	put(t, dir, "x.GGUF", "1")
	put(t, dir, "x.gguf.part", "1")
	check(t, Folder{LMStudio, dir}, map[string]row{
		"lmstudio:pub/model/m-Q4_K_M.gguf": {3, "", "pub/model/m-Q4_K_M.gguf", ""},
		"lmstudio:pub/model/empty.gguf":    {problem: "empty"},
		"lmstudio:x.GGUF":                  {1, "", "x.GGUF", ""},
	})
	check(t, Folder{LlamaCpp, dir}, map[string]row{"llamacpp:x.GGUF": {1, "", "x.GGUF", ""}})

	if got := Find([]Folder{{Ollama, filepath.Join(dir, "none")}}); len(got) != 0 {
		t.Errorf("a folder that is not there: %v", got)
	}
	if got := Find([]Folder{{Ollama, filepath.Join(dir, "x.GGUF")}}); len(got) != 1 || got[0].Problem == "" {
		t.Errorf("a file in the place of a folder: %v", got)
	}
	other := t.TempDir()
	put(t, other, "pub/model/empty.gguf", "whole")
	both := Find([]Folder{{LMStudio, dir}, {LMStudio, other}})
	if i := slices.IndexFunc(both, func(m Model) bool { return m.Ref == "lmstudio:pub/model/empty.gguf" }); len(both) != 3 || both[i].Problem != "" {
		t.Errorf("a good one after a damaged one: %+v", both)
	}
}

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "pub/model-GGUF/m-Q4_K_M.gguf", "123")
	put(t, dir, "pub/model-GGUF/m-Q8_0.gguf", "1234")
	put(t, dir, "pub/one/one.gguf", "12345")
	put(t, dir, "other/one/two.gguf", "1")
	llama := t.TempDir()
	put(t, llama, "o_r_m.gguf", "1")
	all := []Folder{{LMStudio, dir}, ollamaFolder(t), hubCache(t), {LlamaCpp, llama}}
	for _, c := range []struct {
		ref, want string // of the Model; "" is ErrNotFound
	}{
		{"ollama:gemma3:270m", "ollama:gemma3:270m"},
		{"ollama:GEMMA3:270M", "ollama:gemma3:270m"},
		{"ollama:gemma3", "ollama:gemma3:latest"},
		{"ollama:hf.co/o/r:q4_k_m", "ollama:hf.co/o/r:Q4_K_M"},
		{"ollama:gemma3:1b", ""},
		{"ollama:", ""},
		{"lmstudio:pub/model-GGUF/m-Q8_0.gguf", "lmstudio:pub/model-GGUF/m-Q8_0.gguf"},
		{"lmstudio:pub/model-gguf/m-q8_0", "lmstudio:pub/model-GGUF/m-Q8_0.gguf"},
		{"lmstudio:pub/model-GGUF", "lmstudio:pub/model-GGUF/m-Q4_K_M.gguf"},
		{"lmstudio:pub/model-GGUF:Q8_0", "lmstudio:pub/model-GGUF/m-Q8_0.gguf"},
		{"lmstudio:m-Q8_0", "lmstudio:pub/model-GGUF/m-Q8_0.gguf"},
		{"lmstudio:two.gguf", "lmstudio:other/one/two.gguf"},
		{"lmstudio:one", ""}, // fits two
		{"lmstudio:-Q8_0", ""},
		{"lmstudio:../../etc/passwd", ""},
		{"llamacpp:o_r_m", "llamacpp:o_r_m.gguf"},
		{"llamacpp:m", ""},
	} {
		m, err := Lookup(all, c.ref)
		if c.want == "" && !errors.Is(err, ErrNotFound) || c.want != "" && (err != nil || m.Ref != c.want) {
			t.Errorf("%s: %q, %v", c.ref, m.Ref, err)
		}
		if !Refers(c.ref) {
			t.Errorf("%s does not refer to a folder", c.ref)
		}
	}
	for _, ref := range []string{"hf:o/r", "smollm2:135m", "ollama", "./m.gguf"} {
		if Refers(ref) {
			t.Errorf("%s refers to a folder", ref)
		}
	}
	if _, err := Lookup(all, "ollama:nope"); !strings.Contains(err.Error(), "ollama:gemma3:270m") {
		t.Errorf("%v does not say what is there", err)
	}

	for _, c := range []struct{ repo, file, tag, want string }{
		{"o/r", "m-Q4_K_M.gguf", "", "hf:o/r/m-Q4_K_M.gguf"},
		{"o/r", "gone.gguf", "", ""},
		{"o/r", "", "Q8_0", "hf:o/r/dir/plain-Q8_0.gguf"},
		{"O/R", "", "", "hf:o/r/m-Q4_K_M.gguf"},
		{"o/s", "b-00001-of-00002.gguf", "", "hf:o/s/b-00001-of-00002.gguf"},
		{"o/s", "c-00002-of-00003.gguf", "", ""},
		{"pub/model-GGUF", "m-Q8_0.gguf", "", "lmstudio:pub/model-GGUF/m-Q8_0.gguf"},
		{"o/t", "", "", ""},
	} {
		if m, ok := LookupHub(all, c.repo, c.file, c.tag); m.Ref != c.want || ok != (c.want != "") {
			t.Errorf("%+v: %q", c, m.Ref)
		}
	}
	if m, ok := LookupHub([]Folder{ollamaFolder(t)}, "o/r", "", "q4_k_m"); !ok || m.Ref != "ollama:hf.co/o/r:Q4_K_M" {
		t.Errorf("what Ollama has from the hub: %+v", m)
	}
}

func TestChoose(t *testing.T) {
	names := []string{
		"README.md", "imatrix_unsloth.gguf", "mmproj-F16.gguf", "BF16/m-BF16-00002-of-00002.gguf", "BF16/m-BF16-00001-of-00002.gguf",
		"UD-Q4_K_XL/m-x-00001-of-00001.gguf", "m-IQ4_XS.gguf", "m-Q4_0.gguf", "m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m.Q5_K_M.gguf", "m_q6_k.gguf", "m-Q8_0-v2.gguf", "mtp-m-Q8_0.gguf",
	}
	for tag, want := range map[string]string{
		"": "m-Q4_K_M.gguf", "Q4_K_M": "m-Q4_K_M.gguf", "q4_k_m": "m-Q4_K_M.gguf", "Q4_0": "m-Q4_0.gguf", "Q5_K_M": "m.Q5_K_M.gguf", "Q6_K": "m_q6_k.gguf",
		"Q8_0": "m-Q8_0-v2.gguf", "BF16": "BF16/m-BF16-00001-of-00002.gguf", "UD-Q4_K_XL": "UD-Q4_K_XL/m-x-00001-of-00001.gguf", "Q4_K_XL": "UD-Q4_K_XL/m-x-00001-of-00001.gguf",
		"IQ4_XS": "m-IQ4_XS.gguf", "Q4": "", "Q4_K": "", "Q2_K": "", ".*": "", "F16": "", "[": "",
	} {
		if got, ok := Choose(names, tag); got != want || ok != (want != "") {
			t.Errorf("%q: %q, want %q", tag, got, want)
		}
	}
	for _, c := range []struct {
		names []string
		want  string
	}{
		{[]string{"a-F16.gguf", "b-Q8_0.gguf"}, "b-Q8_0.gguf"},
		{[]string{"x.txt", "a-F16.gguf", "b-F32.gguf"}, "a-F16.gguf"},
		{[]string{"mmproj.gguf"}, ""},
		{nil, ""},
	} {
		if got, _ := Choose(c.names, ""); got != c.want {
			t.Errorf("%v: %q, want %q", c.names, got, c.want)
		}
	}
	want := []string{"BF16", "IQ4_XS", "Q4_0", "Q4_K_M", "Q4_K_S", "Q5_K_M", "V2", "X"}
	if got := Tags(names); !slices.Equal(got, want) {
		t.Errorf("tags %v, want %v", got, want)
	}
}

func TestPlaces(t *testing.T) {
	home := t.TempDir()
	studio := filepath.Join(home, "studio")
	put(t, home, ".lmstudio-home-pointer", studio+"\n")
	elsewhere := filepath.Join(home, "elsewhere")
	settings, _ := json.Marshal(map[string]string{"downloadsFolder": elsewhere})
	put(t, studio, "settings.json", string(settings))
	abs := func(p ...string) string { return filepath.Join(append([]string{home}, p...)...) }
	for _, c := range []struct {
		env  map[string]string
		goos string
		want []Folder
	}{
		{nil, "linux", []Folder{{HuggingFace, abs(".cache", "huggingface", "hub")}, {LMStudio, elsewhere}, {LMStudio, abs("studio", "models")}, {LMStudio, abs(".cache", "lm-studio", "models")},
			{Ollama, abs(".ollama", "models")}, {Ollama, "/usr/share/ollama/.ollama/models"}, {LlamaCpp, abs(".cache", "llama.cpp")}}},
		{map[string]string{"LLAMA_CACHE": abs("l"), "HF_HOME": "~/hf", "OLLAMA_MODELS": abs("o")}, "linux", []Folder{{HuggingFace, abs("l")}, {HuggingFace, abs("hf", "hub")},
			{LMStudio, elsewhere}, {LMStudio, abs("studio", "models")}, {LMStudio, abs(".cache", "lm-studio", "models")}, {Ollama, abs("o")}, {LlamaCpp, abs("l")}}},
		{map[string]string{"HF_HUB_CACHE": abs("h"), "HF_HOME": abs("hf"), "XDG_CACHE_HOME": abs("x")}, "darwin", []Folder{{HuggingFace, abs("h")}, {LMStudio, elsewhere}, {LMStudio, abs("studio", "models")},
			{LMStudio, abs(".cache", "lm-studio", "models")}, {Ollama, abs(".ollama", "models")}, {LlamaCpp, abs("Library", "Caches", "llama.cpp")}}},
	} {
		got := places(func(k string) string { return c.env[k] }, home, c.goos)
		if runtime.GOOS == "windows" {
			got = slices.DeleteFunc(got, func(f Folder) bool { return !strings.HasPrefix(f.Dir, home) })
			c.want = slices.DeleteFunc(c.want, func(f Folder) bool { return !strings.HasPrefix(f.Dir, home) })
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%v on %s:\n%v, want\n%v", c.env, c.goos, got, c.want)
		}
	}
	if got := places(func(string) string { return "" }, "", "linux"); len(got) != 1 {
		t.Errorf("without a home: %v", got)
	}
}
