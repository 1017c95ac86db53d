package sched

import (
	"errors"
	"fmt"
	"sync"
	"time"
	"unsafe"

	"kvasir/internal/engine"
)

// A Fake is an engine whose KV is a hash of the tokens up to a row, so that whoever reads a wrong row finds out, and whose logits hold that hash
// and the token that its Text says.
type Fake struct {
	Text func(tokens []int32) int32 // the next token
	Rows int

	blockSize int
	kv        [][]fakeRow

	mu      sync.Mutex
	batches [][]Shape
	logits  [][]float32
}

// A Shape is a segment of a batch that a Fake was given.
type Shape struct{ N, Pos, Logits int }

type fakeRow struct {
	hash  uint64
	token int32
}

// FakeVocab is the width of a Fake's logits: four parts of the hash, then the token.
const FakeVocab = 5

// NewFake makes a Fake of so many blocks.
func NewFake(blocks, blockSize, rows int, text func([]int32) int32) *Fake {
	f := &Fake{Text: text, Rows: rows, blockSize: blockSize, kv: make([][]fakeRow, blocks), logits: make([][]float32, rows)}
	for i := range f.kv {
		f.kv[i] = make([]fakeRow, blockSize)
	}
	for i := range f.logits {
		f.logits[i] = make([]float32, FakeVocab)
	}
	return f
}

// FakeHash is the hash of a row behind that of the row before.
func FakeHash(before uint64, token int32) uint64 {
	h := (before ^ uint64(uint32(token))) * 0x9E3779B97F4A7C15
	return h ^ h>>31
}

// FakeLogits takes logits apart.
func FakeLogits(logits []float32) (hash uint64, token int32) {
	for i := range 4 {
		hash |= uint64(logits[i]) << (16 * i)
	}
	return hash, int32(logits[4])
}

func (f *Fake) row(table []int32, pos int) *fakeRow {
	return &f.kv[table[pos/f.blockSize]][pos%f.blockSize]
}

// Step implements Engine. It checks all rows that a real engine would read.
func (f *Fake) Step(b *engine.Batch) error {
	var shapes []Shape
	row, logit := 0, 0
	for _, g := range b.Segs {
		shapes = append(shapes, Shape{g.N, g.Pos, g.Logits})
		if g.Start != row || g.N < 1 || len(g.Table)*f.blockSize < g.Pos+g.N || g.Logits > g.N {
			return fmt.Errorf("malformed segment %+v", g)
		}
		hash := uint64(0)
		var tokens []int32
		for p := range g.Pos {
			r := f.row(g.Table, p)
			tokens = append(tokens, r.token)
			if hash = FakeHash(hash, r.token); hash != r.hash {
				return fmt.Errorf("row %d below position %d is of other tokens", p, g.Pos)
			}
		}
		for i := range g.N {
			t := b.Tokens[row]
			row++
			tokens = append(tokens, t)
			hash = FakeHash(hash, t)
			*f.row(g.Table, g.Pos+i) = fakeRow{hash, t}
			if i >= g.N-g.Logits {
				l := f.logits[logit]
				logit++
				for k := range 4 {
					l[k] = float32(hash >> (16 * k) & 0xffff)
				}
				l[4] = float32(f.Text(tokens))
			}
		}
	}
	if row != len(b.Tokens) || row > f.Rows {
		return errors.New("malformed batch")
	}
	f.mu.Lock()
	f.batches = append(f.batches, shapes)
	f.mu.Unlock()
	return nil
}

// Batches returns what the steps were so far.
func (f *Fake) Batches() [][]Shape {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.batches
}

// Logits implements Engine.
func (f *Fake) Logits(i int) []float32 { return f.logits[i] }

// MaxRows implements Engine.
func (f *Fake) MaxRows() int { return f.Rows }

// Copy implements Engine.
func (f *Fake) Copy(dst, src int32, n int) {
	clear(f.kv[dst])
	copy(f.kv[dst][:n], f.kv[src])
}

// Bytes implements Engine.
func (f *Fake) Bytes(b int32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&f.kv[b][0])), f.BlockBytes())
}

// BlockBytes is the length of Bytes.
func (f *Fake) BlockBytes() int { return f.blockSize * int(unsafe.Sizeof(fakeRow{})) }

// Extract implements Engine.
func (f *Fake) Extract(dst []byte, b int32, n int) {
	clear(dst)
	copy(dst, f.Bytes(b)[:n*int(unsafe.Sizeof(fakeRow{}))])
}

// Fill implements Engine.
func (f *Fake) Fill(b int32, src []byte, from, to int) {
	size := int(unsafe.Sizeof(fakeRow{}))
	copy(f.Bytes(b)[from*size:to*size], src[from*size:])
}

// Ticks is a clock by which every step takes the same time.
func Ticks(step time.Duration) func() time.Time {
	now := time.Unix(0, 0)
	return func() time.Time {
		now = now.Add(step)
		return now
	}
}
