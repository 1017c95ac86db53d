package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// WriteTable writes the report for people: a line for each measure and target.
func (r *Report) WriteTable(w io.Writer) error {
	header := []string{"measure", "tokens", "target", "median", "p10", "p90", "unit", "cached", "ahead", "limit", "share", "notes"}
	right := []string{"tokens", "median", "p10", "p90", "cached", "ahead", "limit", "share"}
	var rows [][]string
	for _, m := range r.Results {
		tokens := ""
		if n := r.tokens(m); n > 0 {
			tokens = fmt.Sprint(n)
		}
		for i, s := range m.Series {
			row := make([]string, len(header))
			if i == 0 {
				row[0], row[1] = r.title(m), tokens
			}
			row[2], row[6], row[11] = s.Target, m.Unit, strings.Join(s.Notes, "; ")
			if len(s.Values) == 0 {
				row[3] = "-"
				rows = append(rows, row)
				continue
			}
			row[3], row[4], row[5] = figure(s.Median), figure(s.P10), figure(s.P90)
			if c, n := medianInt(s.Cached), medianInt(s.Prompt); c >= 0 && n > 0 {
				row[7] = fmt.Sprintf("%d/%d", c, n)
			} else if c < 0 {
				row[7] = "?"
			}
			if s.Ahead != nil {
				row[8] = figure(*s.Ahead) + "×"
			}
			if s.Limit > 0 {
				row[9], row[10] = figure(s.Limit), fmt.Sprintf("%.0f%%", 100*s.Share)
			}
			rows = append(rows, row)
		}
	}
	var b strings.Builder
	align(&b, header, rows, right)
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "failed: %s, round %d, %s: %s\n", e.Target, e.Round, e.Step, e.Error)
	}
	if len(r.Targets) > 1 {
		fmt.Fprintf(&b, "ahead: how many times better the median of %s is than this one\n", r.Targets[0].Name)
	}
	if r.Limits != nil {
		fmt.Fprintf(&b, "limit: as far as loops go that do nothing else, medians over the run: %s\n", r.Limits)
	}
	for _, t := range r.Targets {
		fmt.Fprintf(&b, "%s: %s\n", t.Name, t)
	}
	m := r.Machine
	fmt.Fprintf(&b, "measured by kvasir %s (%s, %s) on %s, %d CPUs; %s in turn, seed %d\n", m.Kvasir, m.Go, m.OS, m.CPU, m.CPUs, rounds(r.Options.Rounds), r.Options.Seed)
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

// figure is a value with three digits or so.
func figure(v float64) string {
	switch {
	case v >= 1000:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// align writes rows in columns, those of right flush right. Columns that are empty in every row are left out.
func align(b *strings.Builder, header []string, rows [][]string, right []string) {
	width := make([]int, len(header))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c))
		}
	}
	for i, h := range header {
		if width[i] > 0 {
			width[i] = max(width[i], utf8.RuneCountInString(h))
		}
	}
	for _, row := range append([][]string{header}, rows...) {
		var line strings.Builder
		for i, c := range row {
			if width[i] == 0 {
				continue
			}
			if i > 0 {
				line.WriteString("  ")
			}
			if slices.Contains(right, header[i]) {
				fmt.Fprintf(&line, "%*s", width[i], c)
			} else {
				fmt.Fprintf(&line, "%-*s", width[i], c)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}
