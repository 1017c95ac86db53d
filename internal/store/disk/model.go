package disk

import (
	"fmt"
	"sync"
	"time"

	"kvasir/internal/cache"
	"kvasir/internal/store"
)

// A Model is the part of a Tier that one served model uses. It implements store.Tier.
type Model struct {
	tier   *Tier
	format Format

	mu     sync.RWMutex
	scopes map[cache.Key][32]byte // by root
}

var _ store.Tier = (*Model)(nil)

// Model gives a model its part. The error is about a format that records cannot hold.
func (t *Tier) Model(f Format) (*Model, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	return &Model{tier: t, format: f, scopes: map[cache.Key][32]byte{}}, nil
}

// Root makes a root key known with the scope of its tenant, which is noted in the records. Nothing is found or saved under others.
func (m *Model) Root(root cache.Key, scope []byte) error {
	var s [32]byte
	if copy(s[:], scope) != len(scope) {
		return fmt.Errorf("disk: a scope of %d bytes", len(scope))
	}
	m.mu.Lock()
	m.scopes[root] = s
	m.mu.Unlock()
	return nil
}

// meta is what the header of a record must say.
func (m *Model) meta(r *record) *Meta {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return &Meta{Format: m.format, Key: r.key, Parent: r.parent, Root: r.root, Scope: m.scopes[r.root], Tokens: r.tokens}
}

func (m *Model) knows(root cache.Key) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.scopes[root]
	return ok
}

// Find implements store.Tier.
func (m *Model) Find(root cache.Key, prompt []int32, from int) store.Found {
	t := m.tier
	if len(prompt) < 2 || !m.knows(root) || t.reads.hangs() {
		return store.Found{}
	}
	t.mu.Lock()
	path, tokens, continues := t.index.find(root, prompt, m.format.BlockSize, len(prompt)-1, time.Now().UnixNano())
	t.mu.Unlock()
	f := store.Found{Tokens: tokens, Continues: continues, First: from / m.format.BlockSize}
	if tokens > from {
		l := &load{model: m, records: path[f.First:], first: f.First}
		var n int64
		for _, r := range l.records {
			n += r.size
		}
		all, perByte := t.reads.seconds(n)
		f.Blocks, f.Seconds, f.Each, f.Handle = len(l.records), all, perByte*float64(n)/float64(len(l.records)), l
	}
	return f
}

// Load implements store.Tier.
func (m *Model) Load(f store.Found, s store.Sink) {
	l, ok := f.Handle.(*load)
	if !ok || l.sink != nil {
		panic("disk: Load of what Find did not find, or twice")
	}
	l.sink = s
	m.tier.reads.put(l)
}

// Declined implements store.Tier.
func (m *Model) Declined() { m.tier.reads.faster() }

// Save implements store.Tier.
func (m *Model) Save(s *cache.Save, kv store.Source, done func(cache.Outcome)) bool {
	if time.Now().UnixNano() < m.tier.paused.Load() {
		return false
	}
	r := record{key: s.Key, parent: s.Parent, root: s.Root, tokens: s.Tokens}
	if !m.knows(s.Root) { // it will not be kept
		go done(cache.SaveDone)
		return true
	}
	select {
	case <-m.tier.stop:
		return false
	default:
	}
	select {
	case m.tier.saves <- save{*m.meta(&r), kv, done}:
		return true
	default:
		return false
	}
}
