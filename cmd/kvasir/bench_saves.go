package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kvasir/internal/bench"
	"kvasir/internal/config"
)

func benchSavesCommand() *cobra.Command {
	b := benchFlags{Options: bench.DefaultOptions()}
	b.Clients, b.Requests, b.SameTexts = 4, 48, true
	var s config.Serve
	c := &cobra.Command{
		Use:   "saves [MODEL]",
		Short: "Measure what the prefix cache saves: the same load with and without it",
		Long: `Measure what the prefix cache saves. Two servers of this program are started on free ports of the loopback interface, one with --cache=on, one
with --cache=off, and get the same load in turn: a fixed number of clients, each of which sends its next request when it has its answer. Reported
are processor time a request, requests a second, time to first token at that load and the share of the prompts that came from the cache. The texts are
made from the seed; answers of both servers are compared, and must be the same.`,
		Example: `  kvasir bench saves
  kvasir bench saves ./model.gguf --clients 8 --requests 64 --rounds 5 --json saves.json --svg saves.svg
  kvasir bench saves --only rag --threads 2`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := loadSettings(cmd, &s, args); err != nil {
				return err
			}
			if b.Only == nil {
				b.Only = bench.Loads()
			}
			state, err := os.MkdirTemp("", "kvasir-bench-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(state)
			targets, stop, err := startBoth(cmd.Context(), &s, state)
			if err != nil {
				return err
			}
			return errors.Join(b.run(cmd, targets, nil), stop())
		},
	}
	config.Bind(c.Flags(), &s, "config", "model", "model-dir", "hf-endpoint", "offline", "ctx", "threads", "cache-mem", "block-size", "max-batch", "drafts")
	b.bind(c, bench.Loads())
	b.bindLoads(c.Flags())
	return c
}

// startBoth starts a server with the cache and one without, which keep their state in the directory, and returns them with a function that
// ends both.
func startBoth(ctx context.Context, s *config.Serve, state string) ([]bench.Target, func() error, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	// Nothing but what is said here may set the servers apart from their defaults: no file, no environment.
	empty := filepath.Join(state, "config.yaml")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		return nil, nil, err
	}
	var running []*bench.Process
	stop := func() error {
		var errs []error
		for _, p := range running {
			errs = append(errs, p.Stop())
		}
		return errors.Join(errs...)
	}
	var targets []bench.Target
	for _, cache := range []string{"on", "off"} {
		p, err := bench.Start(ctx, "cache "+cache, serveArgs(self, s, cache, empty, filepath.Join(state, cache)), cleanEnv(os.Environ()))
		if err != nil {
			return nil, nil, errors.Join(err, stop())
		}
		running, targets = append(running, p), append(targets, p)
	}
	return targets, stop, nil
}

func serveArgs(self string, s *config.Serve, cache, file, dir string) []string {
	args := []string{self, "serve", "--addr=127.0.0.1:0", "--log-level=warn", "--cache=" + cache, "--config=" + file, "--data-dir=" + dir,
		"--model=" + s.Model, fmt.Sprintf("--offline=%t", s.Offline), fmt.Sprintf("--ctx=%d", s.Ctx), fmt.Sprintf("--threads=%d", s.Threads),
		"--cache-mem=" + s.CacheMem, fmt.Sprintf("--block-size=%d", s.BlockSize), fmt.Sprintf("--max-batch=%d", s.MaxBatch), "--drafts=" + s.Drafts}
	if s.ModelDir != "" {
		args = append(args, "--model-dir="+s.ModelDir)
	}
	if s.HFEndpoint != "" {
		args = append(args, "--hf-endpoint="+s.HFEndpoint)
	}
	return args
}

// cleanEnv leaves out the environment's settings of the server. KVASIR_CPU stays: it belongs to the machine.
func cleanEnv(env []string) []string {
	var clean []string
	for _, e := range env {
		if name, _, _ := strings.Cut(e, "="); !strings.HasPrefix(strings.ToUpper(name), "KVASIR_") || strings.EqualFold(name, "KVASIR_CPU") {
			clean = append(clean, e)
		}
	}
	return clean
}
