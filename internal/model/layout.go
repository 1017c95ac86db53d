package model

import "kvasir/internal/kernel/vec"

// Layout says where K and V of a token lie inside a block: [layer][tile][KV head][K tile, V tile], f16, with tiles of 32
// tokens (docs/numerics.md). A block covers all layers of its group.
type Layout struct {
	Layers, KVHeads, HeadSize, BlockSize int
}

// LayoutVersion names the order above; it is part of every block key.
const LayoutVersion = "lthkv1"

// BlockBytes is the size of one block.
func (l Layout) BlockBytes() int { return l.Layers * l.KVHeads * l.BlockSize * l.HeadSize * 2 * 2 }

// TokenBytes is what one token of a sequence takes.
func (l Layout) TokenBytes() int { return l.BlockBytes() / l.BlockSize }

// tile returns the K and V tile of token `at` of a block (at counts inside the block).
func (l Layout) tile(block []uint16, layer, at, head int) (k, v []uint16) {
	n := l.HeadSize * vec.TileTokens
	i := ((layer*(l.BlockSize/vec.TileTokens)+at/vec.TileTokens)*l.KVHeads + head) * 2 * n
	return block[i : i+n : i+n], block[i+n : i+2*n : i+2*n]
}

// CopyTokens copies K and V of the first n tokens of src into dst and zeroes the rest of dst.
func (l Layout) CopyTokens(dst, src []uint16, n int) {
	clear(dst)
	for layer := range l.Layers {
		for t := 0; t < n; t += vec.TileTokens {
			m := min(vec.TileTokens, n-t)
			for h := range l.KVHeads {
				dk, dv := l.tile(dst, layer, t, h)
				sk, sv := l.tile(src, layer, t, h)
				if m == vec.TileTokens {
					copy(dk, sk)
				} else {
					for d := range l.HeadSize {
						copy(dk[d*vec.TileTokens:][:m], sk[d*vec.TileTokens:][:m])
					}
				}
				copy(dv[:m*l.HeadSize], sv)
			}
		}
	}
}

// CopyRows copies K and V of the tokens [from, to) of src to the same places of dst.
func (l Layout) CopyRows(dst, src []uint16, from, to int) {
	for layer := range l.Layers {
		for t := from; t < to; {
			lo := t % vec.TileTokens
			m := min(vec.TileTokens-lo, to-t)
			for h := range l.KVHeads {
				dk, dv := l.tile(dst, layer, t, h)
				sk, sv := l.tile(src, layer, t, h)
				for d := range l.HeadSize {
					i := d*vec.TileTokens + lo
					copy(dk[i:i+m], sk[i:i+m])
				}
				copy(dv[lo*l.HeadSize:(lo+m)*l.HeadSize], sv[lo*l.HeadSize:(lo+m)*l.HeadSize])
			}
			t += m
		}
	}
}
