package gemm

// A layout describes the blocks of a quantised format; the package comment has the same in words. A block is 32 outputs × 32 k.
type layout struct {
	planes []int     // the bits of a weight, the lowest first, in planes of so many bits each
	scale  scaleKind // how the scales are stored
	min    bool      // there are minima, stored like the scales
	zero   int       // what the unsigned weights are less
	table  *[16]int8 // if not nil, what the weights stand for
}

type scaleKind uint8

const (
	scaleF16  scaleKind = iota // an f16 for 32 k
	scaleBF16                  // a bf16 for 32 k
	scaleU6                    // an f16 for 256 k times 6 unsigned bits for 32 k
	scaleS8                    // an f16 for 256 k times an int8 for 32 k
	scaleS8x2                  // an f16 for 256 k times two int8 for 16 k each
	scaleU4x2                  // an f16 for 256 k times 4 unsigned bits for 16 k; the minima in the same bytes
)

var layouts = [PF16]layout{
	P4:  {planes: []int{4}, min: true},
	P4Z: {planes: []int{4}, zero: 8},
	P5:  {planes: []int{4, 1}, min: true},
	P5Z: {planes: []int{4, 1}, zero: 16},
	P8:  {planes: []int{8}, zero: 128},
	P2K: {planes: []int{2}, scale: scaleU4x2, min: true},
	P3K: {planes: []int{2, 1}, scale: scaleS8x2, zero: 4},
	P4K: {planes: []int{4}, scale: scaleU6, min: true},
	P5K: {planes: []int{4, 1}, scale: scaleU6, min: true},
	P6K: {planes: []int{4, 2}, scale: scaleS8x2, zero: 32},
	P4N: {planes: []int{4}, table: &iq4},
	P4X: {planes: []int{4}, scale: scaleS8, table: &iq4},
	PMX: {planes: []int{4}, scale: scaleBF16, table: &mxfp4},
}

// kvalues_iq4nl and kvalues_mxfp4 of ggml-common.h; the latter are twice what the OCP specification of microscaling formats calls E2M1.
var (
	iq4   = [16]int8{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	mxfp4 = [16]int8{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}
)

// superBlocks is the number of blocks that share scales in the K-formats.
const superBlocks = 8

// super reports whether eight blocks share scales in front of them.
func (l *layout) super() bool { return l.scale >= scaleU6 }

// split reports whether the halves of a block have scales of their own.
func (l *layout) split() bool { return l.scale >= scaleS8x2 }

// head is the size of the scales that eight blocks share.
func (l *layout) head() int {
	switch {
	case !l.super():
		return 0
	case l.min:
		return 128
	}
	return 64
}

// weights is the offset of the weights in a block, after its scales.
func (l *layout) weights() int {
	switch {
	case l.split(), l.super() && l.min:
		return 64
	case l.super():
		return 32
	case l.min:
		return 128
	}
	return 64
}

// bytes is the size of a block.
func (l *layout) bytes() int {
	n := l.weights()
	for _, b := range l.planes {
		n += b * 4 * PanelOutputs
	}
	return n
}

// A unit is the smallest part of a panel that stands for itself: a block, or eight with the scales that they share.
type unit struct{ k, bytes int }

var units = func() (u [formats]unit) {
	for f := range layouts {
		l := &layouts[f]
		u[f] = unit{block, l.bytes()}
		if l.super() {
			u[f] = unit{block * superBlocks, l.head() + superBlocks*l.bytes()}
		}
	}
	u[PF16], u[PBF16], u[PF32] = unit{block, 2048}, unit{block, 2048}, unit{block, 4096}
	return u
}()

// words returns the 32 weights of output o of the block w, four to a word: plane after plane, word i of a plane of b bits has the groups of
// four k from 8i/b on, the first in its lowest b bits.
func (l *layout) words(w []byte, o int) (c [8]uint32) {
	off, place := l.weights(), 0
	for _, b := range l.planes {
		mask := 0x01010101 * uint32(1<<b-1)
		for g := range c {
			at := g * b
			c[g] |= word(w[off+at/8*128+4*o:]) >> (at % 8) & mask << place
		}
		off += 128 * b
		place += b
	}
	return c
}

// put is the inverse of words.
func (l *layout) put(w []byte, o int, c *[8]uint32) {
	off, place := l.weights()+4*o, 0
	for _, b := range l.planes {
		switch b { // 8/b groups a word, without inner loops: this is what takes time when a model is loaded
		case 4:
			for i := range 4 {
				putWord(w[off+128*i:], c[2*i]>>place&lowNibbles|c[2*i+1]>>place&lowNibbles<<4)
			}
		case 2:
			for i := range 2 {
				c := c[4*i:][:4]
				putWord(w[off+128*i:], c[0]>>place&lowPairs|c[1]>>place&lowPairs<<2|c[2]>>place&lowPairs<<4|c[3]>>place&lowPairs<<6)
			}
		case 1:
			var v uint32
			for g := range c {
				v |= c[g] >> place & lowBits << g
			}
			putWord(w[off:], v)
		default:
			panic("gemm: no plane of this width")
		}
		off += 128 * b
		place += b
	}
}
