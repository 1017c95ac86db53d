package token

import (
	"sync"
	"unicode/utf8"
)

// The classes of code points that most patterns tell apart. Bytes that are no UTF-8 are other.
const (
	other  uint8 = iota
	letter       // \p{L}
	number       // \p{N}
	space        // \s: the property White_Space

	coarse = 3 // the bits of these
)

// Some patterns divide letters and others further.
const (
	upper  = letter | 1<<2 // \p{Lu}, \p{Lt}
	lower  = letter | 2<<2 // \p{Ll}; a letter without these bits is \p{Lm} or \p{Lo}
	mark   = other | 1<<2  // \p{M}
	punct  = other | 2<<2  // \p{P}
	symbol = other | 3<<2  // \p{S}
)

// A classRange gives the code points lo to hi one class. The tables are our own and not those of the standard library,
// so that a newer Go with a newer Unicode does not change a prompt's ids. They are Unicode 16.
type classRange struct {
	lo, hi rune
	class  uint8
}

const classShift = 8

// classRows holds the class of r at [r>>classShift][r&255]; rows of one class are shared.
var classRows = sync.OnceValue(func() *[(utf8.MaxRune >> classShift) + 1]*[1 << classShift]uint8 {
	rows := new([(utf8.MaxRune >> classShift) + 1]*[1 << classShift]uint8)
	var uniform [16]*[1 << classShift]uint8
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

// asciiFine and asciiClass are the rows' beginning, with and without the finer classes.
var asciiFine, asciiClass = func() (fine, class [utf8.RuneSelf]uint8) {
	for _, cr := range classRanges {
		for r := cr.lo; r <= cr.hi && r < utf8.RuneSelf; r++ {
			fine[r], class[r] = cr.class, cr.class&coarse
		}
	}
	return fine, class
}()

// classAt returns the class and the length of the character at s[i].
func classAt(s string, i int) (class uint8, size int) {
	if b := s[i]; b < utf8.RuneSelf {
		return asciiClass[b], 1
	}
	class, size = classSlow(s, i)
	return class & coarse, size
}

// fineAt is classAt with the finer classes.
func fineAt(s string, i int) (class uint8, size int) {
	if b := s[i]; b < utf8.RuneSelf {
		return asciiFine[b], 1
	}
	return classSlow(s, i)
}

func classSlow(s string, i int) (class uint8, size int) {
	r, n := utf8.DecodeRuneInString(s[i:])
	if n == 1 {
		return other, 1
	}
	return classRows()[r>>classShift][r&(1<<classShift-1)], n
}

// skip returns the first index from i on whose class is not c, one of the four.
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

// skipSet returns the first index from i on whose class, a finer one, is not in the set with the given bits.
func skipSet(s string, i int, set uint16) int {
	for i < len(s) {
		d, n := fineAt(s, i)
		if set>>d&1 == 0 {
			break
		}
		i += n
	}
	return i
}

// Sets of finer classes.
const (
	setLetters  = 1<<letter | 1<<upper | 1<<lower
	setMarked   = setLetters | 1<<mark            // [\p{L}\p{M}]
	setNoLower  = 1<<letter | 1<<upper | 1<<mark  // [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
	setNoUpper  = 1<<letter | 1<<lower | 1<<mark  // [\p{Ll}\p{Lm}\p{Lo}\p{M}]
	setVisible  = 1<<punct | 1<<symbol            // [\p{P}\p{S}]
	setUnmarked = 1<<other | 1<<punct | 1<<symbol // [^\s\p{L}\p{M}\p{N}]
	setPunct    = 1 << punct
)
