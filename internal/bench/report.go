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
const ReportVersion = 2

// A Report is what Run measured. It is also the JSON form.
type Report struct {
	Version int           `json:"version"`
	Command string        `json:"command,omitempty"` // filled in by Run's caller, like Machine
	Time    time.Time     `json:"time"`
	Machine Machine       `json:"machine"`
	Options ReportOptions `json:"options"`
	Targets []Description `json:"targets"`
	Results []*Measure    `json:"results"`
	Errors  []StepError   `json:"errors"`
	Limits  *Limits       `json:"limits,omitempty"` // what Share is the share of
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
	Rounds       int      `json:"rounds"`
	Scenarios    []string `json:"scenarios"`
	PromptTokens []int    `json:"prompt_tokens"`
	LongTokens   int      `json:"long_tokens"`
	ExtendTokens int      `json:"extend_tokens"`
	Depths       []int    `json:"depths"`
	GenTokens    int      `json:"gen_tokens"`
	SharedTokens int      `json:"shared_tokens"`
	Clients      int      `json:"clients"`
	Keystrokes   int      `json:"keystrokes"`
	ITLStreams   int      `json:"itl_streams"`
	ITLTokens    int      `json:"itl_tokens"`
	Requests     int      `json:"requests"`
	Seed         uint64   `json:"seed"`
}

// A Measure is one figure of a scenario at one prompt length, for each target that gave it.
type Measure struct {
	Scenario     string    `json:"scenario"`
	Name         string    `json:"name"` // one of the constants
	Unit         string    `json:"unit"`
	PromptTokens int       `json:"prompt_tokens"` // the length asked for; 0 if none was
	Series       []*Series `json:"series"`
}

// A Series holds a target's values in the order in which they were measured.
type Series struct {
	Target string    `json:"target"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	P10    float64   `json:"p10"`
	P90    float64   `json:"p90"`
	// Ahead is how many times better the first target's median is than this one: above 1 the first target is ahead. Null for the first
	// target itself, and where one of the two has no figure.
	Ahead *float64 `json:"ahead"`

	// As reported by the target for each value, summed over the calls that it comes from.
	Calls  []int `json:"calls"`
	Prompt []int `json:"prompt_tokens"`
	Cached []int `json:"cached_tokens"` // -1 where it does not say

	// What the machine could do at best, in the measure's unit, and the median's share of it (Report.Hold).
	Limit float64 `json:"limit,omitempty"`
	Share float64 `json:"share,omitempty"`

	Notes []string `json:"notes,omitempty"`
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
		Options: ReportOptions{o.Rounds, slices.Clone(o.Only), slices.Clone(o.PromptTokens), o.LongTokens, o.ExtendTokens, slices.Clone(o.Depths), o.GenTokens,
			o.SharedTokens, o.Clients, o.Keystrokes, o.ITLStreams, o.ITLTokens, o.Requests, o.Seed}}
}

func (r *Report) add(target int, scenario, name string, tokens int, value float64, rs []Result) {
	s := r.measure(scenario, name, tokens).series(r.Targets[target].Name)
	s.Values = append(s.Values, value)
	prompt, cached := 0, 0
	for _, x := range rs {
		prompt += x.PromptTokens
		if x.CachedTokens < 0 || cached < 0 {
			cached = -1
		} else {
			cached += x.CachedTokens
		}
		for _, n := range x.Notes {
			s.note(n)
		}
	}
	s.Calls, s.Prompt, s.Cached = append(s.Calls, len(rs)), append(s.Prompt, prompt), append(s.Cached, cached)
}

func (r *Report) note(target int, scenario, name string, tokens int, text string) {
	r.measure(scenario, name, tokens).series(r.Targets[target].Name).note(text)
}

func (s *Series) note(text string) {
	if !slices.Contains(s.Notes, text) {
		s.Notes = append(s.Notes, text)
	}
}

func (r *Report) measure(scenario, name string, tokens int) *Measure {
	for _, m := range r.Results {
		if m.Scenario == scenario && m.Name == name && m.PromptTokens == tokens {
			return m
		}
	}
	m := &Measure{Scenario: scenario, Name: name, Unit: metricOf(scenario, name).unit, PromptTokens: tokens}
	r.Results = append(r.Results, m)
	return m
}

func (m *Measure) series(target string) *Series {
	for _, s := range m.Series {
		if s.Target == target {
			return s
		}
	}
	s := &Series{Target: target, Values: []float64{}}
	m.Series = append(m.Series, s)
	return s
}

func (r *Report) fail(target, round int, step string, err error) {
	r.Errors = append(r.Errors, StepError{r.Targets[target].Name, round + 1, step, err.Error()})
}

// finish computes what follows from the values. Measures stand in the order of the scenarios and series in that of the targets, whatever
// failed first.
func (r *Report) finish() {
	for _, m := range r.Results {
		slices.SortStableFunc(m.Series, func(a, b *Series) int { return r.target(a.Target) - r.target(b.Target) })
		var base *Series
		for _, s := range m.Series {
			if len(s.Values) == 0 {
				continue
			}
			s.Median, s.P10, s.P90 = median(s.Values), quantile(s.Values, 0.1), quantile(s.Values, 0.9)
			if s.Target == r.Targets[0].Name {
				base = s
			}
		}
		k := metricOf(m.Scenario, m.Name)
		for _, s := range m.Series {
			if k.plain || base == nil || s == base || base.Median <= 0 || s.Median <= 0 {
				continue
			}
			ahead := s.Median / base.Median
			if k.more {
				ahead = 1 / ahead
			}
			s.Ahead = &ahead
		}
	}
	order := map[string]int{}
	for i, s := range Scenarios() {
		order[s.Name] = i
	}
	slices.SortStableFunc(r.Results, func(a, b *Measure) int { return order[a.Scenario] - order[b.Scenario] })
}

// target is the index of the target called name.
func (r *Report) target(name string) int {
	return slices.IndexFunc(r.Targets, func(d Description) bool { return d.Name == name })
}

// WriteJSON writes the report, indented.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(r)
}

// tokens is the length of a measure's prompts for people: what was asked for, else what the first target reports, else "".
func (r *Report) tokens(m *Measure) int {
	if m.PromptTokens > 0 {
		return m.PromptTokens
	}
	for _, s := range m.Series {
		if len(s.Prompt) > 0 {
			return medianInt(s.Prompt) / max(1, medianInt(s.Calls))
		}
	}
	return 0
}

// title is a measure for people, without its prompt length.
func (r *Report) title(m *Measure) string {
	t := metricOf(m.Scenario, m.Name).title
	switch {
	case m.Scenario == "streams" || m.Scenario == "together":
		t = fmt.Sprintf("%d %s", r.Options.Clients, t)
	case strings.HasPrefix(t, "streams alone"):
		t = fmt.Sprintf("%d %s", r.Options.ITLStreams, t)
	case slices.Contains(Loads(), m.Scenario):
		t = m.Scenario + ": " + t
	}
	return t
}
