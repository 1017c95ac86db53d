package gemm

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"kvasir/internal/kernel"
)

// ggmlTypes are all types that Pack takes. halves are the offsets of the 16-bit floats in a block of integers.
var ggmlTypes = []struct {
	name   string
	id     uint32
	halves []int
}{
	{"F32", 0, nil}, {"F16", 1, nil}, {"BF16", 30, nil},
	{"Q4_0", 2, []int{0}}, {"Q4_1", 3, []int{0, 2}}, {"Q5_0", 6, []int{0}}, {"Q5_1", 7, []int{0, 2}}, {"Q8_0", 8, []int{0}},
	{"Q2_K", 10, []int{80, 82}}, {"Q3_K", 11, []int{108}}, {"Q4_K", 12, []int{0, 2}}, {"Q5_K", 13, []int{0, 2}}, {"Q6_K", 14, []int{208}},
	{"IQ4_NL", 20, []int{0}}, {"IQ4_XS", 23, []int{0}}, {"MXFP4", 39, nil},
}

func halvesOf(id uint32) []int {
	for _, g := range ggmlTypes {
		if g.id == id {
			return g.halves
		}
	}
	return nil
}

// wide returns the least inner size that the type has, from in on.
func wide(id uint32, in int) int {
	k := units[sources[id].format].k
	return (in + k - 1) / k * k
}

func rowBytes(id uint32, in int) int {
	s := sources[id]
	return in / s.values * s.bytes
}

// How the test's weights and activations are filled.
const (
	random = iota
	high   // the largest magnitudes, all of one sign: the sums reach their bounds
	low    // the same with the other sign of the activations, and the smallest weights
	mixed  // each block one of the above or, with this value, all zeros
	tiny   // scales of either sign that are subnormal or zero, and activations so small that products and sums are subnormal
	fills
)

// weights makes rows of a ggml type.
func weights(rng *rand.Rand, id uint32, rows, in, fill int) []byte {
	s := sources[id]
	b := make([]byte, rows*rowBytes(id, in))
	half := func(scale float64) uint16 { return kernel.ToF16(float32(rng.NormFloat64() * scale)) }
	for i := 0; i < len(b); i += s.bytes {
		v := b[i:][:s.bytes]
		kind := fill
		if kind == mixed {
			kind = rng.IntN(4)
		}
		switch {
		case kind == tiny && s.name == "F32":
			binary.LittleEndian.PutUint32(v, rng.Uint32()&0x9fffffff) // below 2^-63
			continue
		case kind == tiny && s.name == "F16":
			binary.LittleEndian.PutUint16(v, uint16(rng.Uint32())&0x83ff)
			continue
		case kind == tiny && s.name == "BF16":
			binary.LittleEndian.PutUint16(v, uint16(rng.Uint32())&0x9fff)
			continue
		}
		switch s.name {
		case "F32":
			binary.LittleEndian.PutUint32(v, math.Float32bits(float32(rng.NormFloat64()*math.Exp2(float64(rng.IntN(9)-4)))))
			continue
		case "F16":
			binary.LittleEndian.PutUint16(v, half(math.Exp2(float64(rng.IntN(9)-4))))
			continue
		case "BF16":
			binary.LittleEndian.PutUint16(v, uint16(math.Float32bits(float32(rng.NormFloat64()))>>16))
			continue
		}
		switch kind {
		case random, tiny:
			for j := range v {
				v[j] = byte(rng.Uint32())
			}
		case high, low: // the smallest unsigned weight is 0, the largest 0xff
			fill := byte(0)
			switch {
			case s.name == "Q8_0" && kind == low:
				fill = 0x80
			case s.name == "Q8_0":
				fill = 0x7f
			case kind == high:
				fill = 0xff
			}
			for j := range v {
				v[j] = fill
			}
			scale := byte(0x80)
			if kind == high {
				scale = 0x7f
			}
			switch s.name {
			case "Q6_K":
				for j := 192; j < 208; j++ {
					v[j] = scale
				}
			case "Q2_K":
				for j := range 16 {
					v[j] = 0xff
				}
			case "Q4_K", "Q5_K":
				for j := range 12 {
					v[4+j] = 0xff
				}
			}
		case mixed: // a block of zeros
			clear(v)
			continue
		}
		for j, off := range halvesOf(id) {
			d := half([]float64{0.1, 0.5}[j])
			if kind == tiny {
				d = uint16(rng.Uint32()) & 0x83ff
				if rng.IntN(4) == 0 {
					d &= 0x8000
				}
			}
			binary.LittleEndian.PutUint16(v[off:], d)
		}
		if s.name == "MXFP4" {
			v[0] = byte(110 + rng.IntN(20))
			if kind == tiny {
				v[0] = byte(rng.IntN(4))
			}
		}
	}
	return b
}

