package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"kvasir/internal/bench"
	"kvasir/internal/machine"
)

// benchFlags are those of every form that measures scenarios.
type benchFlags struct {
	bench.Options
	json, svg string
}

// bind registers the common flags.
func (b *benchFlags) bind(c *cobra.Command, scenarios []string) {
	f := c.Flags()
	f.StringSliceVar(&b.Only, "only", nil, "`scenarios` to measure, separated by commas; all of those below if not given")
	f.IntVar(&b.Rounds, "rounds", b.Rounds, "`times` that everything is measured, in turn")
	f.Uint64Var(&b.Seed, "seed", 0, "seed of the texts, to measure with the same ones again; 0 takes a new one, so that nothing is cached yet")
	f.StringVar(&b.json, "json", "", "also write the report as JSON to this `file`")
	f.StringVar(&b.svg, "svg", "", "also draw the headline figures as a chart to this SVG `file`")
	c.MarkFlagFilename("json", "json")
	c.MarkFlagFilename("svg", "svg")
	c.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(completions(scenarios), cobra.ShellCompDirectiveNoFileComp))
	c.Long += "\n\nScenarios:\n" + describe(scenarios)
}

// bindLoads registers those of the loads.
func (b *benchFlags) bindLoads(f *pflag.FlagSet) {
	f.IntVar(&b.Clients, "clients", b.Clients, "`clients` at once")
	f.IntVar(&b.Requests, "requests", b.Requests, "`requests` of a load in a round, of all clients together")
}

// bindLengths registers those of the scenarios that are not loads.
func (b *benchFlags) bindLengths(f *pflag.FlagSet) {
	f.IntSliceVar(&b.PromptTokens, "prompt-tokens", b.PromptTokens, "cold, warm, extend: `lengths` of the prompts, in tokens of the first target")
	f.IntVar(&b.LongTokens, "long-tokens", b.LongTokens, "long: `length` of the prompt")
	f.IntVar(&b.ExtendTokens, "extend-tokens", b.ExtendTokens, "extend: `tokens` behind a cached prompt")
	f.IntSliceVar(&b.Depths, "depths", b.Depths, "decode: `lengths` of the prompts; 0 is a short question")
	f.IntVar(&b.GenTokens, "gen-tokens", b.GenTokens, "decode, streams: `tokens` to generate")
	f.IntVar(&b.SharedTokens, "shared-tokens", b.SharedTokens, "streams, together: `length` of the shared prefix")
	f.IntVar(&b.Keystrokes, "keystrokes", b.Keystrokes, "keys: `keystrokes` in a file")
	f.IntVar(&b.ITLStreams, "itl-streams", b.ITLStreams, "itl: running `streams`")
	f.IntVar(&b.ITLTokens, "itl-tokens", b.ITLTokens, "itl: `length` of the prompt that comes in between")
}

func completions(scenarios []string) []cobra.Completion {
	var c []cobra.Completion
	for _, s := range bench.Scenarios() {
		for _, n := range scenarios {
			if n == s.Name {
				c = append(c, cobra.CompletionWithDesc(s.Name, s.Help))
			}
		}
	}
	return c
}

func describe(scenarios []string) string {
	var b strings.Builder
	for _, c := range completions(scenarios) {
		name, help, _ := strings.Cut(string(c), "\t")
		fmt.Fprintf(&b, "  %-9s %s\n", name, help)
	}
	return strings.TrimRight(b.String(), "\n")
}

