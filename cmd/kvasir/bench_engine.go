package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kvasir/internal/bench"
	"kvasir/internal/config"
	"kvasir/internal/hub"
	"kvasir/internal/llm"
)

func benchEngineCommand() *cobra.Command {
	b := benchFlags{Options: bench.DefaultOptions()}
	b.PromptTokens = []int{500, 1800}
	var s config.Serve
	var cpu, mem string
	c := &cobra.Command{
		Use:   "engine [MODEL]",
		Short: "Measure the engine in this process",
		Long: `Measure the engine in this process: the same figures as over HTTP, and beside them those by the engine's own time, without queue and
tokenizer ("engine alone"). Prefill behind n tokens and decode behind n tokens are rates at that depth.

Before each round the machine's limits are measured, as "kvasir bench machine" does, and the engine's own figures are set against
them ("share"): prefill against the time that the int8 operations of the matrices and the float32 operations of attention take at their peak rates,
decode against the time in which weights and KV can be read from memory.`,
		Example: `  kvasir bench engine
  kvasir bench engine ./model.gguf --threads 1 --prompt-tokens 2000,8000 --rounds 5
  kvasir bench engine --cpuprofile cpu.prof && go tool pprof -top cpu.prof
  KVASIR_CPU=avx2 kvasir bench engine --only cold,decode --drafts off`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := loadSettings(cmd, &s, args); err != nil {
				return err
			}
			s.CacheDisk = "0" // the engine is measured, and a server may have the directory
			m, err := openModel(cmd.Context(), &s, slog.New(slog.DiscardHandler))
			if err != nil {
				return err
			}
			defer m.Close(canceled())
			stop, err := startProfiles(cpu, mem)
			if err != nil {
				return err
			}
			if b.Only == nil {
				b.Only = []string{"cold", "warm", "extend", "decode"}
			}
			return errors.Join(b.runEngine(cmd, &s, m), stop())
		},
	}
	config.Bind(c.Flags(), &s, "config", "model", "model-dir", "hf-endpoint", "offline", "ctx", "threads", "cache", "cache-mem", "block-size", "max-batch", "drafts", "numerics", "data-dir")
	b.bind(c, append(bench.Standard(), bench.Loads()...))
	c.Flags().Lookup("only").Usage = "`scenarios` to measure, separated by commas; cold, warm, extend and decode if not given"
	b.bindLengths(c.Flags())
	b.bindLoads(c.Flags())
	c.Flags().StringVar(&cpu, "cpuprofile", "", "write a CPU profile to this `file`")
	c.Flags().StringVar(&mem, "memprofile", "", "write a profile of all allocations to this `file`")
	return c
}

// runEngine measures the engine and sets it against the limits of the machine.
func (b *benchFlags) runEngine(cmd *cobra.Command, s *config.Serve, m *opened) error {
	file, err := hub.Resolve(cmd.Context(), s.Model, hubOptions(s, os.Stderr)) // openModel has fetched it
	if err != nil {
		return err
	}
	shape, err := modelShape(file.Path, m.TokenBytes())
	if err != nil {
		return err
	}
	meter := newLimitsMeter(m.path, m.threads)
	b.BeforeRound = func(ctx context.Context, _ int) error { return meter.measure(ctx) }
	return b.run(cmd, []bench.Target{engineTarget{m}}, func(r *bench.Report) {
		if l := meter.limits(); l != nil {
			r.Hold(shape, l)
		}
	})
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
	res := bench.Result{Start: time.Now()}
	st, err := e.m.Generate(ctx, r)
	if err != nil {
		return res, err
	}
	defer st.Close()
	var text strings.Builder
	for {
		event, err := st.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return res, err
		}
		if event.Text == "" && event.Finish != "" && len(res.Events) > 0 {
			continue // the reason of the end is no token
		}
		res.Events = append(res.Events, time.Since(res.Start))
		text.WriteString(event.Text)
		if c.Event != nil {
			c.Event()
		}
	}
	u, t := st.Usage(), st.Timings()
	res.Text = text.String()
	res.PromptTokens, res.CachedTokens, res.CompletionTokens = u.PromptTokens, u.CachedTokens, u.CompletionTokens
	res.Prefill, res.Decode = seconds(t.Prefill), seconds(t.Decode)
	return res, nil
}

// CPU implements bench.Meter. Beside the engine's it has the time of measuring, which is small.
func (e engineTarget) CPU() (time.Duration, error) { return bench.CPU(os.Getpid()) }
