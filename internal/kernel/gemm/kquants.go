package gemm

import "encoding/binary"

// Pairs and single bits of a word's bytes.
const (
	lowPairs = 0x03030303
	lowBits  = 0x01010101
)

// heads stores d and, as its negative, dmin.
func heads(dst []byte, o int, d, dmin []byte) bool {
	ok := putHalf(dst, o, d) && putHalf(dst[64:], o, dmin)
	dst[64+2*o+1] ^= 0x80
	return ok
}

// block returns block b of a unit with shared scales.
func (l *layout) block(unit []byte, b int) []byte {
	n := l.bytes()
	return unit[l.head()+b*n:][:n]
}

// scaleMin returns scale and minimum of 32 k, which Q4_K and Q5_K keep in 6 bits each of 12 bytes.
func scaleMin(s []byte, b int) (scale, minimum byte) {
	if b < 4 {
		return s[b] & 63, s[b+4] & 63
	}
	return s[b+4]&15 | s[b-4]>>6<<4, s[b+4]>>4 | s[b]>>6<<4
}

// packQ4_K: d, dmin, 12 bytes of scales, then for each 64 k 32 bytes of nibbles: the first 32 k are the low ones.
func packQ4_K(dst, src []byte, stride, rows int) error {
	return packMinK(&layouts[P4K], dst, src, stride, rows, 144)
}

// packQ5_K: as Q4_K with 32 bytes before the nibbles, bit b of byte k being the fifth of k in block b.
func packQ5_K(dst, src []byte, stride, rows int) error {
	return packMinK(&layouts[P5K], dst, src, stride, rows, 176)
}

func packMinK(l *layout, dst, src []byte, stride, rows, size int) error {
	for o := range rows {
		s := src[o*stride:][:size]
		if !heads(dst, o, s, s[2:]) {
			return errFinite
		}
		qs := s[size-128:]
		for b := range superBlocks {
			w := l.block(dst, b)
			w[o], w[32+o] = scaleMin(s[4:], b)
			var c [8]uint32
			for g := range c {
				c[g] = word(qs[b/2*32+4*g:]) >> (b % 2 * 4) & lowNibbles
				if size == 176 {
					c[g] |= word(s[16+4*g:]) >> b & lowBits << 4
				}
			}
			l.put(w, o, &c)
		}
	}
	return nil
}

// packQ6_K: for each 128 k 64 bytes of low nibbles, then for each 128 k 32 bytes of pairs of high bits, 16 int8 scales, d.
func packQ6_K(dst, src []byte, stride, rows int) error {
	l := &layouts[P6K]
	for o := range rows {
		s := src[o*stride:][:210]
		if !putHalf(dst, o, s[208:]) {
			return errFinite
		}
		for b := range superBlocks {
			w := l.block(dst, b)
			copy(w[2*o:2*o+2], s[192+2*b:])
			low, high := s[b/4*64+b%2*32:], s[128+b/4*32:]
			var c [8]uint32
			for g := range c {
				c[g] = word(low[4*g:])>>(b%4/2*4)&lowNibbles | word(high[4*g:])>>(b%4*2)&lowPairs<<4
			}
			l.put(w, o, &c)
		}
	}
	return nil
}

// packQ3_K: 32 bytes whose bit b is the third of k in block b (and stands for 0, not having it for -4), for each 128 k 32 bytes of pairs of low
// bits, 16 scales of 6 bits less 32, d.
func packQ3_K(dst, src []byte, stride, rows int) error {
	l := &layouts[P3K]
	for o := range rows {
		s := src[o*stride:][:110]
		if !putHalf(dst, o, s[108:]) {
			return errFinite
		}
		for b := range superBlocks {
			w := l.block(dst, b)
			for i := range 2 {
				j := 2*b + i
				w[2*o+i] = (s[96+j%8]>>(j/8*4)&15 | s[104+j%4]>>(j/4*2)&3<<4) - 32
			}
			var c [8]uint32
			for g := range c {
				c[g] = word(s[32+b/4*32+4*g:])>>(b%4*2)&lowPairs | word(s[4*g:])>>b&lowBits<<2
			}
			l.put(w, o, &c)
		}
	}
	return nil
}

// packQ2_K: 16 bytes with a scale of 4 bits and above it a minimum for 16 k, for each 128 k 32 bytes of pairs of bits, d, dmin.
func packQ2_K(dst, src []byte, stride, rows int) error {
	l := &layouts[P2K]
	for o := range rows {
		s := src[o*stride:][:84]
		if !heads(dst, o, s[80:], s[82:]) {
			return errFinite
		}
		for b := range superBlocks {
			w := l.block(dst, b)
			copy(w[2*o:2*o+2], s[2*b:])
			var c [8]uint32
			for g := range c {
				c[g] = word(s[16+b/4*32+4*g:]) >> (b % 4 * 2) & lowPairs
			}
			l.put(w, o, &c)
		}
	}
	return nil
}

// packIQ4_XS: d, 16 bits with the upper two of each block's scale, 4 bytes with the lower four, then each block's 16 bytes of nibbles as in Q4_0.
func packIQ4_XS(dst, src []byte, stride, rows int) error {
	l := &layouts[P4X]
	for o := range rows {
		s := src[o*stride:][:136]
		if !putHalf(dst, o, s) {
			return errFinite
		}
		for b := range superBlocks {
			w := l.block(dst, b)
			high := binary.LittleEndian.Uint16(s[2:])
			w[o] = (s[4+b/2]>>(b%2*4)&15 | byte(high>>(2*b))&3<<4) - 32
			putNibbles(w[32:], o, s[8+16*b:])
		}
	}
	return nil
}

// packMXFP4: a power of two, then nibbles as in Q4_0. ggml counts the weights in halves, so e stands for 2^(e-128).
func packMXFP4(dst, src []byte, stride, rows int) error {
	for o := range rows {
		s := src[o*stride:][:17]
		d := uint16(s[0]-1) << 7 // as bfloat16
		switch {
		case s[0] > 252: // 12 times it is beyond float32; 255 is not a number
			return errFinite
		case s[0] < 2: // subnormal
			d = 0x20 << s[0]
		}
		binary.LittleEndian.PutUint16(dst[2*o:], d)
		putNibbles(dst[64:], o, s[1:])
	}
	return nil
}
