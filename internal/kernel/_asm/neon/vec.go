package main

import . "kvasir/internal/kernel/_asm/a64"

func vec(file *File) {
	quantize(file)
	rmsNorm(file)
	add(file)
	siluMul(file)
	geluMul(file)
	addScaled(file)
	rope(file)
	maxOf(file)
	indexOf(file)
	storeK(file)
	storeV(file)
	mergeState(file)
	finishState(file)
	scan(file)
	weigh(file)
	collect(file)
	for rows := 1; rows <= attendRows; rows++ {
		attend(file, rows)
	}
}

// The rows of the Go variable table (constants_arm64.go), each one constant four times over.
const (
	cExp2Coeff = 0 // 6 rows
	cExp2Min   = 6
	cExp2Max   = 7
	cMasked    = 8
	c127       = 9
	cMinAmax   = 10
	cOne       = 11
	cNegLog2E  = 12
	cMaxHalf   = 13
	cMinHalf   = 14
	cMinusInf  = 15
	cBits      = 16 // 8 rows: 1<<0 to 1<<31
	cGelu      = 24 // 2 rows: GELU's factors of g and of g³
)

// table returns a register with the table's address.
func table(f *Func) R {
	r := f.R()
	f.Go("MOVD $·table(SB), R%d", r)
	return r
}

func constant(f *Func, v V, table R, row int) { f.Emit(LDRQ(v, table, 16*row)) }

// fold reduces the 32 values of eight registers to four in v[0] by the lane tree of docs/numerics.md.
func fold(f *Func, v []V, op func(d, n, m V) Inst) {
	for n := 4; n > 0; n /= 2 {
		for i := range n {
			f.Emit(op(v[i], v[i], v[i+n]))
		}
	}
}

// laneTree sums the 32 values of eight registers into lane 0 of v[0]. It needs a register more.
func laneTree(f *Func, v []V, t V) {
	fold(f, v, FADD)
	f.Emit(EXT(t, v[0], v[0], 8), FADD(v[0], v[0], t), FADDP(v[0], v[0]))
}

// An exp2 emits kernel.Exp2 with its constants in seven registers.
type exp2 struct {
	coeff []V
	min   V
}

func newExp2(f *Func, table R, first V) exp2 {
	e := exp2{coeff: seq(first, 6), min: first + 6}
	for i, c := range e.coeff {
		constant(f, c, table, cExp2Coeff+i)
	}
	constant(f, e.min, table, cExp2Min)
	return e
}

// apply replaces x by 2^x with four registers to work in. x is at most kernel.Exp2Max: callers clamp it where it might be more. Where
// x is too small the conversion to an integer saturates, and what comes of it is cleared.
func (e exp2) apply(f *Func, x V, t []V) {
	keep, n, y, z := t[0], t[1], t[2], t[3]
	f.Emit(FCMGE(keep, x, e.min), FRINTN(n, x), FSUB(x, x, n))
	f.Emit(MOV(y, e.coeff[1]), FMLA(y, e.coeff[0], x))
	for _, c := range e.coeff[2:] {
		f.Emit(MOV(z, c), FMLA(z, y, x))
		y, z = z, y
	}
	f.Emit(FCVTNS(n, n), SHL(n, n, 23), ADD(y, y, n), AND(x, y, keep))
}

