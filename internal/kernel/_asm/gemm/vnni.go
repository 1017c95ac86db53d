package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/reg"
)

// rowsVNNI is the largest number of rows of the AVX-VNNI kernels; mul_amd64.go has the same number.
const rowsVNNI = 6

// vnni is avx2 on a CPU that has VPDPBUSD for 256 bits without AVX-512 (AVX-VNNI: Alder Lake and later, Zen 5).
func (f intFormat) vnni(rows int) {
	loop := fmt.Sprintf("loop%d", rows)
	cols := 2
	if rows == 1 {
		cols = 4
	}
	nibble := kept(constant(0x0f0f0f0f), f.nibbles && rows <= 4)
	p := f.pointers(rows)
	y := f.newSums256(rows)
	Label(loop)
	prefetch(p.w, f.bytes, rows >= 2)
	for first := 0; first < 4; first += cols {
		acc := vectors(rows, cols, YMM)
		for t, v := range acc {
			f.start256(p, t, v)
		}
		for k := 0; k < 32; k += 4 {
			w := make([]reg.VecVirtual, cols)
			for h := range w {
				w[h] = YMM()
				if !f.nibbles {
					VMOVDQU(at(p.w, f.weights+k/4*128+32*(first+h)), w[h])
					continue
				}
				VMOVDQU(at(p.w, f.weights+k/8*128+32*(first+h)), w[h])
				if k%8 == 4 {
					VPSRLD(U8(4), w[h], w[h])
				}
				VPAND(nibble, w[h], w[h])
			}
			for t, v := range acc {
				x := YMM()
				VPBROADCASTD(p.q.at(t, k), x)
				for h := range v {
					vexVpdpbusd(x, w[h], v[h])
				}
			}
		}
		f.scale256(p, acc, y, first)
	}
	p.next(f)
	DECQ(p.blocks)
	JNZ(LabelRef(loop))
	y.store()
}

// start256 sets the sums of row t to what they begin with.
func (f intFormat) start256(p intPointers, t int, acc []reg.VecVirtual) {
	if f.zero == 0 {
		for _, a := range acc {
			VPXOR(a, a, a)
		}
		return
	}
	VPBROADCASTD(p.n.at(t, 0), acc[0])
	if f.zero == 8 { // -128·Σq / 16
		VPSRAD(U8(4), acc[0], acc[0])
	}
	for _, a := range acc[1:] {
		VMOVDQA(acc[0], a)
	}
}

// vexVpdpbusd is vpdpbusd in its VEX encoding, which Go's assembler does not know.
func vexVpdpbusd(signed, unsigned, acc reg.VecVirtual) {
	Instruction(&ir.Instruction{Opcode: vexOpcode, Operands: []Op{signed, unsigned, acc},
		Inputs: []Op{signed, unsigned, acc}, Outputs: []Op{acc}, ISA: []string{"AVXVNNI"}})
}

const vexOpcode = "VEXVPDPBUSD"

func init() { pass.Compile = pass.Concat(pass.Compile, pass.Func(encodeVEX)) }

// encodeVEX replaces vexVpdpbusd by its bytes, once registers are known: VEX.256.66.0F38.W0 50 /r (Intel SDM, volume 2), with the sum in
// reg, the unsigned factor in vvvv and the signed one in r/m.
func encodeVEX(f *ir.File) error {
	for _, fn := range f.Functions() {
		var nodes []ir.Node
		for _, n := range fn.Nodes {
			i, ok := n.(*ir.Instruction)
			if !ok || i.Opcode != vexOpcode {
				nodes = append(nodes, n)
				continue
			}
			var r [3]uint32
			for j, o := range i.Operands {
				p, ok := o.(reg.Physical)
				if !ok || p.PhysicalIndex() > 15 {
					return fmt.Errorf("%s: %v has no VEX encoding", fn.Name, o.Asm())
				}
				r[j] = uint32(p.PhysicalIndex())
			}
			signed, unsigned, acc := r[0], r[1], r[2]
			rxb := (acc>>3^1)<<7 | 1<<6 | (signed>>3^1)<<5
			head := 0xc4 | (rxb|2)<<8 | ((unsigned^15)<<3|1<<2|1)<<16 | 0x50<<24
			names := fmt.Sprintf("VPDPBUSD %s, %s, %s", i.Operands[0].Asm(), i.Operands[1].Asm(), i.Operands[2].Asm())
			nodes = append(nodes, &ir.Comment{Lines: []string{names}},
				&ir.Instruction{Opcode: "LONG", Operands: []Op{U32(head)}},
				&ir.Instruction{Opcode: "BYTE", Operands: []Op{U8(0xc0 | (acc&7)<<3 | signed&7)}})
		}
		fn.Nodes = nodes
	}
	return nil
}
