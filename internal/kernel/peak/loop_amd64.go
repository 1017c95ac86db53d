//go:build amd64 && !purego

package peak

import (
	"unsafe"

	"kvasir/internal/kernel"
)

// Vectors that one turn adds to; the generator has the same numbers.
const (
	sumsAVX512 = 24
	sumsAVX2   = 12
)

func loopOf(p kernel.Path, o Op) loop {
	switch p {
	case kernel.AVX512:
		return [2]loop{{"VPDPBUSD, 512 bits", int8AVX512, sumsAVX512 * 64 * 2}, {"VFMADD231PS, 512 bits", f32AVX512, sumsAVX512 * 16 * 2}}[o]
	case kernel.AVX2:
		return [2]loop{{"VPMADDUBSW and VPADDW, 256 bits", int8AVX2, sumsAVX2 * 32 * 2}, {"VFMADD231PS, 256 bits", f32AVX2, sumsAVX2 * 8 * 2}}[o]
	}
	return portable[o]
}

// readerOf returns a function that reads a slice whose length is a multiple of Readable and not 0.
func readerOf(p kernel.Path) func([]byte) {
	switch p {
	case kernel.AVX512:
		return func(b []byte) { readAVX512(unsafe.SliceData(b), len(b)) }
	case kernel.AVX2:
		return func(b []byte) { readAVX2(unsafe.SliceData(b), len(b)) }
	}
	return readGo
}
