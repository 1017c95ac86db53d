package bench

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata anew")

// golden holds got against a file. The JSON form, the table and the chart are read by others: a change of testdata is a change for them.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (-update writes it anew); got\n%s", name, got)
	}
}

func sample() *Report {
	o := DefaultOptions()
	o.Only, o.Seed = []string{"cold", "decode", "together", "itl"}, 42
	r := newReport(o)
	r.Time = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	r.Command = "kvasir bench --url a=http://127.0.0.1:1 --against long-name=http://127.0.0.1:2"
	r.Machine = Machine{CPU: "Some CPU", CPUs: 2, OS: "linux/amd64", Kvasir: "v1.0.0", Go: "go1.26"}
	r.Targets = []Description{{Name: "a", Kind: "http", URL: "http://127.0.0.1:1", Model: "m", Server: "s", Version: "fp"}, {Name: "long-name <&>", Kind: "engine", Model: "m", Path: "avx2", Threads: 2, Version: "v1"}}
	for i, v := range []float64{700, 680, 690} {
		r.add(0, "cold", TTFT, 2000, v, []Result{{PromptTokens: 2001, CachedTokens: 0}})
		r.add(1, "cold", TTFT, 2000, v*2, []Result{{PromptTokens: 2001, CachedTokens: -1}})
		r.add(1, "decode", Decode, 0, 100.26+float64(i), []Result{{PromptTokens: 12, CachedTokens: 11, Notes: []string{"no ignore_eos"}}})
		r.add(0, "decode", Decode, 0, 200+float64(i), []Result{{PromptTokens: 12, CachedTokens: 11}})
		r.add(0, "together", Computed, 1600, 2080, []Result{{PromptTokens: 2010, CachedTokens: 2000}, {PromptTokens: 2010, CachedTokens: -1}})
		r.add(0, "itl", ITLAlone95, 4000, 5+float64(i), []Result{{PromptTokens: 64}})
	}
	r.note(1, "decode", Running, 0, "never all running at once")
	r.fail(0, 1, "decode", errors.New("it broke"))
	r.finish()
	return r
}

func TestReportForms(t *testing.T) {
	r := sample()
	var js, table, svg bytes.Buffer
	if err := errors.Join(r.WriteJSON(&js), r.WriteTable(&table), r.Chart().WriteSVG(&svg)); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/report.json", js.Bytes())
	golden(t, "testdata/report.txt", table.Bytes())
	golden(t, "testdata/report.svg", svg.Bytes())
}

// Less and more are told apart: for ms a higher median of the other is a lead, for rates a lower one.
func TestAhead(t *testing.T) {
	r := sample()
	for _, c := range []struct {
		scenario, name string
		tokens         int
		want           float64
	}{{"cold", TTFT, 2000, 2}, {"decode", Decode, 0, 201 / 101.26}} {
		if a := r.measure(c.scenario, c.name, c.tokens).series("long-name <&>").Ahead; a == nil || math.Abs(*a-c.want) > 1e-9 {
			t.Errorf("%s: ahead %v, want %v", c.scenario, a, c.want)
		}
	}
}

// A chart is one well-formed picture that needs nothing from elsewhere, for light and dark pages.
func TestChartStandsAlone(t *testing.T) {
	c := &Chart{Title: `a <b> & "c"`, Series: []string{"x\x00", "a name that is far too long for its place"},
		Groups: []ChartGroup{{Title: "zero", Bars: []ChartBar{{}, {Series: 1}}}, {Title: "one", Bars: []ChartBar{{Value: 2, Low: 1, High: 9, Text: "2"}}}}}
	var b bytes.Buffer
	if err := c.WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	for d := xml.NewDecoder(&b); ; {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, s)
		}
		if e, ok := tok.(xml.StartElement); ok {
			for _, a := range e.Attr {
				if a.Name.Local == "href" || a.Name.Local == "src" || strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("<%s %s=%q>", e.Name.Local, a.Name.Local, a.Value)
				}
			}
		}
	}
	for _, bad := range []string{"@import", "url(", "@font-face", "<script", "<b>"} {
		if strings.Contains(s, bad) {
			t.Errorf("the chart has %q", bad)
		}
	}
	if !strings.Contains(s, "prefers-color-scheme:dark") {
		t.Error("no colours for dark pages")
	}
	if err := c.WriteSVG(failing{}); err == nil {
		t.Error("a failed write was not told")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestRoofline(t *testing.T) {
	l := &Limits{Path: "p", Threads: 2, Int8: 1000, F32: 100, Read: 50}
	s := &Shape{Int8Ops: 100, F32Ops: 10, HeadInt8Ops: 50, HeadF32Ops: 20, AttentionOps: 2, WeightBytes: 100, KVBytes: 0.5}
	// 4 tokens behind 3: 4*100+50 int8; 4*10+20 and 2*(4+5+6+7) f32.
	if got, want := s.PrefillSeconds(l, 3, 4), 450.0/1000+(60.0+44)/100; math.Abs(got-want) > 1e-12 {
		t.Errorf("prefill takes %v s, want %v", got, want)
	}
	if got, want := s.DecodeSeconds(l, 100), 150.0/50; got != want {
		t.Errorf("a token takes %v s, want %v", got, want)
	}
	build := func() *Report {
		o := small()
		o.GenTokens = 20
		r := newReport(o)
		r.Targets = []Description{{Name: "engine"}}
		r.add(0, "extend", EnginePrefill, 100, 1, []Result{{PromptTokens: 7, CachedTokens: 3}})
		r.add(0, "decode", EngineDecode, 100, 0.1, []Result{{PromptTokens: 90, CachedTokens: 3}})
		r.add(0, "decode", EngineDecode, 200, 0.5, []Result{{PromptTokens: 90, CachedTokens: 3, Notes: []string{severalAtOnce}}})
		r.add(0, "decode", EngineSteps, 200, 0.2, []Result{{PromptTokens: 90, CachedTokens: 3}})
		r.add(0, "cold", TTFT, 100, 5, []Result{{PromptTokens: 90}})
		r.note(0, "cold", EnginePrefill, 100, "none")
		r.finish()
		return r
	}
	r := build()
	r.Hold(s, l)
	for _, c := range []struct {
		scenario, name string
		tokens         int
		limit, share   float64
	}{{"extend", EnginePrefill, 100, 4 / 1.49, 1.49 / 4}, {"decode", EngineDecode, 100, 1.0 / 3, 0.3}, {"cold", TTFT, 100, 0, 0}, {"cold", EnginePrefill, 100, 0, 0},
		{"decode", EngineDecode, 200, 0, 0}, {"decode", EngineSteps, 200, 1.0 / 3, 0.6}} {
		v := r.measure(c.scenario, c.name, c.tokens).series("engine")
		if math.Abs(v.Limit-c.limit) > 1e-9 || math.Abs(v.Share-c.share) > 1e-9 {
			t.Errorf("%s: limit %v, share %v, want %v, %v", c.name, v.Limit, v.Share, c.limit, c.share)
		}
	}
	// Where the peak rates are not known there is no share of them, but still one of the bandwidth.
	r = build()
	r.Hold(s, &Limits{Read: 50})
	if v := r.measure("extend", EnginePrefill, 100).series("engine"); v.Limit != 0 || v.Share != 0 {
		t.Errorf("prefill without peak rates: %+v", v)
	}
	if v := r.measure("decode", EngineDecode, 100).series("engine"); v.Share == 0 || !strings.Contains(r.Limits.String(), "not known") {
		t.Errorf("decode without peak rates: %+v, %s", v, r.Limits)
	}
}
