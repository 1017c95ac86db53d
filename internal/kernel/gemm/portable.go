package gemm

import (
	"encoding/binary"
	"math"

	"kvasir/internal/kernel"
)

// mulGo is the oracle: it does for one panel w what docs/numerics.md says under "Matrix products".
// The sums f live in out. Blocks are the outer loop, so that a block is unpacked once for all rows.
func mulGo(f Format, w []byte, x *Act, r0, r1 int, out []float32, ldo int) {
	for r := r0; r < r1; r++ {
		clear(out[(r-r0)*ldo:][:PanelOutputs])
	}
	u := units[f]
	for i := range len(w) / u.bytes {
		w := w[i*u.bytes:][:u.bytes]
		if !f.Quantized() {
			mulFloat(f, w, i, x, r0, r1, out, ldo)
			continue
		}
		l := &layouts[f]
		for b := range u.k / block {
			var v ints
			v.unpack(l, w[:l.head()], w[l.head()+b*l.bytes():][:l.bytes()])
			v.mul(i*u.k/block+b, x, r0, r1, out, ldo)
		}
	}
}

// ints are the weights of a block as integers with the scale of each output.
type ints struct {
	// Those of outputs o and o+16 are in one integer: low + high<<32. Then one 64-bit multiplication serves two outputs: the sums stay below
	// 2^31 in size, so both come back whole.
	w [16][block]int64
	d [PanelOutputs]float32
	// Without minima: 0. With one for each block: m times 1. With one for each half: m times the integers for these.
	m    [PanelOutputs]float32
	kind minKind
	half [PanelOutputs][2]int32
}

type minKind uint8

const (
	noMin minKind = iota
	oneMin
	twoMin
)

// unpack reads a block; head has the scales that it shares with others.
func (v *ints) unpack(l *layout, head, w []byte) {
	if l.min {
		v.kind = oneMin
	}
	for o := range PanelOutputs {
		factor := [2]int64{1, 1}
		switch l.scale {
		case scaleF16:
			v.d[o] = half16(w[2*o:])
			if l.min {
				v.m[o] = half16(w[64+2*o:])
			}
		case scaleBF16:
			v.d[o] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(w[2*o:])) << 16)
		case scaleU6:
			v.d[o] = half16(head[2*o:]) * float32(w[o])
			v.m[o] = half16(head[64+2*o:]) * float32(w[32+o])
		case scaleS8:
			v.d[o] = half16(head[2*o:]) * float32(int8(w[o]))
		case scaleS8x2:
			v.d[o] = half16(head[2*o:])
			factor = [2]int64{int64(int8(w[2*o])), int64(int8(w[2*o+1]))}
		case scaleU4x2:
			v.d[o], v.m[o] = half16(head[2*o:]), half16(head[64+2*o:])
			v.kind, v.half[o] = twoMin, [2]int32{int32(w[2*o] >> 4), int32(w[2*o+1] >> 4)}
			factor = [2]int64{int64(w[2*o] & 15), int64(w[2*o+1] & 15)}
		}
		for g, c := range l.words(w, o) {
			for j := range 4 {
				q := int64(c>>(8*j)&255) - int64(l.zero)
				if l.table != nil {
					q = int64(l.table[q])
				}
				v.w[o%16][4*g+j] += q * factor[g/4] << (o / 16 * 32)
			}
		}
	}
}

func half16(b []byte) float32 { return kernel.FromF16(binary.LittleEndian.Uint16(b)) }

// mul multiplies the block, whose number is b, with rows of activations.
func (v *ints) mul(b int, x *Act, r0, r1 int, out []float32, ldo int) {
	blocks := x.K / block
	for r := r0; r < r1; r++ {
		q := (*[block]int8)(x.Q[r*x.K+b*block:])
		s := (*[2]float32)(x.S[(r*blocks+b)*2:])
		n := x.N[(r*blocks+b)*2+1]
		y := (*[PanelOutputs]float32)(out[(r-r0)*ldo:])
		for o := range 16 {
			sum := dot(&v.w[o], q)
			low := int32(sum)
			for i, sum := range [2]int32{low, int32((sum - int64(low)) >> 32)} {
				o := o + 16*i
				y[o] = kernel.FMA(s[0], float32(float32(sum)*v.d[o]), y[o])
				switch v.kind {
				case oneMin:
					y[o] = kernel.FMA(s[1], v.m[o], y[o])
				case twoMin:
					sum := v.half[o][0]*int32(int16(n)) + v.half[o][1]*(n>>16)
					y[o] = kernel.FMA(s[0], float32(float32(sum)*v.m[o]), y[o])
				}
			}
		}
	}
}

func dot(w *[block]int64, q *[block]int8) int64 {
	var a, b int64
	for k := 0; k < block; k += 8 {
		a += w[k]*int64(q[k]) + w[k+1]*int64(q[k+1]) + w[k+2]*int64(q[k+2]) + w[k+3]*int64(q[k+3])
		b += w[k+4]*int64(q[k+4]) + w[k+5]*int64(q[k+5]) + w[k+6]*int64(q[k+6]) + w[k+7]*int64(q[k+7])
	}
	return a + b
}

func mulFloat(f Format, w []byte, b int, x *Act, r0, r1 int, out []float32, ldo int) {
	var row [PanelOutputs]float32
	for k := range block {
		for o := range row {
			switch f {
			case PF16:
				row[o] = kernel.FromF16(binary.LittleEndian.Uint16(w[k*64+2*o:]))
			case PBF16:
				row[o] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(w[k*64+2*o:])) << 16)
			case PF32:
				row[o] = math.Float32frombits(binary.LittleEndian.Uint32(w[k*128+4*o:]))
			}
		}
		for r := r0; r < r1; r++ {
			v := x.F[r*x.K+b*block+k]
			y := (*[PanelOutputs]float32)(out[(r-r0)*ldo:])
			for o := range y {
				y[o] = kernel.FMA(row[o], v, y[o])
			}
		}
	}
}
