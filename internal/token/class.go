package token

import (
	"sync"
	"unicode/utf8"
)

// The classes of code points that the patterns tell apart. Bytes that are no UTF-8 are other.
const (
	other  uint8 = iota
	letter       // \p{L}
	number       // \p{N}
	space        // \s: the property White_Space
)

// A classRange gives the code points lo to hi one class. The tables are our own and not those of the standard library,
// so that a newer Go with a newer Unicode does not change a prompt's ids. They are Unicode 16.
type classRange struct {
	lo, hi rune
	class  uint8
}

const classShift = 8

// classRows holds the class of r at [r>>classShift][r&255]; rows without any class share one.
var classRows = sync.OnceValue(func() *[(utf8.MaxRune >> classShift) + 1]*[1 << classShift]uint8 {
	rows := new([(utf8.MaxRune >> classShift) + 1]*[1 << classShift]uint8)
	var uniform [4]*[1 << classShift]uint8 // rows of one class are shared
	for c := range uniform {
		uniform[c] = new([1 << classShift]uint8)
		for i := range uniform[c] {
			uniform[c][i] = uint8(c)
		}
	}
	for i := range rows {
		rows[i] = uniform[other]
	}
	for _, cr := range classRanges {
		for r := cr.lo; r <= cr.hi; {
			i := r >> classShift
			if r&(1<<classShift-1) == 0 && r+1<<classShift-1 <= cr.hi {
				rows[i] = uniform[cr.class]
				r += 1 << classShift
				continue
			}
			if rows[i] == uniform[other] {
				rows[i] = new([1 << classShift]uint8)
			}
			rows[i][r&(1<<classShift-1)] = cr.class
			r++
		}
	}
	return rows
})

var asciiClass = func() (t [utf8.RuneSelf]uint8) {
	for r := range t {
		switch {
		case 'a' <= r|0x20 && r|0x20 <= 'z':
			t[r] = letter
		case '0' <= r && r <= '9':
			t[r] = number
		case r == ' ' || '\t' <= r && r <= '\r':
			t[r] = space
		}
	}
	return t
}()

// classAt returns the class and the length of the character at s[i].
func classAt(s string, i int) (class uint8, size int) {
	if b := s[i]; b < utf8.RuneSelf {
		return asciiClass[b], 1
	}
	return classSlow(s, i)
}

func classSlow(s string, i int) (class uint8, size int) {
	r, n := utf8.DecodeRuneInString(s[i:])
	return classRows()[r>>classShift][r&(1<<classShift-1)], n
}

// skip returns the first index from i on whose class is not c.
func skip(s string, i int, c uint8) int {
	for i < len(s) {
		d, n := classAt(s, i)
		if d != c {
			break
		}
		i += n
	}
	return i
}
