package main

import (
	"fmt"

	. "kvasir/internal/kernel/_asm/a64"
)

// The largest number of rows a call takes; mul_arm64.go has the same numbers.
const (
	intRows   = 5
	floatRows = 6
)

// stride is the distance of the rows of y in bytes; the rows of the activations follow each other.
const (
	intSignature   = "rows int, w *byte, blocks int, q *int8, s *float32, n *int32, y *float32, stride int"
	floatSignature = "rows int, w *byte, k int, x *float32, y *float32, stride int"
)

func gemm(file *File) {
	for _, p := range []intFormat{p4, p4z, p5, p8} {
		rowsFunc(file, p.name, intSignature, intRows, p.body)
	}
	for _, p := range []floatFormat{f16, bf16, f32} {
		rowsFunc(file, p.name, floatSignature, floatRows, p.body)
	}
}

// rowsFunc writes one function with a body for each number of rows. A vector lane is an output, and each row's operations are the same
// whatever the number of rows, so the bits of a row do not depend on its neighbours.
func rowsFunc(file *File, name, signature string, most int, body func(f *Func, rows int)) {
	f := file.Func(name+"NEON", fmt.Sprintf("multiplies one panel with 1 to %d rows.", most), signature, "")
	dispatch(f, most)
	for t := 1; t <= most; t++ {
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

// An intFormat describes the block of a quantised panel.
type intFormat struct {
	name    string
	bytes   int  // of a block
	weights int  // offset of the weights; 32 f16 scales are at 0
	min     bool // 32 f16 minima are at 64
	nibbles bool // two weights a byte
	flip    bool // weights are stored + 128
	less8   bool // weights are stored + 8: the sums start at -8 times the sum of the activations
}

var (
	p4  = intFormat{name: "p4", bytes: 640, weights: 128, min: true, nibbles: true}
	p4z = intFormat{name: "p4z", bytes: 576, weights: 64, nibbles: true, less8: true}
	p5  = intFormat{name: "p5", bytes: 1152, weights: 128, min: true}
	p8  = intFormat{name: "p8", bytes: 1088, weights: 64, flip: true}
)

// body sums a block with SDOT, four products a lane. One row takes all 32 outputs at once, more rows take 16 and go over the panel
// twice. The sums across blocks stay in registers up to 2 rows; with more they live in y.
//
// The int32 sums start at the bits of 1.5 * 2^23: as floats they are then that much more than the sum, exactly, since it is less than
// 2^22 in size (32*128*127 for P8). Taking it away is cheaper than a conversion on many CPUs.
func (p intFormat) body(f *Func, rows int) {
	cols, width := 4, 4 // registers of outputs: at once, and of weights
	switch rows {
	case 1:
		cols = 8
	case intRows:
		width = 2
	}
	inMemory := rows > 2
	free := V(0)
	take := func(n int) []V {
		v := seq(free, n)
		free += V(n)
		return v
	}
	acc := grid(0, rows, cols)
	free += V(rows * cols)
	var sum [][]V
	if !inMemory {
		sum = grid(free, rows, cols)
		free += V(rows * cols)
	}
	atBlockEnd := free // then the following serve the scales
	x, w, hi := take(rows), take(width), take(width)
	const constant, magic V = 30, 31
	if free > constant {
		panic("out of vector registers")
	}
	switch {
	case p.nibbles:
		f.Emit(MOVI16B(constant, 0x0f))
	case p.flip:
		f.Emit(MOVI16B(constant, 0x80))
	}
	bits := f.R()
	f.Go("MOVD $0x4b400000, R%d", bits)
	f.Go("VDUP R%d, V%d.S4", bits, magic)
	f.Release(bits)
	halves(f, rows, cols, func(half R) {
		mark := f.Mark()
		blocks, weights, q, s, y := f.Load("blocks"), f.Load("w"), f.Load("q"), f.Load("s"), f.Load("y")
		scales := f.R() // weights is on its way over the weights of 16 outputs, scales over their scales
		if cols == 4 {
			f.Go("ADD R%d<<5, R%d, R%d", half, weights, scales)
			f.Go("ADD R%d<<6, R%d, R%d", half, weights, weights)
			f.Go("ADD R%d<<6, R%d, R%d", half, y, y)
		} else {
			f.Go("MOVD R%d, R%d", weights, scales)
		}
		qs, ss, ys := []R{q}, []R{s}, []R{y}
		var ns []R
		if p.less8 {
			ns = append(ns, f.Load("n"))
		}
		if rows > 1 {
			stride := f.R()
			f.Go("LSL $5, R%d, R%d", blocks, stride)
			qs = f.Rows(q, stride, rows)
			f.Go("LSL $3, R%d, R%d", blocks, stride)
			ss = f.Rows(s, stride, rows)
			if p.less8 {
				f.Go("LSL $2, R%d, R%d", blocks, stride)
				ns = f.Rows(ns[0], stride, rows)
			}
			f.LoadTo(stride, "stride")
			ys = f.Rows(y, stride, rows)
		}
		if inMemory {
			zero(f, w[:2]...)
			for t := range rows {
				store(f, w[:2], ys[t], 0)
				store(f, w[:2], ys[t], 32)
			}
		}
		for _, v := range sum {
			zero(f, v...)
		}
		loop := fmt.Sprintf("loop%d", rows)
		f.Label(loop)
		for t, v := range acc {
			start := magic
			if p.less8 { // n is -128 times the sum
				start = v[0]
				f.Emit(LD1R(start, ns[t]), SSHR(start, start, 4), ADD(start, start, magic))
			}
			for _, a := range v {
				if a != start {
					f.Emit(MOV(a, start))
				}
			}
		}
		dot := func(w []V, from, k int) { // w has 4 k of the outputs of acc[from:]
			for j := range w {
				for t := range rows {
					f.Emit(SDOTE(acc[t][from+j], w[j], x[t], k/4%4))
				}
			}
		}
		step := 4
		if p.nibbles {
			step = 8
		}
		for k := 0; k < 32; k += step {
			if k%16 == 0 {
				for t := range rows {
					f.Emit(LDRQ(x[t], qs[t], k))
				}
			}
			for from := 0; from < cols; from += width {
				load(f, w, weights, p.weights+k/step*128+16*from)
				switch {
				case p.nibbles:
					for j := range w {
						f.Emit(USHR16B(hi[j], w[j], 4), AND(w[j], w[j], constant))
					}
					dot(w, from, k)
					dot(hi, from, k+4)
				case p.flip:
					for j := range w {
						f.Emit(EOR(w[j], w[j], constant))
					}
					dot(w, from, k)
				default:
					dot(w, from, k)
				}
			}
		}
		// f = fma(d_x, float32(sum)*d_w, f), then f = fma(ds_x, m_w, f).
		free = atBlockEnd
		d, m, old, sx := take(2), take(2), take(2), take(1)[0]
		for h := 0; h < cols; h += 2 {
			loadHalf(f, d[0], d[1], scales, 8*h)
			if p.min {
				loadHalf(f, m[0], m[1], scales, 64+8*h)
			}
			for t := range rows {
				f.Emit(LDRD(sx, ss[t], 0))
				to := old
				if inMemory {
					load(f, to, ys[t], 16*h)
				} else {
					to = sum[t][h : h+2]
				}
				for i, a := range acc[t][h : h+2] {
					f.Emit(FSUB(a, a, magic), FMUL(a, a, d[i]), FMLAE(to[i], a, sx, 0))
					if p.min {
						f.Emit(FMLAE(to[i], m[i], sx, 1))
					}
				}
				if inMemory {
					store(f, to, ys[t], 16*h)
				}
			}
		}
		f.Add(weights, p.bytes)
		f.Add(scales, p.bytes)
		for t := range rows {
			f.Add(qs[t], 32)
			f.Add(ss[t], 8)
			if p.less8 {
				f.Add(ns[t], 4)
			}
		}
		f.Loop(blocks, 1, loop)
		for t, v := range sum {
			store(f, v, ys[t], 0)
		}
		f.Release(mark)
	})
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
