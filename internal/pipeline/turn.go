package pipeline

import (
	"sync"

	"kvasir/internal/engine"
)

// turns lets the engines of several models take turns, a step each: their workers spin on the same cores, so that two steps at once would
// each take longer than both one after the other. A mutex hands the turn to whoever waits for more than a millisecond, so none starves.
type turns struct {
	*engine.Engine
	turn sync.Locker
}

func (t turns) Step(b *engine.Batch) error {
	t.turn.Lock()
	defer t.turn.Unlock()
	return t.Engine.Step(b)
}
