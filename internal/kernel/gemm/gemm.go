// Package gemm multiplies packed weights with activations: y = W·x for each row of x.
//
// Weights are packed once, when a model is loaded, into panels of 32 outputs, so that a vector lane is an output: no sum runs
// across lanes, and the bits of an output depend on nothing but its own weights and its own row. Four paths compute it
// (Go, AVX2, AVX-512 with VNNI, NEON with SDOT); docs/numerics.md says what they agree on to the bit, portable.go is the oracle.
//
// The layout of a panel, for each block of 32 k in rising order (all values little-endian):
//
//	P4     640 B   32 f16 d, 32 f16 m, 4 × (32 outputs × 4 B): byte j of group g has k = 8g+j in its low nibble, k = 8g+4+j in its high one
//	P4Z    576 B   32 f16 d, 4 × (32 outputs × 4 B) as in P4: the signed weight + 8
//	P5     768 B   as P4, then 32 outputs × 4 B: bit g of byte j is the fifth of k = 4g+j
//	P5Z    704 B   as P4Z, then fifth bits as in P5: the signed weight + 16
//	P8    1088 B   32 f16 d, 8 × (32 outputs × 4 B): byte j of group g is k = 4g+j, the signed weight + 128
//	P4N    576 B   as P4Z: the number of the weight in the table iq4
//	PMX    576 B   32 bf16 d, then as in P4Z: the number of the weight in the table mxfp4
//	PF16, PBF16    for each k: 32 outputs × 2 B
//	PF32           for each k: 32 outputs × 4 B
//
// The K-formats have 256 k together: 32 f16 d, 32 f16 m if there are minima, and then eight blocks of
//
//	P4K    576 B   32 bytes of scales, 32 bytes of minima, weights as in P4
//	P5K    704 B   the same, weights as in P5
//	P4X    544 B   32 int8 scales, weights as in P4N
//	P6K    832 B   32 outputs × 2 int8 scales (k < 16 and others), nibbles as in P4, then 2 × (32 outputs × 4 B): bits 2i and 2i+1 of byte j of
//	               group g are bits 4 and 5 of k = 16g+4i+j; the signed weight + 32
//	P3K    448 B   scales as in P6K, bits 0 and 1 as bits 4 and 5 there, then bit 2 as the fifth bit in P5: the signed weight + 4
//	P2K    320 B   32 outputs × 2 bytes: a scale in the low nibble, a minimum in the high one; weights as bits 4 and 5 in P6K
//
// m is negative there, since ggml's K-quants subtract their minima.
//
// Four bytes an output are what VPDPBUSD, VPMADDUBSW and SDOT sum into one lane.
package gemm

//go:generate go run -C ../_asm ./gemm -out ../gemm/avx512_amd64.s -stubs ../gemm/avx512_amd64.go -pkg gemm avx512
//go:generate go run -C ../_asm ./gemm -out ../gemm/avx2_amd64.s -stubs ../gemm/avx2_amd64.go -pkg gemm avx2
//go:generate go run -C ../_asm ./gemm -out ../gemm/vnni_amd64.s -stubs ../gemm/vnni_amd64.go -pkg gemm vnni
//go:generate go run -C ../_asm ./neon -out ../gemm/gemm_arm64.s -stubs ../gemm/stubs_arm64.go -pkg gemm

import (
	"fmt"
	"unsafe"

	"kvasir/internal/kernel"
)

// PanelOutputs is the number of outputs (rows of the weight matrix) in a panel.
const PanelOutputs = 32

// block is the number of consecutive k that share a scale.
const block = 32

// A Format is the layout of a panel and the arithmetic on it.
type Format uint8

// The formats. Those before PF16 take activations as int8 with a scale for each block of 32; the others take float32.
const (
	P4    Format = iota // 4-bit unsigned weights, scale and minimum
	P4Z                 // 4-bit weights less 8, scale
	P5                  // 5-bit unsigned weights, scale and minimum
	P5Z                 // 5-bit weights less 16, scale
	P8                  // 8-bit signed weights, scale
	P2K                 // 2-bit unsigned weights, scale and minimum for 16
	P3K                 // 3-bit weights less 4, scale for 16
	P4K                 // 4-bit unsigned weights, scale and minimum in two levels
	P5K                 // 5-bit unsigned weights, scale and minimum in two levels
	P6K                 // 6-bit weights less 32, scale for 16
	P4N                 // 4-bit weights from a table, scale
	P4X                 // 4-bit weights from a table, scale in two levels
	PMX                 // 4-bit floats, a power of two as scale
	PF16                // IEEE half
	PBF16               // bfloat16
	PF32                // float32
	formats
)

func (f Format) String() string {
	if f < formats {
		return [formats]string{"P4", "P4Z", "P5", "P5Z", "P8", "P2K", "P3K", "P4K", "P5K", "P6K", "P4N", "P4X", "PMX", "PF16", "PBF16", "PF32"}[f]
	}
	return fmt.Sprintf("Format(%d)", uint8(f))
}

