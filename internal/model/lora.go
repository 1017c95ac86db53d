package model

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
	"kvasir/internal/lora"
	"kvasir/internal/mmap"
)

// An Adapter is a low-rank adapter, packed for one model. It is immutable and safe for concurrent use until Close, as which no step may
// use it any more. The model's own weights stay as they are: any number of adapters share them.
type Adapter struct {
	model  *Model
	deltas []delta // by linear.id; those without a have none
	rank   int     // the largest, padded
	mem    *mmap.Mapping
}

// A delta is what an adapter adds to the output of a matrix for its input x: b·(scale·(a·x)).
type delta struct {
	a, b  *gemm.Matrix // rank × in, and out × padded rank: what is beyond the rank is zero
	scale float32
}

// An AdapterUse is an adapter as a sequence uses it.
type AdapterUse struct {
	Adapter *Adapter
	Scale   float32 // on top of the adapter's own
}

// A place is where a matrix comes from: rows of a tensor.
type place struct {
	tensor string
	span
	in int
}

// Adapt packs an adapter for the model. The file is not needed afterwards. Errors wrap lora.ErrFormat or ErrUnsupported.
func (m *Model) Adapt(f *lora.File) (_ *Adapter, err error) {
	if f.Arch != "" && f.Arch != m.Arch {
		return nil, fmt.Errorf("the adapter is for the architecture %s, the model is %s: %w", f.Arch, m.Arch, ErrUnsupported)
	}
	a := &Adapter{model: m, deltas: make([]delta, len(m.places))}
	var jobs []adapterJob
	for i := range f.Pairs {
		j, err := a.pair(&f.Pairs[i], f.HF)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, j...)
	}
	total := 0
	for _, j := range jobs {
		total += (gemm.Size(j.m.Format, j.m.Out, j.m.In) + 63) &^ 63
	}
	if a.mem, err = mmap.Anon(total); err != nil {
		return nil, fmt.Errorf("memory for %d bytes of an adapter: %w", total, err)
	}
	off := 0
	for _, j := range jobs {
		n := gemm.Size(j.m.Format, j.m.Out, j.m.In)
		j.m.Data = a.mem.Data[off : off+n : off+n]
		off += (n + 63) &^ 63
		if err := j.pack(); err != nil {
			a.mem.Close()
			return nil, fmt.Errorf("%s: %w", j.name, err)
		}
	}
	return a, nil
}

// pair finds the matrices that a pair is for.
func (a *Adapter) pair(p *lora.Pair, hf bool) (jobs []adapterJob, err error) {
	var low *gemm.Matrix
	if p.Base == "token_embd.weight" { // the other way round there, and not a matrix here
		return nil, fmt.Errorf("the adapter changes the token embeddings: %w; matrices of the layers and output.weight are", ErrUnsupported)
	}
	for id := range a.model.places {
		at := &a.model.places[id]
		if at.tensor != p.Base {
			continue
		}
		switch {
		case at.experts():
			return nil, fmt.Errorf("the adapter changes %s: %w; of layers with experts, attention and the router are", p.Base, ErrUnsupported)
		case p.A.Cols != at.in || p.B.Rows != at.rows:
			return nil, fmt.Errorf("the adapter's %s is for %d×%d, the model's is %d×%d: is it another base model? %w", p.Base, p.B.Rows, p.A.Cols, at.rows, at.in, lora.ErrFormat)
		}
		if low == nil {
			j := adapterJob{name: p.Base + " A", src: p.A, rows: span{p.A.Rows, 0, p.A.Rows, nil}}
			if err := j.matrix(p.A.Cols); err != nil {
				return nil, err
			}
			low, jobs = j.m, append(jobs, j)
		}
		j := adapterJob{name: p.Base + " B", src: p.B, rows: at.span}
		if hf {
			j.rows.order = a.model.fromHF(at)
		}
		rank := pad32(p.Rank())
		if err := j.matrix(rank); err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
		a.deltas[id] = delta{low, j.m, float32(p.Scale)}
		a.rank = max(a.rank, rank)
	}
	if low == nil {
		return nil, fmt.Errorf("the adapter changes %s, which the model does not have: is it another base model? %w", p.Base, lora.ErrFormat)
	}
	return jobs, nil
}

// experts says that the tensor has a part for each expert.
func (at *place) experts() bool { return strings.HasSuffix(at.tensor, "_exps.weight") }

