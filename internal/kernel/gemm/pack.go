package gemm

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Errors of Pack.
var (
	// ErrShape: the arguments do not fit the matrix.
	ErrShape = errors.New("gemm: shape mismatch")
	// ErrWeights: a weight is not finite, or has no exact form in the panel's format.
	ErrWeights = errors.New("gemm: weights cannot be packed")
)

// A source is a ggml type: the format that holds it, and its block as GGUF files have it.
type source struct {
	format Format
	values int // in a block
	bytes  int // of a block
	name   string
	// pack writes one unit of a panel: outputs [0, rows) from src, whose rows are stride bytes apart.
	pack func(dst, src []byte, stride, rows int) error
}

// The numbers are those of enum ggml_type (ggml.h).
var sources = map[uint32]source{
	0:  {PF32, 1, 4, "F32", packF32},
	1:  {PF16, 1, 2, "F16", packF16},
	2:  {P4Z, 32, 18, "Q4_0", packNibbles},
	3:  {P4, 32, 20, "Q4_1", packQ4_1},
	6:  {P5Z, 32, 22, "Q5_0", packQ5_0},
	7:  {P5, 32, 24, "Q5_1", packQ5_1},
	8:  {P8, 32, 34, "Q8_0", packQ8_0},
	10: {P2K, 256, 84, "Q2_K", packQ2_K},
	11: {P3K, 256, 110, "Q3_K", packQ3_K},
	12: {P4K, 256, 144, "Q4_K", packQ4_K},
	13: {P5K, 256, 176, "Q5_K", packQ5_K},
	14: {P6K, 256, 210, "Q6_K", packQ6_K},
	20: {P4N, 32, 18, "IQ4_NL", packNibbles},
	23: {P4X, 256, 136, "IQ4_XS", packIQ4_XS},
	30: {PBF16, 1, 2, "BF16", packBF16},
	39: {PMX, 32, 17, "MXFP4", packMXFP4},
}

// Pack fills the panels of the rows [firstRow, firstRow+rows) from src, which holds exactly these rows as a GGUF file
// stores them. firstRow is a multiple of 32, and so is rows unless the range ends at m.Out; rows of the last panel beyond m.Out become
// zero weights. Calls with disjoint ranges may run at once. Errors wrap ErrShape or ErrWeights; the range's panels are then undefined.
func (m *Matrix) Pack(ggmlType uint32, firstRow, rows int, src []byte) error {
	s, ok := sources[ggmlType]
	switch {
	case !ok:
		return fmt.Errorf("%w: ggml type %d; supported are F32, F16, BF16, Q4_0 to Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS and MXFP4", ErrShape, ggmlType)
	case s.format != m.Format:
		return fmt.Errorf("%w: %s packs as %v, not as %v", ErrShape, s.name, s.format, m.Format)
	case m.Out <= 0 || m.In <= 0 || m.In%units[m.Format].k != 0:
		return fmt.Errorf("%w: matrix of %d×%d; the inner size must be a multiple of %d", ErrShape, m.Out, m.In, units[m.Format].k)
	case len(m.Data) != Size(m.Format, m.Out, m.In):
		return fmt.Errorf("%w: %d bytes for panels that take %d", ErrShape, len(m.Data), Size(m.Format, m.Out, m.In))
	case firstRow < 0 || rows < 0 || firstRow%PanelOutputs != 0 || rows > m.Out-firstRow || rows%PanelOutputs != 0 && firstRow+rows != m.Out:
		return fmt.Errorf("%w: rows [%d, %d) of %d are not whole panels of %d", ErrShape, firstRow, firstRow+rows, m.Out, PanelOutputs)
	}
	stride := m.In / s.values * s.bytes
	if len(src) != rows*stride {
		return fmt.Errorf("%w: %d bytes of %s for %d rows that take %d", ErrShape, len(src), s.name, rows, rows*stride)
	}
	u := units[m.Format]
	srcUnit := u.k / s.values * s.bytes // bytes of a unit in a row
	for r := 0; r < rows; r += PanelOutputs {
		n := min(PanelOutputs, rows-r)
		panel := m.Data[(firstRow+r)/PanelOutputs*m.Format.PanelBytes(m.In):]
		for b := range m.In / u.k {
			dst := panel[b*u.bytes:][:u.bytes]
			if n < PanelOutputs {
				clear(dst) // scales of zero, whatever the weights are then
			}
			if err := s.pack(dst, src[r*stride+b*srcUnit:], stride, n); err != nil {
				return fmt.Errorf("%w: %s rows %d to %d, block %d", err, s.name, firstRow+r, firstRow+r+n-1, b)
			}
		}
	}
	return nil
}

var errFinite = fmt.Errorf("%w: value that is not finite", ErrWeights)

