//go:build arm64 && !purego

package vec

import (
	"math"

	"kvasir/internal/kernel"
)

// table holds the constants of the assembly kernels, each four times over: one vector.
// The order of the rows is known to the generator (vec.go there).
//
//lint:ignore U1000 the assembly reads it
var table = makeTable()

func makeTable() (t [26][4]uint32) {
	c := kernel.Exp2Coefficients
	for i, f := range [...]float32{
		c[0], c[1], c[2], c[3], c[4], c[5], kernel.Exp2Min, kernel.Exp2Max,
		maskedScore, 127, minAmax, 1, negLog2E, maxHalf, -maxHalf, float32(math.Inf(-1)),
	} {
		for j := range t[i] {
			t[i][j] = math.Float32bits(f)
		}
	}
	for i := range 32 {
		t[16+i/4][i%4] = 1 << i
	}
	for j := range 4 {
		t[24][j], t[25][j] = math.Float32bits(geluA), math.Float32bits(geluB)
	}
	return t
}
