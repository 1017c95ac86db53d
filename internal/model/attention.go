package model

import (
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
)

// attend computes the attention output of all rows (in the last layer, of those whose logits are wanted) as the output
// projection o reads it, and ends the phase. Rows of long segments keep their states in cache over all splits; others
// spread their splits over the workers and are merged after a barrier. Both do the same operations.
func (p *pass) attend(layer int, last bool, o *gemm.Matrix) {
	l := &p.layers[layer].attention
	plan := &p.plans[l.plan][0]
	if last {
		plan = &p.plans[l.plan][1]
	}
	for {
		i, ok := p.w.Next(len(plan.items))
		if !ok {
			break
		}
		if it := &plan.items[i]; it.seg >= 0 {
			p.attendRows(l, it, o)
		} else {
			p.attendSplit(l, plan, it)
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

// tile is the K and V tile t of a sequence for one head; next is the K tile after it, for prefetch.
func (p *pass) tile(table []int32, layer, t, last, head int) (k, v, next []uint16) {
	at := t * vec.TileTokens
	bs := p.Layout.BlockSize
	k, v = p.Layout.tile(p.mem.Block(table[at/bs]), layer, at%bs, head)
	if t < last {
		at += vec.TileTokens
		next, _ = p.Layout.tile(p.mem.Block(table[at/bs]), layer, at%bs, head)
	}
	return k, v, next
}

// tokens has the bits of a tile's tokens from `from` up to but not including `to`, as far as they are in the tile.
func tokens(from, to int) uint32 {
	return uint32(1<<min(to, vec.TileTokens)-1) &^ uint32(1<<max(from, 0)-1)
}

func (p *pass) attendRows(l *attention, it *attnItem, o *gemm.Matrix) {
	hs, group, sl := p.HeadSize, p.Group(), vec.StateLen(p.HeadSize)
	g := &p.batch.Segs[it.seg]
	head, r0, n := int(it.head), int(it.first), int(it.rows)
	pos0 := g.Pos + r0 - g.Start // position of the first row
	q := p.q[(head*p.maxRows+r0)*group*hs:][:n*group*hs]
	st, tot := p.ws.st, p.ws.tot
	vec.InitState(tot, n*group, hs)
	last := (pos0 + n - 1) / vec.TileTokens
	// seeing is the number of rows whose window has not passed position end.
	seeing := func(end int) int {
		if l.window == 0 {
			return n
		}
		return max(0, min(n, end+l.window-1-pos0))
	}
	for t0 := from(pos0, l.window) / splitTokens * splitTiles; t0 <= last; t0 += splitTiles {
		vec.InitState(st, n*group, hs)
		// Rows before `first`, and from `after` on, see nothing of this split: they neither attend nor merge.
		first, after := max(0, t0*vec.TileTokens-pos0), seeing((t0+splitTiles)*vec.TileTokens)
		for t := t0; t <= min(last, t0+splitTiles-1); t++ {
			f, e := max(0, t*vec.TileTokens-pos0), seeing((t+1)*vec.TileTokens)
			if f >= e {
				continue
			}
			start := t * vec.TileTokens
			var visible []uint32
			if pos0+f+1 < start+vec.TileTokens || from(pos0+e-1, l.window) > start { // some row does not see all of it
				visible = p.ws.visible[:(e-f)*group]
				for i := range visible {
					pos := pos0 + f + i/group
					visible[i] = tokens(from(pos, l.window)-start, pos+1-start)
				}
			}
			k, v, next := p.tile(g.Table, l.kv, t, last, head)
			vec.AttendTile(p.Path, q[f*group*hs:], k, v, next, st[f*group*sl:], (e-f)*group, hs, visible, p.ws.p)
		}
		if first < after {
			vec.MergeState(p.Path, tot[first*group*sl:], st[first*group*sl:], (after-first)*group, hs)
		}
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
func (p *pass) attendSplit(l *attention, plan *attnPlan, it *attnItem) {
	hs, group, sl := p.HeadSize, p.Group(), vec.StateLen(p.HeadSize)
	head, split, n := int(it.head), int(it.split), int(it.rows)
	singles := plan.single[it.first:][:n]
	start := split * splitTokens
	st := p.splitState(plan, head, int(it.place))
	q := p.ws.q
	last := 0
	for i := range singles {
		s := &singles[i]
		row, pos := p.qkvRow(int(s.row)), int(s.pos)
		if !s.stored && pos < start+splitTokens {
			p.store(l, &p.batch.Segs[s.seg], pos, head, row)
		}
		p.query(l, q[i*group*hs:], row[head*group*hs:], pos)
		last = max(last, min(pos, start+splitTokens-1)/vec.TileTokens)
	}
	vec.InitState(st, n*group, hs)
	table := p.batch.Segs[singles[0].seg].Table
	f := 0 // rows before f do not see the tile yet, those from `e` on no more: positions rise
	for t := max(start, int(singles[0].from)) / vec.TileTokens; t <= last; t++ {
		start := t * vec.TileTokens
		for int(singles[f].pos) < start {
			f++
		}
		cut := int(singles[f].pos)+1 < start+vec.TileTokens
		e := f
		for ; e < n && int(singles[e].from) < start+vec.TileTokens; e++ {
			cut = cut || int(singles[e].from) > start
		}
		if f == e {
			continue
		}
		var visible []uint32
		if cut {
			visible = p.ws.visible[:(e-f)*group]
			for i := range visible {
				s := &singles[f+i/group]
				visible[i] = tokens(int(s.from)-start, int(s.pos)+1-start)
			}
		}
		k, v, next := p.tile(table, l.kv, t, last, head)
		vec.AttendTile(p.Path, q[f*group*hs:], k, v, next, st[f*group*sl:], (e-f)*group, hs, visible, p.ws.p)
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
		for _, at := range plan.places[s.places:][:s.splits()] {
			vec.MergeState(p.Path, tot, p.splitState(plan, head, int(at)), group, hs)
		}
		vec.FinishState(p.Path, tot, out[head*group*hs:], group, hs)
	}
	p.fill(p.mid, int(s.out), 0, out, o.Format.Quantized())
}
