package catalog

import (
	"cmp"
	"context"
	"slices"
	"time"

	"kvasir/internal/llm"
)

// room is what the loaded models take, and may take.
type room struct {
	bytes uint64
	count int
}

func (r room) with(e *entry) room    { return room{r.bytes + e.Bytes, r.count + 1} }
func (r room) without(e *entry) room { return room{r.bytes - e.Bytes, r.count - 1} }

func (c *Catalog) fits(r room) bool {
	return (c.o.Memory == 0 || r.bytes <= c.o.Memory) && (c.o.MaxLoaded == 0 || r.count <= c.o.MaxLoaded)
}

// pump looks at the queue after any change: it starts loads for which there is room, and for the first model that has none it unloads others. Who
// is drained is decided anew each time, since the requests that wanted it may be gone. mu is held.
func (c *Catalog) pump() {
	if c.closed {
		return
	}
	now := room{}
	drained := map[*entry]bool{}
	for _, e := range c.entries {
		drained[e] = e.draining
		e.draining = false
		if e.state != unloaded {
			now = now.with(e)
		}
	}
	blocked := false
	later := now // with what the first one will take, without what goes for it
	for _, e := range slices.Clone(c.queue) {
		switch {
		case e.state == closing: // its memory comes back to it
			blocked = true
		case e.state == loaded && !e.draining:
			c.tell(e, nil)
		case e.state == loaded: // first what needs its memory
		case c.fits(now.with(e)) && c.fits(later.with(e)):
			now, later = now.with(e), later.with(e)
			c.dequeue(e)
			c.load(e)
		case !blocked:
			blocked = true
			later = c.makeRoom(e, now, drained).with(e)
		}
	}
}

func (c *Catalog) dequeue(e *entry) {
	if i := slices.Index(c.queue, e); i >= 0 {
		c.queue = slices.Delete(c.queue, i, i+1)
	}
}

// makeRoom unloads idle models and drains busy ones until e fits, and returns what is then taken. What is closing counts as gone; what was
// drained before goes on being drained. mu is held.
func (c *Catalog) makeRoom(e *entry, now room, drained map[*entry]bool) room {
	var candidates []*entry
	for _, v := range c.entries {
		switch v.state {
		case closing:
			now = now.without(v)
		case loaded:
			candidates = append(candidates, v)
		}
	}
	slices.SortFunc(candidates, func(a, b *entry) int {
		if d := rank(a, drained) - rank(b, drained); d != 0 {
			return d
		}
		return cmp.Compare(a.used, b.used)
	})
	for _, v := range candidates {
		if c.fits(now.with(e)) {
			break
		}
		now = now.without(v)
		if v.streams > 0 {
			v.draining = true
		} else {
			c.unload(v, v.model, "for another model")
		}
	}
	return now
}

// rank orders what may be unloaded, the smallest first.
func rank(e *entry, drained map[*entry]bool) int {
	switch {
	case e.streams == 0:
		return 0
	case drained[e]:
		return 1
	}
	return 2
}

// load starts loading. mu is held.
func (c *Catalog) load(e *entry) {
	e.state, e.err = loading, nil
	c.running.Go(func() {
		begin := time.Now()
		m, err := e.Open(c.ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		switch {
		case err != nil:
			e.state, e.err, e.failed = unloaded, err, time.Now()
			c.stats.Failed++
			c.o.Log.Error("model not loaded", "model", e.name(), "err", err)
			c.tell(e, c.loadError(e))
		case c.closed:
			c.unload(e, m, "the server ends")
		default:
			e.state, e.model = loaded, m
			for _, info := range m.Models() {
				if i := slices.IndexFunc(e.Models, func(k llm.ModelInfo) bool { return k.ID == info.ID }); i >= 0 {
					info.Created, info.Aliases = e.Models[i].Created, e.Models[i].Aliases
					e.Models[i] = info // known from now on, even when it is unloaded
				}
			}
			c.stats.Loads++
			c.o.Log.Info("model loaded", "model", e.name(), "took", time.Since(begin))
			c.touch(e)
			c.tell(e, nil)
			c.rest(e)
		}
		c.pump()
	})
}

// unload starts closing e's model m, which has no stream. mu is held.
func (c *Catalog) unload(e *entry, m Model, why string) {
	c.touch(e)
	e.state, e.model, e.draining = closing, nil, false
	c.stats.Unloads++
	c.running.Go(func() {
		err := m.Close(context.Background()) // there is nothing to wait for
		c.mu.Lock()
		defer c.mu.Unlock()
		e.state = unloaded
		if err != nil {
			c.o.Log.Error("model not closed", "model", e.name(), "err", err)
		} else {
			c.o.Log.Info("model unloaded", "model", e.name(), "why", why)
		}
		c.pump()
	})
}
