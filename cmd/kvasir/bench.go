package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"kvasir/internal/bench"
	"kvasir/internal/config"
	"kvasir/internal/llm"
	"kvasir/internal/machine"
)

// benchFlags are those of both forms.
type benchFlags struct {
	bench.Options
	json string
}

func (b *benchFlags) bind(f *pflag.FlagSet) {
	f.IntVar(&b.Rounds, "rounds", 3, "`times` that everything is measured")
	f.IntSliceVar(&b.PromptTokens, "prompt-tokens", []int{500, 1800}, "`lengths` of the prompts, in tokens of the first target")
	f.IntVar(&b.ExtendTokens, "extend-tokens", 512, "`tokens` behind a cached prompt, to measure prefill at that depth; 0: not measured")
	f.IntVar(&b.GenTokens, "gen-tokens", 64, "`tokens` to generate, to measure decoding")
	f.IntVar(&b.Clients, "clients", 8, "`clients` at once on one prefix; 0: not measured")
	f.Uint64Var(&b.Seed, "seed", 0, "seed of the texts, to measure with the same ones again; 0 takes a new one, so that nothing is cached yet")
	f.StringVar(&b.json, "json", "", "also write the report as JSON to this `file`")
}

func benchCommand() *cobra.Command {
	var b benchFlags
	var urls []string
	var key string
	c := &cobra.Command{
		Use:   "bench --url [NAME=]URL[#MODEL] ...",
		Short: "Measure servers that speak the OpenAI API, or this program's engine",
		Long: `Measure servers that speak the OpenAI API: time to first token with a cold and a warm prefix, prefill and decode rates, and
many clients on one prefix. Several servers take every step in turn (A B A B), on texts of the same length, because machines
are noisy: trust ratios of one run, not figures of two. The texts are made up anew in each run, so that nothing is cached before.

"kvasir bench engine" measures the engine in this process, without HTTP.`,
		Example: `  kvasir bench --url http://127.0.0.1:8080
  kvasir bench --url kvasir=http://127.0.0.1:8080 --url llama=http://127.0.0.1:8101#smol --json out.json
  kvasir bench --url http://127.0.0.1:8080 --prompt-tokens 4000 --clients 0 --rounds 5`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(urls) == 0 {
				return errors.New(`bench: give a server with --url, or measure this program's own engine with "kvasir bench engine"`)
			}
			var targets []bench.Target
			for _, u := range urls {
				t, err := bench.ParseHTTP(u, key)
				if err != nil {
					return fmt.Errorf("--url %w", err)
				}
				defer t.Close()
				if err := t.Model(cmd.Context()); err != nil {
					return err
				}
				targets = append(targets, t)
			}
			return b.run(cmd, targets)
		},
	}
	b.bind(c.Flags())
	c.Flags().StringArrayVar(&urls, "url", nil, "`server` as [NAME=]URL[#MODEL]; may be repeated; without a model the first that it lists")
	c.Flags().StringVar(&key, "key", "", "API `key` for the servers")
	c.AddCommand(benchEngineCommand())
	return c
}

func benchEngineCommand() *cobra.Command {
	var b benchFlags
	var s config.Serve
	var cpu, mem string
	c := &cobra.Command{
		Use:   "engine [MODEL]",
		Short: "Measure the engine in this process",
		Long: `Measure the engine in this process: the same figures as over HTTP, and beside them those by the engine's own time, without queue and
tokenizer ("engine alone"). Prefill behind n tokens and decode behind n tokens are rates at that depth.`,
		Example: `  kvasir bench engine
  kvasir bench engine ./model.gguf --threads 1 --prompt-tokens 2000,8000 --rounds 5
  kvasir bench engine --cpuprofile cpu.prof && go tool pprof -top cpu.prof
  KVASIR_CPU=avx2 kvasir bench engine`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := loadSettings(cmd, &s, args); err != nil {
				return err
			}
			m, err := openModel(cmd.Context(), &s, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer m.Close(canceled())
			stop, err := startProfiles(cpu, mem)
			if err != nil {
				return err
			}
			return errors.Join(b.run(cmd, []bench.Target{engineTarget{m}}), stop())
		},
	}
	config.Bind(c.Flags(), &s, "config", "model", "model-dir", "hf-endpoint", "offline", "ctx", "threads", "cache", "cache-mem", "block-size", "max-batch", "data-dir")
	b.bind(c.Flags())
	c.Flags().StringVar(&cpu, "cpuprofile", "", "write a CPU profile to this `file`")
	c.Flags().StringVar(&mem, "memprofile", "", "write a profile of all allocations to this `file`")
	return c
}