// activations fills rows of F, Q, S and N.
func activations(rng *rand.Rand, rows, k, fill int) *Act {
	x := NewAct(rows, k)
	for i := range x.F {
		x.F[i] = float32(rng.NormFloat64() * 2)
		if fill == tiny {
			x.F[i] = math.Float32frombits(rng.Uint32() & 0x8fffffff) // below 2^-95
		}
	}
	for b := range rows * k / block {
		kind := fill
		if kind == mixed {
			kind = rng.IntN(4)
		}
		for i := range block {
			q := int8(rng.IntN(255) - 127)
			switch kind {
			case high:
				q = 127
			case low:
				q = -127
			case mixed:
				q = 0
			}
			x.Q[b*block+i] = q
		}
		d := float32(math.Abs(rng.NormFloat64())*0.05 + 1e-3)
		if kind == tiny {
			d = math.Float32frombits(rng.Uint32() & 0x0bffffff) // below 2^-103
		}
		x.setBlock(b, d)
	}
	return x
}

// setBlock fills S and N of block b, counted over all rows, from its Q and its scale.
func (x *Act) setBlock(b int, d float32) {
	var half [2]int32
	for i, q := range x.Q[b*block:][:block] {
		half[i/16] += int32(q)
	}
	sum := half[0] + half[1]
	x.S[2*b], x.S[2*b+1] = d, d*float32(sum)
	x.N[2*b], x.N[2*b+1] = -128*sum, half[0]&0xffff|half[1]<<16
}

func pack(t testing.TB, id uint32, out, in int, src []byte) *Matrix {
	t.Helper()
	f, ok := FormatFor(id)
	if !ok {
		t.Fatalf("no format for ggml type %d", id)
	}
	m := &Matrix{Format: f, Out: out, In: in, Data: dirty(Size(f, out, in))}
	if err := m.Pack(id, 0, out, src); err != nil {
		t.Fatal(err)
	}
	return m
}

// dirty returns n bytes that are not zero: Pack must write them all.
func dirty(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 0xa5
	}
	return b
}

// canary is a NaN that no kernel makes.
var canary = math.Float32frombits(0x7fc5a5a5)

// mul runs Mul with canaries around each row of out, and fails if one is touched.
func mul(t testing.TB, p kernel.Path, m *Matrix, panel int, x *Act, r0, r1 int) [][PanelOutputs]float32 {
	t.Helper()
	const margin, ldo = 16, PanelOutputs + 5
	n := (r1-r0-1)*ldo + PanelOutputs
	buf := make([]float32, margin+n+margin)
	for i := range buf {
		buf[i] = canary
	}
	Mul(p, m, panel, x, r0, r1, buf[margin:margin+n], ldo)
	rows := make([][PanelOutputs]float32, r1-r0)
	for r := range rows {
		copy(rows[r][:], buf[margin+r*ldo:])
		clear(buf[margin+r*ldo:][:PanelOutputs])
	}
	for i, v := range buf {
		row := (i - margin) / ldo
		inside := i >= margin && row < len(rows) && (i-margin)%ldo < PanelOutputs
		if !inside && math.Float32bits(v) != math.Float32bits(canary) {
			t.Fatalf("%v: float %d relative to out was overwritten (rows of %d, stride %d)", p, i-margin, PanelOutputs, ldo)
		}
	}
	return rows
}

func sameBits(t *testing.T, what string, got, want [][PanelOutputs]float32) {
	t.Helper()
	bad := 0
	for r := range want {
		for o := range want[r] {
			if math.Float32bits(got[r][o]) != math.Float32bits(want[r][o]) {
				if bad++; bad == 1 {
					t.Errorf("%s: row %d output %d: %v (%08x), want %v (%08x)", what, r, o,
						got[r][o], math.Float32bits(got[r][o]), want[r][o], math.Float32bits(want[r][o]))
				}
			}
		}
	}
	if bad > 0 {
		t.Errorf("%s: %d values differ", what, bad)
	}
}

