package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var write = flag.Bool("write", false, "write docs/settings.md anew")

// parse is what a command does: bind, parse args, load env and file.
func parse(t *testing.T, file string, env map[string]string, args ...string) (*Serve, error) {
	t.Helper()
	// No default file of the user may leak in.
	dir := t.TempDir()
	for _, k := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		t.Setenv(k, dir)
	}
	s := new(Serve)
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	Bind(fs, s)
	if file != "" {
		path := filepath.Join(dir, "c.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := fs.Parse(args); err != nil {
		return s, err
	}
	return s, load(fs, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
}

func TestDefaults(t *testing.T) {
	s, err := parse(t, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Validate(); err != nil {
		t.Fatalf("the defaults are refused: %v", err)
	}
	got := []any{s.Model, s.Addr, s.Ctx, s.Threads, s.CacheMem, s.MaxQueue, s.MaxBatch, s.MaxBody, s.MaxHeader, s.RequestTimeout, s.DrainTimeout, s.Cache, s.BlockSize, s.LogLevel, s.LogFormat}
	want := []any{"smollm2-135m-instruct", "127.0.0.1:8080", 0, 0, "25%", 64, 16, Size(32 << 20), Size(64 << 10), time.Duration(0), 30 * time.Second, "on", 32, "info", "text"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("defaults\n%v, want\n%v", got, want)
	}
}

func TestPrecedence(t *testing.T) {
	for mask := range 8 {
		var args []string
		env := map[string]string{}
		file := "threads: 7\n"
		want := 0
		if mask&1 != 0 {
			file += "ctx: 100\n"
			want = 100
		}
		if mask&2 != 0 {
			env["KVASIR_CTX"] = "200"
			want = 200
		}
		if mask&4 != 0 {
			args = []string{"--ctx=300"}
			want = 300
		}
		s, err := parse(t, file, env, args...)
		if err != nil || s.Ctx != want || s.Threads != 7 {
			t.Errorf("mask %b: ctx %d threads %d err %v, want %d and 7", mask, s.Ctx, s.Threads, err, want)
		}
	}
}

// Every setting reaches its field by all three ways, and no two settings share a field.
func TestEverySettingEveryWay(t *testing.T) {
	for _, st := range settings {
		if st.name == "config" {
			continue
		}
		var s Serve
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		Bind(fs, &s)
		v := map[string]string{"string": "off", "int": "96", "bool": "true", "duration": "7s", "size": "3MiB", "size|share": "3GB", "stringSlice": "x.example", "key": "0123456789abcdef"}[fs.Lookup(st.name).Value.Type()]
		switch st.name {
		case "log-level":
			v = "debug"
		case "log-format":
			v = "json"
		case "numerics":
			v = "accurate"
		case "cache-load":
			v = "always"
		}
		byFlag, err1 := parse(t, "", nil, "--"+st.name+"="+v)
		byEnv, err2 := parse(t, "", map[string]string{Env(st.name): v})
		byFile, err3 := parse(t, st.name+": "+v+"\n", nil)
		if err := errors.Join(err1, err2, err3); err != nil {
			t.Errorf("%s: %v", st.name, err)
			continue
		}
		byFile.ConfigFile = ""
		def, _ := parse(t, "", nil)
		def.DataDir, byFlag.DataDir, byEnv.DataDir, byFile.DataDir = norm(def), norm(byFlag), norm(byEnv), norm(byFile)
		for _, s := range []*Serve{def, byFlag, byEnv, byFile} {
			s.flags = nil
		}
		changed := 0
		a, b := reflect.ValueOf(*def), reflect.ValueOf(*byFlag)
		for i := range a.NumField() {
			if a.Type().Field(i).IsExported() && !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
				changed++
			}
		}
		if changed != 1 {
			t.Errorf("%s: the flag changed %d fields", st.name, changed)
		}
		if !reflect.DeepEqual(byFlag, byEnv) || !reflect.DeepEqual(byFlag, byFile) {
			t.Errorf("%s: flag, environment and file differ:\n%+v\n%+v\n%+v", st.name, byFlag, byEnv, byFile)
		}
	}
}

// norm takes the test's own home directory out of the data directory.
func norm(s *Serve) string {
	if s.DataDir == "off" {
		return "off"
	}
	return "default"
}

func TestLists(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		env  map[string]string
		args []string
		want []string
	}{
		{"repeated flag", "", nil, []string{"--served-model-name=a", "--served-model-name=b,c"}, []string{"a", "b", "c"}},
		{"environment", "", map[string]string{"KVASIR_SERVED_MODEL_NAME": "a,b"}, nil, []string{"a", "b"}},
		{"YAML list", "served-model-name: [a, b]\n", nil, nil, []string{"a", "b"}},
		{"YAML list of one with a comma", "served-model-name:\n  - a,b\n", nil, nil, []string{"a,b"}},
		{"YAML scalar", "served-model-name: a,b\n", nil, nil, []string{"a", "b"}},
		{"the environment replaces the file", "served-model-name: [a, b]\n", map[string]string{"KVASIR_SERVED_MODEL_NAME": "c"}, nil, []string{"c"}},
		{"an empty variable is not set", "served-model-name: [a]\n", map[string]string{"KVASIR_SERVED_MODEL_NAME": ""}, nil, []string{"a"}},
		{"alias", "model: &m x\nserved-model-name: *m\n", nil, nil, []string{"x"}},
	} {
		s, err := parse(t, c.file, c.env, c.args...)
		if err != nil || !slices.Equal(s.ServedModelNames, c.want) {
			t.Errorf("%s: %q, %v; want %q", c.name, s.ServedModelNames, err, c.want)
		}
	}
}

