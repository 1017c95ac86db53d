package gemm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"kvasir/internal/kernel"
)

// half is an IEEE half as float64, written from the definition.
func half(b []byte) float64 {
	h := binary.LittleEndian.Uint16(b)
	v := float64(h & 1023)
	if e := int(h >> 10 & 31); e > 0 {
		v = math.Ldexp(v+1024, e-25)
	} else {
		v = math.Ldexp(v, -24)
	}
	if h>>15 == 1 {
		return -v
	}
	return v
}

// dequantize returns the weights of a row of GGUF blocks, as the comments in ggml-common.h define them.
func dequantize(name string, row []byte) []float64 {
	var w []float64
	nibbles := func(qs []byte, weight func(k int, q byte) float64) {
		for k := range 32 {
			w = append(w, weight(k, qs[k%16]>>(k/16*4)&15))
		}
	}
	for i := 0; i < len(row); {
		b := row[i:]
		switch name {
		case "F32":
			w = append(w, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
			i += 4
		case "F16":
			w = append(w, half(b))
			i += 2
		case "BF16":
			w = append(w, float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b))<<16)))
			i += 2
		case "Q4_0":
			nibbles(b[2:], func(_ int, q byte) float64 { return half(b) * (float64(q) - 8) })
			i += 18
		case "Q4_1":
			nibbles(b[4:], func(_ int, q byte) float64 { return half(b)*float64(q) + half(b[2:]) })
			i += 20
		case "Q5_0":
			bits := binary.LittleEndian.Uint32(b[2:])
			nibbles(b[6:], func(k int, q byte) float64 { return half(b) * (float64(q) + float64(bits>>k&1)*16 - 16) })
			i += 22
		case "Q5_1":
			bits := binary.LittleEndian.Uint32(b[4:])
			nibbles(b[8:], func(k int, q byte) float64 { return half(b)*(float64(q)+float64(bits>>k&1)*16) + half(b[2:]) })
			i += 24
		case "Q8_0":
			for k := range 32 {
				w = append(w, half(b)*float64(int8(b[2+k])))
			}
			i += 34
		case "IQ4_NL":
			nibbles(b[2:], func(_ int, q byte) float64 { return half(b) * iq4Values[q] })
			i += 18
		case "MXFP4":
			nibbles(b[1:], func(_ int, q byte) float64 { return math.Ldexp(mxfp4Values[q], int(b[0])-127) })
			i += 17
		case "IQ4_XS":
			for j := range 8 {
				scale := b[4+j/2]>>(4*(j%2))&15 + byte(binary.LittleEndian.Uint16(b[2:])>>(2*j))&3*16
				nibbles(b[8+16*j:], func(_ int, q byte) float64 { return half(b) * (float64(scale) - 32) * iq4Values[q] })
			}
			i += 136
		case "Q2_K":
			for k := range 256 {
				q, scale := b[16+k/128*32+k%32]>>(k%128/32*2)&3, b[k/16]
				w = append(w, half(b[80:])*float64(scale&15)*float64(q)-half(b[82:])*float64(scale>>4))
			}
			i += 84
		case "Q3_K":
			for k := range 256 {
				j := k / 16
				scale := b[96+j%8] >> (j / 8 * 4) & 15
				scale += b[104+j%4] >> (j / 4 * 2) & 3 * 16
				q := float64(b[32+k/128*32+k%32] >> (k % 128 / 32 * 2) & 3)
				if b[k%32]>>(k/32)&1 == 0 {
					q -= 4
				}
				w = append(w, half(b[108:])*(float64(scale)-32)*q)
			}
			i += 110
		case "Q4_K", "Q5_K":
			qs, size := b[16:], 144
			if name == "Q5_K" {
				qs, size = b[48:], 176
			}
			for k := range 256 {
				q := float64(qs[k/64*32+k%32] >> (k % 64 / 32 * 4) & 15)
				if name == "Q5_K" {
					q += 16 * float64(b[16+k%32]>>(k/32)&1)
				}
				s, j := b[4:], k/32
				scale, minimum := s[j%4]&63, s[4+j%4]&63
				if j >= 4 {
					scale, minimum = s[4+j]&15+s[j-4]>>6*16, s[4+j]>>4+s[j]>>6*16
				}
				w = append(w, half(b)*float64(scale)*q-half(b[2:])*float64(minimum))
			}
			i += size
		case "Q6_K":
			for k := range 256 {
				q := b[k/128*64+k%64] >> (k % 128 / 64 * 4) & 15
				q += b[128+k/128*32+k%32] >> (k % 128 / 32 * 2) & 3 * 16
				w = append(w, half(b[208:])*float64(int8(b[192+k/16]))*(float64(q)-32))
			}
			i += 210
		}
	}
	return w
}

