package engine

import "time"

// A crew chooses how many workers compute a small step. Where the machine is shared, the system may put a worker aside in
// the middle of a step, and all others wait for it: a small step then takes as long as a time slice. One worker alone has
// nobody to wait for, and has most of the memory's bandwidth, which is what small steps need.
type crew struct {
	all     int
	waiting float64 // share of their time that all workers together waited beyond measure, smoothed
	alone   int     // steps left to one worker
	span    int     // how many it is given next time
}

const (
	crewRows    = 8    // of a step that counts as small
	crewWaiting = 0.25 // share of waiting from which on one worker is better
	crewSpan    = 32   // steps that one worker has at first; then all are tried again
	crewMost    = 512
)

func (c *crew) workers(rows int) int {
	if rows <= crewRows && c.alone > 0 {
		return 1
	}
	return c.all
}

// note records a step of n workers that took d, of which they waited for late together.
func (c *crew) note(rows, n int, d, late time.Duration) {
	switch {
	case rows > crewRows || c.all == 1 || d <= 0:
	case n == 1:
		c.alone--
	default:
		c.waiting += (late.Seconds()/d.Seconds()/float64(n-1) - c.waiting) / 4
		if c.waiting < crewWaiting/4 {
			c.span = crewSpan
		}
		if c.waiting > crewWaiting {
			c.alone, c.span = max(c.span, crewSpan), min(2*max(c.span, crewSpan), crewMost)
			c.waiting = crewWaiting / 2 // tried again, a few steps decide
		}
	}
}
