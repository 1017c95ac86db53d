package draft

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// naive is what find must return, from the whole text: of the places whose runs of tokens fall into the bucket of q's last ones, the latest few,
// and of these the longest match.
func naive(x *Index, text []int32, q *Index, tail []int32) (place int32, length int) {
	y := Index{ids: make([]int32, 8)}
	hashOf := func(ids []int32) uint64 {
		y.end = 1
		for _, id := range ids {
			y.push(id)
		}
		return y.hash(len(ids)) >> x.shift
	}
	for g := len(grams) - 1; g >= 0 && length == 0; g-- {
		n := grams[g]
		if len(tail) < n || slices.Contains(tail[len(tail)-n:], -1) {
			continue
		}
		want := hashOf(tail[len(tail)-n:])
		left := ways
		for p := len(text) - 1; p >= n && left > 0; p-- {
			if slices.Contains(text[p-n:p], -1) || hashOf(text[p-n:p]) != want {
				continue
			}
			left--
			l := 0
			for l < longest && l < p && l < len(tail) && text[p-1-l] == tail[len(tail)-1-l] && text[p-1-l] >= 0 {
				l++
			}
			l = min(l, int(int32(p+1)-x.oldest()))
			if l >= n && l > length {
				place, length = int32(p+1), l
			}
		}
	}
	return place, length
}

// script is a text of few different tokens, with breaks and with runs copied from before.
func script(r *rand.Rand, n int) []int32 {
	var ids []int32
	vocab := 2 + r.Int32N(40)
	for len(ids) < n {
		switch k := r.IntN(20); {
		case k == 0:
			ids = append(ids, -1)
		case k < 4 && len(ids) > 4:
			at := r.IntN(len(ids))
			ids = append(ids, ids[at:min(len(ids), at+1+r.IntN(90))]...)
		default:
			ids = append(ids, r.Int32N(vocab))
		}
	}
	return ids[:n]
}

func TestFindAgainstNaive(t *testing.T) {
	matches := 0
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 1))
		text := script(r, 300+r.IntN(500))
		x := NewIndex(smallIndex)
		for i, id := range text {
			x.Append(id)
			if r.IntN(4) > 0 {
				continue
			}
			p, l := x.find(x)
			wp, wl := naive(x, text[:i+1], x, text[:i+1])
			if p != wp || l != wl {
				t.Fatalf("seed %d, after %d tokens: place %d length %d, want %d and %d", seed, i+1, p, l, wp, wl)
			}
			matches += min(l, 1)
		}
	}
	if matches < 1000 {
		t.Errorf("only %d matches: this test means little", matches)
	}
}

// A match of another text's end.
func TestFindOfAnotherText(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		text := script(r, 400)
		x, q := NewIndex(smallIndex), NewIndex(smallIndex)
		for _, id := range text {
			x.Append(id)
		}
		var tail []int32
		for range 100 {
			at := r.IntN(len(text))
			for _, id := range text[at:min(len(text), at+1+r.IntN(30))] {
				tail = append(tail, id)
				q.Append(id)
			}
			p, l := x.find(q)
			if wp, wl := naive(x, text, q, tail); p != wp || l != wl {
				t.Fatalf("seed %d: place %d length %d, want %d and %d", seed, p, l, wp, wl)
			}
		}
	}
}

// FuzzIndex holds what find says against the text itself, for any text and any bound.
func FuzzIndex(f *testing.F) {
	f.Add([]byte("the cat and the cat and the dog"), uint16(0))
	f.Add(make([]byte, 3000), uint16(1024))
	f.Fuzz(func(t *testing.T, data []byte, most uint16) {
		x := NewIndex(int(most))
		text := make([]int32, 0, len(data))
		for _, b := range data {
			id := int32(b) - 1
			text = append(text, id)
			x.Append(id)
			p, l := x.find(x)
			if l == 0 {
				continue
			}
			end := len(text)
			if l < shortest || l > longest || int(p)-1 >= end || int(p)-1 < l || end-(int(p)-1)+l > x.most {
				t.Fatalf("place %d length %d of %d tokens", p, l, end)
			}
			for i := 1; i <= l; i++ {
				if text[int(p)-1-i] != text[end-i] || text[end-i] < 0 {
					t.Fatalf("place %d length %d: no match %d tokens before", p, l, i)
				}
			}
			if x.Len() > x.most {
				t.Fatalf("%d tokens kept, bound %d", x.Len(), x.most)
			}
		}
	})
}

