package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// ErrType is wrapped by the errors of Dequantize and Quantize about a type that they cannot do. Q8_K can only be decoded.
var ErrType = errors.New("supported tensor types are F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K, IQ4_NL, IQ4_XS and MXFP4")

// Dequantize decodes len(dst) values of type t from src. len(dst) is a whole number of blocks and src is exactly as long as
// these need. Products and sums are rounded one by one, as in ggml's reference code.
func Dequantize(t Type, src []byte, dst []float32) error {
	if err := checkLengths(t, len(dst), len(src)); err != nil {
		return err
	}
	size := t.BlockBytes()
	switch t {
	case F32:
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(src[4*i:]))
		}
	case F16:
		for i := range dst {
			dst[i] = fromF16(binary.LittleEndian.Uint16(src[2*i:]))
		}
	case BF16:
		for i := range dst {
			dst[i] = math.Float32frombits(uint32(binary.LittleEndian.Uint16(src[2*i:])) << 16)
		}
	case Q8_0:
		for ; len(dst) > 0; src, dst = src[size:], dst[32:] {
			d, q := halfAt(src), src[2:34]
			for i := range 32 {
				dst[i] = float32(int8(q[i])) * d
			}
		}
	case Q4_0:
		for ; len(dst) > 0; src, dst = src[size:], dst[32:] {
			d, q := halfAt(src), src[2:18]
			for i := range 16 {
				dst[i] = d * float32(int(q[i]&15)-8)
				dst[i+16] = d * float32(int(q[i]>>4)-8)
			}
		}
	case Q4_1:
		for ; len(dst) > 0; src, dst = src[size:], dst[32:] {
			d, m, q := halfAt(src), halfAt(src[2:]), src[4:20]
			for i := range 16 {
				dst[i] = float32(d*float32(q[i]&15)) + m
				dst[i+16] = float32(d*float32(q[i]>>4)) + m
			}
		}
	case Q5_0:
		for ; len(dst) > 0; src, dst = src[size:], dst[32:] {
			d, high, q := halfAt(src), binary.LittleEndian.Uint32(src[2:]), src[6:22]
			for i := range 16 {
				dst[i] = d * float32(int(q[i]&15|fifthBit(high, i))-16)
				dst[i+16] = d * float32(int(q[i]>>4|fifthBit(high, i+16))-16)
			}
		}
	case Q5_1:
		for ; len(dst) > 0; src, dst = src[size:], dst[32:] {
			d, m, high, q := halfAt(src), halfAt(src[2:]), binary.LittleEndian.Uint32(src[4:]), src[8:24]
			for i := range 16 {
				dst[i] = float32(d*float32(q[i]&15|fifthBit(high, i))) + m
				dst[i+16] = float32(d*float32(q[i]>>4|fifthBit(high, i+16))) + m
			}
		}
	default:
		if decode := blockDecoders[t]; decode != nil {
			n := t.BlockLen()
			for ; len(dst) > 0; src, dst = src[size:], dst[n:] {
				decode(src[:size], dst[:n])
			}
			return nil
		}
		return fmt.Errorf("gguf: cannot decode %s: %w", t, ErrType)
	}
	return nil
}

// checkLengths holds the number of values against the number of bytes.
func checkLengths(t Type, values, size int) error {
	if !t.Known() {
		return fmt.Errorf("gguf: unknown tensor type %d: %w", uint32(t), ErrType)
	}
	if values%t.BlockLen() != 0 {
		return fmt.Errorf("gguf: %d values are not a whole number of %s blocks of %d", values, t, t.BlockLen())
	}
	if size%t.BlockBytes() != 0 || size/t.BlockBytes() != values/t.BlockLen() {
		return fmt.Errorf("gguf: %d values of %s take %d blocks of %d bytes, not %d bytes", values, t, values/t.BlockLen(), t.BlockBytes(), size)
	}
	return nil
}

func halfAt(b []byte) float32 { return fromF16(binary.LittleEndian.Uint16(b)) }

// fifthBit is the bit of weight 16 of value i in a block.
func fifthBit(high uint32, i int) byte { return byte(high>>i&1) << 4 }

// fromF16 is exact.
func fromF16(h uint16) float32 {
	sign, exp, frac := uint32(h&0x8000)<<16, uint32(h>>10&31), uint32(h&0x3ff)
	switch exp {
	case 0: // zero and subnormals: frac * 2^-24
		return math.Float32frombits(math.Float32bits(float32(frac)*0x1p-24) | sign)
	case 31:
		return math.Float32frombits(sign | 0x7f800000 | frac<<13)
	}
	return math.Float32frombits(sign | (exp+127-15)<<23 | frac<<13)
}