// What nibbles stand for: kvalues_iq4nl, and the 4-bit floats of the OCP specification of microscaling formats (E2M1).
var (
	iq4Values   = [16]float64{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	mxfp4Values = [16]float64{0, .5, 1, 1.5, 2, 3, 4, 6, 0, -.5, -1, -1.5, -2, -3, -4, -6}
)

// Products with unit vectors give the weights back, rounded once to float32.
func TestPackRoundTrip(t *testing.T) {
	const out = 71
	for _, g := range ggmlTypes {
		in := wide(g.id, 64)
		rng := rand.New(rand.NewPCG(5, uint64(g.id)))
		src := weights(rng, g.id, out, in, random)
		m := pack(t, g.id, out, in, src)
		x := NewAct(in, in)
		for k := range in {
			x.F[k*in+k] = 1
			x.Q[k*in+k] = 1
			x.setBlock((k*in+k)/block, 1)
		}
		for panel := range m.Panels() {
			got := mul(t, kernel.Go, m, panel, x, 0, in)
			for o := panel * PanelOutputs; o < min(out, (panel+1)*PanelOutputs); o++ {
				want := dequantize(g.name, src[o*rowBytes(g.id, in):][:rowBytes(g.id, in)])
				for k := range want {
					if v := got[k][o-panel*PanelOutputs]; v != float32(want[k]) {
						t.Fatalf("%s: weight (%d,%d) is %v, want %v", g.name, o, k, v, want[k])
					}
				}
			}
		}
	}
}

// Disjoint ranges packed at once give what one call gives.
func TestPackRanges(t *testing.T) {
	const out = 135
	for _, g := range ggmlTypes {
		in := wide(g.id, 96)
		rng := rand.New(rand.NewPCG(6, uint64(g.id)))
		src := weights(rng, g.id, out, in, random)
		whole := pack(t, g.id, out, in, src)
		m := &Matrix{Format: whole.Format, Out: out, In: in, Data: dirty(len(whole.Data))}
		var wg sync.WaitGroup
		for _, r := range [][2]int{{0, 32}, {32, 96}, {96, 135}} {
			wg.Go(func() {
				n := rowBytes(g.id, in)
				if err := m.Pack(g.id, r[0], r[1]-r[0], src[r[0]*n:r[1]*n]); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if !bytes.Equal(m.Data, whole.Data) {
			t.Errorf("%s: panels differ", g.name)
		}
	}
}

func TestPackErrors(t *testing.T) {
	const q4_0, q4_1, q8_0 = 2, 3, 8
	good := func(out, in int) *Matrix {
		return &Matrix{Format: P4, Out: out, In: in, Data: make([]byte, Size(P4, out, in))}
	}
	short := good(40, 64)
	short.Data = short.Data[1:]
	for _, c := range []struct {
		name        string
		m           *Matrix
		id          uint32
		first, rows int
		src         int
	}{
		{"codebook", good(40, 256), 16, 0, 40, 40 * 66},
		{"part of a super-block", &Matrix{Format: P4K, Out: 40, In: 128, Data: make([]byte, Size(P4K, 40, 256))}, 12, 0, 40, 40 * 72},
		{"other format", good(40, 64), q8_0, 0, 40, 40 * 68},
		{"inner size", &Matrix{Format: P4, Out: 40, In: 48}, q4_1, 0, 40, 40 * 30},
		{"no outputs", &Matrix{Format: P4, In: 64}, q4_1, 0, 0, 0},
		{"short data", short, q4_1, 0, 40, 40 * 40},
		{"first row", good(40, 64), q4_1, 16, 24, 24 * 40},
		{"part of a panel", good(40, 64), q4_1, 0, 31, 31 * 40},
		{"too many rows", good(40, 64), q4_1, 32, 9, 9 * 40},
		{"negative rows", good(40, 64), q4_1, 32, -8, 0},
		{"negative first", good(40, 64), q4_1, -32, 32, 32 * 40},
		{"overflow", good(40, 64), q4_1, 32, math.MaxInt, 0},
		{"short source", good(40, 64), q4_1, 0, 40, 40*40 - 1},
		{"long source", good(40, 64), q4_1, 0, 40, 40*40 + 1},
	} {
		if err := c.m.Pack(c.id, c.first, c.rows, make([]byte, c.src)); !errors.Is(err, ErrShape) {
			t.Errorf("%s: %v, want ErrShape", c.name, err)
		}
	}

	// Values that are not finite, at the last block of the last row.
	for _, g := range ggmlTypes {
		const out = 40
		in := wide(g.id, 64)
		rng := rand.New(rand.NewPCG(7, uint64(g.id)))
		s := sources[g.id]
		offs := g.halves
		if offs == nil {
			offs = []int{0}
		}
		for _, off := range offs {
			src := weights(rng, g.id, out, in, random)
			v := src[len(src)-s.bytes+off:]
			switch g.name {
			case "F32":
				binary.LittleEndian.PutUint32(v, 0xff800000)
			case "BF16":
				binary.LittleEndian.PutUint16(v, 0x7fc0)
			case "MXFP4":
				v[0] = 253
			default:
				binary.LittleEndian.PutUint16(v, 0xfc00)
			}
			m := &Matrix{Format: s.format, Out: out, In: in, Data: make([]byte, Size(s.format, out, in))}
			if err := m.Pack(g.id, 0, out, src); !errors.Is(err, ErrWeights) {
				t.Errorf("%s: %v, want ErrWeights", g.name, err)
			}
		}
	}

	// Q4_0 takes every finite scale, the smallest and the largest too.
	for _, d := range []uint16{0, 1, 0x8003, 0x7000, 0x7bff, 0xfbff} {
		src := make([]byte, 32*18)
		for i := 0; i < len(src); i += 18 {
			binary.LittleEndian.PutUint16(src[i:], d)
		}
		m := &Matrix{Format: P4Z, Out: 32, In: 32, Data: make([]byte, Size(P4Z, 32, 32))}
		if err := m.Pack(q4_0, 0, 32, src); err != nil {
			t.Errorf("Q4_0 with d=%#04x: %v", d, err)
		}
	}
}

func TestFormatFor(t *testing.T) {
	want := map[uint32]Format{0: PF32, 1: PF16, 2: P4Z, 3: P4, 6: P5Z, 7: P5, 8: P8, 10: P2K, 11: P3K, 12: P4K, 13: P5K, 14: P6K,
		20: P4N, 23: P4X, 30: PBF16, 39: PMX}
	for id := range uint32(64) {
		f, ok := FormatFor(id)
		if w, known := want[id]; ok != known || f != w {
			t.Errorf("ggml type %d: %v %v", id, f, ok)
		}
	}
	// Bytes of 64 outputs × 512 k.
	for f, want := range map[Format]int{P4: 20480, P4Z: 18432, P5: 24576, P5Z: 22528, P8: 34816, P2K: 10752, P3K: 14592, P4K: 18944, P5K: 23040,
		P6K: 26880, P4N: 18432, P4X: 17664, PMX: 18432, PF16: 65536, PBF16: 65536, PF32: 131072} {
		if n := Size(f, 33, 512); n != want {
			t.Errorf("Size of %v = %d, want %d", f, n, want)
		}
	}
}
