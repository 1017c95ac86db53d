package grammar

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"
)

// A Cache keeps compiled grammars of one vocabulary, the latest ones used, as long as they take no more memory than its limit. It is safe for
// concurrent use. Schemas are a tenant's own text: whether one is kept already shows in the time that a request takes, so tenants do not share any.
type Cache struct {
	vocabulary *Vocabulary
	limit      int

	mu      sync.Mutex
	entries map[[sha256.Size]byte]*entry
	clock   uint64
}

// shrinkEvery is after how many uses it is looked whether grammars have grown, as they do with what is remembered of them.
const shrinkEvery = 16

// An entry is a grammar that is being compiled or is there.
type entry struct {
	ready   chan struct{} // closed when grammar and err are set
	grammar *Grammar
	err     error
	used    uint64
}

// NewCache makes an empty cache of at most limit bytes.
func NewCache(v *Vocabulary, limit int) *Cache {
	return &Cache{vocabulary: v, limit: limit, entries: map[[sha256.Size]byte]*entry{}}
}

// Get compiles a Spec for a tenant, or returns what was compiled before. Errors are those of Compile, and are not kept.
func (c *Cache) Get(tenant string, s Spec) (*Grammar, error) {
	key := keyOf(tenant, s)
	c.mu.Lock()
	c.clock++
	e := c.entries[key]
	if e == nil {
		e = &entry{ready: make(chan struct{}), used: c.clock}
		c.entries[key] = e
		c.mu.Unlock()
		c.compile(key, e, s)
		return e.grammar, e.err
	}
	e.used = c.clock
	if c.clock%shrinkEvery == 0 {
		c.shrink()
	}
	c.mu.Unlock()
	<-e.ready
	return e.grammar, e.err
}

// compile fills the entry and drops others if they take too much.
func (c *Cache) compile(key [sha256.Size]byte, e *entry, s Spec) {
	defer func() {
		if e.grammar == nil && e.err == nil { // a panic: whoever waits must not wait for ever
			e.err = &Error{Message: "it could not be compiled"}
		}
		close(e.ready)
		c.mu.Lock()
		defer c.mu.Unlock()
		if e.err != nil {
			delete(c.entries, key)
		}
		c.shrink()
	}()
	e.grammar, e.err = Compile(c.vocabulary, s)
}

// shrink drops the grammars whose last use is longest ago. Who uses one goes on with it. mu is held.
func (c *Cache) shrink() {
	type sized struct {
		key   [sha256.Size]byte
		bytes int
		used  uint64
	}
	total := 0
	var done []sized
	for key, e := range c.entries {
		select {
		case <-e.ready:
			if e.grammar != nil {
				n := e.grammar.Bytes()
				total += n
				done = append(done, sized{key, n, e.used})
			}
		default:
		}
	}
	for total > c.limit && len(done) > 0 {
		oldest := 0
		for i := range done {
			if done[i].used < done[oldest].used {
				oldest = i
			}
		}
		total -= done[oldest].bytes
		delete(c.entries, done[oldest].key)
		done[oldest] = done[len(done)-1]
		done = done[:len(done)-1]
	}
}

// Len is how many grammars are kept.
func (c *Cache) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.entries)
}

// keyOf is the same for equal Specs of a tenant.
func keyOf(tenant string, s Spec) (key [sha256.Size]byte) {
	h := sha256.New()
	write := func(text string) {
		var n [8]byte
		binary.LittleEndian.PutUint64(n[:], uint64(len(text)))
		h.Write(n[:])
		h.Write([]byte(text))
	}
	flag := "0"
	if s.Compact {
		flag = "1"
	}
	write(tenant)
	write(string(rune('0'+s.Kind)) + flag)
	write(s.Text)
	for _, choice := range s.Choices {
		write(choice)
	}
	h.Sum(key[:0])
	return key
}