// Growing loses nothing, and an index that is used again has nothing of before.
func TestGrowAndReset(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	text := script(r, 3000)
	big, x := NewIndex(1<<12), NewIndex(1<<12)
	big.Reserve(1 << 12)
	for _, id := range text {
		big.Append(id)
		x.Append(id)
		if p, l := x.find(x); l >= grams[1] { // the short runs' buckets overflow sooner while there are few
			if bp, bl := big.find(big); bl < l || bp < p && bl == l {
				t.Fatalf("grown %d %d, big from the start %d %d", p, l, bp, bl)
			}
		}
	}
	x.Reset()
	for range 10 {
		x.Append(r.Int32N(1000))
		if _, l := x.find(x); l != 0 {
			t.Fatal("a match in an empty index")
		}
	}
}

// follow gives d the tokens and reports how many of the guesses made for those from n on were right, and how many there were.
func follow(d *Drafter, past *Index, tokens []int32, n, most int) (right, made int) {
	for i := n; i < len(tokens); {
		for !d.Follow(tokens[:i], past) {
		}
		ids, chances := d.Draft(most)
		made += len(ids)
		if len(ids) != len(chances) || !slices.IsSortedFunc(chances, func(a, b float32) int { return int(1e6 * (b - a)) }) {
			panic("chances")
		}
		i++
		for k := 0; k < len(ids) && i < len(tokens) && ids[k] == tokens[i-1]; k++ {
			right++
			i++
		}
	}
	return right, made
}

func random(r *rand.Rand, n, vocab int) []int32 {
	ids := make([]int32, n)
	for i := range ids {
		ids[i] = r.Int32N(int32(vocab))
	}
	return ids
}

func TestDrafter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	prompt := random(r, 2000, 5000)
	copied := slices.Concat(prompt, prompt[300:700])
	if right, made := follow(NewDrafter(), nil, copied, 2002, 8); right < 330 || made > right+20 {
		t.Errorf("copy of the prompt: %d of %d guesses are right", right, made)
	}
	var loop []int32
	for range 200 {
		loop = append(loop, 7, 8, 9)
	}
	if right, made := follow(NewDrafter(), nil, loop, 10, 8); right < 500 || made > right+20 {
		t.Errorf("loop: %d of %d guesses are right", right, made)
	}
	if right, made := follow(NewDrafter(), nil, random(r, 3000, 40), 100, 8); made > 120 {
		t.Errorf("random text: %d of %d guesses are right", right, made)
	}
	// The text of others who are done.
	past := NewIndex(1 << 12)
	for _, id := range copied {
		past.Append(id)
	}
	d := NewDrafter()
	if right, made := follow(d, past, copied[300:500], 10, 8); right < 150 || made > right+20 {
		t.Errorf("seen before: %d of %d guesses are right", right, made)
	}
	d.Reset()
	if right, made := follow(d, nil, copied[300:500], 10, 8); made > 0 {
		t.Errorf("after Reset: %d of %d guesses are right", right, made)
	}
	d.Reset()
	d.Follow([]int32{1, 2, 3}, nil)
	if !d.WantsAhead() {
		t.Error("nothing known, and nothing wanted")
	}
	d.Offer([]int32{4, 5, 6})
	if ids, _ := d.Draft(8); !slices.Equal(ids, []int32{4, 5, 6}) || d.WantsAhead() {
		t.Errorf("offered 4 5 6, guessed %v", ids)
	}
	d.Follow([]int32{1, 2, 3, 4}, nil)
	if ids, _ := d.Draft(1); !slices.Equal(ids, []int32{5}) {
		t.Errorf("offered 4 5 6, guessed %v behind 4", ids)
	}
	d.Follow([]int32{1, 2, 3, 4, 7}, nil)
	if ids, _ := d.Draft(8); len(ids) > 0 {
		t.Errorf("offered 4 5 6, guessed %v behind 4 7", ids)
	}
}

