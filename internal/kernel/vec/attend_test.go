package vec_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"kvasir/internal/kernel"
	"kvasir/internal/kernel/vec"
)

var headSizes = []int{16, 32, 48, 64, 80, 96, 112, 128, 256}

// An attention is one attention problem: rows query rows over tiles tiles.
type attention struct {
	rows, size int
	q          []float32
	k, v       [][]uint16
	visible    [][]uint32 // [tile][row]; a tile's nil sees all
}

// newAttention draws a problem. Scores get a spread of about spread; the last tile is ragged.
func newAttention(rng *rand.Rand, rows, size, tiles int, spread float64, f func(*rand.Rand) float32) *attention {
	a := &attention{rows: rows, size: size, q: make([]float32, rows*size)}
	for i := range a.q {
		a.q[i] = float32(rng.NormFloat64() * spread / math.Sqrt(float64(size)))
	}
	for range tiles {
		k, v := make([]uint16, size*32), make([]uint16, size*32)
		for i := range k {
			k[i], v[i] = kernel.ToF16(clamp(f(rng))), kernel.ToF16(clamp(f(rng)))
		}
		var visible []uint32
		if rng.IntN(3) > 0 || len(a.k) == tiles-1 {
			visible = make([]uint32, rows)
			for r := range visible {
				visible[r] = math.MaxUint32
				switch rng.IntN(5) {
				case 0: // what lies before it and itself
					visible[r] >>= rng.IntN(32)
				case 1: // a window's first tile
					visible[r] <<= rng.IntN(32)
				case 2:
					visible[r] = rng.Uint32() | 1<<rng.IntN(32)
				}
			}
		}
		a.k, a.v, a.visible = append(a.k, k), append(a.v, v), append(a.visible, visible)
	}
	return a
}

func clamp(f float32) float32 { return min(max(f, -65504), 65504) }

// run attends to all tiles in two splits and returns the merged states and the outputs.
func (a *attention) run(t *testing.T, p kernel.Path) (st, out []float32) {
	t.Helper()
	rng := rand.New(rand.NewPCG(uint64(a.rows), uint64(a.size)))
	n := a.rows * vec.StateLen(a.size)
	total, part := guard(rng, n, canary), guard(rng, n, canary)
	scratch := guard(rng, vec.ScratchLen(), canary)
	o := guard(rng, a.rows*a.size, canary)
	vec.InitState(total.v, a.rows, a.size)
	half := (len(a.k) + 1) / 2
	for from := 0; from < len(a.k); from += half {
		vec.InitState(part.v, a.rows, a.size)
		for i := from; i < min(from+half, len(a.k)); i++ {
			var next []uint16
			if i+1 < len(a.k) {
				next = a.k[i+1]
			}
			vec.AttendTile(p, a.q, a.k[i], a.v[i], next, part.v, a.rows, a.size, a.visible[i], scratch.v)
		}
		vec.MergeState(p, total.v, part.v, a.rows, a.size)
	}
	vec.FinishState(p, total.v, o.v, a.rows, a.size)
	for _, g := range []guarded[float32]{total, part, scratch, o} {
		g.check(t, "attention on "+p.String())
	}
	return total.v, o.v
}

// sameStates compares what counts in states: not the scratch behind them, and the maximum by value, since which of +0 and
// -0 is the larger is left open and makes no difference later.
func sameStates(t *testing.T, what string, got, want []float32, rows, size int) {
	t.Helper()
	n := vec.StateLen(size)
	for r := range rows {
		g, w := got[r*n:][:n], want[r*n:][:n]
		same(t, fmt.Sprintf("%s, acc of row %d", what, r), g[:size], w[:size])
		same(t, fmt.Sprintf("%s, sum of row %d", what, r), g[size+1:size+2], w[size+1:size+2])
		if g[size] != w[size] {
			t.Fatalf("%s: maximum of row %d is %g, want %g", what, r, g[size], w[size])
		}
	}
}

func TestAttentionPathsAgree(t *testing.T) {
	rng := rand.New(rand.NewPCG(20, 21))
	for _, kind := range kinds {
		for _, size := range headSizes {
			for rows := 1; rows <= 13; rows++ {
				spread := []float64{1, 10, 300, 1e-6}[rng.IntN(4)]
				a := newAttention(rng, rows, size, 1+rng.IntN(4), spread, kind.f)
				wantSt, wantOut := a.run(t, kernel.Go)
				for _, p := range simd() {
					what := fmt.Sprintf("%s, %s, %d rows of %d", p, kind.name, rows, size)
					st, out := a.run(t, p)
					sameStates(t, what, st, wantSt, rows, size)
					same(t, what, out, wantOut)
				}
			}
		}
	}
}

