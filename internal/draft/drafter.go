package draft

// Bounds of a Drafter.
const (
	ownMost   = 1 << 16 // tokens of its sequence that it keeps
	ownKept   = 1 << 13 // room for tokens that it keeps for the next sequence
	feedMost  = 4096    // tokens that one Follow takes in
	searchAt  = 12      // a match of fewer tokens is given up for a longer one
	aheadMost = 64      // tokens of a cached continuation that are asked for at once
	aheadLen  = 32      // the match that such a continuation counts as
	unlikely  = 0.08    // a chance below it is not worth a row in any step
)

// grades of a match, by its length: 2, 3, 4, 5 to 6, 7 to 9, 10 to 15, 16 to 31, more.
const grades = 8

func grade(length int) int {
	switch {
	case length <= 4:
		return max(0, length-shortest)
	case length <= 6:
		return 3
	case length <= 9:
		return 4
	case length <= 15:
		return 5
	case length <= 31:
		return 6
	}
	return 7
}

// firstChances are the chances of a guess by the grade of its match before anything is known of the sequence.
var firstChances = [grades]float32{0.2, 0.3, 0.4, 0.55, 0.7, 0.8, 0.88, 0.92}

// A match says that the sequence continues as text does from place p on: the length tokens before are the same. text is nil if nothing is known.
type match struct {
	text   *Index
	p      int32
	length int
}

// A Drafter guesses the next tokens of one sequence. Not safe for concurrent use.
type Drafter struct {
	own   *Index // the sequence's text
	ahead *Index // a cached continuation of it
	fed   int    // tokens of the sequence that own has got
	at    match

	chance [grades]float32 // that a guess is right
	seen   [grades]int32   // guesses that it comes from, while few

	ids     []int32
	chances []float32
}

// NewDrafter makes a drafter for a sequence of which nothing is known.
func NewDrafter() *Drafter {
	d := &Drafter{own: NewIndex(ownMost), ahead: NewIndex(smallIndex), ids: make([]int32, 0, MaxRows), chances: make([]float32, 0, MaxRows)}
	d.Reset()
	return d
}

// Reset makes d ready for another sequence.
func (d *Drafter) Reset() {
	if len(d.own.ids) > ownKept {
		d.own = NewIndex(ownMost)
	}
	d.own.Reset()
	d.ahead.Reset()
	d.fed, d.at = 0, match{}
	d.chance, d.seen = firstChances, [grades]int32{}
}

// Follow takes in the sequence's tokens, prompt and generated: those that it had at the last call, and further ones. It takes a bounded
// number at a time; false says that there are more. past is the text of the sequence's root, or nil.
func (d *Drafter) Follow(tokens []int32, past *Index) bool {
	d.own.Reserve(len(tokens))
	d.fed = max(d.fed, len(tokens)-ownMost)
	few := len(tokens)-d.fed <= MaxRows
	end := min(len(tokens), d.fed+feedMost)
	for ; d.fed < end; d.fed++ {
		if few {
			d.judge(tokens[d.fed])
		} else {
			d.at = match{}
		}
		d.own.Append(tokens[d.fed])
		if few {
			d.search(past)
		}
	}
	if d.fed < len(tokens) {
		return false
	}
	if !few {
		d.search(past)
	}
	return true
}

// judge holds the guess, if there is one, against the token that came, and goes on with the match or gives it up.
func (d *Drafter) judge(id int32) {
	if d.at.text == nil {
		return
	}
	guess, ok := d.next(d.at, 0)
	if !ok {
		d.at = match{}
		return
	}
	g := grade(d.at.length)
	hit := float32(0)
	if guess == id {
		hit = 1
	}
	d.seen[g] = min(d.seen[g]+1, 12)
	d.chance[g] += (hit - d.chance[g]) / float32(d.seen[g]+4)
	if guess != id {
		d.at = match{}
		return
	}
	d.at.p++
	d.at.length = min(d.at.length+1, longest)
}

// search looks for a better match than a short one.
func (d *Drafter) search(past *Index) {
	if d.at.text != nil && d.at.length >= searchAt {
		return
	}
	if p, l := d.own.find(d.own); l > d.at.length {
		d.at = match{d.own, p, l}
	}
	if past == nil {
		return
	}
	if p, l := past.find(d.own); l > d.at.length {
		d.at = match{past, p, l}
	}
}

// next is the guess i tokens on in a match.
func (d *Drafter) next(m match, i int) (int32, bool) {
	p := m.p + int32(i)
	if m.text == d.own && p >= d.own.end { // the text overlaps its own continuation: it repeats
		period := d.own.end - m.p
		p = m.p + int32(i)%period
	}
	if !m.text.has(p) {
		return 0, false
	}
	id := m.text.at(p)
	return id, id >= 0
}

// WantsAhead says that a cached continuation of the sequence would be better than what d knows.
func (d *Drafter) WantsAhead() bool { return d.at.text == nil || d.at.length < aheadLen/2 }

// AheadMost is how many tokens of a continuation to offer at most.
func (d *Drafter) AheadMost() int { return aheadMost }

// Offer gives d a cached continuation of the sequence, which it copies.
func (d *Drafter) Offer(ids []int32) {
	if len(ids) == 0 {
		return
	}
	d.ahead.end, d.ahead.run = 1, 0 // its tables are not used
	for _, id := range ids {
		d.ahead.push(id)
	}
	d.at = match{d.ahead, 1, aheadLen}
}

// Draft returns up to most guesses of the next tokens and, for each, the chance that it and all before it are right. Both are valid until the
// next call.
func (d *Drafter) Draft(most int) (ids []int32, chances []float32) {
	d.ids, d.chances = d.ids[:0], d.chances[:0]
	if d.at.text == nil {
		return nil, nil
	}
	all := float32(1)
	for i := range min(most, MaxRows) {
		id, ok := d.next(d.at, i)
		if !ok {
			break
		}
		if all *= d.chance[grade(min(d.at.length+i, longest))]; all < unlikely {
			break
		}
		d.ids = append(d.ids, id)
		d.chances = append(d.chances, all)
	}
	return d.ids, d.chances
}
