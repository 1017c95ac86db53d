package gemm

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"kvasir/internal/kernel"
)

// golden has the SHA-256 of what Mul gives for each ggml type: the same on every path, processor and compiler. The inputs are made of
// whole numbers and powers of two, since float arithmetic in a test may be fused on some processors.
var golden = map[string]string{
	"F32":    "49d75c83c9a2e1f0d41c59ff5aeebedfc02294ca130f6958661db04f4003fcb8",
	"F16":    "a92f4e56e71718a7cdee20585166854cba1508fa275db603b25cbc04e542b528",
	"BF16":   "0bc27b83442c1035a86815b393d2fe140752b7e4528717c8bdddd1561a033e07",
	"Q4_0":   "6896fe20bcd50f83d08a1ebf87fc93ac06cba6d7159d25651f087dfe7b236161",
	"Q4_1":   "3ea4264e4bf0bac917362500e9ab98e1b67840b17dfd03d85d7d18c21db39e82",
	"Q5_0":   "565259d8478c5370f53536f6f64f509bb2aafba08019fa3895c1da3be1fb9c6c",
	"Q5_1":   "7765854ccd526035db9d2553f93db31c36bc64e5e739895975145eb40c2e1141",
	"Q8_0":   "06e14b3bd0986dc4c30cdb51e248a9965df231faeb4834afae2ffa18e60b9cf7",
	"Q2_K":   "868a99bb45a83ff9268d0c80950732bd6b090993eb11d6d9d50a4858133ebce0",
	"Q3_K":   "be1f298d5faa0589955185b4539d06b8586f72e12237572e75594881daa5051b",
	"Q4_K":   "c693222bbdcaafbdd04bb530f422084f80cb3bcb0b3c6d9d54ee2f4d4b2472bc",
	"Q5_K":   "60c68dd8b5b460fababdb1cf3001f631e8d66a5b161831f4847f2018fede9215",
	"Q6_K":   "8c29b2b96e8026ac7f947c7c2d3338b212e8bb1db358803f76c73ec9a267bd49",
	"IQ4_NL": "9b0e353f49bcf2454a5127ded480439103da5347dfdb6af12df91280343a0528",
	"IQ4_XS": "0675f5a50e04f68793a7c7ed2bd6e21059598729a8a790556dbc8082dbb9df8b",
	"MXFP4":  "6e5c359dd6e5b656edcb512f71c41eb4989f04f4b9887632e76a640fc86bd711",
}

func exactWeights(rng *rand.Rand, name string, id uint32, rows, in int) []byte {
	b := make([]byte, rows*rowBytes(id, in))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	half := func(p []byte, sign uint32) { // 1/16 to 8 in size
		u := rng.Uint32()
		binary.LittleEndian.PutUint16(p, uint16(u&0x3ff|(11+u>>10%7)<<10|u>>16&sign))
	}
	for i := 0; i < len(b); i += sources[id].bytes {
		for j, off := range halvesOf(id) {
			half(b[i+off:], []uint32{0, 0x8000}[j]) // minima have either sign
		}
		switch name {
		case "F32":
			binary.LittleEndian.PutUint32(b[i:], math.Float32bits(exact(rng)))
		case "BF16":
			binary.LittleEndian.PutUint16(b[i:], uint16(math.Float32bits(exact(rng))>>16))
		case "F16":
			half(b[i:], 0x8000)
		case "MXFP4":
			b[i] = 120 + b[i]%8
		}
	}
	return b
}

// exact returns a value of -2 to 2 in steps of 2^-22.
func exact(rng *rand.Rand) float32 { return float32(int32(rng.Uint32())>>8) * 0x1p-22 }

func TestGolden(t *testing.T) {
	const rows, out = 11, 64
	for _, g := range ggmlTypes {
		in := wide(g.id, 96)
		rng := rand.New(rand.NewPCG(99, uint64(g.id)))
		m := pack(t, g.id, out, in, exactWeights(rng, g.name, g.id, out, in))
		x := NewAct(rows, in)
		for i := range x.F {
			x.F[i] = exact(rng)
			x.Q[i] = int8(rng.Uint32()%255) - 127
		}
		for b := range rows * in / block {
			x.setBlock(b, float32(1+rng.Uint32()%5000)*0x1p-16)
		}
		for _, p := range kernel.Available() {
			h := sha256.New()
			for panel := range m.Panels() {
				for _, row := range mul(t, p, m, panel, x, 0, rows) {
					if err := binary.Write(h, binary.LittleEndian, row[:]); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := fmt.Sprintf("%x", h.Sum(nil)); got != golden[g.name] {
				t.Errorf("%s on %v: %s, want %s", g.name, p, got, golden[g.name])
			}
		}
	}
}