// A long prompt is taken in over several calls, of a longer one than is kept the end.
func TestFollowIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	tokens := random(r, ownMost+3*feedMost+5, 1<<15)
	tokens = append(tokens, tokens[len(tokens)-9000:len(tokens)-8000]...)
	d, calls := NewDrafter(), 1
	for !d.Follow(tokens, nil) {
		calls++
	}
	if calls < ownMost/feedMost || d.own.Len() > ownMost {
		t.Errorf("%d calls, %d tokens kept", calls, d.own.Len())
	}
	if ids, _ := d.Draft(4); !slices.Equal(ids, tokens[len(tokens)-9000:][:4]) {
		t.Errorf("guessed %v", ids)
	}
}

func TestNoAllocations(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	tokens := script(r, 1000)
	for i := range tokens {
		tokens[i] = max(tokens[i], 0)
	}
	d, past := NewDrafter(), NewIndex(1<<12)
	for _, id := range tokens {
		past.Append(id)
	}
	tokens = append(tokens, script(r, 1000)...)
	d.own.Reserve(4096)
	n := 1000
	if a := testing.AllocsPerRun(500, func() {
		d.Follow(tokens[:n], past)
		if d.WantsAhead() && n%50 == 0 {
			d.Offer(tokens[n : n+5])
		}
		d.Draft(8)
		n++
	}); a != 0 {
		t.Errorf("%v allocations a token", a)
	}
}

func TestArchive(t *testing.T) {
	a := NewArchive()
	one, two := [32]byte{1}, [32]byte{2}
	text := []int32{1, 2, 3, 4, 5, 6, 7, 8}
	a.Add(one, text)
	if a.Index(two) != nil {
		t.Fatal("a root has what another was given")
	}
	q := NewIndex(1)
	for _, id := range text[:4] {
		q.Append(id)
	}
	if p, l := a.Index(one).find(q); l != 4 || a.Index(one).at(p) != 5 {
		t.Errorf("match of %d", l)
	}
	// Texts do not continue one another.
	a.Add(one, []int32{9, 9, 9})
	q.Reset()
	q.Append(7)
	q.Append(8)
	if p, l := a.Index(one).find(q); l != 2 || a.Index(one).at(p) != -1 {
		t.Errorf("match of %d", l)
	}
	d := NewDrafter()
	d.Follow([]int32{7, 8}, a.Index(one))
	if ids, _ := d.Draft(3); len(ids) != 0 {
		t.Errorf("guessed %v behind the end of a text", ids)
	}
	// Bounds.
	r := rand.New(rand.NewPCG(4, 4))
	for i := range 60 {
		a.Add([32]byte{3, byte(i)}, random(r, archiveRoot, 1000))
		a.Index(one)
	}
	room := 0
	for _, s := range a.roots {
		room += len(s.index.ids)
	}
	if room != a.room || room > archiveAll {
		t.Errorf("room for %d tokens, counted %d", room, a.room)
	}
	if a.Index(one) == nil || a.Index([32]byte{3, 0}) != nil || a.Index([32]byte{3, 59}) == nil {
		t.Error("not the least lately used root was dropped")
	}
}

