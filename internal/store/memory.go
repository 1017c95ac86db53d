// Package store keeps KV blocks in tiers. The memory tier is an arena of equal blocks that the engine reads and writes
// in place; which block holds what is decided in package cache.
package store

import (
	"fmt"
	"sync"
	"sync/atomic"
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

	// Blocks below the mark are backed by physical memory, or will be in a moment: getting it from the system takes milliseconds, which no
	// step is to wait for.
	mark    atomic.Int32
	more    chan struct{}
	closing sync.Once
	ended   sync.WaitGroup
}

// aheadBytes is how much memory beyond the blocks in use is got ahead of them.
const aheadBytes = 64 << 20

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
	t := &Memory{m: m, size: size, count: count, more: make(chan struct{}, 1)}
	t.ended.Go(t.populate)
	t.more <- struct{}{}
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

// Reach tells that block id is about to be written. Blocks are handed out in rising order at first, so that those after it come next.
// It never waits.
func (m *Memory) Reach(id int32) {
	mark := int(m.mark.Load())
	if mark < m.count && int(id)+aheadBytes/m.size/2 >= mark {
		select {
		case m.more <- struct{}{}:
		default:
		}
	}
}

// populate gets physical memory ahead of the blocks in use, whenever Reach says that they come near to the mark.
func (m *Memory) populate() {
	for range m.more {
		from := int(m.mark.Load())
		to := min(m.count, from+max(1, aheadBytes/m.size))
		m.m.Populate(from*m.size, (to-from)*m.size)
		m.mark.Store(int32(to))
	}
}

// Close unmaps the arena. Reach must not be called any more.
func (m *Memory) Close() error {
	m.closing.Do(func() { close(m.more) })
	m.ended.Wait()
	return m.m.Close()
}