// With one-hot values the outputs are the weights themselves: exp2 of every path, about where it is cut off above all.
func TestAttentionWeights(t *testing.T) {
	const size = 32
	rng := rand.New(rand.NewPCG(40, 41))
	k, v := make([]uint16, size*32), make([]uint16, size*32)
	for tok := range 32 {
		v[tok*size+tok] = kernel.ToF16(1)
	}
	q := make([]float32, size)
	q[0], q[2] = 1, 0x1p-13
	edges := []float32{-124.5, -125, -126, -0.5, -1.5, -130, -150, -60000, 0, -1}
	for range 2000 {
		var score [32]float32
		for tok := 1; tok < 32; tok++ { // token 0 has score 0, the largest
			a := -rng.Float32() * 130
			b := -rng.Float32() * 8
			if tok < 16 {
				a = edges[rng.IntN(len(edges))]
				b = []float32{0, 0.0625, -0.0625}[rng.IntN(3)] // one ulp of 125, times 2^13
				b = min(b, -a)
			}
			k[tok], k[2*32+tok] = kernel.ToF16(a), kernel.ToF16(b)
			score[tok] = kernel.FromF16(k[tok]) + kernel.FromF16(k[2*32+tok])*0x1p-13
		}
		for _, p := range kernel.Available() {
			st, scratch := make([]float32, vec.StateLen(size)), make([]float32, vec.ScratchLen())
			vec.InitState(st, 1, size)
			vec.AttendTile(p, q, k, v, nil, st, 1, size, nil, scratch)
			for tok, s := range score {
				if w := kernel.Exp2(s); st[tok] != w {
					t.Fatalf("%s: weight of score %x is %g, want %g", p, s, st[tok], w)
				}
			}
		}
	}
}

// Scores whose sums are so near a tie of float32 that a float64 sum alone rounds them wrongly, and scores of subnormal
// size. A single visible token's score is the state's maximum.
func TestAttentionScoresAreFused(t *testing.T) {
	const size = 16
	var ks []float32 // k = 1 + i/1024 whose reciprocal, as float32, is off by less than 2^-30 of itself
	for i := 1; i < 1024; i++ {
		k := 1 + float32(i)/1024
		if e := math.Abs(float64(k)*float64(1/k) - 1); e > 0 && e < 0x1p-29 {
			ks = append(ks, k)
		}
	}
	if len(ks) < 10 {
		t.Fatalf("only %d keys to try", len(ks))
	}
	rng := rand.New(rand.NewPCG(42, 43))
	wrong := 0
	for _, exp := range []int{0, 5, -80} {
		for _, kf := range ks {
			for range 20 {
				ulp := max(exp-23, -149)
				c := float32(math.Ldexp(1+float64(rng.Uint32()>>9)*0x1p-23, exp))
				sign := float32(1 - 2*rng.IntN(2))
				k, v, q := make([]uint16, size*32), make([]uint16, size*32), make([]float32, size)
				// The product is half an ulp but for a trifle. k is scaled up so that q stays normal.
				k[0], q[0] = kernel.ToF16(1), c
				k[2*32], q[2] = kernel.ToF16(kf*16384), sign*float32(math.Ldexp(float64(1/kf), ulp-15))
				want := kernel.FMA(kf*16384, q[2], c)
				if want != float32(float64(kf)*16384*float64(q[2])+float64(c)) {
					wrong++
				}
				for _, p := range kernel.Available() {
					st, scratch := make([]float32, vec.StateLen(size)), make([]float32, vec.ScratchLen())
					vec.InitState(st, 1, size)
					vec.AttendTile(p, q, k, v, nil, st, 1, size, []uint32{1}, scratch)
					if got := st[size]; got != want {
						t.Fatalf("%s: score of %x + %x*%x is %x, want %x", p, c, kf, q[2], got, want)
					}
				}
			}
		}
	}
	if wrong == 0 {
		t.Error("no case was one that rounding twice gets wrong")
	}
	for range 20_000 {
		k, v, q := make([]uint16, size*32), make([]uint16, size*32), make([]float32, size)
		var sum [2]float32
		for d := range q {
			q[d] = math.Float32frombits(rng.Uint32() & 0x81ffffff) // up to 2^-123
			k[d*32] = uint16(rng.Uint32()) & 0xbbff                // below 2 in size, subnormal halves too
			if d > 3 {
				q[d] = 0
			}
			sum[d&1] = kernel.FMA(kernel.FromF16(k[d*32]), q[d], sum[d&1])
		}
		for _, p := range kernel.Available() {
			st, scratch := make([]float32, vec.StateLen(size)), make([]float32, vec.ScratchLen())
			vec.InitState(st, 1, size)
			vec.AttendTile(p, q, k, v, nil, st, 1, size, []uint32{1}, scratch)
			if got, want := st[size], sum[0]+sum[1]; got != want {
				t.Fatalf("%s: score %x, want %x", p, got, want)
			}
		}
	}
}

