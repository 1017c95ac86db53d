//go:build (!amd64 && !arm64) || purego

package vec

import "kvasir/internal/kernel"

// kernel.Choose offers nothing but kernel.Go in this build, so the path is not looked at.

func quantize(_ kernel.Path, x []float32, q []int8, s []float32, n []int32) { quantizeGo(x, q, s, n) }
func rmsNorm(_ kernel.Path, dst, x, w []float32, eps float32)               { rmsNormGo(dst, x, w, eps) }
func add(_ kernel.Path, x, y []float32)                                     { addGo(x, y) }
func siluMul(_ kernel.Path, dst, gate, up []float32)                        { siluMulGo(dst, gate, up) }
func geluMul(_ kernel.Path, dst, gate, up []float32)                        { geluMulGo(dst, gate, up) }
func addScaled(_ kernel.Path, x, y []float32, scale float32)                { addScaledGo(x, y, scale) }

func rope(_ kernel.Path, dst, src []float32, heads, headSize int, cs []float32, scale float32) {
	ropeGo(dst, src, heads, headSize, cs, scale)
}

func argmax(_ kernel.Path, x []float32) int { return argmaxGo(x) }

func storeK(_ kernel.Path, tile []uint16, col, headSize int, k []float32) {
	storeKGo(tile, col, headSize, k)
}

func storeV(_ kernel.Path, row []uint16, headSize int, v []float32) { storeVGo(row, headSize, v) }

func attendTile(_ kernel.Path, q []float32, k, v, _ []uint16, st []float32, rows, headSize int, visible []uint32, scratch []float32) {
	attendTileGo(q, k, v, st, rows, headSize, visible, scratch)
}

func mergeState(_ kernel.Path, dst, src []float32, rows, headSize int) {
	mergeStateGo(dst, src, rows, headSize)
}

func finishState(_ kernel.Path, st, out []float32, rows, headSize int) {
	finishStateGo(st, out, rows, headSize)
}
