package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kvasir/internal/bench"
	"kvasir/internal/kernel"
	"kvasir/internal/kernel/peak"
	"kvasir/internal/machine"
)

// limitsReport is the JSON form of "kvasir bench machine".
type limitsReport struct {
	Version int           `json:"version"`
	Command string        `json:"command"`
	Time    time.Time     `json:"time"`
	Machine bench.Machine `json:"machine"`
	Results []limitsRow   `json:"results"`
}

// A limitsRow holds the rates of one path and thread count: operations and bytes a second.
type limitsRow struct {
	Path         string    `json:"path"`
	Threads      int       `json:"threads"`
	Int8         peak.Rate `json:"int8"`
	F32          peak.Rate `json:"f32"`
	Read         peak.Rate `json:"read"`
	Instructions [2]string `json:"instructions"` // of Int8 and F32
}

func benchMachineCommand() *cobra.Command {
	var threads []int
	var times int
	var file string
	c := &cobra.Command{
		Use:   "machine",
		Short: "Measure the machine's limits: memory bandwidth and peak rates of arithmetic",
		Long: `Measure the machine's limits, for each CPU path that it has and for one and all threads: bytes a second read from memory, and the peak rates of
int8 products and of float32 multiply-add, by loops that stay in registers. No kernel can be faster. A multiplication and an addition are
two operations. Memory is read by the path's own loop and by a plain one, and the quicker counts. Where a path has no loops of its own they are plain Go, and say so: portable code's rate, not the processor's.`,
		Example: `  kvasir bench machine
  kvasir bench machine --threads 1,2,4 --times 21 --json limits.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(threads) == 0 {
				threads = []int{1, machine.Threads()}
			}
			slices.Sort(threads)
			threads = slices.Compact(threads)
			r := &limitsReport{Version: 1, Command: commandLine(), Time: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(), Results: []limitsRow{}}
			err := r.measure(cmd, threads, times)
			err = errors.Join(err, r.writeTable(cmd.OutOrStdout()))
			if file != "" {
				err = errors.Join(err, writeFile(file, func(w io.Writer) error {
					e := json.NewEncoder(w)
					e.SetIndent("", " ")
					return e.Encode(r)
				}))
			}
			return err
		},
	}
	c.Flags().IntSliceVar(&threads, "threads", nil, "`counts` of threads to measure with; 1 and one a physical core if not given")
	c.Flags().IntVar(&times, "times", 11, "`times` that each rate is measured; median and best are shown")
	c.Flags().StringVar(&file, "json", "", "also write the rates as JSON to this `file`")
	c.MarkFlagFilename("json", "json")
	return c
}

// measure adds a row for each path and thread count. What it has measured stays if it fails.
func (r *limitsReport) measure(cmd *cobra.Command, threads []int, times int) error {
	show, clear := progress()
	defer clear()
	paths := kernel.Available()
	buf := newReadBuffer()
	for i, p := range paths {
		for k, n := range threads {
			show(i*len(threads)+k, len(paths)*len(threads), fmt.Sprintf("%v, %d threads", p, n))
			row := limitsRow{Path: p.String(), Threads: n, Instructions: [2]string{peak.Instructions(p, peak.Int8), peak.Instructions(p, peak.F32)}}
			var err [3]error
			row.Int8, err[0] = peak.Compute(cmd.Context(), p, peak.Int8, n, times)
			row.F32, err[1] = peak.Compute(cmd.Context(), p, peak.F32, n, times)
			row.Read, err[2] = peak.Bandwidth(cmd.Context(), p, n, times, buf)
			for _, e := range err {
				if e != nil {
					return e
				}
			}
			r.Results = append(r.Results, row)
		}
	}
	return nil
}

func (r *limitsReport) writeTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "path\tthreads\tint8 GOPS\tbest\tf32 GFLOPS\tbest\tread GB/s\tbest\tloops")
	g := func(v float64) string { return fmt.Sprintf("%.1f", v/1e9) }
	for _, x := range r.Results {
		loops := x.Instructions[0]
		if x.Instructions[1] != loops {
			loops += "; " + x.Instructions[1]
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", x.Path, x.Threads, g(x.Int8.Median), g(x.Int8.Best), g(x.F32.Median), g(x.F32.Best), g(x.Read.Median), g(x.Read.Best), loops)
	}
	m := r.Machine
	fmt.Fprintf(t, "medians; read: %d MiB. Measured by kvasir %s (%s, %s) on %s, %d CPUs\n", readBuffer>>20, m.Kvasir, m.Go, m.OS, m.CPU, m.CPUs)
	return t.Flush()
}
