package engine

import (
	"testing"
	"time"
)

// steps notes n small steps of the crew's own choice, of which all workers but one wait for a share; it returns how many of
// them one worker computed.
func (c *crew) steps(n int, share float64) (alone int) {
	const d = time.Millisecond
	for range n {
		w := c.workers(1)
		if w == 1 {
			alone++
		}
		c.note(1, w, d, time.Duration(share*float64(w-1)*float64(d)))
	}
	return alone
}

func TestCrew(t *testing.T) {
	// The machine is free: all compute every step.
	c := crew{all: 4}
	if n := c.steps(1000, 0.1); n != 0 {
		t.Errorf("%d of 1000 steps by one worker, with little waiting", n)
	}
	// It is not: one worker alone computes most, and all are tried again less and less often.
	c.steps(10, 0.9)
	if n := c.steps(8000, 0.9); n < 7920 || n == 8000 {
		t.Errorf("%d of 8000 steps by one worker, with much waiting", n)
	}
	// Large steps stay with all; they say nothing of small ones.
	c = crew{all: 4}
	for range 100 {
		c.note(crewRows+1, 4, time.Millisecond, 3*time.Millisecond)
	}
	if w := c.workers(1); w != 4 {
		t.Errorf("%d workers after large steps", w)
	}
	for c.workers(1) == 4 {
		c.steps(1, 1)
	}
	if w := c.workers(crewRows + 1); w != 4 {
		t.Errorf("%d workers for a large step", w)
	}
	// When it is free again, all come back within the longest span, and a new disturbance starts with a short one.
	c.steps(5000, 0.9)
	c.steps(crewMost+50, 0)
	if n := c.steps(100, 0); n != 0 {
		t.Errorf("%d of 100 steps by one worker on a machine that is free again", n)
	}
	for c.workers(1) == 4 {
		c.steps(1, 1)
	}
	if c.alone != crewSpan {
		t.Errorf("%d steps for one worker, want %d", c.alone, crewSpan)
	}
	// One that is alone anyway, and a step that took no time, change nothing.
	c = crew{all: 1}
	c.steps(100, 1)
	if c != (crew{all: 1}) {
		t.Errorf("a crew of one came to %+v", c)
	}
	c = crew{all: 2}
	c.note(1, 2, 0, 0)
	if c != (crew{all: 2}) {
		t.Errorf("a step of no time came to %+v", c)
	}
}
