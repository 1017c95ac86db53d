package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
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
		if n == "" || len(n) > 256 || strings.ContainsFunc(n, func(r rune) bool { return !unicode.IsGraphic(r) || unicode.IsSpace(r) }) {
			fault("served-model-name", "%q: want 1 to 256 printable characters without spaces", n)
		}
	}
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
	for _, z := range []struct {
		name      string
		v, lo, hi Size
	}{{"max-body", s.MaxBody, 1 << 10, 4 << 30}, {"max-header", s.MaxHeader, 4 << 10, 16 << 20}} {
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
		{"request-timeout", s.RequestTimeout, false}, {"drain-timeout", s.DrainTimeout, false},
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
	}{{"cache", s.Cache, []string{"on", "off"}}, {"drafts", s.Drafts, []string{"on", "off"}}, {"log-level", s.LogLevel, []string{"debug", "info", "warn", "error"}}, {"log-format", s.LogFormat, []string{"text", "json"}}} {
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
