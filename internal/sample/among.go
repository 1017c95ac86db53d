package sample

import (
	"math"
	"math/bits"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
)

// bestAmong returns the token of the set with the highest logit, of equal ones that with the lowest id.
func (w *workspace) bestAmong(p kernel.Path, logits []float32, allowed []uint64) (int32, error) {
	peak, err := w.scan(p, logits)
	if err != nil {
		return 0, err
	}
	if id := vec.Index(p, logits, peak); id>>6 < len(allowed) && allowed[id>>6]>>(id&63)&1 == 1 { // usually the model knows what may come
		return int32(id), nil
	}
	best, top := int32(-1), float32(math.Inf(-1))
	for i, word := range allowed {
		for ; word != 0; word &= word - 1 {
			id := i<<6 + bits.TrailingZeros64(word)
			if id < len(logits) && logits[id] > top {
				best, top = int32(id), logits[id]
			}
		}
	}
	if best < 0 {
		return 0, ErrNotFinite
	}
	return best, nil
}

// only takes every token that is not in the set out of the choice.
func only(logits []float32, allowed []uint64) {
	out := float32(math.Inf(-1))
	for from := 0; from < len(logits); from += 64 {
		part := logits[from:min(from+64, len(logits))]
		word := uint64(0)
		if from>>6 < len(allowed) {
			word = allowed[from>>6]
		}
		switch word {
		case math.MaxUint64:
		case 0:
			for i := range part {
				part[i] = out
			}
		default:
			for i := range part {
				if word>>i&1 == 0 {
					part[i] = out
				}
			}
		}
	}
}
