// Command gemm writes the assembly of package kvasir/internal/kernel/gemm. That package's comment has the panel
// layouts, docs/numerics.md has the order of operations.
//
// Each kernel multiplies one panel (32 outputs) with a few rows of activations. A vector lane is an output, and each row's
// operations are the same whatever the number of rows, so the bits of a row do not depend on its neighbours.
//
// The one argument besides avo's flags says which kernels: avx512, avx2 or vnni.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"

	"kvasir/internal/kernel/_asm/panel"
)

func main() {
	ConstraintExpr("amd64,!purego")
	set := os.Args[len(os.Args)-1]
	for _, f := range intFormats() {
		switch {
		case set == "avx512":
			kernel(f.Name+"AVX512", intSignature, panel.Rows(rowsAVX512, f.Rare), f.avx512)
		case set == "avx2":
			kernel(f.Name+"AVX2", intSignature, panel.Rows(f.rowsAVX2(), f.Rare), f.avx2)
		case set == "vnni" && !f.Split():
			kernel(f.Name+"VNNI", intSignature, panel.Rows(rowsVNNI, true), f.vnni)
		}
	}
	for _, f := range []floatFormat{f16, bf16, f32} {
		switch set {
		case "avx512":
			kernel(f.name+"AVX512", floatSignature, panel.Rows(rowsAVX512, true), f.avx512)
		case "avx2":
			kernel(f.name+"AVX2", floatSignature, panel.Rows(rowsAVX2, true), f.avx2)
		}
	}
	Generate()
	if err := tabs(flag.Lookup("out").Value.String()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// tabs sets a tab between instruction and operands, as Go's own assembly has it. avo fills up with spaces: a sixth of these files.
func tabs(name string) error {
	asm, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(name, regexp.MustCompile(`(?m)^(\t[A-Z0-9.]+) +`).ReplaceAll(asm, []byte("$1\t")), 0o666)
}

// The largest number of rows a call takes, for AVX2 that of the float formats; mul_amd64.go has the same numbers.
const (
	rowsAVX512 = 6
	rowsAVX2   = 4
)

// stride is the distance of the rows of y in bytes; the rows of the activations follow each other.
const (
	intSignature   = "func(rows int, w *byte, blocks int, q *int8, s *float32, n *int32, y *float32, stride int)"
	floatSignature = "func(rows int, w *byte, k int, x *float32, y *float32, stride int)"
)

// kernel writes one function with a body for each of some numbers of rows, the first being 1.
func kernel(name, signature string, counts []int, body func(rows int)) {
	TEXT(name, NOSPLIT, signature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s multiplies one panel with a number of rows out of %d.", name, counts))
	rows := Load(Param("rows"), GP64())
	for _, t := range slices.Backward(counts[1:]) {
		CMPQ(rows, U8(t))
		JEQ(LabelRef(fmt.Sprintf("rows%d", t)))
	}
	for _, t := range counts {
		Label(fmt.Sprintf("rows%d", t))
		body(t)
		VZEROUPPER()
		RET()
	}
}

// rowPointer addresses a few rows that lie stride bytes apart with one base register for three rows.
type rowPointer struct {
	bases  []reg.Register
	stride reg.Register
}

// newRowPointer takes over first. stride is shared.
func newRowPointer(first reg.GPVirtual, stride reg.Register, rows int) rowPointer {
	p := rowPointer{[]reg.Register{first}, stride}
	for t := 3; t < rows; t += 3 {
		b := GP64()
		LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, b)
		ADDQ(p.bases[len(p.bases)-1], b)
		p.bases = append(p.bases, b)
	}
	return p
}

// at is the memory operand disp bytes into row t.
func (p rowPointer) at(t, disp int) Mem {
	m := Mem{Base: p.bases[t/3], Disp: disp}
	if t%3 > 0 {
		m.Index, m.Scale = p.stride, uint8(t%3)
	}
	return m
}

// advance moves all rows.
func (p rowPointer) advance(bytes int) {
	for _, b := range p.bases {
		advance(b, bytes)
	}
}

// advance adds to a pointer. Constants are unsigned to avo, so 128 must not become a signed byte.
func advance(r reg.Register, bytes int) {
	switch {
	case bytes < 0:
		SUBQ(U32(-bytes), r)
	case bytes < 128:
		ADDQ(U8(bytes), r)
	default:
		ADDQ(U32(bytes), r)
	}
}

// prefetch asks for the weights ahead of a block of so many bytes that starts at w, every step bytes.
//
// dense brings every line that lies 10 KiB ahead, mostly in the next panel, into the second-level cache. It pays where arithmetic takes longer
// than memory needs: up to 1.8 times the speed for P4 with 4 rows from DRAM, 3 times for P8 with AVX2. With fewer rows the hardware's own
// prefetch has more requests under way, if it is left alone. It stops where a page of 4 KiB ends, though: one line 6 KiB ahead of each block
// looks up the next page's address early (8 to 15 % for one row from DRAM). A prefetch beyond the data does nothing.
func prefetch(w Mem, step, bytes int, dense bool) {
	ahead := func(n int) {
		m := w
		m.Disp += n
		PREFETCHT1(m)
	}
	if !dense {
		ahead(6144)
		return
	}
	for i := 0; i < bytes; i += step {
		ahead(10240 + i)
	}
}

func load(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

// scaled returns r << shift in a register of its own.
func scaled(r reg.GPVirtual, shift int) reg.GPVirtual {
	c := GP64()
	MOVQ(r, c)
	SHLQ(U8(shift), c)
	return c
}

func at(b reg.Register, disp int) Mem { return Mem{Base: b, Disp: disp} }

// vectors returns a rows × cols table of new registers.
func vectors(rows, cols int, alloc func() reg.VecVirtual) [][]reg.VecVirtual {
	v := make([][]reg.VecVirtual, rows)
	for t := range v {
		v[t] = make([]reg.VecVirtual, cols)
		for h := range v[t] {
			v[t][h] = alloc()
		}
	}
	return v
}
