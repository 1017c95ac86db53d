// Package store keeps KV blocks in tiers. The memory tier is an arena of equal blocks that the engine reads and writes
// in place; which block holds what is decided in package cache.
package store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"kvasir/internal/mmap"
)

// Memory is the memory tier: a fixed number of blocks in one anonymous mapping. What was never written costs no
// physical memory, but for the rest of a large page. Blocks are handed out by package cache; Memory does no bookkeeping and is safe for concurrent use of
// different blocks.
type Memory struct {
	m     *mmap.Mapping
	size  int // bytes of a block, a multiple of 64
	count int

	reached atomic.Int32 // one more than the last block that was written
	busy    atomic.Int64 // when that was last said, in nanoseconds after start
	start   time.Time
	more    chan struct{}
	done    chan struct{}
	closing sync.Once
	ended   sync.WaitGroup
}

// Getting memory from the system takes milliseconds where a step has a few, above all on virtual machines. So it is got ahead of the blocks in
// use: at least some, whatever it costs, and more while nothing is computed.
const (
	leastAhead = 32 << 20
	mostAhead  = 256 << 20
	unitAhead  = 8 << 20
	idleAfter  = 20 * time.Millisecond
)

// NewMemory maps count blocks of size bytes each (rounded up to 64).
func NewMemory(count, size int) (*Memory, error) {
	size = (size + 63) &^ 63
	if count < 1 || size < 64 || count > (1<<62)/size {
		return nil, fmt.Errorf("memory tier of %d blocks of %d bytes is not possible", count, size)
	}
	m, err := mmap.Anon(count * size)
	if err != nil {
		return nil, fmt.Errorf("memory tier of %d bytes: %w", count*size, err)
	}
	m.Huge()
	t := &Memory{m: m, size: size, count: count, start: time.Now(), more: make(chan struct{}, 1), done: make(chan struct{})}
	t.busy.Store(-int64(idleAfter))
	t.ended.Go(t.populate)
	return t, nil
}

// Blocks is the number of blocks.
func (m *Memory) Blocks() int { return m.count }

// BlockBytes is the size of one block.
func (m *Memory) BlockBytes() int { return m.size }

// Block is block id as f16 values. The slice aliases the arena and is valid until Close.
func (m *Memory) Block(id int32) []uint16 {
	b := m.m.Data[int(id)*m.size : (int(id)+1)*m.size]
	return unsafe.Slice((*uint16)(unsafe.Pointer(&b[0])), len(b)/2)
}

// Reach tells that blocks below n are about to be written. Blocks are handed out in rising order at first, so that those after them come next. It
// never waits.
func (m *Memory) Reach(n int) {
	m.busy.Store(int64(time.Since(m.start)))
	if n > int(m.reached.Load()) {
		m.reached.Store(int32(n))
		select {
		case m.more <- struct{}{}:
		default:
		}
	}
}

// populate gets physical memory ahead of the blocks in use.
func (m *Memory) populate() {
	end := m.size * m.count
	for mark := 0; mark < end; {
		reached := int(m.reached.Load()) * m.size
		if mark >= reached+mostAhead {
			select {
			case <-m.more:
			case <-m.done:
				return
			}
			continue
		}
		if wait := idleAfter - time.Since(m.start) + time.Duration(m.busy.Load()); wait > 0 && mark >= reached+leastAhead {
			select {
			case <-time.After(wait):
			case <-m.done:
				return
			}
			continue
		}
		n := min(unitAhead, end-mark)
		m.m.Populate(mark, n)
		mark += n
		select {
		case <-m.done:
			return
		default:
		}
	}
}

// Close unmaps the arena.
func (m *Memory) Close() error {
	m.closing.Do(func() { close(m.done) })
	m.ended.Wait()
	return m.m.Close()
}
