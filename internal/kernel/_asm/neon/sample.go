package main

import . "kvasir/internal/kernel/_asm/a64"

// The rows of the Go variable sampleTable (sample_arm64.go), each one constant four times over but for the last two.
const (
	sCoeff = 0 // 6 rows
	sLeast = 6
	sMagic = 7
	sMask  = 8 // 0x101, 0x102, 0x104, 0x108: a sum of some has their set as a mask in its low byte and their number above
	sIota  = 9 // 0, 1, 2, 3
	s4     = 10

	sampleChunk = 512
)

func sampleTable(f *Func) R {
	r := f.R()
	f.Go("MOVD $·sampleTable(SB), R%d", r)
	return r
}

// scan takes chunks of 512 values. Lane l of 32 of each chunk gets the largest of its values l, l+32, l+64, … The result is NaN if
// any value is.
func scan(file *File) {
	f := file.Func("scanNEON", "", "x *float32, chunks int, maxima *float32", "float32")
	x, chunks, maxima := f.Load("x"), f.Load("chunks"), f.Load("maxima")
	t := table(f)
	top, m, v := seq(0, 8), seq(8, 8), seq(16, 8)
	for _, r := range top {
		constant(f, r, t, cMinusInf)
	}
	rows := f.R()
	f.Label("chunk")
	load(f, m, x, 0)
	f.Add(x, 128)
	f.Go("MOVD $%d, R%d", sampleChunk/32-1, rows)
	f.Label("row")
	load(f, v, x, 0)
	for j := range m {
		f.Emit(FMAX(m[j], m[j], v[j]))
	}
	f.Add(x, 128)
	f.Loop(rows, 1, "row")
	store(f, m, maxima, 0)
	for j := range m {
		f.Emit(FMAX(top[j], top[j], m[j]))
	}
	f.Add(maxima, 128)
	f.Loop(chunks, 1, "chunk")
	fold(f, top, FMAX)
	f.Emit(FMAXV(top[0], top[0]))
	f.ReturnS(top[0])
}

// weigh takes chunks of 512 values and writes their weights, float32 of whole numbers, and each chunk's sum. After each
// chunk the place of the weights moves by step bytes. scale is negative.
func weigh(file *File) {
	f := file.Func("weighNEON", "",
		"x *float32, chunks int, peak float32, scale float32, least float32, weights *float32, step int, sums *uint64", "")
	x, chunks, weights, step, sums := f.Load("x"), f.Load("chunks"), f.Load("weights"), f.Load("step"), f.Load("sums")
	t := sampleTable(f)
	const peak, scale, least, floor, magic V = 27, 28, 29, 30, 31
	f.LoadS("peak", peak)
	f.LoadS("scale", scale)
	f.LoadS("least", least)
	f.Emit(DUP(peak, peak, 0), DUP(scale, scale, 0), DUP(least, least, 0))
	coeff := seq(20, 6)
	for i, c := range coeff {
		constant(f, c, t, sCoeff+i)
	}
	constant(f, floor, t, sLeast)
	constant(f, magic, t, sMagic)
	acc := seq(16, 4)
	w, left := f.R(), f.R()
	f.Label("chunk")
	zero(f, acc...)
	f.Go("MOVD R%d, R%d", weights, w)
	f.Go("MOVD $%d, R%d", sampleChunk, left)
	f.Label("loop")
	in := seq(0, 2)
	load(f, in, x, 0)
	for j, d := range in {
		n, y, z, e, u := V(2+7*j), V(3+7*j), V(4+7*j), V(5+7*j), V(6+7*j)
		f.Emit(FSUB(d, peak, d), FMUL(d, d, scale), FMAX(d, d, floor))
		f.Emit(FADD(u, d, magic), FSUB(n, u, magic), FSUB(d, d, n))
		for p, v := range []V{y, z, e} {
			f.Emit(FMUL(v, d, coeff[2*p]), FADD(v, v, coeff[2*p+1]))
		}
		f.Emit(FMUL(d, d, d), FMUL(y, y, d), FADD(y, y, z), FMUL(y, y, d), FADD(y, y, e))
		f.Emit(SHL(u, u, 23), ADD(y, y, u), FRINTN(y, y), FCMGE(z, y, least), AND(d, y, z))
		f.Emit(FCVTLD(n, d), FCVTL2D(e, d), FADD2D(acc[2*j], acc[2*j], n), FADD2D(acc[2*j+1], acc[2*j+1], e))
	}
	store(f, in, w, 0)
	f.Add(x, 32)
	f.Add(w, 32)
	f.Loop(left, 8, "loop")
	// All these sums are exact: they stay below 2^53.
	f.Emit(FADD2D(acc[0], acc[0], acc[1]), FADD2D(acc[2], acc[2], acc[3]), FADD2D(acc[0], acc[0], acc[2]), FADDPD(acc[0], acc[0]))
	f.Go("FCVTZSD F%d, R%d", acc[0], left)
	f.Go("MOVD R%d, (R%d)", left, sums)
	f.Add(sums, 8)
	f.Go("ADD R%d, R%d", step, weights)
	f.Loop(chunks, 1, "chunk")
	f.Go("RET")
}

