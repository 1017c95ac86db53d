package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"kvasir/internal/config"
	"kvasir/internal/server"
	"kvasir/internal/testmodel"
)

// isolateFolders keeps the models of other programs on this machine out of a test. It returns the home directory.
func isolateFolders(t *testing.T) string {
	t.Helper()
	isolate(t)
	home := os.Getenv("HOME")
	t.Setenv("USERPROFILE", home)
	for _, name := range []string{"LLAMA_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"} {
		t.Setenv(name, "")
	}
	t.Setenv("OLLAMA_MODELS", filepath.Join(home, "ollama"))
	return home
}

func putFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestLsShowsFoldersOfOthers(t *testing.T) {
	home := isolateFolders(t)
	model := testmodel.Build(testmodel.Tiny)
	sum := fmt.Sprintf("%x", sha256.Sum256(model))
	putFile(t, filepath.Join(home, "ollama", "blobs", "sha256-"+sum), model)
	putFile(t, filepath.Join(home, "ollama", "manifests", "registry.ollama.ai", "library", "tiny", "1b"),
		[]byte(`{"layers":[{"mediaType":"application/vnd.ollama.image.model","digest":"sha256:`+sum+`","size":`+fmt.Sprint(len(model))+`}]}`))
	studio := filepath.Join(home, ".lmstudio", "models")
	putFile(t, filepath.Join(studio, "pub", "model", "cut-Q8_0.gguf"), model[:len(model)/2])
	other := slices.Clone(model)
	copy(other[strings.Index(string(other), "general.architecture")+len("general.architecture")+12:], "gptx\n")
	putFile(t, filepath.Join(studio, "pub", "model", "other.gguf"), other)
	out, err := command(context.Background(), "ls")
	if err != nil {
		t.Fatal(err)
	}
	line := func(name string) string {
		for l := range strings.Lines(out) {
			if strings.HasPrefix(l, name+" ") {
				return strings.Join(strings.Fields(l), " ")
			}
		}
		t.Fatalf("%s is not listed:\n%s", name, out)
		return ""
	}
	if l := line("ollama:tiny:1b"); !strings.Contains(l, "llama Q8_0 4096 "+filepath.Join(home, "ollama", "blobs")) || !strings.HasSuffix(l, " yes") {
		t.Error(l)
	}
	if l := line("lmstudio:pub/model/cut-Q8_0.gguf"); !strings.Contains(l, " no: damaged") {
		t.Error(l)
	}
	if l := line("lmstudio:pub/model/other.gguf"); !strings.Contains(l, "gptx?") || !strings.Contains(l, " no: architecture") || !strings.Contains(l, "known: ") {
		t.Error(l)
	}
	if l := line(config.DefaultModel); !strings.Contains(l, "not fetched") {
		t.Error(l)
	}
	if out, err := command(context.Background(), "ls", "--folders", "off"); err != nil || strings.Contains(out, "ollama:") || strings.Contains(out, "lmstudio:") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = command(context.Background(), "pull", "--offline", "ollama:tiny:1b")
	if err != nil || strings.TrimSpace(out) != filepath.Join(home, "ollama", "blobs", "sha256-"+sum) {
		t.Errorf("%v\n%s", err, out)
	}
}

// settings are those of a command line.
func settings(t *testing.T, args ...string) *config.Serve {
	t.Helper()
	var s config.Serve
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.Bind(fs, &s)
	if err := fs.Parse(append([]string{"--data-dir", t.TempDir(), "--model-dir", t.TempDir(), "--offline", "--threads", "1", "--cache-mem", "32MiB", "--cache-disk", "0"}, args...)); err != nil {
		t.Fatal(err)
	}
	if err := config.Load(fs); err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return &s
}

// serving starts a server without a network around the settings.
func serving(t *testing.T, s *config.Serve) (*httptest.Server, backend) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	reg := prometheus.NewRegistry()
	m, err := openBackend(context.Background(), s, log, reg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close(canceled()) })
	var g loading
	g.model.Store(&m)
	srv := httptest.NewServer(server.New(&g, server.Options{DefaultModel: s.DefaultModel, Log: log, Registry: reg}).Handler())
	t.Cleanup(srv.Close)
	return srv, m
}

