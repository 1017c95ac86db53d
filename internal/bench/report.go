package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// ReportVersion is the version of the JSON form; it grows when a field changes its meaning or goes away.
const ReportVersion = 1

// A Report is what Run measured. It is also the JSON form.
type Report struct {
	Version int           `json:"version"`
	Time    time.Time     `json:"time"`
	Machine Machine       `json:"machine"`
	Options ReportOptions `json:"options"`
	Targets []Description `json:"targets"`
	Results []*Measure    `json:"results"`
	Errors  []StepError   `json:"errors"`
}

// Machine is where Run ran, filled in by its caller.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"` // logical ones that the process may use
	OS     string `json:"os"`
	Kvasir string `json:"kvasir"` // version of this program
	Go     string `json:"go"`
}

// ReportOptions are the Options that the figures depend on.
type ReportOptions struct {
	Rounds       int    `json:"rounds"`
	PromptTokens []int  `json:"prompt_tokens"`
	ExtendTokens int    `json:"extend_tokens"`
	GenTokens    int    `json:"gen_tokens"`
	Clients      int    `json:"clients"`
	Seed         uint64 `json:"seed"`
}

// A Measure is one figure at one prompt length, for each target that gave it.
type Measure struct {
	Name         string    `json:"name"`          // one of the constants
	Unit         string    `json:"unit"`          // "ms", "tokens/s" or "tokens"
	PromptTokens int       `json:"prompt_tokens"` // the length asked for; 0 is a short question
	Series       []*Series `json:"series"`
}

