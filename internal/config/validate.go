package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// ErrExposed is returned for an address that others can reach while nobody is asked for a key.
var ErrExposed = errors.New("other machines could use this server without a key")

var hostPattern = regexp.MustCompile(`^(\*|\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?)(:[0-9]{1,5})?$`)

// Validate checks every field alone and together. The error joins all faults, each with the source of its value; it never shows a secret.
func (s *Serve) Validate() error {
	var faults []error
	fault := func(name, format string, args ...any) {
		faults = append(faults, fmt.Errorf("%s: %w", source(s.flags, name), fmt.Errorf(format, args...)))
	}
	within := func(name string, v, lo, hi int64) {
		if v < lo || v > hi {
			fault(name, "%d is not between %d and %d", v, lo, hi)
		}
	}

	for _, n := range s.ServedModelNames {
		if !isName(n) {
			fault("served-model-name", "%q: want 1 to 256 printable characters without spaces", n)
		}
	}
	named, err := s.Named()
	if err != nil {
		fault("models", "%w", err)
	}
	if len(named) > 0 {
		for _, n := range []string{"model", "served-model-name"} {
			if f := s.flags; f != nil && f.Lookup(n) != nil && f.Lookup(n).Changed {
				fault(n, "--models is set as well; name the model there, as name=model")
			}
		}
	}
	adapters, lerr := s.Adapters()
	if lerr != nil {
		fault("lora", "%w", lerr)
	}
	if s.DefaultModel != "" && len(named) > 0 && err == nil && lerr == nil && !isServed(named, adapters, s.DefaultModel) {
		fault("default-model", "%q is not a name of --models or --lora", s.DefaultModel)
	}
	within("max-loaded", int64(s.MaxLoaded), 0, 1024)
	if s.HFEndpoint != "" {
		if u, err := url.Parse(s.HFEndpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
			fault("hf-endpoint", "want a URL such as https://hub.example")
		}
	}

	loopback, err := isLoopback(s.Addr)
	switch {
	case err != nil:
		fault("addr", "%w", err)
	case !loopback && s.APIKeys == "" && !s.Insecure:
		fault("addr", "%s: %w; give --api-keys, or --insecure if that is what you want", s.Addr, ErrExposed)
	}

	within("ctx", int64(s.Ctx), 0, 1<<24)
	within("threads", int64(s.Threads), 0, 1024)
	within("max-queue", int64(s.MaxQueue), 1, 1<<20)
	within("max-batch", int64(s.MaxBatch), 1, 1024)
	within("block-size", int64(s.BlockSize), 32, 1024)
	if s.BlockSize%32 != 0 {
		fault("block-size", "%d is not a multiple of 32", s.BlockSize)
	}
	if a, err := ParseAmount(s.CacheMem); err != nil {
		fault("cache-mem", "%w", err)
	} else if a == (Amount{}) {
		fault("cache-mem", "%s leaves no room for the KV of a running sequence; --cache=off switches only the reuse off", s.CacheMem)
	}
	if _, err := ParseAmount(s.CacheDisk); err != nil {
		fault("cache-disk", "%w", err)
	}
	for _, z := range []struct {
		name      string
		v, lo, hi Size
	}{{"max-body", s.MaxBody, 1 << 10, 4 << 30}, {"max-header", s.MaxHeader, 4 << 10, 16 << 20}, {"cache-disk-free", s.CacheDiskFree, 0, 1 << 60}, {"cache-write-rate", s.CacheWriteRate, 0, 1 << 60}} {
		if z.v < z.lo || z.v > z.hi {
			fault(z.name, "%s is not between %s and %s", z.v, z.lo, z.hi)
		}
	}
	for _, d := range []struct {
		name string
		v    time.Duration
		must bool
	}{
		{"read-header-timeout", s.ReadHeaderTimeout, true}, {"read-timeout", s.ReadTimeout, false}, {"idle-timeout", s.IdleTimeout, true},
		{"request-timeout", s.RequestTimeout, false}, {"cache-retention", s.CacheRetention, false}, {"drain-timeout", s.DrainTimeout, false}, {"unload-after", s.UnloadAfter, false},
	} {
		switch {
		case d.v < 0:
			fault(d.name, "%s is negative", d.v)
		case d.v == 0 && d.must:
			fault(d.name, "0 would let a client hold a connection for ever")
		}
	}
	for _, e := range []struct {
		name, v string
		list    []string
	}{{"cache", s.Cache, []string{"on", "off"}}, {"drafts", s.Drafts, []string{"on", "off"}}, {"numerics", s.Numerics, []string{"fast", "accurate"}}, {"cache-load", s.CacheLoad, []string{"auto", "always", "never"}}, {"folders", s.Folders, []string{"on", "off"}}, {"log-level", s.LogLevel, []string{"debug", "info", "warn", "error"}}, {"log-format", s.LogFormat, []string{"text", "json"}}} {
		if err := (choice{new(string), e.list}).Set(e.v); err != nil {
			fault(e.name, "%q: %w", e.v, err)
		}
	}
	if s.DataDir == "" {
		fault("data-dir", "this user has no data directory; name one")
	}
	if k := s.AdminKey.Reveal(); k != "" && (len(k) < 16 || strings.ContainsFunc(k, func(r rune) bool { return r <= ' ' || r > '~' })) {
		fault("admin-key", "want at least 16 printable ASCII characters without spaces")
	}
	for _, h := range s.AllowedHosts {
		if !hostPattern.MatchString(h) {
			fault("allowed-hosts", "%q: want a host or host:port without scheme and path, or *", h)
		}
	}
	for _, o := range s.AllowedOrigins {
		if u, err := url.Parse(o); o != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "") {
			fault("allowed-origins", "%q: want scheme://host[:port] without a path, or *", o)
		}
	}
	return errors.Join(faults...)
}

// isName says whether requests may name a model so.
func isName(n string) bool {
	return n != "" && len(n) <= 256 && !strings.ContainsFunc(n, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) })
}

// A NamedModel is one of Models.
type NamedModel struct {
	Names []string // the first is the model's id, the others are aliases
	Ref   string   // as for Model
}

// Named reads Models: entries of the form name=reference, in which the reference may have more equals signs. Names of one reference are
// aliases of one model. There are no names without a reference, since what a reference leads to may not be on this machine yet.
func (s *Serve) Named() ([]NamedModel, error) {
	var out []NamedModel
	seen := map[string]bool{}
	for _, e := range s.Models {
		name, ref, ok := strings.Cut(e, "=")
		name, ref = strings.TrimSpace(name), strings.TrimSpace(ref)
		switch {
		case !ok || ref == "":
			return nil, fmt.Errorf("%q: want name=model, e.g. small=smollm2", e)
		case !isName(name):
			return nil, fmt.Errorf("%q: a name has 1 to 256 printable characters without spaces", name)
		case seen[name]:
			return nil, fmt.Errorf("the name %q is there twice", name)
		}
		seen[name] = true
		if i := slices.IndexFunc(out, func(m NamedModel) bool { return m.Ref == ref }); i >= 0 {
			out[i].Names = append(out[i].Names, name)
		} else {
			out = append(out, NamedModel{[]string{name}, ref})
		}
	}
	return out, nil
}

// isLoopback says whether only this machine can reach the address. A name other than localhost may resolve to anything and counts as reachable.
func isLoopback(addr string) (bool, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false, fmt.Errorf("%q: want host:port, e.g. 127.0.0.1:8080", addr)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return false, fmt.Errorf("%q: %q is no port (0 to 65535)", addr, port)
	}
	if strings.EqualFold(host, "localhost") {
		return true, nil
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback(), nil
}
