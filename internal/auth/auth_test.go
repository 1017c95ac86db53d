package auth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

func hashOf(key string) string { return fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(key))) }

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAddLoadRemove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	var keys []string
	for _, tenant := range []string{"a", "b", "a"} {
		key, err := Add(path, tenant)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(key, "kv-") || len(key) != 3+43 {
			t.Errorf("key of %d characters", len(key))
		}
		keys = append(keys, key)
	}
	if keys[0] == keys[2] {
		t.Fatal("the same key twice")
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if strings.Contains(string(data), key[3:]) {
			t.Error("the file holds a key in plain text")
		}
	}
	if info, _ := os.Stat(path); runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}

	k, err := Load(path)
	if err != nil || k.Len() != 3 {
		t.Fatalf("%v, %d keys", err, k.Len())
	}
	for i, want := range []string{"a", "b", "a"} {
		if got, ok := k.Tenant(keys[i]); !ok || got != want {
			t.Errorf("key %d: %q %v, want %q", i, got, ok, want)
		}
		for _, bad := range []string{keys[i][:len(keys[i])-1], keys[i] + "x", " " + keys[i], strings.ToUpper(keys[i]), hashOf(keys[i])} {
			if got, ok := k.Tenant(bad); ok || got != "" {
				t.Errorf("a wrong key is %q's", got)
			}
		}
	}
	if _, ok := k.Tenant(""); ok {
		t.Error("no key is a key")
	}

	// One key by its hash, then a tenant's rest; the loaded keys change at Reload only.
	if n, err := Remove(path, hashOf(keys[0])[:7+12]); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	if _, ok := k.Tenant(keys[0]); !ok {
		t.Error("gone before Reload")
	}
	if err := k.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, ok := k.Tenant(keys[0]); ok {
		t.Error("still there after Reload")
	}
	if got, ok := k.Tenant(keys[2]); !ok || got != "a" {
		t.Error("the tenant's other key is gone")
	}
	if n, err := Remove(path, "a"); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	entries, err := List(path)
	if err != nil || len(entries) != 1 || entries[0] != (Entry{hashOf(keys[1]), "b"}) {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, which := range []string{"a", "sha256:00000000", "c"} {
		if _, err := Remove(path, which); !errors.Is(err, ErrNoSuch) {
			t.Errorf("remove %q: %v", which, err)
		}
	}
	if _, err := Remove(path, "sha256:0"); err == nil {
		t.Error("a hash of one digit was accepted")
	}
	// A file without keys would close the server to all, and a failed reload keeps what was.
	if _, err := Remove(path, "b"); err != nil {
		t.Fatal(err)
	}
	if err := k.Reload(); !errors.Is(err, ErrNoKeys) {
		t.Errorf("%v, want ErrNoKeys", err)
	}
	if got, ok := k.Tenant(keys[1]); !ok || got != "b" {
		t.Error("a failed reload lost the keys")
	}
}

func TestCommentsSurvive(t *testing.T) {
	path := write(t, "# ours\n\n"+hashOf("x")+"\tteam-1 \r\n  # tail without newline")
	if _, err := Add(path, "t"); err != nil {
		t.Fatal(err)
	}
	if n, err := Remove(path, "team-1"); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	data, _ := os.ReadFile(path)
	if s := string(data); !strings.HasPrefix(s, "# ours\n\n  # tail without newline\nsha256:") || strings.Count(s, "\n") != 4 {
		t.Errorf("file is now %q", s)
	}
}

func TestLoadErrors(t *testing.T) {
	h := hashOf("x")
	for _, c := range []struct{ name, content, want string }{
		{"plain key", "# c\nkv-secretsecret t\n", ":2: not a hash"},
		{"short hash", h[:70] + " t\n", ":1: not the hex"},
		{"long hash", h + "00 t\n", ":1: not the hex"},
		{"no hex", "sha256:" + strings.Repeat("g", 64) + " t\n", ":1: not the hex"},
		{"no tenant", h + "\n", "two fields"},
		{"three fields", h + " a b\n", "two fields"},
		{"bad tenant", h + " ../x\n", "bad tenant"},
		{"twice", h + " a\n" + h + " b\n", ":2: the same key as on line 1"},
		{"twice in capitals", h + " a\nsha256:" + strings.ToUpper(h[7:]) + " b\n", ":2: the same key"},
		{"empty", "# nothing\n", "no key"},
	} {
		_, err := Load(write(t, c.content))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the line: %v", c.name, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	// A broken file is not edited.
	path := write(t, "junk\n")
	if _, err := Add(path, "t"); err == nil {
		t.Error("added to a broken file")
	}
	if runtime.GOOS != "windows" {
		path := write(t, h+" t\n")
		if err := os.Chmod(path, 0o620); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); !errors.Is(err, ErrWritable) {
			t.Errorf("writable by the group: %v", err)
		}
	}
}

func TestTenantNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "team-1": true, "A.b_c": true, strings.Repeat("x", 64): true,
		"": false, "-a": false, ".a": false, "a b": false, "a/b": false, "a\n": false, "é": false, strings.Repeat("x", 65): false,
	} {
		if err := ValidTenant(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
		if !ok {
			if _, err := Add(filepath.Join(t.TempDir(), "k"), name); !errors.Is(err, ErrTenant) {
				t.Errorf("Add %q: %v", name, err)
			}
		}
	}
}

func TestConcurrentAddLosesNothing(t *testing.T) {
	path := write(t, hashOf("first")+" first\n")
	k, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	keys := make([]string, 12)
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = Add(path, fmt.Sprintf("t%d", i)); err != nil {
				t.Error(err)
			}
			if err := k.Reload(); err != nil {
				t.Error(err)
			}
			if got, ok := k.Tenant("first"); !ok || got != "first" {
				t.Error("lost during reload")
			}
		})
	}
	wg.Wait()
	if err := k.Reload(); err != nil {
		t.Fatal(err)
	}
	for i, key := range keys {
		if got, ok := k.Tenant(key); !ok || got != fmt.Sprintf("t%d", i) {
			t.Errorf("key %d: %q %v", i, got, ok)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(hashOf("x") + " t\n# c\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parse("f", data)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, e := range entries {
			fmt.Fprintln(&again, e.Hash, e.Tenant)
		}
		got, err := parse("f", []byte(again.String()))
		if err != nil || len(got) != len(entries) {
			t.Fatalf("%v: %d entries, want %d", err, len(got), len(entries))
		}
	})
}
