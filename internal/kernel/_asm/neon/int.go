package main

import (
	"fmt"
	"math/bits"

	. "kvasir/internal/kernel/_asm/a64"
	"kvasir/internal/kernel/_asm/panel"
)

// An intFormat is a quantised panel.
type intFormat struct{ panel.Format }

// sums reports whether the sums start at -zero times the sum of the activations, so that the weights may stay unsigned.
func (p intFormat) sums() bool { return p.Zero == 8 || p.Zero == 16 }

// intOperands are the general registers of a body.
type intOperands struct {
	blocks          R
	weights, scales R // on their way over the weights and the scales of some of the outputs
	head            R // the same for the scales that eight blocks share
	q, s, n, y      []R
}

// operands loads them for the outputs from 16*half on.
func (p intFormat) operands(f *Func, rows int, half R) intOperands {
	o := intOperands{blocks: f.Load("blocks"), weights: f.Load("w")}
	offset := func(shift, add int) R {
		r := f.R()
		f.Go("ADD R%d<<%d, R%d, R%d", half, shift, o.weights, r)
		if add > 0 {
			f.Add(r, add)
		}
		return r
	}
	if p.Super() {
		o.head = offset(5, 0)
	}
	if p.Super() && !p.Split() {
		o.scales = offset(4, p.Head())
	} else {
		o.scales = offset(5, p.Head())
	}
	f.Go("ADD R%d<<6, R%d, R%d", half, o.weights, o.weights)
	if p.Super() {
		f.Add(o.weights, p.Head())
	}
	q, s, y := f.Load("q"), f.Load("s"), f.Load("y")
	f.Go("ADD R%d<<6, R%d, R%d", half, y, y)
	o.q, o.s, o.y = []R{q}, []R{s}, []R{y}
	if p.sums() || p.Split() && p.Min {
		o.n = []R{f.Load("n")}
	}
	if rows == 1 {
		return o
	}
	stride := f.R()
	f.Go("LSL $5, R%d, R%d", o.blocks, stride)
	o.q = f.Rows(q, stride, rows)
	f.Go("LSL $3, R%d, R%d", o.blocks, stride)
	o.s = f.Rows(s, stride, rows)
	if o.n != nil {
		o.n = f.Rows(o.n[0], stride, rows)
	}
	f.LoadTo(stride, "stride")
	o.y = f.Rows(y, stride, rows)
	return o
}

// next moves on by one block and goes back to label unless it was the last.
func (p intFormat) next(f *Func, o intOperands, label string) {
	f.Add(o.weights, p.Bytes())
	f.Add(o.scales, p.Bytes())
	for t := range o.q {
		f.Add(o.q[t], 32)
		f.Add(o.s[t], 8)
		if o.n != nil {
			f.Add(o.n[t], 8)
		}
	}
	if !p.Super() {
		f.Loop(o.blocks, 1, label)
		return
	}
	f.Go("SUB $1, R%d", o.blocks) // the number of blocks is a multiple of 8
	f.Go("TST $7, R%d", o.blocks)
	f.Go("BNE %s", label)
	f.Add(o.weights, p.Head())
	f.Add(o.scales, p.Head())
	f.Add(o.head, p.Head()+8*p.Bytes())
	f.Go("CBNZ R%d, %s", o.blocks, label)
}

// The registers that hold constants, and one that serves to unpack.
const (
	scratch V = 29 // where there is a table, that
	nibble  V = 30 // 0x0f; 0x80 for weights of 8 bits
	magic   V = 31 // where the halves of a block have scales of their own, zero
)

func (p intFormat) constants(f *Func) {
	f.Emit(MOVI16B(nibble, 0x0f))
	if p.Planes[0] == 8 {
		f.Emit(MOVI16B(nibble, 0x80))
	}
	r := f.R()
	if p.Table != "" {
		f.Go("MOVD $·%s(SB), R%d", p.Table, r)
		f.Emit(LDRQ(scratch, r, 0))
	}
	if p.Split() {
		f.Emit(MOVI16B(magic, uint8(p.Zero)))
	} else {
		f.Go("MOVD $0x4b400000, R%d", r)
		f.Go("VDUP R%d, V%d.S4", r, magic)
	}
	f.Release(r)
}

// field puts the bits from bit on that a plane of b bits has of a weight to place and above in w, whose lower bits stay. src may be w.
func field(f *Func, w, src V, b, bit, place int) {
	t := w
	if place > 0 {
		t = scratch
	}
	switch {
	case b == 4 && bit == 0 && place == 0:
		f.Emit(AND(w, src, nibble))
		return
	case b+bit < 8:
		f.Emit(SHL16B(t, src, 8-b-bit))
		src = t
	}
	f.Emit(USHR16B(t, src, 8-b))
	if place > 0 {
		f.Emit(SLI16B(w, t, place))
	}
}

