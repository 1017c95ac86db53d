// Package store keeps KV blocks in tiers. The memory tier is an arena of equal blocks that the engine reads and writes
// in place; which block holds what is decided in package cache.
package store

import (
	"fmt"
	"unsafe"

	"kvasir/internal/mmap"
)

// Memory is the memory tier: a fixed number of blocks in one anonymous mapping. Bytes that were never written cost no
// physical memory. Blocks are handed out by package cache; Memory does no bookkeeping and is safe for concurrent use of
// different blocks.
type Memory struct {
	m     *mmap.Mapping
	size  int // bytes of a block, a multiple of 64
	count int
}

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
	return &Memory{m, size, count}, nil
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

// Close unmaps the arena.
func (m *Memory) Close() error { return m.m.Close() }