func TestErrorsNameTheSource(t *testing.T) {
	for _, c := range []struct {
		name string
		file string
		env  map[string]string
		args []string
		want []string // all in the message
	}{
		{"unknown key", "# c\nmodel: x\ncachemem: 2GiB\n", nil, nil, []string{"c.yaml:3:", `"cachemem"`, `"cache-mem"`}},
		{"unknown key far from all", "colour: red\n", nil, nil, []string{"c.yaml:1:", `"colour"`}},
		{"underscores", "log_level: info\n", nil, nil, []string{"c.yaml:1:", `"log-level"`}},
		{"file value", "addr: 127.0.0.1:1\nctx: many\n", nil, nil, []string{"c.yaml:2: ctx:", `"many"`, "integer"}},
		{"file enum", "log-level: loud\n", nil, nil, []string{"c.yaml:1: log-level:", "debug"}},
		{"file duration without unit", "drain-timeout: 30\n", nil, nil, []string{"c.yaml:1: drain-timeout:", `"30"`, "duration"}},
		{"twice", "ctx: 1\nctx: 2\n", nil, nil, []string{"c.yaml:2", "line 1"}},
		{"null", "ctx:\n", nil, nil, []string{"c.yaml:1: ctx: has no value"}},
		{"map for a value", "ctx: {a: 1}\n", nil, nil, []string{"c.yaml:1: ctx:", "single value"}},
		{"list for a value", "ctx: [1]\n", nil, nil, []string{"c.yaml:1: ctx:", "single value"}},
		{"not a mapping", "- ctx\n", nil, nil, []string{"c.yaml:1:", "mapping"}},
		{"two documents", "ctx: 1\n---\nctx: 2\n", nil, nil, []string{"one YAML document"}},
		{"bad YAML", "ctx: [\n", nil, nil, []string{"c.yaml", "line"}},
		{"config in the file", "config: other.yaml\n", nil, nil, []string{"c.yaml:1:", "config"}},
		{"environment", "", map[string]string{"KVASIR_MAX_BODY": "big"}, nil, []string{"KVASIR_MAX_BODY:", `"big"`}},
		{"environment boolean", "", map[string]string{"KVASIR_INSECURE": "perhaps"}, nil, []string{"KVASIR_INSECURE:", `"perhaps"`}},
		{"flag", "", nil, []string{"--cache-mem=much"}, []string{"--cache-mem", `"much"`, "25%"}},
		{"missing file by flag", "", nil, []string{"--config=/nonexistent/c.yaml"}, []string{"--config", "/nonexistent/c.yaml"}},
		{"missing file by environment", "", map[string]string{"KVASIR_CONFIG": "/nonexistent/c.yaml"}, nil, []string{"KVASIR_CONFIG", "/nonexistent/c.yaml"}},
	} {
		_, err := parse(t, c.file, c.env, c.args...)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q lacks %q", c.name, err, w)
			}
		}
	}
}

