package peak

import (
	"encoding/binary"
	"sync/atomic"
)

// A loop does ops operations a turn.
type loop struct {
	name string
	run  func(turns int)
	ops  int
}

// portable are the loops in plain Go, one for each Op.
var portable = [2]loop{{"plain Go", int8Go, 2 * len(bytesA)}, {"plain Go", f32Go, 2 * len(floatsA)}}

// Small enough for the first-level cache, and variables, so that the compiler cannot know the products.
var (
	bytesA, bytesB   [64]int8
	floatsA, floatsB [64]float32
)

func init() {
	for i := range bytesA {
		bytesA[i], bytesB[i] = int8(i), int8(64-i)
		floatsA[i], floatsB[i] = 0.5, 0.5
	}
}

// sink takes results, so that no compiler may leave the work out.
var sink atomic.Uint64

func int8Go(turns int) {
	var s0, s1, s2, s3 int32
	for range turns {
		for i := 0; i < len(bytesA); i += 4 {
			s0 += int32(bytesA[i]) * int32(bytesB[i])
			s1 += int32(bytesA[i+1]) * int32(bytesB[i+1])
			s2 += int32(bytesA[i+2]) * int32(bytesB[i+2])
			s3 += int32(bytesA[i+3]) * int32(bytesB[i+3])
		}
	}
	sink.Store(uint64(s0 + s1 + s2 + s3))
}

func f32Go(turns int) {
	var s0, s1, s2, s3 float32
	for range turns {
		for i := 0; i < len(floatsA); i += 4 {
			s0 += floatsA[i] * floatsB[i]
			s1 += floatsA[i+1] * floatsB[i+1]
			s2 += floatsA[i+2] * floatsB[i+2]
			s3 += floatsA[i+3] * floatsB[i+3]
		}
	}
	sink.Store(uint64(s0 + s1 + s2 + s3))
}

// readGo reads b, whose length is a multiple of 64.
func readGo(b []byte) {
	var s0, s1, s2, s3 uint64
	for ; len(b) >= 64; b = b[64:] {
		s0 |= binary.LittleEndian.Uint64(b) | binary.LittleEndian.Uint64(b[8:])
		s1 |= binary.LittleEndian.Uint64(b[16:]) | binary.LittleEndian.Uint64(b[24:])
		s2 |= binary.LittleEndian.Uint64(b[32:]) | binary.LittleEndian.Uint64(b[40:])
		s3 |= binary.LittleEndian.Uint64(b[48:]) | binary.LittleEndian.Uint64(b[56:])
	}
	sink.Store(s0 | s1 | s2 | s3)
}
