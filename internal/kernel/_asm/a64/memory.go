package a64

import "fmt"

func address(b R, off int) string {
	if off == 0 {
		return fmt.Sprintf("[x%d]", b)
	}
	return fmt.Sprintf("[x%d, #%d]", b, off)
}

func base(b R) uint32 {
	check(b < 31, "general register %d", b)
	return uint32(b) << 5
}

// access makes a load or store at an unsigned multiple of the operand's size.
func access(op uint32, name, prefix string, size int) func(v V, b R, off int) Inst {
	return func(v V, b R, off int) Inst {
		check(off >= 0 && off%size == 0 && off/size < 1<<12, "offset %d of %s", off, name)
		return Inst{op | uint32(off/size)<<10 | base(b) | word(v, 0), fmt.Sprintf("%s %s%d, %s", name, prefix, v, address(b, off))}
	}
}

// pair makes a load or store of two registers.
func pair(op uint32, name string) func(v0, v1 V, b R, off int) Inst {
	return func(v0, v1 V, b R, off int) Inst {
		check(PairReaches(off), "offset %d of %s", off, name)
		check(v0 != v1, "%s of one register twice", name)
		return Inst{op | uint32(off/16&127)<<15 | word(v1, 10) | base(b) | word(v0, 0), fmt.Sprintf("%s q%d, q%d, %s", name, v0, v1, address(b, off))}
	}
}

// PairReaches reports whether LDPQ and STPQ can have this offset.
func PairReaches(off int) bool { return off%16 == 0 && off >= -1024 && off <= 1008 }

// Loads and stores of 16, 8 and 4 bytes at b + off. A load clears the rest of the register.
var (
	LDRQ = access(0x3dc00000, "ldr", "q", 16)
	STRQ = access(0x3d800000, "str", "q", 16)
	LDRD = access(0xfd400000, "ldr", "d", 8)
	LDRS = access(0xbd400000, "ldr", "s", 4)
	STRS = access(0xbd000000, "str", "s", 4)
	LDPQ = pair(0xad400000, "ldp")
	STPQ = pair(0xad000000, "stp")
)

// LD1R loads one word into all lanes.
func LD1R(v V, b R) Inst {
	return Inst{0x4d40c800 | base(b) | word(v, 0), fmt.Sprintf("ld1r {v%d.4s}, [x%d]", v, b)}
}

// ST1H stores the 16-bit lane i and adds inc to b.
func ST1H(v V, i int, b, inc R) Inst {
	check(i >= 0 && i < 8, "element %d", i)
	check(inc < 31, "general register %d", inc)
	return Inst{0x0d804000 | uint32(i>>2)<<30 | uint32(inc)<<16 | uint32(i>>1&1)<<12 | uint32(i&1)<<11 | base(b) | word(v, 0),
		fmt.Sprintf("st1 {v%d.h}[%d], [x%d], x%d", v, i, b, inc)}
}
