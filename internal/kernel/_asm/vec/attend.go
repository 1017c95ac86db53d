package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	tileTokens = 32
	stateTail  = 16 // float32 after a state's acc
	tailMax    = 0  // byte offsets in that tail
	tailSum    = 4
	tailCorr   = 8
)

// rowsAt addresses up to six rows at one stride with two base registers.
type rowsAt struct{ base, base3, stride reg.GPVirtual }

// newRows takes over base and stride (in bytes).
func newRows(rows int, base, stride reg.GPVirtual) rowsAt {
	r := rowsAt{base: base, stride: stride}
	if rows > 3 {
		r.base3 = GP64()
		LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, r.base3)
		ADDQ(base, r.base3)
	}
	return r
}

func (r rowsAt) at(row, disp int) Mem {
	m := Mem{Base: r.base, Disp: disp}
	if row >= 3 {
		m.Base = r.base3
	}
	if row%3 > 0 {
		m.Index, m.Scale = r.stride, uint8(row%3)
	}
	return m
}

func (r rowsAt) advance(bytes int) {
	for _, b := range []reg.GPVirtual{r.base, r.base3} {
		if b != nil {
			addBytes(bytes, b)
		}
	}
}

func addBytes(n int, r reg.Register) {
	if n < 128 {
		ADDQ(U8(n), r)
	} else {
		ADDQ(U32(n), r)
	}
}

const attendSignature = "(q *float32, k *uint16, v *uint16, next *uint16, st *float32, headSize int, visible *uint32, p *float32%s)"

// attend2 emits the AVX2 kernel that adds one tile to the states of rows rows. See vec.AttendTile for the arguments; p is the scratch
// for scores and weights, [rows][32].
func attend2(rows int) {
	start(avx2, fmt.Sprintf("attend%d", rows), fmt.Sprintf(attendSignature, ""))
	p := param("p")
	if rows == 1 {
		scoresTogether(p)
	} else {
		scoresByParity(rows, p)
	}
	softmax(rows, p)
	weighValues(rows, p)
	finish()
}

func storeScores(scores [][]reg.VecVirtual, p reg.Register) {
	for r := range scores {
		for j, v := range scores[r] {
			VMOVUPS(v, at(p, 4*tileTokens*r+32*j))
		}
	}
}

func headBytes() reg.GPVirtual {
	n := param("headSize")
	SHLQ(U8(2), n)
	return n
}

// scoresTogether sums even and odd d of one row in one loop and leaves the scores in p. The V tile is prefetched meanwhile, one
// line for each d: it has as many lines.
func scoresTogether(p reg.Register) {
	sum := [2][]reg.VecVirtual{avx2.zeros(4), avx2.zeros(4)}
	q, k, v, n := param("q"), param("k"), param("v"), param("headSize")
	const unroll = 4
	Label("scores")
	for u := range unroll {
		b := avx2.broadcast(at(q, u*4))
		for j := range 4 {
			VFMADD231PS(avx2.loadHalf(at(k, u*64+j*16)), b, sum[u%2][j])
		}
		PREFETCHT0(at(v, u*64))
	}
	addBytes(unroll*64, k)
	addBytes(unroll*64, v)
	addBytes(unroll*4, q)
	SUBQ(U8(unroll), n)
	JNZ(LabelRef("scores"))
	for j := range 4 {
		VADDPS(sum[1][j], sum[0][j], sum[0][j])
	}
	storeScores([][]reg.VecVirtual{sum[0]}, p)
}

// scoresByParity goes over the even d, then over the odd ones, and leaves the scores in p: there are not the registers to do
// both at once.
func scoresByParity(rows int, p reg.Register) {
	v := param("v")
	stride := headBytes()
	const unroll = 4
	for parity := 0; parity < 2; parity++ {
		var sum [][]reg.VecVirtual
		for range rows {
			sum = append(sum, avx2.zeros(4))
		}
		q := newRows(rows, param("q"), stride)
		k, n := param("k"), param("headSize")
		label := fmt.Sprintf("scores%d", parity)
		Label(label)
		for u := 0; u < unroll; u++ {
			d := 2*u + parity
			var b []reg.VecVirtual
			for r := 0; r < rows; r++ {
				b = append(b, avx2.broadcast(q.at(r, d*4)))
			}
			for j := 0; j < 4; j++ {
				kd := avx2.loadHalf(at(k, d*64+j*16))
				for r := 0; r < rows; r++ {
					VFMADD231PS(kd, b[r], sum[r][j])
				}
			}
			PREFETCHT0(at(v, u*64))
		}
		addBytes(2*unroll*64, k)
		addBytes(unroll*64, v)
		q.advance(2 * unroll * 4)
		SUBQ(U8(2*unroll), n)
		JNZ(LabelRef(label))
		if parity == 1 {
			for r := range sum {
				for j, x := range sum[r] {
					VADDPS(at(p, 4*tileTokens*r+32*j), x, x)
				}
			}
		}
		storeScores(sum, p)
	}
}