// body sums a block with SDOT, four products a lane. One row takes all 32 outputs at once, more rows take 16 and go over the panel
// twice. The sums across blocks stay in registers up to 2 rows; with more they live in y.
//
// The int32 sums start at the bits of 1.5 * 2^23: as floats they are then that much more than the sum, exactly, since it is less than
// 2^22 in size (32*128*127 for P8). Taking it away is cheaper than a conversion on many CPUs.
func (p intFormat) body(f *Func, rows int) {
	cols, width := 4, 4 // registers of outputs: at once, and of weights
	switch rows {
	case 1:
		cols = 8
	case intRows:
		width = 2
	}
	inMemory := rows > 2
	free := V(0)
	take := func(n int) []V {
		v := seq(free, n)
		free += V(n)
		return v
	}
	acc := grid(0, rows, cols)
	free += V(rows * cols)
	var sum [][]V
	if !inMemory {
		sum = grid(free, rows, cols)
		free += V(rows * cols)
	}
	atBlockEnd := free // then the following serve the scales
	x, w, hi := take(rows), take(width), take(width)
	if free > scratch {
		panic("out of vector registers")
	}
	p.constants(f)
	halves(f, rows, cols, func(half R) {
		mark := f.Mark()
		if cols == 8 {
			f.Go("MOVD $0, R%d", half)
		}
		o := p.operands(f, rows, half)
		if inMemory {
			zero(f, w[:2]...)
			for t := range rows {
				store(f, w[:2], o.y[t], 0)
				store(f, w[:2], o.y[t], 32)
			}
		}
		for _, v := range sum {
			zero(f, v...)
		}
		loop := fmt.Sprintf("loop%d", rows)
		f.Label(loop)
		for t, v := range acc {
			start := magic
			if p.sums() { // n is -128 times the sum
				start = v[0]
				f.Emit(LD1R(start, o.n[t]), SSHR(start, start, 7-bits.TrailingZeros(uint(p.Zero))), ADD(start, start, magic))
			}
			for _, a := range v {
				if a != start {
					f.Emit(MOV(a, start))
				}
			}
		}
		dot := func(w []V, from, k int) { // w has 4 k of the outputs of acc[from:]
			for j := range w {
				for t := range rows {
					f.Emit(SDOTE(acc[t][from+j], w[j], x[t], k/4%4))
				}
			}
		}
		for g := 0; g < 8; g += 2 {
			if g%4 == 0 {
				for t := range rows {
					f.Emit(LDRQ(x[t], o.q[t], 4*g))
				}
			}
			for from := 0; from < cols; from += width {
				p.unpack(f, w, hi, o.weights, g, 16*from, func(w []V, g int) { dot(w, from, 4*g) })
			}
		}
		// f = fma(d_x, float32(sum)*d_w, f), then f = fma(ds_x, m_w, f).
		free = atBlockEnd
		d, m, old, sx := take(2), take(2), take(2), take(1)[0]
		for h := 0; h < cols; h += 2 {
			p.scales(f, d, old, o, 0, 4*h)
			if p.Min {
				p.scales(f, m, old, o, 1, 4*h)
			}
			for t := range rows {
				f.Emit(LDRD(sx, o.s[t], 0))
				to := old
				if inMemory {
					load(f, to, o.y[t], 16*h)
				} else {
					to = sum[t][h : h+2]
				}
				for i, a := range acc[t][h : h+2] {
					f.Emit(FSUB(a, a, magic), FMUL(a, a, d[i]), FMLAE(to[i], a, sx, 0))
					if p.Min {
						f.Emit(FMLAE(to[i], m[i], sx, 1))
					}
				}
				if inMemory {
					store(f, to, o.y[t], 16*h)
				}
			}
		}
		p.next(f, o, loop)
		for t, v := range sum {
			store(f, v, o.y[t], 0)
		}
		f.Release(mark)
	})
}

// unpack calls dot with the weights of group g and, after that, with those of g+1 in registers: either w or hi. off is that of the outputs.
func (p intFormat) unpack(f *Func, w, hi []V, b R, g, off int, dot func(w []V, g int)) {
	at := func(plane, g int) int { // the offset of the plane's word with group g
		o := p.Weights() + off
		for _, b := range p.Planes[:plane] {
			o += 128 * b
		}
		return o + g*p.Planes[plane]/8*128
	}
	switch {
	case p.Planes[0] == 8:
		for i := range 2 {
			load(f, w, b, at(0, g+i))
			for _, v := range w {
				f.Emit(EOR(v, v, nibble))
			}
			dot(w, g+i)
		}
		return
	case p.Planes[0] != 4:
		panic("planes of " + p.Name)
	}
	load(f, w, b, at(0, g))
	for j := range w {
		field(f, hi[j], w[j], 4, 4, 0)
		field(f, w[j], w[j], 4, 0, 0)
	}
	for i, v := range [][]V{w, hi} {
		for j := range v {
			if len(p.Planes) > 1 {
				f.Emit(LDRQ(scratch, b, at(1, g+i)+16*j))
				field(f, v[j], scratch, p.Planes[1], (g+i)*p.Planes[1]%8, 4)
			}
			if p.Table != "" {
				f.Emit(TBL(v[j], scratch, v[j]))
			}
		}
		dot(v, g+i)
	}
}

// scales loads the scales (i is 0) or the minima (1) of eight outputs, first of those at hand, to d. tmp is lost. Products of an f16 and an
// integer of up to 8 bits are exact.
func (p intFormat) scales(f *Func, d, tmp []V, o intOperands, i, first int) {
	switch p.Scale {
	case panel.F16:
		loadHalf(f, d[0], d[1], o.scales, 64*i+2*first)
	case panel.BF16:
		f.Emit(LDRQ(d[0], o.scales, 2*first), SHLL2(d[1], d[0]), SHLL(d[0], d[0]))
	default:
		f.Emit(LDRD(d[0], o.scales, 32*i+first))
		if p.Scale == panel.S8 {
			f.Emit(SXTL8H(d[0], d[0]))
		} else {
			f.Emit(UXTL8H(d[0], d[0]))
		}
		f.Emit(SXTL24S(d[1], d[0]), SXTL4S(d[0], d[0]), SCVTF(d[0], d[0]), SCVTF(d[1], d[1]))
		loadHalf(f, tmp[0], tmp[1], o.head, 64*i+2*first)
		f.Emit(FMUL(d[0], d[0], tmp[0]), FMUL(d[1], d[1], tmp[1]))
	}
}
