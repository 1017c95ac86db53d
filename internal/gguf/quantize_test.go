package gguf

import (
	"encoding/hex"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

var codecs = []Type{F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0}

// goldenValues are two blocks; the encodings below were made from them with the quantiser of ggml's own Python package.
func goldenValues() []float32 {
	x := make([]float32, 64)
	for i := range x {
		x[i] = float32((i*37)%64-31) / 8
	}
	x[5], x[40], x[63] = 5.1, -4.7, 0.3
	return x
}

var golden = map[Type]string{
	F16: "c0c3003a40c1004080bd1a4500b000c3803c80c0c04000bc4043003440c2003e80bf804100b90044003980c1803f00be404200b440c3003cc0c0804080bc0043" +
		"003080c2803d00c0404100bac0430038b3c4003f80be004200b680c3003b00c1404000bdc0420000c0c2003d40c0004100bb8043003600c2803e00bfc041cd34",
	BF16: "78c0403f28c00040b0bfa34000be60c0903f10c0184080bf6840803e48c0c03ff0bf304020bf8040203f30c0f03fc0bf484080be68c0803f18c0104090bf6040" +
		"003e50c0b03f00c0284040bf7840003f96c0e03fd0bf4040c0be70c0603f20c00840a0bf5840000058c0a03f08c0204060bf7040c03e40c0d03fe0bf38409a3e",
	Q4_0: "1ab9be479c257ac058ad368ce46ac248ad36b338c862ea852ca74fc970eb953db752d994",
	Q4_1: "c938c0c330b852da842fa641c8630a853da751c99338b3c4c863eb852da75fd970fb953db852da94",
	Q5_0: "1ab5d54aa5566c7e283ae490a05b6c17b9d3759f4a5bb334d54aadd670c5b509594d9d92d0d61a6a6fa3a317",
	Q5_1: "a234c0c32a955aa97070b4b4094f4d8181d6161a5a5e93936d34b3c4d55aadd691c5d61a5a6e9fa3e0f72b6c70b3b428",
	Q8_0: "2429a013bf32de7ffda91cc83be75a06b225d144f06410bc2fdb4efaa619c538e457bd2803a825ca47ec690e812fd451f69b18bc39de5b00a522c744e8650aaf2cd14e08",
}

func TestGolden(t *testing.T) {
	for typ, want := range golden {
		got, err := Quantize(typ, goldenValues())
		if err != nil {
			t.Fatal(err)
		}
		if h := hex.EncodeToString(got); h != want {
			t.Errorf("%s:\n got %s\nwant %s", typ, h, want)
		}
	}
	// Some values of the second block, decoded by the same package.
	for typ, want := range map[Type][4]float32{
		Q4_0: {0, -3.524414, 1.1748047, -1.762207},
		Q4_1: {-0.125, -2.9838867, 1.590332, -1.840332},
		Q5_0: {0, -3.230713, 1.4685059, -2.0559082},
		Q5_1: {3.1738281e-03, -3.3161621, 1.3862305, -1.9331055},
		Q8_0: {0.11105347, -3.2575684, 1.3696594, -1.9989624},
	} {
		src, err := hex.DecodeString(golden[typ])
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]float32, 64)
		if err := Dequantize(typ, src, dst); err != nil {
			t.Fatal(err)
		}
		for i, w := range want {
			if g := dst[32+i]; math.Abs(float64(g-w)) > 1e-6*math.Abs(float64(w)) {
				t.Errorf("%s: value %d is %g, want %g", typ, 32+i, g, w)
			}
		}
	}
}

// Decoding must come back to within the step that the format has.
func TestQuantizeError(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, typ := range codecs {
		for _, scale := range []float64{1e-3, 1, 100} {
			x := make([]float32, 32*200)
			for i := range x {
				x[i] = float32(rng.NormFloat64() * scale)
			}
			b, err := Quantize(typ, x)
			if err != nil {
				t.Fatal(err)
			}
			y := make([]float32, len(x))
			if err := Dequantize(typ, b, y); err != nil {
				t.Fatal(err)
			}
			for i := 0; i < len(x); i += 32 {
				lo, hi, amax := x[i], x[i], float32(0)
				for _, v := range x[i : i+32] {
					lo, hi, amax = min(lo, v), max(hi, v), max(amax, abs(v))
				}
				for j := i; j < i+32; j++ {
					// Half a step, and the rounding of scale and minimum to halves. The signed formats have one step less
					// on the side away from the largest value.
					var most float32
					switch typ {
					case F16:
						most = abs(x[j])/2048 + 0x1p-25
					case BF16:
						most = abs(x[j]) / 256
					case Q4_0:
						most = amax / 8 * 1.01
					case Q5_0:
						most = amax / 16 * 1.01
					case Q4_1:
						most = (hi-lo)/15*0.51 + amax/1000
					case Q5_1:
						most = (hi-lo)/31*0.51 + amax/1000
					case Q8_0:
						most = amax/127*0.51 + amax/1000 + 127*0x1p-25 // scales below 2^-14 are 2^-24 apart
					}
					if d := abs(x[j] - y[j]); d > most {
						t.Fatalf("%s: %g became %g, off by %g, more than %g", typ, x[j], y[j], d, most)
					}
				}
			}
		}
	}
}

// Values that the format can hold exactly come back as they were.
func TestQuantizeExact(t *testing.T) {
	for _, typ := range codecs {
		for name, x := range map[string][]float32{
			"zeros":  make([]float32, 32),
			"ramp":   ramp(-8, 0.5),
			"halves": ramp(0, 0),
		} {
			if name == "ramp" && typ != F32 && typ != F16 && typ != BF16 && typ != Q5_0 && typ != Q5_1 {
				continue // 32 levels need five bits
			}
			b, err := Quantize(typ, x)
			if err != nil {
				t.Fatal(err)
			}
			y := make([]float32, 32)
			if err := Dequantize(typ, b, y); err != nil {
				t.Fatal(err)
			}
			for i := range x {
				if x[i] != y[i] {
					t.Errorf("%s, %s: value %d is %g, was %g", typ, name, i, y[i], x[i])
				}
			}
		}
	}
}

