package model

import (
	"math"
	"sync/atomic"

	"kvasir/internal/gguf"
	"kvasir/internal/kernel/vec"
)

// ropeSegment is how many positions are computed at once when one of them is first needed.
const ropeSegment = 256

// ropeTable holds the rotary tables by absolute position, filled on demand: a 128k context costs nothing until used. The
// pairs of a head lie side by side: where an architecture turns d with d + n/2, its weights are packed in that order
// (see rotary.order).
type ropeTable struct {
	headSize int
	turning  int // pairs
	scale    float64
	gain     float64
	freq     []float64 // one a pair; 0 where nothing turns
	segs     []atomic.Pointer[[]float32]
}

// rotary says how positions turn queries and keys.
type rotary struct {
	dims    int       // of a head, from the first on; the others stay as they are
	halves  bool      // d turns with d + dims/2 (NeoX) rather than with its neighbour
	base    float64   // the slowest pair's wavelength is about 2π·base
	scale   float64   // divides positions
	factors []float32 // divide the frequencies; nil is none
	yarn    *yarn
	gain    float64 // of cosines and sines
}

// yarn is the scaling of Peng et al., "YaRN", 2023: pairs that turn often within the original context keep their frequency, those that
// hardly turn are scaled, those between are in part.
type yarn struct{ factor, original, fast, slow float64 }

// rotary reads the rotary settings that all architectures have in common.
func (r *reader) rotary(c *Config, halves bool) rotary {
	o := rotary{dims: r.num("rope.dimension_count", c.HeadSize), halves: halves, base: c.RopeBase, scale: 1, gain: 1}
	kind, _ := r.f.String(r.arch + ".rope.scaling.type")
	key := "rope.scaling.factor"
	if kind == "" {
		if s, ok := r.f.Float(r.arch + ".rope.scale_linear"); ok && s > 0 {
			kind, key = "linear", "rope.scale_linear"
		}
	}
	switch kind {
	case "", "none":
	case "linear":
		o.scale = r.float(key, 1, 1e-6, 1e6)
	case "yarn":
		o.yarn = &yarn{factor: r.float(key, math.NaN(), 0.999, 1e6), original: float64(r.num("rope.scaling.original_context_length", -1)),
			fast: r.float("rope.scaling.yarn_beta_fast", 32, 0, 1e6), slow: r.float("rope.scaling.yarn_beta_slow", 1, 0, 1e6)}
		log := 0.1 * ln(o.yarn.factor)
		o.gain = r.float("rope.scaling.attn_factor", 1, 0, 1e3) * (1 + log) / (1 + float64(r.float("rope.scaling.yarn_log_multiplier", 0, -1e3, 1e3)*log))
	default:
		r.fail("rope scaling %q: %w; known: none, linear, yarn and rope_freqs.weight", kind, ErrUnsupported)
	}
	if o.dims%2 != 0 || o.dims > c.HeadSize {
		r.fail("%d rotary dimensions of %d: %w", o.dims, c.HeadSize, gguf.ErrFormat)
		o.dims = c.HeadSize
	}
	if t, ok := r.f.Tensor("rope_freqs.weight"); ok {
		o.factors = r.factors(t, o.dims/2)
	}
	slowest := min(1.0, o.scale)
	for _, x := range o.factors {
		slowest = min(slowest, float64(x))
	}
	if float64(c.Context)/slowest >= 1<<20 { // the range of sincos
		r.fail("a context of %d tokens: %w; up to 1048575 are", c.Context, ErrUnsupported)
	}
	return o
}

// factors reads a tensor that divides the frequency of each pair.
func (r *reader) factors(t *gguf.Tensor, pairs int) []float32 {
	if t.Type != gguf.F32 || t.Rows() != 1 || t.RowLen() != pairs {
		r.fail("%s has the wrong shape: %w", t.Name, gguf.ErrFormat)
		return nil
	}
	v := make([]float32, pairs)
	if err := gguf.Dequantize(t.Type, t.Data, v); err != nil {
		r.fail("%s: %w", t.Name, err)
	}
	for _, x := range v {
		if !(x > 1e-6 && x < 1e6) {
			r.fail("%s holds %v: %w", t.Name, x, gguf.ErrFormat)
		}
	}
	return v
}

// order is where the rows of a projection to heads of the given size come from, so that pairs lie side by side; nil if they do.
func (o *rotary) order(heads, size int) []int {
	if !o.halves {
		return nil
	}
	rows := make([]int, 0, heads*size)
	for h := range heads {
		for d := range size {
			switch {
			case d >= o.dims:
				rows = append(rows, h*size+d)
			default:
				rows = append(rows, h*size+d/2+d%2*(o.dims/2))
			}
		}
	}
	return rows
}

func newRopeTable(o rotary, headSize, context int) *ropeTable {
	t := &ropeTable{headSize: headSize, turning: o.dims / 2, scale: o.scale, gain: o.gain, freq: make([]float64, headSize/2)}
	for i := range o.dims / 2 {
		f := pow(o.base, -float64(2*i)/float64(o.dims))
		if o.factors != nil {
			f /= float64(o.factors[i])
		}
		if y := o.yarn; y != nil {
			// The pair that turns so often within the original context.
			pair := func(turns float64) float64 {
				return float64(float64(o.dims)*ln(y.original/(turns*2*math.Pi))) / (2 * ln(o.base))
			}
			low, high := max(0, math.Floor(pair(y.fast))), min(float64(o.dims-1), math.Ceil(pair(y.slow)))
			kept := 1 - min(1, max(0, (float64(i)-low)/max(0.001, high-low)))
			f = float64(f/y.factor*(1-kept)) + float64(f*kept)
		}
		t.freq[i] = f
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
				if j < t.turning {
					cs, sn = cs*t.gain, sn*t.gain
				}
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