func TestDefaultFileIsRead(t *testing.T) {
	dir := t.TempDir()
	for _, k := range []string{"HOME", "XDG_CONFIG_HOME", "AppData"} {
		t.Setenv(k, dir)
	}
	path, err := DefaultFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("max-queue: 5\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var s Serve
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	Bind(fs, &s)
	if err := load(fs, func(string) (string, bool) { return "", false }); err != nil || s.MaxQueue != 5 {
		t.Fatalf("max-queue %d, %v", s.MaxQueue, err)
	}

	// A command that binds a part accepts keys of the rest and does not apply them.
	var part Serve
	fs = pflag.NewFlagSet("", pflag.ContinueOnError)
	Bind(fs, &part, "model", "threads")
	if err := load(fs, func(k string) (string, bool) { return "3", k == "KVASIR_THREADS" }); err != nil || part.MaxQueue != 64 || part.Threads != 3 || fs.Lookup("max-queue") != nil {
		t.Fatalf("part: %+v, %v", part, err)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // "" is valid
	}{
		{"", ""},
		{"--addr=localhost:0", ""},
		{"--addr=[::1]:8080", ""},
		{"--addr=127.9.9.9:1", ""},
		{"--addr=[::ffff:127.0.0.1]:1", ""},
		{"--addr=0.0.0.0:8080", "--api-keys"},
		{"--addr=:8080", "--insecure"},
		{"--addr=[::]:8080", "without a key"},
		{"--addr=10.0.0.1:8080", "without a key"},
		{"--addr=box.example:80", "without a key"},
		{"--addr=0.0.0.0:80 --insecure", ""},
		{"--addr=0.0.0.0:80 --api-keys=keys", ""},
		{"--addr=8080", "host:port"},
		{"--addr=127.0.0.1:99999", "port"},
		{"--addr=127.0.0.1:http", "port"},
		{"--ctx=-1", "--ctx"},
		{"--threads=5000", "--threads"},
		{"--max-queue=0", "--max-queue"},
		{"--max-batch=0", "--max-batch"},
		{"--block-size=48", "multiple of 32"},
		{"--block-size=0", "--block-size"},
		{"--block-size=128", ""},
		{"--cache-mem=0B", "--cache-mem"},
		{"--cache-mem=2GiB --cache=off", ""},
		{"--max-body=1B", "--max-body"},
		{"--max-header=1GiB", "--max-header"},
		{"--read-header-timeout=0s", "--read-header-timeout"},
		{"--drain-timeout=-1s", "negative"},
		{"--request-timeout=0s", ""},
		{"--data-dir=", "--data-dir"},
		{"--admin-key=short", "16"},
		{"--admin-key=0123456789abcdef", ""},
		{"--allowed-hosts=a.example,b:80,[::1]:80,*", ""},
		{"--allowed-hosts=https://a.example", "--allowed-hosts"},
		{"--allowed-origins=https://a.example,http://localhost:3000,*,vscode-webview://x", ""},
		{"--allowed-origins=https://a.example/", "--allowed-origins"},
		{"--allowed-origins=a.example", "--allowed-origins"},
		{"--hf-endpoint=hub.example", "--hf-endpoint"},
		{"--served-model-name=a,", "--served-model-name"},
		{"--served-model-name=HuggingFaceTB/SmolLM2", ""},
		{"--models=a=smollm2,b=hf:o/r:Q4_K_M,c=smollm2 --default-model=c --max-loaded=1 --unload-after=5m", ""},
		{"--models=smollm2", "name=model"},
		{"--models=a=", "name=model"},
		{"--models==x", "printable"},
		{"--models=a=x,a=y", "twice"},
		{"--models=a=x --model=y", "--models is set as well"},
		{"--models=a=x --served-model-name=y", "--served-model-name"},
		{"--models=a=x --default-model=x", "not a name of --models"},
		{"--default-model=x", ""},
		{"--max-loaded=-1", "--max-loaded"},
		{"--unload-after=-1s", "negative"},
	} {
		s, err := parse(t, "", nil, strings.Fields(c.args)...)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		switch err := s.Validate(); {
		case c.want == "" && err != nil:
			t.Errorf("%s: refused: %v", c.args, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want mention of %q", c.args, err, c.want)
		}
	}

	s, err := parse(t, "addr: 0.0.0.0:80\n", map[string]string{"KVASIR_CTX": "-4"})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Validate()
	if !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), "c.yaml:1: addr") || !strings.Contains(err.Error(), "KVASIR_CTX:") {
		t.Errorf("%v: want both faults with their sources", err)
	}
}