// fromHF is the order in which the rows of a matrix lie in Hugging Face's model, as a span has it. It differs from that of GGUF files for
// queries and keys of architectures that turn pairs of neighbours: there pairs are half a head apart in the one, and together in the other.
func (m *Model) fromHF(at *place) []int {
	query := strings.HasSuffix(at.tensor, ".attn_q.weight") || strings.HasSuffix(at.tensor, ".attn_k.weight")
	if !query || !neighbours[m.Arch] {
		return at.order
	}
	order := make([]int, at.n)
	for i := range order {
		head, d := i/m.HeadSize, i%m.HeadSize
		order[i] = head*m.HeadSize + d%2*(m.HeadSize/2) + d/2
	}
	return order
}

// neighbours are the architectures whose GGUF files have been reordered so.
var neighbours = map[string]bool{"llama": true, "mistral3": true}

// An adapterJob is a matrix to pack.
type adapterJob struct {
	name string
	m    *gemm.Matrix
	src  lora.Tensor
	rows span
}

// matrix says how the matrix will be packed. Half floats stay what they are, since the kernels turn them into the same float32 as would be
// stored; everything else becomes float32 here.
func (j *adapterJob) matrix(in int) error {
	format, ok := gemm.FormatFor(uint32(j.src.Type))
	if !ok || format.Quantized() {
		format = gemm.PF32
	}
	if err := gguf.Dequantize(j.src.Type, nil, nil); err != nil {
		return fmt.Errorf("%s: %w: %w", j.name, ErrUnsupported, err)
	}
	if in%32 != 0 {
		return fmt.Errorf("%s has %d inputs: %w; multiples of 32 are", j.name, in, ErrUnsupported)
	}
	j.m = &gemm.Matrix{Format: format, Out: j.rows.n, In: in}
	return nil
}

// pack fills the matrix. The rows of B are padded with zeros.
func (j *adapterJob) pack() error {
	t := &j.src
	size := len(t.Data) / t.Rows
	plain := t.Type != gguf.F32 && j.m.Format == gemm.PF32 // to be dequantised
	values, out := make([]float32, t.Cols), []byte{}
	for i := range j.rows.n {
		at := i
		if j.rows.order != nil {
			at = j.rows.order[i]
		}
		row := t.Data[(j.rows.first+at)*size:][:size]
		width := t.Type.BlockBytes()
		if plain {
			if err := gguf.Dequantize(t.Type, row, values); err != nil {
				return err
			}
			for _, v := range values {
				out = binary.LittleEndian.AppendUint32(out, math.Float32bits(v))
			}
			width = 4
		} else {
			out = append(out, row...)
		}
		out = append(out, make([]byte, (j.m.In-t.Cols)*width)...)
	}
	typ := t.Type
	if plain {
		typ = gguf.F32
	}
	return j.m.Pack(uint32(typ), 0, j.rows.n, out)
}

// Bytes is the adapter's memory.
func (a *Adapter) Bytes() int { return len(a.mem.Data) }

// Close frees the adapter's memory.
func (a *Adapter) Close() error { return a.mem.Close() }

// A run is neighbouring rows that use the same adapters, in order.
type run struct {
	first, end int
	uses       []AdapterUse
	at         int // in a slot of Scratch.low: for each use, a place for the rows, of the adapter's rank each
}

// lowSlots is how many matrices read the same rows at most: queries, keys and values.
const lowSlots = 3

// adapt notes which rows of the batch use adapters: of all, and of those whose logits are wanted.
func (m *Model) adapt(s *Scratch, b *Batch) error {
	s.adapted[0], s.adapted[1] = s.adapted[0][:0], s.adapted[1][:0]
	logit, need := 0, 0
	var at [2]int
	for i := range b.Segs {
		g := &b.Segs[i]
		for _, u := range g.Adapters {
			if u.Adapter == nil || u.Adapter.model != m {
				return fmt.Errorf("segment %d of the batch uses an adapter of another model", i)
			}
		}
		for k, r := range [2]run{{first: g.Start, end: g.Start + g.N}, {first: logit, end: logit + g.Logits}} {
			if r.uses = g.Adapters; len(r.uses) == 0 || r.first == r.end {
				continue
			}
			n := r.end - r.first
			if j := len(s.adapted[k]) - 1; j >= 0 && s.adapted[k][j].end == r.first && slices.Equal(s.adapted[k][j].uses, r.uses) {
				s.adapted[k][j].end = r.end
			} else {
				r.at = at[k]
				s.adapted[k] = append(s.adapted[k], r)
			}
			for _, u := range r.uses {
				at[k] += n * u.Adapter.rank
			}
			need = max(need, at[k])
		}
		logit += g.Logits
	}
	if s.lowSlot = need; lowSlots*need > len(s.low) {
		s.low = make([]float32, lowSlots*(need+need/4))
	}
	return nil
}

