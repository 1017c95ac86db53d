package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// What AVX-512 keeps of a group of rows in the scratch: weights [6][32], then the rows' values in the lanes that fold leaves them
// in. Byte offsets; vec.ScratchLen has room for two groups.
const (
	groupRows    = 6
	scratchOld   = 4 * tileTokens * groupRows // maxima so far
	scratchSum   = scratchOld + 64            // sums of the weights
	scratchCorr  = scratchSum + 64            // factors of the old state
	scratchMax   = scratchCorr + 64           // new maxima
	scratchBytes = scratchMax + 64
)

// lane is where fold leaves row r, in bytes.
func lane(r int) int { return 4 * (4*(r%4) + 2*(r/4)) }

// attend512 emits the kernel that adds one tile to the states of rows rows or, if many, of several groups of them. The scores of a group are
// computed before the softmax of the one before it, so that the CPU has arithmetic to do while maxima and exponentials wait
// for each other.
func attend512(rows int, many bool) {
	name, more := fmt.Sprintf("attend%d", rows), ""
	if many {
		name, more = "attendMany", ", groups int"
	}
	start(avx512, name, fmt.Sprintf(attendSignature, more))
	g := attendGroup{rows: rows, q: param("q"), st: param("st"), p: param("p")}
	if !many {
		g.scores("scores", g.p)
		g.softmax()
		g.weigh()
		g.keep()
		finish()
		return
	}
	left, other := param("groups"), GP64()
	LEAQ(at(g.p, scratchBytes), other)
	g.scores("first", g.p)
	Label("group")
	CMPQ(left, U8(1))
	JEQ(LabelRef("softmax"))
	g.nextScores(other)
	Label("softmax")
	g.softmax()
	g.weigh()
	g.keep()
	g.advance()
	XCHGQ(g.p, other)
	DECQ(left)
	JNZ(LabelRef("group"))
	finish()
}

// An attendGroup has the registers that stay through a group: its queries, its states and its scratch.
type attendGroup struct {
	rows     int
	q, st, p reg.GPVirtual
}

func (g attendGroup) tails(st reg.GPVirtual) rowsAt {
	stride, tail := headBytes(), GP64()
	LEAQ(Mem{Base: st, Index: stride, Scale: 1}, tail)
	addBytes(4*stateTail, stride)
	return newRows(g.rows, tail, stride)
}

// nextScores is scores of the next group, into other.
func (g attendGroup) nextScores(other reg.GPVirtual) {
	n := attendGroup{rows: g.rows, q: GP64(), st: GP64()}
	size := param("headSize")
	IMUL3Q(U32(4*g.rows), size, size)
	LEAQ(Mem{Base: g.q, Index: size, Scale: 1}, n.q)
	LEAQ(Mem{Base: g.st, Index: size, Scale: 1, Disp: 4 * stateTail * g.rows}, n.st)
	n.scores("scores", other)
}

func (g attendGroup) advance() {
	size := param("headSize")
	IMUL3Q(U32(4*g.rows), size, size)
	ADDQ(size, g.q)
	LEAQ(Mem{Base: g.st, Index: size, Scale: 1, Disp: 4 * stateTail * g.rows}, g.st)
	visible := param("visible")
	TESTQ(visible, visible)
	JZ(LabelRef("whole"))
	addBytes(4*g.rows, visible)
	Store(visible, Param("visible"))
	Label("whole")
}

// scores writes the scores of all 32 tokens to p, and the states' maxima and sums beside them. Even and odd d are summed in one loop. The V
// tile is prefetched meanwhile, one line for each d: it has as many lines. Queries are operands in memory: to broadcast them into
// registers takes a pipe that the conversion of K needs.
func (g attendGroup) scores(label string, p reg.GPVirtual) {
	tails := g.tails(g.st)
	both := GP64()
	for r := range g.rows {
		MOVQ(tails.at(r, tailMax), both)
		MOVL(both.As32(), at(p, scratchOld+lane(r)))
		SHRQ(U8(32), both)
		MOVL(both.As32(), at(p, scratchSum+lane(r)))
	}
	var sum [2][][]reg.VecVirtual
	for parity := range sum {
		for range g.rows {
			sum[parity] = append(sum[parity], avx512.zeros(2))
		}
	}
	base := GP64()
	MOVQ(g.q, base)
	q := newRows(g.rows, base, headBytes())
	k, v, n := param("k"), param("v"), param("headSize")
	const unroll = 4
	Label(label)
	for u := range unroll {
		kd := []reg.VecVirtual{avx512.loadHalf(at(k, u*64)), avx512.loadHalf(at(k, u*64+32))}
		for r := range g.rows {
			for j := range kd {
				VFMADD231PS_BCST(q.at(r, u*4), kd[j], sum[u%2][r][j])
			}
		}
		PREFETCHT0(at(v, u*64))
	}
	addBytes(unroll*64, k)
	addBytes(unroll*64, v)
	q.advance(unroll * 4)
	SUBQ(U8(unroll), n)
	JNZ(LabelRef(label))
	for r := range g.rows {
		for j := range 2 {
			VADDPS(sum[1][r][j], sum[0][r][j], sum[0][r][j])
			VMOVUPS(sum[0][r][j], at(p, 4*tileTokens*r+64*j))
		}
	}
}