// A Series holds a target's values, one a round.
type Series struct {
	Target string    `json:"target"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	Min    float64   `json:"min"`
	Max    float64   `json:"max"`
	Ratio  *float64  `json:"ratio"` // median by the first target's median; null where that has none

	// As reported by the target in each round, summed over the clients of it.
	Prompt []int `json:"prompt_tokens"`
	Cached []int `json:"cached_tokens"` // -1 where it does not say
}

// A StepError is a step that failed.
type StepError struct {
	Target string `json:"target"`
	Round  int    `json:"round"` // from 1
	Step   string `json:"step"`
	Error  string `json:"error"`
}

func newReport(o Options) *Report {
	return &Report{Version: ReportVersion, Time: time.Now().UTC().Truncate(time.Second), Results: []*Measure{}, Errors: []StepError{},
		Options: ReportOptions{o.Rounds, slices.Clone(o.PromptTokens), o.ExtendTokens, o.GenTokens, o.Clients, o.Seed}}
}

// unit of a measure.
func unit(name string) string {
	switch name {
	case ColdTTFT, WarmTTFT, Together, TogetherFirst:
		return "ms"
	case TogetherTokens:
		return "tokens"
	}
	return "tokens/s"
}

func (r *Report) add(target int, name string, tokens int, value float64, rs []Result) {
	m := r.measure(name, tokens)
	s := m.series(r.Targets[target].Name)
	s.Values = append(s.Values, value)
	prompt, cached := 0, 0
	for _, x := range rs {
		prompt += x.PromptTokens
		if x.CachedTokens < 0 || cached < 0 {
			cached = -1
		} else {
			cached += x.CachedTokens
		}
	}
	s.Prompt, s.Cached = append(s.Prompt, prompt), append(s.Cached, cached)
}

func (r *Report) measure(name string, tokens int) *Measure {
	for _, m := range r.Results {
		if m.Name == name && m.PromptTokens == tokens {
			return m
		}
	}
	m := &Measure{Name: name, Unit: unit(name), PromptTokens: tokens}
	r.Results = append(r.Results, m)
	return m
}

func (m *Measure) series(target string) *Series {
	for _, s := range m.Series {
		if s.Target == target {
			return s
		}
	}
	s := &Series{Target: target}
	m.Series = append(m.Series, s)
	return s
}

func (r *Report) fail(target, round int, step string, err error) {
	r.Errors = append(r.Errors, StepError{r.Targets[target].Name, round + 1, step, err.Error()})
}

// finish computes what follows from the values.
func (r *Report) finish() {
	for _, m := range r.Results {
		var base *Series
		for _, s := range m.Series {
			s.Median, s.Min, s.Max = median(s.Values), slices.Min(s.Values), slices.Max(s.Values)
			if s.Target == r.Targets[0].Name {
				base = s
			}
		}
		for _, s := range m.Series {
			if base != nil && base.Median > 0 {
				ratio := s.Median / base.Median
				s.Ratio = &ratio
			}
		}
	}
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

func medianInt(v []int) int { return slices.Sorted(slices.Values(v))[len(v)/2] }

// WriteJSON writes the report, indented.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

var titles = map[string]string{
	ColdTTFT: "cold TTFT", WarmTTFT: "warm TTFT", Prefill: "prefill", EnginePrefill: "prefill, engine alone", Extend: "prefill behind",
	EngineExtend: "prefill behind, engine alone", Decode: "decode", EngineDecode: "decode, engine alone", SharedDecode: "clients, cached prefix",
	Together: "clients, fresh prefix: all done", TogetherFirst: "clients, fresh prefix: slowest TTFT", TogetherTokens: "clients, fresh prefix: computed",
}

// WriteTable writes the report for people: a line for each measure and target.
func (r *Report) WriteTable(w io.Writer) error {
	rows := [][]string{{"measure", "tokens", "target", "median", "min", "max", "unit", "cached", "ratio"}}
	for _, m := range r.Results {
		title := titles[m.Name]
		if strings.HasPrefix(title, "clients") {
			title = fmt.Sprintf("%d %s", r.Options.Clients, title)
		}
		tokens := fmt.Sprint(m.PromptTokens)
		if m.PromptTokens == 0 {
			tokens = "short"
		}
		for i, s := range m.Series {
			cached, ratio := "?", "-"
			if c := medianInt(s.Cached); c >= 0 {
				cached = fmt.Sprintf("%d/%d", c, medianInt(s.Prompt))
			}
			if s.Ratio != nil {
				ratio = fmt.Sprintf("%.2f", *s.Ratio)
			}
			row := []string{"", "", s.Target, figure(s.Median), figure(s.Min), figure(s.Max), m.Unit, cached, ratio}
			if i == 0 {
				row[0], row[1] = title, tokens
			}
			rows = append(rows, row)
		}
	}
	var b strings.Builder
	align(&b, rows, map[int]bool{1: true, 3: true, 4: true, 5: true, 7: true, 8: true})
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "failed: %s, round %d, %s: %s\n", e.Target, e.Round, e.Step, e.Error)
	}
	if len(r.Targets) > 1 {
		fmt.Fprintf(&b, "ratio: median by that of %s\n", r.Targets[0].Name)
	}
	for _, t := range r.Targets {
		fmt.Fprintf(&b, "%s: %s\n", t.Name, t)
	}
	m := r.Machine
	fmt.Fprintf(&b, "measured by kvasir %s (%s, %s) on %s, %d CPUs; %d rounds, seed %d\n", m.Kvasir, m.Go, m.OS, m.CPU, m.CPUs, r.Options.Rounds, r.Options.Seed)
	_, err := io.WriteString(w, b.String())
	return err
}

// String is the description as one line.
func (d Description) String() string {
	var p []string
	add := func(format, v string) {
		if v != "" {
			p = append(p, fmt.Sprintf(format, v))
		}
	}
	add("%s", d.URL)
	add("model %s", d.Model)
	add("server %s", d.Server)
	add("version %s", d.Version)
	add("CPU path %s", d.Path)
	if d.Threads > 0 {
		p = append(p, fmt.Sprintf("%d threads", d.Threads))
	}
	return strings.Join(p, ", ")
}

func figure(v float64) string {
	if v >= 1000 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

// align writes rows in columns, those of right flush right.
func align(b *strings.Builder, rows [][]string, right map[int]bool) {
	width := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len(c))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			if right[i] {
				fmt.Fprintf(&line, "%*s", width[i], c)
			} else {
				fmt.Fprintf(&line, "%-*s", width[i], c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
