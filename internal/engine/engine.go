// Package engine runs one step: rows of several sequences and their block tables in, logits out. It knows block ids,
// never the cache.
package engine

import (
	"fmt"
	"time"
	"unsafe"

	"kvasir/internal/model"
	"kvasir/internal/store"
	"kvasir/internal/team"
)

// What describes a step; see package model.
type (
	Batch      = model.Batch
	Segment    = model.Segment
	AdapterUse = model.AdapterUse
)

// Options of New.
type Options struct {
	Threads int // workers of a step, at least 1
	// CPUs, if there are as many, is where the workers stay; see team.New. Step must then always be called by the same goroutine.
	CPUs    []int
	MaxRows int // rows of a step, at least 1
}

// Engine computes steps of one model over the blocks of one memory tier. It is not safe for concurrent use: the step
// loop owns it.
type Engine struct {
	model   *model.Model
	mem     *store.Memory
	team    *team.Team
	scratch *model.Scratch
	maxRows int
	crew    crew
}

// New makes an engine. The memory tier must have blocks of the model's size.
func New(m *model.Model, mem *store.Memory, o Options) (*Engine, error) {
	if mem.BlockBytes() < m.Layout.BlockBytes() {
		return nil, fmt.Errorf("blocks of %d bytes, the model needs %d", mem.BlockBytes(), m.Layout.BlockBytes())
	}
	if o.Threads < 1 || o.MaxRows < 1 {
		return nil, fmt.Errorf("%d threads and %d rows: both must be at least 1", o.Threads, o.MaxRows)
	}
	return &Engine{m, mem, team.New(o.Threads, o.CPUs), m.NewScratch(o.MaxRows, o.Threads), o.MaxRows, crew{all: o.Threads}}, nil
}

// Step computes the batch: K and V of its rows are in their blocks afterwards, and Logits gives the wanted rows.
func (e *Engine) Step(b *Batch) error {
	e.reach(b)
	n := e.crew.workers(len(b.Tokens))
	start := time.Now()
	late, err := e.model.Forward(e.team, n, e.scratch, b, e.mem)
	e.crew.note(len(b.Tokens), n, time.Since(start), late)
	return err
}

// reach tells the memory tier which blocks the step writes.
func (e *Engine) reach(b *Batch) {
	last, size := 0, e.model.Layout.BlockSize
	for i := range b.Segs {
		g := &b.Segs[i]
		for j := max(0, g.Pos/size); j < len(g.Table) && j*size < g.Pos+g.N; j++ {
			last = max(last, int(g.Table[j])+1)
		}
	}
	e.mem.Reach(last)
}

// Logits is row i of the wanted rows of the last Step, in the batch's order. Valid until the next Step.
func (e *Engine) Logits(i int) []float32 { return e.model.LogitRow(e.scratch, i) }

// MaxRows is the largest number of rows of a step.
func (e *Engine) MaxRows() int { return e.maxRows }

// Copy copies the KV of the first n tokens of block src into dst and zeroes the rest of dst.
func (e *Engine) Copy(dst, src int32, n int) {
	e.mem.Reach(int(dst) + 1)
	e.model.Layout.CopyTokens(e.mem.Block(dst), e.mem.Block(src), n)
}

// The three methods below are for lower tiers. They may be called beside Step and by several goroutines, for blocks of which no other reads or
// writes the same rows.

// Bytes is a whole block as it lies in memory.
func (e *Engine) Bytes(block int32) []byte {
	b := e.mem.Block(block)
	return unsafe.Slice((*byte)(unsafe.Pointer(&b[0])), e.model.Layout.BlockBytes())
}

// Extract copies the KV of the first n tokens of a block into dst, which is as long as Bytes, and zeroes the rest of dst.
func (e *Engine) Extract(dst []byte, block int32, n int) {
	e.model.Layout.CopyTokens(halves(dst), e.mem.Block(block)[:e.model.Layout.BlockBytes()/2], n)
}

// Fill copies the KV of the tokens [from, to) of src, which is as long as Bytes, into a block.
func (e *Engine) Fill(block int32, src []byte, from, to int) {
	dst := e.mem.Block(block)[:e.model.Layout.BlockBytes()/2]
	if from == 0 && to == e.model.Layout.BlockSize {
		copy(dst, halves(src))
		return
	}
	e.model.Layout.CopyRows(dst, halves(src), from, to)
}

// halves is b, which begins at an even address, as f16 values.
func halves(b []byte) []uint16 { return unsafe.Slice((*uint16)(unsafe.Pointer(&b[0])), len(b)/2) }

// Close ends the workers. The model and the memory tier stay open.
func (e *Engine) Close() { e.team.Close() }
