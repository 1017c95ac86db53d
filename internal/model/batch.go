package model

import (
	"fmt"

	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
)

// A Segment is the part of one sequence that a step computes: rows [Start, Start+N) of the batch, at positions
// [Pos, Pos+N) of the sequence. The KV of positions below Pos must already be in the blocks of Table.
type Segment struct {
	Start, N int
	Pos      int
	Table    []int32 // block of position p is Table[p/BlockSize]; covers Pos+N
	Logits   int     // of the last so many rows, logits are computed
}

// A Batch is the input of one step: token ids of all rows, and which sequence they belong to.
type Batch struct {
	Tokens []int32
	Segs   []Segment
}

// Blocks gives the memory of a KV block as f16 values.
type Blocks interface{ Block(id int32) []uint16 }

// splitTiles is the number of tiles of an attention split, part of the numerics.
const splitTiles = 8

// An item of attention: one KV head over either all splits of several rows, or one split of one row.
type attnItem struct {
	seg    int32
	head   int32
	row    int32 // first row of the batch
	rows   int32
	split  int32 // -1: all
	single int32 // which of the single rows, if split
}

// Scratch holds the buffers of a step. It belongs to one caller of Forward at a time.
type Scratch struct {
	maxRows int

	x, proj  []float32 // [row][embd]: the residual stream, and what is to be added to it
	qkv      []float32 // [row][q, k, v]
	q        []float32 // [KV head][row][group * head size]
	attn     []float32 // [row][heads * head size]
	norm     *gemm.Act // normalised rows
	mid      *gemm.Act // attention output
	ff       *gemm.Act // feed-forward activations
	last     *gemm.Act // rows whose logits are wanted
	logits   []float32 // [logit row][padded vocab]
	logitRow []int32   // batch row of each logit row
	rowSeg   []int32
	items    []attnItem
	single   []int32   // rows whose attention is split over workers
	splitOff []int32   // of each single row, the splits of the ones before it; then the sum
	splitSt  []float32 // for each single row [KV head][split][group state]
	w        []workerScratch
}

type workerScratch struct {
	row     []float32 // one row, as wide as the widest
	gate    []float32 // [ffRows][32]
	up      []float32
	st, tot []float32
	nv      []int32
	p       []float32
}

// ffRows is how many rows of a feed-forward panel are kept in cache before they are quantised.
const ffRows = 64

// attnRows is about how many query rows share a pass over the KV tiles; more would leave the L1 cache.
const attnRows = 24

// NewScratch makes buffers for steps of up to maxRows rows on the given number of workers.
func (m *Model) NewScratch(maxRows, workers int) *Scratch {
	qd, kvd := m.Heads*m.HeadSize, m.KVHeads*m.HeadSize
	s := &Scratch{
		maxRows: maxRows,
		x:       make([]float32, maxRows*m.Embd),
		proj:    make([]float32, maxRows*pad32(m.Embd)),
		qkv:     make([]float32, maxRows*(pad32(qd)+2*pad32(kvd))),
		q:       make([]float32, maxRows*qd),
		attn:    make([]float32, maxRows*qd),
		norm:    gemm.NewAct(maxRows, m.Embd),
		mid:     gemm.NewAct(maxRows, qd),
		ff:      gemm.NewAct(maxRows, m.FF),
		rowSeg:  make([]int32, maxRows),
	}
	g := max(attnRows, m.Group())
	sl := vec.StateLen(m.HeadSize)
	for range workers {
		s.w = append(s.w, workerScratch{
			row:  make([]float32, max(m.Embd, m.FF, qd)),
			gate: make([]float32, ffRows*32),
			up:   make([]float32, ffRows*32),
			st:   make([]float32, g*sl),
			tot:  make([]float32, g*sl),
			nv:   make([]int32, g),
			p:    make([]float32, vec.ScratchLen()),
		})
	}
	return s
}

func pad32(n int) int { return (n + 31) &^ 31 }

// prepare checks the batch and lays out its attention.
func (m *Model) prepare(s *Scratch, b *Batch) error {
	n := len(b.Tokens)
	if n == 0 || n > s.maxRows {
		return fmt.Errorf("a step of %d rows; between 1 and %d are possible", n, s.maxRows)
	}
	for _, t := range b.Tokens {
		if t < 0 || int(t) >= m.Vocab {
			return fmt.Errorf("token id %d is outside the vocabulary of %d", t, m.Vocab)
		}
	}
	s.items, s.single, s.logitRow = s.items[:0], s.single[:0], s.logitRow[:0]
	s.splitOff = append(s.splitOff[:0], 0)
	most := 0 // splits of the longest single row
	at := 0
	for i := range b.Segs {
		g := &b.Segs[i]
		if g.Start != at || g.N < 1 || g.Pos < 0 || g.Pos+g.N > m.Context || len(g.Table)*m.Layout.BlockSize < g.Pos+g.N || g.Logits < 0 || g.Logits > g.N {
			return fmt.Errorf("segment %d of the batch is malformed: %d rows from %d at position %d with %d blocks", i, g.N, g.Start, g.Pos, len(g.Table))
		}
		at += g.N
		m.rope.prepare(g.Pos, g.Pos+g.N)
		for r := g.Start; r < at; r++ {
			s.rowSeg[r] = int32(i)
		}
		for r := at - g.Logits; r < at; r++ {
			s.logitRow = append(s.logitRow, int32(r))
		}
		if g.N <= 2 {
			for r := g.Start; r < at; r++ {
				splits := (g.Pos+r-g.Start)/(splitTiles*vec.TileTokens) + 1
				most = max(most, splits)
				s.single = append(s.single, int32(r))
				s.splitOff = append(s.splitOff, s.splitOff[len(s.splitOff)-1]+int32(splits))
			}
		}
	}
	if at != n {
		return fmt.Errorf("%d rows in segments, %d tokens", at, n)
	}
	// Long items first, so that no worker is left alone with one at the end.
	step := max(1, attnRows/m.Group())
	for i := range b.Segs {
		g := &b.Segs[i]
		if g.N <= 2 {
			continue
		}
		for r := (g.N - 1) / step * step; r >= 0; r -= step {
			for h := range m.KVHeads {
				s.items = append(s.items, attnItem{int32(i), int32(h), int32(g.Start + r), int32(min(step, g.N-r)), -1, 0})
			}
		}
	}
	// Of single rows, the same head and split of all sequences come together: shared blocks are then in cache.
	for sp := range most {
		for h := range m.KVHeads {
			for i, r := range s.single {
				if sp < int(s.splitOff[i+1]-s.splitOff[i]) {
					s.items = append(s.items, attnItem{s.rowSeg[r], int32(h), r, 1, int32(sp), int32(i)})
				}
			}
		}
	}
	need := int(s.splitOff[len(s.single)]) * m.KVHeads * m.Group() * vec.StateLen(m.HeadSize)
	if need > len(s.splitSt) || need < len(s.splitSt)/8 { // a long sequence that is gone gives its memory back
		s.splitSt = make([]float32, need+need/4)
	}
	if nl := len(s.logitRow); nl > 0 && (s.last == nil || nl*pad32(m.Vocab) > len(s.logits)) {
		s.last = gemm.NewAct(nl, m.Embd)
		s.logits = make([]float32, nl*pad32(m.Vocab))
	}
	return nil
}

// LogitRow is row i of the logits of the last Forward, counted over the batch's wanted rows. It is valid until the
// next Forward.
func (m *Model) LogitRow(s *Scratch, i int) []float32 {
	v := pad32(m.Vocab)
	return s.logits[i*v : i*v+m.Vocab]
}