func ramp(first, step float32) []float32 {
	x := make([]float32, 32)
	for i := range x {
		x[i] = first + float32(i)*step
	}
	return x
}

func TestQuantizeErrors(t *testing.T) {
	for _, typ := range []Type{IQ2_XS, I8, 77} {
		if _, err := Quantize(typ, make([]float32, 256)); !errors.Is(err, ErrType) || !strings.Contains(err.Error(), "Q5_1") {
			t.Errorf("Quantize to %s: %v", typ, err)
		}
		err := Dequantize(typ, make([]byte, max(typ.BlockBytes(), 1)), make([]float32, max(typ.BlockLen(), 1)))
		if !errors.Is(err, ErrType) || !strings.Contains(err.Error(), "Q5_1") {
			t.Errorf("Dequantize %s: %v", typ, err)
		}
	}
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, typ := range []Type{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0} {
		if _, err := Quantize(typ, make([]float32, 33)); err == nil {
			t.Errorf("%s: 33 values were taken", typ)
		}
		for _, v := range []float32{inf, -inf, nan, math.MaxFloat32, -math.MaxFloat32} {
			for _, i := range []int{0, 17, 31} {
				x := make([]float32, 32)
				x[i] = v
				if _, err := Quantize(typ, x); err == nil {
					t.Errorf("%s: %g was taken", typ, v)
				}
			}
		}
		// The inverse of this scale overflows; the block is as good as zero.
		x := make([]float32, 32)
		x[3] = math.SmallestNonzeroFloat32 * 200
		b, err := Quantize(typ, x)
		if err != nil {
			t.Fatal(err)
		}
		y := make([]float32, 32)
		if err := Dequantize(typ, b, y); err != nil {
			t.Fatal(err)
		}
		for i, v := range y {
			if v != 0 {
				t.Errorf("%s: value %d of a vanishing block is %g", typ, i, v)
			}
		}
	}
}

func TestDequantizeLengths(t *testing.T) {
	for _, typ := range append(append(codecs, Q8_K), kTypes...) {
		n, size := typ.BlockLen(), typ.BlockBytes()
		for _, c := range []struct {
			src, dst int
			ok       bool
		}{
			{0, 0, true}, {size, n, true}, {3 * size, 3 * n, true},
			{size, 2 * n, false}, {2 * size, n, false}, {0, n, false}, {size, 0, false}, {size - 1, n, false}, {size + 1, n, false},
		} {
			if err := Dequantize(typ, make([]byte, c.src), make([]float32, c.dst)); (err == nil) != c.ok {
				t.Errorf("%s: %d values from %d bytes: %v", typ, c.dst, c.src, err)
			}
		}
		if n > 1 {
			if err := Dequantize(typ, make([]byte, size), make([]float32, n-1)); err == nil {
				t.Errorf("%s: part of a block was decoded", typ)
			}
		}
	}
}

// All halves, and the float32 numbers around the middle between each two.
func TestHalf(t *testing.T) {
	for h := range 1 << 16 {
		f := fromF16(uint16(h))
		if f != f {
			if g := toF16(f); g != uint16(h)|0x200 {
				t.Fatalf("NaN %04x became %04x", h, g)
			}
			continue
		}
		if got := toF16(f); got != uint16(h) {
			t.Fatalf("%04x is %g is %04x", h, f, got)
		}
		if h&0x7fff >= 0x7c00 {
			continue
		}
		// The next half away from zero; after the largest, what would come if the exponent went on.
		next := float64(fromF16(uint16(h + 1)))
		if h&0x7fff == 0x7bff {
			next = math.Copysign(65536, float64(f))
		}
		mid := float32((float64(f) + next) / 2) // exact
		even := uint16(h + h&1)
		if got := toF16(mid); got != even {
			t.Fatalf("%g, between %04x and the next, became %04x", mid, h, got)
		}
		bits := math.Float32bits(mid)
		if got := toF16(math.Float32frombits(bits - 1)); got != uint16(h) {
			t.Fatalf("just below %g became %04x, not %04x", mid, got, h)
		}
		if got := toF16(math.Float32frombits(bits + 1)); got != uint16(h+1) {
			t.Fatalf("just above %g became %04x, not %04x", mid, got, h+1)
		}
	}
	for v, want := range map[float32]float32{0: 0, 1: 1, -2: -2, 65504: 65504, 0x1p-24: 0x1p-24, 0x1p-26: 0, 1e9: float32(math.Inf(1)), -1e9: float32(math.Inf(-1))} {
		if got := fromF16(toF16(v)); got != want {
			t.Errorf("%g became %g", v, got)
		}
	}
}

func TestBF16(t *testing.T) {
	for in, want := range map[uint32]uint16{
		0x3f800000: 0x3f80, 0x3f808000: 0x3f80, 0x3f808001: 0x3f81, 0x3f818000: 0x3f82, 0x3f817fff: 0x3f81,
		0x7f7fffff: 0x7f80, 0x7f800000: 0x7f80, 0xff800000: 0xff80, 0x7f800001: 0x7fc0, 0x80000000: 0x8000, 0x00000001: 0,
	} {
		if got := toBF16(math.Float32frombits(in)); got != want {
			t.Errorf("%08x became %04x, want %04x", in, got, want)
		}
	}
}
