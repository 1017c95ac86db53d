package draft

// MaxRows is the most rows of a step in which drafts are tried.
const MaxRows = 16

// prior is the time of a step of one stream by its rows, relative to one row, before it was measured: as it is where reading the weights takes
// most of it and a few rows share a pass.
var prior = [MaxRows + 1]float64{1: 1, 1.05, 1.1, 1.16, 1.3, 1.45, 1.8, 2, 2.2, 2.4, 2.6, 2.8, 3, 3.2, 3.35, 3.5}

// leastGrowth is what a draft costs at least, in steps without: no measurement among noise may say that it is free.
const leastGrowth = 0.01

// Cost knows the time of steps that only decode, by their streams and the drafts beside them. It follows two things apart: how the time grows with
// the drafts, which belongs to the machine and the model and is learned slowly, and the level of it all, which changes with the length of the
// sequences and with the machine's other load. The zero value is ready.
type Cost struct {
	curves [MaxRows + 1]curve // by streams; those of the last are at least so many
}

type curve struct {
	level float64              // seconds of a step without drafts; 0: unknown
	shape [MaxRows + 1]float64 // by rows, relative to the level; 0: not measured
}

// fade is the share of what was learned of drafts that a step without them takes back: a level that rose while there were drafts looks like
// their cost, and what is not tried any more is never seen to be cheap.
const fade = 0.005

// AtMost tells that a step of so many streams and drafts, with other work beside, took so long: without that it takes no longer.
func (c *Cost) AtMost(streams, drafts int, seconds float64) {
	if streams > 0 {
		v := &c.curves[min(streams, MaxRows)]
		v.level = min(v.level, seconds/c.Relative(streams, drafts))
	}
}

// Observe tells that a step of so many streams, with so many drafts in all, took so long.
func (c *Cost) Observe(streams, drafts int, seconds float64) {
	if streams < 1 || seconds <= 0 {
		return
	}
	v := &c.curves[min(streams, MaxRows)]
	r := c.Relative(streams, drafts)
	if v.level == 0 {
		v.level = seconds / r
		return
	}
	off := min(max(seconds/(v.level*r), 0.6), 1.7) // one step that was held up must not count for more
	v.level *= 1 + (off-1)/8
	if drafts == 0 && streams < MaxRows {
		for rows := streams + 1; rows <= MaxRows; rows++ {
			if v.shape[rows] != 0 {
				v.shape[rows] += (c.expected(streams, rows) - v.shape[rows]) * fade
			}
		}
	}
	if rows := streams + drafts; drafts > 0 && rows <= MaxRows {
		v.shape[rows] = min(max(r*(1+(off-1)/16), 1+leastGrowth*float64(drafts)), float64(rows)/float64(streams))
	}
}

// Relative is the time of a step of so many streams (at least 1) with so many drafts, relative to one without. What was not measured follows from
// what was: the growth measured up to there goes on as it is with one stream, and with one stream as in prior.
func (c *Cost) Relative(streams, drafts int) float64 {
	rows := streams + drafts
	switch {
	case drafts <= 0:
		return 1
	case rows > MaxRows:
		return c.Relative(min(streams, MaxRows), max(0, MaxRows-streams)) * float64(rows) / float64(max(streams, MaxRows))
	}
	v := &c.curves[streams]
	r := v.shape[rows]
	if r == 0 {
		m := rows - 1
		for m > streams && v.shape[m] == 0 {
			m--
		}
		from, growth := 1.0, 1.0
		if m > streams {
			from = v.shape[m]
			growth = min(max((from-1)/(c.expected(streams, m)-1), 0.25), 3)
		}
		r = from + (c.expected(streams, rows)-c.expected(streams, m))*growth
	}
	// More rows cannot cost less: of measurements that contradict each other the lower is right, since what disturbs only adds.
	for m := rows + 1; m <= MaxRows; m++ {
		if v.shape[m] != 0 {
			r = min(r, v.shape[m])
		}
	}
	return r
}

// expected is Relative for streams that were not measured.
func (c *Cost) expected(streams, rows int) float64 {
	if streams == 1 {
		return prior[rows]
	}
	return c.Relative(1, rows-1) / c.Relative(1, streams-1)
}

// Seconds is the time of a step of so many streams and drafts as it is now; 0 if it is not known.
func (c *Cost) Seconds(streams, drafts int) float64 {
	if streams < 1 {
		return 0
	}
	return c.curves[min(streams, MaxRows)].level * c.Relative(streams, drafts)
}
