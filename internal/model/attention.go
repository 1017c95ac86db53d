package model

import (
	"math"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
)

// qScale turns scores into exponents of two: log2(e)/sqrt(head size).
func (m *Model) qScale() float32 {
	return float32(math.Log2E / math.Sqrt(float64(m.HeadSize)))
}

// attend computes the attention output of all rows. Long runs of rows keep their states in cache over all splits;
// single rows (decode) spread their splits over the workers and are merged after a barrier. Both do the same operations.
func (p *pass) attend(layer int) {
	for {
		i, ok := p.w.Next(len(p.items))
		if !ok {
			break
		}
		if it := &p.items[i]; it.split < 0 {
			p.attendRows(layer, it)
		} else {
			p.attendSplit(layer, it)
		}
	}
	p.w.Barrier()
	if len(p.single) == 0 {
		return
	}
	p.eachRow(len(p.single), p.mergeSplits)
}

// kv is the K and V tile t of a sequence for one head; next is the K tile after it, for prefetch.
func (p *pass) kv(g *Segment, layer, t, last, head int) (k, v, next []uint16) {
	at := t * vec.TileTokens
	bs := p.Layout.BlockSize
	k, v = p.Layout.tile(p.mem.Block(g.Table[at/bs]), layer, at%bs, head)
	if t < last {
		at += vec.TileTokens
		next, _ = p.Layout.tile(p.mem.Block(g.Table[at/bs]), layer, at%bs, head)
	}
	return k, v, next
}

func (p *pass) attendRows(layer int, it *attnItem) {
	hs, group, sl := p.HeadSize, p.Group(), vec.StateLen(p.HeadSize)
	g := &p.b.Segs[it.seg]
	head, r0, n := int(it.head), int(it.row), int(it.rows)
	pos0 := g.Pos + r0 - g.Start // position of the first row
	q := p.q[(head*p.maxRows+r0)*group*hs:][:n*group*hs]
	st, tot, nv := p.ws.st, p.ws.tot, p.ws.nv
	vec.InitState(tot, n*group, hs)
	last := (pos0 + n - 1) / vec.TileTokens
	for t0 := 0; t0 <= last; t0 += splitTiles {
		vec.InitState(st, n*group, hs)
		// Rows before `first` see nothing of this split: they neither attend nor merge.
		first := max(0, t0*vec.TileTokens-pos0)
		for t := t0; t <= min(last, t0+splitTiles-1); t++ {
			f := max(0, t*vec.TileTokens-pos0)
			for i := f; i < n; i++ {
				c := int32(min(vec.TileTokens, pos0+i+1-t*vec.TileTokens))
				for j := range group {
					nv[i*group+j] = c
				}
			}
			k, v, next := p.kv(g, layer, t, last, head)
			vec.AttendTile(p.Path, q[f*group*hs:], k, v, next, st[f*group*sl:], (n-f)*group, hs, nv[f*group:], p.ws.p)
		}
		vec.MergeState(p.Path, tot[first*group*sl:], st[first*group*sl:], (n-first)*group, hs)
	}
	for i := range n {
		vec.FinishState(p.Path, tot[i*group*sl:], p.attn[((r0+i)*p.KVHeads+head)*group*hs:], group, hs)
	}
}

// splitState is where a single row keeps the state of one head and split.
func (p *pass) splitState(single, head, split int) []float32 {
	n := p.Group() * vec.StateLen(p.HeadSize)
	off, splits := int(p.splitOff[single]), int(p.splitOff[single+1]-p.splitOff[single])
	return p.splitSt[(off*p.KVHeads+head*splits+split)*n:][:n]
}

func (p *pass) attendSplit(layer int, it *attnItem) {
	hs, group := p.HeadSize, p.Group()
	g := &p.b.Segs[it.seg]
	head, r := int(it.head), int(it.row)
	pos := g.Pos + r - g.Start
	st, nv := p.splitState(int(it.single), head, int(it.split)), p.ws.nv
	vec.InitState(st, group, hs)
	q := p.q[(head*p.maxRows+r)*group*hs:][:group*hs]
	last := min(pos/vec.TileTokens, int(it.split)*splitTiles+splitTiles-1)
	for t := int(it.split) * splitTiles; t <= last; t++ {
		c := int32(min(vec.TileTokens, pos+1-t*vec.TileTokens))
		for j := range group {
			nv[j] = c
		}
		k, v, next := p.kv(g, layer, t, last, head)
		vec.AttendTile(p.Path, q, k, v, next, st, group, hs, nv, p.ws.p)
	}
}

// mergeSplits merges the splits of the i-th single row in order.
func (p *pass) mergeSplits(i int) {
	hs, group := p.HeadSize, p.Group()
	r := int(p.single[i])
	splits := int(p.splitOff[i+1] - p.splitOff[i])
	for head := range p.KVHeads {
		tot := p.ws.tot
		vec.InitState(tot, group, hs)
		for sp := range splits {
			vec.MergeState(p.Path, tot, p.splitState(i, head, sp), group, hs)
		}
		vec.FinishState(p.Path, tot, p.attn[(r*p.KVHeads+head)*group*hs:], group, hs)
	}
}

// fill writes x into row r of a in the forms that the readers take.
func fill(path kernel.Path, a *gemm.Act, r int, x []float32, readers ...*gemm.Matrix) {
	k := a.K
	f, q := wants(readers)
	if f {
		copy(a.F[r*k:], x)
	}
	if q {
		vec.Quantize(path, x, a.Q[r*k:(r+1)*k], a.S[r*k/16:(r+1)*k/16], a.N[r*k/32:(r+1)*k/32])
	}
}

// fillBlocks writes x [r1-r0][32] into block i of rows [r0, r1) of a.
func fillBlocks(path kernel.Path, a *gemm.Act, r0, r1, i int, x []float32, reader *gemm.Matrix) {
	nb := a.K / 32
	for r := r0; r < r1; r++ {
		b := r*nb + i
		if xr := x[(r-r0)*32:][:32]; reader.Format.Quantized() {
			vec.Quantize(path, xr, a.Q[b*32:][:32], a.S[b*2:][:2], a.N[b:][:1])
		} else {
			copy(a.F[b*32:], xr)
		}
	}
}

func wants(ms []*gemm.Matrix) (float, quantised bool) {
	for _, m := range ms {
		if m.Format.Quantized() {
			quantised = true
		} else {
			float = true
		}
	}
	return float, quantised
}
