//go:build amd64 && !purego

package gemm

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The generator has 32 vector registers to give away, but naming one beyond the 16th, or a Z or K register, makes an instruction of
// AVX-512, which the AVX2 kernels must not have: no test on a CPU with AVX-512 would notice.
func TestAVX2KernelsNeedOnlyAVX2(t *testing.T) {
	var src []byte
	for _, name := range []string{"avx512_amd64.s", "avx2_amd64.s", "vnni_amd64.s"} {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		src = append(src, b...)
	}
	beyond := regexp.MustCompile(`\b(?:[XY](?:1[6-9]|2[0-9]|3[01])|Z[0-9]+|K[0-7])\b|\.BCST\b|\n\tVPDPBUSD`)
	avx2 := 0
	for _, f := range strings.Split(string(src), "\nTEXT ")[1:] {
		name, body, _ := strings.Cut(f, "(SB)")
		isAVX2 := !strings.HasSuffix(name, "AVX512")
		if isAVX2 {
			avx2++
		}
		if used := beyond.FindString(body); (used != "") == isAVX2 {
			t.Errorf("%s: uses of AVX-512: %q", name, used)
		}
	}
	if avx2 != 16+10 {
		t.Errorf("%d AVX2 kernels, want one for each of 16 formats, and of AVX-VNNI for each of 10", avx2)
	}
}