// collect takes n values, a multiple of 32. It writes a whole vector for each that lies in a row of 32 with something to keep.
func collect(file *File) {
	f := file.Func("collectNEON", "", "x *float32, n int, least float32, ids *int32, values *float32", "int")
	x, n, ids, values := f.Load("x"), f.Load("n"), f.Load("ids"), f.Load("values")
	t := sampleTable(f)
	order, count, set, entry, number := f.R(), f.R(), f.R(), f.R(), f.R()
	f.Go("MOVD $·compressTable(SB), R%d", order)
	f.Go("MOVD $0, R%d", count)
	const least, mask, places, four, at4, bytes V = 24, 25, 26, 27, 28, 29
	f.LoadS("least", least)
	f.Emit(DUP(least, least, 0))
	constant(f, mask, t, sMask)
	constant(f, places, t, sIota)
	constant(f, four, t, s4)
	v, c, some := seq(0, 8), seq(8, 8), seq(16, 8)
	f.Label("loop")
	load(f, v, x, 0)
	for j := range v {
		f.Emit(FCMGE(c[j], v[j], least))
	}
	for j := range 4 {
		f.Emit(ORR(some[j], c[j], c[j+4]))
	}
	f.Emit(ORR(some[0], some[0], some[1]), ORR(some[2], some[2], some[3]), ORR(some[0], some[0], some[2]), UMAXV(some[0], some[0]))
	f.Go("FMOVS F%d, R%d", some[0], set)
	f.Go("CBZW R%d, none", set)
	f.Emit(MOV(at4, places))
	for j := range v {
		f.Emit(AND(c[j], c[j], mask), ADDV(c[j], c[j]))
		f.Go("FMOVS F%d, R%d", c[j], set)
		f.Go("AND $15, R%d, R%d", set, entry)
		f.Go("LSR $8, R%d, R%d", set, number)
		f.Go("ADD R%d<<4, R%d, R%d", entry, order, entry)
		f.Emit(LDRQ(bytes, entry, 0), TBL(v[j], v[j], bytes), TBL(bytes, at4, bytes))
		f.Emit(STRQ(v[j], values, 0), STRQ(bytes, ids, 0), ADD(at4, at4, four))
		f.Go("ADD R%d<<2, R%d, R%d", number, values, values)
		f.Go("ADD R%d<<2, R%d, R%d", number, ids, ids)
		f.Go("ADD R%d, R%d", number, count)
	}
	f.Label("none")
	for range v {
		f.Emit(ADD(places, places, four))
	}
	f.Add(x, 128)
	f.Loop(n, 32, "loop")
	f.Return(count)
}