func quantize(file *File) {
	f := file.Func("quantizeNEON", "", "x *float32, blocks int, q *int8, scales *float32, nsum *int32", "")
	x, blocks, q, scales, nsum := f.Load("x"), f.Load("blocks"), f.Load("q"), f.Load("scales"), f.Load("nsum")
	t := table(f)
	v, m := seq(0, 8), seq(8, 8)
	const tiny, most, d, ds, inv V = 16, 17, 18, 19, 20
	constant(f, tiny, t, cMinAmax)
	constant(f, most, t, c127)
	f.Label("block")
	load(f, v, x, 0)
	for i := range v {
		f.Emit(FABS(m[i], v[i]))
	}
	fold(f, m, FMAX)
	amax := m[0]
	f.Emit(FMAXV(amax, amax), FMAXS(amax, amax, tiny))
	f.Emit(FDIVS(d, amax, most), FDIVS(inv, most, amax))
	for i := range v {
		f.Emit(FMULE(v[i], v[i], inv, 0), FCVTNS(v[i], v[i]))
	}
	for i := 0; i < 8; i += 2 { // to int16
		f.Emit(SQXTN4H(m[i/2], v[i]), SQXTN8H(m[i/2], v[i+1]))
	}
	for i := 0; i < 4; i += 2 { // to int8
		f.Emit(SQXTN8B(m[4+i/2], m[i]), SQXTN16B(m[4+i/2], m[i+1]))
	}
	store(f, m[4:6], q, 0)
	for i := 0; i < 8; i += 4 { // the sums of 16
		f.Emit(ADD(v[i], v[i], v[i+1]), ADD(v[i+2], v[i+2], v[i+3]), ADD(v[i], v[i], v[i+2]))
	}
	half, pair, sum := v[0], v[1], v[2]
	f.Emit(ADDP(half, half, v[4]), ADDP(half, half, half), SQXTN4H(pair, half), ADDP(sum, half, half))
	f.Emit(SCVTFS(ds, sum), FMULS(ds, ds, d), STRS(d, scales, 0), STRS(ds, scales, 4))
	f.Emit(SHL(sum, sum, 7), NEG(sum, sum), STRS(sum, nsum, 0), STRS(pair, nsum, 4))
	f.Add(x, 128)
	f.Add(q, 32)
	f.Add(scales, 8)
	f.Add(nsum, 8)
	f.Loop(blocks, 1, "block")
	f.Go("RET")
}

// copyOf returns another register with r's value.
func copyOf(f *Func, r R) R {
	c := f.R()
	f.Go("MOVD R%d, R%d", r, c)
	return c
}

func rmsNorm(file *File) {
	f := file.Func("rmsNormNEON", "", "dst *float32, x *float32, w *float32, n int, eps float32", "")
	dst, x, w, n := f.Load("dst"), f.Load("x"), f.Load("w"), f.Load("n")
	t := table(f)
	acc, v := seq(0, 8), seq(8, 8)
	zero(f, acc...)
	from, left := copyOf(f, x), copyOf(f, n)
	f.Label("squares")
	load(f, v, from, 0)
	for i := range v {
		f.Emit(FMLA(acc[i], v[i], v[i]))
	}
	f.Add(from, 128)
	f.Loop(left, 32, "squares")
	const count, eps, one V = 16, 17, 18
	laneTree(f, acc, count)
	f.Go("SCVTFS R%d, F%d", n, count)
	f.LoadS("eps", eps)
	constant(f, one, t, cOne)
	r := acc[0]
	f.Emit(FDIVS(r, r, count), FADDS(r, r, eps), FSQRTS(r, r), FDIVS(r, one, r))
	v, ws := seq(8, 4), seq(12, 4)
	f.Label("scale")
	load(f, v, x, 0)
	load(f, ws, w, 0)
	for i := range v {
		f.Emit(FMULE(v[i], v[i], r, 0), FMUL(v[i], v[i], ws[i]))
	}
	store(f, v, dst, 0)
	for _, p := range []R{x, w, dst} {
		f.Add(p, 64)
	}
	f.Loop(n, 16, "scale")
	f.Go("RET")
}

// add takes n in multiples of 16.
func add(file *File) {
	f := file.Func("addNEON", "", "x *float32, y *float32, n int", "")
	x, y, n := f.Load("x"), f.Load("y"), f.Load("n")
	a, b := seq(0, 4), seq(4, 4)
	f.Label("loop")
	load(f, a, x, 0)
	load(f, b, y, 0)
	for i := range a {
		f.Emit(FADD(a[i], a[i], b[i]))
	}
	store(f, a, x, 0)
	f.Add(x, 64)
	f.Add(y, 64)
	f.Loop(n, 16, "loop")
	f.Go("RET")
}

