package a64

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The words are those of GNU as 2.40 (-march=armv8.2-a+dotprod) for the text in the middle.
var encodings = []struct {
	got  Inst
	text string
	word uint32
}{
	{FADD(31, 6, 12), "fadd v31.4s, v6.4s, v12.4s", 0x4e2cd4df},
	{FSUB(5, 22, 31), "fsub v5.4s, v22.4s, v31.4s", 0x4ebfd6c5},
	{FMUL(31, 6, 12), "fmul v31.4s, v6.4s, v12.4s", 0x6e2cdcdf},
	{FDIV(5, 22, 31), "fdiv v5.4s, v22.4s, v31.4s", 0x6e3ffec5},
	{FMAX(31, 6, 12), "fmax v31.4s, v6.4s, v12.4s", 0x4e2cf4df},
	{FMIN(5, 22, 31), "fmin v5.4s, v22.4s, v31.4s", 0x4ebff6c5},
	{FMLA(31, 6, 12), "fmla v31.4s, v6.4s, v12.4s", 0x4e2cccdf},
	{FCMEQ(5, 22, 31), "fcmeq v5.4s, v22.4s, v31.4s", 0x4e3fe6c5},
	{FCMGE(31, 6, 12), "fcmge v31.4s, v6.4s, v12.4s", 0x6e2ce4df},
	{FCMGT(5, 22, 31), "fcmgt v5.4s, v22.4s, v31.4s", 0x6ebfe6c5},
	{ADD(31, 6, 12), "add v31.4s, v6.4s, v12.4s", 0x4eac84df},
	{CMGT(5, 22, 31), "cmgt v5.4s, v22.4s, v31.4s", 0x4ebf36c5},
	{CMTST(5, 22, 31), "cmtst v5.4s, v22.4s, v31.4s", 0x4ebf8ec5},
	{AND(16, 31, 9), "and v16.16b, v31.16b, v9.16b", 0x4e291ff0},
	{ORR(7, 24, 1), "orr v7.16b, v24.16b, v1.16b", 0x4ea11f07},
	{EOR(16, 31, 9), "eor v16.16b, v31.16b, v9.16b", 0x6e291ff0},
	{BSL(7, 24, 1), "bsl v7.16b, v24.16b, v1.16b", 0x6e611f07},
	{BIT(16, 31, 9), "bit v16.16b, v31.16b, v9.16b", 0x6ea91ff0},
	{FABS(21, 10), "fabs v21.4s, v10.4s", 0x4ea0f955},
	{FRINTN(10, 21), "frintn v10.4s, v21.4s", 0x4e218aaa},
	{FCVTNS(21, 10), "fcvtns v21.4s, v10.4s", 0x4e21a955},
	{SCVTF(10, 21), "scvtf v10.4s, v21.4s", 0x4e21daaa},
	{FCVTL(21, 10), "fcvtl v21.4s, v10.4h", 0x0e217955},
	{FCVTL2(10, 21), "fcvtl2 v10.4s, v21.8h", 0x4e217aaa},
	{FCVTN(21, 10), "fcvtn v21.4h, v10.4s", 0x0e216955},
	{FCVTN2(10, 21), "fcvtn2 v10.8h, v21.4s", 0x4e216aaa},
	{NEG(21, 10), "neg v21.4s, v10.4s", 0x6ea0b955},
	{REV64(10, 21), "rev64 v10.4s, v21.4s", 0x4ea00aaa},
	{SQXTN4H(21, 10), "sqxtn v21.4h, v10.4s", 0x0e614955},
	{SQXTN8H(10, 21), "sqxtn2 v10.8h, v21.4s", 0x4e614aaa},
	{SQXTN8B(21, 10), "sqxtn v21.8b, v10.8h", 0x0e214955},
	{SQXTN16B(10, 21), "sqxtn2 v10.16b, v21.8h", 0x4e214aaa},
	{FADDS(1, 30, 13), "fadd s1, s30, s13", 0x1e2d2bc1},
	{FMULS(1, 30, 13), "fmul s1, s30, s13", 0x1e2d0bc1},
	{FDIVS(1, 30, 13), "fdiv s1, s30, s13", 0x1e2d1bc1},
	{FMAXS(1, 30, 13), "fmax s1, s30, s13", 0x1e2d4bc1},
	{FSQRTS(31, 2), "fsqrt s31, s2", 0x1e21c05f},
	{SCVTFS(4, 29), "scvtf s4, s29", 0x5e21dba4},
	{FADDP(8, 23), "faddp s8, v23.2s", 0x7e30dae8},
	{FMAXV(23, 8), "fmaxv s23, v8.4s", 0x6e30f917},
	{UMAXV(0, 31), "umaxv s0, v31.4s", 0x6eb0abe0},
	{ADDV(31, 0), "addv s31, v0.4s", 0x4eb1b81f},
	{FMULE(1, 2, 3, 0), "fmul v1.4s, v2.4s, v3.s[0]", 0x4f839041},
	{FMLAE(30, 29, 31, 0), "fmla v30.4s, v29.4s, v31.s[0]", 0x4f9f13be},
	{SDOTE(12, 20, 27, 0), "sdot v12.4s, v20.16b, v27.4b[0]", 0x4f9be28c},
	{DUP(9, 19, 0), "dup v9.4s, v19.s[0]", 0x4e040669},
	{FMULE(1, 2, 15, 1), "fmul v1.4s, v2.4s, v15.s[1]", 0x4faf9041},
	{FMLAE(30, 29, 16, 1), "fmla v30.4s, v29.4s, v16.s[1]", 0x4fb013be},
	{SDOTE(12, 20, 24, 1), "sdot v12.4s, v20.16b, v24.4b[1]", 0x4fb8e28c},
	{DUP(9, 19, 1), "dup v9.4s, v19.s[1]", 0x4e0c0669},
	{FMULE(1, 2, 16, 2), "fmul v1.4s, v2.4s, v16.s[2]", 0x4f909841},
	{FMLAE(30, 29, 15, 2), "fmla v30.4s, v29.4s, v15.s[2]", 0x4f8f1bbe},
	{SDOTE(12, 20, 7, 2), "sdot v12.4s, v20.16b, v7.4b[2]", 0x4f87ea8c},
	{DUP(9, 19, 2), "dup v9.4s, v19.s[2]", 0x4e140669},
	{FMULE(1, 2, 31, 3), "fmul v1.4s, v2.4s, v31.s[3]", 0x4fbf9841},
	{FMLAE(30, 29, 0, 3), "fmla v30.4s, v29.4s, v0.s[3]", 0x4fa01bbe},
	{SDOTE(12, 20, 31, 3), "sdot v12.4s, v20.16b, v31.4b[3]", 0x4fbfea8c},
	{DUP(9, 19, 3), "dup v9.4s, v19.s[3]", 0x4e1c0669},
	{MOV(31, 5), "mov v31.16b, v5.16b", 0x4ea51cbf},
	{ZERO(28), "movi v28.4s, #0x0", 0x4f00041c},
	{MOVI16B(3, 0xf), "movi v3.16b, #0xf", 0x4f00e5e3},
	{MOVI16B(3, 0x80), "movi v3.16b, #0x80", 0x4f04e403},
	{MOVI16B(3, 0xff), "movi v3.16b, #0xff", 0x4f07e7e3},
	{EXT(3, 14, 25, 0), "ext v3.16b, v14.16b, v25.16b, #0", 0x6e1901c3},
	{EXT(3, 14, 25, 8), "ext v3.16b, v14.16b, v25.16b, #8", 0x6e1941c3},
	{EXT(3, 14, 25, 15), "ext v3.16b, v14.16b, v25.16b, #15", 0x6e1979c3},
	{SHL(6, 26, 0), "shl v6.4s, v26.4s, #0", 0x4f205746},
	{SHL(6, 26, 7), "shl v6.4s, v26.4s, #7", 0x4f275746},
	{SHL(6, 26, 31), "shl v6.4s, v26.4s, #31", 0x4f3f5746},
	{SHLL(2, 11), "shll v2.4s, v11.4h, #16", 0x2e613962},
	{SHLL2(11, 2), "shll2 v11.4s, v2.8h, #16", 0x6e61384b},
	{USHR16B(6, 26, 1), "ushr v6.16b, v26.16b, #1", 0x6f0f0746},
	{USHR16B(6, 26, 4), "ushr v6.16b, v26.16b, #4", 0x6f0c0746},
	{USHR16B(6, 26, 8), "ushr v6.16b, v26.16b, #8", 0x6f080746},
	{LDRQ(31, 0, 0), "ldr q31, [x0]", 0x3dc0001f},
	{LDRQ(0, 30, 65520), "ldr q0, [x30, #65520]", 0x3dffffc0},
	{STRQ(17, 3, 16), "str q17, [x3, #16]", 0x3d800471},
	{LDRD(9, 26, 32760), "ldr d9, [x26, #32760]", 0xfd7fff49},
	{LDRD(9, 26, 8), "ldr d9, [x26, #8]", 0xfd400749},
	{LDRS(5, 6, 16380), "ldr s5, [x6, #16380]", 0xbd7ffcc5},
	{STRS(6, 5, 4), "str s6, [x5, #4]", 0xbd0004a6},
	{LDPQ(0, 31, 7, 1008), "ldp q0, q31, [x7, #1008]", 0xad5ffce0},
	{LDPQ(31, 0, 8, -1024), "ldp q31, q0, [x8, #-1024]", 0xad60011f},
	{STPQ(4, 5, 9, 0), "stp q4, q5, [x9]", 0xad001524},
	{STPQ(4, 5, 9, -16), "stp q4, q5, [x9, #-16]", 0xad3f9524},
	{LD1R(22, 14), "ld1r {v22.4s}, [x14]", 0x4d40c9d6},
	{ST1H(0, 0, 4, 25), "st1 {v0.h}[0], [x4], x25", 0x0d994080},
	{ST1H(31, 1, 4, 25), "st1 {v31.h}[1], [x4], x25", 0x0d99489f},
	{ST1H(0, 2, 4, 25), "st1 {v0.h}[2], [x4], x25", 0x0d995080},
	{ST1H(31, 3, 4, 25), "st1 {v31.h}[3], [x4], x25", 0x0d99589f},
	{ST1H(0, 4, 4, 5), "st1 {v0.h}[4], [x4], x5", 0x4d854080},
	{ST1H(31, 5, 4, 5), "st1 {v31.h}[5], [x4], x5", 0x4d85489f},
	{ST1H(0, 6, 4, 5), "st1 {v0.h}[6], [x4], x5", 0x4d855080},
	{ST1H(31, 7, 4, 5), "st1 {v31.h}[7], [x4], x5", 0x4d85589f},
	{FADD2D(4, 27, 30), "fadd v4.2d, v27.2d, v30.2d", 0x4e7ed764},
	{FCVTLD(26, 1), "fcvtl v26.2d, v1.2s", 0x0e61783a},
	{FCVTL2D(1, 26), "fcvtl2 v1.2d, v26.4s", 0x4e617b41},
	{FADDPD(31, 3), "faddp d31, v3.2d", 0x7e70d87f},
	{TBL(5, 21, 31), "tbl v5.16b, {v21.16b}, v31.16b", 0x4e1f02a5},
	{SSHR(6, 26, 1), "sshr v6.4s, v26.4s, #1", 0x4f3f0746},
	{SSHR(6, 26, 4), "sshr v6.4s, v26.4s, #4", 0x4f3c0746},
	{SSHR(6, 26, 32), "sshr v6.4s, v26.4s, #32", 0x4f200746},
	{ADDP(31, 6, 12), "addp v31.4s, v6.4s, v12.4s", 0x4eacbcdf},
	{MUL(5, 22, 31), "mul v5.4s, v22.4s, v31.4s", 0x4ebf9ec5},
	{MLA(31, 6, 12), "mla v31.4s, v6.4s, v12.4s", 0x4eac94df},
	{SMULL(5, 22, 31), "smull v5.4s, v22.4h, v31.4h", 0x0e7fc2c5},
	{SMULL2(31, 6, 12), "smull2 v31.4s, v6.8h, v12.8h", 0x4e6cc0df},
	{SUB16B(5, 22, 31), "sub v5.16b, v22.16b, v31.16b", 0x6e3f86c5},
	{SXTL8H(21, 10), "sxtl v21.8h, v10.8b", 0x0f08a555},
	{SXTL28H(10, 21), "sxtl2 v10.8h, v21.16b", 0x4f08a6aa},
	{SXTL4S(21, 10), "sxtl v21.4s, v10.4h", 0x0f10a555},
	{SXTL24S(10, 21), "sxtl2 v10.4s, v21.8h", 0x4f10a6aa},
	{UXTL8H(21, 10), "uxtl v21.8h, v10.8b", 0x2f08a555},
	{UXTL28H(10, 21), "uxtl2 v10.8h, v21.16b", 0x6f08a6aa},
	{UXTL4S(10, 21), "uxtl v10.4s, v21.4h", 0x2f10a6aa},
	{SHL16B(6, 26, 0), "shl v6.16b, v26.16b, #0", 0x4f085746},
	{SHL16B(6, 26, 3), "shl v6.16b, v26.16b, #3", 0x4f0b5746},
	{SHL16B(26, 6, 7), "shl v26.16b, v6.16b, #7", 0x4f0f54da},
	{SLI16B(6, 26, 0), "sli v6.16b, v26.16b, #0", 0x6f085746},
	{SLI16B(26, 6, 5), "sli v26.16b, v6.16b, #5", 0x6f0d54da},
}

