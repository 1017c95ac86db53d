package model

import (
	"fmt"
	"time"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
	"kvasir/internal/team"
)

// Forward computes one step on the first `workers` workers of tm: it writes K and V of all rows into their blocks and the
// logits of the wanted rows into s (see LogitRow). What a row gets does not depend on the rows beside it
// (docs/numerics.md). All workers run the same function and meet at barriers; between two barriers each claims tiles. late
// is the time that they waited for one another, see team.Run.
func (m *Model) Forward(tm *team.Team, workers int, s *Scratch, b *Batch, mem Blocks) (late time.Duration, err error) {
	if tm.Size() > len(s.w) {
		return 0, fmt.Errorf("scratch for %d workers, team of %d", len(s.w), tm.Size())
	}
	if err := m.prepare(s, b); err != nil {
		return 0, err
	}
	s.workers = max(1, min(workers, tm.Size()))
	s.batch, s.mem, s.model = b, mem, m
	return tm.Run(s.workers, s.run), nil
}

// A pass is one worker's view of a step.
type pass struct {
	*Model
	*Scratch
	rows
	ws *workerScratch
	w  *team.Worker
	n  int // rows
}

// work is what each worker does in a step. Everything that it needs was made before: a step allocates nothing.
func (s *Scratch) work(w *team.Worker) {
	p := &s.w[w.ID].pass
	*p = pass{Model: s.model, Scratch: s, ws: &s.w[w.ID], w: w, n: len(s.batch.Tokens), rows: s.rows}
	if s.own {
		p.rows = p.ws.rows
	}
	p.forward()
}

func (p *pass) forward() {
	for i := range p.layers {
		l := &p.layers[i]
		last := i == len(p.layers)-1
		for r := range p.each(p.n) {
			if i == 0 {
				p.embed(r)
			} else {
				p.addProj(r, r)
			}
			p.normalise(r, l.attnNorm, p.norm, r, l.q, l.k, l.v)
		}
		p.meet()
		p.project(l, last)
		if len(p.long) > 0 {
			for j := range p.each(len(p.long)) {
				p.rotateAndStore(i, int(p.long[j]))
			}
			p.meet()
		}
		p.attend(i, last, l.o)
		n := p.n
		if last { // from here on only the rows count whose logits are wanted
			if n = len(p.logitRow); n == 0 {
				return
			}
		}
		p.matmul(p.mid, n, p.proj, l.o)
		for k := range p.each(n) {
			r := p.row(last, k)
			p.addProj(r, k)
			p.normalise(r, l.ffnNorm, p.norm, k, l.gate, l.up)
		}
		p.meet()
		p.feedForward(l, n)
		p.matmul(p.ff, n, p.proj, l.down)
	}
	n := len(p.logitRow)
	for k := range p.each(n) {
		r := p.row(true, k)
		p.addProj(r, k)
		p.normalise(r, p.outNorm, p.last, k, p.head)
	}
	p.meet()
	p.matmul(p.last, n, p.logits, p.head)
}

// row is the batch row of the k-th row that is computed.
func (p *pass) row(last bool, k int) int {
	if last {
		return int(p.logitRow[k])
	}
	return k
}

// each gives the rows of 0 to n-1 that this worker is to compute: all of them where each worker has its own rows, else those
// that it claims, a few at a time. meet ends such a phase.
func (p *pass) each(n int) func(yield func(int) bool) {
	return func(yield func(int) bool) {
		if p.own {
			for r := range n {
				yield(r)
			}
			return
		}
		grain := max(1, min(16, n/(4*p.workers)))
		for {
			t, ok := p.w.Next((n + grain - 1) / grain)
			if !ok {
				return
			}
			for r := t * grain; r < min(n, (t+1)*grain); r++ {
				yield(r)
			}
		}
	}
}

// meet ends a phase that was computed row by row.
func (p *pass) meet() {
	if !p.own {
		p.w.Barrier()
	}
}

// embed sets row r of the residual stream to the embedding of its token.
func (p *pass) embed(r int) {
	rb := p.emb.RowBytes()
	t := int(p.batch.Tokens[r])
	// The type was tried at load and the id checked in prepare: there is nothing left that can fail.
	_ = gguf.Dequantize(p.emb.Type, p.emb.Data[t*rb:(t+1)*rb], p.x[r*p.Embd:(r+1)*p.Embd])
}

// addProj adds row k of the projection to row r of the residual stream.
func (p *pass) addProj(r, k int) {
	vec.Add(p.Path, p.x[r*p.Embd:(r+1)*p.Embd], p.proj[k*pad32(p.Embd):][:p.Embd])
}

// normalise writes the normalised row r of the residual stream into row i of a, as the readers want it.
func (p *pass) normalise(r int, norm []float32, a *gemm.Act, i int, readers ...*gemm.Matrix) {
	row := p.ws.row[:p.Embd]
	vec.RMSNorm(p.Path, row, p.x[r*p.Embd:(r+1)*p.Embd], norm, p.Eps)
	for _, m := range readers {
		if m.Format.Quantized() {
			p.fill(a, i, 0, row, true)
			break
		}
	}
	for _, m := range readers {
		if !m.Format.Quantized() {
			p.fill(a, i, 0, row, false)
			break
		}
	}
}

// fill writes x, whole blocks of 32, into row r of a from column k on, as int8 or as it is.
func (p *pass) fill(a *gemm.Act, r, k int, x []float32, quantised bool) {
	at := r*a.K + k
	if !quantised {
		copy(a.F[at:], x)
		return
	}
	b, n := at/32, len(x)/32
	vec.Quantize(p.Path, x, a.Q[at:][:len(x)], a.S[2*b:][:2*n], a.N[b:][:n])
}

