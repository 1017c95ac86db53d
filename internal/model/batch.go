package model

import (
	"fmt"
	"slices"

	"kvasir/internal/kernel/gemm"
	"kvasir/internal/kernel/vec"
	"kvasir/internal/team"
)

// A Segment is the part of one sequence that a step computes: rows [Start, Start+N) of the batch, at positions
// [Pos, Pos+N) of the sequence. The KV of positions below Pos must already be in the blocks of Table.
type Segment struct {
	Start, N int
	Pos      int
	Table    []int32      // block of position p is Table[p/BlockSize]; covers Pos+N
	Logits   int          // of the last so many rows, logits are computed
	Adapters []AdapterUse // in this order; not to be changed before the step has ended
}

// A Batch is the input of one step: token ids of all rows, and which sequence they belong to.
type Batch struct {
	Tokens []int32
	Segs   []Segment
}

// Blocks gives the memory of a KV block as f16 values.
type Blocks interface{ Block(id int32) []uint16 }

// splitTiles is the number of tiles of an attention split, part of the numerics.
const splitTiles = 8

// splitTokens is the number of tokens of an attention split.
const splitTokens = splitTiles * vec.TileTokens

// Limits that choose between ways of computing the same bits.
const (
	// shortRows is the longest segment whose attention is spread over workers by splits. Longer ones have enough rows to keep
	// all workers busy.
	shortRows = 8
	// attnRows is about how many query rows share a pass over the KV tiles; more would leave the L1 cache.
	attnRows = 24
	// ffRows is how many rows of a feed-forward panel are kept in cache before they are quantised.
	ffRows = 64
	// keepState is how many steps attention's states stay in memory when a small part of them would do.
	keepState = 256
	// ownRows is the largest step in which every worker computes what is done row by row for itself: that is quicker than the
	// barriers between.
	ownRows = 4
)

// Scratch holds the buffers of a step. It belongs to one caller of Forward at a time.
type Scratch struct {
	maxRows int

	rows                   // for all workers
	proj       []float32   // [row][embd]: what is to be added to the residual stream
	qkv        []float32   // [row][q, k, v]
	q          []float32   // [KV head][row][group * head size], of long segments
	attn       []float32   // [row][heads * head size], where a KV head's share is not whole blocks of 32
	ff         *gemm.Act   // feed-forward activations
	logits     []float32   // [logit row][padded vocab]
	logitRow   []int32     // batch row of each logit row
	routes     []float32   // [row][padded experts]
	expertOut  []float32   // [row of an expert][embd]
	segOf      []int32     // of each row
	long       []int32     // rows of long segments
	plans      []layerPlan // for each window that layers have
	state      []float32   // of attention [KV head][place][group state]; one layer's at a time
	unused     int         // steps since most of state was of use
	own        bool        // of this step: each worker has rows of its own
	adapted    [2][]run    // of this step: rows that use adapters, of all and of those whose logits are wanted
	low        []float32   // what adapters make of the rows that a matrix reads [slot][run, use of an adapter][row][padded rank]
	lowSlot    int         // values of a slot
	w          []workerScratch
	lastLogits int // rows that logits is made for

	// The step that is being computed.
	model   *Model
	batch   *Batch
	mem     Blocks
	workers int
	run     func(*team.Worker)
}

// rows holds what is computed row by row: the residual stream and the rows as the matrices take them.
type rows struct {
	x    []float32 // [row][embd]
	norm *gemm.Act // normalised rows
	mid  *gemm.Act // attention output
	last *gemm.Act // normalised rows whose logits are wanted

	choices  []choice  // [row][experts used]
	gathered *gemm.Act // normalised rows as the experts take them
}

type workerScratch struct {
	rows              // where a step has few rows
	row     []float32 // one row, as wide as the widest
	gate    []float32 // [ffRows][32]
	up      []float32
	q       []float32 // [attnRows][head size]
	st, tot []float32
	visible []uint32 // tokens of a tile, for each query row
	p       []float32
	low     gemm.Act  // rows of Scratch.low
	delta   []float32 // [ffRows][32]: what an adapter adds
	mixed   []float32 // one row of the experts' sum
	experts expertRows
	pass    pass
}

