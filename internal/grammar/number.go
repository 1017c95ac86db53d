package grammar

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// Numbers are written without more digits than a reader can keep: a text of digits without end would not end either.
const (
	maxIntegerDigits  = 18 // of an int64
	maxFractionDigits = 17 // of a float64
	maxBoundDigits    = 64 // of a bound in the schema
	maxMultiple       = 4096
)

// A bound limits a number from one side.
type bound struct {
	value  *big.Rat
	strict bool
}

// numbers are what a number may be. Of several bounds and multiples all hold.
type numbers struct {
	integer   bool
	low, high *bound
	multiples []*big.Rat
}

// free says that no keyword but the type limits the number.
func (n *numbers) free() bool { return n.low == nil && n.high == nil && len(n.multiples) == 0 }

// numberDFA accepts the texts of the numbers. Limited ones are written without an exponent.
func numberDFA(n *numbers) (*dfa, error) {
	digits := maxIntegerDigits
	for _, b := range []*bound{n.low, n.high} { // what must be large may be
		if b != nil {
			digits = max(digits, min(maxBoundDigits, len(new(big.Int).Quo(b.value.Num(), b.value.Denom()).String())))
		}
	}
	d, err := plainNumber(n.integer, n.free(), digits)
	if err != nil {
		return nil, err
	}
	for _, m := range n.multiples {
		x, err := multipleDFA(m)
		if err != nil {
			return nil, err
		}
		if d, err = product(d, x, false); err != nil {
			return nil, err
		}
	}
	if n.low == nil && n.high == nil {
		return d, nil
	}
	r, err := rangeDFA(n.low, n.high)
	if err != nil {
		return nil, err
	}
	return product(d, r, false)
}

// plainNumber accepts JSON's numbers with so many digits before the point at most.
func plainNumber(integer, exponent bool, digits int) (*dfa, error) {
	n := &nfa{}
	start, whole := n.state(), n.state()
	n.byteRange(start, whole, '-', '-')
	n.move(start, whole)
	end := n.state()
	n.accept[end] = true
	if integer {
		n.integer(whole, end, digits)
		return n.deterministic(start)
	}
	point := n.state()
	n.integer(whole, end, digits)
	n.integer(whole, point, digits)
	fraction := n.state()
	n.byteRange(point, fraction, '.', '.')
	afterFraction := n.state()
	n.digits(fraction, afterFraction, maxFractionDigits)
	n.move(afterFraction, end)
	if exponent {
		e, sign, last := n.state(), n.state(), n.state()
		for _, from := range []int32{point, afterFraction} {
			n.byteRange(from, e, 'e', 'e')
			n.byteRange(from, e, 'E', 'E')
		}
		n.move(e, sign)
		n.byteRange(e, sign, '+', '+')
		n.byteRange(e, sign, '-', '-')
		n.byteRange(sign, last, '0', '9')
		n.move(last, end)
		n.byteRange(last, end, '0', '9')
	}
	return n.deterministic(start)
}

// digits leads on by 1 to most digits.
func (n *nfa) digits(from, to int32, most int) {
	for range most {
		next := n.state()
		n.byteRange(from, next, '0', '9')
		n.move(next, to)
		from = next
	}
}

// integer leads on by a whole number without a leading zero.
func (n *nfa) integer(from, to int32, most int) {
	n.byteRange(from, to, '0', '0')
	first := n.state()
	n.byteRange(from, first, '1', '9')
	n.move(first, to)
	n.digits(first, to, most-1)
}

