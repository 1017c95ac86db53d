// Package auth maps API keys to tenants. Keys are kept as SHA-256 hashes only, in a text file with one key a line:
//
//	sha256:<64 hex digits> <tenant>
//
// Blank lines and lines that begin with # are ignored. Many keys may belong to one tenant. Plain SHA-256 is enough here because keys
// that Add makes have 256 random bits: there is no dictionary to try. Whoever adds hashes of own keys should make these as long.
// A key's hash comes from: printf %s "$KEY" | sha256sum.
package auth

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"

	"kvasir/internal/machine/osfile"
)

// Errors that callers branch on.
var (
	ErrTenant   = errors.New("a tenant's name is 1 to 64 letters, digits, dots, dashes and underscores and begins with a letter or digit")
	ErrNoKeys   = errors.New("no key in the file")
	ErrNoSuch   = errors.New("no such key")
	ErrWritable = errors.New("others may write the file of API keys, and so let themselves in; chmod 600 it")
)

const (
	hashPrefix = "sha256:"
	keyPrefix  = "kv-"
	maxFile    = 16 << 20
)

var tenantPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// ValidTenant returns ErrTenant for a name that cannot be a tenant's.
func ValidTenant(name string) error {
	if !tenantPattern.MatchString(name) {
		return fmt.Errorf("%q: %w", name, ErrTenant)
	}
	return nil
}

type hash = [sha256.Size]byte

// An Entry is one key of a file.
type Entry struct {
	Hash   string // "sha256:" and 64 hex digits
	Tenant string
}

// Keys is a loaded file. It is safe for concurrent use.
type Keys struct {
	path  string
	table atomic.Pointer[map[hash]stored]
}

type stored struct {
	hash   hash
	tenant string
}

// Load reads a file of keys. It fails with ErrWritable if others than the owner may write it (Unix), with ErrNoKeys if it is empty, and with the line's number
// for anything it does not understand; no error shows a line's content, which may be a key in plain text.
func Load(path string) (*Keys, error) {
	k := &Keys{path: path}
	if err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the file again. If that fails the keys stay as they were. Requests that run keep the tenant they have.
func (k *Keys) Reload() error {
	entries, err := List(k.path)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("%s: %w", k.path, ErrNoKeys)
	}
	table := make(map[hash]stored, len(entries))
	for _, e := range entries {
		h, _ := parseHash(e.Hash)
		table[h] = stored{h, e.Tenant}
	}
	k.table.Store(&table)
	return nil
}

// Len returns the number of keys.
func (k *Keys) Len() int { return len(*k.table.Load()) }

// Tenant returns whose key this is.
//
// The lookup compares hashes, never keys. How long it takes may depend on how many leading bits of the hash agree with a stored one,
// but nobody can choose the hash of a guess without trying as many guesses as the key itself would need; the last comparison, of the
// one candidate, is in constant time all the same.
func (k *Keys) Tenant(key string) (tenant string, ok bool) {
	h := sha256.Sum256([]byte(key))
	e, found := (*k.table.Load())[h]
	if !found || subtle.ConstantTimeCompare(e.hash[:], h[:]) != 1 {
		return "", false
	}
	return e.tenant, true
}

// List reads a file's entries in their order.
func List(path string) ([]Entry, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return parse(path, data)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().IsRegular() && info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%s (mode %04o): %w", path, info.Mode().Perm(), ErrWritable)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("API keys: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d MiB", path, maxFile>>20)
	}
	return data, nil
}