// NewScratch makes buffers for steps of up to maxRows rows on the given number of workers.
func (m *Model) NewScratch(maxRows, workers int) *Scratch {
	qd, kvd := m.Heads*m.HeadSize, m.KVHeads*m.HeadSize
	s := &Scratch{
		maxRows: maxRows,
		rows:    m.newRows(maxRows),
		proj:    make([]float32, maxRows*pad32(m.Embd)),
		qkv:     make([]float32, maxRows*(pad32(qd)+2*pad32(kvd))),
		q:       make([]float32, maxRows*qd),
		ff:      gemm.NewAct(maxRows*max(1, m.Used), m.FF),
		segOf:   make([]int32, maxRows),
		plans:   make([]layerPlan, len(m.windows)),
	}
	if m.Experts > 0 {
		s.routes = make([]float32, maxRows*pad32(m.Experts))
		s.expertOut = make([]float32, maxRows*m.Used*pad32(m.Embd))
	}
	s.run = s.work
	if !m.wholeBlocks() {
		s.attn = make([]float32, maxRows*qd)
	}
	g := max(m.attnGroup(), shortRows) * m.Group()
	sl := vec.StateLen(m.HeadSize)
	for range workers {
		s.w = append(s.w, workerScratch{
			rows:    m.newRows(min(ownRows, maxRows)),
			row:     make([]float32, max(m.Embd, m.FF, qd)),
			gate:    make([]float32, ffRows*32),
			up:      make([]float32, ffRows*32),
			q:       make([]float32, g*m.HeadSize),
			st:      make([]float32, g*sl),
			tot:     make([]float32, g*sl),
			visible: make([]uint32, g),
			p:       make([]float32, vec.ScratchLen()),

			delta:   make([]float32, ffRows*32),
			mixed:   make([]float32, m.Embd),
			experts: m.newExpertRows(maxRows),
		})
	}
	return s
}

func (m *Model) newRows(n int) rows {
	r := rows{x: make([]float32, n*m.Embd), norm: gemm.NewAct(n, m.Embd), mid: gemm.NewAct(n, m.Heads*m.HeadSize), last: gemm.NewAct(n, m.Embd)}
	if m.Experts > 0 {
		r.choices, r.gathered = make([]choice, n*m.Used), gemm.NewAct(n*m.Used, m.Embd)
	}
	return r
}

// attnGroup is how many rows of a long segment share a pass over KV tiles.
func (m *Model) attnGroup() int { return max(1, attnRows/m.Group()) }

// wholeBlocks says that what one KV head gives a row is whole quantisation blocks of the output projection.
func (m *Model) wholeBlocks() bool { return m.Group()*m.HeadSize%32 == 0 }

func pad32(n int) int { return (n + 31) &^ 31 }

// prepare checks the batch and lays out its attention.
func (m *Model) prepare(s *Scratch, b *Batch) error {
	n := len(b.Tokens)
	if n == 0 || n > s.maxRows {
		return fmt.Errorf("a step of %d rows; between 1 and %d are possible", n, s.maxRows)
	}
	for _, t := range b.Tokens {
		if t < 0 || int(t) >= m.Vocab {
			return fmt.Errorf("token id %d is outside the vocabulary of %d", t, m.Vocab)
		}
	}
	s.logitRow, s.long = s.logitRow[:0], s.long[:0]
	at := 0
	for i := range b.Segs {
		g := &b.Segs[i]
		if g.Start != at || g.N < 1 || g.Pos < 0 || g.Pos+g.N > m.Context || len(g.Table)*m.Layout.BlockSize < g.Pos+g.N || g.Logits < 0 || g.Logits > g.N {
			return fmt.Errorf("segment %d of the batch is malformed: %d rows from %d at position %d with %d blocks", i, g.N, g.Start, g.Pos, len(g.Table))
		}
		at += g.N
		for _, t := range m.ropes {
			t.prepare(g.Pos, g.Pos+g.N)
		}
		for r := g.Start; r < at; r++ {
			s.segOf[r] = int32(i)
			if g.N > shortRows {
				s.long = append(s.long, int32(r))
			}
		}
		for r := at - g.Logits; r < at; r++ {
			s.logitRow = append(s.logitRow, int32(r))
		}
	}
	if at != n {
		return fmt.Errorf("%d rows in segments, %d tokens", at, n)
	}
	if err := m.adapt(s, b); err != nil {
		return err
	}
	s.own = n <= ownRows
	states := 0
	for i, w := range m.windows {
		for j := range s.plans[i] {
			m.plan(s, &s.plans[i][j], b, w, j == 1)
			states = max(states, s.plans[i][j].states)
		}
	}
	need := m.KVHeads * states * m.Group() * vec.StateLen(m.HeadSize)
	if need >= len(s.state)/8 {
		s.unused = 0
	}
	if s.unused++; need > len(s.state) || s.unused > keepState { // a long sequence that is gone gives its memory back
		s.state, s.unused = make([]float32, need+need/4), 0
	}
	if nl := len(s.logitRow); nl > s.lastLogits {
		s.lastLogits = max(nl, min(2*s.lastLogits, s.maxRows))
		s.logits = make([]float32, s.lastLogits*pad32(m.Vocab))
	}
	return nil
}

// A layerPlan is for layers but the last, and for the last.
type layerPlan [2]attnPlan

// An attnPlan is the work of attention in one layer. In the last layer only the rows whose logits are wanted are of
// use, beside K and V of all.
type attnPlan struct {
	single []single // rows whose attention is spread over workers by splits
	items  []attnItem
	splits int     // of the longest single row
	places []int32 // of each single, where the state of each of its splits is
	states int     // a KV head
}

