//go:build (!amd64 && !arm64) || purego

package vec

import "kvasir/internal/kernel"

func scan(_ kernel.Path, x, maxima []float32) (float32, bool) { return scanGo(x, maxima) }

func indexOf(_ kernel.Path, x []float32, v float32) int { return indexOfGo(x, v) }

func weigh(_ kernel.Path, x []float32, chunks int, peak, scale, least float32, weights []float32, step int, sums []uint64) {
	weighChunksGo(x, chunks, peak, scale, least, weights, step, sums)
}

func collect(_ kernel.Path, x []float32, least float32, ids []int32, values []float32) int {
	return collectGo(x, least, ids, values)
}
