package model

import (
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
)

// attend computes the attention output of all rows (in the last layer, of those whose logits are wanted) as the output
// projection o reads it, and ends the phase. Rows of long segments keep their states in cache over all splits; others
// spread their splits over the workers and are merged after a barrier. Both do the same operations.
func (p *pass) attend(layer int, last bool, o *gemm.Matrix) {
	plan := &p.plans[0]
	if last {
		plan = &p.plans[1]
	}
	for {
		i, ok := p.w.Next(len(plan.items))
		if !ok {
			break
		}
		if it := &plan.items[i]; it.seg >= 0 {
			p.attendRows(layer, it, o)
		} else {
			p.attendSplit(layer, plan, it)
		}
	}
	p.w.Barrier()
	if !last && !p.wholeBlocks() && len(p.long) > 0 {
		for j := range p.each(len(p.long)) {
			r := int(p.long[j])
			p.fill(p.mid, r, 0, p.attn[r*p.mid.K:(r+1)*p.mid.K], o.Format.Quantized())
		}
		p.meet()
	}
	if len(plan.single) > 0 {
		for i := range p.each(len(plan.single)) {
			if plan.single[i].out >= 0 {
				p.mergeSplits(plan, i, o)
			}
		}
		p.meet()
	}
}

// kv is the K and V tile t of a sequence for one head; next is the K tile after it, for prefetch.
func (p *pass) kv(table []int32, layer, t, last, head int) (k, v, next []uint16) {
	at := t * vec.TileTokens
	bs := p.Layout.BlockSize
	k, v = p.Layout.tile(p.mem.Block(table[at/bs]), layer, at%bs, head)
	if t < last {
		at += vec.TileTokens
		next, _ = p.Layout.tile(p.mem.Block(table[at/bs]), layer, at%bs, head)
	}
	return k, v, next
}

func (p *pass) attendRows(layer int, it *attnItem, o *gemm.Matrix) {
	hs, group, sl := p.HeadSize, p.Group(), vec.StateLen(p.HeadSize)
	g := &p.batch.Segs[it.seg]
	head, r0, n := int(it.head), int(it.first), int(it.rows)
	pos0 := g.Pos + r0 - g.Start // position of the first row
	q := p.q[(head*p.maxRows+r0)*group*hs:][:n*group*hs]
	st, tot, nv := p.ws.st, p.ws.tot, p.ws.nv[:n*group]
	for i := range nv {
		nv[i] = vec.TileTokens
	}
	vec.InitState(tot, n*group, hs)
	last := (pos0 + n - 1) / vec.TileTokens
	for t0 := 0; t0 <= last; t0 += splitTiles {
		vec.InitState(st, n*group, hs)
		// Rows before `first` see nothing of this split: they neither attend nor merge.
		first := max(0, t0*vec.TileTokens-pos0)
		for t := t0; t <= min(last, t0+splitTiles-1); t++ {
			f := max(0, t*vec.TileTokens-pos0)
			if pos0+1 < (t+1)*vec.TileTokens { // the first row does not see all of it
				for i := f; i < n; i++ {
					c := int32(min(vec.TileTokens, pos0+i+1-t*vec.TileTokens))
					for j := range group {
						nv[i*group+j] = c
					}
				}
			}
			k, v, next := p.kv(g.Table, layer, t, last, head)
			vec.AttendTile(p.Path, q[f*group*hs:], k, v, next, st[f*group*sl:], (n-f)*group, hs, nv[f*group:], p.ws.p)
		}
		vec.MergeState(p.Path, tot[first*group*sl:], st[first*group*sl:], (n-first)*group, hs)
	}
	whole, quantised := p.wholeBlocks(), o.Format.Quantized()
	for i := range n {
		if whole {
			out := p.ws.row[:group*hs]
			vec.FinishState(p.Path, tot[i*group*sl:], out, group, hs)
			p.fill(p.mid, r0+i, head*group*hs, out, quantised)
		} else {
			vec.FinishState(p.Path, tot[i*group*sl:], p.attn[((r0+i)*p.KVHeads+head)*group*hs:], group, hs)
		}
	}
}

// splitState is where the states of the singles from i on are kept, for one head and split.
func (p *pass) splitState(plan *attnPlan, head, place int) []float32 {
	n := p.Group() * vec.StateLen(p.HeadSize)
	return p.state[(head*plan.states+place)*n:]
}

// attendSplit computes one split of one head for singles that read the same blocks in it. K and V of those that are in this
// split are stored first: nobody else reads them in this layer.
func (p *pass) attendSplit(layer int, plan *attnPlan, it *attnItem) {
	hs, group, sl := p.HeadSize, p.Group(), vec.StateLen(p.HeadSize)
	head, split, n := int(it.head), int(it.split), int(it.rows)
	singles := plan.single[it.first:][:n]
	start := split * splitTokens
	st, nv := p.splitState(plan, head, int(it.place)), p.ws.nv
	q := p.ws.q
	last := 0
	for i := range singles {
		s := &singles[i]
		row, pos := p.qkvRow(int(s.row)), int(s.pos)
		if !s.stored && pos < start+splitTokens {
			p.store(layer, &p.batch.Segs[s.seg], pos, head, row)
		}
		vec.Rope(p.Path, q[i*group*hs:], row[head*group*hs:], group, hs, p.rope.at(pos), p.qScale)
		last = max(last, min(pos, start+splitTokens-1)/vec.TileTokens)
	}
	vec.InitState(st, n*group, hs)
	table := p.batch.Segs[singles[0].seg].Table
	f := 0 // rows before f see nothing of the tile, and of those after it: positions rise
	for t := start / vec.TileTokens; t <= last; t++ {
		for i := f; i < n; i++ {
			c := int(singles[i].pos) + 1 - t*vec.TileTokens
			if c < 1 {
				f = i + 1
				continue
			}
			for j := range group {
				nv[i*group+j] = int32(min(vec.TileTokens, c))
			}
		}
		k, v, next := p.kv(table, layer, t, last, head)
		vec.AttendTile(p.Path, q[f*group*hs:], k, v, next, st[f*group*sl:], (n-f)*group, hs, nv[f*group:], p.ws.p)
	}
}

// mergeSplits merges the splits of the i-th single in order and writes its output.
func (p *pass) mergeSplits(plan *attnPlan, i int, o *gemm.Matrix) {
	hs, group := p.HeadSize, p.Group()
	s := &plan.single[i]
	out := p.ws.row[:p.Heads*hs]
	for head := range p.KVHeads {
		tot := p.ws.tot
		vec.InitState(tot, group, hs)
		for _, at := range plan.places[s.places:][:int(s.pos)/splitTokens+1] {
			vec.MergeState(p.Path, tot, p.splitState(plan, head, int(at)), group, hs)
		}
		vec.FinishState(p.Path, tot, out[head*group*hs:], group, hs)
	}
	p.fill(p.mid, int(s.out), 0, out, o.Format.Quantized())
}
