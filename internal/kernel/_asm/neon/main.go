// Command neon generates the arm64 kernels of the packages gemm and vec, for CPUs with the dot-product instructions (Armv8.2's
// FEAT_DotProd: Apple M1, Graviton 2 and what came after them). docs/numerics.md has the order of operations.
package main

import (
	"flag"
	"fmt"
	"os"

	. "kvasir/internal/kernel/_asm/a64"
)

func main() {
	pkg := flag.String("pkg", "", "the package to write: gemm or vec")
	out := flag.String("out", "", "the assembly")
	stubs := flag.String("stubs", "", "the declarations")
	flag.Parse()
	write := map[string]func(*File){"gemm": gemm, "vec": vec}[*pkg]
	if write == nil || *out == "" || *stubs == "" {
		flag.Usage()
		os.Exit(2)
	}
	f := NewFile(fmt.Sprintf("go run ./neon -out %s -stubs %s -pkg %s", *out, *stubs, *pkg), *pkg, "arm64 && !purego")
	write(f)
	if err := f.Write(*out, *stubs); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// seq returns n registers from first on.
func seq(first V, n int) []V {
	v := make([]V, n)
	for i := range v {
		v[i] = first + V(i)
	}
	return v
}

// grid returns rows × cols registers from first on.
func grid(first V, rows, cols int) [][]V {
	g := make([][]V, rows)
	for t := range g {
		g[t] = seq(first+V(t*cols), cols)
	}
	return g
}

// zero clears registers.
func zero(f *Func, vs ...V) {
	for _, v := range vs {
		f.Emit(ZERO(v))
	}
}

// load fills registers with consecutive 16 bytes, two by two where the offset allows it.
func load(f *Func, vs []V, b R, off int) {
	for i := 0; i < len(vs); i++ {
		if i+1 < len(vs) && PairReaches(off+16*i) {
			f.Emit(LDPQ(vs[i], vs[i+1], b, off+16*i))
			i++
		} else {
			f.Emit(LDRQ(vs[i], b, off+16*i))
		}
	}
}

// store is the opposite of load.
func store(f *Func, vs []V, b R, off int) {
	for i := 0; i < len(vs); i++ {
		if i+1 < len(vs) && PairReaches(off+16*i) {
			f.Emit(STPQ(vs[i], vs[i+1], b, off+16*i))
			i++
		} else {
			f.Emit(STRQ(vs[i], b, off+16*i))
		}
	}
}

// loadHalf fills lo and hi with eight halves, widened.
func loadHalf(f *Func, lo, hi V, b R, off int) {
	f.Emit(LDRQ(lo, b, off), FCVTL2(hi, lo), FCVTL(lo, lo))
}
