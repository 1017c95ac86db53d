package main

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"kvasir/internal/bench"
	"kvasir/internal/config"
	"kvasir/internal/kernel"
	"kvasir/internal/testmodel"
)

// TestMain lets this binary be kvasir, for the commands that start it again.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_IS_KVASIR") != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// command runs a command line and returns what it wrote.
func command(ctx context.Context, args ...string) (string, error) {
	c := root()
	var out bytes.Buffer
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(ctx)
	return out.String(), err
}

// isolate keeps the settings of this user and machine out of a test.
func isolate(t *testing.T) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "KVASIR_") && name != "KVASIR_CPU" {
			t.Setenv(name, "")
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "AppData", "LocalAppData"} {
		t.Setenv(name, dir)
	}
}

func tinyFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(file, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	return file
}

func readJSON[T any](t *testing.T, file string) (v T) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// words is a server whose tokens are words and which remembers nothing.
func words(t *testing.T) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			io.WriteString(w, `{"data":[{"id":"words"}]}`)
			return
		}
		var c struct {
			Prompt    string `json:"prompt"`
			MaxTokens int    `json:"max_tokens"`
		}
		if err := json.NewDecoder(r.Body).Decode(&c); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for range c.MaxTokens {
			io.WriteString(w, "data: {\"choices\":[{\"text\":\" a\"}]}\n\n")
		}
		json.NewEncoder(&prefixed{w}).Encode(map[string]any{"choices": []int{}, "usage": map[string]int{"prompt_tokens": len(strings.Fields(c.Prompt)), "completion_tokens": c.MaxTokens}})
		io.WriteString(w, "\ndata: [DONE]\n\n")
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

type prefixed struct{ w io.Writer }

func (p *prefixed) Write(b []byte) (int, error) {
	io.WriteString(p.w, "data: ")
	return p.w.Write(b)
}

func TestBenchAgainst(t *testing.T) {
	dir := t.TempDir()
	js, svg := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.svg")
	out, err := command(context.Background(), "bench", "--url", "a="+words(t), "--against", "b="+words(t)+"#m", "--against", "c="+words(t), "--only", "cold,decode", "--prompt-tokens", "100",
		"--depths", "0", "--rounds", "2", "--seed", "3", "--json", js, "--svg", svg)
	if err != nil {
		t.Fatal(err, out)
	}
	r := readJSON[bench.Report](t, js)
	if len(r.Targets) != 3 || r.Targets[0].Model != "words" || r.Targets[1].Model != "m" || r.Options.Seed != 3 || r.Version != bench.ReportVersion {
		t.Errorf("%+v", r)
	}
	for _, m := range r.Results {
		measured := m.Name != bench.ITL50 && m.Name != bench.ITL95 // this server's tokens come all at once
		if len(m.Series) != 3 || m.Series[0].Ahead != nil || measured && m.Series[2].Ahead == nil {
			t.Errorf("%s: %+v", m.Name, m.Series)
		}
	}
	if !strings.Contains(out, "cold TTFT") || !strings.Contains(out, "median of a is") {
		t.Errorf("table\n%s", out)
	}
	b, err := os.ReadFile(svg)
	if err != nil || xml.Unmarshal(b, new(struct{})) != nil || !bytes.Contains(b, []byte("a against b against c")) {
		t.Errorf("%v, chart\n%s", err, b)
	}
}

func TestBenchErrors(t *testing.T) {
	isolate(t)
	url := words(t)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"bench"}, "give a server with --url"},
		{[]string{"bench", "--url", "nowhere"}, "--url \"nowhere\""},
		{[]string{"bench", "--url", url, "--against", "ftp://x"}, "--against \"ftp://x\""},
		{[]string{"bench", "--url", url, "--only", "hot"}, `no scenario "hot"`},
		{[]string{"bench", "--url", url, "--rounds", "0"}, "rounds"},
		{[]string{"bench", "--url", url, "--only", "cold", "--json", filepath.Join(t.TempDir(), "no", "dir")}, "no such file"},
		{[]string{"bench", "saves", filepath.Join(t.TempDir(), "no.gguf")}, "cache on ended before it was ready"},
		{[]string{"bench", "machine", "--threads", "0"}, "at least one thread"},
		{[]string{"bench", "machine", "--times", "0"}, "at least one thread"},
	} {
		t.Setenv("TEST_IS_KVASIR", "yes")
		if out, err := command(context.Background(), c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q\n%s", c.args, err, c.want, out)
		}
	}
}

