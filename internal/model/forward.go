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

	runs  []run         // those of adapted that the rows now computed have
	slots [lowSlots]int // matrices whose part of low is filled
}

// work is what each worker does in a step. Everything that it needs was made before: a step allocates nothing.
func (s *Scratch) work(w *team.Worker) {
	p := &s.w[w.ID].pass
	*p = pass{Model: s.model, Scratch: s, ws: &s.w[w.ID], w: w, n: len(s.batch.Tokens), rows: s.rows, runs: s.adapted[0]}
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
				p.addFeed(&p.layers[i-1].feedForward, r, r)
			}
			p.normalise(r, l.norm, p.norm, r, l.q, l.k, l.v)
		}
		p.meet()
		p.shrink(p.norm, &l.q, &l.k, &l.v)
		p.project(l, last)
		if len(p.long) > 0 {
			for j := range p.each(len(p.long)) {
				p.rotateAndStore(&l.attention, int(p.long[j]))
			}
			p.meet()
		}
		p.attend(i, last, l.o.Matrix)
		n := p.n
		if last { // from here on only the rows count whose logits are wanted
			if n = len(p.logitRow); n == 0 {
				return
			}
			p.runs = p.adapted[1]
		}
		p.shrink(p.mid, &l.o)
		p.matmul(p.mid, n, p.proj, l.o)
		for k := range p.each(n) {
			r := p.row(last, k)
			p.add(r, p.proj[k*pad32(p.Embd):][:p.Embd], l.post)
			if l.experts != nil {
				p.normalise(r, l.ffNorm, p.norm, k, l.experts.router, l.experts.gate[0], l.experts.up[0])
			} else {
				p.normalise(r, l.ffNorm, p.norm, k, l.gate, l.up)
			}
		}
		p.meet()
		if l.experts != nil {
			p.mix(&l.feedForward, n)
			continue
		}
		p.shrink(p.norm, &l.gate, &l.up)
		p.feed(&l.feedForward, n)
		p.shrink(p.ff, &l.down)
		p.matmul(p.ff, n, p.proj, l.down)
	}
	n := len(p.logitRow)
	for k := range p.each(n) {
		r := p.row(true, k)
		p.addFeed(&p.layers[len(p.layers)-1].feedForward, r, k)
		p.normalise(r, p.outNorm, p.last, k, p.head)
	}
	p.meet()
	p.shrink(p.last, &p.head)
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
	x := p.x[r*p.Embd : (r+1)*p.Embd]
	// The type was tried at load and the id checked in prepare: there is nothing left that can fail.
	_ = gguf.Dequantize(p.emb.Type, p.emb.Data[t*rb:(t+1)*rb], x)
	if p.embdScale != 1 {
		for i := range x {
			x[i] *= p.embdScale
		}
	}
}

// add adds y, normalised if there is a norm for that, to row r of the residual stream.
func (p *pass) add(r int, y, norm []float32) {
	if norm != nil {
		row := p.ws.row[:p.Embd]
		vec.RMSNorm(p.Path, row, y, norm, p.Eps)
		y = row
	}
	vec.Add(p.Path, p.x[r*p.Embd:(r+1)*p.Embd], y)
}

// addFeed adds what the feed-forward part of a layer gave for its row k to row r of the residual stream.
func (p *pass) addFeed(l *feedForward, r, k int) {
	y := p.proj[k*pad32(p.Embd):][:p.Embd]
	if l.experts != nil {
		y = p.mixed(l.experts, k)
	}
	p.add(r, y, l.ffPost)
}

// normalise writes the normalised row r of the residual stream into row i of a, as the readers want it.
func (p *pass) normalise(r int, norm []float32, a *gemm.Act, i int, readers ...linear) {
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

// fill writes x, whole blocks of 32, into row r of a from column k on, as int8 or as it is. Adapters read it as it is.
func (p *pass) fill(a *gemm.Act, r, k int, x []float32, quantised bool) {
	at := r*a.K + k
	if !quantised || len(p.adapted[0]) > 0 {
		copy(a.F[at:], x)
	}
	if !quantised {
		return
	}
	b, n := at/32, len(x)/32
	vec.Quantize(p.Path, x, a.Q[at:][:len(x)], a.S[2*b:][:2*n], a.N[2*b:][:2*n])
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
			p.mul(&l.v, i-nq-nk, p.norm, r0, r1, out, ld)
		case i >= nq:
			p.mul(&l.k, i-nq, p.norm, r0, r1, out, ld)
		case !last:
			p.mul(&l.q, i, p.norm, r0, r1, out, ld)
		default:
			single := p.plans[l.plan][1].single
			for j := 0; j < len(single); {
				a := int(single[j].row)
				b := a
				for ; j < len(single) && int(single[j].row) == b; j++ {
					b++
				}
				if a, b = max(a, r0), min(b, r1); a < b {
					p.mul(&l.q, i, p.norm, a, b, p.qkv[a*ld+i*32:], ld)
				}
			}
		}
	})
}

