package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/spf13/cobra"

	"kvasir/internal/config"
	"kvasir/internal/folders"
	"kvasir/internal/gguf"
	"kvasir/internal/hub"
	"kvasir/internal/kernel"
	"kvasir/internal/llm"
	"kvasir/internal/machine"
	"kvasir/internal/pipeline"
	"kvasir/internal/sched"
	"kvasir/internal/store/disk"
)

// opened is the one model of this process.
type opened struct {
	*pipeline.Pipeline
	*host
}

// Close ends the model and then the disk cache.
func (o *opened) Close(ctx context.Context) error {
	return errors.Join(o.Pipeline.Close(ctx), o.host.close())
}

// openDisk opens the disk cache of the settings, or returns nil if there is to be none.
func openDisk(s *config.Serve, log *slog.Logger) (*disk.Tier, error) {
	a, err := config.ParseAmount(s.CacheDisk)
	if err != nil {
		return nil, fmt.Errorf("--cache-disk: %w", err)
	}
	if a == (config.Amount{}) || s.Cache == "off" {
		return nil, nil
	}
	d, err := disk.Open(disk.Options{Dir: filepath.Join(s.DataDir, "kv"), Quota: int64(min(a.Bytes, math.MaxInt64)), Share: a.Percent / 100, Floor: int64(s.CacheDiskFree),
		Retention: s.CacheRetention, WriteRate: int64(s.CacheWriteRate), Log: log})
	if errors.Is(err, disk.ErrInUse) {
		return nil, fmt.Errorf("%w: stop it, give this one a --data-dir of its own, or --cache-disk=0", err)
	}
	if err != nil { // a cache that cannot work is no reason not to serve
		log.Error("no disk cache", "err", err)
		return nil, nil
	}
	return d, nil
}

// loadModes are the values of --cache-load.
var loadModes = map[string]sched.LoadMode{"auto": sched.LoadAuto, "always": sched.LoadAlways, "never": sched.LoadNever}

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
	o := hub.Options{CacheDir: s.ModelDir, HFEndpoint: s.HFEndpoint, Offline: s.Offline, Progress: hub.NewBar(w),
		DigestFile: filepath.Join(s.DataDir, "digests.json"), Folders: folders.Default()}
	if s.Folders == "off" {
		o.Folders = []folders.Folder{}
	}
	return o
}

// A host is what all models of this process share.
type host struct {
	s                 *config.Serve
	log               *slog.Logger
	path              kernel.Path
	threads           int
	cores             []int // nil: the workers may move
	secret            []byte
	budget, available uint64     // bytes: of all KV, of memory
	disk              *disk.Tier // nil: none
}

func openHost(s *config.Serve, log *slog.Logger) (_ *host, err error) {
	if err := os.MkdirAll(s.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	h := &host{s: s, log: log, threads: s.Threads}
	if h.path, err = kernel.Default(); err != nil {
		return nil, fmt.Errorf("KVASIR_CPU: %w", err)
	}
	if h.budget, err = machine.Budget(s.CacheMem); err != nil {
		return nil, fmt.Errorf("--cache-mem: %w", err)
	}
	if h.available, _, err = machine.Memory(); err != nil {
		return nil, err
	}
	if h.secret, err = deploymentSecret(filepath.Join(s.DataDir, "secret")); err != nil {
		return nil, err
	}
	if h.threads == 0 {
		h.threads = machine.Threads()
	}
	// The workers keep a processor each for whole steps: what reads requests and writes streams has others, of which the
	// system takes the time where it needs it. A GOMAXPROCS that the user has set stays.
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(max(runtime.GOMAXPROCS(0), h.threads+2))
	}
	// Workers that have all cores stay each on its own.
	if h.cores = machine.Cores(); len(h.cores) != h.threads {
		h.cores = nil
	}
	h.disk, err = openDisk(s, log)
	return h, err
}

// close ends the disk cache, which keeps what the models had. They must be closed.
func (h *host) close() error {
	if h.disk == nil {
		return nil
	}
	return h.disk.Close()
}

// found is a model that is on this machine.
type found struct {
	*hub.Model
	digest       [32]byte
	adapters     []pipeline.Adapter
	adapterInfo  []llm.ModelInfo // of each
	adapterBytes uint64          // of memory
}

// find fetches a model if needed.
func (h *host) find(ctx context.Context, ref string) (*found, error) {
	ho := hubOptions(h.s, os.Stderr)
	m, err := hub.Resolve(ctx, ref, ho)
	if err != nil {
		return nil, err
	}
	digest, err := hub.Digest(m.Path, ho.DigestFile)
	return &found{Model: m, digest: digest}, err
}

// load loads a model, which keeps at most kv bytes of KV in memory. turn may be nil, see pipeline.Options.
func (h *host) load(m *found, names []string, kv uint64, turn sync.Locker) (*pipeline.Pipeline, error) {
	s := h.s
	p, err := pipeline.Open(m.Path, pipeline.Options{
		Names: names, Digest: m.digest, Adapters: m.adapters, Path: h.path, Threads: h.threads, CPUs: h.cores, Context: s.Ctx, BlockSize: s.BlockSize, KVBytes: kv,
		MaxQueue: s.MaxQueue, MaxBatch: s.MaxBatch, NoCache: s.Cache == "off", NoDrafts: s.Drafts == "off", Accurate: s.Numerics == "accurate", Secret: h.secret, Disk: h.disk, Load: loadModes[s.CacheLoad], Turn: turn, Log: h.log,
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Path, err)
	}
	return p, nil
}

// openModel fetches the model if needed and loads it.
func openModel(ctx context.Context, s *config.Serve, log *slog.Logger) (_ *opened, err error) {
	h, err := openHost(s, log)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	m, err := h.find(ctx, s.Model)
	if err != nil {
		return nil, err
	}
	names := s.ServedModelNames
	if len(names) == 0 {
		names = []string{m.Name}
	}
	if err := h.adapt(m, names); err != nil {
		return nil, err
	}
	weights, err := h.weights(m)
	if err != nil {
		return nil, err
	}
	if need := h.budget + weights; need > h.available {
		return nil, fmt.Errorf("the weights (%s) and a KV budget of %s need more than the %s of memory that are available: lower --cache-mem",
			mebibytes(weights), mebibytes(h.budget), mebibytes(h.available))
	}
	p, err := h.load(m, names, h.budget, nil)
	if err != nil {
		return nil, err
	}
	return &opened{p, h}, nil
}

// weights is the memory that a model's weights take, those of its adapters too. They are packed beside the file, of which the system may drop what it likes; buffers are small
// beside both.
func (h *host) weights(m *found) (uint64, error) {
	if h.s.Numerics == "accurate" {
		n, err := floatBytes(m.Path)
		return n + m.adapterBytes, err
	}
	return uint64(m.Bytes) + m.adapterBytes, nil
}

// floatBytes is what the weights of the model at path take as float32.
func floatBytes(path string) (n uint64, err error) {
	f, err := gguf.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for i := range f.Tensors {
		n += 4 * uint64(f.Tensors[i].Rows()) * uint64(f.Tensors[i].RowLen())
	}
	return n, nil
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