func TestNamed(t *testing.T) {
	want := []NamedModel{{[]string{"big", "gpt-4o"}, "./a=b.gguf"}, {[]string{"small"}, "smollm2"}}
	for name, file := range map[string]string{
		"list":    "models: [big=./a=b.gguf, small = smollm2, gpt-4o=./a=b.gguf]\n",
		"mapping": "models:\n  big: ./a=b.gguf\n  small: smollm2\n  gpt-4o: ./a=b.gguf\n",
	} {
		s, err := parse(t, file, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := s.Named(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, file := range []string{"models: {a: [b]}\n", "models: {a: }\n", "models: {[a]: b}\n", "served-model-name: {a: b}\n"} {
		if _, err := parse(t, file, nil); err == nil {
			t.Errorf("%q is accepted", file)
		}
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	const key = "sekret key with space" // refused by Validate
	for _, way := range []string{"flag", "env", "file"} {
		var s *Serve
		var err error
		switch way {
		case "flag":
			s, err = parse(t, "", nil, "--admin-key="+key)
		case "env":
			s, err = parse(t, "", map[string]string{"KVASIR_ADMIN_KEY": key})
		case "file":
			s, err = parse(t, "admin-key: "+key+"\n", nil)
		}
		if err != nil || s.AdminKey.Reveal() != key {
			t.Fatalf("%s: %v", way, err)
		}
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
			fmt.Fprintf(&out, verb+"\n", s.AdminKey)
			fmt.Fprintf(&out, verb+"\n", &s.AdminKey)
		}
		s.flags.SetOutput(&out)
		s.flags.PrintDefaults()
		fmt.Fprintln(&out, s.flags.Lookup("admin-key").Value, s.Validate())
		s.flags = nil
		fmt.Fprintf(&out, "%v %+v\n", *s, *s)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", s.AdminKey, "settings", *s)
		if err := json.NewEncoder(&out).Encode(s); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "sekret") || strings.Contains(out.String(), "73656b") {
			t.Errorf("%s: shown in %s", way, out.String())
		}
	}
	if _, err := parse(t, "admin-key: [sekret]\n", nil); err == nil || strings.Contains(err.Error(), "sekret") {
		t.Errorf("error %v", err)
	}
}

// docs/settings.md is Table under its heading. Write it anew with: go test ./internal/config -run Settings -write
func TestSettingsPage(t *testing.T) {
	const page = "../../docs/settings.md"
	want := `# Settings

Every setting of ` + "`kvasir serve`" + ` can be a flag, an environment variable or a key of a YAML file. A flag wins over the environment, the
environment over the file, the file over the default. An empty environment variable counts as not set. Lists are separated by commas; in the
file they may be YAML lists. Sizes are written as ` + "`500MB`" + ` (powers of 1000) or ` + "`2GiB`" + ` (powers of 1024), times as ` + "`30s`" + ` or ` + "`5m`" + `.
An unknown key in the file is an error. This table is made from the code, and a test holds it to that.

` + Table() + `
Example of a file:

` + "```yaml" + `
model: smollm2-135m-instruct
addr: 0.0.0.0:8080
api-keys: /etc/kvasir/keys
cache-mem: 2GiB
allowed-hosts: [llm.example, llm.example:8080]
` + "```" + `

Keep ` + "`admin-key`" + ` out of files that others can read, and out of the command line, which every user of the machine can see.
`
	if *write {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ReplaceAll(string(got), "\r\n", "\n") != want {
		t.Error("docs/settings.md differs from the code; run: go test ./internal/config -run Settings -write")
	}
	for _, st := range settings {
		if strings.Count(string(got), "| `--"+st.name+"`") != 1 {
			t.Errorf("%s is not in the table once", st.name)
		}
	}
}

func FuzzYAML(f *testing.F) {
	f.Add([]byte("ctx: 5\nallowed-hosts: [a, b]\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Add([]byte("? {x: 1}\n: 2\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Serve
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		Bind(fs, &s)
		err := readYAML("f.yaml", data, func(name, source string, v value) error { return set(fs, fs.Lookup(name), v) })
		if err == nil {
			_ = s.Validate()
		}
	})
}
