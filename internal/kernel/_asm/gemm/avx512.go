package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// vpdpbusd adds to each lane of acc the four products of unsigned and signed bytes. avo v0.5.0 does not know
// AVX512_VNNI, Go's assembler does. If signed is in memory, its four bytes serve all lanes.
func vpdpbusd(signed, unsigned, acc Op) {
	i := &ir.Instruction{Opcode: "VPDPBUSD", Operands: []Op{signed, unsigned, acc},
		Inputs: []Op{signed, unsigned, acc}, Outputs: []Op{acc}, ISA: []string{"AVX512VNNI"}}
	if IsMem(signed) {
		i.Suffixes = append(i.Suffixes, "BCST")
	}
	Instruction(i)
}

// unpack512 makes vectors of unsigned weights.
type unpack512 struct {
	f     intFormat
	p     intPointers
	masks []reg.VecVirtual
	table reg.VecVirtual
	held  map[int]reg.VecVirtual // nibbles still to be used, by offset
}

func (f intFormat) newUnpack512(p intPointers) unpack512 {
	u := unpack512{f: f, p: p, held: map[int]reg.VecVirtual{}}
	for _, d := range f.fields(0) {
		var mask reg.VecVirtual
		if d.mask != ^uint32(0) {
			mask = ZMM()
			m := GP32()
			MOVL(U32(d.mask), m)
			VPBROADCASTD(m, mask)
		}
		u.masks = append(u.masks, mask)
	}
	if f.table != nil {
		u.table = ZMM()
		VBROADCASTI32X4(f.tableData(0), u.table)
	}
	return u
}

// weights returns the four k of group g of the 16 outputs that lie off bytes into each group: in order, those of both nibbles of a byte
// after each other.
func (u unpack512) weights(g, off int) reg.VecVirtual {
	var w reg.VecVirtual
	for i, d := range u.f.fields(g) {
		m, mask := u.p.at(4, d.word+off), u.masks[i]
		v := ZMM()
		switch {
		case mask == nil:
			VMOVDQU32(m, v)
			return v
		case i == 0 && u.f.Planes[0] == 4: // loaded once for two groups
			r, second := u.held[m.Disp]
			if second {
				VPSRLD(U8(4), r, v)
				VPANDD(mask, v, v)
				delete(u.held, m.Disp)
			} else {
				r = ZMM()
				VMOVDQU32(m, r)
				VPANDD(mask, r, v)
				u.held[m.Disp] = r
			}
		case d.right == 0 && i == 0:
			VPANDD(m, mask, v)
		case d.right == 0:
			VPTERNLOGD(U8(0xf8), m, mask, w) // w | mask & m
			continue
		default:
			if d.right > 0 {
				VPSRLD(U8(d.right), m, v)
			} else {
				VPSLLD(U8(-d.right), m, v)
			}
			if i > 0 {
				VPTERNLOGD(U8(0xf8), mask, v, w)
				continue
			}
			VPANDD(mask, v, v)
		}
		w = v
	}
	if u.table != nil {
		VPSHUFB(w, u.table, w)
	}
	return w
}

// clear sets v to zero. With v as its own source avo would take v for alive all around the loop.
func (u unpack512) clear(v reg.VecVirtual) { VPXORD(u.masks[0], u.masks[0], v) }