func siluMul(file *File) {
	f := file.Func("siluMulNEON", "", "dst *float32, gate *float32, up *float32, n int", "")
	dst, gate, up, n := f.Load("dst"), f.Load("gate"), f.Load("up"), f.Load("n")
	t := table(f)
	e := newExp2(f, t, 22)
	const top, one, factor V = 29, 30, 31
	constant(f, top, t, cExp2Max)
	constant(f, one, t, cOne)
	constant(f, factor, t, cNegLog2E)
	f.Label("loop")
	for i := range 2 { // two sets of registers
		work := seq(V(4*i), 4)
		g, u, x := seq(V(8+6*i), 2), seq(V(10+6*i), 2), V(12+6*i)
		load(f, g, gate, 32*i)
		load(f, u, up, 32*i)
		for j := range g {
			f.Emit(FMUL(x, g[j], factor), FMIN(x, x, top))
			e.apply(f, x, work)
			f.Emit(FADD(x, x, one), FDIV(g[j], g[j], x), FMUL(g[j], g[j], u[j]))
		}
		store(f, g, dst, 32*i)
	}
	for _, p := range []R{dst, gate, up} {
		f.Add(p, 64)
	}
	f.Loop(n, 16, "loop")
	f.Go("RET")
}

func geluMul(file *File) {
	f := file.Func("geluMulNEON", "", "dst *float32, gate *float32, up *float32, n int", "")
	dst, gate, up, n := f.Load("dst"), f.Load("gate"), f.Load("up"), f.Load("n")
	t := table(f)
	e := newExp2(f, t, 21)
	const top, one, a, b V = 28, 29, 30, 31
	constant(f, top, t, cExp2Max)
	constant(f, one, t, cOne)
	constant(f, a, t, cGelu)
	constant(f, b, t, cGelu+1)
	f.Label("loop")
	for i := range 2 { // two sets of registers
		work := seq(V(4*i), 4)
		g, u, x, y := seq(V(8+6*i), 2), seq(V(10+6*i), 2), V(12+6*i), V(13+6*i)
		load(f, g, gate, 32*i)
		load(f, u, up, 32*i)
		for j := range g {
			f.Emit(FMUL(y, g[j], g[j]), MOV(x, a), FMLA(x, y, b), FMUL(x, x, g[j]), FMIN(x, x, top))
			e.apply(f, x, work)
			f.Emit(FADD(x, x, one), FDIV(g[j], g[j], x), FMUL(g[j], g[j], u[j]))
		}
		store(f, g, dst, 32*i)
	}
	for _, p := range []R{dst, gate, up} {
		f.Add(p, 64)
	}
	f.Loop(n, 16, "loop")
	f.Go("RET")
}

// addScaled takes n in multiples of 16.
func addScaled(file *File) {
	f := file.Func("addScaledNEON", "", "x *float32, y *float32, n int, scale float32", "")
	x, y, n := f.Load("x"), f.Load("y"), f.Load("n")
	const scale V = 16
	f.LoadS("scale", scale)
	a, b := seq(0, 4), seq(4, 4)
	f.Label("loop")
	load(f, a, x, 0)
	load(f, b, y, 0)
	for i := range a {
		f.Emit(FMLAE(a[i], b[i], scale, 0))
	}
	store(f, a, x, 0)
	f.Add(x, 64)
	f.Add(y, 64)
	f.Loop(n, 16, "loop")
	f.Go("RET")
}

func rope(file *File) {
	f := file.Func("ropeNEON", "", "dst *float32, src *float32, heads int, headSize int, cs *float32, scale float32", "")
	dst, src, heads, size, cs := f.Load("dst"), f.Load("src"), f.Load("heads"), f.Load("headSize"), f.Load("cs")
	const scale V = 16
	f.LoadS("scale", scale)
	sines := f.Index(cs, size, 2)
	cos, sin, left := f.R(), f.R(), f.R()
	a, b, c := seq(0, 4), seq(4, 4), seq(8, 4)
	f.Label("head")
	f.Go("MOVD R%d, R%d", cs, cos)
	f.Go("MOVD R%d, R%d", sines, sin)
	f.Go("MOVD R%d, R%d", size, left)
	f.Label("loop")
	load(f, a, src, 0)
	load(f, c, sin, 0)
	for i := range a {
		f.Emit(REV64(b[i], a[i]), FMUL(b[i], b[i], c[i]))
	}
	load(f, c, cos, 0)
	for i := range a {
		f.Emit(FMLA(b[i], a[i], c[i]), FMULE(b[i], b[i], scale, 0))
	}
	store(f, b, dst, 0)
	for _, p := range []R{src, dst, sin, cos} {
		f.Add(p, 64)
	}
	f.Loop(left, 16, "loop")
	f.Loop(heads, 1, "head")
	f.Go("RET")
}

