package token

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync"
)

// A Memo remembers the ids of chunks of text (chunk.go), so that a long prompt which comes again, or begins like
// another, or was changed in one place, is not encoded anew but for the chunks that differ. A chunk's ids depend on its
// bytes alone, and these are compared, so that a memo never changes a result. Safe for concurrent use.
//
// Each tenant finds only its own chunks: how long encoding takes tells nobody what another has sent. What is remembered is
// bounded in bytes, those of all tenants together; what was not used for long goes first. So a tenant can notice that others
// sent text that was new, and how much, by the loss of its own chunks.
type Memo struct {
	t    *Tokenizer
	seed maphash.Seed
	half int // bytes of a generation

	mu         sync.Mutex
	young, old map[uint64]*chunk // by hash; what is used moves to the young, and when these are full they become the old
	size       int               // bytes of the young
}

type chunk struct {
	tenant, text string
	ids          []int32
}

// chunkBytes is about what a chunk takes beside its text and ids: itself, its place in the map, rounding.
const chunkBytes = 128

// bytes is what the chunk takes in memory.
func (c *chunk) bytes() int { return len(c.text) + 4*len(c.ids) + chunkBytes }

// NewMemo returns an empty memo that takes up to some limit bytes.
func (t *Tokenizer) NewMemo(limit int) *Memo {
	return &Memo{t: t, seed: maphash.MakeSeed(), half: limit / 2, young: map[uint64]*chunk{}}
}

// Encode is Tokenizer.Encode with what the memo remembers of the tenant's texts.
func (m *Memo) Encode(dst []int32, tenant, text string, o Options) []int32 {
	scope := maphash.String(m.seed, tenant) | 1
	return m.t.encode(slices.Grow(dst, len(text)/4), text, o, func(dst []int32, part string, open bool) []int32 {
		for i := 0; i < len(part); {
			end := m.t.chunkEnd(part, i)
			chunk := part[i:end]
			if i == 0 && m.t.cfg.AddSpacePrefix {
				chunk = " " + chunk
			}
			dst = m.append(dst, tenant, scope, chunk, open && end == len(part))
			i = end
		}
		return dst
	})
}

// minRemembered is the length in bytes from which finding a chunk is quicker than encoding it.
const minRemembered = 24

// append appends the ids of one chunk. One that is open, being the end of a text that may go on, is not remembered
// unless it is long: with every keystroke there would be another.
func (m *Memo) append(dst []int32, tenant string, scope uint64, text string, open bool) []int32 {
	if len(text) < minRemembered || open && len(text) < maxChunk {
		return m.t.appendText(dst, text)
	}
	key := maphash.String(m.seed, text) * scope // a product of odd factors loses nothing
	if c := m.find(key, tenant, text); c != nil {
		return append(dst, c.ids...)
	}
	from := len(dst)
	dst = m.t.appendText(dst, text)
	m.remember(key, &chunk{tenant: tenant, text: strings.Clone(text), ids: slices.Clone(dst[from:])})
	return dst
}

func (m *Memo) find(key uint64, tenant, text string) *chunk {
	m.mu.Lock()
	c, young := m.young[key]
	if c == nil {
		c = m.old[key]
	}
	if c == nil || c.tenant != tenant {
		m.mu.Unlock()
		return nil
	}
	if !young {
		m.add(key, c)
	}
	m.mu.Unlock()
	if c.text != text { // chunks do not change, so this needs no lock
		return nil
	}
	return c
}

func (m *Memo) remember(key uint64, c *chunk) {
	if c.bytes() > m.half/4 {
		return
	}
	m.mu.Lock()
	m.add(key, c)
	m.mu.Unlock()
}

// add puts a chunk among the young. mu is held.
func (m *Memo) add(key uint64, c *chunk) {
	if m.size+c.bytes() > m.half {
		m.old, m.young, m.size = m.young, make(map[uint64]*chunk, len(m.young)), 0
	}
	if was := m.young[key]; was != nil {
		m.size -= was.bytes()
	}
	m.young[key] = c
	m.size += c.bytes()
}
