package main

import (
	"fmt"

	. "kvasir/internal/kernel/_asm/a64"
)

const (
	attendRows = 6 // the largest number of rows a kernel takes; dispatch_arm64.go has the same number
	tileTokens = 32
	stateTail  = 16 // float32 after a state's acc
	tailMax    = 0  // byte offsets in that tail
	tailSum    = 4
	tailCorr   = 8
)

// attend emits the kernel that adds one tile to the states of rows rows. See vec.AttendTile for the arguments; p is the
// scratch for scores and weights, [rows][32].
func attend(file *File, rows int) {
	f := file.Func(fmt.Sprintf("attend%dNEON", rows), "",
		"q *float32, k *uint16, v *uint16, next *uint16, st *float32, headSize int, visible *uint32, p *float32", "")
	scores(f, rows)
	f.Release(0)
	softmax(f, rows)
	f.Release(0)
	weighValues(f, rows)
	f.Go("RET")
}

// headStride returns a register with the bytes of a head's float32 values plus extra float32.
func headStride(f *Func, extra int) R {
	n := f.Load("headSize")
	f.Go("LSL $2, R%d, R%d", n, n)
	if extra > 0 {
		f.Add(n, 4*extra)
	}
	return n
}

func prefetch(f *Func, b R, lines int) {
	for i := range lines {
		f.Go("PRFM %d(R%d), PLDL1KEEP", 64*i, b)
	}
	f.Add(b, 64*lines)
}

// scores leaves the scores in p. The sums of even and of odd d want 16 registers for each row, and there are 24: so several rows take 16
// tokens at a time, and more than three one parity at a time. The V tile is prefetched in the first pass, one line for each d: it has
// as many lines.
func scores(f *Func, rows int) {
	tokens, together := 16, true
	switch {
	case rows == 1:
		tokens = 32
	case rows > 3:
		together = false
	}
	cols := tokens / 4
	parities := [][]int{{0, 1}}
	if !together {
		parities = [][]int{{0}, {1}}
	}
	mark := f.Mark()
	for first := 0; first < tileTokens; first += tokens {
		for pass, ps := range parities {
			f.Release(mark)
			sums := map[int][][]V{}
			for i, parity := range ps {
				sums[parity] = grid(V(i*rows*cols), rows, cols)
				for _, v := range sums[parity] {
					zero(f, v...)
				}
			}
			used := V(len(ps) * rows * cols)
			lo, hi, x := used, used+1, seq(used+2, rows)
			k, v, n := f.Load("k"), f.Load("v"), f.Load("headSize")
			qs := f.Rows(f.Load("q"), headStride(f, 0), rows)
			label := fmt.Sprintf("scores%d_%d", first, pass)
			f.Label(label)
			for r := range rows {
				f.Emit(LDRQ(x[r], qs[r], 0))
			}
			for u := range 4 {
				s, ok := sums[u%2]
				if !ok {
					continue
				}
				for j := 0; j < cols; j += 2 {
					loadHalf(f, lo, hi, k, 2*(tileTokens*u+first+4*j))
					for r := range rows {
						f.Emit(FMLAE(s[r][j], lo, x[r], u), FMLAE(s[r][j+1], hi, x[r], u))
					}
				}
			}
			if first == 0 && pass == 0 {
				prefetch(f, v, 4)
			}
			f.Add(k, 4*2*tileTokens)
			for _, q := range qs {
				f.Add(q, 16)
			}
			f.Loop(n, 4, label)
			p := f.Load("p")
			for r := range rows {
				off := 4 * (tileTokens*r + first)
				s := sums[ps[0]][r]
				switch {
				case together:
					for j := range s {
						f.Emit(FADD(s[j], s[j], sums[1][r][j]))
					}
				case ps[0] == 1:
					for j := range s {
						f.Emit(LDRQ(lo, p, off+16*j), FADD(s[j], s[j], lo))
					}
				}
				store(f, s, p, off)
			}
		}
	}
}

// softmax turns the scores in p into weights and updates each state's tail.
func softmax(f *Func, rows int) {
	t := table(f)
	score := seq(0, 8)
	work := seq(8, 4)
	const masked, bits, m, old, x, sum V = 12, 13, 14, 15, 16, 17
	constant(f, masked, t, cMasked)
	e := newExp2(f, t, 24)
	p, visible, tail := f.Load("p"), f.Load("visible"), f.Load("st")
	stride := headStride(f, 0)
	f.Go("ADD R%d, R%d", stride, tail)
	f.Add(stride, 4*stateTail)
	left := f.R()
	f.Go("MOVD $%d, R%d", rows, left)
	f.Label("softmax")
	load(f, score, p, 0)
	f.Go("CBZ R%d, all", visible)
	f.Emit(LD1R(bits, visible))
	f.Add(visible, 4)
	for j, v := range score {
		constant(f, x, t, cBits+j)
		f.Emit(CMTST(x, bits, x), BSL(x, v, masked), MOV(v, x))
	}
	f.Label("all")
	f.Emit(FMAX(m, score[0], score[1]))
	for _, v := range score[2:] {
		f.Emit(FMAX(m, m, v))
	}
	f.Emit(FMAXV(m, m), DUP(m, m, 0), LD1R(old, tail), FMAX(m, m, old), FSUB(old, old, m), STRS(m, tail, tailMax))
	corr := old
	e.apply(f, corr, work)
	f.Emit(STRS(corr, tail, tailCorr))
	for _, v := range score {
		f.Emit(FSUB(v, v, m))
		e.apply(f, v, work)
	}
	store(f, score, p, 0)
	laneTree(f, score, x)
	f.Emit(LDRS(sum, tail, tailSum), FMLA(score[0], sum, corr), STRS(score[0], tail, tailSum))
	f.Add(p, 4*tileTokens)
	f.Go("ADD R%d, R%d", stride, tail)
	f.Loop(left, 1, "softmax")
}