// The whole of "bench saves" with real servers: the one with a cache reuses, the other does not, both give the same answers, and nothing stays
// behind.
func TestBenchSaves(t *testing.T) {
	isolate(t)
	t.Setenv("TEST_IS_KVASIR", "yes")
	t.Setenv("KVASIR_CACHE", "off") // must not reach the servers
	dir := t.TempDir()
	for _, name := range []string{"TMPDIR", "TMP"} {
		t.Setenv(name, dir)
	}
	js := filepath.Join(t.TempDir(), "saves.json")
	out, err := command(context.Background(), "bench", "saves", tinyFile(t), "--only", "chat,rag", "--clients", "2", "--requests", "4", "--rounds", "1", "--cache-mem", "64MiB", "--threads", "1", "--json", js)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left, e := os.ReadDir(dir); e != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, e)
	}
	got := map[string]float64{}
	for _, m := range readJSON[bench.Report](t, js).Results {
		for _, s := range m.Series {
			got[m.Scenario+"/"+m.Name+"/"+s.Target] = s.Median
			if m.Name == bench.PerSecond && s.Target == "cache off" && !slices.Contains(s.Notes, "answers equal those of cache on") {
				t.Errorf("%s: notes %q", m.Scenario, s.Notes)
			}
		}
	}
	for _, scenario := range []string{"chat", "rag"} {
		if on, off := got[scenario+"/cached_share/cache on"], got[scenario+"/cached_share/cache off"]; on < 10 || on > 99 || off != 0 {
			t.Errorf("%s: %v %% cached with a cache, %v %% without", scenario, on, off)
		}
		for _, name := range []string{bench.CPUSeconds, bench.PerSecond, bench.TTFT50, bench.TTFT95} {
			if !(got[scenario+"/"+name+"/cache on"] > 0) || !(got[scenario+"/"+name+"/cache off"] > 0) {
				t.Errorf("%s has no %s", scenario, name)
			}
		}
	}
}

