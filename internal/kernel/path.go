// Package kernel says which instruction set the compute kernels use on this machine, and holds the scalar operations
// whose bits all of them share. The kernels themselves are in kernel/gemm (matrix products) and kernel/vec
// (attention, normalisation, rotary embedding, quantisation).
//
// All paths give the same bits: docs/numerics.md is the contract, the Go path is its oracle.
package kernel

import (
	"fmt"
	"os"
	"strings"
)

// A Path is one implementation of every kernel. Values are comparable and cheap to copy.
type Path uint8

// The paths, for each kind of CPU the slowest first.
const (
	Go     Path = iota // portable, the oracle
	AVX2               // x86-64: AVX2, FMA and F16C
	AVX512             // x86-64: AVX-512 F, BW, DQ, VL and VNNI
	NEON               // arm64: with the dot-product instructions
)

// Revision names the numerics: two results computed under one revision have the same bits. It is part of every block key.
const Revision = 2

func (p Path) String() string {
	switch p {
	case AVX512:
		return "avx512vnni"
	case AVX2:
		return "avx2"
	case NEON:
		return "neon"
	}
	return "go"
}

// Available lists the paths that this CPU can run, best first. Go is always last.
func Available() []Path { return append(assembly(), Go) }

// Choose returns the path called name, or the best one for "". It fails if this CPU cannot run it.
func Choose(name string) (Path, error) {
	ps := Available()
	if name == "" {
		return ps[0], nil
	}
	var names []string
	for _, p := range ps {
		if p.String() == name {
			return p, nil
		}
		names = append(names, p.String())
	}
	return Go, fmt.Errorf("CPU path %q is not available here; this machine has: %s", name, strings.Join(names, ", "))
}

// Default is Choose of the environment variable KVASIR_CPU.
func Default() (Path, error) { return Choose(os.Getenv("KVASIR_CPU")) }