// softmax turns the scores in p into weights and updates each state's tail.
func softmax(rows int, p reg.Register) {
	stride := headBytes()
	tail := param("st")
	ADDQ(stride, tail)
	addBytes(4*stateTail, stride)
	st := newRows(rows, tail, stride)
	visible := param("visible")
	TESTQ(visible, visible)
	JZ(LabelRef("all"))
	masked, bits := avx2.load(constant(cMasked)), YMM()
	for r := range rows {
		VPBROADCASTD(at(visible, 4*r), bits)
		for j := range 4 {
			v, k := avx2.load(at(p, 4*tileTokens*r+32*j)), YMM()
			VPAND(constant(cBits+j), bits, k)
			VPCMPEQD(constant(cBits+j), k, k)
			VBLENDVPS(k, v, masked, v)
			VMOVUPS(v, at(p, 4*tileTokens*r+32*j))
		}
	}
	Label("all")
	e := newExp2(avx2)
	for r := range rows {
		var score []reg.VecVirtual
		for j := range 4 {
			score = append(score, avx2.load(at(p, 4*tileTokens*r+32*j)))
		}
		m := avx2.fold32(score, opMax)
		old := XMM()
		VMOVSS(st.at(r, tailMax), old)
		VMAXSS(old, m, m)
		VMOVSS(m, st.at(r, tailMax))
		VSUBSS(m, old, old)
		corr := old
		e.apply(corr)
		VMOVSS(corr, st.at(r, tailCorr))
		ms := YMM()
		VBROADCASTSS(m, ms)
		for j, v := range score {
			VSUBPS(ms, v, v)
			e.apply(v)
			VMOVUPS(v, at(p, 4*tileTokens*r+32*j))
		}
		sum := avx2.fold32(score, opAdd)
		VFMADD231SS(st.at(r, tailSum), corr, sum)
		VMOVSS(sum, st.at(r, tailSum))
	}
}

// weighValues adds the weighted rows of V to each state's acc, some columns at a time. The next K tile is prefetched
// meanwhile; it has headSize lines.
func weighValues(rows int, p reg.Register) {
	width := 64 // columns at a time
	if rows > 1 {
		width = 32
	}
	left := param("headSize")
	stride := GP64()
	MOVQ(left, stride)
	SHLQ(U8(2), stride)
	tails := param("st")
	ADDQ(stride, tails)
	addBytes(4*stateTail, stride)
	tail := newRows(rows, tails, stride)
	acc := newRows(rows, param("st"), stride)
	valueColumns(avx2, width, rows, left, p, acc, func(r int) Mem { return tail.at(r, tailCorr) })
}

