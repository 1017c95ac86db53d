package pipeline

import (
	"github.com/prometheus/client_golang/prometheus"

	"kvasir/internal/sched"
	"kvasir/internal/store/disk"
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
	add("adapters", "Adapters that are loaded.", g, func(p *Pipeline, _ *sched.Stats) float64 { return float64(len(p.adapters)) })
	add("adapter_bytes", "Memory of the adapters.", g, func(p *Pipeline, _ *sched.Stats) float64 { return float64(p.AdapterBytes()) })
	add("prefix_cache_evicted_blocks_total", "KV blocks whose prefix was evicted.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Evicted) })
	add("prefix_cache_deduplicated_blocks_total", "KV blocks dropped because an equal one was there.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Deduplicated) })
	add("prefix_cache_copied_blocks_total", "KV blocks of which a part was copied.", n, func(_ *Pipeline, s *sched.Stats) float64 { return float64(s.Cache.Copies) })
	if p.o.Disk != nil {
		addDisk(add)
	}
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

// addDisk adds the metrics of the disk tier.
func addDisk(add func(name, help string, kind prometheus.ValueType, value func(*Pipeline, *sched.Stats) float64)) {
	const g, n = prometheus.GaugeValue, prometheus.CounterValue
	tier := func(name, help string, kind prometheus.ValueType, value func(*disk.Stats) int64) {
		add("disk_cache_"+name, help, kind, func(p *Pipeline, _ *sched.Stats) float64 {
			s := p.o.Disk.Stats()
			return float64(value(&s))
		})
	}
	loop := func(name, help string, kind prometheus.ValueType, value func(*sched.Stats) int64) {
		add("disk_cache_"+name, help, kind, func(_ *Pipeline, s *sched.Stats) float64 { return float64(value(s)) })
	}
	loop("hits_total", "Prompt tokens whose KV was loaded from disk.", n, func(s *sched.Stats) int64 { return s.LoadedTokens })
	loop("loads_total", "Loads that brought all that was found.", n, func(s *sched.Stats) int64 { return s.LoadsDone })
	loop("loads_declined_total", "Loads that were not begun because computing is quicker.", n, func(s *sched.Stats) int64 { return s.LoadsDeclined })
	loop("loads_slow_total", "Loads given up because they took longer than computing.", n, func(s *sched.Stats) int64 { return s.LoadsSlow })
	loop("loads_failed_total", "Loads that a fault or a damaged record ended; the rest was computed.", n, func(s *sched.Stats) int64 { return s.LoadsFailed })
	loop("unsaved_blocks", "KV blocks in memory that are to be written to disk yet.", g, func(s *sched.Stats) int64 { return int64(s.Unsaved) })
	loop("unsaved_evicted_blocks_total", "KV blocks that were evicted from memory before they were written to disk.", n, func(s *sched.Stats) int64 { return int64(s.Cache.Unsaved) })
	tier("records", "Records on disk.", g, func(s *disk.Stats) int64 { return int64(s.Records) })
	tier("bytes", "Bytes of disk that the cache takes, all its files included.", g, func(s *disk.Stats) int64 { return s.Bytes })
	tier("quota_bytes", "Bytes of disk that the cache may take.", g, func(s *disk.Stats) int64 { return s.Quota })
	tier("written_records_total", "Records written.", n, func(s *disk.Stats) int64 { return s.Written })
	tier("written_bytes_total", "Bytes of the records written.", n, func(s *disk.Stats) int64 { return s.WrittenBytes })
	tier("read_records_total", "Records read and verified.", n, func(s *disk.Stats) int64 { return s.Read })
	tier("read_bytes_total", "Bytes of the records read.", n, func(s *disk.Stats) int64 { return s.ReadBytes })
	tier("evicted_records_total", "Records deleted for the quota or for free space.", n, func(s *disk.Stats) int64 { return s.Evicted })
	tier("expired_records_total", "Records deleted for their age.", n, func(s *disk.Stats) int64 { return s.Expired })
	tier("unwritten_records_total", "Records not written because there was no room.", n, func(s *disk.Stats) int64 { return s.Full })
	tier("skipped_records_total", "Files that are torn, damaged or no records.", n, func(s *disk.Stats) int64 { return s.Skipped })
	tier("lost_records_total", "Records that were gone when they were to be read.", n, func(s *disk.Stats) int64 { return s.Lost })
	tier("read_faults_total", "Reads that failed.", n, func(s *disk.Stats) int64 { return s.ReadFaults })
	tier("write_faults_total", "Writes and deletions that failed.", n, func(s *disk.Stats) int64 { return s.WriteFaults })
}
