package store

import (
	"sync"
	"testing"
)

// Blocks are apart, whole, zero at first, and stay what they are while memory is got ahead of them.
func TestMemory(t *testing.T) {
	const count, size = 40, 3<<20 + 2
	m, err := NewMemory(count, size)
	if err != nil {
		t.Fatal(err)
	}
	if m.Blocks() != count || m.BlockBytes() != (size+63)&^63 {
		t.Fatalf("%d blocks of %d bytes", m.Blocks(), m.BlockBytes())
	}
	var wg sync.WaitGroup
	for id := range int32(count) {
		m.Reach(int(id) + 1)
		wg.Go(func() {
			b := m.Block(id)
			for i := range b {
				if b[i] != 0 {
					t.Errorf("block %d is not empty at first", id)
					return
				}
				b[i] = uint16(id) + 1
			}
		})
	}
	wg.Wait()
	m.Reach(count)
	for id := range int32(count) {
		for _, x := range m.Block(id) {
			if x != uint16(id)+1 {
				t.Fatalf("block %d was changed", id)
			}
		}
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryErrors(t *testing.T) {
	for _, c := range [][2]int{{0, 64}, {1, 0}, {-1, 64}, {1 << 60, 1 << 20}} {
		if _, err := NewMemory(c[0], c[1]); err == nil {
			t.Errorf("%d blocks of %d bytes were given", c[0], c[1])
		}
	}
}