// avx512 sums a block with VPDPBUSD: rows × 2 vectors of 16 outputs. Stored weights are unsigned; those without a minimum start their sums at
// minus zero times the sum of the activations.
func (f intFormat) avx512(rows int) {
	if f.Split() {
		f.avx512Split(rows)
		return
	}
	p := f.pointers(rows)
	u := f.newUnpack512(p)
	sum := zeros512(rows)
	f.loop(p, rows, func() {
		acc := vectors(rows, 2, ZMM)
		for t, v := range acc {
			switch f.zero {
			case 0:
				u.clear(v[0])
				u.clear(v[1])
			case 128:
				VPBROADCASTD(p.n.at(t, 0), v[0])
				VMOVDQA32(v[0], v[1])
			default:
				VPSRAD_BCST(U8(f.shift()), p.n.at(t, 0), v[0])
				VMOVDQA32(v[0], v[1])
			}
		}
		prefetch(at(p.w, 0), 64, f.Bytes(), rows >= 5 || rows >= 2 && f.Planes[0] < 8 || f.stalls())
		for g := range 8 {
			w0, w1 := u.weights(g, 0), u.weights(g, 64)
			for t, v := range acc {
				x := ZMM()
				VPBROADCASTD(p.q.at(t, 4*g), x)
				vpdpbusd(x, w0, v[0])
				vpdpbusd(x, w1, v[1])
			}
		}
		for h := range 2 {
			d, m := f.scales(p, 0, 16*h, ZMM), f.scales(p, 1, 16*h, ZMM)
			for t := range rows {
				a := acc[t][h]
				VCVTDQ2PS(a, a)
				VMULPS(d, a, a)
				VFMADD231PS_BCST(p.s.at(t, 0), a, sum[t][h])
				if f.Min {
					VFMADD231PS_BCST(p.s.at(t, 4), m, sum[t][h])
				}
			}
		}
	})
	store512(sum)
}

// avx512Split is avx512 where the halves of a block have scales of their own: for each 16 outputs a sum for each half. What is made of them is
// below 2^24 in size, so single floats hold it exactly.
func (f intFormat) avx512Split(rows int) {
	p := f.pointers(rows)
	u := f.newUnpack512(p)
	sum := zeros512(rows)
	f.loop(p, rows, func() {
		prefetch(at(p.w, 0), 64, f.Bytes(), rows >= 2 || f.stalls())
		for h := range 2 {
			acc := vectors(rows, 2, ZMM)
			for t, v := range acc {
				if f.zero == 0 {
					u.clear(v[0])
					u.clear(v[1])
					continue
				}
				n := ZMM()
				VPBROADCASTD(p.n.at(t, 4), n)
				VPMADDWD(constant(uint32(uint16(-f.zero))), n, v[0])
				VPMADDWD(constant(uint32(-f.zero)<<16), n, v[1])
			}
			for g := range 8 {
				w := u.weights(g, 64*h)
				for t, v := range acc {
					vpdpbusd(p.q.at(t, 4*g), w, v[g/4])
				}
			}
			s1, _ := f.splitScales(p, 16*h, ZMM)
			s0 := ZMM()
			VPSLLD(U8(16), s1, s0)
			VPSRAD(U8(16), s0, s0)
			VPSRAD(U8(16), s1, s1)
			VCVTDQ2PS(s0, s0)
			VCVTDQ2PS(s1, s1)
			d := f.scales(p, 0, 16*h, ZMM)
			for t, v := range acc {
				VCVTDQ2PS(v[0], v[0])
				VCVTDQ2PS(v[1], v[1])
				VMULPS(s0, v[0], v[0])
				VFMADD231PS(v[1], s1, v[0])
				VMULPS(d, v[0], v[0])
				VFMADD231PS_BCST(p.s.at(t, 0), v[0], sum[t][h])
			}
			if f.Min {
				_, m := f.splitScales(p, 16*h, ZMM)
				d := f.scales(p, 1, 16*h, ZMM)
				for t := range rows {
					n := ZMM()
					VPBROADCASTD(p.n.at(t, 4), n)
					VPMADDWD(m, n, n)
					VCVTDQ2PS(n, n)
					VMULPS(d, n, n)
					VFMADD231PS_BCST(p.s.at(t, 0), n, sum[t][h])
				}
			}
		}
	})
	store512(sum)
}

func zeros512(rows int) [][]reg.VecVirtual {
	sum := vectors(rows, 2, ZMM)
	for _, v := range sum {
		VPXORD(v[0], v[0], v[0])
		VPXORD(v[1], v[1], v[1])
	}
	return sum
}

func store512(sum [][]reg.VecVirtual) {
	y, stride := load("y"), load("stride")
	for t, v := range sum {
		VMOVUPS(v[0], at(y, 0))
		VMOVUPS(v[1], at(y, 64))
		if t < len(sum)-1 {
			ADDQ(stride, y)
		}
	}
}
