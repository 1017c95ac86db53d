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
	size := f.blockBytes()
	for b := range len(w) / size {
		if f.Quantized() {
			mulInt(f, w[b*size:][:size], b, x, r0, r1, out, ldo)
		} else {
			mulFloat(f, w[b*size:][:size], b, x, r0, r1, out, ldo)
		}
	}
}

// pairs holds a block's weights for outputs o and o+16 in one integer: low + high<<32. Then one 64-bit multiplication serves two outputs:
// the sums stay below 2^31 in size, so both come back whole.
type pairs [16][block]int64

func mulInt(f Format, w []byte, b int, x *Act, r0, r1 int, out []float32, ldo int) {
	var p pairs
	var d, m [PanelOutputs]float32
	for o := range d {
		d[o] = kernel.FromF16(binary.LittleEndian.Uint16(w[2*o:]))
	}
	switch f {
	case P4:
		p.unpack4(w[128:], 0)
	case P4Z:
		p.unpack4(w[64:], 8)
	case P5:
		p.unpack8(w[128:], 0)
	case P8:
		p.unpack8(w[64:], 128)
	}
	minimum := f == P4 || f == P5
	if minimum {
		for o := range m {
			m[o] = kernel.FromF16(binary.LittleEndian.Uint16(w[64+2*o:]))
		}
	}
	blocks := x.K / block
	for r := r0; r < r1; r++ {
		q := (*[block]int8)(x.Q[r*x.K+b*block:])
		s := (*[2]float32)(x.S[(r*blocks+b)*2:])
		y := (*[PanelOutputs]float32)(out[(r-r0)*ldo:])
		for o := range 16 {
			sum := dot(&p[o], q)
			low := int32(sum)
			high := int32((sum - int64(low)) >> 32)
			y[o] = kernel.FMA(s[0], float32(float32(low)*d[o]), y[o])
			y[o+16] = kernel.FMA(s[0], float32(float32(high)*d[o+16]), y[o+16])
			if minimum {
				y[o] = kernel.FMA(s[1], m[o], y[o])
				y[o+16] = kernel.FMA(s[1], m[o+16], y[o+16])
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

// unpack4 reads the 4 groups of a P4 or P4Z block; the weights are the nibbles less zero.
func (p *pairs) unpack4(w []byte, zero int64) {
	for g := range 4 {
		for o := range 16 {
			low, high := binary.LittleEndian.Uint32(w[g*128+o*4:]), binary.LittleEndian.Uint32(w[g*128+64+o*4:])
			for j := range 4 {
				p[o][8*g+j] = int64(low&15) - zero + (int64(high&15)-zero)<<32
				p[o][8*g+4+j] = int64(low>>4&15) - zero + (int64(high>>4&15)-zero)<<32
				low >>= 8
				high >>= 8
			}
		}
	}
}

// unpack8 reads the 8 groups of a P5 or P8 block; the weights are the bytes less zero.
func (p *pairs) unpack8(w []byte, zero int64) {
	for g := range 8 {
		for o := range 16 {
			low, high := w[g*128+o*4:][:4], w[g*128+64+o*4:][:4]
			for j := range 4 {
				p[o][4*g+j] = int64(low[j]) - zero + (int64(high[j])-zero)<<32
			}
		}
	}
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