// run measures and writes the report. What was measured is written even if the run was broken off or a step failed.
func (b *benchFlags) run(cmd *cobra.Command, targets []bench.Target) error {
	o := b.Options
	for o.Seed == 0 {
		o.Seed = rand.Uint64() >> 11 // exact in every JSON reader
	}
	clear := func() {}
	if f := os.Stderr; term.IsTerminal(int(f.Fd())) {
		o.Progress = func(done, total int, step string) { fmt.Fprintf(f, "\r\x1b[K%d/%d %s", done+1, total, step) }
		clear = func() { fmt.Fprint(f, "\r\x1b[K") }
	}
	r, err := bench.Run(cmd.Context(), targets, o)
	clear()
	if r == nil {
		return err
	}
	r.Machine = bench.Machine{CPU: machine.CPUModel(), CPUs: runtime.GOMAXPROCS(0), OS: runtime.GOOS + "/" + runtime.GOARCH,
		Kvasir: versionString(), Go: runtime.Version()}
	if err == nil && len(r.Errors) > 0 {
		err = fmt.Errorf("%d steps failed", len(r.Errors))
	}
	err = errors.Join(err, r.WriteTable(cmd.OutOrStdout()))
	if b.json != "" {
		err = errors.Join(err, writeFile(b.json, r.WriteJSON))
	}
	return err
}

func writeFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

// startProfiles starts the profiles that have a file name. The function that it returns writes them.
func startProfiles(cpu, mem string) (func() error, error) {
	if mem != "" {
		runtime.MemProfileRate = 4096 // the default's 512 KiB misses most of a step's allocations
	}
	var f *os.File
	if cpu != "" {
		var err error
		if f, err = os.Create(cpu); err != nil {
			return nil, err
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			f.Close()
			return nil, err
		}
	}
	return func() error {
		var err error
		if f != nil {
			pprof.StopCPUProfile()
			err = f.Close()
		}
		if mem != "" {
			runtime.GC() // the profile is as of the last collection
			err = errors.Join(err, writeFile(mem, func(w io.Writer) error { return pprof.Lookup("allocs").WriteTo(w, 0) }))
		}
		return err
	}, nil
}

// engineTarget is the model that this process has opened.
type engineTarget struct{ m *opened }

// Describe implements bench.Target.
func (e engineTarget) Describe() bench.Description {
	return bench.Description{Name: "engine", Kind: "engine", Model: e.m.Models()[0].ID, Version: versionString(), Path: e.m.path.String(), Threads: e.m.threads}
}

// Complete implements bench.Target.
func (e engineTarget) Complete(ctx context.Context, c bench.Call) (bench.Result, error) {
	r := &llm.Request{ID: "bench", Tenant: "default", Model: e.m.Models()[0].ID, Prompts: []llm.Prompt{{Text: c.Prompt, IsText: true}}, N: 1,
		MaxTokens: c.MaxTokens, Sampling: llm.DefaultSampling(), IgnoreEOS: true, Logprobs: -1}
	r.Sampling.Temperature = 0
	start := time.Now()
	st, err := e.m.Generate(ctx, r)
	if err != nil {
		return bench.Result{}, err
	}
	defer st.Close()
	var res bench.Result
	for {
		_, err := st.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bench.Result{}, err
		}
		res.Last = time.Since(start)
		if res.First == 0 {
			res.First = res.Last
		}
	}
	u, t := st.Usage(), st.Timings()
	res.PromptTokens, res.CachedTokens, res.CompletionTokens = u.PromptTokens, u.CachedTokens, u.CompletionTokens
	res.Prefill, res.Decode = seconds(t.Prefill), seconds(t.Decode)
	return res, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
