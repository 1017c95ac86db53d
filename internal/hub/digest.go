package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"kvasir/internal/machine/osfile"
)

// digests is the cache file of Digest.
type digests struct {
	Version int                     `json:"version"`
	Files   map[string]digestRecord `json:"files"` // by osfile.Identity
}

type digestRecord struct {
	Path   string `json:"path"` // for people: the identity counts
	Size   int64  `json:"size"`
	Mtime  int64  `json:"mtime_ns"`
	SHA256 string `json:"sha256"`
}

const digestVersion = 1

// settled is how old a file's last change must be before its digest is remembered: a change within the same tick of
// the file system's clock would leave the times as they are.
const settled = 2 * time.Second

// Digest returns the SHA-256 of the model at path: that of the file, or for a split model one over those of all parts in order. It is
// remembered in cacheFile (JSON; made if missing, thrown away if it cannot be read) by device, inode, size and modification time in
// nanoseconds, on Windows by path in place of device and inode, so that an unchanged file is hashed once. cacheFile "" remembers nothing.
func Digest(path, cacheFile string) ([32]byte, error) {
	parts, err := partsOf(path)
	if err != nil {
		return [32]byte{}, fmt.Errorf("digest: %w", err)
	}
	sums := make([]string, len(parts))
	for i, p := range parts {
		sum, err := fileDigest(p, cacheFile)
		if err != nil || len(parts) == 1 {
			return sum, err
		}
		sums[i] = hex.EncodeToString(sum[:])
	}
	return joinSums(sums), nil
}

// joinSums is the digest of a split model, from those of its parts in hex: the SHA-256 of a line that says what this is, and one line a part.
func joinSums(sums []string) [32]byte {
	return sha256.Sum256([]byte("kvasir split model 1\n" + strings.Join(sums, "\n") + "\n"))
}

// fileDigest is Digest of one file.
func fileDigest(path, cacheFile string) ([32]byte, error) {
	var sum [32]byte
	f, err := os.Open(path)
	if err != nil {
		return sum, fmt.Errorf("digest: %w", err)
	}
	defer f.Close()
	before, err := f.Stat()
	if err != nil {
		return sum, fmt.Errorf("digest: %w", err)
	}
	if !before.Mode().IsRegular() {
		return sum, fmt.Errorf("digest: %s is not a regular file", path)
	}
	id, err := osfile.Identity(path, before)
	if err != nil {
		return sum, fmt.Errorf("digest: %w", err)
	}
	if cacheFile != "" {
		r, ok := readDigests(cacheFile).Files[id]
		if b, err := hex.DecodeString(r.SHA256); ok && err == nil && len(b) == len(sum) && r.Size == before.Size() && r.Mtime == before.ModTime().UnixNano() {
			return [32]byte(b), nil
		}
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return sum, fmt.Errorf("digest: %w", err)
	}
	h.Sum(sum[:0])
	after, err := f.Stat()
	if err != nil {
		return sum, fmt.Errorf("digest: %w", err)
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return sum, fmt.Errorf("digest: %s changes while it is read", path)
	}
	if cacheFile == "" || time.Since(after.ModTime()).Abs() < settled {
		return sum, nil
	}
	return sum, saveDigest(path, id, after, cacheFile, sum)
}

// recordDigest remembers a digest that the caller has computed of a file that only it writes.
func recordDigest(path, cacheFile string, sum [32]byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	id, err := osfile.Identity(path, info)
	if err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	return saveDigest(path, id, info, cacheFile, sum)
}

func saveDigest(path, id string, info fs.FileInfo, cacheFile string, sum [32]byte) error {
	if err := os.MkdirAll(filepath.Dir(cacheFile), 0o700); err != nil {
		return fmt.Errorf("digest cache: %w", err)
	}
	lock, err := osfile.Acquire(context.Background(), cacheFile+".lock", nil)
	if err != nil {
		return fmt.Errorf("digest cache: %w", err)
	}
	defer lock.Release()
	d := readDigests(cacheFile)
	for k, r := range d.Files {
		// Files that are gone, or that were written anew under their name, need no record.
		if _, err := os.Stat(r.Path); errors.Is(err, fs.ErrNotExist) || r.Path == path {
			delete(d.Files, k)
		}
	}
	d.Files[id] = digestRecord{path, info.Size(), info.ModTime().UnixNano(), hex.EncodeToString(sum[:])}
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return fmt.Errorf("digest cache: %w", err)
	}
	if err := osfile.WriteAtomic(cacheFile, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("digest cache: %w", err)
	}
	return nil
}

// readDigests returns an empty cache for a file that is missing, damaged or of another version: it can always be made again.
func readDigests(cacheFile string) digests {
	var d digests
	data, err := os.ReadFile(cacheFile)
	if err != nil || json.Unmarshal(data, &d) != nil || d.Version != digestVersion || d.Files == nil {
		return digests{digestVersion, map[string]digestRecord{}}
	}
	return d
}
