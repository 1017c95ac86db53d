package config

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// ErrSize is wrapped by every error about the form of a size or share.
var ErrSize = errors.New(`want a size such as "2GiB" or "500MB"`)

// Size is a number of bytes that reads and prints with units. It is a pflag.Value.
type Size int64

// units in falling order of what String tries; KiB, MiB, … are powers of 1024 and KB, MB, … of 1000.
var units = []struct {
	name string
	n    uint64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// ParseSize reads a number, which may have a decimal point, and a unit: B, KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of
// 1024), in any case and with or without a space. No unit means bytes. Negative and overflowing sizes are errors.
func ParseSize(s string) (Size, error) {
	var n Size
	if err := n.Set(s); err != nil {
		return 0, fmt.Errorf("%q: %w", s, err)
	}
	return n, nil
}

var errLarge = errors.New("the size is too large")

func parseBytes(s string) (uint64, error) {
	t := strings.TrimSpace(s)
	end := strings.LastIndexAny(t, "0123456789.") + 1
	number, unit := t[:end], strings.TrimSpace(t[end:])
	mul := uint64(0)
	if unit == "" {
		mul = 1
	}
	for _, u := range units {
		if strings.EqualFold(unit, u.name) {
			mul = u.n
		}
	}
	whole, frac, point := strings.Cut(number, ".")
	if mul == 0 || !digits(whole) || point && (!digits(frac) || mul == 1 || len(frac) > 9) {
		return 0, ErrSize
	}
	w, err := strconv.ParseUint(whole, 10, 64)
	if err != nil {
		return 0, errLarge
	}
	hi, n := bits.Mul64(w, mul)
	if hi != 0 {
		return 0, errLarge
	}
	if point {
		f, err := strconv.ParseUint(frac, 10, 64)
		if err != nil {
			return 0, ErrSize
		}
		den := uint64(1)
		for range frac {
			den *= 10
		}
		hi, lo := bits.Mul64(f, mul) // below den * mul, so the quotient fits
		q, _ := bits.Div64(hi, lo, den)
		var carry uint64
		if n, carry = bits.Add64(n, q, 0); carry != 0 {
			return 0, errLarge
		}
	}
	return n, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// String prints the size exactly with the largest unit that divides it, e.g. "32MiB"; sizes that no unit divides print one decimal of
// the largest power of 1024 ("1.4GiB"); below 1 MiB sizes are exact.
func (s Size) String() string {
	if s < 0 {
		return strconv.FormatInt(int64(s), 10) + "B"
	}
	for _, u := range units {
		if n := uint64(s); n > 0 && n%u.n == 0 && (u.n > 1 || n < 1<<20) {
			return strconv.FormatUint(n/u.n, 10) + u.name
		}
	}
	return s.Short()
}

// Short rounds the size to one decimal of a unit that people read at a glance, e.g. "93.8MiB".
func (s Size) Short() string {
	for _, u := range units[:4] {
		if uint64(max(s, 0)) >= u.n {
			return strconv.FormatFloat(float64(s)/float64(u.n), 'f', 1, 64) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10) + "B"
}

// Set is ParseSize, without the value in the error: the flag library adds that.
func (s *Size) Set(v string) error {
	n, err := parseBytes(v)
	if err == nil && n > math.MaxInt64 {
		err = errLarge
	}
	if err != nil {
		return err
	}
	*s = Size(n)
	return nil
}

// Type names the value in help texts.
func (s *Size) Type() string { return "size" }

// An Amount is either a number of bytes or, where Percent is not 0, a share of something.
type Amount struct {
	Bytes   uint64
	Percent float64 // above 0, at most 100
}

// ParseAmount reads a size as ParseSize does, or a share such as "25%".
func ParseAmount(s string) (Amount, error) {
	a, err := parseAmount(s)
	if err != nil {
		return Amount{}, fmt.Errorf("%q: %w", s, err)
	}
	return a, nil
}

func parseAmount(s string) (Amount, error) {
	if p, ok := strings.CutSuffix(strings.TrimSpace(s), "%"); ok {
		f, err := strconv.ParseFloat(strings.TrimSpace(p), 64)
		if err != nil || !(f > 0 && f <= 100) {
			return Amount{}, fmt.Errorf("a share is above 0%% and at most 100%%: %w, or a share such as \"25%%\"", ErrSize)
		}
		return Amount{Percent: f}, nil
	}
	n, err := parseBytes(s)
	if errors.Is(err, ErrSize) {
		err = fmt.Errorf("%w, or a share such as \"25%%\"", err)
	}
	return Amount{Bytes: n}, err
}

// Of returns the amount in bytes, a share being one of total.
func (a Amount) Of(total uint64) uint64 {
	if a.Percent == 0 {
		return a.Bytes
	}
	if a.Percent == 100 {
		return total
	}
	return uint64(float64(total) * (a.Percent / 100))
}
