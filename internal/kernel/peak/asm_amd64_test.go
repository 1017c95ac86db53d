//go:build amd64 && !purego

package peak

import "kvasir/internal/kernel"

const asm = true

// opsOf is what a turn of an assembly function counts for.
func opsOf(f string) int {
	return map[string]int{"int8AVX512": loopOf(kernel.AVX512, Int8).ops, "f32AVX512": loopOf(kernel.AVX512, F32).ops,
		"int8AVX2": loopOf(kernel.AVX2, Int8).ops, "f32AVX2": loopOf(kernel.AVX2, F32).ops}[f]
}