// mul computes one panel of a matrix for the rows [r0, r1) of a, and adds its bias and what adapters give.
func (p *pass) mul(m *linear, panel int, a *gemm.Act, r0, r1 int, out []float32, ld int) {
	gemm.Mul(p.Path, m.Matrix, panel, a, r0, r1, out, ld)
	if m.bias != nil {
		bias := m.bias[panel*32:][:32]
		for r := range r1 - r0 {
			vec.Add(p.Path, out[r*ld:][:32], bias)
		}
	}
	if len(p.runs) > 0 {
		p.expand(m, panel, r0, r1, out, ld)
	}
}

// matmul computes a matrix over the first n rows of a. It ends the phase.
func (p *pass) matmul(a *gemm.Act, n int, out []float32, m linear) {
	ld := m.Panels() * 32
	p.tiles(m.Panels(), n, func(i, r0, r1 int) { p.mul(&m, i, a, r0, r1, out[r0*ld+i*32:], ld) })
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
func (p *pass) rotateAndStore(l *attention, r int) {
	hs, group := p.HeadSize, p.Group()
	g := &p.batch.Segs[p.segOf[r]]
	pos := g.Pos + r - g.Start
	row := p.qkvRow(r)
	for h := range p.KVHeads {
		p.query(l, p.q[(h*p.maxRows+r)*group*hs:][:group*hs], row[h*group*hs:], pos)
		p.store(l, g, pos, h, row)
	}
}

// query makes a group's queries from those of a row: normalised if the heads are, turned to their position and scaled.
func (p *pass) query(l *attention, dst, row []float32, pos int) {
	hs, group := p.HeadSize, p.Group()
	if l.qNorm != nil {
		for i := range group {
			vec.RMSNorm(p.Path, dst[i*hs:][:hs], row[i*hs:][:hs], l.qNorm, p.Eps)
		}
		row = dst
	}
	scale := p.qScale
	if p.tempered != nil {
		scale = p.tempered[pos/p.temperLen]
	}
	vec.Rope(p.Path, dst, row, group, hs, l.rope.at(pos), scale)
}

// store writes K and V of one row and KV head into their block. row is the row of qkv; scratch of the worker is used.
func (p *pass) store(l *attention, g *Segment, pos, head int, row []float32) {
	hs := p.HeadSize
	qd, kvd := pad32(p.Heads*hs), pad32(p.KVHeads*hs)
	at := pos % p.Layout.BlockSize
	kt, vt := p.Layout.tile(p.mem.Block(g.Table[pos/p.Layout.BlockSize]), l.kv, at, head)
	k, key := p.ws.row[:hs], row[qd+head*hs:][:hs]
	if l.kNorm != nil {
		vec.RMSNorm(p.Path, k, key, l.kNorm, p.Eps)
		key = k
	}
	vec.Rope(p.Path, k, key, 1, hs, l.rope.at(pos), 1)
	vec.StoreK(p.Path, kt, at%vec.TileTokens, hs, k)
	vec.StoreV(p.Path, vt, at%vec.TileTokens, hs, row[qd+kvd+head*hs:][:hs])
}

func (p *pass) qkvRow(r int) []float32 {
	ld := pad32(p.Heads*p.HeadSize) + 2*pad32(p.KVHeads*p.HeadSize)
	return p.qkv[r*ld : (r+1)*ld]
}

// feed computes activation(gate)·up of the first n normalised rows into ff. A panel of 32 outputs is one quantisation block
// of the down projection, so that no barrier is needed in between. It ends the phase.
func (p *pass) feed(l *feedForward, n int) {
	p.tiles(l.gate.Panels(), n, func(i, first, end int) { p.gate(l, &l.gate, &l.up, i, p.norm, first, end, l.down.Format.Quantized()) })
}

// gate computes one panel of activation(gate)·up for the rows [first, end) of x into those of ff.
func (p *pass) gate(l *feedForward, gate, up *linear, panel int, x *gemm.Act, first, end int, quantised bool) {
	for r0 := first; r0 < end; r0 += ffRows {
		r1 := min(end, r0+ffRows)
		a, b := p.ws.gate[:(r1-r0)*32], p.ws.up[:(r1-r0)*32]
		p.mul(gate, panel, x, r0, r1, a, 32)
		p.mul(up, panel, x, r0, r1, b, 32)
		l.activation(p.Path, a, a, b)
		for r := r0; r < r1; r++ {
			p.fill(p.ff, r, panel*32, a[(r-r0)*32:][:32], quantised)
		}
	}
}
