// Command vec generates the AVX-512 and AVX2 kernels of package vec.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/buildtags"
)

func main() {
	Constraint(buildtags.Term("amd64"))
	Constraint(buildtags.Not("purego"))
	for _, s := range []isa{avx512, avx2} {
		quantize(s)
		rmsNorm(s)
		add(s)
		siluMul(s)
		geluMul(s)
		addScaled(s)
		rope(s)
		maxOf(s)
		indexOf(s)
		scan(s)
		weigh(s)
		collect(s)
		storeK(s)
		storeV(s)
		mergeState(s)
		finishState(s)
	}
	for rows := 1; rows < groupRows; rows++ {
		attend512(rows, false)
	}
	attend512(groupRows, true)
	for rows := 1; rows <= 3; rows++ {
		attend2(rows)
	}
	Generate()
}
