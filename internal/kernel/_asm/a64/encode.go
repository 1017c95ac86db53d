// Package a64 writes Go assembly for arm64 with the vector instructions that Go's assembler does not know: these are encoded here
// (Arm Architecture Reference Manual for A-profile, chapter C7) and become WORD directives whose comment is the instruction in Arm's
// syntax. Integer instructions and branches stay in Go's syntax, so that go vet can check how a function uses its arguments.
package a64

import "fmt"

// A V is a vector register, 0 to 31.
type V uint8

// An R is a general register, 0 to 30.
type R uint8

// An Inst is one instruction.
type Inst struct {
	Word uint32
	Text string // in the syntax of Arm's manual, as objdump prints it
}

// three makes an instruction of one destination and two sources.
func three(op uint32, name string, suffix string) func(d, n, m V) Inst {
	return func(d, n, m V) Inst {
		return Inst{op | word(m, 16) | word(n, 5) | word(d, 0), fmt.Sprintf("%s v%d.%s, v%d.%s, v%d.%s", name, d, suffix, n, suffix, m, suffix)}
	}
}

// widening is three with a destination of wider lanes.
func widening(op uint32, name, to, from string) func(d, n, m V) Inst {
	return func(d, n, m V) Inst {
		return Inst{op | word(m, 16) | word(n, 5) | word(d, 0), fmt.Sprintf("%s v%d.%s, v%d.%s, v%d.%s", name, d, to, n, from, m, from)}
	}
}

// two makes an instruction of one destination and one source.
func two(op uint32, name, to, from string) func(d, n V) Inst {
	return func(d, n V) Inst {
		return Inst{op | word(n, 5) | word(d, 0), fmt.Sprintf("%s v%d.%s, v%d.%s", name, d, to, n, from)}
	}
}

// scalar makes an instruction on single floats of one destination and two sources.
func scalar(op uint32, name string) func(d, n, m V) Inst {
	return func(d, n, m V) Inst {
		return Inst{op | word(m, 16) | word(n, 5) | word(d, 0), fmt.Sprintf("%s s%d, s%d, s%d", name, d, n, m)}
	}
}

// across makes an instruction that reduces a vector, or works on its first lane.
func across(op uint32, name, from string) func(d, n V) Inst {
	return func(d, n V) Inst {
		return Inst{op | word(n, 5) | word(d, 0), fmt.Sprintf("%s s%d, %s", name, d, fmt.Sprintf(from, n))}
	}
}

// lane makes an instruction that takes one 32-bit element of its second source.
func lane(op uint32, name, suffix, element string) func(d, n, m V, i int) Inst {
	return func(d, n, m V, i int) Inst {
		check(i >= 0 && i < 4, "element %d", i)
		return Inst{op | uint32(i&1)<<21 | word(m, 16) | uint32(i>>1)<<11 | word(n, 5) | word(d, 0),
			fmt.Sprintf("%s v%d.%s, v%d.%s, v%d.%s[%d]", name, d, suffix[:2], n, suffix[2:], m, element, i)}
	}
}

func word(v V, shift int) uint32 {
	check(v < 32, "vector register %d", v)
	return uint32(v) << shift
}

func check(ok bool, format string, args ...any) {
	if !ok {
		panic("a64: " + fmt.Sprintf(format, args...))
	}
}

// Four single floats: d = n op m, or d += n*m rounded once for FMLA. FMAX gives NaN if one operand is NaN. The comparisons set all bits
// of a lane or none, none if an operand is NaN.
var (
	FADD  = three(0x4e20d400, "fadd", "4s")
	FSUB  = three(0x4ea0d400, "fsub", "4s")
	FMUL  = three(0x6e20dc00, "fmul", "4s")
	FDIV  = three(0x6e20fc00, "fdiv", "4s")
	FMAX  = three(0x4e20f400, "fmax", "4s")
	FMIN  = three(0x4ea0f400, "fmin", "4s")
	FMLA  = three(0x4e20cc00, "fmla", "4s")
	FCMEQ = three(0x4e20e400, "fcmeq", "4s")
	FCMGE = three(0x6e20e400, "fcmge", "4s")
	FCMGT = three(0x6ea0e400, "fcmgt", "4s")
)

// Two double floats. FCVTLD and FCVTL2D widen the lower and the upper two single floats.
var (
	FADD2D  = three(0x4e60d400, "fadd", "2d")
	FCVTLD  = two(0x0e617800, "fcvtl", "2d", "2s")
	FCVTL2D = two(0x4e617800, "fcvtl2", "2d", "4s")
)

