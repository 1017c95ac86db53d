package gguf

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"testing"
)

var kTypes = []Type{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS, MXFP4}

// testdata/blocks.json has random blocks and what ggml's own Python package decodes them to, to the bit.
func TestDequantizeBlocks(t *testing.T) {
	data, err := os.ReadFile("testdata/blocks.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden map[string]struct{ Blocks, Values string }
	if err := json.Unmarshal(data, &golden); err != nil {
		t.Fatal(err)
	}
	for _, typ := range append([]Type{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0}, kTypes...) {
		g, ok := golden[typ.String()]
		if !ok {
			t.Errorf("%s: no blocks", typ)
			continue
		}
		src, err := hex.DecodeString(g.Blocks)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(g.Values)
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]float32, len(src)/typ.BlockBytes()*typ.BlockLen())
		if err := Dequantize(typ, src, dst); err != nil {
			t.Fatal(err)
		}
		if len(want) != 4*len(dst) {
			t.Fatalf("%s: %d values, want %d", typ, len(dst), len(want)/4)
		}
		for i, v := range dst {
			if w := binary.LittleEndian.Uint32(want[4*i:]); math.Float32bits(v) != w {
				t.Fatalf("%s: value %d is %g (%08x), want %g (%08x)", typ, i, v, math.Float32bits(v), math.Float32frombits(w), w)
			}
		}
	}
}

// Q8_K holds intermediate results in ggml; the Python package does not decode it.
func TestDequantizeQ8K(t *testing.T) {
	b := make([]byte, 2*292)
	for i, d := range []float32{0.37, -1e-3} {
		binary.LittleEndian.PutUint32(b[292*i:], math.Float32bits(d))
		for k := range 256 {
			b[292*i+4+k] = byte(k)
		}
		for k := 260; k < 292; k++ {
			b[292*i+k] = 0xee // the sums
		}
	}
	y := make([]float32, 512)
	if err := Dequantize(Q8_K, b, y); err != nil {
		t.Fatal(err)
	}
	for i, v := range y {
		q := i % 256
		if q > 127 {
			q -= 256
		}
		if want := []float32{0.37, -1e-3}[i/256] * float32(q); v != want {
			t.Fatalf("value %d is %g, want %g", i, v, want)
		}
	}
	if _, err := Quantize(Q8_K, y); !errors.Is(err, ErrType) {
		t.Errorf("Quantize: %v", err)
	}
}

// What is encoded comes back to within the step of its format: steps is the number of steps between the extreme values that share a
// scale, slack what the rounding of the scale itself adds to half a step, in steps.
func TestQuantizeKError(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, c := range []struct {
		typ          Type
		n            int // values that share a scale
		steps, slack float32
	}{
		{Q2_K, 16, 3, 1}, {Q3_K, 16, 4, 0.8}, {Q4_K, 32, 15, 0.5}, {Q5_K, 32, 31, 0.9}, {Q6_K, 16, 32, 0.9},
		{IQ4_NL, 32, 10, 0.5}, {IQ4_XS, 32, 10, 0.7}, {MXFP4, 32, 6, 1},
	} {
		for _, scale := range []float64{1e-3, 1, 100} {
			x := make([]float32, 256*40)
			for i := range x {
				x[i] = float32((rng.NormFloat64() + 0.3) * scale)
			}
			clear(x[512:768])
			b, err := Quantize(c.typ, x)
			if err != nil {
				t.Fatal(err)
			}
			y := make([]float32, len(x))
			if err := Dequantize(c.typ, b, y); err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(x); i += 256 { // scales are rounded to steps of the largest of 256 values
				var amax float32
				for _, v := range x[i : i+256] {
					amax = max(amax, abs(v))
				}
				for j := i; j < i+256; j += c.n {
					lo, hi, at, err := extremes(x[j : j+c.n])
					if err != nil {
						t.Fatal(err)
					}
					width := abs(at)
					if c.typ == Q2_K || c.typ == Q4_K || c.typ == Q5_K {
						width = max(hi, 0) - min(lo, 0)
					}
					most := width/c.steps*(0.5+c.slack) + amax/30*c.slack + 1e-7
					for k := j; k < j+c.n; k++ {
						if d := abs(x[k] - y[k]); d > most {
							t.Fatalf("%s at %g: value %d, %g, became %g, off by %g, more than %g", c.typ, scale, k, x[k], y[k], d, most)
						}
						if amax == 0 && y[k] != 0 {
							t.Fatalf("%s: zero became %g", c.typ, y[k])
						}
					}
				}
			}
		}
	}
}

// Values that are not finite, and those whose scale is beyond a half.
func TestQuantizeKErrors(t *testing.T) {
	for _, typ := range kTypes {
		for _, v := range []float32{float32(math.Inf(1)), float32(math.NaN()), -math.MaxFloat32} {
			if typ == MXFP4 && v == -math.MaxFloat32 {
				continue // has scales for that
			}
			x := make([]float32, 512)
			x[400] = v
			if _, err := Quantize(typ, x); err == nil {
				t.Errorf("%s: %g was taken", typ, v)
			}
		}
	}
}

// Decoding takes whole blocks of any content, each for itself, and nothing else.
func FuzzDequantize(f *testing.F) {
	for _, typ := range append([]Type{Q8_K}, kTypes...) {
		f.Add(uint32(typ), make([]byte, 2*typ.BlockBytes()))
		b, err := Quantize(Q8_0, ramp(-3, 0.2))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint32(typ), append(b, make([]byte, typ.BlockBytes())...))
	}
	f.Fuzz(func(t *testing.T, number uint32, data []byte) {
		typ := Type(number)
		if !typ.Known() {
			if err := Dequantize(typ, data, nil); !errors.Is(err, ErrType) {
				t.Fatalf("%s: %v", typ, err)
			}
			return
		}
		n, size := typ.BlockLen(), typ.BlockBytes()
		blocks := len(data) / size
		whole := make([]float32, blocks*n)
		err := Dequantize(typ, data, whole)
		if len(data)%size != 0 {
			if err == nil {
				t.Fatalf("%s: %d bytes were taken", typ, len(data))
			}
			err = Dequantize(typ, data[:blocks*size], whole)
		}
		if errors.Is(err, ErrType) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		one := make([]float32, n)
		for i := range blocks {
			if err := Dequantize(typ, data[i*size:(i+1)*size], one); err != nil {
				t.Fatal(err)
			}
			for k, v := range one {
				if math.Float32bits(v) != math.Float32bits(whole[i*n+k]) {
					t.Fatalf("%s: value %d of block %d is %g alone, %g with others", typ, k, i, v, whole[i*n+k])
				}
			}
		}
	})
}