// valueColumns is the loop over columns of weighValues and attendGroup.weigh. corr is where a row's factor of the old state is.
func valueColumns(s isa, width, rows int, left, p reg.Register, acc rowsAt, corr func(r int) Mem) {
	v, next := param("v"), param("next")
	rowBytes := param("headSize")
	ADDQ(rowBytes, rowBytes)
	for w := width; w >= 16; w /= 2 {
		label, done := fmt.Sprintf("columns%d", w), fmt.Sprintf("less%d", w)
		CMPQ(left, U8(w))
		JLT(LabelRef(done))
		Label(label)
		sum := make([][]reg.VecVirtual, rows)
		for r := range sum {
			sum[r] = s.vecs(w / s.lanes())
			c := s.broadcast(corr(r))
			for j := range sum[r] {
				VMULPS(acc.at(r, j*s.bytes()), c, sum[r][j])
			}
		}
		vt, pt, n := GP64(), GP64(), GP64()
		MOVQ(v, vt)
		MOVQ(p, pt)
		MOVQ(U32(tileTokens/2), n)
		Label(label + "tokens")
		for u := range 2 {
			values := func(j int) Mem {
				m := at(vt, j*s.bytes()/2)
				if u == 1 {
					m.Index, m.Scale = rowBytes, 1
				}
				return m
			}
			weight := func(r int) Mem { return at(pt, 4*(tileTokens*r+u)) }
			if s == avx512 {
				var x []reg.VecVirtual
				for j := range sum[0] {
					x = append(x, s.loadHalf(values(j)))
				}
				for r := range sum {
					for j := range x {
						VFMADD231PS_BCST(weight(r), x[j], sum[r][j])
					}
				}
				continue
			}
			var b []reg.VecVirtual
			for r := range sum {
				b = append(b, s.broadcast(weight(r)))
			}
			for j := range sum[0] {
				x := s.loadHalf(values(j))
				for r := range sum {
					VFMADD231PS(x, b[r], sum[r][j])
				}
			}
		}
		lines := w / 16
		for i := range lines {
			PREFETCHT0(at(next, 64*i))
		}
		addBytes(64*lines, next)
		LEAQ(Mem{Base: vt, Index: rowBytes, Scale: 2}, vt)
		ADDQ(U8(8), pt)
		DECQ(n)
		JNZ(LabelRef(label + "tokens"))
		for r := range sum {
			for j := range sum[r] {
				VMOVUPS(sum[r][j], acc.at(r, j*s.bytes()))
			}
		}
		addBytes(2*w, v)
		acc.advance(4 * w)
		SUBQ(U8(w), left)
		if w == width {
			CMPQ(left, U8(w))
			JGE(LabelRef(label))
		}
		Label(done)
	}
}

func mergeState(s isa) {
	start(s, "mergeState", "(dst *float32, src *float32, rows int, headSize int)")
	dst, src, rows, size := param("dst"), param("src"), param("rows"), param("headSize")
	e := newExp2(s)
	Label("row")
	dstTail, srcTail := GP64(), GP64()
	LEAQ(index(dst, size, 0), dstTail)
	LEAQ(index(src, size, 0), srcTail)
	a, b := s.broadcast(at(dstTail, tailMax)), s.broadcast(at(srcTail, tailMax))
	m := s.vec()
	VMAXPS(a, b, m)
	VMOVSS(m.AsX(), at(dstTail, tailMax))
	VSUBPS(m, a, a)
	VSUBPS(m, b, b)
	e.apply(a)
	e.apply(b)
	Label("columns")
	for d := 0; d < 64; d += s.bytes() {
		x := s.vec()
		VMULPS(at(dst, d), a, x)
		VFMADD231PS(at(src, d), b, x)
		VMOVUPS(x, at(dst, d))
	}
	ADDQ(U8(64), dst)
	ADDQ(U8(64), src)
	CMPQ(dst, dstTail)
	JLT(LabelRef("columns"))
	l := XMM()
	VMULSS(at(dstTail, tailSum), a.AsX(), l)
	VFMADD231SS(at(srcTail, tailSum), b.AsX(), l)
	VMOVSS(l, at(dstTail, tailSum))
	ADDQ(U8(4*stateTail), dst)
	ADDQ(U8(4*stateTail), src)
	DECQ(rows)
	JNZ(LabelRef("row"))
	finish()
}

func finishState(s isa) {
	start(s, "finishState", "(st *float32, out *float32, rows int, headSize int)")
	st, out, rows, size := param("st"), param("out"), param("rows"), param("headSize")
	Label("row")
	tail := GP64()
	LEAQ(index(st, size, 0), tail)
	l := s.broadcast(at(tail, tailSum))
	Label("columns")
	for d := 0; d < 64; d += s.bytes() {
		x := s.load(at(st, d))
		VDIVPS(l, x, x)
		VMOVUPS(x, at(out, d))
	}
	ADDQ(U8(64), st)
	ADDQ(U8(64), out)
	CMPQ(st, tail)
	JLT(LabelRef("columns"))
	ADDQ(U8(4*stateTail), st)
	DECQ(rows)
	JNZ(LabelRef("row"))
	finish()
}