// Every path gives the oracle's bits, for every number of rows up to twice the largest group.
func TestPathsAgree(t *testing.T) {
	for _, g := range ggmlTypes {
		t.Run(g.name, func(t *testing.T) {
			sizes := []int{32, 64, 576, 1536}
			if testing.Short() {
				sizes = []int{32, 64, 160}
			}
			done := 0
			for _, in := range sizes {
				if in = wide(g.id, in); in == done {
					continue
				}
				done = in
				for fill := range fills {
					rng := rand.New(rand.NewPCG(uint64(in), uint64(fill)))
					const out = 71 // the last panel has 7 rows
					m := pack(t, g.id, out, in, weights(rng, g.id, out, in, fill))
					x := activations(rng, 13, in, fill)
					for panel := range m.Panels() {
						want := mul(t, kernel.Go, m, panel, x, 0, 13)
						for _, p := range kernel.Available() {
							for rows := 1; rows <= 13; rows++ {
								r0 := (13 - rows) / 2
								got := mul(t, p, m, panel, x, r0, r0+rows)
								sameBits(t, fmt.Sprintf("%v in=%d fill=%d panel %d rows [%d,%d)", p, in, fill, panel, r0, r0+rows), got, want[r0:r0+rows])
							}
						}
					}
				}
			}
		})
	}
}

// A row's bits do not depend on how rows are grouped, and its outputs beyond Out are +0.
func TestRowsAreIndependent(t *testing.T) {
	const rows, out = 40, 33
	for _, g := range ggmlTypes {
		in := wide(g.id, 96)
		rng := rand.New(rand.NewPCG(1, uint64(g.id)))
		m := pack(t, g.id, out, in, weights(rng, g.id, out, in, random))
		x := activations(rng, rows, in, random)
		for _, p := range kernel.Available() {
			whole := mul(t, p, m, 1, x, 0, rows)
			for r := range whole {
				for o := 1; o < PanelOutputs; o++ {
					if math.Float32bits(whole[r][o]) != 0 {
						t.Fatalf("%s %v: output %d, beyond Out, is %v", g.name, p, o, whole[r][o])
					}
				}
			}
			for range 20 {
				r0 := rng.IntN(rows)
				r1 := r0 + 1 + rng.IntN(rows-r0)
				sameBits(t, fmt.Sprintf("%s %v [%d,%d)", g.name, p, r0, r1), mul(t, p, m, 1, x, r0, r1), whole[r0:r1])
			}
		}
	}
}

// The oracle against the same product in float64.
func TestGoAgainstFloat64(t *testing.T) {
	const rows, out = 5, 40
	for _, g := range ggmlTypes {
		in := wide(g.id, 576)
		rng := rand.New(rand.NewPCG(2, uint64(g.id)))
		src := weights(rng, g.id, out, in, random)
		m := pack(t, g.id, out, in, src)
		x := activations(rng, rows, in, random)
		w := make([]float64, 0, out*in)
		for o := range out {
			w = append(w, dequantize(g.name, src[o*rowBytes(g.id, in):][:rowBytes(g.id, in)])...)
		}
		for panel := range m.Panels() {
			got := mul(t, kernel.Go, m, panel, x, 0, rows)
			for r := range rows {
				for o := panel * PanelOutputs; o < min(out, (panel+1)*PanelOutputs); o++ {
					var want, size float64
					for k := range in {
						a := float64(x.F[r*in+k])
						if m.Format.Quantized() {
							a = float64(x.Q[r*in+k]) * float64(x.S[(r*in+k)/block*2])
						}
						want += w[o*in+k] * a
						size += math.Abs(w[o*in+k] * a)
					}
					v := float64(got[r][o-panel*PanelOutputs])
					// One rounding a term at most, each of at most size·2^-24; the min term adds up to as much again.
					if bound := size * float64(in) * 0x1p-24 / 8; math.Abs(v-want) > bound {
						t.Errorf("%s row %d output %d: %v, want %v ± %v", g.name, r, o, v, want, bound)
					}
				}
			}
		}
	}
}

