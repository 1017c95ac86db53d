package gguf

import (
	"encoding/binary"
	"math"
)

// blockEncoders encode one block each, of the types that Quantize does not do itself.
var blockEncoders = map[Type]func(x []float32, b []byte) error{
	Q2_K: encodeQ2K, Q3_K: encodeQ3K, Q4_K: encodeQ4K, Q5_K: encodeQ5K, Q6_K: encodeQ6K,
	IQ4_NL: encodeIQ4NL, IQ4_XS: encodeIQ4XS, MXFP4: encodeMXFP4,
}

// extremes are the least and the largest value and the one of largest magnitude. All must be finite.
func extremes(x []float32) (lo, hi, at float32, err error) {
	lo, hi = x[0], x[0]
	for _, v := range x {
		if err := finite(v); err != nil {
			return 0, 0, 0, err
		}
		lo, hi = min(lo, v), max(hi, v)
		if abs(v) > abs(at) {
			at = v
		}
	}
	return lo, hi, at, nil
}

// nearest rounds v to a whole number of lo to hi.
func nearest(v float32, lo, hi int) int {
	return int(min(max(math.RoundToEven(float64(v)), float64(lo)), float64(hi)))
}

// twoLevels quantises scales, none of them negative if lo is 0, to whole numbers of lo to hi times a half, which it stores at b and returns.
func twoLevels(b []byte, scales []float32, lo, hi int, q []int) (d float32, err error) {
	_, _, at, err := extremes(scales)
	if err != nil {
		return 0, err
	}
	if err := putScale(b, abs(at)/float32(hi)); err != nil {
		return 0, err
	}
	d = halfAt(b)
	inv := inverse(d)
	for i, s := range scales {
		q[i] = nearest(s*inv, lo, hi)
	}
	return d, nil
}

// minima finds codes 0..most with a scale and a minimum, of 0..top each in two levels, for every n values. d and dmin go to where these are.
func minima(x []float32, n, most, top int, d, dmin []byte) (codes [256]byte, scales, mins [16]int, err error) {
	var s, m [16]float32
	parts := len(x) / n
	for i := range parts {
		lo, hi, _, err := extremes(x[n*i:][:n])
		if err != nil {
			return codes, scales, mins, err
		}
		lo = min(lo, 0)
		s[i], m[i] = (max(hi, 0)-lo)/float32(most), -lo
	}
	step, err := twoLevels(d, s[:parts], 0, top, scales[:])
	if err != nil {
		return codes, scales, mins, err
	}
	least, err := twoLevels(dmin, m[:parts], 0, top, mins[:])
	if err != nil {
		return codes, scales, mins, err
	}
	for k, v := range x {
		inv := inverse(step * float32(scales[k/n]))
		codes[k] = byte(nearest((v+float32(least*float32(mins[k/n])))*inv, 0, most))
	}
	return codes, scales, mins, nil
}

// signs finds codes 0..2*zero-1 that stand for themselves less zero, with a scale of lo..hi in two levels for every 16 values.
func signs(x []float32, zero, lo, hi int, d []byte) (codes [256]byte, scales [16]int, err error) {
	var s [16]float32
	for i := range s {
		_, _, at, err := extremes(x[16*i:][:16])
		if err != nil {
			return codes, scales, err
		}
		s[i] = at / float32(-zero) // the value of largest magnitude gets the code 0
	}
	step, err := twoLevels(d, s[:], lo, hi, scales[:])
	if err != nil {
		return codes, scales, err
	}
	for k, v := range x {
		codes[k] = byte(nearest(v*inverse(step*float32(scales[k/16])), -zero, zero-1) + zero)
	}
	return codes, scales, nil
}

func encodeQ2K(x []float32, b []byte) error {
	codes, s, m, err := minima(x, 16, 3, 15, b[80:], b[82:])
	if err != nil {
		return err
	}
	for i := range 16 {
		b[i] = byte(s[i] | m[i]<<4)
	}
	putPairs(b[16:80], codes[:], 0)
	return nil
}

