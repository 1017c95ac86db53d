//go:build !purego

package kernel

import "github.com/klauspost/cpuid/v2"

// assembly lists the paths of this build that the CPU can run, best first.
func assembly() []Path {
	var ps []Path
	c := cpuid.CPU
	if c.Supports(cpuid.AVX512F, cpuid.AVX512BW, cpuid.AVX512DQ, cpuid.AVX512VL, cpuid.AVX512VNNI, cpuid.AVX2, cpuid.FMA3, cpuid.F16C) {
		ps = append(ps, AVX512)
	}
	if c.Supports(cpuid.AVX2, cpuid.FMA3, cpuid.F16C) {
		ps = append(ps, AVX2)
	}
	return ps
}
