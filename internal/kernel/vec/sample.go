package vec

import (
	"fmt"
	"math"

	"kvasir/internal/kernel"
)

// What sampling needs of kernels: the largest logit, the logits above a bound, and the weights of a softmax in whole numbers.

// SampleChunk is the number of logits that Scan and Weigh take as one.
const SampleChunk = 512

const scanDepth = SampleChunk / 32

// WeightUnit is the weight of the largest logit. A weight is a whole number up to it: sums have the same value in any order,
// and those of 2^20 weights fit into 64 bits.
const WeightUnit = 1 << 43

// WeightBits is the exponent of WeightUnit.
const WeightBits = 43

// MaximaLen is the number of maxima that Scan gives for n values.
func MaximaLen(n int) int { return n/SampleChunk*32 + n%SampleChunk }

// Scan returns the largest of x, and whether x is fit to be sampled from: it has a finite value, and none that is NaN or +Inf.
// If it is, the first MaximaLen(len(x)) of maxima are set: each value of x belongs to one of them, none of them to more
// than 16 values, and each is the largest of its own. Values 32 apart in a chunk belong together; those behind the last
// whole chunk are alone.
func Scan(p kernel.Path, x, maxima []float32) (top float32, ok bool) {
	if len(maxima) < MaximaLen(len(x)) {
		panic(fmt.Sprintf("vec.Scan: lengths x %d, maxima %d", len(x), len(maxima)))
	}
	n := len(x) / SampleChunk * SampleChunk
	top, ok = float32(math.Inf(-1)), true
	if n > 0 {
		top, ok = scan(p, x[:n], maxima)
	}
	rest := maxima[n/SampleChunk*32:]
	for i, v := range x[n:] {
		rest[i] = v
		if !(v <= top) {
			ok = ok && v == v
			top = v
		}
	}
	return top, ok && top >= -math.MaxFloat32 && top <= math.MaxFloat32
}

// Index returns the first place of v in x, or -1.
func Index(p kernel.Path, x []float32, v float32) int {
	i := 0
	if n := len(x) &^ 31; n > 0 {
		i = indexOf(p, x[:n], v)
	}
	for ; i < len(x); i++ {
		if x[i] == v {
			return i
		}
	}
	return -1
}

// CollectSpare is how much longer than x the slices for Collect must be.
const CollectSpare = 16

// Collect writes the values of x that are at least least, in order, to values, and their places to ids. It returns how many.
// What lies behind them, up to CollectSpare places, is overwritten. x has no NaN.
func Collect(p kernel.Path, x []float32, least float32, ids []int32, values []float32) int {
	if len(ids) < len(x)+CollectSpare || len(values) < len(x)+CollectSpare {
		panic(fmt.Sprintf("vec.Collect: lengths x %d, ids %d, values %d", len(x), len(ids), len(values)))
	}
	n := len(x) &^ 31
	count := 0
	if n > 0 {
		count = collect(p, x[:n], least, ids, values)
	}
	for i := n; i < len(x); i++ {
		if x[i] >= least {
			ids[count], values[count] = int32(i), x[i]
			count++
		}
	}
	return count
}

// Weigh computes the weight of each of x, WeightUnit · 2^((x - peak)·scale) rounded to a whole number (docs/numerics.md has
// the steps), taken as 0 if it is below least. No value may exceed peak, which is finite; scale is positive and finite;
// least is at least 0. sums gets the sum of each chunk of SampleChunk, the last one maybe a part. weights gets
// the weights if it is not shorter than x. Else it is scratch of SampleChunk at least. The result is the sum of all.
func Weigh(p kernel.Path, x []float32, peak, scale, least float32, weights []float32, sums []uint64) (total uint64) {
	if len(weights) < min(len(x), SampleChunk) || len(sums) < (len(x)+SampleChunk-1)/SampleChunk {
		panic(fmt.Sprintf("vec.Weigh: lengths x %d, weights %d, sums %d", len(x), len(weights), len(sums)))
	}
	step := 0
	if len(weights) >= len(x) {
		step = SampleChunk
	}
	chunks := len(x) / SampleChunk
	if chunks > 0 {
		weigh(p, x, chunks, peak, -scale, least, weights, step, sums)
	}
	if n := chunks * SampleChunk; n < len(x) {
		sums[chunks] = weighGo(x[n:], peak, -scale, least, weights[chunks*step:])
		chunks++
	}
	for _, s := range sums[:chunks] {
		total += s
	}
	return total
}

const (
	leastExponent float32 = -60      // far below what rounds to 1
	magic         float32 = 0x1.8p23 // adding it rounds |x| < 2^22 to a whole number, half to even, and leaves that in the low bits
)

// weightCoefficients are those of Exp2 times WeightUnit.
var weightCoefficients = func() (c [6]float32) {
	for i, f := range kernel.Exp2Coefficients {
		c[i] = f * WeightUnit
	}
	return c
}()

// weighGo takes two loops: one alone has too much at a time for the registers.
func weighGo(x []float32, peak, scale, least float32, weights []float32) (sum uint64) {
	c := &weightCoefficients
	c0, c1, c2, c3, c4, c5 := c[0], c[1], c[2], c[3], c[4], c[5]
	weights = weights[:len(x)]
	for i, v := range x {
		d := float32((peak - v) * scale)
		if !(d > leastExponent) {
			d = leastExponent
		}
		t := d + magic
		d -= t - magic
		y := float32(c0*d) + c1
		z := float32(c2*d) + c3
		e := float32(c4*d) + c5
		d2 := float32(d * d)
		y = float32(y*d2) + z
		y = float32(y*d2) + e
		weights[i] = math.Float32frombits(math.Float32bits(y) + math.Float32bits(t)<<23)
	}
	for i, y := range weights {
		r := float64(y) + 0x1p52 // to the nearest whole number, half to even
		w := math.Float64bits(r) & (1<<52 - 1)
		if y = float32(r - 0x1p52); y < least {
			w, y = 0, 0
		}
		weights[i] = y
		sum += w
	}
	return sum
}

func weighChunksGo(x []float32, chunks int, peak, scale, least float32, weights []float32, step int, sums []uint64) {
	for c := range chunks {
		sums[c] = weighGo(x[c*SampleChunk:][:SampleChunk], peak, scale, least, weights[c*step:])
	}
}

func scanGo(x, maxima []float32) (top float32, ok bool) {
	top = float32(math.Inf(-1))
	for c := range len(x) / SampleChunk {
		m := (*[32]float32)(maxima[c*32:])
		*m = [32]float32(x[c*SampleChunk:])
		for i := 1; i < scanDepth; i++ {
			row := (*[32]float32)(x[c*SampleChunk+32*i:])
			for l, v := range row {
				m[l] = max(m[l], v) // NaN if either is
			}
		}
		for _, v := range m {
			top = max(top, v)
		}
	}
	return top, top == top
}

func indexOfGo(x []float32, v float32) int {
	for i, w := range x {
		if w == v {
			return i
		}
	}
	return len(x)
}

func collectGo(x []float32, least float32, ids []int32, values []float32) (count int) {
	for i, v := range x {
		if v >= least {
			ids[count], values[count] = int32(i), v
			count++
		}
	}
	return count
}