func encodeQ3K(x []float32, b []byte) error {
	codes, s, err := signs(x, 4, -32, 31, b[108:])
	if err != nil {
		return err
	}
	for k, q := range codes {
		b[k%32] |= q >> 2 << (k / 32)
	}
	putPairs(b[32:96], codes[:], 0)
	for i, v := range s {
		v += 32
		b[96+i%8] |= byte(v&15) << (i / 8 * 4)
		b[104+i%4] |= byte(v>>4) << (i / 4 * 2)
	}
	return nil
}

func encodeQ4K(x []float32, b []byte) error {
	codes, s, m, err := minima(x, 32, 15, 63, b, b[2:])
	if err != nil {
		return err
	}
	putScaleMins(b[4:16], s, m)
	putNibbles(b[16:], codes[:], 32)
	return nil
}

func encodeQ5K(x []float32, b []byte) error {
	codes, s, m, err := minima(x, 32, 31, 63, b, b[2:])
	if err != nil {
		return err
	}
	putScaleMins(b[4:16], s, m)
	for k, q := range codes {
		b[16+k%32] |= q >> 4 << (k / 32)
	}
	putNibbles(b[48:], codes[:], 32)
	return nil
}

func encodeQ6K(x []float32, b []byte) error {
	codes, s, err := signs(x, 32, -128, 127, b[208:])
	if err != nil {
		return err
	}
	putNibbles(b, codes[:], 64)
	putPairs(b[128:192], codes[:], 4)
	for i, v := range s {
		b[192+i] = byte(int8(v))
	}
	return nil
}

func encodeIQ4NL(x []float32, b []byte) error {
	_, _, at, err := extremes(x)
	if err != nil {
		return err
	}
	if err := putScale(b, at/iq4Values[0]); err != nil {
		return err
	}
	putClosest(b[2:], x, halfAt(b), &iq4Values)
	return nil
}

func encodeIQ4XS(x []float32, b []byte) error {
	var s [8]float32
	var q [8]int
	for i := range s {
		_, _, at, err := extremes(x[32*i:][:32])
		if err != nil {
			return err
		}
		s[i] = at / iq4Values[0]
	}
	d, err := twoLevels(b, s[:], -32, 31, q[:])
	if err != nil {
		return err
	}
	var high uint16
	for i, v := range q {
		v += 32
		b[4+i/2] |= byte(v&15) << (i % 2 * 4)
		high |= uint16(v>>4) << (2 * i)
		putClosest(b[8+16*i:], x[32*i:][:32], d*float32(v-32), &iq4Values)
	}
	binary.LittleEndian.PutUint16(b[2:], high)
	return nil
}

// encodeMXFP4 takes the power of two that the specification of microscaling formats recommends: that of the largest value, less the largest
// exponent of E2M1.
func encodeMXFP4(x []float32, b []byte) error {
	_, _, at, err := extremes(x)
	if err != nil {
		return err
	}
	if at != 0 {
		b[0] = byte(max(math.Ilogb(float64(at))-2+127, 0))
	}
	putClosest(b[1:], x, halfPower(b[0]), &mxfp4Values)
	return nil
}

// putClosest packs 32 nibbles, each the first of those whose value times d is closest.
func putClosest(b []byte, x []float32, d float32, table *[16]float32) {
	for i, v := range x {
		best, least := 0, float32(math.Inf(1))
		for q, t := range table {
			if e := abs(v - float32(d*t)); e < least {
				best, least = q, e
			}
		}
		b[i%16] |= byte(best) << (i / 16 * 4)
	}
}

// putNibbles packs the lower four bits of 256 codes: n codes low in n bytes, the next n high in the same.
func putNibbles(b, codes []byte, n int) {
	for k, q := range codes {
		b[k/(2*n)*n+k%n] |= q & 15 << (k / n % 2 * 4)
	}
}

// putPairs packs two bits from bit on of 256 codes: those of 4 × 32 codes in 32 bytes.
func putPairs(b, codes []byte, bit int) {
	for k, q := range codes {
		b[k/128*32+k%32] |= q >> bit & 3 << (k / 32 % 4 * 2)
	}
}

// putScaleMins is the inverse of scaleMin for all eight.
func putScaleMins(b []byte, s, m [16]int) {
	for j := range 4 {
		b[j] = byte(s[j] | s[j+4]>>4<<6)
		b[j+4] = byte(m[j] | m[j+4]>>4<<6)
		b[j+8] = byte(s[j+4]&15 | m[j+4]<<4)
	}
}
