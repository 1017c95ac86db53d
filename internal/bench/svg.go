package bench

import (
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Chart is drawn by WriteSVG: horizontal bars in groups, each group with a scale of its own.
type Chart struct {
	Title    string
	Subtitle string
	Series   []string // what the colours stand for
	Groups   []ChartGroup
	Footer   []string // lines
}

// A ChartGroup is one figure.
type ChartGroup struct {
	Title string // e.g. "cold TTFT, 1,800 tokens"
	Hint  string // e.g. "ms, less is better"
	Bars  []ChartBar
}

// A ChartBar is a value with its spread.
type ChartBar struct {
	Series    int // index into Chart.Series
	Value     float64
	Low, High float64 // of the whisker; equal: none
	Text      string  // behind the bar
}

// Sizes of the chart in SVG's pixels.
const (
	chartWidth  = 760
	chartMargin = 24
	nameWidth   = 120
	textWidth   = 190 // room behind the longest bar
	barHeight   = 16
	barStep     = 22
)

// Colours of the series, for light and for dark pages; a seventh series begins anew.
var (
	lightColours = []string{"#0969da", "#9a6700", "#6e7781", "#1a7f37", "#8250df", "#bf3989"}
	darkColours  = []string{"#58a6ff", "#d29922", "#8b949e", "#3fb950", "#bc8cff", "#f778ba"}
)

// WriteSVG draws the chart. The picture needs no font, script or file beside it, and follows the reader's light or dark mode.
func (c *Chart) WriteSVG(w io.Writer) error {
	var body strings.Builder
	y := chartMargin + 18
	text := func(x, y int, class, anchor, s string) {
		fmt.Fprintf(&body, `<text x="%d" y="%d" class="%s"`, x, y, class)
		if anchor != "" {
			fmt.Fprintf(&body, ` text-anchor="%s"`, anchor)
		}
		fmt.Fprintf(&body, ">%s</text>\n", escape(s))
	}
	text(chartMargin, y, "t", "", c.Title)
	if c.Subtitle != "" {
		y += 20
		text(chartMargin, y, "m", "", c.Subtitle)
	}
	y += 14
	const left, room = chartMargin + nameWidth, chartWidth - 2*chartMargin - nameWidth - textWidth
	for _, g := range c.Groups {
		y += 22
		text(chartMargin, y, "g", "", g.Title)
		text(chartWidth-chartMargin, y, "m", "end", g.Hint)
		y += 8
		most := 0.0
		for _, b := range g.Bars {
			most = max(most, b.Value, b.High)
		}
		x := func(v float64) float64 {
			if most <= 0 {
				return 0
			}
			return room * v / most
		}
		for _, b := range g.Bars {
			middle := y + barHeight/2
			text(left-8, middle+4, "n", "end", clip(c.Series[b.Series], 18))
			fmt.Fprintf(&body, `<rect x="%d" y="%d" width="%.1f" height="%d" rx="2" class="s%d"/>`+"\n", left, y, max(2, x(b.Value)), barHeight, b.Series%len(lightColours))
			end := x(b.Value)
			if b.High > b.Low {
				end = max(end, x(b.High))
				fmt.Fprintf(&body, `<path d="M%.1f %dH%.1fM%.1f %dv8M%.1f %dv8" class="w"/>`+"\n", left+x(b.Low), middle, left+x(b.High), left+x(b.Low), middle-4, left+x(b.High), middle-4)
			}
			text(left+int(end)+8, middle+4, "v", "", b.Text)
			y += barStep
		}
	}
	for i, f := range c.Footer {
		y += 16
		if i == 0 {
			y += 12
		}
		text(chartMargin, y, "m", "", f)
	}
	height := y + chartMargin
	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="%s">`+"\n", chartWidth, height, chartWidth, height, escape(c.Title))
	out.WriteString("<style>\n" + style() + "</style>\n")
	fmt.Fprintf(&out, `<rect width="%d" height="%d" rx="6" class="b"/>`+"\n%s</svg>\n", chartWidth, height, body.String())
	_, err := io.WriteString(w, out.String())
	return err
}

func style() string {
	var b strings.Builder
	b.WriteString("text{font-family:system-ui,-apple-system,\"Segoe UI\",Helvetica,Arial,sans-serif;font-size:12px;fill:#1f2328}\n" +
		".t{font-size:18px;font-weight:600}.g{font-size:13px;font-weight:600}.m{fill:#59636e}.v{font-variant-numeric:tabular-nums}\n" +
		".b{fill:#fff}.w{stroke:#1f2328;stroke-opacity:.55;fill:none}\n")
	colours := func(list []string) {
		for i, c := range list {
			fmt.Fprintf(&b, ".s%d{fill:%s}", i, c)
		}
		b.WriteByte('\n')
	}
	colours(lightColours)
	b.WriteString("@media (prefers-color-scheme:dark){\ntext{fill:#f0f6fc}.m{fill:#9198a1}.b{fill:#0d1117}.w{stroke:#f0f6fc}\n")
	colours(darkColours)
	b.WriteString("}\n")
	return b.String()
}

// escape makes s fit for XML text and attributes; what XML cannot hold becomes U+FFFD.
func escape(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder never fails
	return b.String()
}

func clip(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// Chart returns the report's headline figures, those that every reader asks for first.
func (r *Report) Chart() *Chart {
	c := &Chart{Title: "kvasir bench"}
	var models []string
	for _, t := range r.Targets {
		c.Series = append(c.Series, t.Name)
		if !slices.Contains(models, t.Model) {
			models = append(models, t.Model)
		}
	}
	if len(r.Targets) > 1 {
		c.Title = strings.Join(c.Series, " against ")
	}
	c.Subtitle = fmt.Sprintf("%s; %s, %d CPUs", strings.Join(models, ", "), r.Machine.CPU, r.Machine.CPUs)
	for _, m := range r.Results {
		k := metricOf(m.Scenario, m.Name)
		if !k.chart {
			continue
		}
		g := ChartGroup{Title: r.heading(m), Hint: "less is better"}
		if k.more {
			g.Hint = "more is better"
		}
		for _, s := range m.Series {
			if len(s.Values) == 0 {
				continue
			}
			b := ChartBar{Series: r.target(s.Target), Value: s.Median, Low: s.P10, High: s.P90, Text: bigFigure(s.Median) + " " + m.Unit}
			if s.Ahead != nil {
				if c := compared(k, *s.Ahead); c != "" {
					b.Text += ", " + c
				}
			}
			g.Bars = append(g.Bars, b)
		}
		if len(g.Bars) > 0 {
			c.Groups = append(c.Groups, g)
		}
	}
	c.Footer = []string{fmt.Sprintf("Medians over %s, taken in turn; lines: 10th to 90th percentile. %s", rounds(r.Options.Rounds), r.Time.Format("2006-01-02"))}
	return c
}

// heading is a measure with its prompt length.
func (r *Report) heading(m *Measure) string {
	n := r.tokens(m)
	switch {
	case n == 0:
		return r.title(m)
	case m.Scenario == "decode" && m.PromptTokens == 0:
		return r.title(m) + ", short prompt"
	case m.Scenario == "decode":
		return fmt.Sprintf("%s behind %s tokens", r.title(m), thousands(n))
	case slices.Contains(Loads(), m.Scenario):
		return fmt.Sprintf("%s, prompts of %s tokens", r.title(m), thousands(n))
	}
	return fmt.Sprintf("%s, %s tokens", r.title(m), thousands(n))
}

// compared says how a series stands to the first one, which is ahead times better.
func compared(k metric, ahead float64) string {
	worse, better := "slower", "faster"
	switch {
	case k.more && k.unit != "tokens/s":
		worse, better = "fewer", "more"
	case k.unit == "s":
		worse, better = "more", "less"
	}
	switch {
	case ahead >= 1.05:
		return fmt.Sprintf("%.1f× %s", ahead, worse)
	case ahead <= 1/1.05:
		return fmt.Sprintf("%.1f× %s", 1/ahead, better)
	}
	return ""
}

// bigFigure is figure with commas.
func bigFigure(v float64) string {
	if v >= 1000 {
		return thousands(int(v + 0.5))
	}
	return figure(v)
}

func rounds(n int) string {
	if n == 1 {
		return "1 round"
	}
	return fmt.Sprintf("%d rounds", n)
}

// thousands writes n with commas.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