// maxOf returns the largest of n values (a multiple of 32), ignoring NaN; -Inf if there is no other.
func maxOf(file *File) {
	f := file.Func("maxOfNEON", "", "x *float32, n int", "float32")
	x, n := f.Load("x"), f.Load("n")
	t := table(f)
	acc, v, more := seq(0, 8), seq(8, 8), seq(16, 8)
	for _, a := range acc {
		constant(f, a, t, cMinusInf)
	}
	f.Label("loop")
	load(f, v, x, 0)
	for i := range v {
		f.Emit(FCMGT(more[i], v[i], acc[i]), BIT(acc[i], v[i], more[i]))
	}
	f.Add(x, 128)
	f.Loop(n, 32, "loop")
	fold(f, acc, FMAX)
	f.Emit(FMAXV(acc[0], acc[0]))
	f.ReturnS(acc[0])
}

// indexOf returns the first multiple of 32 at which one of the 32 values equals v, or n.
func indexOf(file *File) {
	f := file.Func("indexOfNEON", "", "x *float32, n int, v float32", "int")
	x, n := f.Load("x"), f.Load("n")
	const want V = 16
	f.LoadS("v", want)
	f.Emit(DUP(want, want, 0))
	i, any := f.R(), f.R()
	f.Go("MOVD $0, R%d", i)
	v := seq(0, 8)
	f.Label("loop")
	load(f, v, x, 0)
	for j := range v {
		f.Emit(FCMEQ(v[j], v[j], want))
	}
	fold(f, v, ORR)
	f.Emit(UMAXV(v[0], v[0]))
	f.Go("FMOVS F%d, R%d", v[0], any)
	f.Go("CBNZW R%d, found", any)
	f.Add(x, 128)
	f.Add(i, 32)
	f.Go("CMP R%d, R%d", n, i)
	f.Go("BLT loop")
	f.Label("found")
	f.Return(i)
}

// A toHalf emits the conversion to f16. What is not below the largest half becomes that, as NaN does.
type toHalf struct{ most, least V }

func newToHalf(f *Func) toHalf {
	h := toHalf{30, 31}
	t := table(f)
	constant(f, h.most, t, cMaxHalf)
	constant(f, h.least, t, cMinHalf)
	return h
}

// apply rounds the eight values of v to halves in v[0], with two registers to work in.
func (h toHalf) apply(f *Func, v, t []V) {
	for i := range v {
		f.Emit(FCMGT(t[i], h.most, v[i]), BSL(t[i], v[i], h.most), FMAX(v[i], t[i], h.least))
	}
	f.Emit(FCVTN(v[0], v[0]), FCVTN2(v[0], v[1]))
}

// storeK gets the address of the column's first row.
func storeK(file *File) {
	f := file.Func("storeKNEON", "", "column *uint16, k *float32, headSize int", "")
	column, k, n := f.Load("column"), f.Load("k"), f.Load("headSize")
	h := newToHalf(f)
	stride := f.R()
	f.Go("MOVD $%d, R%d", 2*tileTokens, stride)
	v := seq(0, 2)
	f.Label("loop")
	load(f, v, k, 0)
	h.apply(f, v, seq(2, 2))
	for i := range 8 {
		f.Emit(ST1H(v[0], i, column, stride))
	}
	f.Add(k, 32)
	f.Loop(n, 8, "loop")
	f.Go("RET")
}

func storeV(file *File) {
	f := file.Func("storeVNEON", "", "row *uint16, v *float32, headSize int", "")
	row, src, n := f.Load("row"), f.Load("v"), f.Load("headSize")
	h := newToHalf(f)
	v := seq(0, 2)
	f.Label("loop")
	load(f, v, src, 0)
	h.apply(f, v, seq(2, 2))
	store(f, v[:1], row, 0)
	f.Add(src, 32)
	f.Add(row, 16)
	f.Loop(n, 8, "loop")
	f.Go("RET")
}
