package hub

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"kvasir/internal/config"
)

// NewBar returns a function for Options.Progress that shows a bar on a terminal, and plain lines (one for each
// tenth, stage and note) on anything else.
func NewBar(w io.Writer) func(Progress) {
	f, ok := w.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) {
		return newBar(w)
	}
	return newLines(w)
}

func newBar(w io.Writer) func(Progress) {
	var mu sync.Mutex
	var bar *progressbar.ProgressBar
	var source string
	var total int64
	end := func() {
		if bar != nil {
			bar.Exit()
			bar = nil
			fmt.Fprintln(w)
		}
	}
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Note != "" {
			end()
			fmt.Fprintf(w, "%s: %s\n", p.Model, p.Note)
			return
		}
		switch p.Stage {
		case Downloading, Extracting:
			if bar == nil || source != p.Source || total != p.Total {
				end()
				source, total = p.Source, p.Total
				n := p.Total
				if n <= 0 {
					n = -1
				}
				bar = progressbar.NewOptions64(n, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(p.Model),
					progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true), progressbar.OptionSetWidth(24), progressbar.OptionThrottle(100*time.Millisecond))
			}
			bar.Describe(p.Model + ": " + string(p.Stage))
			done := p.Done
			if p.Total > 0 {
				done = min(done, p.Total) // pip keeps the wheel beside what it has unpacked
			}
			bar.Set64(done)
		case Ready:
			if bar != nil && total > 0 {
				bar.Set64(total)
			}
			end()
			fmt.Fprintln(w, readyLine(p))
		}
	}
}

func readyLine(p Progress) string {
	return fmt.Sprintf("%s: ready, %s from %s", p.Model, config.Size(p.Total).Short(), p.Source)
}

func newLines(w io.Writer) func(Progress) {
	var mu sync.Mutex
	var last Progress
	tenth := int64(-1)
	return func(p Progress) {
		mu.Lock()
		defer mu.Unlock()
		if p.Note != "" {
			fmt.Fprintf(w, "%s: %s\n", p.Model, p.Note)
			return
		}
		if p.Stage == Ready {
			fmt.Fprintln(w, readyLine(p))
			return
		}
		if p.Stage != last.Stage || p.Source != last.Source {
			tenth = -1
		}
		last = p
		now := int64(0)
		if p.Total > 0 {
			now = min(p.Done, p.Total) / max(p.Total/10, 1)
		}
		if now <= tenth {
			return
		}
		tenth = now
		switch {
		case p.Stage == Connecting || p.Stage == Verifying:
			fmt.Fprintf(w, "%s: %s (%s)\n", p.Model, p.Stage, p.Source)
			tenth = 10
		case p.Total > 0:
			fmt.Fprintf(w, "%s: %s, %s of %s\n", p.Model, p.Stage, config.Size(min(p.Done, p.Total)).Short(), config.Size(p.Total).Short())
		default:
			fmt.Fprintf(w, "%s: %s\n", p.Model, p.Stage)
		}
	}
}