// FormatFor returns the format that holds weights of a ggml type without loss, and whether there is one.
func FormatFor(ggmlType uint32) (Format, bool) {
	s, ok := sources[ggmlType]
	return s.format, ok
}

// Quantized reports whether the format takes activations as int8 (Act's Q, S and N) rather than as float32 (Act's F).
func (f Format) Quantized() bool { return f < PF16 }

// PanelBytes returns the size of one panel: 32 outputs of in weights each. in is a multiple of 32, of 256 for the K-formats and P4X.
func (f Format) PanelBytes(in int) int { return in / units[f].k * units[f].bytes }

// Size returns the bytes that a Matrix of out × in takes in Data.
func Size(f Format, out, in int) int {
	return (out + PanelOutputs - 1) / PanelOutputs * f.PanelBytes(in)
}

// A Matrix is a packed weight matrix with Out rows of In weights. Mul reads it; many goroutines may do so at once.
type Matrix struct {
	Format  Format
	Out, In int    // In is a multiple of 32, or of 256 (see PanelBytes)
	Data    []byte // Size(Format, Out, In) bytes, aligned to 64; the owner is the caller
}

// Panels returns the number of panels, ceil(Out/32).
func (m *Matrix) Panels() int { return (m.Out + PanelOutputs - 1) / PanelOutputs }

// An Act holds rows of activations, K values each. F, or Q, S and N are filled, according to Format.Quantized.
type Act struct {
	K int
	F []float32 // rows*K values
	Q []int8    // rows*K values, -127..127
	S []float32 // rows*K/32 pairs {d, d*sum of the block's Q}
	N []int32   // rows*K/32 pairs {-128*sum, sum of the first 16 as int16 | sum of the last 16 << 16}
}

// NewAct returns buffers for rows of k values (k is a multiple of 32), aligned to 64 bytes. The kernels read within the rows
// only, so slices of other memory serve as well.
func NewAct(rows, k int) *Act {
	return &Act{
		K: k,
		F: aligned[float32](rows * k),
		Q: aligned[int8](rows * k),
		S: aligned[float32](rows * k / block * 2),
		N: aligned[int32](rows * k / block * 2),
	}
}

// aligned returns n zero values starting at a multiple of 64 bytes.
func aligned[T int8 | int32 | float32](n int) []T {
	size := int(unsafe.Sizeof(*new(T)))
	s := make([]T, n+64/size)
	off := int(-uintptr(unsafe.Pointer(unsafe.SliceData(s)))&63) / size
	return s[off : off+n : off+n]
}

// Mul computes one panel for the rows [r0, r1) of x: out[(r-r0)*ldo+o] is output panel*32+o of row r, for all o in 0..31;
// outputs at or beyond m.Out are +0. It allocates nothing. It panics if the shapes do not fit the slices. p must be one of
// kernel.Available: the CPU faults on instructions that it does not have.
func Mul(p kernel.Path, m *Matrix, panel int, x *Act, r0, r1 int, out []float32, ldo int) {
	if r0 == r1 {
		return
	}
	check(m, panel, x, r0, r1, out, ldo)
	n := m.Format.PanelBytes(m.In)
	w := m.Data[panel*n:][:n]
	if p == kernel.Go {
		mulGo(m.Format, w, x, r0, r1, out, ldo)
		return
	}
	mulAsm(p, m.Format, w, x, r0, r1, out, ldo)
}

// check panics with the reason if Mul would read or write outside its slices.
func check(m *Matrix, panel int, x *Act, r0, r1 int, out []float32, ldo int) {
	rows := r1 - r0
	switch {
	case m.Format >= formats || m.In <= 0 || m.In%units[m.Format].k != 0 || m.Out <= 0 || len(m.Data) < Size(m.Format, m.Out, m.In):
		panic(fmt.Sprintf("gemm: matrix %v %d×%d with %d bytes is malformed", m.Format, m.Out, m.In, len(m.Data)))
	case panel < 0 || panel >= m.Panels():
		panic(fmt.Sprintf("gemm: panel %d of %d", panel, m.Panels()))
	case x.K != m.In:
		panic(fmt.Sprintf("gemm: activations of %d values for weights of %d", x.K, m.In))
	case r0 < 0 || rows < 0:
		panic(fmt.Sprintf("gemm: rows [%d, %d)", r0, r1))
	case ldo < PanelOutputs || len(out) < (rows-1)*ldo+PanelOutputs:
		panic(fmt.Sprintf("gemm: %d rows at a stride of %d do not fit %d outputs", rows, ldo, len(out)))
	case m.Format.Quantized() && (len(x.Q) < r1*x.K || len(x.S) < r1*x.K/block*2 || len(x.N) < r1*x.K/block*2):
		panic(fmt.Sprintf("gemm: row %d is beyond the int8 activations", r1-1))
	case !m.Format.Quantized() && len(x.F) < r1*x.K:
		panic(fmt.Sprintf("gemm: row %d is beyond the float32 activations", r1-1))
	}
}
