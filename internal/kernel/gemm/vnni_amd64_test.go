//go:build amd64 && !purego

package gemm

import "testing"

// Where the CPU has AVX-VNNI, the AVX2 path uses it; this covers what it does elsewhere.
func TestAVX2WithoutVNNI(t *testing.T) {
	defer func(v bool) { avxVNNI = v }(avxVNNI)
	avxVNNI = false
	TestGolden(t)
	TestRowsAreIndependent(t)
	t.Run("PathsAgree", TestPathsAgree)
}
