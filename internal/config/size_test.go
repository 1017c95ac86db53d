package config

import (
	"errors"
	"math"
	"testing"
)

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Size
	}{
		{"0", 0}, {"1", 1}, {"17B", 17}, {"2GiB", 2 << 30}, {"500MB", 500e6}, {"1.5GiB", 3 << 29}, {" 64 kib ", 64 << 10},
		{"0.5KiB", 512}, {"7EB", -1}, {"8388607.999999999TiB", math.MaxInt64&^(1<<40-1) + 1<<40*999999999/1000000000}, {"1tb", 1e12},
		{"", -1}, {"GiB", -1}, {"-1", -1}, {"+1", -1}, {"1e3", -1}, {"1.KB", -1}, {".5KB", -1}, {"1.5", -1}, {"1.5B", -1}, {"1..5KB", -1},
		{"1 2KB", -1}, {"25%", -1}, {"8388608TiB", -1}, {"99999999999999999999", -1}, {"0x10", -1}, {"1,000", -1}, {"∞", -1},
	} {
		got, err := ParseSize(c.in)
		if c.want < 0 {
			if err == nil {
				t.Errorf("ParseSize(%q) = %d, want an error", c.in, got)
			}
		} else if err != nil || got != c.want {
			t.Errorf("ParseSize(%q) = %d, %v; want %d", c.in, got, err, c.want)
		}
	}
	if _, err := ParseSize("lots"); !errors.Is(err, ErrSize) {
		t.Errorf("error %v is not ErrSize", err)
	}
}

func TestSizeString(t *testing.T) {
	for _, c := range []struct {
		in   Size
		want string
	}{
		{0, "0B"}, {1, "1B"}, {1000, "1KB"}, {1024, "1KiB"}, {32 << 20, "32MiB"}, {500e6, "500MB"}, {1<<20 + 1, "1.0MiB"}, {98362432, "93.8MiB"}, {math.MaxInt64, "8388608.0TiB"},
	} {
		if got := c.in.String(); got != c.want {
			t.Errorf("%d: %q, want %q", int64(c.in), got, c.want)
		}
	}
	for in, want := range map[Size]string{0: "0B", 1023: "1023B", 12456 << 10: "12.2MiB", 98362432: "93.8MiB", 2 << 30: "2.0GiB", -5: "-5B"} {
		if got := in.Short(); got != want {
			t.Errorf("%d: %q, want %q", int64(in), got, want)
		}
	}
}

// Whatever parses is a number of bytes that its exact printed form gives back.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"2GiB", "1.5KB", "25%", "9999999999999TiB", "0.000000001TiB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseSize(s)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("%q: %d", s, int64(n))
		}
		// Every size below 1 MiB, and every multiple of 1 KiB, prints exactly.
		if n < 1<<20 || n%(1<<10) == 0 {
			if m, err := ParseSize(n.String()); err != nil || m != n {
				t.Fatalf("%q → %s → %d, %v", s, n, int64(m), err)
			}
		}
	})
}

func TestAmount(t *testing.T) {
	for _, c := range []struct {
		in    string
		total uint64
		want  uint64
		bad   bool
	}{
		{"25%", 1000, 250, false}, {"0.5 %", 1000, 5, false}, {"100%", math.MaxUint64, math.MaxUint64, false}, {"2GiB", 5, 2 << 30, false},
		{"0%", 0, 0, true}, {"101%", 0, 0, true}, {"NaN%", 0, 0, true}, {"-5%", 0, 0, true}, {"%", 0, 0, true}, {"half", 0, 0, true},
	} {
		a, err := ParseAmount(c.in)
		if c.bad {
			if !errors.Is(err, ErrSize) {
				t.Errorf("ParseAmount(%q) = %v, %v; want ErrSize", c.in, a, err)
			}
		} else if err != nil || a.Of(c.total) != c.want {
			t.Errorf("%q of %d = %d, %v; want %d", c.in, c.total, a.Of(c.total), err, c.want)
		}
	}
}