// complete asks for a completion and returns status, model and text, or the error's message.
func complete(t *testing.T, url, model string) (status int, served, text string) {
	t.Helper()
	resp, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(`{"model":"`+model+`","prompt":"the same beginning","max_tokens":12,"temperature":0}`))
	if err != nil {
		t.Error(err)
		return 0, "", ""
	}
	defer resp.Body.Close()
	var body struct {
		Model   string
		Choices []struct{ Text string }
		Error   struct{ Message, Code, Param string }
	}
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Error(err)
	}
	if len(body.Choices) == 0 {
		return resp.StatusCode, body.Error.Param, body.Error.Message
	}
	return resp.StatusCode, body.Model, body.Choices[0].Text
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestServeSeveralModels(t *testing.T) {
	isolateFolders(t)
	var files, alone []string
	for seed := range uint64(2) {
		c := testmodel.Tiny
		c.Seed = seed + 10
		file := filepath.Join(t.TempDir(), "tiny.gguf")
		if err := testmodel.Write(file, c); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
		srv, _ := serving(t, settings(t, "--model", file, "--served-model-name", "m"))
		_, _, text := complete(t, srv.URL, "m")
		alone = append(alone, text)
	}
	if alone[0] == alone[1] || alone[0] == "" {
		t.Fatalf("the models say %q and %q", alone[0], alone[1])
	}
	for _, most := range []string{"0", "1"} {
		s := settings(t, "--models", "a="+files[0]+",b="+files[1]+",gpt-4o="+files[0], "--max-loaded", most)
		srv, m := serving(t, s)
		if got := get(t, srv.URL+"/v1/models"); strings.Count(got, `"id"`) != 3 || !strings.Contains(got, `"gpt-4o"`) || !strings.Contains(got, `"max_model_len":`) {
			t.Error(got)
		}
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				name, want := [...]string{"a", "b", "gpt-4o", "b"}[i%4], alone[i%2]
				if status, served, text := complete(t, srv.URL, name); status != 200 || served != name || text != want {
					t.Errorf("%s: %d, %s says %q, want %q", name, status, served, text, want)
				}
			})
		}
		wg.Wait()
		if status, param, msg := complete(t, srv.URL, "c"); status != 404 || param != "model" || !strings.Contains(msg, "gpt-4o") {
			t.Errorf("unknown name: %d %q %s", status, param, msg)
		}
		st := m.(*openedModels).Stats()
		if most == "0" && (st.Loads != 2 || st.Loaded != 2 || st.Unloads != 0) || most == "1" && (st.Loaded != 1 || st.Loads < 2 || st.Loads != st.Unloads+1) {
			t.Errorf("--max-loaded %s: %+v", most, st)
		}
		metrics := get(t, srv.URL+"/metrics")
		if n := strings.Count(metrics, "kvasir_kv_blocks_total{"); n != st.Loaded || !strings.Contains(metrics, "kvasir_models_loaded") {
			t.Errorf("%d models have metrics:\n%s", n, metrics)
		}
	}
}

func TestDefaultModel(t *testing.T) {
	isolateFolders(t)
	file := tinyFile(t)
	for _, args := range [][]string{{"--model", file, "--served-model-name", "m"}, {"--models", "x=" + file + ",m=" + file}} {
		srv, _ := serving(t, settings(t, append(args, "--default-model", "m")...))
		for _, name := range []string{"m", "gpt-3.5-turbo"} {
			if status, served, text := complete(t, srv.URL, name); status != 200 || served != "m" || text == "" {
				t.Errorf("%v: %s: %d %s %q", args[0], name, status, served, text)
			}
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--model", file, "--default-model", "other"}, "--default-model"},
		{[]string{"--models", "x=" + file + ",y=" + file + "x.gguf"}, "--models y"},
		{[]string{"--models", "x=" + file, "--ctx", "100000"}, "--ctx"},
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