// weighValues adds the weighted rows of V to each state's acc, some columns at a time. The next K tile is prefetched
// meanwhile; it has headSize lines.
func weighValues(f *Func, rows int) {
	width := 32 // columns at a time
	switch {
	case rows == 1:
		width = 64
	case rows > 3:
		width = 16
	}
	left, v, next := f.Load("headSize"), f.Load("v"), f.Load("next")
	rowBytes := f.R()
	f.Go("LSL $1, R%d, R%d", left, rowBytes)
	acc := f.Rows(f.Load("st"), headStride(f, stateTail), rows)
	vt, p, n, tail := f.R(), f.R(), f.R(), f.R()
	for w := width; w >= 16; w /= 2 {
		label, done := fmt.Sprintf("columns%d", w), fmt.Sprintf("less%d", w)
		cols := w / 4
		sum := grid(0, rows, cols)
		x := seq(V(rows*cols), rows)
		pairs := seq(V(rows*cols+rows), min(8, (32-rows*cols-rows)/2*2))
		f.Go("CMP $%d, R%d", w, left)
		f.Go("BLT %s", done)
		f.Label(label)
		for r := range rows {
			// acc is as far into its row as there are columns done: what is left of them lies before the tail.
			f.Go("ADD R%d<<2, R%d, R%d", left, acc[r], tail)
			f.Emit(LDRS(x[r], tail, tailCorr))
			load(f, sum[r], acc[r], 0)
			for _, s := range sum[r] {
				f.Emit(FMULE(s, s, x[r], 0))
			}
		}
		f.Go("MOVD R%d, R%d", v, vt)
		f.LoadTo(p, "p")
		f.Go("MOVD $%d, R%d", tileTokens, n)
		f.Label(label + "tokens")
		for r := range rows {
			f.Emit(LDRQ(x[r], p, 4*tileTokens*r))
		}
		pair := 0
		for u := range 4 {
			for j := 0; j < cols; j += 2 {
				lo, hi := pairs[pair], pairs[pair+1]
				pair = (pair + 2) % len(pairs)
				loadHalf(f, lo, hi, vt, 8*j)
				for r := range rows {
					f.Emit(FMLAE(sum[r][j], lo, x[r], u), FMLAE(sum[r][j+1], hi, x[r], u))
				}
			}
			f.Go("ADD R%d, R%d", rowBytes, vt)
		}
		prefetch(f, next, w/8)
		f.Add(p, 16)
		f.Loop(n, 4, label+"tokens")
		for r := range rows {
			store(f, sum[r], acc[r], 0)
			f.Add(acc[r], 4*w)
		}
		f.Add(v, 2*w)
		f.Go("SUB $%d, R%d", w, left)
		if w == width {
			f.Go("CMP $%d, R%d", w, left)
			f.Go("BGE %s", label)
		}
		f.Label(done)
	}
}

func mergeState(file *File) {
	f := file.Func("mergeStateNEON", "", "dst *float32, src *float32, rows int, headSize int", "")
	dst, src, rows, size := f.Load("dst"), f.Load("src"), f.Load("rows"), f.Load("headSize")
	t := table(f)
	e := newExp2(f, t, 24)
	const m, a, b, l, l2 V = 0, 1, 2, 3, 4
	work, x, y := seq(8, 4), seq(16, 4), seq(20, 4)
	dstTail, srcTail, left := f.R(), f.R(), f.R()
	f.Label("row")
	f.Go("ADD R%d<<2, R%d, R%d", size, dst, dstTail)
	f.Go("ADD R%d<<2, R%d, R%d", size, src, srcTail)
	f.Emit(LD1R(a, dstTail), LD1R(b, srcTail), FMAX(m, a, b), STRS(m, dstTail, tailMax), FSUB(a, a, m), FSUB(b, b, m))
	e.apply(f, a, work)
	e.apply(f, b, work)
	f.Go("MOVD R%d, R%d", size, left)
	f.Label("columns")
	load(f, x, dst, 0)
	load(f, y, src, 0)
	for i := range x {
		f.Emit(FMUL(x[i], x[i], a), FMLA(x[i], y[i], b))
	}
	store(f, x, dst, 0)
	f.Add(dst, 64)
	f.Add(src, 64)
	f.Loop(left, 16, "columns")
	f.Emit(LDRS(l, dstTail, tailSum), LDRS(l2, srcTail, tailSum), FMUL(l, l, a), FMLA(l, l2, b), STRS(l, dstTail, tailSum))
	f.Add(dst, 4*stateTail)
	f.Add(src, 4*stateTail)
	f.Loop(rows, 1, "row")
	f.Go("RET")
}

func finishState(file *File) {
	f := file.Func("finishStateNEON", "", "st *float32, out *float32, rows int, headSize int", "")
	st, out, rows, size := f.Load("st"), f.Load("out"), f.Load("rows"), f.Load("headSize")
	const l V = 4
	v := seq(0, 4)
	tail, left := f.R(), f.R()
	f.Label("row")
	f.Go("ADD R%d<<2, R%d, R%d", size, st, tail)
	f.Emit(LDRS(l, tail, tailSum), DUP(l, l, 0))
	f.Go("MOVD R%d, R%d", size, left)
	f.Label("columns")
	load(f, v, st, 0)
	for i := range v {
		f.Emit(FDIV(v[i], v[i], l))
	}
	store(f, v, out, 0)
	f.Add(st, 64)
	f.Add(out, 64)
	f.Loop(left, 16, "columns")
	f.Add(st, 4*stateTail)
	f.Loop(rows, 1, "row")
	f.Go("RET")
}
