package draft

import "math"

// Sizes of an Index.
const (
	ways     = 4  // places that a bucket keeps, the latest ones
	longest  = 64 // a match is not looked at beyond so many tokens
	shortest = 2  // tokens of the shortest match
)

// grams are the lengths of the runs of tokens that are hashed: a long match is found among those of the longer, where less common runs do not
// push each other out.
var grams = [...]int{shortest, 5}

// A bucket holds places, the latest first; 0 is none.
type bucket [ways]int32

// An Index holds the latest tokens of a text and finds where the end of a text was seen in it before. Adding a token and a search take constant
// time; memory is bounded, and taken as the text grows. The zero value is not ready: see NewIndex.
//
// It is a hash table of runs of tokens (see grams) to the places behind them, as LZ77 compressors have it, with buckets of a fixed size in place
// of chains. What a bucket names is compared token by token, so that a collision costs time only.
type Index struct {
	most   int     // tokens kept at most, a power of two
	ids    []int32 // a ring, its length a power of two; the token of place p is ids[p&(len-1)]
	end    int32   // the place of the next token; the first has 1
	run    int     // tokens since the last break
	shift  uint    // of a hash, to a bucket
	tables [len(grams)][]bucket
}

// smallIndex is the tokens that an Index has room for at first.
const smallIndex = 512

// NewIndex makes an empty index that keeps the latest tokens, at least most of them (the next power of two).
func NewIndex(most int) *Index {
	x := &Index{most: smallIndex, end: 1}
	for x.most < most {
		x.most *= 2
	}
	x.resize(smallIndex)
	return x
}

// Reset empties the index. Its memory stays, for the next text.
func (x *Index) Reset() {
	x.end, x.run = 1, 0
	for _, t := range x.tables {
		clear(t)
	}
}

// resize sets the room for tokens, empty.
func (x *Index) resize(n int) {
	x.ids = make([]int32, n)
	x.shift = 65
	for b := n / 2; b > 0; b /= 2 { // 2n places for the n runs of a length
		x.shift--
	}
	for i := range x.tables {
		x.tables[i] = make([]bucket, n/2)
	}
}

// grow makes room for n tokens and adds what is there again.
func (x *Index) grow(n int) {
	old := *x
	x.end, x.run = 1, 0
	x.resize(n)
	for p := old.oldest(); p < old.end; p++ {
		x.Append(old.at(p))
	}
}

// Reserve makes room for n tokens at once, as far as the index may grow.
func (x *Index) Reserve(n int) {
	room := len(x.ids)
	for room < n && room < x.most {
		room *= 2
	}
	if room > len(x.ids) {
		x.grow(room)
	}
}

// Len is how many tokens are kept, breaks included.
func (x *Index) Len() int { return int(x.end - x.oldest()) }

// oldest is the first place that is still kept.
func (x *Index) oldest() int32 { return max(1, x.end-int32(len(x.ids))) }

func (x *Index) at(p int32) int32 { return x.ids[int(p)&(len(x.ids)-1)] }

// has reports whether the place p is kept.
func (x *Index) has(p int32) bool { return p >= x.oldest() && p < x.end }

// Break ends a text: no match goes over this place.
func (x *Index) Break() { x.Append(-1) }

// Append adds a token. A negative one is a break.
func (x *Index) Append(id int32) {
	switch {
	case x.end == math.MaxInt32:
		x.Reset()
	case int(x.end) == len(x.ids)+1 && len(x.ids) < x.most:
		x.grow(2 * len(x.ids))
	}
	for g, n := range grams {
		if x.run >= n {
			b := &x.tables[g][x.hash(n)>>x.shift]
			copy(b[1:], b[:])
			b[0] = x.end
		}
	}
	x.push(id)
}

// push adds a token without what leads to it.
func (x *Index) push(id int32) {
	x.ids[int(x.end)&(len(x.ids)-1)] = id
	x.end++
	x.run++
	if id < 0 {
		x.run = 0
	}
}

// hash is that of the last n tokens; its high bits are the good ones.
func (x *Index) hash(n int) uint64 {
	h := uint64(n)
	for p := x.end - int32(n); p < x.end; p++ {
		h = (h ^ uint64(uint32(x.at(p)))) * 0x9E3779B97F4A7C15
		h ^= h >> 29
	}
	return h * 0xBF58476D1CE4E5B9
}

// find returns the place in x that the end of the text q (which may be x) leads to, and how many tokens before it are the same: the longest
// match of those that the buckets have, of equal ones the latest. The length is 0 if there is none.
func (x *Index) find(q *Index) (place int32, length int) {
	for g := len(grams) - 1; g >= 0 && length == 0; g-- {
		n := grams[g]
		if q.run < n {
			continue
		}
		for _, p := range x.tables[g][q.hash(n)>>x.shift] {
			if p == 0 {
				break
			}
			if l := x.common(p, q); l >= n && l > length {
				place, length = p, l
			}
		}
	}
	return place, length
}

// common is how many tokens before place p of x are those at the end of q, at most longest.
func (x *Index) common(p int32, q *Index) int {
	if !x.has(p) {
		return 0
	}
	n := min(int32(longest), p-x.oldest(), int32(min(q.run, len(q.ids))))
	for i := int32(1); i <= n; i++ {
		if x.at(p-i) != q.at(q.end-i) {
			return int(i - 1)
		}
	}
	return int(n)
}