// lowRows are the rows of a use of adapters in a run, as its delta's b reads them. at is where the use's place begins.
func (p *pass) lowRows(slot, at int, r *run, d *delta) *gemm.Act {
	x := &p.ws.low
	x.K = d.b.In
	x.F = p.low[slot*p.lowSlot+at:][:(r.end-r.first)*x.K]
	return x
}

// shrink computes scale·(A·x) of the adapted rows x of a, for the matrices that are to read a next. It ends a phase if there is anything to do.
func (p *pass) shrink(a *gemm.Act, readers ...*linear) {
	if len(p.runs) == 0 {
		return
	}
	for i := range p.slots {
		p.slots[i] = -1
		if i < len(readers) {
			p.slots[i] = readers[i].id
		}
	}
	n := 0
	for i := range p.runs {
		n += p.runs[i].tiles(readers)
	}
	if n == 0 {
		return
	}
	i, first := 0, 0 // a run, and its first tile; a worker's tiles mostly rise
	for {
		t, ok := p.w.Next(n)
		if !ok {
			break
		}
		if t < first {
			i, first = 0, 0
		}
		for n := p.runs[i].tiles(readers); t >= first+n; n = p.runs[i].tiles(readers) {
			first += n
			i++
		}
		p.shrinkTile(a, &p.runs[i], t-first, readers)
	}
	p.w.Barrier()
}

// tiles is how many tiles the run makes for the matrices.
func (r *run) tiles(readers []*linear) (n int) {
	for _, u := range r.uses {
		for _, m := range readers {
			n += u.Adapter.deltas[m.id].tiles(r)
		}
	}
	return n
}

// tiles is how many tiles the delta's A makes of a run.
func (d *delta) tiles(r *run) int {
	if d.a == nil {
		return 0
	}
	return d.a.Panels() * ((r.end - r.first + tileRows - 1) / tileRows)
}

// shrinkTile computes tile t of a run.
func (p *pass) shrinkTile(a *gemm.Act, r *run, t int, readers []*linear) {
	at := r.at
	for _, u := range r.uses {
		for slot, m := range readers {
			d := &u.Adapter.deltas[m.id]
			n := d.tiles(r)
			if t >= n {
				t -= n
				continue
			}
			panel, cut := t%d.a.Panels(), t/d.a.Panels()
			r0 := r.first + cut*tileRows
			r1 := min(r.end, r0+tileRows)
			k := d.b.In
			out := p.lowRows(slot, at, r, d).F[(r0-r.first)*k+panel*32:]
			gemm.Mul(p.Path, d.a, panel, a, r0, r1, out, k)
			scale := u.Scale * d.scale
			for i := range r1 - r0 {
				for j := range out[i*k:][:32] {
					out[i*k+j] *= scale
				}
			}
			return
		}
		at += (r.end - r.first) * u.Adapter.rank
	}
}

// expand adds what the adapters of the rows [r0, r1) give to a panel of a matrix, one adapter after the other.
func (p *pass) expand(m *linear, panel, r0, r1 int, out []float32, ld int) {
	for i := range p.runs {
		r := &p.runs[i]
		first, end := max(r0, r.first), min(r1, r.end)
		if first >= end {
			continue
		}
		at := r.at
		for _, u := range r.uses {
			d := &u.Adapter.deltas[m.id]
			for c := first; c < end && d.a != nil; c += ffRows {
				e := min(end, c+ffRows)
				y := p.ws.delta[:(e-c)*32]
				gemm.Mul(p.Path, d.b, panel, p.lowRows(slices.Index(p.slots[:], m.id), at, r, d), c-r.first, e-r.first, y, 32)
				for j := c; j < e; j++ {
					vec.Add(p.Path, out[(j-r0)*ld:][:32], y[(j-c)*32:][:32])
				}
			}
			at += (r.end - r.first) * u.Adapter.rank
		}
	}
}