func parse(path string, data []byte) ([]Entry, error) {
	var entries []Entry
	seen := map[hash]int{}
	n := 0
	for line := range strings.Lines(string(data)) {
		n++
		fail := func(why string) ([]Entry, error) {
			return nil, fmt.Errorf("%s:%d: %s; want: sha256:<64 hex digits> <tenant>", path, n, why)
		}
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		h, ok := parseHash(f[0])
		switch {
		case !strings.HasPrefix(f[0], hashPrefix):
			return fail("not a hash (keys are never stored in plain text)")
		case !ok:
			return fail("not the hex form of a SHA-256")
		case len(f) != 2:
			return fail("want two fields")
		case ValidTenant(f[1]) != nil:
			return fail("bad tenant: " + ErrTenant.Error())
		}
		if first, twice := seen[h]; twice {
			return fail(fmt.Sprintf("the same key as on line %d", first))
		}
		seen[h] = n
		entries = append(entries, Entry{hashPrefix + hex.EncodeToString(h[:]), f[1]})
	}
	return entries, nil
}

func parseHash(s string) (h hash, ok bool) {
	s, ok = strings.CutPrefix(s, hashPrefix)
	if !ok || len(s) != 2*len(h) {
		return h, false
	}
	n, err := hex.Decode(h[:], []byte(s))
	return h, err == nil && n == len(h)
}

// Add makes a key for tenant, appends its hash to the file, and returns it: it is in no other place. A file that does not exist is created
// with mode 0600. A crash leaves the old file or the new one, and several processes may add at once.
func Add(path, tenant string) (key string, err error) {
	if err := ValidTenant(tenant); err != nil {
		return "", err
	}
	var random [32]byte
	rand.Read(random[:]) // never fails: see crypto/rand
	key = keyPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	h := sha256.Sum256([]byte(key))
	err = edit(path, func(data []byte) ([]byte, error) {
		if len(data) > 0 && data[len(data)-1] != '\n' {
			data = append(data, '\n')
		}
		return fmt.Appendf(data, "%s%x %s\n", hashPrefix, h, tenant), nil
	})
	if err != nil {
		return "", err
	}
	return key, nil
}

// Remove takes keys out of the file and returns how many: all of a tenant, or the one whose hash begins with which if that begins with "sha256:"
// and at least 8 hex digits. It fails with ErrNoSuch if there is none. Comments stay.
func Remove(path, which string) (int, error) {
	byHash := strings.HasPrefix(which, hashPrefix)
	if byHash && len(which) < len(hashPrefix)+8 {
		return 0, fmt.Errorf("%q: want at least 8 hex digits of the hash", which)
	}
	removed := 0
	err := edit(path, func(data []byte) ([]byte, error) {
		var out bytes.Buffer
		for line := range strings.Lines(string(data)) {
			f := strings.Fields(line)
			if len(f) == 2 && (byHash && strings.HasPrefix(strings.ToLower(f[0]), strings.ToLower(which)) ||
				!byHash && strings.HasPrefix(f[0], hashPrefix) && f[1] == which) {
				removed++
				continue
			}
			out.WriteString(line)
		}
		if removed == 0 {
			return nil, fmt.Errorf("%s: %q: %w", path, which, ErrNoSuch)
		}
		if byHash && removed > 1 {
			return nil, fmt.Errorf("%s: %q fits %d keys; give more digits", path, which, removed)
		}
		return out.Bytes(), nil
	})
	if err != nil {
		return 0, err
	}
	return removed, nil
}

// edit replaces the file by what change makes of it, under a lock. What stands there must be a valid file before.
func edit(path string, change func([]byte) ([]byte, error)) error {
	lock, err := osfile.Acquire(context.Background(), path+".lock", nil)
	if err != nil {
		return fmt.Errorf("API keys: %w", err)
	}
	defer lock.Release()
	perm := fs.FileMode(0o600)
	data, err := read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		data = nil
	case err != nil:
		return err
	default:
		if _, err := parse(path, data); err != nil {
			return err
		}
		if info, err := os.Stat(path); err == nil {
			perm = info.Mode().Perm()
		}
	}
	if data, err = change(data); err != nil {
		return err
	}
	if err := osfile.WriteAtomic(path, data, perm); err != nil {
		return fmt.Errorf("API keys: %w", err)
	}
	return nil
}