// multipleDFA accepts decimal numbers, without an exponent, that are multiples of m: the digits before the point are followed modulo m's numerator,
// scaled so that m is whole; behind the point there are as many digits as that scale has.
func multipleDFA(m *big.Rat) (*dfa, error) {
	if m.Sign() <= 0 {
		return nil, errors.New("it must be greater than 0")
	}
	scaled, places := new(big.Rat).Set(m), 0
	for !scaled.IsInt() {
		if places++; places > maxFractionDigits {
			return nil, fmt.Errorf("a multiple of %s is not a decimal fraction of at most %d digits", m.RatString(), maxFractionDigits)
		}
		scaled.Mul(scaled, big.NewRat(10, 1))
	}
	if !scaled.Num().IsInt64() || scaled.Num().Int64() > maxMultiple {
		return nil, fmt.Errorf("at most %d, or as many units of the last decimal place, can be masked", maxMultiple)
	}
	mod := scaled.Num().Int64()
	power := make([]int64, places+1) // 10^i modulo mod
	power[0] = 1 % mod
	for i := 1; i <= places; i++ {
		power[i] = power[i-1] * 10 % mod
	}
	n := &nfa{}
	start := n.state()
	state := make([][]int32, places+1) // after so many places, by remainder
	for p := range state {
		state[p] = make([]int32, mod)
		for r := range state[p] {
			state[p][r] = n.state()
			n.accept[state[p][r]] = int64(r)*power[places-p]%mod == 0
		}
	}
	if n.byteRange(start, start, '-', '-'); len(n.edges) > maxStates {
		return nil, errStates
	}
	for d := range int64(10) {
		b := byte('0' + d)
		n.byteRange(start, state[0][d%mod], b, b)
		for r := range mod {
			n.byteRange(state[0][r], state[0][(r*10+d)%mod], b, b)
			for p := 1; p < places; p++ {
				n.byteRange(state[p][r], state[p+1][(r*10+d)%mod], b, b)
			}
		}
	}
	for r := range mod {
		if s := state[places][r]; int64(r) == 0 && n.accept[s] { // more places may be zeros
			n.byteRange(s, s, '0', '0')
		}
		point := n.state()
		n.byteRange(state[0][r], point, '.', '.')
		for d := range int64(10) {
			b := byte('0' + d)
			if places > 0 {
				n.byteRange(point, state[1][(r*10+d)%mod], b, b)
			} else if d == 0 && r == 0 {
				zeros := n.state()
				n.accept[zeros] = true
				n.byteRange(point, zeros, '0', '0')
				n.byteRange(zeros, zeros, '0', '0')
			}
		}
	}
	return n.deterministic(start)
}

// rangeDFA accepts decimal numbers, without an exponent, between two bounds, of which one may be nil. There is no -0.
func rangeDFA(low, high *bound) (*dfa, error) {
	n := &nfa{}
	start, minus := n.state(), n.state()
	n.byteRange(start, minus, '-', '-')
	positive, err := magnitude(low, high)
	if err != nil {
		return nil, err
	}
	neg := func(b *bound) *bound {
		if b == nil {
			return nil
		}
		return &bound{new(big.Rat).Neg(b.value), b.strict}
	}
	most := neg(low) // -x is between -high and -low
	least := neg(high)
	if least == nil || least.value.Sign() <= 0 && !(least.value.Sign() == 0 && least.strict) {
		least = &bound{new(big.Rat), true}
	}
	negative, err := magnitude(least, most)
	if err != nil {
		return nil, err
	}
	n.embed(start, positive)
	n.embed(minus, negative)
	return n.deterministic(start)
}

// embed leads from a state into a copy of an automaton.
func (n *nfa) embed(from int32, d *dfa) {
	if d == nil {
		return
	}
	base := int32(len(n.edges))
	for s := range d.accept {
		n.state()
		n.accept[int(base)+s] = d.accept[s]
	}
	for s := range d.accept {
		for b := range 256 {
			if to := d.step(int32(s), byte(b)); to != dead {
				n.byteRange(base+int32(s), base+to, byte(b), byte(b))
			}
		}
	}
	n.move(from, base+d.start)
}