// Every count of visible tokens, with maxima that rise and fall a lot from tile to tile.
func TestAttentionEveryCount(t *testing.T) {
	rng := rand.New(rand.NewPCG(22, 23))
	for _, size := range []int{64, 80, 128} {
		for nv := 1; nv <= 32; nv++ {
			a := newAttention(rng, 3, size, 4, 30, kinds[0].f)
			for i := range a.visible {
				a.visible[i] = []uint32{first(nv), first(nv), first(nv)}
				for j := range a.k[i] { // tiles of scores near -∞, 0 and +∞ of what exp2 can take
					a.k[i][j] = kernel.ToF16(kernel.FromF16(a.k[i][j]) * []float32{1, 40, 0.01, 15}[i])
				}
			}
			wantSt, wantOut := a.run(t, kernel.Go)
			for _, p := range simd() {
				st, out := a.run(t, p)
				sameStates(t, p.String(), st, wantSt, 3, size)
				same(t, p.String(), out, wantOut)
			}
		}
	}
}

func first(n int) uint32 { return uint32(1<<n - 1) }

func TestAttentionRowsAreIndependent(t *testing.T) {
	rng := rand.New(rand.NewPCG(24, 25))
	for _, p := range kernel.Available() {
		for _, size := range []int{64, 80, 96, 128, 256} {
			for _, rows := range []int{2, 3, 6, 7, 12, 13, 24, 41} {
				a := newAttention(rng, rows, size, 3, 5, kinds[0].f)
				_, out := a.run(t, p)
				for r := range rows {
					one := &attention{rows: 1, size: size, q: a.q[r*size:][:size], k: a.k, v: a.v}
					for _, v := range a.visible {
						if v != nil {
							v = v[r : r+1]
						}
						one.visible = append(one.visible, v)
					}
					_, o := one.run(t, p)
					same(t, fmt.Sprintf("%s: row %d of %d alone", p, r, rows), o, out[r*size:][:size])
				}
			}
		}
	}
}

// Tokens that are not visible change nothing: keys of any bits, values that are finite.
func TestAttentionIgnoresMaskedTokens(t *testing.T) {
	rng := rand.New(rand.NewPCG(26, 27))
	for _, p := range kernel.Available() {
		for _, size := range []int{64, 80, 128} {
			for range 32 {
				a := newAttention(rng, 4, size, 1, 5, kinds[0].f)
				see := rng.Uint32() | 1<<rng.IntN(32)
				for r := range a.visible[0] {
					a.visible[0][r] = see
				}
				st, out := a.run(t, p)
				for d := range size {
					for tok := range 32 {
						if see>>tok&1 == 0 {
							a.k[0][d*32+tok] = uint16(rng.Uint32())
							a.v[0][tok*size+d] = uint16(rng.Uint32()) & 0xfbff
						}
					}
				}
				st2, out2 := a.run(t, p)
				sameStates(t, p.String(), st2, st, 4, size)
				same(t, p.String(), out2, out)
			}
		}
	}
}

// A tile of which a row sees nothing leaves its state alone, once it has seen something.
func TestAttentionFullyMaskedTile(t *testing.T) {
	rng := rand.New(rand.NewPCG(28, 29))
	for _, p := range kernel.Available() {
		a := newAttention(rng, 3, 64, 1, 5, kinds[0].f)
		st := make([]float32, 3*vec.StateLen(64))
		scratch := make([]float32, vec.ScratchLen())
		vec.InitState(st, 3, 64)
		vec.AttendTile(p, a.q, a.k[0], a.v[0], nil, st, 3, 64, a.visible[0], scratch)
		before := clone(st)
		vec.AttendTile(p, a.q, a.k[0], a.v[0], nil, st, 3, 64, make([]uint32, 3), scratch)
		sameStates(t, p.String(), st, before, 3, 64)
	}
}

// All paths against softmax attention in float64, over the halves as they are stored.
func TestAttentionIsSoftmax(t *testing.T) {
	rng := rand.New(rand.NewPCG(30, 31))
	for _, p := range kernel.Available() {
		for _, size := range headSizes {
			for _, spread := range []float64{0.1, 3, 20} {
				a := newAttention(rng, 5, size, 5, spread, kinds[0].f)
				_, out := a.run(t, p)
				for r := range a.rows {
					want := a.reference(r)
					for d := range want {
						near(t, fmt.Sprintf("%s, head size %d, row %d", p, size, r), out[r*size+d], want[d], 1e-5, 2e-5)
					}
				}
			}
		}
	}
}

