package model

import (
	"math"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
)

// experts are feed-forward networks of which each row uses a few: those with the largest routing scores, weighed by the softmax over
// these (which is the softmax over all, normalised to a sum of 1).
type experts struct {
	router         linear
	gate, up, down []linear // one each
	used           int
}

// A choice is an expert that a row uses.
type choice struct {
	expert int32
	weight float32
}

// expertRows is the scratch of a worker: which rows an expert is used by. A slot is one use of an expert by a row: row*used + rank.
type expertRows struct {
	first  []int32 // of each expert, in order; and the end
	order  []int32 // slots, those of one expert next to each other
	place  []int32 // of each slot in order
	active []int32 // experts that are used
}

func (m *Model) newExpertRows(maxRows int) expertRows {
	if m.Experts == 0 {
		return expertRows{}
	}
	n := maxRows * m.Used
	return expertRows{make([]int32, m.Experts+1), make([]int32, n), make([]int32, n), make([]int32, 0, m.Experts)}
}

// mix computes the experts' outputs for the first n normalised rows; mixed adds them up. The rows of each expert lie next to each other,
// so that its weights are read once. It ends the phase.
func (p *pass) mix(l *feedForward, n int) {
	x := l.experts
	p.shrink(p.norm, &x.router)
	p.matmul(p.norm, n, p.routes, x.router)
	for r := range p.each(n) {
		p.route(x, r)
	}
	p.meet()
	p.ws.experts.assign(p.choices[:n*x.used])
	rows := &p.ws.experts
	in, readers := p.gathered, [2]bool{x.gate[0].Format.Quantized(), x.up[0].Format.Quantized()}
	for i := range p.each(n * x.used) {
		from := int(rows.order[i]) / x.used
		for j, quantised := range readers {
			if j == 0 || quantised != readers[0] {
				copyRow(in, i, p.norm, from, quantised)
			}
		}
	}
	p.meet()
	quantised := x.down[0].Format.Quantized()
	p.expertTiles(x.gate[0].Panels(), func(e, panel, r0, r1 int) { p.gate(l, &x.gate[e], &x.up[e], panel, in, r0, r1, quantised) })
	ld := pad32(p.Embd)
	p.expertTiles(x.down[0].Panels(), func(e, panel, r0, r1 int) {
		p.mul(&x.down[e], panel, p.ff, r0, r1, p.expertOut[r0*ld+panel*32:], ld)
	})
}

// route chooses the experts of row r, the largest score first and the first expert among equals, and weighs them.
func (p *pass) route(x *experts, r int) {
	scores := p.routes[r*x.router.Panels()*32:][:p.Experts]
	picks := p.choices[r*x.used:][:0]
	for e, s := range scores {
		i := len(picks)
		if i < x.used {
			picks = picks[:i+1]
		} else if i--; s <= picks[i].weight {
			continue
		}
		for ; i > 0 && s > picks[i-1].weight; i-- {
			picks[i] = picks[i-1]
		}
		picks[i] = choice{int32(e), s}
	}
	top, sum := picks[0].weight, float32(0)
	for i := range picks {
		picks[i].weight = kernel.Exp2(float32(picks[i].weight-top) * float32(math.Log2E))
		sum += picks[i].weight
	}
	for i := range picks {
		picks[i].weight /= sum
	}
}

// assign sorts the slots of the choices by expert, and by row within one.
func (w *expertRows) assign(choices []choice) {
	clear(w.first)
	for _, c := range choices {
		w.first[c.expert+1]++
	}
	w.active = w.active[:0]
	for e := range w.first[1:] {
		if w.first[e+1] > 0 {
			w.active = append(w.active, int32(e))
		}
		w.first[e+1] += w.first[e]
	}
	// Each place is found by counting first up, which leaves first one expert ahead.
	for slot, c := range choices {
		at := w.first[c.expert]
		w.order[at], w.place[slot] = int32(slot), at
		w.first[c.expert]++
	}
	copy(w.first[1:], w.first)
	w.first[0] = 0
}

// copyRow copies a row of activations.
func copyRow(dst *gemm.Act, i int, src *gemm.Act, from int, quantised bool) {
	k := src.K
	if !quantised {
		copy(dst.F[i*k:][:k], src.F[from*k:])
		return
	}
	copy(dst.Q[i*k:][:k], src.Q[from*k:])
	s, n := len(src.S)*k/len(src.Q), len(src.N)*k/len(src.Q) // of a row
	copy(dst.S[i*s:][:s], src.S[from*s:])
	copy(dst.N[i*n:][:n], src.N[from*n:])
}

// expertTiles calls f with every expert that is used, each of its panels and its rows among the gathered ones. It ends the phase.
func (p *pass) expertTiles(panels int, f func(e, panel, r0, r1 int)) {
	rows := &p.ws.experts
	for {
		t, ok := p.w.Next(len(rows.active) * panels)
		if !ok {
			break
		}
		e := int(rows.active[t/panels])
		f(e, t%panels, int(rows.first[e]), int(rows.first[e+1]))
	}
	p.w.Barrier()
}

// mixed is the weighed sum of the experts' outputs for row k, in the order of their ranks. It is in the worker's scratch.
func (p *pass) mixed(x *experts, k int) []float32 {
	row := p.ws.mixed[:p.Embd]
	clear(row)
	for i := k * x.used; i < (k+1)*x.used; i++ {
		at := int(p.ws.experts.place[i]) * pad32(p.Embd)
		vec.AddScaled(p.Path, row, p.expertOut[at:][:p.Embd], p.choices[i].weight)
	}
	return row
}