func TestEncoding(t *testing.T) {
	for _, c := range encodings {
		if c.got.Text != c.text {
			t.Errorf("text %q, want %q", c.got.Text, c.text)
		}
		if c.got.Word != c.word {
			t.Errorf("%s: %08x, want %08x", c.text, c.got.Word, c.word)
		}
	}
}

// What an instruction cannot hold is refused, not cut off.
func TestRefuses(t *testing.T) {
	for name, f := range map[string]func(){
		"vector register": func() { FADD(32, 0, 0) },
		"element":         func() { FMLAE(0, 0, 0, 4) },
		"base":            func() { LDRQ(0, 31, 0) },
		"offset":          func() { LDRQ(0, 0, 8) },
		"far":             func() { LDRQ(0, 0, 65536) },
		"negative":        func() { STRS(0, 0, -4) },
		"far pair":        func() { LDPQ(0, 1, 0, 1024) },
		"odd pair":        func() { STPQ(0, 1, 0, 8) },
		"same twice":      func() { LDPQ(1, 1, 0, 0) },
		"shift":           func() { SHL(0, 0, 32) },
		"no shift":        func() { USHR16B(0, 0, 0) },
		"lane":            func() { ST1H(0, 8, 0, 1) },
		"parameter":       func() { newFunc().Load("z") },
		"wrong type":      func() { newFunc().LoadS("x", 0) },
		"registers": func() {
			for f := newFunc(); ; {
				if r := f.R(); r > 26 || r == 18 {
					return
				}
			}
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was accepted", name)
				}
			}()
			f()
		}()
	}
}

