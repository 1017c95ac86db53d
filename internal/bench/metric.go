package bench

// The metrics, as the report names them.
const (
	TTFT    = "ttft"    // ms to the first token
	Prefill = "prefill" // tokens/s: tokens computed of the prompt by its TTFT
	Decode  = "decode"  // tokens/s of one stream behind a prompt
	ITL50   = "itl_p50" // ms between two arrivals of tokens of one stream, median of a stream
	ITL95   = "itl_p95"

	EnginePrefill = "engine_prefill" // tokens/s by the engine's own time
	EngineDecode  = "engine_decode"
	EngineSteps   = "engine_steps" // steps/s by the engine's own time, where tokens arrive several a step

	Total   = "total"   // tokens/s of all clients together, their prompts included
	Running = "running" // tokens/s of all clients together while all of them generate

	Wall       = "wall"         // ms until clients who arrive at once all have their answers
	WallByCold = "wall_by_cold" // the same by the TTFT of one cold prompt
	Slowest    = "slowest_ttft" // ms to the first token of the client who waits longest
	Computed   = "computed"     // prompt tokens computed for all of them

	ITLAlone50    = "itl_alone_p50" // ms between two tokens of streams that run alone, over all streams
	ITLAlone95    = "itl_alone_p95"
	ITLBusy50     = "itl_busy_p50" // the same while a long prompt is prefilled
	ITLBusy95     = "itl_busy_p95"
	ITLByAlone    = "itl_by_alone"    // the p95 beside the prompt by the one alone
	PromptAlone   = "prompt_alone"    // ms to the first token of that prompt on an idle server
	PromptBusy    = "prompt_busy"     // the same beside the streams
	PromptByAlone = "prompt_by_alone" // the second by the first

	CPUSeconds  = "cpu_seconds" // processor time a request, over all threads
	PerSecond   = "per_second"  // requests a second that a fixed number of clients get answered
	TTFT50      = "ttft_p50"    // ms, over all requests of a load
	TTFT95      = "ttft_p95"
	CachedShare = "cached_share" // of all prompt tokens, %
)

// metric says how a figure is read.
type metric struct {
	title string
	unit  string
	more  bool // more is better
	plain bool // says how something is, not how good
	chart bool // has its place in the chart
}

// metrics by name; a key "scenario/name" comes before it.
var metrics = map[string]metric{
	"cold/" + TTFT: {title: "cold TTFT", unit: "ms", chart: true},
	"long/" + TTFT: {title: "cold TTFT", unit: "ms", chart: true},
	"warm/" + TTFT: {title: "warm TTFT", unit: "ms", chart: true},
	"keys/" + TTFT: {title: "TTFT after a keystroke", unit: "ms", chart: true},

	Prefill:                   {title: "prefill", unit: "tokens/s", more: true},
	EnginePrefill:             {title: "prefill, engine alone", unit: "tokens/s", more: true},
	"extend/" + Prefill:       {title: "prefill behind", unit: "tokens/s", more: true},
	"extend/" + EnginePrefill: {title: "prefill behind, engine alone", unit: "tokens/s", more: true},
	Decode:                    {title: "decode", unit: "tokens/s", more: true, chart: true},
	EngineDecode:              {title: "decode, engine alone", unit: "tokens/s", more: true},
	EngineSteps:               {title: "decode steps, engine alone", unit: "steps/s", more: true},
	ITL50:                     {title: "between tokens, p50", unit: "ms"},
	ITL95:                     {title: "between tokens, p95", unit: "ms"},

	Total:   {title: "streams, cached prefix", unit: "tokens/s", more: true, chart: true},
	Running: {title: "streams, while all run", unit: "tokens/s", more: true},

	Wall:       {title: "at once, fresh prefix: all done", unit: "ms", chart: true},
	WallByCold: {title: "at once, fresh prefix: by one cold prompt", unit: "×"},
	Slowest:    {title: "at once, fresh prefix: slowest TTFT", unit: "ms"},
	Computed:   {title: "at once, fresh prefix: computed", unit: "tokens"},

	ITLAlone50:    {title: "streams alone: between tokens, p50", unit: "ms"},
	ITLAlone95:    {title: "streams alone: between tokens, p95", unit: "ms"},
	ITLBusy50:     {title: "beside a long prompt: between tokens, p50", unit: "ms"},
	ITLBusy95:     {title: "beside a long prompt: between tokens, p95", unit: "ms", chart: true},
	ITLByAlone:    {title: "beside a long prompt: p95 by alone", unit: "×"},
	PromptAlone:   {title: "long prompt alone: TTFT", unit: "ms"},
	PromptBusy:    {title: "long prompt beside streams: TTFT", unit: "ms"},
	PromptByAlone: {title: "long prompt beside streams: by alone", unit: "×"},

	CPUSeconds:  {title: "CPU time a request", unit: "s", chart: true},
	PerSecond:   {title: "answered requests", unit: "requests/s", more: true, chart: true},
	TTFT50:      {title: "TTFT, p50", unit: "ms", chart: true},
	TTFT95:      {title: "TTFT, p95", unit: "ms"},
	CachedShare: {title: "prompt tokens from the cache", unit: "%", plain: true},
}

func metricOf(scenario, name string) metric {
	if m, ok := metrics[scenario+"/"+name]; ok {
		return m
	}
	return metrics[name]
}
