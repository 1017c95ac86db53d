package model

import (
	"sync/atomic"

	"kvasir/internal/kernel/vec"
)

// ropeSegment is how many positions are computed at once when one of them is first needed.
const ropeSegment = 256

// ropeTable holds the rotary tables by absolute position, filled on demand: a 128k context costs nothing until used.
type ropeTable struct {
	headSize int
	scale    float64
	freq     []float64 // one a pair
	segs     []atomic.Pointer[[]float32]
}

func newRopeTable(c *Config, context int) *ropeTable {
	t := &ropeTable{headSize: c.HeadSize, scale: c.RopeScale}
	for i := range c.HeadSize / 2 {
		f := pow(c.RopeBase, -float64(2*i)/float64(c.HeadSize))
		if c.RopeFactors != nil {
			f /= float64(c.RopeFactors[i])
		}
		t.freq = append(t.freq, f)
	}
	t.segs = make([]atomic.Pointer[[]float32], (context+ropeSegment-1)/ropeSegment)
	return t
}

// prepare makes the tables of positions [p0, p1). It must come before at for those positions.
func (t *ropeTable) prepare(p0, p1 int) {
	for s := p0 / ropeSegment; s <= (p1-1)/ropeSegment; s++ {
		if t.segs[s].Load() != nil {
			continue
		}
		row := 2 * t.headSize
		tab := make([]float32, ropeSegment*row)
		cos, sin := make([]float32, t.headSize/2), make([]float32, t.headSize/2)
		for i := range ropeSegment {
			p := float64(s*ropeSegment+i) / t.scale
			for j, f := range t.freq {
				sn, cs := sincos(float64(p * f))
				cos[j], sin[j] = float32(cs), float32(sn)
			}
			vec.FillRope(tab[i*row:(i+1)*row], cos, sin)
		}
		t.segs[s].Store(&tab)
	}
}

// at is the table of one position.
func (t *ropeTable) at(pos int) []float32 {
	row := 2 * t.headSize
	i := pos % ropeSegment
	return (*t.segs[pos/ropeSegment].Load())[i*row : (i+1)*row]
}
