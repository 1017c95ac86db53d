package sample

import (
	"math"
	"slices"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
)

// A list holds some tokens in the order of their ids. Its slices have one length.
type list struct {
	ids     []int32 // may be nil: then they are 0, 1, …
	logits  []float32
	weights []float32 // whole numbers; may be nil: then they are 1
}

func (l list) id(i int) int32 {
	if l.ids == nil {
		return int32(i)
	}
	return l.ids[i]
}

func (l list) weight(i int) uint64 {
	if l.weights == nil {
		return 1
	}
	return uint64(int64(l.weights[i]))
}

// A place is one in the order in which top-k and top-p keep tokens: the highest logit first, of equal ones the lowest id.
type place struct {
	logit float32
	id    int32
}

// keeps says whether a token comes before the place, or is the one there.
func (p place) keeps(logit float32, id int32) bool {
	return logit > p.logit || logit == p.logit && id <= p.id
}

// everything is the place that keeps all tokens.
var everything = place{float32(math.Inf(-1)), math.MaxInt32}

// key maps logits to whole numbers that rise as logits fall. Both zeros have one key.
func key(logit float32) uint32 {
	b := math.Float32bits(logit + 0)
	return b ^ uint32(^int32(b)>>31)&0x7fffffff
}

const (
	digitBits = 11
	digits    = 1 << digitBits
	few       = 64 // so few are sorted
)

// ranking is what cut needs.
type ranking struct {
	mass    [4][digits]uint64 // four, so that equal digits in a row do not wait for each other
	keys    []uint32
	at      []int32 // places in the list, rising for equal keys
	weights []uint64
}

// cut finds the token at which the weights of the list, summed in order, reach need, and the sum up to and with it. need is at
// least 1 and at most the sum of all. No logit is above top or below bottom; they only make it faster.
//
// It is a radix selection: time is linear whatever the logits are.
func (r *ranking) cut(l list, need uint64, top, bottom float32) (last place, mass uint64) {
	above := r.narrow(l, need, top, bottom)
	for shift := 32 - digitBits; len(r.keys) > few; shift = max(0, shift-digitBits) {
		m := &r.mass[0]
		clear(m[:])
		for i, k := range r.keys {
			m[k>>shift%digits] += r.weights[i]
		}
		var d uint32
		d, above = reach(m, above, need)
		n, differ := 0, uint32(0)
		for i, k := range r.keys {
			if k>>shift%digits == d {
				r.keys[n], r.at[n], r.weights[n] = k, r.at[i], r.weights[i]
				differ |= k ^ r.keys[0]
				n++
			}
		}
		r.keys, r.at, r.weights = r.keys[:n], r.at[:n], r.weights[:n]
		if differ == 0 {
			break
		}
	}
	if len(r.keys) <= few {
		r.sort()
	}
	i := 0
	for above += r.weights[0]; above < need; above += r.weights[i] {
		i++
	}
	at := int(r.at[i])
	return place{l.logits[at], l.id(at)}, above
}

// narrow sets the ranking to a part of the list that has the token at which the weights reach need, and returns the sum of what
// comes before. It divides the range of logits evenly, which leaves few of a long list.
func (r *ranking) narrow(l list, need uint64, top, bottom float32) (above uint64) {
	r.keys, r.at, r.weights = r.keys[:0], r.at[:0], r.weights[:0]
	steps := (digits - 1) / (top - bottom)
	if len(l.logits) < digits || !(steps > 0 && steps <= math.MaxFloat32) {
		for i, f := range l.logits {
			r.keys, r.at, r.weights = append(r.keys, key(f)), append(r.at, int32(i)), append(r.weights, l.weight(i))
		}
		return 0
	}
	clear(r.mass[0][:])
	clear(r.mass[1][:])
	clear(r.mass[2][:])
	clear(r.mass[3][:])
	logits := l.logits
	if l.weights == nil {
		for i, f := range logits {
			r.mass[i%4][uint32(int32((top-f)*steps))%digits]++
		}
	} else {
		weights := l.weights[:len(logits)]
		for i, f := range logits {
			r.mass[i%4][uint32(int32((top-f)*steps))%digits] += uint64(int64(weights[i]))
		}
	}
	for d := range digits {
		r.mass[0][d] += r.mass[1][d] + r.mass[2][d] + r.mass[3][d]
	}
	d, above := reach(&r.mass[0], 0, need)
	for i, f := range logits {
		if uint32(int32((top-f)*steps))%digits == d {
			r.keys, r.at, r.weights = append(r.keys, key(f)), append(r.at, int32(i)), append(r.weights, l.weight(i))
		}
	}
	return above
}

// sort puts few into order.
func (r *ranking) sort() {
	for i, k := range r.keys {
		at, v := r.at[i], r.weights[i]
		j := i
		for ; j > 0 && r.keys[j-1] > k; j-- {
			r.keys[j], r.at[j], r.weights[j] = r.keys[j-1], r.at[j-1], r.weights[j-1]
		}
		r.keys[j], r.at[j], r.weights[j] = k, at, v
	}
}

// reach returns the digit at which the mass reaches need, and the mass before that digit.
func reach(m *[digits]uint64, above, need uint64) (digit uint32, before uint64) {
	for ; above+m[digit] < need; digit++ {
		above += m[digit]
	}
	return digit, above
}

// highest sets w.list to the k tokens that come first, k > 0, or to all if there are no more. w.maxima are those of the logits,
// top the highest.
func (w *workspace) highest(p kernel.Path, logits []float32, top float32, k int) {
	least := float32(math.Inf(-1))
	if maxima := w.maxima[:vec.MaximaLen(len(logits))]; k < len(maxima) {
		// So many groups have a logit that is this high. Few others are, since groups are small.
		last, _ := w.rank.cut(list{logits: maxima}, uint64(k), top, slices.Min(maxima))
		least = last.logit
	}
	w.collect(p, logits, least)
	if len(w.list.logits) <= k {
		return
	}
	last, _ := w.rank.cut(w.list, uint64(k), top, least)
	n := 0
	for i, f := range w.list.logits {
		if id := w.list.ids[i]; last.keeps(f, id) {
			w.list.ids[n], w.list.logits[n] = id, f
			n++
		}
	}
	w.list.ids, w.list.logits = w.list.ids[:n], w.list.logits[:n]
}

// collect sets w.list to the tokens whose logit is least or more, without weights.
func (w *workspace) collect(p kernel.Path, logits []float32, least float32) {
	n := len(logits) + vec.CollectSpare
	w.ids, w.few = sized(w.ids, n), sized(w.few, n)
	n = vec.Collect(p, logits, least, w.ids, w.few)
	w.list = list{ids: w.ids[:n], logits: w.few[:n]}
}
