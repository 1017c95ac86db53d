package pipeline

import (
	"github.com/prometheus/client_golang/prometheus"

	"kvasir/internal/sched"
)

// collector exports the scheduler's and the cache's numbers.
type collector struct {
	p     *Pipeline
	gauge []metric
}

type metric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Pipeline, *sched.Stats) float64
}

// NewCollector returns the metrics of p, for a Prometheus registry.
func NewCollector(p *Pipeline) prometheus.Collector {
	c := &collector{p: p}
	add := func(name, help string, kind prometheus.ValueType, value func(*Pipeline, *sched.Stats) float64) {
		c.gauge = append(c.gauge, metric{prometheus.NewDesc("kvasir_"+name, help, nil, nil), kind, value})
	}
	const g, n = prometheus.GaugeValue, prometheus.CounterValue
	add("requests_waiting", "Sequences that wait for admission.", g, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Waiting) })
	add("sequences_running", "Sequences that are admitted.", g, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Running) })
	add("steps_total", "Steps computed.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Steps) })
	add("prefill_tokens_total", "Tokens computed that were not decode.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.PrefillTokens) })
	add("decode_tokens_total", "Tokens computed one a step, drafts aside.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.DecodeTokens) })
	add("draft_tokens_total", "Guessed tokens computed.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.DraftTokens) })
	add("draft_accepted_tokens_total", "Guessed tokens that were what the model chose.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.AcceptedTokens) })
	add("preemptions_total", "Sequences that gave up their KV to an older one.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Preemptions) })
	add("kv_blocks_total", "KV blocks of the memory tier.", g, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Total) })
	add("kv_blocks_free", "KV blocks that hold nothing.", g, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Free) })
	add("kv_blocks_cached", "KV blocks that hold a prefix that no running sequence uses.", g, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Cached) })
	add("kv_blocks_held", "KV blocks that running sequences use.", g, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Held) })
	add("kv_cache_usage_ratio", "Share of the KV blocks that hold something.", g, func(_ *Pipeline, s *sched.Stats) float64 {
		return float64(s.Cache.Cached+s.Cache.Held) / float64(s.Cache.Total)
	})
	add("kv_bytes_per_token", "Bytes of KV that a token takes.", g, func(p *Pipeline, _ *sched.Stats) float64 { return float64(p.TokenBytes()) })
	add("prefix_cache_evicted_blocks_total", "KV blocks whose prefix was evicted.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Evicted) })
	add("prefix_cache_deduplicated_blocks_total", "KV blocks dropped because an equal one was there.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Deduplicated) })
	add("prefix_cache_copied_blocks_total", "KV blocks of which a part was copied.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Copies) })
	return c
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range c.gauge {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	s := c.p.Stats()
	for _, m := range c.gauge {
		ch <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(c.p, &s))
	}
}
