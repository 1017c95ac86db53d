package peak

import (
	"context"
	"errors"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"kvasir/internal/kernel"
)

func TestRatesOnEveryPath(t *testing.T) {
	ctx := context.Background()
	buf := make([]byte, 3*Readable+100)
	for _, p := range kernel.Available() {
		for _, o := range []Op{Int8, F32} {
			r, err := Compute(ctx, p, o, 2, 2)
			if err != nil || !(r.Median > 0) || r.Best < r.Median {
				t.Errorf("%v %v: %+v, %v", p, o, r, err)
			}
			if plain := Instructions(p, o) == "plain Go"; plain != (p == kernel.Go || !asm) {
				t.Errorf("%v %v says %q", p, o, Instructions(p, o))
			}
		}
		r, err := Bandwidth(ctx, p, 3, 1, buf)
		if err != nil || !(r.Median > 0) || r.Best != r.Median {
			t.Errorf("%v reading: %+v, %v", p, r, err)
		}
	}
}

func TestErrors(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	if _, err := Bandwidth(ctx, kernel.Go, 4, 1, make([]byte, 4*Readable-1)); err == nil || !strings.Contains(err.Error(), "2047") {
		t.Errorf("a buffer too small: %v", err)
	}
	if _, err := Bandwidth(ctx, kernel.Go, 0, 1, make([]byte, Readable)); err == nil {
		t.Error("no thread was taken")
	}
	if _, err := Compute(ctx, kernel.Go, F32, 1, 0); err == nil {
		t.Error("no measurement was taken")
	}
	if _, err := Compute(ctx, kernel.Go, Int8, 0, 1); err == nil {
		t.Error("no thread was taken")
	}
	cancel()
	if _, err := Compute(ctx, kernel.Go, F32, 1, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
	if _, err := Bandwidth(ctx, kernel.Go, 1, 1, make([]byte, Readable)); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		v            []float64
		median, best float64
	}{{[]float64{3}, 3, 3}, {[]float64{5, 1}, 3, 5}, {[]float64{9, 1, 2}, 2, 9}} {
		i := -1
		r, err := repeat(context.Background(), len(c.v), func() float64 { i++; return c.v[i] })
		if err != nil || r.Median != c.median || r.Best != c.best {
			t.Errorf("%v: %+v, %v", c.v, r, err)
		}
	}
}

// The portable loops compute what their count of operations says, else a compiler may have left them out.
func TestPortableLoops(t *testing.T) {
	const turns = 5
	int8Go(turns)
	want := int32(0)
	for i := range bytesA {
		want += turns * int32(bytesA[i]) * int32(bytesB[i])
	}
	if got := int32(sink.Load()); got != want {
		t.Errorf("int8: %d, want %d", got, want)
	}
	f32Go(turns)
	if got, want := sink.Load(), uint64(turns*len(floatsA)/4); got != want {
		t.Errorf("f32: %d, want %d", got, want)
	}
	b := make([]byte, Readable)
	for i := range b {
		clear(b)
		b[i] = 1
		if readGo(b); sink.Load() == 0 {
			t.Fatalf("byte %d was not read", i)
		}
	}
}

// The counts of operations belong to the assembly as it is written.
func TestAssemblyCounts(t *testing.T) {
	src, err := os.ReadFile("peak_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	body := func(f string) string {
		_, s, ok := strings.Cut(string(src), "TEXT ·"+f+"(SB)")
		if !ok {
			t.Fatalf("no function %s", f)
		}
		_, s, _ = strings.Cut(s, "turn:")
		s, _, _ = strings.Cut(s, "DECQ")
		return s
	}
	for _, c := range []struct {
		f, instruction string
		count, ops     int // ops of one instruction
	}{
		{"int8AVX512", "VPDPBUSD ", 24, 128}, {"f32AVX512", "VFMADD231PS ", 24, 32},
		{"int8AVX2", "VPMADDUBSW ", 12, 64}, {"int8AVX2", "VPADDW ", 12, 0}, {"f32AVX2", "VFMADD231PS ", 12, 16},
	} {
		if n := strings.Count(body(c.f), c.instruction); n != c.count {
			t.Errorf("%s has %d %s", c.f, n, c.instruction)
		}
		if c.ops > 0 && opsOf(c.f) != 0 && opsOf(c.f) != c.count*c.ops {
			t.Errorf("%s counts %d operations, want %d", c.f, opsOf(c.f), c.count*c.ops)
		}
	}
	operand := regexp.MustCompile(`VPORQ? +(\d*)\(`)
	for f, width := range map[string]int{"readAVX512": 64, "readAVX2": 32} {
		all := operand.FindAllStringSubmatch(strings.SplitN(body(f), "RET", 2)[0], -1)
		if len(all) != Readable/width {
			t.Errorf("%s reads %d times", f, len(all))
		}
		for i, m := range all {
			if at, _ := strconv.Atoi(m[1]); at != i*width {
				t.Errorf("%s: read %d is at %q", f, i, m[1])
			}
		}
	}
}