func word(b []byte) uint32       { return binary.LittleEndian.Uint32(b) }
func putWord(b []byte, v uint32) { binary.LittleEndian.PutUint32(b, v) }

// putHalf stores the f16 at src for output o; it reports whether the value is finite.
func putHalf(dst []byte, o int, src []byte) bool {
	dst[2*o], dst[2*o+1] = src[0], src[1]
	return src[1]&0x7c != 0x7c
}

// Nibbles of ggml's 4- and 5-bit blocks: byte j has k = j in its low half and k = 16+j in its high half.
const (
	lowNibbles  = 0x0f0f0f0f
	highNibbles = 0xf0f0f0f0
)

// putNibbles stores one output's nibbles in the 4 groups that start at dst: a panel's byte has k and k+4.
func putNibbles(dst []byte, o int, qs []byte) {
	for h := range 2 { // k = 8h..8h+7 and 16+8h..16+8h+7
		a, b := binary.LittleEndian.Uint32(qs[8*h:]), binary.LittleEndian.Uint32(qs[8*h+4:])
		binary.LittleEndian.PutUint32(dst[h*128+o*4:], a&lowNibbles|b&lowNibbles<<4)
		binary.LittleEndian.PutUint32(dst[(h+2)*128+o*4:], a&highNibbles>>4|b&highNibbles)
	}
}

func packQ4_1(dst, src []byte, stride, rows int) error {
	for o := range rows {
		s := src[o*stride:][:20]
		if !putHalf(dst, o, s) || !putHalf(dst[64:], o, s[2:]) {
			return errFinite
		}
		putNibbles(dst[128:], o, s[4:])
	}
	return nil
}

// packNibbles does Q4_0 and IQ4_NL.
func packNibbles(dst, src []byte, stride, rows int) error {
	for o := range rows {
		s := src[o*stride:][:18]
		if !putHalf(dst, o, s) {
			return errFinite
		}
		putNibbles(dst[64:], o, s[2:])
	}
	return nil
}

// putFifth stores one output's fifth bits, bit k of high being that of k: byte j has those of k = j, 4+j, ... 28+j.
func putFifth(dst []byte, o int, high uint32) {
	var v uint32
	for g := range 8 {
		v |= high >> (4 * g) & 15 * 0x00204081 & lowBits << g // the product has bit j of the four at 8j
	}
	putWord(dst[4*o:], v)
}

// putBytes stores one output's 32 bytes in the 8 groups that start at dst, each XORed with flip.
func putBytes(dst []byte, o int, q []byte, flip uint32) {
	for g := range 8 {
		binary.LittleEndian.PutUint32(dst[g*128+o*4:], binary.LittleEndian.Uint32(q[4*g:])^flip)
	}
}

// signFlip turns four int8 into the same values + 128.
const signFlip = 0x80808080

func packQ5_0(dst, src []byte, stride, rows int) error {
	for o := range rows {
		s := src[o*stride:][:22]
		if !putHalf(dst, o, s) {
			return errFinite
		}
		putNibbles(dst[64:], o, s[6:])
		putFifth(dst[64+512:], o, word(s[2:]))
	}
	return nil
}

func packQ5_1(dst, src []byte, stride, rows int) error {
	for o := range rows {
		s := src[o*stride:][:24]
		if !putHalf(dst, o, s) || !putHalf(dst[64:], o, s[2:]) {
			return errFinite
		}
		putNibbles(dst[128:], o, s[8:])
		putFifth(dst[128+512:], o, word(s[4:]))
	}
	return nil
}

func packQ8_0(dst, src []byte, stride, rows int) error {
	for o := range rows {
		s := src[o*stride:][:34]
		if !putHalf(dst, o, s) {
			return errFinite
		}
		putBytes(dst[64:], o, s[2:], signFlip)
	}
	return nil
}

func packF32(dst, src []byte, stride, rows int) error {
	for o := range rows {
		s := src[o*stride:][:4*block]
		for k := range block {
			v := binary.LittleEndian.Uint32(s[4*k:])
			if v&0x7f800000 == 0x7f800000 {
				return errFinite
			}
			binary.LittleEndian.PutUint32(dst[k*128+4*o:], v)
		}
	}
	return nil
}

func packF16(dst, src []byte, stride, rows int) error {
	return pack16(dst, src, stride, rows, 0x7c00)
}

func packBF16(dst, src []byte, stride, rows int) error {
	return pack16(dst, src, stride, rows, 0x7f80)
}

// pack16 stores 16-bit floats whose exponent bits are exp.
func pack16(dst, src []byte, stride, rows int, exp uint16) error {
	for o := range rows {
		s := src[o*stride:][:2*block]
		for k := range block {
			v := binary.LittleEndian.Uint16(s[2*k:])
			if v&exp == exp {
				return errFinite
			}
			binary.LittleEndian.PutUint16(dst[k*64+2*o:], v)
		}
	}
	return nil
}
