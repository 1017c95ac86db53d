package vec_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
)

// golden has the SHA-256 of what each function gives: the same on every path, processor and compiler. The inputs are made of
// whole numbers and powers of two, since float arithmetic in a test may be fused on some processors.
var golden = map[string]string{
	"Add":           "c27b0fb6de9b598969f9fcb2fcaf069fdc16f394b3083e19a96f41dd8f8e87bd",
	"AddScaled":     "19e7d7eb0af40d71e9635c1889d5d55eb01504f4527789cdb8ef248a8a0c8d41",
	"Argmax":        "8bf3cd6bb2af61dde37441d65f1b1f6b1d2f20e07b243fbb80a19d6bef508abb",
	"Attention 128": "2e2ce019dc2f8ac382d13e79678df839b8ac8f57b528c0d4d4d692260be9f283",
	"Attention 64":  "5a984fc6e420fd6238a562f38805491812cbc51b2196690bcf0b16049e9ae583",
	"Attention 80":  "a903ff6fdb490b512d8693fcd30918a628ef3474e1693e086790c34c639663a6",
	"Collect":       "60d1466e0a3647f9735f955b0cd14c3318672fef3662030498ce41db1976736b",
	"Scan":          "cc6f24c44fc21fc11b174c6358b3223d1af1c0b00a0b8e85348547e05a8f6901",
	"Weigh":         "5efdea856c68f12bdb54d4e60dee9c1df4f66e14abb0368a0adc80da513ea070",
	"GeluMul":       "4c41c734f9ca4534b1bdbb0998698f49a589db9e24ef35944ed84ba4890afc1b",
	"Quantize":      "3a8b4d6172b65febc23961e90eb6b8aa02aaac88b9fd303180310c55f933cb15",
	"RMSNorm":       "dc065cb6c06260408dd06a9d7f60944ec8f193b1cd3b214090a998ce6ae8a132",
	"Rope 128":      "d424075eeda5563468157f6ae130660bc9d78df01d811b53e0304fc8aad9d5dc",
	"Rope 64":       "d3687dfbace7e5f6d3a22329cb4a182ea6501490c47cd5da98a2969939264076",
	"Rope 80":       "859b1e25ee7d70ec5c2045f2304840e423c7b63cab629520d872560d09cba782",
	"SiluMul":       "c9aef54458e058003a71028a67d061f4737076479b998e83031902a255ac23f1",
	"Store 128":     "517d275c7da31bdbb9037d2002f8dcb66a9e7e338e350cae25cd738474f60e3c",
	"Store 64":      "56ff3e54f3d07de4ab5b8098f683a7ebe305fcb70aa895e6a3b46d1d7709aa9d",
	"Store 80":      "9666e68dbe07d8427a94e10e4d4c89fef11ffd252bec1c28e0ef2938102e88f3",
}

// exact returns a value of -2 to 2 in steps of 2^-22, or one of that times a small power of two.
func exact(rng *rand.Rand) float32 {
	return float32(int32(rng.Uint32())>>8) * 0x1p-22 * []float32{1, 1, 1, 8, 0x1p-6}[rng.Uint32()%5]
}

func TestGolden(t *testing.T) {
	for _, p := range kernel.Available() {
		rng := rand.New(rand.NewPCG(98, 97))
		vector := func(n int) []float32 { return fill(rng, make([]float32, n), exact) }
		got := map[string]string{}
		note := func(name string, values ...any) {
			h := sha256.New()
			for _, v := range values {
				if err := binary.Write(h, binary.LittleEndian, v); err != nil {
					t.Fatal(err)
				}
			}
			got[name] = fmt.Sprintf("%x", h.Sum(nil))
		}

		const n = 576
		x, y, w := vector(n), make([]float32, n), vector(n)
		q, s, ns := make([]int8, n), make([]float32, n/16), make([]int32, n/16)
		vec.Quantize(p, x, q, s, ns)
		note("Quantize", q, s, ns)
		vec.RMSNorm(p, y, x, w, 1e-5)
		note("RMSNorm", y)
		vec.SiluMul(p, y, x, w)
		note("SiluMul", y)
		vec.Add(p, y, x)
		note("Add", y)
		note("Argmax", int64(vec.Argmax(p, y)))

		for _, size := range []int{64, 80, 128} {
			const rows, tiles = 13, 4
			at := func(name string) string { return fmt.Sprintf("%s %d", name, size) }
			cs := make([]float32, 2*size)
			vec.FillRope(cs, vector(size/2), vector(size/2))
			qs := vector(rows * size)
			vec.Rope(p, qs, qs, rows, size, cs, 0.7)
			note(at("Rope"), qs)
			var k, v [tiles][]uint16
			for i := range k {
				k[i], v[i] = make([]uint16, size*vec.TileTokens), make([]uint16, size*vec.TileTokens)
				for tok := range vec.TileTokens {
					vec.StoreK(p, k[i], tok, size, vector(size))
					vec.StoreV(p, v[i], tok, size, vector(size))
				}
			}
			note(at("Store"), k[0], v[0])
			total, part := make([]float32, rows*vec.StateLen(size)), make([]float32, rows*vec.StateLen(size))
			out, scratch, visible := make([]float32, rows*size), make([]float32, vec.ScratchLen()), make([]uint32, rows)
			vec.InitState(total, rows, size)
			for i := range k {
				if i%2 == 0 {
					vec.InitState(part, rows, size)
				}
				for r := range visible {
					visible[r] = first(1 + int(rng.Uint32()%vec.TileTokens))
				}
				vec.AttendTile(p, qs, k[i], v[i], k[(i+1)%tiles], part, rows, size, visible, scratch)
				if i%2 == 1 {
					vec.MergeState(p, total, part, rows, size)
				}
			}
			vec.FinishState(p, total, out, rows, size)
			note(at("Attention"), out)
		}
		logits := vector(4*vec.SampleChunk + 75)
		maxima := make([]float32, vec.MaximaLen(len(logits)))
		top, ok := vec.Scan(p, logits, maxima)
		note("Scan", top, ok, maxima)
		ids, values := make([]int32, len(logits)+vec.CollectSpare), make([]float32, len(logits)+vec.CollectSpare)
		count := vec.Collect(p, logits, 1, ids, values)
		note("Collect", ids[:count], values[:count])
		weights, sums := make([]float32, len(logits)), make([]uint64, 5)
		total := vec.Weigh(p, logits, top, 1.7, 3, weights, sums)
		note("Weigh", total, sums, weights)
		z := make([]float32, n)
		vec.GeluMul(p, z, x, w)
		note("GeluMul", z)
		vec.AddScaled(p, z, x, 0.3)
		note("AddScaled", z)

		if len(got) != len(golden) {
			t.Errorf("%v: %d results, want %d", p, len(got), len(golden))
		}
		for name, h := range got {
			if h != golden[name] {
				t.Errorf("%s on %v: %s, want %s", name, p, h, golden[name])
			}
		}
	}
}