func (a *attention) reference(r int) []float64 {
	out, sum := make([]float64, a.size), 0.0
	top := math.Inf(-1)
	for pass := range 2 {
		for i := range a.k {
			for tok := range 32 {
				if a.visible[i] != nil && a.visible[i][r]>>tok&1 == 0 {
					continue
				}
				s := 0.0
				for d := range a.size {
					s += float64(a.q[r*a.size+d]) * float64(kernel.FromF16(a.k[i][d*32+tok]))
				}
				if pass == 0 {
					top = max(top, s)
					continue
				}
				w := math.Exp2(s - top)
				sum += w
				for d := range out {
					out[d] += w * float64(kernel.FromF16(a.v[i][tok*a.size+d]))
				}
			}
		}
	}
	for d := range out {
		out[d] /= sum
	}
	return out
}

func TestMergeState(t *testing.T) {
	rng := rand.New(rand.NewPCG(32, 33))
	for _, size := range headSizes {
		for rows := 1; rows <= 7; rows++ {
			n := vec.StateLen(size)
			a, b := make([]float32, rows*n), make([]float32, rows*n)
			vec.InitState(a, rows, size)
			vec.InitState(b, rows, size)
			for r := range rows {
				for _, s := range [][]float32{a[r*n:][:n], b[r*n:][:n]} {
					if rng.IntN(4) == 0 {
						continue // stays empty
					}
					fill(rng, s[:size], kinds[rng.IntN(len(kinds))].f)
					s[size] = float32(rng.NormFloat64() * 100)
					s[size+1] = rng.Float32() * 300
				}
			}
			want := clone(a)
			vec.MergeState(kernel.Go, want, b, rows, size)
			for r := range rows { // an empty src changes nothing, an empty dst takes src as it is
				s, d, w := b[r*n:][:n], a[r*n:][:n], want[r*n:][:n]
				for i := range size + 2 {
					if s[size+1] == 0 && w[i] != d[i] || d[size+1] == 0 && w[i] != s[i] {
						t.Fatalf("merging with an empty state changed value %d: %g + %g = %g", i, d[i], s[i], w[i])
					}
				}
			}
			for _, p := range simd() {
				g := guard(rng, len(a), canary)
				copy(g.v, a)
				vec.MergeState(p, g.v, b, rows, size)
				sameStates(t, p.String(), g.v, want, rows, size)
				g.check(t, "MergeState")
			}
		}
	}
}

func TestStoreKV(t *testing.T) {
	rng := rand.New(rand.NewPCG(34, 35))
	inf := float32(math.Inf(1))
	edges := []float32{65503, 65504, 65505, 65519.996, 65520, 65536, 1e9, math.MaxFloat32, inf, 0, 1, 0x1p-24, 0x1p-25, 0x1.8p-25, 0x1p-26,
		1 + 0x1p-11, 1 + 0x3p-11, 0x1.ffcp-15, 0x1.ffep-15}
	values := append(kinds[:len(kinds):len(kinds)], struct {
		name string
		f    func(*rand.Rand) float32
	}{"edges", func(r *rand.Rand) float32 {
		return edges[r.IntN(len(edges))] * float32(1-2*r.IntN(2))
	}})
	for _, size := range headSizes {
		for at := range vec.TileTokens {
			kind := values[(at+size/16)%len(values)]
			x := fill(rng, make([]float32, size), kind.f)
			want := make([]uint16, size)
			for i, f := range x {
				want[i] = kernel.ToF16(f)
				if want[i]&0x7fff == 0x7c00 { // infinity
					want[i]--
				}
			}
			for _, p := range kernel.Available() {
				what := fmt.Sprintf("%s, %s, head size %d, at %d", p, kind.name, size, at)
				k, v := guard(rng, size*32, uint16(0x1234)), guard(rng, size*32, uint16(0x1234))
				vec.StoreK(p, k.v, at, size, x)
				vec.StoreV(p, v.v, at, size, x)
				k.check(t, what)
				v.check(t, what)
				for d := range size {
					for tok := range 32 {
						w := uint16(0x1234)
						if tok == at {
							w = want[d]
						}
						if got := k.v[d*32+tok]; got != w {
							t.Fatalf("%s: K[%d][%d] = %04x, want %04x", what, d, tok, got, w)
						}
						if got := v.v[tok*size+d]; got != w {
							t.Fatalf("%s: V[%d][%d] = %04x, want %04x", what, tok, d, got, w)
						}
					}
				}
			}
		}
	}
}
