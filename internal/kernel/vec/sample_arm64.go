//go:build arm64 && !purego

package vec

import (
	"math"

	"kvasir/internal/kernel"
)

// sampleTable has the constants of the sampling kernels, as table has those of the others.
//
//lint:ignore U1000 the assembly reads it
var sampleTable = func() (t [11][4]uint32) {
	c := weightCoefficients
	for i, f := range [...]float32{c[0], c[1], c[2], c[3], c[4], c[5], leastExponent, magic} {
		for j := range t[i] {
			t[i][j] = math.Float32bits(f)
		}
	}
	for j := range 4 {
		t[8][j], t[9][j], t[10][j] = 0x100|1<<j, uint32(j), 4
	}
	return t
}()

// compressTable has, for each mask of four lanes, the places of the bytes of those that are set, in order.
//
//lint:ignore U1000 the assembly reads it
var compressTable = func() (t [16][16]byte) {
	for mask := range t {
		n := 0
		for lane := range 4 {
			if mask>>lane&1 == 1 {
				for b := range 4 {
					t[mask][4*n+b] = byte(4*lane + b)
				}
				n++
			}
		}
	}
	return t
}()

func scan(p kernel.Path, x, maxima []float32) (top float32, ok bool) {
	if p != kernel.NEON {
		return scanGo(x, maxima)
	}
	top = scanNEON(&x[0], len(x)/SampleChunk, &maxima[0])
	return top, top == top
}

func indexOf(p kernel.Path, x []float32, v float32) int {
	if p != kernel.NEON {
		return indexOfGo(x, v)
	}
	return indexOfNEON(&x[0], len(x), v)
}

func weigh(p kernel.Path, x []float32, chunks int, peak, scale, least float32, weights []float32, step int, sums []uint64) {
	if p != kernel.NEON {
		weighChunksGo(x, chunks, peak, scale, least, weights, step, sums)
		return
	}
	weighNEON(&x[0], chunks, peak, scale, least, &weights[0], 4*step, &sums[0])
}

func collect(p kernel.Path, x []float32, least float32, ids []int32, values []float32) int {
	if p != kernel.NEON {
		return collectGo(x, least, ids, values)
	}
	return collectNEON(&x[0], len(x), least, &ids[0], &values[0])
}
