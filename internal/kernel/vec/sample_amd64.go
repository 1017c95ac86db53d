//go:build amd64 && !purego

package vec

import (
	"math"

	"kvasir/internal/kernel"
)

// sampleTable has the constants of the sampling kernels, as table has those of the others.
//
//lint:ignore U1000 the assembly reads it
var sampleTable = func() (t [10][8]uint32) {
	c := weightCoefficients
	for i, f := range [...]float32{c[0], c[1], c[2], c[3], c[4], c[5], leastExponent, magic} {
		for j := range t[i] {
			t[i][j] = math.Float32bits(f)
		}
	}
	for j := range 8 {
		t[8][j], t[9][j] = 32, 8
	}
	return t
}()

// compressTable has, for each mask of eight lanes, the numbers of those that are set, in order.
//
//lint:ignore U1000 the assembly reads it
var compressTable = func() (t [256][8]uint32) {
	for mask := range t {
		n := 0
		for lane := range uint32(8) {
			if mask>>lane&1 == 1 {
				t[mask][n] = lane
				n++
			}
		}
	}
	return t
}()

func scan(p kernel.Path, x, maxima []float32) (top float32, ok bool) {
	var nan uint32
	switch p {
	case kernel.AVX512:
		top, nan = scanAVX512(&x[0], len(x)/SampleChunk, &maxima[0])
	case kernel.AVX2:
		top, nan = scanAVX2(&x[0], len(x)/SampleChunk, &maxima[0])
	default:
		return scanGo(x, maxima)
	}
	return top, nan == 0
}

func indexOf(p kernel.Path, x []float32, v float32) int {
	switch p {
	case kernel.AVX512:
		return indexOfAVX512(&x[0], len(x), v)
	case kernel.AVX2:
		return indexOfAVX2(&x[0], len(x), v)
	}
	return indexOfGo(x, v)
}

func weigh(p kernel.Path, x []float32, chunks int, peak, scale, least float32, weights []float32, step int, sums []uint64) {
	switch p {
	case kernel.AVX512:
		weighAVX512(&x[0], chunks, peak, scale, least, &weights[0], 4*step, &sums[0])
	case kernel.AVX2:
		weighAVX2(&x[0], chunks, peak, scale, least, &weights[0], 4*step, &sums[0])
	default:
		weighChunksGo(x, chunks, peak, scale, least, weights, step, sums)
	}
}

func collect(p kernel.Path, x []float32, least float32, ids []int32, values []float32) int {
	switch p {
	case kernel.AVX512:
		return collectAVX512(&x[0], len(x), least, &ids[0], &values[0])
	case kernel.AVX2:
		return collectAVX2(&x[0], len(x), least, &ids[0], &values[0])
	}
	return collectGo(x, least, ids, values)
}
