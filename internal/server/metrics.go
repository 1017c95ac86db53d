package server

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kvasir/internal/llm"
)

// metrics are the server's own; the names follow vLLM's where it has the same thing.
type metrics struct {
	requests         *prometheus.CounterVec
	running          prometheus.Gauge
	promptTokens     prometheus.Counter
	cacheQueries     prometheus.Counter
	cacheHits        prometheus.Counter
	generationTokens prometheus.Counter
	ttft             *prometheus.HistogramVec
	interToken       prometheus.Histogram
	duration         prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kvasir_requests_total",
			Help: "Requests by route and status; 499 is a client that went away, and a stream that failed midway has its error's status."}, []string{"endpoint", "status"}),
		running:          prometheus.NewGauge(prometheus.GaugeOpts{Name: "kvasir_requests_running", Help: "Generating requests that are queued or running."}),
		promptTokens:     counter("kvasir_prompt_tokens_total", "Prompt tokens, cached ones included."),
		cacheQueries:     counter("kvasir_prefix_cache_queries_total", "Prompt tokens that were looked up in the prefix cache."),
		cacheHits:        counter("kvasir_prefix_cache_hits_total", "Prompt tokens that came from the prefix cache."),
		generationTokens: counter("kvasir_generation_tokens_total", "Generated tokens."),
		ttft: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "kvasir_time_to_first_token_seconds",
			Help:    "From the request's arrival to its first token, by how much of the prompt was cached.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 17)}, []string{"cache"}),
		interToken: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kvasir_inter_token_latency_seconds",
			Help: "Between two pieces of one choice.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 13)}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "kvasir_request_duration_seconds",
			Help: "Of whole generating requests.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 18)}),
	}
	reg.MustRegister(m.requests, m.running, m.promptTokens, m.cacheQueries, m.cacheHits, m.generationTokens, m.ttft, m.interToken, m.duration)
	for _, state := range []string{"hit", "partial", "miss"} {
		m.ttft.WithLabelValues(state) // a series that is always there is easier to compute with
	}
	return m
}

// observeFirst counts what is known with the first token.
func (m *metrics) observeFirst(state string, ttft time.Duration, u llm.Usage, decisions []llm.Decision) {
	m.ttft.WithLabelValues(state).Observe(ttft.Seconds())
	m.promptTokens.Add(float64(u.PromptTokens))
	m.cacheHits.Add(float64(u.CachedTokens))
	queried := 0
	for _, d := range decisions {
		if d.Reason != llm.ReasonDisabled {
			queried += d.PromptTokens
		}
	}
	m.cacheQueries.Add(float64(queried))
}
