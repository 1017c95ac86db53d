package gguf

import (
	"encoding/binary"
	"math"
)

// What the nibbles of IQ4_NL, IQ4_XS and MXFP4 stand for: kvalues_iq4nl and kvalues_mxfp4 of ggml-common.h. The latter are twice what the
// OCP specification of microscaling formats calls E2M1.
var (
	iq4Values   = [16]float32{-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113}
	mxfp4Values = [16]float32{0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12}
)

// blockDecoders decode one block each, of the types that Dequantize does not do itself. In the K-types 256 values share d (and dmin), 16 or
// 32 of them a scale (and a minimum) of a few bits; the weights of 32 values lie at the same bits of 32 bytes.
var blockDecoders = map[Type]func(b []byte, y []float32){
	Q2_K: decodeQ2K, Q3_K: decodeQ3K, Q4_K: decodeQ4K, Q5_K: decodeQ5K, Q6_K: decodeQ6K, Q8_K: decodeQ8K,
	IQ4_NL: decodeIQ4NL, IQ4_XS: decodeIQ4XS, MXFP4: decodeMXFP4,
}

// decodeQ2K: 16 bytes with a scale and above it a minimum, 64 bytes of weights, d, dmin.
func decodeQ2K(b []byte, y []float32) {
	d, dmin := halfAt(b[80:]), halfAt(b[82:])
	for k := range y {
		s := b[k/16]
		q := b[16+k/128*32+k%32] >> (k / 32 % 4 * 2) & 3
		y[k] = float32(float32(d*float32(s&15))*float32(q)) - float32(dmin*float32(s>>4))
	}
}

// decodeQ3K: 32 bytes with the third bits, 64 bytes of lower bits, 16 scales of 6 bits, d.
func decodeQ3K(b []byte, y []float32) {
	d := halfAt(b[108:])
	for k := range y {
		q := int(b[32+k/128*32+k%32]>>(k/32%4*2)&3) + int(b[k%32]>>(k/32)&1)*4 - 4
		y[k] = float32(d*float32(scaleQ3(b[96:], k/16))) * float32(q)
	}
}

// scaleQ3 is scale i of Q3_K: four lower bits in a nibble, two upper ones in the last four bytes.
func scaleQ3(s []byte, i int) int {
	return int(s[i%8]>>(i/8*4)&15|s[8+i%4]>>(i/4*2)&3<<4) - 32
}

// decodeQ4K: d, dmin, 12 bytes of scales and minima, 128 bytes of weights.
func decodeQ4K(b []byte, y []float32) { decodeMinK(b, nil, b[16:], y) }

// decodeQ5K: as decodeQ4K, with 32 bytes of fifth bits before the weights.
func decodeQ5K(b []byte, y []float32) { decodeMinK(b, b[16:48], b[48:], y) }

func decodeMinK(b, high, qs []byte, y []float32) {
	d, dmin := halfAt(b), halfAt(b[2:])
	for j := range 8 {
		s, m := scaleMin(b[4:16], j)
		scale, minimum := d*float32(s), dmin*float32(m)
		for k := range 32 {
			q := qs[j/2*32+k] >> (j % 2 * 4) & 15
			if high != nil {
				q |= high[k] >> j & 1 << 4
			}
			y[32*j+k] = float32(scale*float32(q)) - minimum
		}
	}
}

// scaleMin is the scale and the minimum of 32 values, of 6 bits each.
func scaleMin(s []byte, j int) (scale, minimum byte) {
	if j < 4 {
		return s[j] & 63, s[j+4] & 63
	}
	return s[j+4]&15 | s[j-4]>>6<<4, s[j+4]>>4 | s[j]>>6<<4
}

// decodeQ6K: 128 bytes of lower bits, 64 bytes of upper ones, 16 scales, d.
func decodeQ6K(b []byte, y []float32) {
	d := halfAt(b[208:])
	for k := range y {
		q := int(b[k/128*64+k%64]>>(k/64%2*4)&15|b[128+k/128*32+k%32]>>(k/32%4*2)&3<<4) - 32
		y[k] = float32(d*float32(int8(b[192+k/16]))) * float32(q)
	}
}

// decodeQ8K: a float32 d, 256 weights, 16 sums that are not needed.
func decodeQ8K(b []byte, y []float32) {
	d := math.Float32frombits(binary.LittleEndian.Uint32(b))
	for k := range y {
		y[k] = d * float32(int8(b[4+k]))
	}
}

// decodeIQ4NL: d, then nibbles as in Q4_0.
func decodeIQ4NL(b []byte, y []float32) { decodeTable(halfAt(b), &iq4Values, b[2:], y) }

// decodeMXFP4: the exponent of d, then nibbles as in Q4_0.
func decodeMXFP4(b []byte, y []float32) { decodeTable(halfPower(b[0]), &mxfp4Values, b[1:], y) }

// decodeIQ4XS: d, 8 scales of 6 bits, their upper two first, then nibbles of 32 values each as in Q4_0.
func decodeIQ4XS(b []byte, y []float32) {
	d, high := halfAt(b), binary.LittleEndian.Uint16(b[2:])
	for j := range 8 {
		s := int(b[4+j/2]>>(j%2*4)&15|byte(high>>(2*j))&3<<4) - 32
		decodeTable(d*float32(s), &iq4Values, b[8+16*j:], y[32*j:])
	}
}

func decodeTable(d float32, table *[16]float32, qs []byte, y []float32) {
	for i, q := range qs[:16] {
		y[i] = d * table[q&15]
		y[i+16] = d * table[q>>4]
	}
}

// halfPower is 2^(e-128), ggml_e8m0_to_fp32_half: half the value of the exponent byte E8M0, whatever it is.
func halfPower(e byte) float32 {
	if e < 2 {
		return math.Float32frombits(0x00200000 << e)
	}
	return math.Float32frombits(uint32(e-1) << 23)
}
