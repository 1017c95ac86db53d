package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"kvasir/internal/gguf"
	"kvasir/internal/testmodel"
)

// An adapter is a model of its own name, with one model and with several, and may be the default; a model that is loaded for its adapter has
// others too.
func TestServeAdapters(t *testing.T) {
	isolateFolders(t)
	file := tinyFile(t)
	other := testmodel.Tiny
	other.Seed = 77
	second := filepath.Join(t.TempDir(), "second.gguf")
	if err := testmodel.Write(second, other); err != nil {
		t.Fatal(err)
	}
	var loras [2]string
	for i := range loras {
		loras[i] = filepath.Join(t.TempDir(), "adapter.gguf")
		if err := testmodel.WriteAdapter(loras[i], testmodel.Tiny, testmodel.Adapter{Rank: 8, Alpha: 8, Type: gguf.F16, Seed: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	one, _ := serving(t, settings(t, "--model", file, "--served-model-name", "m", "--lora", "a="+loras[0], "--lora", "b="+loras[1]+":0.5", "--default-model", "b"))
	several, m := serving(t, settings(t, "--models", "m="+file+",n="+second, "--lora", "a@m="+loras[0]+",b@m="+loras[1]+":0.5,c@n="+loras[0], "--max-loaded", "1", "--default-model", "b"))
	texts := map[string]string{}
	for _, name := range []string{"m", "a", "b"} {
		status, served, text := complete(t, one.URL, name)
		if status != 200 || served != name || text == "" {
			t.Fatalf("%s: %d, %s says %q", name, status, served, text)
		}
		for before, was := range texts {
			if text == was {
				t.Errorf("%s and %s say the same", before, name)
			}
		}
		texts[name] = text
	}
	for _, name := range []string{"c", "b", "n", "a", "m", "unknown"} {
		status, served, text := complete(t, several.URL, name)
		want := texts[name]
		if name == "unknown" {
			want, name = texts["b"], "b"
		}
		if status != 200 || served != name || want != "" && text != want {
			t.Errorf("%s: %d, %s says %q, want %q", name, status, served, text, want)
		}
	}
	if st := m.(*openedModels).Stats(); st.Loads != 5 { // the first for the default
		t.Errorf("%+v", st)
	}
	for _, url := range []string{one.URL, several.URL} {
		if list := get(t, url+"/v1/models"); !strings.Contains(list, `"id":"b","object":"model"`) || !strings.Contains(list, `"parent":"m"`) {
			t.Error(list)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--model", file, "--lora", "a=" + file}, "general.type"},
		{[]string{"--model", file, "--lora", "a=" + file + ".none"}, "--lora a"},
		{[]string{"--model", file, "--served-model-name", "m", "--lora", "a=" + loras[0], "--default-model", "x"}, "m, a"},
		{[]string{"--models", "m=" + file, "--lora", "a@m=" + t.TempDir()}, "adapter_config.json"},
	} {
		m, err := openBackend(context.Background(), settings(t, c.args...), slog.New(slog.DiscardHandler), prometheus.NewRegistry())
		if err == nil {
			m.Close(canceled())
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}

// The digest of a folder depends on each of its files, and on which is which.
func TestAdapterDigest(t *testing.T) {
	dir := t.TempDir()
	seen := map[[32]byte]string{}
	for _, c := range [][2]string{{"x", "y"}, {"x", "z"}, {"y", "x"}, {"z", "y"}} {
		putFile(t, filepath.Join(dir, "adapter_config.json"), []byte(c[0]))
		putFile(t, filepath.Join(dir, "adapter_model.safetensors"), []byte(c[1]))
		d, err := adapterDigest(dir, "")
		if err != nil {
			t.Fatal(err)
		}
		if other, twice := seen[d]; twice {
			t.Errorf("%v and %s have the same digest", c, other)
		}
		seen[d] = c[0] + c[1]
	}
	if _, err := adapterDigest(t.TempDir(), ""); err == nil {
		t.Error("an empty folder has a digest")
	}
}