// project computes queries, keys and values of all rows, side by side in rows of qkv; in the last layer queries only where
// logits are wanted or K and V are stored with attention. It ends the phase.
func (p *pass) project(l *layer, last bool) {
	nq, nk, nv := l.q.Panels(), l.k.Panels(), l.v.Panels()
	ld := (nq + nk + nv) * 32
	p.tiles(nq+nk+nv, p.n, func(i, r0, r1 int) {
		out := p.qkv[r0*ld+i*32:]
		switch {
		case i >= nq+nk:
			gemm.Mul(p.Path, l.v, i-nq-nk, p.norm, r0, r1, out, ld)
		case i >= nq:
			gemm.Mul(p.Path, l.k, i-nq, p.norm, r0, r1, out, ld)
		case !last:
			gemm.Mul(p.Path, l.q, i, p.norm, r0, r1, out, ld)
		default:
			single := p.plans[1].single
			for j := 0; j < len(single); {
				a := int(single[j].row)
				b := a
				for ; j < len(single) && int(single[j].row) == b; j++ {
					b++
				}
				if a, b = max(a, r0), min(b, r1); a < b {
					gemm.Mul(p.Path, l.q, i, p.norm, a, b, p.qkv[a*ld+i*32:], ld)
				}
			}
		}
	})
}

// matmul computes a matrix over the first n rows of a. It ends the phase.
func (p *pass) matmul(a *gemm.Act, n int, out []float32, m *gemm.Matrix) {
	ld := m.Panels() * 32
	p.tiles(m.Panels(), n, func(i, r0, r1 int) { gemm.Mul(p.Path, m, i, a, r0, r1, out[r0*ld+i*32:], ld) })
}

// tileRows is the least number of rows that a panel is cut into: a multiple of what the kernels take at once.
const tileRows = 48

// tiles calls f with every panel and range of rows that this worker claims, and ends the phase. Rows are cut only where the
// panels are too few for the workers. A worker's tiles follow each other, so that it reads the weights as one stream.
func (p *pass) tiles(panels, n int, f func(panel, r0, r1 int)) {
	if n > 0 {
		cuts := max(1, min(4*p.workers/panels, n/tileRows))
		rows := ((n+cuts-1)/cuts + 11) / 12 * 12
		cuts = (n + rows - 1) / rows
		for {
			t, ok := p.w.Next(panels * cuts)
			if !ok {
				break
			}
			r0 := t % cuts * rows
			f(t/cuts, r0, min(n, r0+rows))
		}
	}
	p.w.Barrier()
}

// rotateAndStore turns the queries and keys of row r of a long segment to its position and stores its K and V.
func (p *pass) rotateAndStore(layer, r int) {
	hs, group := p.HeadSize, p.Group()
	g := &p.batch.Segs[p.segOf[r]]
	pos := g.Pos + r - g.Start
	row := p.qkvRow(r)
	table := p.rope.at(pos)
	for h := range p.KVHeads {
		q := p.q[(h*p.maxRows+r)*group*hs:][:group*hs]
		vec.Rope(p.Path, q, row[h*group*hs:][:group*hs], group, hs, table, p.qScale)
		p.store(layer, g, pos, h, row)
	}
}

// store writes K and V of one row and KV head into their block. row is the row of qkv; scratch of the worker is used.
func (p *pass) store(layer int, g *Segment, pos, head int, row []float32) {
	hs := p.HeadSize
	qd, kvd := pad32(p.Heads*hs), pad32(p.KVHeads*hs)
	at := pos % p.Layout.BlockSize
	kt, vt := p.Layout.tile(p.mem.Block(g.Table[pos/p.Layout.BlockSize]), layer, at, head)
	k := p.ws.row[:hs]
	vec.Rope(p.Path, k, row[qd+head*hs:][:hs], 1, hs, p.rope.at(pos), 1)
	vec.StoreK(p.Path, kt, at%vec.TileTokens, hs, k)
	vec.StoreV(p.Path, vt, at%vec.TileTokens, hs, row[qd+kvd+head*hs:][:hs])
}

func (p *pass) qkvRow(r int) []float32 {
	ld := pad32(p.Heads*p.HeadSize) + 2*pad32(p.KVHeads*p.HeadSize)
	return p.qkv[r*ld : (r+1)*ld]
}

// feedForward computes SiLU(gate)·up of the first n normalised rows into ff. A panel of 32 outputs is one quantisation block
// of the down projection, so that no barrier is needed in between. It ends the phase.
func (p *pass) feedForward(l *layer, n int) {
	quantised := l.down.Format.Quantized()
	p.tiles(l.gate.Panels(), n, func(i, first, end int) {
		for r0 := first; r0 < end; r0 += ffRows {
			r1 := min(end, r0+ffRows)
			gate, up := p.ws.gate[:(r1-r0)*32], p.ws.up[:(r1-r0)*32]
			gemm.Mul(p.Path, l.gate, i, p.norm, r0, r1, gate, 32)
			gemm.Mul(p.Path, l.up, i, p.norm, r0, r1, up, 32)
			vec.SiluMul(p.Path, gate, gate, up)
			for r := r0; r < r1; r++ {
				p.fill(p.ff, r, i*32, gate[(r-r0)*32:][:32], quantised)
			}
		}
	})
}
