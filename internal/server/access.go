package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"kvasir/internal/llm"
)

// access decides who may call. A web page that the user happens to have open must not: neither by naming our address in a script
// (the browser then sends an Origin), nor by letting its own name resolve to our address (DNS rebinding; the browser then sends that
// name as Host). A page cannot choose an IP address or localhost as its name, so these are safe.
type access struct {
	keys      Keys
	adminKey  string
	hosts     map[string]bool // lower case, with or without a port
	origins   map[string]bool // lower case
	anyHost   bool
	anyOrigin bool
}

func newAccess(o Options) access {
	a := access{keys: o.Keys, adminKey: o.AdminKey, hosts: map[string]bool{}, origins: map[string]bool{}}
	if host, _, err := net.SplitHostPort(o.Addr); err == nil && host != "" {
		a.hosts[strings.ToLower(host)] = true
	}
	for _, h := range o.AllowedHosts {
		a.hosts[strings.ToLower(h)] = true
	}
	for _, origin := range o.AllowedOrigins {
		a.origins[strings.ToLower(strings.TrimSuffix(origin, "/"))] = true
	}
	a.anyHost, a.anyOrigin = a.hosts["*"], a.origins["*"]
	return a
}

// hostName is the name part of a Host header, in lower case and without brackets or a final dot.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	} else {
		host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

func isLocalhost(name string) bool {
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// checkHost accepts a request without a Host: HTTP/1.0 has none, and no browser leaves it out.
func (a *access) checkHost(host string) *llm.Error {
	name := hostName(host)
	if host == "" || a.anyHost || isLocalhost(name) || a.hosts[name] || a.hosts[strings.ToLower(host)] {
		return nil
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	return &llm.Error{Kind: llm.KindForbidden, Code: "host_not_allowed",
		Message: "the Host " + quoteShort(name) + " is not allowed; if it is a name of this server, start it with --allowed-hosts " + short(name)}
}

// checkOrigin accepts a request without an Origin (no web page made it), from a page that this server itself sent to a loopback
// address, and from the allowed origins.
func (a *access) checkOrigin(origin, host string) *llm.Error {
	if origin == "" || a.anyOrigin || a.origins[strings.ToLower(origin)] {
		return nil
	}
	if u, err := url.Parse(origin); err == nil && (u.Scheme == "http" || u.Scheme == "https") && strings.EqualFold(u.Host, host) {
		name := hostName(host)
		if ip, err := netip.ParseAddr(name); isLocalhost(name) || err == nil && ip.IsLoopback() {
			return nil
		}
	}
	return &llm.Error{Kind: llm.KindForbidden, Code: "origin_not_allowed",
		Message: "the Origin " + quoteShort(origin) + " is not allowed; if you trust that page, start the server with --allowed-origins " + short(origin)}
}

// short bounds what an error repeats of a caller's header.
func short(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

func quoteShort(s string) string { return `"` + short(s) + `"` }

// allowCORS tells a browser that the page at origin, which passed checkOrigin, may read the response.
func allowCORS(h http.Header, origin string) {
	h.Add("Vary", "Origin")
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "X-Request-Id, Kvasir-Cache, Retry-After")
}

// preflight answers a browser's question whether a page may make a request. The headers that clients add are many and harmless, so
// the ones asked for are allowed.
func preflight(h http.Header, r *http.Request, methods []string) {
	h.Set("Access-Control-Allow-Methods", strings.Join(methods, ", "))
	if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
		h.Set("Access-Control-Allow-Headers", asked)
	}
	if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
		h.Set("Access-Control-Allow-Private-Network", "true")
	}
	h.Set("Access-Control-Max-Age", "600")
}

// bearer is the key of an Authorization header, or "".
func bearer(r *http.Request) string {
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(key)
}

// tenant authenticates a request. Without keys everybody is the default tenant.
func (a *access) tenant(r *http.Request) (string, *llm.Error) {
	if a.keys == nil {
		return defaultTenant, nil
	}
	key := bearer(r)
	if key == "" {
		return "", &llm.Error{Kind: llm.KindUnauthorized, Message: "no API key: send the header Authorization: Bearer YOUR_KEY"}
	}
	tenant, ok := a.keys.Tenant(key)
	if !ok {
		return "", &llm.Error{Kind: llm.KindUnauthorized, Message: "the API key is not valid"}
	}
	return tenant, nil
}

// admin checks the right to see what concerns all tenants.
func (a *access) admin(r *http.Request) *llm.Error {
	if a.adminKey == "" {
		if a.keys == nil {
			return nil
		}
		return &llm.Error{Kind: llm.KindForbidden, Code: "admin_key_required",
			Message: "/metrics counts over all tenants; with API keys it needs an admin key: start the server with --admin-key"}
	}
	got, want := sha256.Sum256([]byte(bearer(r))), sha256.Sum256([]byte(a.adminKey))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return &llm.Error{Kind: llm.KindUnauthorized, Message: "this needs the admin key: send the header Authorization: Bearer ADMIN_KEY"}
	}
	return nil
}
