package vec

import (
	"fmt"

	"kvasir/internal/kernel"
)

const (
	// TileTokens is the number of tokens in a tile of K or V.
	TileTokens = 32
	// MaxHeadSize is the largest head size. Head sizes are multiples of 16.
	MaxHeadSize = 256

	maxGroup = 6 // rows that the widest kernel takes at once

	// Two groups' weights and, with AVX-512, 64 values more of each (attend512.go of the generator).
	scratchLen = 2 * (maxGroup*TileTokens + 64)

	// In a row's state, after acc[headSize]:
	stateMax  = 0  // the largest score so far, base 2
	stateSum  = 1  // the sum of the weights
	stateCorr = 2  // scratch within a call: the factor of the old state
	stateTail = 16 // length of all this, padded to a cache line

	maskedScore float32 = -1e30 // score of an invisible token, and the maximum of an empty state
)

// StateLen is the length in float32 of one row's attention state: acc[headSize], the maximum, the sum, scratch and padding.
func StateLen(headSize int) int { return headSize + stateTail }

// ScratchLen is the length in float32 of the scratch that AttendTile needs.
func ScratchLen() int { return scratchLen }

// InitState empties the states of rows rows, which lie one after the other in st.
func InitState(st []float32, rows, headSize int) {
	checkState("vec.InitState", st, rows, headSize)
	n := StateLen(headSize)
	clear(st[:rows*n])
	for r := range rows {
		st[r*n+headSize+stateMax] = maskedScore
	}
}

// StoreK writes the key k of one head as column col (0 to 31) of the f16 tile [headSize][32]. Values round to the nearest
// half, ties to even; those beyond ±65504 are stored as ±65504, never as infinity.
func StoreK(p kernel.Path, tile []uint16, col, headSize int, k []float32) {
	checkHeadSize("vec.StoreK", headSize)
	if uint(col) >= TileTokens || len(tile) < headSize*TileTokens || len(k) < headSize {
		panic(fmt.Sprintf("vec.StoreK: column %d, head size %d: lengths tile %d, k %d", col, headSize, len(tile), len(k)))
	}
	storeK(p, tile, col, headSize, k)
}

// StoreV writes the value v of one head as row row (0 to 31) of the f16 tile [32][headSize], rounding as StoreK does.
func StoreV(p kernel.Path, tile []uint16, row, headSize int, v []float32) {
	checkHeadSize("vec.StoreV", headSize)
	if uint(row) >= TileTokens || len(tile) < headSize*TileTokens || len(v) < headSize {
		panic(fmt.Sprintf("vec.StoreV: row %d, head size %d: lengths tile %d, v %d", row, headSize, len(tile), len(v)))
	}
	storeV(p, tile[row*headSize:], headSize, v)
}

// AttendTile adds one tile of 32 tokens to the states of rows query rows that read the same KV head.
//
// q is [rows][headSize], already scaled by log2(e)/sqrt(headSize); k is [headSize][32] and v [32][headSize] in f16;
// st holds rows states; bit t of visible[r] says whether row r sees token t: one at least must be set. A nil visible lets all rows see
// all tokens. Keys of tokens that are not seen may be anything, their values must be finite. next is the K tile that will be read next, to be
// prefetched, or nil. scratch has at least ScratchLen() values and belongs to the caller, one for each goroutine.
//
// A row's result does not depend on the rows beside it.
func AttendTile(p kernel.Path, q []float32, k, v, next []uint16, st []float32, rows, headSize int, visible []uint32, scratch []float32) {
	checkState("vec.AttendTile", st, rows, headSize)
	tile := headSize * TileTokens
	if len(q) < rows*headSize || len(k) < tile || len(v) < tile || visible != nil && len(visible) < rows || len(scratch) < scratchLen ||
		next != nil && len(next) < tile {
		panic(fmt.Sprintf("vec.AttendTile: %d rows, head size %d: lengths q %d, k %d, v %d, next %d, visible %d, scratch %d",
			rows, headSize, len(q), len(k), len(v), len(next), len(visible), len(scratch)))
	}
	if next == nil {
		next = k
	}
	attendTile(p, q, k, v, next, st, rows, headSize, visible, scratch)
}

// MergeState adds the states src, which cover later tokens, to the states dst.
func MergeState(p kernel.Path, dst, src []float32, rows, headSize int) {
	checkState("vec.MergeState", dst, rows, headSize)
	checkState("vec.MergeState", src, rows, headSize)
	mergeState(p, dst, src, rows, headSize)
}

// FinishState writes the attention output acc/sum of each state to out, [rows][headSize].
func FinishState(p kernel.Path, st, out []float32, rows, headSize int) {
	checkState("vec.FinishState", st, rows, headSize)
	if len(out) < rows*headSize {
		panic(fmt.Sprintf("vec.FinishState: %d rows of %d, length out %d", rows, headSize, len(out)))
	}
	finishState(p, st, out, rows, headSize)
}

func checkState(who string, st []float32, rows, headSize int) {
	checkHeadSize(who, headSize)
	if rows < 1 || len(st) < rows*StateLen(headSize) {
		panic(fmt.Sprintf("%s: %d rows, head size %d, length of states %d", who, rows, headSize, len(st)))
	}
}

// group is the number of rows to take next when n are left and a kernel takes up to most: the last two groups are
// made about equal, since small ones use the machine badly.
func group(n, most int) int {
	switch {
	case n <= most:
		return n
	case n < 2*most:
		return (n + 1) / 2
	}
	return most
}
