// Package server speaks HTTP: routes, access checks, limits, streaming, metrics and draining. What a request means is for package
// wire/openai to say, and what it generates for the Generator.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"kvasir/internal/llm"
	"kvasir/internal/wire/openai"
)

// A Generator turns requests into streams of events. Its errors are *llm.Error where the caller may see them; any other error is an
// internal one, whose text goes to the log only. It checks what depends on the model: token ids against the vocabulary, lengths against the context.
type Generator interface {
	// Generate queues r; ctx bounds the whole request. The server closes the stream.
	Generate(ctx context.Context, r *llm.Request) (llm.Stream, error)
	// Models lists what is served; a request may name a model's ID or one of its Aliases.
	Models() []llm.ModelInfo
	// Ready is false while the model loads.
	Ready() bool
}

// Keys maps an API key to its tenant. Tenant compares in constant time.
type Keys interface {
	Tenant(key string) (tenant string, ok bool)
}

// Defaults of the zero Options.
const (
	DefaultMaxBody           = 16 << 20
	DefaultMaxHeader         = 64 << 10
	DefaultReadHeaderTimeout = 10 * time.Second
	DefaultReadTimeout       = time.Minute
	DefaultWriteTimeout      = 30 * time.Second
	DefaultIdleTimeout       = 2 * time.Minute

	defaultTenant = "default"
	closeGrace    = time.Second // for handlers to notice that they were cancelled
)

// Options configure a Server. A zero limit or timeout means its default, but for RequestTimeout, where it means none.
type Options struct {
	Keys           Keys     // nil: no authentication, and every request is of the tenant "default"
	AdminKey       string   // opens /metrics; with Keys and without an AdminKey, /metrics is closed, since it counts over all tenants
	AllowedHosts   []string // names beside localhost, IP addresses and Addr's own that a Host header may have; "*" allows all
	AllowedOrigins []string // origins of web pages that may call, e.g. "https://app.example"; "*" allows all
	Addr           string   // the listen address as configured; its host name, if it has one, is an allowed Host

	MaxBody           int64         // bytes of a request body
	MaxHeader         int           // bytes of a request's header
	ReadHeaderTimeout time.Duration // for the whole header
	ReadTimeout       time.Duration // for the whole request, header and body
	WriteTimeout      time.Duration // for one write; a client that reads nothing for so long is dropped
	IdleTimeout       time.Duration // between the requests of a connection
	RequestTimeout    time.Duration // from the request to the last token

	DefaultModel string // what a request for a name that is not served gets; "": a 404

	Log      *slog.Logger         // nil: slog.Default()
	Registry *prometheus.Registry // nil: a new one; the Generator may register its own collectors with the same one
	Version  string               // of the program, part of system_fingerprint
}

// A Server serves one Generator. Make it with New.
type Server struct {
	gen       Generator
	o         Options
	log       *slog.Logger
	access    access
	metrics   *metrics
	scrape    http.Handler
	bodies    sync.Pool // *[]byte: request bodies are read into these
	gate      gate
	http      *http.Server
	base      context.Context // its end ends every request
	stop      context.CancelCauseFunc
	endpoints map[string]route
}

var errShutdown = errors.New("server: shutting down")

// New returns a server for g. It registers its metrics with o.Registry and panics if they are registered there already.
func New(g Generator, o Options) *Server {
	o = withDefaults(o)
	s := &Server{gen: g, o: o, log: o.Log, access: newAccess(o), metrics: newMetrics(o.Registry), gate: newGate()}
	s.scrape = promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{})
	s.bodies.New = func() any { b := make([]byte, 0, 64<<10); return &b }
	s.base, s.stop = context.WithCancelCause(context.Background())
	s.endpoints = s.routes()
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: o.ReadHeaderTimeout,
		ReadTimeout:       o.ReadTimeout,  // net/http lifts it once the body is read, so a generation may take longer
		WriteTimeout:      o.WriteTimeout, // each write moves it on
		IdleTimeout:       o.IdleTimeout,
		MaxHeaderBytes:    o.MaxHeader,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	return s
}

func withDefaults(o Options) Options {
	setDefault(&o.MaxBody, DefaultMaxBody)
	setDefault(&o.MaxHeader, DefaultMaxHeader)
	setDefault(&o.ReadHeaderTimeout, DefaultReadHeaderTimeout)
	setDefault(&o.ReadTimeout, DefaultReadTimeout)
	setDefault(&o.WriteTimeout, DefaultWriteTimeout)
	setDefault(&o.IdleTimeout, DefaultIdleTimeout)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	if o.Version == "" {
		o.Version = "dev"
	}
	return o
}

func setDefault[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// Handler returns the server's handler, for a test or another http.Server.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// Serve accepts connections until Shutdown, or until ctx ends, which cancels running requests at once; in that case it returns when they
// are gone. It closes ln. It returns nil after both, or what made accepting fail.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	closed := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(closed)
		s.stop(errShutdown)
		s.waitClosed(s.gate.drain())
	})
	err := s.http.Serve(ln)
	if !unhook() {
		<-closed
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown drains: /ready and new requests answer 503 from now on, running ones finish. If ctx ends first they are cancelled, and
// Shutdown returns ctx's error. The listener is open until nothing runs, so that a balancer can see the 503.
func (s *Server) Shutdown(ctx context.Context) error {
	idle := s.gate.drain()
	var err error
	select {
	case <-idle:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.stop(errShutdown)
	s.waitClosed(idle)
	return err
}

// waitClosed closes the listener and the connections, and leaves cancelled handlers a moment for their last words.
func (s *Server) waitClosed(idle <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), closeGrace)
	defer cancel()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close() // whoever is connected still has had its moment
	}
}

// A route is what answers one path.
type route struct {
	methods []string // the first is the one that a browser's preflight is told, too
	handle  func(*exchange) *llm.Error
	open    bool // needs no API key
}

func (s *Server) routes() map[string]route {
	get := []string{http.MethodGet, http.MethodHead}
	post := []string{http.MethodPost}
	return map[string]route{
		"/v1/completions":      {post, func(x *exchange) *llm.Error { return s.generate(x, openai.Completions) }, false},
		"/v1/chat/completions": {post, func(x *exchange) *llm.Error { return s.generate(x, openai.Chat) }, false},
		"/v1/models":           {get, s.listModels, false},
		modelsPrefix:           {get, s.getModel, false},
		"/health":              {get, s.health, true},
		"/ready":               {get, s.ready, true},
		"/metrics":             {get, s.showMetrics, true}, // it has a key of its own
	}
}

// A gate counts running requests and closes for new ones.
type gate struct {
	mu       sync.Mutex
	draining bool
	running  int
	idle     chan struct{} // closed once the gate is closed and nothing runs
}

func newGate() gate { return gate{idle: make(chan struct{})} }

// enter lets a request in, unless the gate is closed; leave must follow.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.draining {
		g.running++
	}
	return !g.draining
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.running--; g.draining && g.running == 0 {
		close(g.idle)
	}
}

// drain closes the gate. The channel is closed when nothing runs any more.
func (g *gate) drain() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.draining {
		g.draining = true
		if g.running == 0 {
			close(g.idle)
		}
	}
	return g.idle
}

func (g *gate) closed() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}
