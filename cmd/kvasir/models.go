package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kvasir/internal/catalog"
	"kvasir/internal/config"
	"kvasir/internal/llm"
	"kvasir/internal/pipeline"
)

// openedModels are the models of --models.
type openedModels struct {
	*catalog.Catalog
	*host
	share uint64 // KV of each loaded model, bytes
}

// Close ends the models and then the disk cache.
func (o *openedModels) Close(ctx context.Context) error {
	return errors.Join(o.Catalog.Close(ctx), o.host.close())
}

// openModels fetches all models of --models that are not here yet, checks that each can be served, and loads the default one, else the first.
func openModels(ctx context.Context, s *config.Serve, log *slog.Logger, reg prometheus.Registerer) (_ *openedModels, err error) {
	named, err := s.Named()
	if err != nil {
		return nil, fmt.Errorf("--models: %w", err)
	}
	h, err := openHost(s, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	o := &openedModels{host: h, share: h.budget / uint64(len(named))}
	if s.MaxLoaded > 0 {
		o.share = h.budget / uint64(min(s.MaxLoaded, len(named)))
	}
	var turn sync.Mutex
	var entries []catalog.Entry
	for _, n := range named {
		m, err := h.find(ctx, n.Ref)
		if err != nil {
			return nil, fmt.Errorf("--models %s: %w", n.Names[0], err)
		}
		e, err := h.entry(m, n.Names, o.share, &turn, reg)
		if err != nil {
			return nil, fmt.Errorf("--models %s: %w", n.Names[0], err)
		}
		entries = append(entries, e)
	}
	o.Catalog, err = catalog.New(entries, catalog.Options{Memory: h.available, MaxLoaded: s.MaxLoaded, Idle: s.UnloadAfter, MaxWaiting: s.MaxQueue, Log: log})
	if err != nil {
		return nil, fmt.Errorf("--models: %w; lower --cache-mem or --max-loaded", err)
	}
	first := s.DefaultModel
	if first == "" {
		first = named[0].Names[0]
	}
	if err := o.Load(ctx, first); err != nil {
		return nil, errors.Join(err, o.Catalog.Close(canceled()))
	}
	o.register(reg)
	return o, nil
}

// entry describes a model for the catalog. Models that share the processors share turn.
func (h *host) entry(m *found, names []string, share uint64, turn sync.Locker, reg prometheus.Registerer) (catalog.Entry, error) {
	sum, err := pipeline.Describe(m.Path)
	if err != nil {
		return catalog.Entry{}, fmt.Errorf("%s: %w", m.Path, err)
	}
	limit := h.s.Ctx
	switch {
	case limit == 0:
		limit = sum.Context
	case limit > sum.Context:
		return catalog.Entry{}, fmt.Errorf("--ctx is %d, the model was made for %d", limit, sum.Context)
	}
	if err := h.adapt(m, names); err != nil {
		return catalog.Entry{}, err
	}
	weights, err := h.weights(m)
	if err != nil {
		return catalog.Entry{}, err
	}
	info := llm.ModelInfo{ID: names[0], Aliases: names[1:], Created: time.Now().Unix(), Context: limit, Bytes: sum.Bytes, Quant: sum.Quant, Digest: fmt.Sprintf("%x", m.digest)}
	infos := []llm.ModelInfo{info}
	for _, a := range m.adapterInfo {
		a.Created, a.Context, a.Quant = info.Created, info.Context, info.Quant
		infos = append(infos, a)
	}
	return catalog.Entry{Models: infos, Bytes: weights + share, Open: func(context.Context) (catalog.Model, error) {
		p, err := h.load(m, names, share, turn)
		if err != nil {
			return nil, err
		}
		u := &unit{p, prometheus.WrapRegistererWith(prometheus.Labels{"model": names[0]}, reg), pipeline.NewCollector(p)}
		if err := u.reg.Register(u.metrics); err != nil {
			return nil, errors.Join(err, p.Close(canceled()))
		}
		return u, nil
	}}, nil
}

// A unit is a loaded model with its metrics.
type unit struct {
	*pipeline.Pipeline
	reg     prometheus.Registerer
	metrics prometheus.Collector
}

// Close ends both.
func (u *unit) Close(ctx context.Context) error {
	u.reg.Unregister(u.metrics)
	return u.Pipeline.Close(ctx)
}

// register adds the catalog's own metrics.
func (o *openedModels) register(reg prometheus.Registerer) {
	count := func(name, help string, value func(catalog.Stats) int) {
		reg.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "kvasir_" + name, Help: help}, func() float64 { return float64(value(o.Stats())) }))
	}
	count("model_loads_total", "Models loaded.", func(s catalog.Stats) int { return s.Loads })
	count("model_load_failures_total", "Models that could not be loaded.", func(s catalog.Stats) int { return s.Failed })
	count("model_unloads_total", "Models unloaded, idle or for another one's memory.", func(s catalog.Stats) int { return s.Unloads })
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "kvasir_models_loaded", Help: "Models that are loaded."}, func() float64 { return float64(o.Stats().Loaded) }))
}

// printReady says what is served.
func (o *openedModels) printReady(addr string, took time.Duration) {
	var lines []string
	for _, m := range o.Models() {
		line := fmt.Sprintf("  %s (%s, %s, context %d tokens)", m.ID, m.Quant, mebibytes(uint64(m.Bytes)), m.Context)
		if m.Parent != "" {
			line = fmt.Sprintf("  %s (adapter of %s, %s)", m.ID, m.Parent, mebibytes(uint64(m.Bytes)))
		}
		if len(m.Aliases) > 0 {
			line += ", also " + strings.Join(m.Aliases, ", ")
		}
		lines = append(lines, line)
	}
	fmt.Fprintf(os.Stderr, "ready in %.2f s: http://%s  %d models, CPU path %s, %d threads, KV budget %s for each that is loaded\n%s\n",
		took.Seconds(), addr, len(lines), o.path, o.threads, mebibytes(o.share), strings.Join(lines, "\n"))
}