// magnitude accepts the decimal numbers without a sign between two bounds.
func magnitude(low, high *bound) (*dfa, error) {
	if high != nil && (high.value.Sign() < 0 || high.value.Sign() == 0 && high.strict) {
		return nil, nil
	}
	var d *dfa
	for i, b := range []*bound{low, high} {
		if b == nil || i == 0 && b.value.Sign() < 0 {
			b = &bound{new(big.Rat), false}
			if i == 1 {
				continue
			}
		}
		x, err := comparison(b, i == 0)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			d = x
		} else if d, err = product(d, x, false); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// comparison accepts the decimal numbers without a sign that are at least, or else at most, a bound that is not negative.
func comparison(b *bound, atLeast bool) (*dfa, error) {
	digits := b.value.FloatString(0)
	if !b.value.IsInt() {
		places, ok := b.value.FloatPrec()
		if !ok || places > maxBoundDigits {
			places = -1
		}
		if places < 0 {
			return nil, fmt.Errorf("the bound %s has too many decimal places", b.value.RatString())
		}
		digits = b.value.FloatString(places)
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	if len(whole) > maxBoundDigits {
		return nil, fmt.Errorf("the bound %s has more than %d digits", whole, maxBoundDigits)
	}
	n := &nfa{}
	start, any, point, places := n.state(), n.state(), n.state(), n.state()
	// any: the number is decided, at the end of its whole part or before more of its digits where there is no count.
	n.accept[any], n.accept[places] = true, true
	n.byteRange(any, point, '.', '.')
	n.byteRange(point, places, '0', '9')
	n.byteRange(places, places, '0', '9')

	free := make([]int32, len(whole)+1) // decided, so many digits before the point are left
	free[0] = any
	for i := 1; i <= len(whole); i++ {
		free[i] = n.state()
		n.byteRange(free[i], free[i-1], '0', '9')
	}
	if atLeast { // longer ones
		s := n.state()
		n.byteRange(start, s, '1', '9')
		for i := 1; i < len(whole); i++ {
			next := n.state()
			n.byteRange(s, next, '0', '9')
			s = next
		}
		longer := n.state()
		n.byteRange(s, longer, '0', '9')
		n.byteRange(longer, longer, '0', '9')
		n.move(longer, any)
	} else if len(whole) > 1 { // shorter ones
		n.byteRange(start, any, '0', '0')
		for k := 1; k < len(whole); k++ {
			n.byteRange(start, free[k-1], '1', '9')
		}
	}
	equal := start
	for i := range len(whole) {
		c, least := whole[i], byte('0')
		if i == 0 && len(whole) > 1 {
			least = '1'
		}
		left := free[len(whole)-1-i]
		if atLeast && c < '9' {
			n.byteRange(equal, left, max(c+1, least), '9')
		}
		if !atLeast && c > least {
			n.byteRange(equal, left, least, c-1)
		}
		next := n.state()
		n.byteRange(equal, next, c, c)
		equal = next
	}
	ok := !b.strict // what is equal so far ends here
	if fraction != "" {
		ok = !atLeast
	}
	n.accept[equal] = ok
	next := n.state()
	n.byteRange(equal, next, '.', '.')
	equal = next
	for i := range len(fraction) {
		c := fraction[i]
		if atLeast && c < '9' {
			n.byteRange(equal, places, c+1, '9')
		}
		if !atLeast && c > '0' {
			n.byteRange(equal, places, '0', c-1)
		}
		next := n.state()
		n.byteRange(equal, next, c, c)
		n.accept[next] = !atLeast
		if i == len(fraction)-1 {
			n.accept[next] = !b.strict
		}
		equal = next
	}
	zeros := equal
	if fraction == "" {
		zeros = n.state()
		n.byteRange(equal, zeros, '0', '0')
		n.accept[zeros] = !b.strict
		if atLeast {
			n.byteRange(equal, places, '1', '9')
		}
	}
	n.byteRange(zeros, zeros, '0', '0')
	if atLeast {
		n.byteRange(zeros, places, '1', '9')
	}
	return n.deterministic(start)
}
