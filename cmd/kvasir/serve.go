package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"

	"kvasir/internal/auth"
	"kvasir/internal/config"
	"kvasir/internal/llm"
	"kvasir/internal/pipeline"
	"kvasir/internal/server"
)

func serveCommand() *cobra.Command {
	var s config.Serve
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve a model, or several, over the OpenAI API",
		Long: `Serve a model over the OpenAI API. Without flags: the default model of the catalog, fetched once, on 127.0.0.1:8080. With
--models several: each is loaded when a request first names it, and unloaded when it is idle or another one needs its memory.

Every flag can be set by the environment variable KVASIR_<FLAG> (dashes become underscores) and by the same name in a YAML
file; a flag wins over the environment, the environment over the file.`,
		Example: `  kvasir serve
  kvasir serve --model ./model.gguf --served-model-name my-model --ctx 8192
  kvasir serve --model hf:owner/repo:Q4_K_M --cache-mem 4GiB
  kvasir serve --models small=smollm2,big=ollama:llama3.2:3b --default-model small
  kvasir serve --lora support=./support-lora.gguf --lora terse=./terse:0.5
  kvasir serve --addr 0.0.0.0:8080 --api-keys keys.yaml --allowed-hosts llm.example.com`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.Load(cmd.Flags()); err != nil {
				return err
			}
			if err := s.Validate(); err != nil {
				return err
			}
			return serve(cmd.Context(), &s)
		},
	}
	config.Bind(c.Flags(), &s)
	return c
}

func newLog(s *config.Serve) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(s.LogLevel)); err != nil {
		level = slog.LevelInfo // Validate allows only names that slog knows
	}
	o := &slog.HandlerOptions{Level: level}
	if s.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}

func serve(ctx context.Context, s *config.Serve) error {
	begin := time.Now()
	log := newLog(s)
	o := server.Options{AdminKey: s.AdminKey.Reveal(), AllowedHosts: s.AllowedHosts, AllowedOrigins: s.AllowedOrigins, Addr: s.Addr,
		DefaultModel: s.DefaultModel, MaxBody: int64(s.MaxBody), MaxHeader: int(s.MaxHeader), ReadHeaderTimeout: s.ReadHeaderTimeout, ReadTimeout: s.ReadTimeout,
		IdleTimeout: s.IdleTimeout, RequestTimeout: s.RequestTimeout, Log: log, Registry: prometheus.NewRegistry(), Version: versionString()}
	if s.APIKeys != "" {
		keys, err := auth.Load(s.APIKeys)
		if err != nil {
			return fmt.Errorf("--api-keys: %w", err)
		}
		o.Keys = keys
		reloadKeys(ctx, keys, log)
	}
	if s.ReadTimeout == 0 {
		o.ReadTimeout = 10 * 365 * 24 * time.Hour // server takes 0 for its default
	}
	// The address first: a port that is taken should not cost a download, and /health answers while the model loads.
	ln, err := net.Listen("tcp", s.Addr)
	if err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	o.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	var g loading
	srv := server.New(&g, o)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(context.Background(), ln) }()
	m, err := openBackend(ctx, s, log, o.Registry)
	if err != nil {
		srv.Shutdown(canceled())
		<-served
		return err
	}
	g.model.Store(&m)
	m.printReady(ln.Addr().String(), time.Since(begin))
	select {
	case err = <-served:
	case <-ctx.Done():
		log.Info("draining", "timeout", s.DrainTimeout)
		dctx, cancel := context.WithTimeout(context.Background(), s.DrainTimeout)
		defer cancel()
		if e := srv.Shutdown(dctx); e != nil {
			log.Warn("requests were cut off", "err", e)
		}
		err = <-served
	}
	if e := m.Close(canceled()); e != nil && err == nil && ctx.Err() == nil {
		err = e
	}
	return err
}

// A backend is what the server serves: one model, or those of --models.
type backend interface {
	server.Generator
	Close(ctx context.Context) error
	printReady(addr string, took time.Duration)
}

func openBackend(ctx context.Context, s *config.Serve, log *slog.Logger, reg *prometheus.Registry) (backend, error) {
	if len(s.Models) > 0 {
		return openModels(ctx, s, log, reg)
	}
	m, err := openModel(ctx, s, log)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range m.Models() {
		names = append(append(names, i.ID), i.Aliases...)
	}
	if s.DefaultModel != "" && !slices.Contains(names, s.DefaultModel) {
		return nil, errors.Join(fmt.Errorf("--default-model: %q is not a name of the model; it is served as %s", s.DefaultModel, strings.Join(names, ", ")), m.Close(canceled()))
	}
	reg.MustRegister(pipeline.NewCollector(m.Pipeline))
	return m, nil
}

// loading stands for the backend until that is there.
type loading struct {
	model atomic.Pointer[backend]
}

func (l *loading) Ready() bool {
	m := l.model.Load()
	return m != nil && (*m).Ready()
}

func (l *loading) Models() []llm.ModelInfo {
	if m := l.model.Load(); m != nil {
		return (*m).Models()
	}
	return nil
}

func (l *loading) Generate(ctx context.Context, r *llm.Request) (llm.Stream, error) {
	if m := l.model.Load(); m != nil {
		return (*m).Generate(ctx, r)
	}
	return nil, &llm.Error{Kind: llm.KindUnavailable, Message: "the model is loading", RetryAfter: 2}
}

// reloadKeys reads the key file again at SIGHUP, where that exists.
func reloadKeys(ctx context.Context, keys *auth.Keys, log *slog.Logger) {
	if len(reloadSignals) == 0 {
		return
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, reloadSignals...)
	go func() {
		defer signal.Stop(c)
		for {
			select {
			case <-ctx.Done():
				return
			case <-c:
				if err := keys.Reload(); err != nil {
					log.Error("API keys not reloaded, the old ones stay", "err", err)
				} else {
					log.Info("API keys reloaded", "keys", keys.Len())
				}
			}
		}
	}()
}

func (m *opened) printReady(addr string, took time.Duration) {
	i := m.Models()[0]
	fmt.Fprintf(os.Stderr, `ready in %.2f s: http://%s  model %s (%s)  CPU path %s, %d threads
KV budget %s = %d tokens, context %d tokens
%stry: curl http://%s/v1/chat/completions -H 'Content-Type: application/json' -d '{"model":"%s","messages":[{"role":"user","content":"What is a prefix cache?"}]}'
`, took.Seconds(), addr, i.ID, i.Quant, m.path, m.threads, mebibytes(m.budget), m.KVTokens(), i.Context, adapterLine(m.Models()[1:]), addr, i.ID)
}

// adapterLine names the adapters, in a line of its own.
func adapterLine(list []llm.ModelInfo) string {
	var names []string
	for _, a := range list {
		names = append(names, a.ID)
	}
	if len(names) == 0 {
		return ""
	}
	return "adapters: " + strings.Join(names, ", ") + "\n"
}

func mebibytes(n uint64) string {
	if n >= 10<<30 {
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