// Four 32-bit integers. CMTST sets all bits of a lane if n and m have one in common, none if not. MLA adds the product to d. ADDP adds
// neighbours: d is the two pairs of n, then those of m. SMULL and SMULL2 multiply the lower and the upper four int16.
var (
	ADD    = three(0x4ea08400, "add", "4s")
	ADDP   = three(0x4ea0bc00, "addp", "4s")
	CMGT   = three(0x4ea03400, "cmgt", "4s")
	CMTST  = three(0x4ea08c00, "cmtst", "4s")
	MUL    = three(0x4ea09c00, "mul", "4s")
	MLA    = three(0x4ea09400, "mla", "4s")
	SMULL  = widening(0x0e60c000, "smull", "4s", "4h")
	SMULL2 = widening(0x4e60c000, "smull2", "4s", "8h")
)

// Sixteen bytes.
var SUB16B = three(0x6e208400, "sub", "16b")

// All bits. BSL takes n where d has ones and m where it has zeros; BIT inserts n where m has ones.
var (
	AND = three(0x4e201c00, "and", "16b")
	ORR = three(0x4ea01c00, "orr", "16b")
	EOR = three(0x6e201c00, "eor", "16b")
	BSL = three(0x6e601c00, "bsl", "16b")
	BIT = three(0x6ea01c00, "bit", "16b")
)

// Of one source. FRINTN and FCVTNS round to the nearest integer, ties to even; FCVTNS and SCVTF convert to and from int32. FCVTL and
// FCVTL2 widen the lower and the upper four halves; FCVTN and FCVTN2 round to halves and write the lower and the upper four.
// SHLL and SHLL2 widen 16-bit lanes and shift them to the upper half; SXTL and UXTL, SXTL2 and UXTL2 widen the lower and the upper half
// of a register of bytes (8H) or of 16-bit lanes (4S). SQXTN narrows and saturates. REV64 swaps the words of each pair.
var (
	FABS     = two(0x4ea0f800, "fabs", "4s", "4s")
	FRINTN   = two(0x4e218800, "frintn", "4s", "4s")
	FCVTNS   = two(0x4e21a800, "fcvtns", "4s", "4s")
	SCVTF    = two(0x4e21d800, "scvtf", "4s", "4s")
	FCVTL    = two(0x0e217800, "fcvtl", "4s", "4h")
	FCVTL2   = two(0x4e217800, "fcvtl2", "4s", "8h")
	FCVTN    = two(0x0e216800, "fcvtn", "4h", "4s")
	FCVTN2   = two(0x4e216800, "fcvtn2", "8h", "4s")
	NEG      = two(0x6ea0b800, "neg", "4s", "4s")
	REV64    = two(0x4ea00800, "rev64", "4s", "4s")
	SXTL8H   = two(0x0f08a400, "sxtl", "8h", "8b")
	SXTL28H  = two(0x4f08a400, "sxtl2", "8h", "16b")
	SXTL4S   = two(0x0f10a400, "sxtl", "4s", "4h")
	SXTL24S  = two(0x4f10a400, "sxtl2", "4s", "8h")
	UXTL8H   = two(0x2f08a400, "uxtl", "8h", "8b")
	UXTL28H  = two(0x6f08a400, "uxtl2", "8h", "16b")
	UXTL4S   = two(0x2f10a400, "uxtl", "4s", "4h")
	SQXTN4H  = two(0x0e614800, "sqxtn", "4h", "4s")
	SQXTN8H  = two(0x4e614800, "sqxtn2", "8h", "4s")
	SQXTN8B  = two(0x0e214800, "sqxtn", "8b", "8h")
	SQXTN16B = two(0x4e214800, "sqxtn2", "16b", "8h")
)

// Scalars. The rest of the destination's register becomes zero.
var (
	FADDS  = scalar(0x1e202800, "fadd")
	FMULS  = scalar(0x1e200800, "fmul")
	FDIVS  = scalar(0x1e201800, "fdiv")
	FMAXS  = scalar(0x1e204800, "fmax")
	FSQRTS = across(0x1e21c000, "fsqrt", "s%d")
	SCVTFS = across(0x5e21d800, "scvtf", "s%d")
	FADDP  = across(0x7e30d800, "faddp", "v%d.2s") // lane 0 + lane 1
	FMAXV  = across(0x6e30f800, "fmaxv", "v%d.4s")
	UMAXV  = across(0x6eb0a800, "umaxv", "v%d.4s")
	ADDV   = across(0x4eb1b800, "addv", "v%d.4s")
)

