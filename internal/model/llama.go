package model

import (
	"fmt"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
	"kvasir/internal/team"
)

// Forward computes one step: it writes K and V of all rows into their blocks and the logits of the wanted rows into s
// (see LogitRow). What a row gets does not depend on the rows beside it (docs/numerics.md). All workers of tm run the
// same function and meet at barriers; between two barriers each claims tiles.
func (m *Model) Forward(tm *team.Team, s *Scratch, b *Batch, mem Blocks) error {
	if tm.Size() > len(s.w) {
		return fmt.Errorf("scratch for %d workers, team of %d", len(s.w), tm.Size())
	}
	if err := m.prepare(s, b); err != nil {
		return err
	}
	tm.Run(func(w *team.Worker) {
		p := pass{Model: m, Scratch: s, ws: &s.w[w.ID], w: w, b: b, mem: mem, n: len(b.Tokens)}
		p.run()
	})
	return nil
}

// A pass is one worker's view of a step.
type pass struct {
	*Model
	*Scratch
	ws  *workerScratch
	w   *team.Worker
	b   *Batch
	mem Blocks
	n   int // rows
}

func (p *pass) run() {
	embd := p.Embd
	for i := range p.layers {
		l := &p.layers[i]
		p.eachRow(p.n, func(r int) {
			if i == 0 {
				p.embed(r)
			} else {
				vec.Add(p.Path, p.x[r*embd:(r+1)*embd], p.proj[r*embd:(r+1)*embd])
			}
			p.normalise(r, l.attnNorm, p.norm, r, l.q, l.k, l.v)
		})
		p.matmul(p.norm, p.n, p.qkv, l.q, l.k, l.v)
		p.eachRow(p.n, func(r int) { p.rotateAndStore(i, r) })
		p.attend(i)
		p.eachRow(p.n, func(r int) { fill(p.Path, p.mid, r, p.attn[r*p.mid.K:(r+1)*p.mid.K], l.o) })
		p.matmul(p.mid, p.n, p.proj, l.o)
		p.eachRow(p.n, func(r int) {
			vec.Add(p.Path, p.x[r*embd:(r+1)*embd], p.proj[r*embd:(r+1)*embd])
			p.normalise(r, l.ffnNorm, p.norm, r, l.gate, l.up)
		})
		p.feedForward(l)
		p.matmul(p.ff, p.n, p.proj, l.down)
	}
	p.eachRow(len(p.logitRow), func(i int) {
		r := int(p.logitRow[i])
		vec.Add(p.Path, p.x[r*embd:(r+1)*embd], p.proj[r*embd:(r+1)*embd])
		p.normalise(r, p.outNorm, p.last, i, p.head)
	})
	p.matmul(p.last, len(p.logitRow), p.logits, p.head)
}

// eachRow calls f for every row, a few at a time, and ends the phase.
func (p *pass) eachRow(n int, f func(r int)) {
	grain := max(1, min(16, n/(4*len(p.Scratch.w))))
	for {
		t, ok := p.w.Next((n + grain - 1) / grain)
		if !ok {
			break
		}
		for r := t * grain; r < min(n, (t+1)*grain); r++ {
			f(r)
		}
	}
	p.w.Barrier()
}

// embed sets row r of the residual stream to the embedding of its token.
func (p *pass) embed(r int) {
	rb := p.emb.RowBytes()
	t := int(p.b.Tokens[r])
	// The type was tried at load and the id checked in prepare: there is nothing left that can fail.
	_ = gguf.Dequantize(p.emb.Type, p.emb.Data[t*rb:(t+1)*rb], p.x[r*p.Embd:(r+1)*p.Embd])
}

// normalise writes the normalised row r of the residual stream into row i of a, as the readers want it.
func (p *pass) normalise(r int, norm []float32, a *gemm.Act, i int, readers ...*gemm.Matrix) {
	row := p.ws.row[:p.Embd]
	vec.RMSNorm(p.Path, row, p.x[r*p.Embd:(r+1)*p.Embd], norm, p.Eps)
	fill(p.Path, a, i, row, readers...)
}

// matmul computes all matrices over the same rows; their outputs lie side by side in rows of out. It ends the phase.
func (p *pass) matmul(a *gemm.Act, n int, out []float32, ms ...*gemm.Matrix) {
	panels, ld := 0, 0
	for _, m := range ms {
		panels += m.Panels()
		ld += m.Panels() * 32
	}
	grain := max(1, min(16, panels/(8*len(p.Scratch.w))))
	for n > 0 {
		t, ok := p.w.Next((panels + grain - 1) / grain)
		if !ok {
			break
		}
		for i := t * grain; i < min(panels, (t+1)*grain); i++ {
			m, k := ms[0], i
			for j := 1; k >= m.Panels(); j++ {
				k -= m.Panels()
				m = ms[j]
			}
			gemm.Mul(p.Path, m, k, a, 0, n, out[i*32:], ld)
		}
	}
	p.w.Barrier()
}

// rotateAndStore turns the queries and keys of row r to its position and stores its K and V.
func (p *pass) rotateAndStore(layer, r int) {
	hs, group := p.HeadSize, p.Group()
	qd, kvd := pad32(p.Heads*hs), pad32(p.KVHeads*hs)
	g := &p.b.Segs[p.rowSeg[r]]
	pos := g.Pos + r - g.Start
	row := p.qkv[r*(qd+2*kvd):]
	table := p.rope.at(pos)
	for h := range p.KVHeads {
		q := p.q[(h*p.maxRows+r)*group*hs:][:group*hs]
		vec.Rope(p.Path, q, row[h*group*hs:][:group*hs], group, hs, table, p.qScale())
	}
	k := row[qd:][:p.KVHeads*hs]
	vec.Rope(p.Path, k, k, p.KVHeads, hs, table, 1)
	v := row[qd+kvd:]
	block := p.mem.Block(g.Table[pos/p.Layout.BlockSize])
	at := pos % p.Layout.BlockSize
	for h := range p.KVHeads {
		kt, vt := p.Layout.tile(block, layer, at, h)
		vec.StoreK(p.Path, kt, at%vec.TileTokens, hs, k[h*hs:][:hs])
		vec.StoreV(p.Path, vt, at%vec.TileTokens, hs, v[h*hs:][:hs])
	}
}

// feedForward computes SiLU(gate)·up for all rows into ff. A panel of 32 outputs is one quantisation block of the down
// projection, so that no barrier is needed in between.
func (p *pass) feedForward(l *layer) {
	for {
		i, ok := p.w.Next(l.gate.Panels())
		if !ok {
			break
		}
		for r0 := 0; r0 < p.n; r0 += ffRows {
			r1 := min(p.n, r0+ffRows)
			gate, up := p.ws.gate[:(r1-r0)*32], p.ws.up[:(r1-r0)*32]
			gemm.Mul(p.Path, l.gate, i, p.norm, r0, r1, gate, 32)
			gemm.Mul(p.Path, l.up, i, p.norm, r0, r1, up, 32)
			vec.SiluMul(p.Path, gate, gate, up)
			fillBlocks(p.Path, p.ff, r0, r1, i, gate, l.down)
		}
	}
	p.w.Barrier()
}
