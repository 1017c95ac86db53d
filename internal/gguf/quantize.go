package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Quantize encodes values, a whole number of blocks of t. F32 to Q8_0 are encoded as ggml's reference code does (quantize_row_*_ref): the
// same bytes, where no operation is contracted to a fused one. The K-types, IQ4_NL, IQ4_XS and MXFP4 are rounded to the nearest with
// scales from the extreme values, without the searches for better ones that ggml makes. Block formats take finite values only, whose
// scale fits a half; F16 rounds to nearest even and overflows to infinity.
func Quantize(t Type, values []float32) ([]byte, error) {
	if !t.Known() {
		return nil, fmt.Errorf("gguf: unknown tensor type %d: %w", uint32(t), ErrType)
	}
	n, size := t.BlockLen(), t.BlockBytes()
	if len(values)%n != 0 {
		return nil, fmt.Errorf("gguf: %d values are not a whole number of %s blocks of %d", len(values), t, n)
	}
	var block func(x []float32, b []byte) error
	switch t {
	case F32:
		block = func(x []float32, b []byte) error {
			binary.LittleEndian.PutUint32(b, math.Float32bits(x[0]))
			return nil
		}
	case F16:
		block = func(x []float32, b []byte) error {
			binary.LittleEndian.PutUint16(b, toF16(x[0]))
			return nil
		}
	case BF16:
		block = func(x []float32, b []byte) error {
			binary.LittleEndian.PutUint16(b, toBF16(x[0]))
			return nil
		}
	case Q4_0:
		block = func(x []float32, b []byte) error { return quantizeSigned(x, b, 4) }
	case Q4_1:
		block = func(x []float32, b []byte) error { return quantizeOffset(x, b, 4) }
	case Q5_0:
		block = func(x []float32, b []byte) error { return quantizeSigned(x, b, 5) }
	case Q5_1:
		block = func(x []float32, b []byte) error { return quantizeOffset(x, b, 5) }
	case Q8_0:
		block = quantizeQ8
	default:
		block = blockEncoders[t]
	}
	if block == nil {
		return nil, fmt.Errorf("gguf: cannot encode %s: %w", t, ErrType)
	}
	out := make([]byte, len(values)/n*size)
	for i := range len(values) / n {
		if err := block(values[i*n:(i+1)*n], out[i*size:(i+1)*size]); err != nil {
			return nil, fmt.Errorf("gguf: %s block %d: %w", t, i, err)
		}
	}
	return out, nil
}

// quantizeSigned does Q4_0 and Q5_0: the value of largest magnitude becomes the most negative code, so d has its sign.
func quantizeSigned(x []float32, b []byte, nBits int) error {
	half := float32(int(1) << (nBits - 1))
	var amax, at float32
	for _, v := range x {
		if err := finite(v); err != nil {
			return err
		}
		if a := abs(v); a > amax {
			amax, at = a, v
		}
	}
	d := at / -half
	if err := putScale(b, d); err != nil {
		return err
	}
	inv := inverse(d)
	var q [32]byte
	for i, v := range x {
		q[i] = code(float32(v*inv)+(half+0.5), nBits)
	}
	putCodes(b[2:], &q, nBits)
	return nil
}

// quantizeOffset does Q4_1 and Q5_1: codes count up from the smallest value.
func quantizeOffset(x []float32, b []byte, nBits int) error {
	lo, hi := x[0], x[0]
	for _, v := range x {
		if err := finite(v); err != nil {
			return err
		}
		if v < lo {
			lo = v
		}
		if v > hi {
			hi = v
		}
	}
	d := (hi - lo) / float32(int(1)<<nBits-1)
	if err := putScale(b, d); err != nil {
		return err
	}
	if err := putScale(b[2:], lo); err != nil {
		return err
	}
	inv := inverse(d)
	var q [32]byte
	for i, v := range x {
		q[i] = code(float32((v-lo)*inv)+0.5, nBits)
	}
	putCodes(b[4:], &q, nBits)
	return nil
}

func quantizeQ8(x []float32, b []byte) error {
	var amax float32
	for _, v := range x {
		if err := finite(v); err != nil {
			return err
		}
		amax = max(amax, abs(v))
	}
	d := amax / 127
	if err := putScale(b, d); err != nil {
		return err
	}
	inv := inverse(d)
	for i, v := range x {
		// The product lies in -128 < … < 128 by its rounding errors alone; round half away from zero, as C's roundf.
		b[2+i] = byte(int8(math.Round(float64(v * inv))))
	}
	return nil
}

// putCodes packs 32 codes: for 5-bit ones first the highest bits as a little-endian word, then the low four bits of code
// i and of code i+16 in one byte.
func putCodes(b []byte, q *[32]byte, nBits int) {
	if nBits == 5 {
		var high uint32
		for i, v := range q {
			high |= uint32(v>>4&1) << i
		}
		binary.LittleEndian.PutUint32(b, high)
		b = b[4:]
	}
	for i := range 16 {
		b[i] = q[i]&15 | q[i+16]<<4
	}
}

// code cuts v, which already has its half added, to an integer that fits nBits.
func code(v float32, nBits int) byte {
	most := 1<<nBits - 1
	if !(v > 0) {
		return 0
	}
	if v >= float32(most) {
		return byte(most)
	}
	return byte(int(v))
}

// inverse is 1/d. A scale so small that its inverse overflows is stored as zero anyway.
func inverse(d float32) float32 {
	if inv := 1 / d; d != 0 && !math.IsInf(float64(inv), 0) {
		return inv
	}
	return 0
}

func putScale(b []byte, v float32) error {
	h := toF16(v)
	if h&0x7c00 == 0x7c00 {
		return fmt.Errorf("scale %g does not fit a half", v)
	}
	binary.LittleEndian.PutUint16(b, h)
	return nil
}

func finite(v float32) error {
	if v-v != 0 {
		return fmt.Errorf("value %g is not finite", v)
	}
	return nil
}

func abs(v float32) float32 { return math.Float32frombits(math.Float32bits(v) &^ (1 << 31)) }

// toF16 rounds to the nearest half, ties to even.
func toF16(f float32) uint16 {
	u := math.Float32bits(f)
	sign := uint16(u >> 16 & 0x8000)
	u &^= 1 << 31
	switch {
	case u > 0x7f800000: // NaN stays a quiet NaN
		return sign | 0x7e00 | uint16(u>>13&0x3ff)
	case u >= 0x477ff000: // 65520 and more round to infinity
		return sign | 0x7c00
	case u < 0x38800000: // below 2^-14 the spacing is fixed at 2^-24, which is that of float32 numbers around 0.5
		return sign | uint16(math.Float32bits(math.Float32frombits(u)+0.5)-0x3f000000)
	}
	u += 0xfff + u>>13&1 // half of the last place; one more if that place is odd
	return sign | uint16((u-(127-15)<<23)>>13)
}

// toBF16 rounds to the nearest bfloat16, ties to even.
func toBF16(f float32) uint16 {
	u := math.Float32bits(f)
	if u&0x7fffffff > 0x7f800000 {
		return uint16(u>>16) | 0x40 // NaN stays a quiet NaN
	}
	return uint16((u + 0x7fff + u>>16&1) >> 16)
}
