//go:build (!amd64 && !arm64) || purego

package gemm

import "kvasir/internal/kernel"

func mulAsm(p kernel.Path, _ Format, _ []byte, _ *Act, _, _ int, _ []float32, _ int) {
	panic("gemm: path " + p.String() + " is not part of this build")
}
