package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"kvasir/internal/config"
	"kvasir/internal/hub"
	"kvasir/internal/kernel"
	"kvasir/internal/machine"
	"kvasir/internal/pipeline"
)

// opened is a model that serves, and what the ready line says about it.
type opened struct {
	*pipeline.Pipeline
	path    kernel.Path
	threads int
	budget  uint64
}

// loadSettings loads what Bind bound; a command's argument names the model.
func loadSettings(cmd *cobra.Command, s *config.Serve, args []string) error {
	if err := config.Load(cmd.Flags()); err != nil {
		return err
	}
	if len(args) == 1 {
		s.Model = args[0]
	}
	return nil
}

// hubOptions are those of the settings, with a progress bar on w.
func hubOptions(s *config.Serve, w io.Writer) hub.Options {
	return hub.Options{CacheDir: s.ModelDir, HFEndpoint: s.HFEndpoint, Offline: s.Offline, Progress: hub.NewBar(w),
		DigestFile: filepath.Join(s.DataDir, "digests.json")}
}

// openModel fetches the model if needed and loads it.
func openModel(ctx context.Context, s *config.Serve, log *slog.Logger) (*opened, error) {
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	ho := hubOptions(s, os.Stderr)
	m, err := hub.Resolve(ctx, s.Model, ho)
	if err != nil {
		return nil, err
	}
	digest, err := hub.Digest(m.Path, ho.DigestFile)
	if err != nil {
		return nil, err
	}
	secret, err := deploymentSecret(filepath.Join(s.DataDir, "secret"))
	if err != nil {
		return nil, err
	}
	path, err := kernel.Default()
	if err != nil {
		return nil, fmt.Errorf("KVASIR_CPU: %w", err)
	}
	budget, err := machine.Budget(s.CacheMem)
	if err != nil {
		return nil, fmt.Errorf("--cache-mem: %w", err)
	}
	available, _, err := machine.Memory()
	if err != nil {
		return nil, err
	}
	// Weights are packed beside the file, of which the system may drop what it likes; buffers are small beside both.
	if need := budget + uint64(m.Bytes); need > available {
		return nil, fmt.Errorf("the weights (%s) and a KV budget of %s need more than the %s of memory that are available: lower --cache-mem",
			mebibytes(uint64(m.Bytes)), mebibytes(budget), mebibytes(available))
	}
	o := &opened{path: path, threads: s.Threads, budget: budget}
	if o.threads == 0 {
		o.threads = machine.Threads()
	}
	// The workers keep a processor each for whole steps: what reads requests and writes streams has others, of which the
	// system takes the time where it needs it. A GOMAXPROCS that the user has set stays.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), o.threads+2))
	}
	// Workers that have all cores stay each on its own.
	cores := machine.Cores()
	if len(cores) != o.threads {
		cores = nil
	}
	names := s.ServedModelNames
	if len(names) == 0 {
		names = []string{m.Name}
	}
	o.Pipeline, err = pipeline.Open(m.Path, pipeline.Options{
		Names: names, Digest: digest, Path: path, Threads: o.threads, CPUs: cores, Context: s.Ctx, BlockSize: s.BlockSize, KVBytes: budget,
		MaxQueue: s.MaxQueue, MaxBatch: s.MaxBatch, NoCache: s.Cache == "off", NoDrafts: s.Drafts == "off", Secret: secret, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	return o, nil
}

// deploymentSecret reads the secret that tenants' scopes are made with, and makes one at the first start. Machines that are
// to share KV share this file.
func deploymentSecret(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		if len(b) < 16 {
			return nil, fmt.Errorf("%s holds %d bytes; a secret has at least 16", path, len(b))
		}
		return b, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	b = make([]byte, 32)
	rand.Read(b) // never fails
	// Two servers that start at once must agree: the first to link its file wins.
	tmp, err := os.CreateTemp(filepath.Dir(path), "secret-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	if _, err = tmp.Write(b); err == nil {
		err = tmp.Close()
	}
	if err != nil {
		return nil, err
	}
	if err := os.Link(tmp.Name(), path); errors.Is(err, fs.ErrExist) {
		return deploymentSecret(path)
	} else if err != nil {
		return b, os.Rename(tmp.Name(), path) // a file system without links
	}
	return b, nil
}