// Cost learns a machine whose steps are held up now and then, follows a level that changes, and keeps streams and drafts apart.
func TestCost(t *testing.T) {
	machine := func(streams, drafts int) float64 {
		rows := streams + drafts
		return 1 + 0.03*float64(rows-1) + 0.8*float64((rows-1)/4) + 0.4*float64(streams)
	}
	r := rand.New(rand.NewPCG(5, 5))
	var c Cost
	for i := range 8000 {
		streams, drafts := 1+r.IntN(3), r.IntN(6)
		s := 0.002 * machine(streams, drafts) * (1 + float64(i)/8000)
		if r.IntN(10) == 0 {
			s *= 1 + 5*r.Float64()
		}
		c.Observe(streams, drafts, s*(0.97+0.06*r.Float64()))
	}
	for streams := 1; streams <= 3; streams++ {
		for drafts := range 6 {
			if got, want := c.Relative(streams, drafts), machine(streams, drafts)/machine(streams, 0); got < want*0.75 || got > want*1.25 {
				t.Errorf("%d streams, %d drafts: %.2f, want %.2f", streams, drafts, got, want)
			}
			if got, want := c.Seconds(streams, drafts), 0.004*machine(streams, drafts); got < want*0.7 || got > want*1.5 {
				t.Errorf("%d streams, %d drafts: %.2g s, want %.2g", streams, drafts, got, want)
			}
		}
	}
	for streams := 1; streams < 20; streams++ {
		for drafts := 1; drafts < 20; drafts++ {
			if a, b := c.Relative(streams, drafts-1), c.Relative(streams, drafts); b < a || b < 1 {
				t.Errorf("%d streams: %d drafts %.2f, one fewer %.2f", streams, drafts, b, a)
			}
		}
	}
	if c.Seconds(0, 0) != 0 || c.Seconds(7, 0) != 0 {
		t.Error("times that nobody measured")
	}
	// A machine on which rows are far cheaper than was thought, and one on which they are not: the first drafts tell of longer ones.
	var cheap, dear Cost
	for range 100 {
		for drafts := range 5 {
			cheap.Observe(1, drafts, 0.01*(1+0.01*float64(drafts)))
			dear.Observe(1, drafts, 0.01*(1+0.5*float64(drafts)))
		}
	}
	if a, b := cheap.Relative(1, 15), dear.Relative(1, 7); a > 2 || b < 3.5 {
		t.Errorf("15 drafts cost %.2f where they cost little, 7 cost %.2f where they cost much", a, b)
	}
	if a := cheap.Relative(2, 6); a > 1.4 {
		t.Errorf("with two streams, that were not measured, 6 drafts cost %.2f", a)
	}
}

// Steps that took longer for other reasons, while there were drafts, do not end drafting for good.
func TestCostForgives(t *testing.T) {
	for streams := 1; streams <= 5; streams++ {
		var c Cost
		run := func(steps int, level float64) (drafted int) {
			for range steps {
				k := 0
				for k < 3 && c.Relative(streams, k+1) <= 1.15 {
					k++
				}
				c.Observe(streams, k, level*(1+0.04*float64(k)))
				drafted += k
			}
			return drafted
		}
		before := run(500, 1)
		run(100, 1.5)
		run(2000, 1)
		if after := run(500, 1); before == 0 || after < before/2 {
			t.Errorf("%d streams: %d drafts in 500 steps before a time of load, %d long after it", streams, before, after)
		}
	}
}

// Prompts that always come beside decoding do not keep an old level alive.
func TestCostAtMost(t *testing.T) {
	var c Cost
	c.Observe(2, 0, 0.1)
	c.AtMost(2, 0, 0.02)
	if s := c.Seconds(2, 0); s > 0.02 {
		t.Errorf("a step of 20 ms with more to do, and decoding alone is said to take %v s", s)
	}
}

// A drafter that is used again knows nothing of the sequence before.
func TestResetForgetsAll(t *testing.T) {
	d := NewDrafter()
	var ids []int32
	for range 40 {
		ids = append(ids, 1, 2, 3, 4, 5, 6, 7)
	}
	for !d.Follow(ids, nil) {
	}
	d.Offer([]int32{9, 9})
	d.Reset()
	fresh := NewDrafter()
	if d.at != fresh.at || d.chance != fresh.chance || d.seen != fresh.seen || d.own.Len() != 0 || d.ahead.Len() != 0 {
		t.Errorf("after Reset: %+v", d)
	}
}
