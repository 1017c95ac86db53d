package main

import (
	"fmt"

	. "kvasir/internal/kernel/_asm/a64"
	"kvasir/internal/kernel/_asm/panel"
)

// splitBody is body where the halves of a block have scales of their own: 16 outputs with a sum for each half, which MUL and MLA bring
// together in int32. They are below 2^24 in size, so that single floats hold them exactly. The sums across blocks live in y.
func (p intFormat) splitBody(f *Func, rows int) {
	const cols = 4
	acc := [2][][]V{grid(0, rows, cols), grid(V(rows*cols), rows, cols)}
	free := V(2 * rows * cols)
	x, w := seq(free, rows), free+V(rows)
	if w >= scratch {
		panic("out of vector registers")
	}
	p.constants(f)
	halves(f, rows, cols, func(half R) {
		mark := f.Mark()
		o := p.operands(f, rows, half)
		zero(f, w)
		for t := range rows {
			for j := range cols {
				f.Emit(STRQ(w, o.y[t], 16*j))
			}
		}
		loop := fmt.Sprintf("loop%d", rows)
		f.Label(loop)
		for i, v := range acc {
			for t := range rows {
				zero(f, v[t]...)
				f.Emit(LDRQ(x[t], o.q[t], 16*i))
			}
			for g := range 4 {
				for j := range cols {
					p.weight(f, w, o.weights, 4*i+g, 16*j)
					for t := range rows {
						f.Emit(SDOTE(v[t][j], w, x[t], g))
					}
				}
			}
		}
		// f = fma(d_x, float32(s_0*sum_0 + s_1*sum_1)*d_w, f).
		s0, s1, d, sx, old := free, free+1, free+2, free+3, free+4
		for j := range cols {
			p.pairs(f, s0, o.scales, 8*j, false)
			f.Emit(SSHR(s1, s0, 16), SHL(s0, s0, 16), SSHR(s0, s0, 16))
			f.Emit(LDRD(d, o.head, 8*j), FCVTL(d, d))
			for t := range rows {
				a := acc[0][t][j]
				f.Emit(MUL(a, a, s0), MLA(a, acc[1][t][j], s1), SCVTF(a, a), FMUL(a, a, d))
				f.Emit(LDRS(sx, o.s[t], 0), LDRQ(old, o.y[t], 16*j), FMLAE(old, a, sx, 0), STRQ(old, o.y[t], 16*j))
			}
		}
		if p.Min {
			p.splitMinima(f, o, rows, cols)
		}
		p.next(f, o, loop)
		f.Release(mark)
	})
}

// splitMinima adds f = fma(d_x, float32(m_0*n_0 + m_1*n_1)*m_w, f); n has the sums of the activations. All sums of the block are used up.
func (p intFormat) splitMinima(f *Func, o intOperands, rows, cols int) {
	const m, d, sx, old, n, low, high V = 0, 1, 2, 3, 4, 5, 6
	sums := f.R()
	for j := range cols {
		p.pairs(f, m, o.scales, 8*j, true)
		f.Emit(LDRD(d, o.head, 64+8*j), FCVTL(d, d))
		for t := range rows {
			f.Go("ADD $4, R%d, R%d", o.n[t], sums)
			f.Emit(LD1R(n, sums), SMULL(low, m, n), SMULL2(high, m, n), ADDP(low, low, high), SCVTF(low, low), FMUL(low, low, d))
			f.Emit(LDRS(sx, o.s[t], 0), LDRQ(old, o.y[t], 16*j), FMLAE(old, low, sx, 0), STRQ(old, o.y[t], 16*j))
		}
	}
}

// pairs loads the scales, or the minima, of both halves for four outputs as pairs of int16.
func (p intFormat) pairs(f *Func, d V, b R, off int, minima bool) {
	f.Emit(LDRD(d, b, off))
	switch {
	case p.Scale == panel.S8x2:
		f.Emit(SXTL8H(d, d))
		return
	case minima:
		f.Emit(USHR16B(d, d, 4))
	default:
		f.Emit(AND(d, d, nibble))
	}
	f.Emit(UXTL8H(d, d))
}

// weight unpacks the four k of group g of four outputs.
func (p intFormat) weight(f *Func, w V, b R, g, off int) {
	place, at := 0, p.Weights()+off
	for _, n := range p.Planes {
		src := w
		if place > 0 {
			src = scratch
		}
		f.Emit(LDRQ(src, b, at+g*n/8*128))
		field(f, w, src, n, g*n%8, place)
		at += 128 * n
		place += n
	}
	if p.Zero != 0 {
		f.Emit(SUB16B(w, w, magic))
	}
}
