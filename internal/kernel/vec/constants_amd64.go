//go:build amd64 && !purego

package vec

import (
	"math"

	"kvasir/internal/kernel"
)

// table holds the constants of the assembly kernels, each eight times over, so that AVX2 can use a row as a memory operand.
// The order of the rows is known to the generator (isa.go there).
//
//lint:ignore U1000 the assembly reads it
var table = makeTable()

func makeTable() (t [28][8]uint32) {
	c := kernel.Exp2Coefficients
	for i, f := range [...]float32{
		c[0], c[1], c[2], c[3], c[4], c[5], kernel.Exp2Min, kernel.Exp2Max,
		maskedScore, 127, minAmax, 1, negLog2E, maxHalf, -maxHalf,
	} {
		for j := range t[i] {
			t[i][j] = math.Float32bits(f)
		}
	}
	for j := range 8 {
		t[15][j] = 0x7fffffff // clears a sign
		t[16][j] = 0xff800000 // -Inf
		for i := range 4 {
			t[17+i][j] = uint32(8*i + j)
			t[24+i][j] = 1 << (8*i + j)
		}
		t[21][j] = uint32(j/2 + j%2*4)
		t[22][j], t[23][j] = math.Float32bits(geluA), math.Float32bits(geluB)
	}
	return t
}