// With one element of m: FMULE d = n * m[i], FMLAE d += n * m[i] rounded once, SDOTE adds to each int32 of d the four products
// of its int8 in n and the four int8 of m[i].
var (
	FMULE = lane(0x4f809000, "fmul", "4s4s", "s")
	FMLAE = lane(0x4f801000, "fmla", "4s4s", "s")
	SDOTE = lane(0x4f80e000, "sdot", "4s16b", "4b")
)

// MOV copies a register.
func MOV(d, n V) Inst {
	return Inst{ORR(d, n, n).Word, fmt.Sprintf("mov v%d.16b, v%d.16b", d, n)}
}

// ZERO clears a register.
func ZERO(d V) Inst {
	return Inst{0x4f000400 | word(d, 0), fmt.Sprintf("movi v%d.4s, #0x0", d)}
}

// MOVI16B sets all bytes to imm.
func MOVI16B(d V, imm uint8) Inst {
	return Inst{0x4f00e400 | uint32(imm>>5)<<16 | uint32(imm&31)<<5 | word(d, 0), fmt.Sprintf("movi v%d.16b, #%#x", d, imm)}
}

// FADDPD adds the two doubles of n.
func FADDPD(d, n V) Inst {
	return Inst{0x7e70d800 | word(n, 5) | word(d, 0), fmt.Sprintf("faddp d%d, v%d.2d", d, n)}
}

// TBL takes the bytes of n whose numbers are in m.
func TBL(d, n, m V) Inst {
	return Inst{0x4e000000 | word(m, 16) | word(n, 5) | word(d, 0), fmt.Sprintf("tbl v%d.16b, {v%d.16b}, v%d.16b", d, n, m)}
}

// DUP copies lane i to all lanes.
func DUP(d, n V, i int) Inst {
	check(i >= 0 && i < 4, "element %d", i)
	return Inst{0x4e000400 | uint32(i<<3|4)<<16 | word(n, 5) | word(d, 0), fmt.Sprintf("dup v%d.4s, v%d.s[%d]", d, n, i)}
}

// EXT takes 16 bytes from byte i of n followed by m.
func EXT(d, n, m V, i int) Inst {
	check(i >= 0 && i < 16, "byte %d", i)
	return Inst{0x6e000000 | word(m, 16) | uint32(i)<<11 | word(n, 5) | word(d, 0), fmt.Sprintf("ext v%d.16b, v%d.16b, v%d.16b, #%d", d, n, m, i)}
}

// SHL shifts four words left.
func SHL(d, n V, by int) Inst {
	check(by >= 0 && by < 32, "shift by %d", by)
	return Inst{0x4f005400 | uint32(32+by)<<16 | word(n, 5) | word(d, 0), fmt.Sprintf("shl v%d.4s, v%d.4s, #%d", d, n, by)}
}

// SHL16B shifts sixteen bytes left.
func SHL16B(d, n V, by int) Inst {
	check(by >= 0 && by < 8, "shift by %d", by)
	return Inst{0x4f005400 | uint32(8+by)<<16 | word(n, 5) | word(d, 0), fmt.Sprintf("shl v%d.16b, v%d.16b, #%d", d, n, by)}
}

// SLI16B shifts sixteen bytes left and keeps the lower bits that d had.
func SLI16B(d, n V, by int) Inst {
	check(by >= 0 && by < 8, "shift by %d", by)
	return Inst{0x6f005400 | uint32(8+by)<<16 | word(n, 5) | word(d, 0), fmt.Sprintf("sli v%d.16b, v%d.16b, #%d", d, n, by)}
}

// SSHR shifts four words right and keeps their signs.
func SSHR(d, n V, by int) Inst {
	check(by >= 1 && by <= 32, "shift by %d", by)
	return Inst{0x4f000400 | uint32(64-by)<<16 | word(n, 5) | word(d, 0), fmt.Sprintf("sshr v%d.4s, v%d.4s, #%d", d, n, by)}
}

// SHLL widens the lower four 16-bit lanes into the upper half of words.
func SHLL(d, n V) Inst {
	return Inst{0x2e613800 | word(n, 5) | word(d, 0), fmt.Sprintf("shll v%d.4s, v%d.4h, #16", d, n)}
}

// SHLL2 widens the upper four.
func SHLL2(d, n V) Inst {
	return Inst{0x6e613800 | word(n, 5) | word(d, 0), fmt.Sprintf("shll2 v%d.4s, v%d.8h, #16", d, n)}
}

// USHR16B shifts sixteen bytes right.
func USHR16B(d, n V, by int) Inst {
	check(by >= 1 && by <= 8, "shift by %d", by)
	return Inst{0x6f000400 | uint32(16-by)<<16 | word(n, 5) | word(d, 0), fmt.Sprintf("ushr v%d.16b, v%d.16b, #%d", d, n, by)}
}
