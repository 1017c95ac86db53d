// Package vec holds the kernels on vectors and on attention tiles: quantisation of activations, normalisation, gated
// activation, rotary embedding, attention over f16 keys and values, and the arg-max of logits.
//
// Every function takes the path to run on and gives the same bits on each of them; docs/numerics.md is the contract and
// the functions in oracle.go and oracle_attend.go are its portable form. Nothing here allocates, locks or keeps memory, so
// any number of goroutines may call. Inputs are finite unless said otherwise. Slices that are too short or of a length
// that a kernel does not support are programming errors and panic before anything is written.
package vec

import (
	"fmt"

	"kvasir/internal/kernel"
)

//go:generate go -C ../_asm run ./vec -out ../vec/vec_amd64.s -stubs ../vec/stubs_amd64.go -pkg vec
//go:generate go -C ../_asm run ./neon -out ../vec/vec_arm64.s -stubs ../vec/stubs_arm64.go -pkg vec

// BlockSize is the number of consecutive values that share one scale after Quantize.
const BlockSize = 32

// Quantize turns the row x (a multiple of 32 values) into int8. For block b of 32 values, q[32b:32b+32] are the values,
// s[2b] the scale d, s[2b+1] the scale times the sum of the block's q, n[2b] is -128 times that sum (what an unsigned
// 8-bit weight panel adds to undo its offset), and n[2b+1] has the sum of the first 16 q in its lower int16, of the last 16 in its upper.
func Quantize(p kernel.Path, x []float32, q []int8, s []float32, n []int32) {
	blocks := len(x) / BlockSize
	if len(x)%BlockSize != 0 || len(q) < len(x) || len(s) < 2*blocks || len(n) < 2*blocks {
		panic(fmt.Sprintf("vec.Quantize: lengths x %d, q %d, s %d, n %d", len(x), len(q), len(s), len(n)))
	}
	if blocks > 0 {
		quantize(p, x, q, s, n)
	}
}

// RMSNorm sets dst to x / sqrt(mean(x²) + eps) * w. The lengths are equal and a multiple of 32; dst may be x.
func RMSNorm(p kernel.Path, dst, x, w []float32, eps float32) {
	if len(x) == 0 || len(x)%32 != 0 || len(dst) != len(x) || len(w) != len(x) {
		panic(fmt.Sprintf("vec.RMSNorm: lengths dst %d, x %d, w %d", len(dst), len(x), len(w)))
	}
	rmsNorm(p, dst, x, w, eps)
}

// Add adds y to x. The lengths are equal; multiples of 16 are fastest.
func Add(p kernel.Path, x, y []float32) {
	if len(x) != len(y) {
		panic(fmt.Sprintf("vec.Add: lengths %d, %d", len(x), len(y)))
	}
	add(p, x, y)
}

// SiluMul sets dst to gate * sigmoid(gate) * up. The lengths are equal and a multiple of 32; dst may be gate or up.
func SiluMul(p kernel.Path, dst, gate, up []float32) {
	if len(gate)%32 != 0 || len(dst) != len(gate) || len(up) != len(gate) {
		panic(fmt.Sprintf("vec.SiluMul: lengths dst %d, gate %d, up %d", len(dst), len(gate), len(up)))
	}
	if len(gate) > 0 {
		siluMul(p, dst, gate, up)
	}
}

// GeluMul sets dst to GELU(gate) * up with the tanh form of GELU (Hendrycks and Gimpel, 2016). The lengths are equal and a multiple
// of 32; dst may be gate or up.
func GeluMul(p kernel.Path, dst, gate, up []float32) {
	if len(gate)%32 != 0 || len(dst) != len(gate) || len(up) != len(gate) {
		panic(fmt.Sprintf("vec.GeluMul: lengths dst %d, gate %d, up %d", len(dst), len(gate), len(up)))
	}
	if len(gate) > 0 {
		geluMul(p, dst, gate, up)
	}
}

// AddScaled adds y times scale to x, each value rounded once. The lengths are equal; multiples of 16 are fastest.
func AddScaled(p kernel.Path, x, y []float32, scale float32) {
	if len(x) != len(y) {
		panic(fmt.Sprintf("vec.AddScaled: lengths %d, %d", len(x), len(y)))
	}
	addScaled(p, x, y, scale)
}

// Rope rotates the interleaved pairs of src's heads (heads rows of headSize values, contiguous) by one position's angles,
// multiplies by scale and writes dst, which may be src. cs is that position's table of 2*headSize values, made by FillRope.
func Rope(p kernel.Path, dst, src []float32, heads, headSize int, cs []float32, scale float32) {
	checkHeadSize("vec.Rope", headSize)
	if heads < 0 || len(dst) < heads*headSize || len(src) < heads*headSize || len(cs) < 2*headSize {
		panic(fmt.Sprintf("vec.Rope: %d heads of %d: lengths dst %d, src %d, cs %d", heads, headSize, len(dst), len(src), len(cs)))
	}
	if heads > 0 {
		rope(p, dst, src, heads, headSize, cs, scale)
	}
}

// FillRope fills the table of one position for Rope. cos and sin have one value a pair (headSize/2 of them); cs gets first
// headSize cosines, each twice, then headSize sines, each as (-sin, sin): so a pair (a, b) becomes
// (a*cos + b*(-sin), b*cos + a*sin) with one vector operation for both.
func FillRope(cs, cos, sin []float32) {
	h := 2 * len(cos)
	if len(sin) != len(cos) || len(cs) < 2*h {
		panic(fmt.Sprintf("vec.FillRope: lengths cs %d, cos %d, sin %d", len(cs), len(cos), len(sin)))
	}
	for i, c := range cos {
		s := sin[i]
		cs[2*i], cs[2*i+1] = c, c
		cs[h+2*i], cs[h+2*i+1] = -s, s
	}
}

// Argmax returns the index of the largest value, the lowest one among equals. NaN never wins; if there is nothing but NaN, or
// nothing at all, the result is -1.
func Argmax(p kernel.Path, x []float32) int { return argmax(p, x) }

func checkHeadSize(who string, n int) {
	if n < 16 || n > MaxHeadSize || n%16 != 0 {
		panic(fmt.Sprintf("%s: head size %d is not a multiple of 16 from 16 to %d", who, n, MaxHeadSize))
	}
}
