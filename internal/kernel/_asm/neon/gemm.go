package main

import (
	"fmt"
	"slices"

	. "kvasir/internal/kernel/_asm/a64"
	"kvasir/internal/kernel/_asm/panel"
)

// The largest number of rows a call takes; mul_arm64.go has the same numbers.
const (
	intRows   = 5
	splitRows = 3
	floatRows = 6
)

// stride is the distance of the rows of y in bytes; the rows of the activations follow each other.
const (
	intSignature   = "rows int, w *byte, blocks int, q *int8, s *float32, n *int32, y *float32, stride int"
	floatSignature = "rows int, w *byte, k int, x *float32, y *float32, stride int"
)

func gemm(file *File) {
	for _, f := range panel.Formats {
		p := intFormat{f}
		if p.Split() {
			rowsFunc(file, p.Name, intSignature, panel.Rows(splitRows, p.Rare), p.splitBody)
		} else {
			rowsFunc(file, p.Name, intSignature, panel.Rows(intRows, p.Rare), p.body)
		}
	}
	for _, p := range []floatFormat{f16, bf16, f32} {
		rowsFunc(file, p.name, floatSignature, panel.Rows(floatRows, true), p.body)
	}
}

// rowsFunc writes one function with a body for each of some numbers of rows, the first being 1. A vector lane is an output, and each row's operations are the same
// whatever the number of rows, so the bits of a row do not depend on its neighbours.
func rowsFunc(file *File, name, signature string, counts []int, body func(f *Func, rows int)) {
	f := file.Func(name+"NEON", fmt.Sprintf("multiplies one panel with a number of rows out of %d.", counts), signature, "")
	rows := f.Load("rows")
	for _, t := range slices.Backward(counts[1:]) {
		f.Go("CMP $%d, R%d", t, rows)
		f.Go("BEQ rows%d", t)
	}
	for _, t := range counts {
		f.Release(0)
		if t > 1 {
			f.Label(fmt.Sprintf("rows%d", t))
		}
		body(f, t)
		f.Go("RET")
	}
}

// halves emits a body for all 32 outputs (cols = 8 registers of four), or one that runs twice for 16 of them: then half is 0 or 1.
func halves(f *Func, rows, cols int, body func(half R)) {
	half := f.R()
	if cols == 8 {
		body(half)
		return
	}
	f.Go("MOVD $0, R%d", half)
	label := fmt.Sprintf("half%d", rows)
	f.Label(label)
	body(half)
	f.Go("ADD $1, R%d", half)
	f.Go("CMP $2, R%d", half)
	f.Go("BNE %s", label)
}

// A floatFormat describes a panel of floats, 32 outputs for each k.
type floatFormat struct {
	name  string
	bytes int // of one output
	// load fills two registers with eight outputs.
	load func(f *Func, lo, hi V, b R, off int)
}

var (
	f16  = floatFormat{"f16", 2, loadHalf}
	bf16 = floatFormat{"bf16", 2, func(f *Func, lo, hi V, b R, off int) { f.Emit(LDRQ(lo, b, off), SHLL2(hi, lo), SHLL(lo, lo)) }}
	f32  = floatFormat{"f32", 4, func(f *Func, lo, hi V, b R, off int) { f.Emit(LDPQ(lo, hi, b, off)) }}
)

// body does up to 3 rows with 32 outputs at once, more rows with 16, so that the sums take at most 24 registers. The activations take
// one for each row, the weights what is left, in pairs.
func (p floatFormat) body(f *Func, rows int) {
	cols := 8
	if rows > 3 {
		cols = 4
	}
	acc := grid(0, rows, cols)
	x := seq(V(rows*cols), rows)
	w := seq(V(rows*cols+rows), min(8, (32-rows*cols-rows)/2*2))
	halves(f, rows, cols, func(half R) {
		mark := f.Mark()
		k, weights, first, y := f.Load("k"), f.Load("w"), f.Load("x"), f.Load("y")
		if cols == 4 {
			shift := 5
			if p.bytes == 4 {
				shift = 6
			}
			f.Go("ADD R%d<<%d, R%d, R%d", half, shift, weights, weights)
			f.Go("ADD R%d<<6, R%d, R%d", half, y, y)
		}
		xs, ys := []R{first}, []R{y}
		if rows > 1 {
			n := f.R()
			f.Go("LSL $2, R%d, R%d", k, n)
			xs = f.Rows(first, n, rows)
		}
		for _, v := range acc {
			zero(f, v...)
		}
		loop := fmt.Sprintf("loop%d", rows)
		f.Label(loop)
		for t := range rows {
			f.Emit(LDRQ(x[t], xs[t], 0))
		}
		pair := 0
		for u := range 4 {
			for h := 0; h < cols; h += 2 {
				v := w[pair : pair+2]
				pair = (pair + 2) % len(w)
				p.load(f, v[0], v[1], weights, (u*32+4*h)*p.bytes)
				for i := range 2 {
					for t := range rows {
						f.Emit(FMLAE(acc[t][h+i], v[i], x[t], u))
					}
				}
			}
		}
		f.Add(weights, 4*32*p.bytes)
		for t := range rows {
			f.Add(xs[t], 16)
		}
		f.Loop(k, 4, loop)
		if rows > 1 {
			ys = f.Rows(y, f.Load("stride"), rows)
		}
		for t := range rows {
			store(f, acc[t], ys[t], 0)
		}
		f.Release(mark)
	})
}