// softmax turns the scores in p into weights and computes maxima, sums and factors of the group.
func (g attendGroup) softmax() {
	e := newExp2(avx512)
	score := make([][]reg.VecVirtual, g.rows)
	for r := range score {
		score[r] = []reg.VecVirtual{avx512.load(at(g.p, 4*tileTokens*r)), avx512.load(at(g.p, 4*tileTokens*r+64))}
	}
	visible := param("visible")
	TESTQ(visible, visible)
	JZ(LabelRef("all"))
	masked := avx512.broadcast(constant(cMasked))
	for r, s := range score {
		for j, v := range s {
			k := K()
			KMOVW(at(visible, 4*r+2*j), k)
			VBLENDMPS(v, masked, k, v)
		}
	}
	Label("all")
	m := fold512(score, opMax)
	old := avx512.load(at(g.p, scratchOld))
	VMAXPS(old, m, m)
	VMOVUPS(m, at(g.p, scratchMax))
	corr := old
	VSUBPS(m, old, corr)
	for r, s := range score {
		for j, v := range s {
			VSUBPS_BCST(at(g.p, scratchMax+lane(r)), v, v)
			e.apply(v)
			VMOVUPS(v, at(g.p, 4*tileTokens*r+64*j))
		}
	}
	e.apply(corr)
	VMOVUPS(corr, at(g.p, scratchCorr))
	sum := fold512(score, opAdd)
	VFMADD231PS(at(g.p, scratchSum), corr, sum)
	VMOVUPS(sum, at(g.p, scratchSum))
}

// keep writes the new maxima and sums back into the states.
func (g attendGroup) keep() {
	tails := g.tails(g.st)
	m, sum := GP32(), GP32()
	for r := range g.rows {
		MOVL(at(g.p, scratchMax+lane(r)), m)
		MOVL(at(g.p, scratchSum+lane(r)), sum)
		MOVL(m, tails.at(r, tailMax))
		MOVL(sum, tails.at(r, tailSum))
	}
}

// fold512 reduces the 32 values of each of up to eight rows by the lane tree of docs/numerics.md, all rows together: each level halves the
// number of vectors. Row r is left in lane(r). op(a, b) sets b to a op b.
func fold512(rows [][]reg.VecVirtual, op func(a, b reg.VecVirtual)) reg.VecVirtual {
	var v []reg.VecVirtual
	for _, r := range rows {
		x := ZMM()
		VMOVAPS(r[0], x)
		op(r[1], x)
		v = append(v, x)
	}
	level := func(shuffle func(ops ...Op), low, high uint64) {
		var next []reg.VecVirtual
		for i := 0; i < len(v); i += 2 {
			a, b := v[i], v[min(i+1, len(v)-1)]
			x, y := ZMM(), ZMM()
			shuffle(U8(low), b, a, x)
			shuffle(U8(high), b, a, y)
			op(y, x)
			next = append(next, x)
		}
		v = next
	}
	level(VSHUFF32X4, 0x44, 0xee)
	level(VSHUFF32X4, 0x88, 0xdd)
	level(VSHUFPS, 0x44, 0xee)
	y := ZMM()
	VPERMILPS(U8(0xb1), v[0], y)
	op(y, v[0])
	return v[0]
}

// weigh adds the weighted rows of V to each state's acc. The next K tile is prefetched meanwhile.
func (g attendGroup) weigh() {
	left, stride, base := param("headSize"), headBytes(), GP64()
	addBytes(4*stateTail, stride)
	MOVQ(g.st, base)
	valueColumns(avx512, 64, g.rows, left, g.p, newRows(g.rows, base, stride), func(r int) Mem { return at(g.p, scratchCorr+lane(r)) })
}
