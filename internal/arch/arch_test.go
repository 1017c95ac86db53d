// Package arch holds the architecture: which package may import which, and what every package must have.
package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// allowed lists, for each package, what it may import of this module. docs/architecture.md tells the same.
var allowed = map[string][]string{
	"cmd/kvasir":                  {"internal/auth", "internal/bench", "internal/catalog", "internal/config", "internal/folders", "internal/gguf", "internal/hub", "internal/kernel", "internal/kernel/peak", "internal/llm", "internal/lora", "internal/machine", "internal/pipeline", "internal/sched", "internal/server", "internal/store/disk"},
	"internal/arch":               nil,
	"internal/auth":               {"internal/machine/osfile"},
	"internal/bench":              nil,
	"internal/cache":              {"internal/llm"},
	"internal/catalog":            {"internal/llm"},
	"internal/config":             nil,
	"internal/draft":              nil,
	"internal/engine":             {"internal/model", "internal/store", "internal/team"},
	"internal/folders":            {"internal/gguf"},
	"internal/gguf":               {"internal/mmap"},
	"internal/grammar":            nil,
	"internal/hub":                {"internal/config", "internal/folders", "internal/gguf", "internal/machine/osfile"},
	"internal/kernel":             nil,
	"internal/kernel/gemm":        {"internal/kernel"},
	"internal/kernel/peak":        {"internal/kernel"},
	"internal/kernel/vec":         {"internal/kernel"},
	"internal/llm":                nil,
	"internal/lora":               {"internal/gguf", "internal/mmap"},
	"internal/machine":            {"internal/config"},
	"internal/machine/osfile":     nil,
	"internal/mmap":               nil,
	"internal/model":              {"internal/gguf", "internal/kernel", "internal/kernel/gemm", "internal/kernel/vec", "internal/lora", "internal/mmap", "internal/team"},
	"internal/pipeline":           {"internal/cache", "internal/engine", "internal/gguf", "internal/grammar", "internal/kernel", "internal/llm", "internal/lora", "internal/model", "internal/sample", "internal/sched", "internal/store", "internal/store/disk", "internal/template", "internal/token"},
	"internal/sample":             {"internal/kernel", "internal/kernel/vec", "internal/llm"},
	"internal/sched":              {"internal/cache", "internal/draft", "internal/engine", "internal/llm", "internal/store"},
	"internal/server":             {"internal/llm", "internal/wire/openai"},
	"internal/store":              {"internal/cache", "internal/mmap"},
	"internal/store/disk":         {"internal/cache", "internal/machine/osfile", "internal/store"},
	"internal/store/disk/faultfs": {"internal/store"},
	"internal/team":               nil,
	"internal/template":           {"internal/llm"},
	"internal/testmodel":          {"internal/gguf"},
	"internal/token":              {"internal/gguf"},
	"internal/wire/openai":        {"internal/llm"},
}

type pkg struct {
	ImportPath, Dir      string
	Imports, CgoFiles    []string
	GoFiles, TestGoFiles []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json", "kvasir/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var ps []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return ps
		} else if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
}

func TestImportDirections(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "kvasir/")
		may, known := allowed[name]
		if !known && len(p.GoFiles) > 0 {
			t.Errorf("package %s is new: say in this file and in docs/architecture.md what it may import", name)
		}
		for _, i := range p.Imports {
			if rel, ours := strings.CutPrefix(i, "kvasir/"); ours && !slices.Contains(may, rel) {
				t.Errorf("%s must not import %s", name, rel)
			}
			if i == "C" {
				t.Errorf("%s uses cgo", name)
			}
		}
		if len(p.CgoFiles) > 0 {
			t.Errorf("%s uses cgo", name)
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	for _, p := range packages(t) {
		found := len(p.GoFiles) == 0
		for _, f := range p.GoFiles {
			ast, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, f), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if ast.Doc != nil {
				found = true
				if s := ast.Doc.Text(); !strings.HasPrefix(s, "Package "+ast.Name.Name+" ") && !strings.HasPrefix(s, "Command ") {
					t.Errorf("%s: the comment begins %.40q", p.ImportPath, s)
				}
			}
		}
		if !found {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// The table of docs/architecture.md names every package.
func TestArchitecturePageIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	for name := range allowed {
		short := strings.TrimPrefix(strings.TrimPrefix(name, "internal/"), "cmd/kvasir")
		if short != "" && !bytes.Contains(page, []byte("`"+short+"`")) {
			t.Errorf("docs/architecture.md does not name %s", short)
		}
	}
}

func TestNoLargeFiles(t *testing.T) {
	out, err := exec.Command("git", "-C", "../..", "ls-files", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range strings.Split(strings.TrimRight(string(out), "\x00"), "\x00") {
		if st, err := os.Stat(filepath.Join("../..", f)); err == nil && st.Size() > 1<<20 {
			t.Errorf("%s has %d bytes", f, st.Size())
		}
	}
}
