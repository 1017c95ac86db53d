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

// vnni is avx2 on a CPU that has VPDPBUSD for 256 bits without AVX-512 (AVX-VNNI: Alder Lake and later, Zen 5). Formats whose halves have
// scales of their own gain nothing from it: VPMADDWD multiplies with these scales for nothing.
func (f intFormat) vnni(rows int) {
	f.body256(rows, func(p intPointers, acc [][]reg.VecVirtual, y sums256) {
		for t, v := range acc {
			f.start256(p, t, v)
		}
		for g := range 8 {
			w := make([]reg.VecVirtual, len(acc[0]))
			for h := range w {
				w[h] = f.unpack256(p, g, h, 0)
			}
			for t, v := range acc {
				x := YMM()
				VPBROADCASTD(p.q.at(t, 4*g), x)
				for h := range v {
					vexVpdpbusd(x, w[h], v[h])
				}
			}
		}
		f.scale256(p, acc, y)
	})
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
	if f.zero != 128 {
		VPSRAD(U8(f.shift()), acc[0], acc[0])
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

// vexBytes are the operand of LONG and the byte that follows.
type vexBytes struct {
	long, last uint32
	operands   []Op
}

func (v vexBytes) Asm() string {
	return fmt.Sprintf("$%#08x; BYTE $%#02x // VPDPBUSD %s, %s, %s", v.long, v.last, v.operands[0].Asm(), v.operands[1].Asm(), v.operands[2].Asm())
}

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
			nodes = append(nodes, &ir.Instruction{Opcode: "LONG", Operands: []Op{vexBytes{head, 0xc0 | (acc&7)<<3 | signed&7, i.Operands}}})
		}
		fn.Nodes = nodes
	}
	return nil
}