func newFunc() *Func {
	return NewFile("cmd", "p", "arm64").Func("f", "", "x *float32, y float32", "")
}

func TestFile(t *testing.T) {
	file := NewFile("make it", "p", "arm64 && !purego")
	f := file.Func("f", "does this.", "x *float32, y float32, n int, z int32", "float32")
	x := f.Load("x")
	f.LoadS("y", 3)
	f.Label("loop")
	f.Emit(FADD(1, 2, 3))
	f.Loop(x, 4, "loop")
	f.ReturnS(3)
	dir := t.TempDir()
	asm, stubs := filepath.Join(dir, "a.s"), filepath.Join(dir, "a.go")
	if err := file.Write(asm, stubs); err != nil {
		t.Fatal(err)
	}
	const head = "// Code generated by command: make it. DO NOT EDIT.\n\n//go:build arm64 && !purego\n\n"
	for name, want := range map[string]string{
		asm: head + "#include \"textflag.h\"\n\n// func f(x *float32, y float32, n int, z int32) float32\nTEXT ·f(SB), NOSPLIT, $0-36\n" +
			"\tMOVD x+0(FP), R0\n\tFMOVS y+8(FP), F3\nloop:\n\tWORD $0x4e23d441 // fadd v1.4s, v2.4s, v3.4s\n\tSUBS $4, R0\n\tBNE loop\n" +
			"\tFMOVS F3, ret+32(FP)\n\tRET\n",
		stubs: head + "package p\n\n// f does this.\n//\n//go:noescape\nfunc f(x *float32, y float32, n int, z int32) float32\n",
	} {
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, []byte(want)) {
			t.Errorf("%s:\n%s\nwant:\n%s", filepath.Base(name), got, strings.TrimSpace(want))
		}
	}
}