func benchCommand() *cobra.Command {
	b := benchFlags{Options: bench.DefaultOptions()}
	var urls, against []string
	var key string
	c := &cobra.Command{
		Use:   "bench --url [NAME=]URL[#MODEL] [--against [NAME=]URL[#MODEL] ...]",
		Short: "Measure servers that speak the OpenAI API, this program's engine, or the machine",
		Long: `Measure servers that speak the OpenAI API (/v1/completions, streamed). Several servers take every step in turn (A B A B), on
texts of the same length, because machines are noisy: trust ratios of one run, not figures of two. The texts are made up anew
in each run, so that nothing is cached before.

The table has the median of each figure, its 10th and 90th percentile, what the server says was cached, and how many times better the first
server's median is ("ahead"). What a server does not support, and what a reader must know about a figure, stands in the notes.

"kvasir bench engine" measures the engine in this process, "kvasir bench saves" what the cache saves, "kvasir bench machine" the machine's limits.`,
		Example: `  kvasir bench --url http://127.0.0.1:8080
  kvasir bench --url kvasir=http://127.0.0.1:8080 --against llama=http://127.0.0.1:8101#smol --json out.json --svg out.svg
  kvasir bench --url http://127.0.0.1:8080 --only cold,warm --prompt-tokens 500,4000 --rounds 5
  kvasir bench --url http://127.0.0.1:8080 --only chat,code,rag --clients 4`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(urls) == 0 {
				return errors.New(`bench: give a server with --url, or measure this program's own engine with "kvasir bench engine"`)
			}
			var targets []bench.Target
			for i, u := range append(urls, against...) {
				flag := "--url"
				if i >= len(urls) {
					flag = "--against"
				}
				t, err := bench.ParseHTTP(u, key)
				if err != nil {
					return fmt.Errorf("%s %w", flag, err)
				}
				defer t.Close()
				if err := t.Model(cmd.Context()); err != nil {
					return err
				}
				targets = append(targets, t)
			}
			return b.run(cmd, targets, nil)
		},
	}
	b.bind(c, append(bench.Standard(), bench.Loads()...))
	c.Flags().Lookup("only").Usage = "`scenarios` to measure, separated by commas; all but the loads if not given"
	b.bindLengths(c.Flags())
	b.bindLoads(c.Flags())
	c.Flags().StringArrayVar(&urls, "url", nil, "`server` as [NAME=]URL[#MODEL]; without a model the first that it lists")
	c.Flags().StringArrayVar(&against, "against", nil, "`server` to compare with, written like --url; may be repeated")
	c.Flags().StringVar(&key, "key", "", "API `key` for the servers")
	c.AddCommand(benchEngineCommand(), benchSavesCommand(), benchMachineCommand())
	return c
}

// progress returns a function that shows on a terminal where a run is, and one that removes it. Elsewhere they do nothing.
func progress() (show func(done, total int, step string), clear func()) {
	f := os.Stderr
	if !term.IsTerminal(int(f.Fd())) {
		return func(int, int, string) {}, func() {}
	}
	return func(done, total int, step string) { fmt.Fprintf(f, "\r\x1b[K%d/%d %s", done+1, total, step) }, func() { fmt.Fprint(f, "\r\x1b[K") }
}

// run measures and writes the report. What was measured is written even if the run was broken off or a step failed. finish may add to
// the report; it may be nil.
func (b *benchFlags) run(cmd *cobra.Command, targets []bench.Target, finish func(*bench.Report)) error {
	o := b.Options
	for o.Seed == 0 {
		o.Seed = rand.Uint64() >> 11 // exact in every JSON reader
	}
	show, clear := progress()
	o.Progress = show
	r, err := bench.Run(cmd.Context(), targets, o)
	clear()
	if r == nil {
		return err
	}
	r.Command, r.Machine = commandLine(), thisMachine()
	if finish != nil {
		finish(r)
	}
	if err == nil && len(r.Errors) > 0 {
		err = fmt.Errorf("%d steps failed", len(r.Errors))
	}
	err = errors.Join(err, r.WriteTable(cmd.OutOrStdout()))
	if b.json != "" {
		err = errors.Join(err, writeFile(b.json, r.WriteJSON))
	}
	if b.svg != "" {
		err = errors.Join(err, writeFile(b.svg, r.Chart().WriteSVG))
	}
	return err
}

func thisMachine() bench.Machine {
	return bench.Machine{CPU: machine.CPUModel(), CPUs: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Kvasir: versionString(), Go: runtime.Version()}
}

// commandLine is how this process was called, for the report. Keys stay out of it.
func commandLine() string {
	args := append([]string{strings.TrimSuffix(filepath.Base(os.Args[0]), ".exe")}, os.Args[1:]...)
	for i, a := range args {
		if i > 0 && args[i-1] == "--key" {
			args[i] = "..."
		} else if strings.HasPrefix(a, "--key=") {
			args[i] = "--key=..."
		}
	}
	return strings.Join(args, " ")
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