func TestMulAllocatesNothing(t *testing.T) {
	for _, g := range ggmlTypes {
		rng := rand.New(rand.NewPCG(3, uint64(g.id)))
		in := wide(g.id, 64)
		m := pack(t, g.id, 32, in, weights(rng, g.id, 32, in, random))
		x := activations(rng, 9, in, random)
		for _, p := range kernel.Available() {
			n := testing.AllocsPerRun(10, func() {
				var out [9 * PanelOutputs]float32
				Mul(p, m, 0, x, 0, 9, out[:], PanelOutputs)
			})
			if n != 0 {
				t.Errorf("%s %v: %v allocations", g.name, p, n)
			}
		}
	}
}

// Misuse panics before memory outside the slices is touched.
func TestMulPanics(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 0))
	m := pack(t, 3, 40, 64, weights(rng, 3, 40, 64, random))
	x := activations(rng, 4, 64, random)
	out := make([]float32, 4*32)
	short := *m
	short.Data = m.Data[:len(m.Data)-1]
	odd := *m
	odd.In = 63
	part := &Matrix{Format: P4K, Out: 32, In: 128, Data: make([]byte, 4096)}
	for _, c := range []struct {
		name string
		f    func(p kernel.Path)
	}{
		{"is malformed", func(p kernel.Path) { Mul(p, &short, 0, x, 0, 4, out, 32) }},
		{"is malformed", func(p kernel.Path) { Mul(p, &odd, 0, x, 0, 4, out, 32) }},
		{"is malformed", func(p kernel.Path) { Mul(p, part, 0, NewAct(4, 128), 0, 4, out, 32) }},
		{"is malformed", func(p kernel.Path) { Mul(p, &Matrix{Format: formats, Out: 40, In: 64}, 0, x, 0, 4, out, 32) }},
		{"panel 2 of 2", func(p kernel.Path) { Mul(p, m, 2, x, 0, 4, out, 32) }},
		{"panel -1 of 2", func(p kernel.Path) { Mul(p, m, -1, x, 0, 4, out, 32) }},
		{"activations of 32 values", func(p kernel.Path) { Mul(p, m, 0, NewAct(4, 32), 0, 4, out, 32) }},
		{"rows [3, 2)", func(p kernel.Path) { Mul(p, m, 0, x, 3, 2, out, 32) }},
		{"rows [-1, 2)", func(p kernel.Path) { Mul(p, m, 0, x, -1, 2, out, 32) }},
		{"do not fit", func(p kernel.Path) { Mul(p, m, 0, x, 0, 4, out[:127], 32) }},
		{"do not fit", func(p kernel.Path) { Mul(p, m, 0, x, 0, 4, out, 31) }},
		{"row 4 is beyond the int8", func(p kernel.Path) { Mul(p, m, 0, x, 2, 5, out, 32) }},
		{"row 0 is beyond the float32", func(p kernel.Path) {
			f := &Matrix{Format: PF32, Out: 32, In: 64, Data: make([]byte, Size(PF32, 32, 64))}
			Mul(p, f, 0, &Act{K: 64}, 0, 1, out, 32)
		}},
	} {
		for _, p := range kernel.Available() {
			func() {
				defer func() {
					if msg := fmt.Sprint(recover()); !strings.Contains(msg, c.name) {
						t.Errorf("%v: want a panic with %q, got %q", p, c.name, msg)
					}
				}()
				c.f(p)
			}()
		}
	}
	Mul(kernel.Go, m, 0, x, 2, 2, nil, 0) // no rows, nothing to do
}

func TestNewActIsAligned(t *testing.T) {
	x := NewAct(3, 96)
	if len(x.F) != 288 || len(x.Q) != 288 || len(x.S) != 18 || len(x.N) != 18 || x.K != 96 {
		t.Fatalf("lengths %d %d %d %d", len(x.F), len(x.Q), len(x.S), len(x.N))
	}
	for _, a := range []string{fmt.Sprintf("%p", x.F), fmt.Sprintf("%p", x.Q), fmt.Sprintf("%p", x.S), fmt.Sprintf("%p", x.N)} {
		var p uint64
		if _, err := fmt.Sscanf(a, "0x%x", &p); err != nil || p%64 != 0 {
			t.Errorf("%s is not a multiple of 64 (%v)", a, err)
		}
	}
}
