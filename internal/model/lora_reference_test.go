package model_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/lora"
	"kvasir/internal/model"
)

// gunzip reads a compressed file.
func gunzip(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b
}

// folder makes a PEFT folder of a reference adapter.
func folder(t *testing.T, name string) string {
	t.Helper()
	dir := t.TempDir()
	config, err := os.ReadFile("testdata/lora/" + name + ".config.json")
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string][]byte{"adapter_config.json": config, "adapter_model.safetensors": gunzip(t, "testdata/lora/"+name+".safetensors.gz")} {
		if err := os.WriteFile(filepath.Join(dir, file), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Adapters in both forms against transformers in float32; testdata/lora/make.py makes them.
func TestAdapterReference(t *testing.T) {
	files, err := filepath.Glob("testdata/lora/*.gguf.gz")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d reference adapters (%v)", len(files), err)
	}
	for _, path := range files {
		name := strings.TrimSuffix(filepath.Base(path), ".gguf.gz")
		t.Run(name, func(t *testing.T) {
			var want struct {
				IDs    []int32
				Logits map[int][]float32
			}
			b, err := os.ReadFile("testdata/lora/" + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(b, &want); err != nil {
				t.Fatal(err)
			}
			m := loadBytes(t, unpack(t, name), model.Options{Path: kernel.Available()[0], BlockSize: 32, Accurate: true})
			peft, err := lora.Open(folder(t, name))
			if err != nil {
				t.Fatal(err)
			}
			defer peft.Close()
			plain := adaptedLogits(t, m, want.IDs, 100)
			var first [][]float32
			for form, f := range map[string]*lora.File{"GGUF": parseAdapter(t, gunzip(t, path)), "PEFT": peft} {
				got := adaptedLogits(t, m, want.IDs, 100, model.AdapterUse{Adapter: adapt(t, m, f), Scale: 1})
				worst, effect := 0.0, 0.0
				for pos, row := range want.Logits {
					worst, effect = max(worst, difference(got[pos], row)), max(effect, difference(plain[pos], row))
				}
				t.Logf("%s: largest difference %.2g of the logits' range, the adapter makes %.2g", form, worst, effect)
				if !(worst < 2e-3) {
					t.Errorf("%s differs by %.2g of the logits' range", form, worst)
				}
				if effect < 0.05 {
					t.Errorf("%s changes the logits by %.2g of their range only", form, effect)
				}
				// The same values give the same bits, whatever floats the file has. alpha/√rank is not in the other form.
				if first != nil && name != "mistral3" && !slices.EqualFunc(first, got, func(a, b []float32) bool { return slices.Equal(a, b) }) {
					t.Error("the two forms give different bits")
				}
				first = got
			}
		})
	}
}