// A single is a row whose attention is computed split by split.
type single struct {
	row, seg int32
	out      int32 // row of the output; -1 if nobody wants it
	pos      int32
	from     int32 // the first token that it sees
	stored   bool  // its K and V are in their block already
	places   int32 // where its own begin in the plan's
	same     int32 // how many blocks its table has in common with that of the single before it, from the start
}

// first is the first split that the row sees something of, splits how many there are.
func (t *single) first() int  { return int(t.from) / splitTokens }
func (t *single) splits() int { return int(t.pos)/splitTokens + 1 - t.first() }

// An attnItem is one KV head over either all splits of some rows of a long segment, or one split of some singles.
type attnItem struct {
	head        int32
	seg         int32 // -1 for singles
	first, rows int32 // of the batch, or of the singles
	split       int32
	place       int32 // of the first one's state
}

// from is the first position that one at pos sees through a window.
func from(pos, window int) int {
	if window == 0 {
		return 0
	}
	return max(0, pos+1-window)
}

// plan lays out attention through a window: of all rows, or of the last layer's.
func (m *Model) plan(s *Scratch, p *attnPlan, b *Batch, window int, last bool) {
	p.single, p.items, p.splits = p.single[:0], p.items[:0], 0
	p.states = 0
	logit := int32(0)
	for i := range b.Segs {
		g := &b.Segs[i]
		short := g.N <= shortRows
		for j := range g.N {
			wanted := j >= g.N-g.Logits
			if short || last && wanted {
				t := single{row: int32(g.Start + j), seg: int32(i), out: int32(g.Start + j), pos: int32(g.Pos + j), stored: !short}
				t.from = int32(from(int(t.pos), window))
				if last {
					if t.out = -1; wanted {
						t.out = logit
					}
				}
				if k := len(p.single); k > 0 {
					t.same = common(b.Segs[p.single[k-1].seg].Table, g.Table)
				}
				t.places = int32(p.states)
				p.states += t.splits()
				p.single = append(p.single, t)
				p.splits = max(p.splits, int(t.pos)/splitTokens+1)
			}
			if wanted {
				logit++
			}
		}
	}
	step := m.attnGroup()
	if !last {
		// Those that see most first, so that no worker is left alone with a long item at the end.
		for i := range b.Segs {
			g := &b.Segs[i]
			if g.N <= shortRows {
				continue
			}
			for r := (g.N - 1) / step * step; r >= 0; r -= step {
				for h := range m.KVHeads {
					p.items = append(p.items, attnItem{int32(h), int32(i), int32(g.Start + r), int32(min(step, g.N-r)), -1, 0})
				}
			}
		}
	}
	p.places = slices.Grow(p.places[:0], p.states)[:p.states]
	place := int32(0)
	for sp := range p.splits {
		at := len(p.items)
		for i := 0; i < len(p.single); {
			n := m.shared(p.single[i:], sp, max(step, shortRows))
			if n == 0 {
				i++
				continue
			}
			p.items = append(p.items, attnItem{0, -1, int32(i), int32(n), int32(sp), place})
			for ; n > 0; n-- {
				p.places[int(p.single[i].places)+sp-p.single[i].first()] = place
				place++
				i++
			}
		}
		// The same split of one head after the other: what is not shared by a whole pass may still be in cache.
		groups := p.items[at:]
		for h := 1; h < m.KVHeads; h++ {
			for _, it := range groups {
				it.head = int32(h)
				p.items = append(p.items, it)
			}
		}
	}
}

// shared is how many of the first singles read the same blocks in a split, so that one pass over the KV serves them all;
// 0 if the first one sees nothing of the split.
func (m *Model) shared(s []single, split, most int) int {
	start, end := int32(split*splitTokens), int32(split+1)*splitTokens
	if s[0].pos < start || s[0].from >= end {
		return 0
	}
	blocks := (end + int32(m.Layout.BlockSize) - 1) / int32(m.Layout.BlockSize)
	n := 1
	for n < min(len(s), most) {
		t := &s[n]
		// Rows of one sequence follow each other, and are few enough never to be cut apart; those of several must all lie
		// beyond the split and see all of it.
		if t.seg != s[0].seg && (min(s[0].pos, t.pos) < end || max(s[0].from, t.from) > start) || t.seg != s[n-1].seg && t.same < blocks || t.from >= end {
			break
		}
		n++
	}
	return n
}

// common is the length of the common prefix of two block tables.
func common(a, b []int32) int32 {
	n := min(len(a), len(b))
	if n > 0 && &a[0] == &b[0] {
		return int32(n)
	}
	for i := range n {
		if a[i] != b[i] {
			return int32(i)
		}
	}
	return int32(n)
}

// LogitRow is row i of the logits of the last Forward, counted over the batch's wanted rows. It is valid until the
// next Forward.
func (m *Model) LogitRow(s *Scratch, i int) []float32 {
	v := pad32(m.Vocab)
	return s.logits[i*v : i*v+m.Vocab]
}