func TestBenchMachine(t *testing.T) {
	js := filepath.Join(t.TempDir(), "m.json")
	out, err := command(context.Background(), "bench", "machine", "--times", "1", "--threads", "1,2,1", "--json", js)
	if err != nil {
		t.Fatal(err)
	}
	r := readJSON[limitsReport](t, js)
	paths := kernel.Available()
	if len(r.Results) != 2*len(paths) {
		t.Fatalf("%d rows for %v", len(r.Results), paths)
	}
	for i, x := range r.Results {
		if x.Path != paths[i/2].String() || x.Threads != 1+i%2 || !(x.Int8.Median > 0 && x.F32.Best > 0 && x.Read.Median > 0) || x.Instructions[0] == "" {
			t.Errorf("%+v", x)
		}
		if !strings.Contains(out, x.Instructions[0]) {
			t.Errorf("the table does not say %q\n%s", x.Instructions[0], out)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := command(ctx, "bench", "machine"); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestModelShape(t *testing.T) {
	cfg := testmodel.Tiny
	s, err := modelShape(tinyFile(t), 100)
	if err != nil {
		t.Fatal(err)
	}
	kv := cfg.KVHeads * cfg.HeadSize
	q := cfg.Heads * cfg.HeadSize
	layer := 2 * (cfg.Embd*(2*q+2*kv) + 3*cfg.Embd*cfg.FF)
	if got, want := s.Int8Ops+s.F32Ops, float64(cfg.Layers*layer); got != want {
		t.Errorf("%v operations a token in the layers, want %v", got, want)
	}
	if got, want := s.HeadInt8Ops+s.HeadF32Ops, float64(2*cfg.Embd*cfg.Vocab); got != want {
		t.Errorf("%v operations in the output matrix, want %v", got, want)
	}
	if want := float64(4 * cfg.Layers * q); s.AttentionOps != want || s.KVBytes != 100 {
		t.Errorf("attention %v, want %v; KV %v", s.AttentionOps, want, s.KVBytes)
	}
	st, err := os.Stat(tinyFile(t))
	if err != nil || s.WeightBytes <= 0 || s.WeightBytes >= float64(st.Size()) {
		t.Errorf("%v bytes of weights in a file of %d, %v", s.WeightBytes, st.Size(), err)
	}
	if _, err := modelShape(filepath.Join(t.TempDir(), "none"), 1); err == nil {
		t.Error("no file was read")
	}
}

func TestLimits(t *testing.T) {
	l := &limitsMeter{path: kernel.Go, threads: 3}
	if l.limits() != nil {
		t.Error("limits without a measurement")
	}
	l.int8, l.f32, l.read = []float64{3, 1}, []float64{9, 1, 2}, []float64{5}
	if b := l.limits(); b.Int8 != 2 || b.F32 != 2 || b.Read != 5 || b.Threads != 3 || b.Path != "go" {
		t.Errorf("%+v", b)
	}
}

// The servers of "bench saves" get all that was settled, and nothing else of the environment but the CPU path.
func TestSavesServers(t *testing.T) {
	s := &config.Serve{Model: "m.gguf", Threads: 2, CacheMem: "1GiB", BlockSize: 32, MaxBatch: 16, Drafts: "off", Ctx: 100}
	args := serveArgs("kvasir", s, "off", "c.yaml", "d")
	c := serveCommand()
	if err := c.ParseFlags(args[2:]); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"cache": "off", "drafts": "off", "model": "m.gguf", "threads": "2", "cache-mem": "1GiB", "ctx": "100", "data-dir": "d", "config": "c.yaml", "addr": "127.0.0.1:0", "offline": "false"} {
		if got := c.Flags().Lookup(name).Value.String(); got != want {
			t.Errorf("--%s is %q, want %q", name, got, want)
		}
	}
	if got := cleanEnv([]string{"PATH=/bin", "KVASIR_API_KEYS=k", "KVASIR_CPU=avx2", "kvasir_addr=x"}); !slices.Equal(got, []string{"PATH=/bin", "KVASIR_CPU=avx2"}) {
		t.Errorf("environment %q", got)
	}
}

func TestCommandLineHidesKeys(t *testing.T) {
	defer func(a []string) { os.Args = a }(os.Args)
	os.Args = []string{"/usr/bin/kvasir", "bench", "--key", "sekrit", "--key=sekrit", "--rounds", "2"}
	if got := commandLine(); got != "kvasir bench --key ... --key=... --rounds 2" {
		t.Error(got)
	}
}

// Every form has examples that parse, and its scenarios are completed and described.
func TestBenchHelp(t *testing.T) {
	c, _, err := root().Find([]string{"bench"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append([]*cobra.Command{c}, c.Commands()...) {
		if c.Example == "" || c.Long == "" {
			t.Errorf("%s has no example or no description", c.CommandPath())
		}
		for _, line := range strings.Split(c.Example, "\n") {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " && ")
			_, line, _ = strings.Cut(line, "kvasir ")
			found, rest, err := root().Find(strings.Fields(line))
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err != nil || found.Name() != c.Name() {
				t.Errorf("%q: %v", line, err)
			}
		}
		if c.Flags().Lookup("only") == nil {
			continue
		}
		complete, ok := c.GetFlagCompletionFunc("only")
		if !ok {
			t.Fatalf("%s does not complete --only", c.CommandPath())
		}
		list, _ := complete(c, nil, "")
		if len(list) < len(bench.Loads()) {
			t.Errorf("%s completes %v", c.CommandPath(), list)
		}
		for _, s := range list {
			name, _, _ := strings.Cut(string(s), "\t")
			if !strings.Contains(c.Long, "\n  "+name+" ") {
				t.Errorf("%s does not describe %s", c.CommandPath(), name)
			}
		}
	}
	if math.Abs(seconds(1.5).Seconds()-1.5) > 1e-9 {
		t.Error("seconds")
	}
}
