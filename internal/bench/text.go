package bench

import (
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"strings"
)

// vocabulary is what prompts are made of: plain words, most of them one or two tokens in any tokenizer.
var vocabulary = strings.Fields(`
time year people way day man thing woman life child world school state family student group country problem hand part place case week
company system program question work government number night point home water room mother area money story fact month lot right study
book eye job word business issue side kind head house service friend father power hour game line end member law car city community name
president team minute idea body information back parent face others level office door health person art war history party result change
morning reason research girl guy moment air teacher force education be have do say go can get make know will think take see come want look
use find give tell work may should call try ask need feel become leave put mean keep let begin seem help talk turn start might show hear
play run move like live believe hold bring happen must write provide sit stand lose pay meet include continue set learn lead understand
watch follow stop create speak read allow add spend grow open walk win offer remember love consider appear buy wait serve die send expect
build stay fall cut reach kill remain new good high old great big small large national young different black long little important political
bad white real best social only public sure low early able human local late hard major better economic strong possible whole free military
true federal international full special easy clear recent certain personal open red difficult available likely short single medical current
wrong private past foreign fine common poor natural significant similar hot dead central happy serious ready simple left physical general
the of and to in that it with as for on by this from or which one had not but what all were when we there been their more an would who them
`)

// prose returns chars bytes of text (a few less: it ends with a whole word). A first line of random words comes from seed, label and
// salt, the rest, English-like sentences with a little code between them, from seed and label alone: texts that differ only in their salt are
// equally long and share no prefix. The same arguments give the same text on any machine, and a longer text begins with the shorter one.
func prose(seed uint64, label, salt string, chars int) string {
	var b strings.Builder
	head := newPicker(seed, label+"/"+salt)
	for range 6 {
		b.WriteString(head.word() + " ")
	}
	b.WriteByte('\n')
	p := newPicker(seed, label)
	for i := 1; b.Len() < chars; i++ {
		if i%6 == 0 { // at a steady rate, since code takes more tokens for its length
			p.function(&b)
		} else {
			p.sentence(&b)
		}
	}
	s := b.String()[:chars]
	if i := strings.LastIndexAny(s, " \n"); i > 0 {
		s = s[:i]
	}
	return s
}

type picker struct{ src *rand.PCG }

func newPicker(seed uint64, label string) picker {
	h := fnv.New64a()
	h.Write([]byte(label)) // never fails
	return picker{rand.NewPCG(seed, h.Sum64())}
}

func (p picker) pick(n int) int { return int(p.src.Uint64() % uint64(n)) }

func (p picker) word() string { return vocabulary[p.pick(len(vocabulary))] }

func (p picker) function(b *strings.Builder) {
	f, x, y := p.word(), p.word(), p.word()
	fmt.Fprintf(b, "\ndef %s_%s(%s, %s):\n    if %s > %d:\n        return %s + %s[%d]\n    return None\n\n", f, p.word(), x, y, x, p.pick(100), y, x, p.pick(10))
}

func (p picker) sentence(b *strings.Builder) {
	k := 5 + p.pick(12)
	for i := range k {
		w := p.word()
		if i == 0 {
			w = strings.ToUpper(w[:1]) + w[1:]
		} else {
			b.WriteByte(' ')
		}
		b.WriteString(w)
		if i == k/2 && p.pick(3) == 0 {
			b.WriteByte(',')
		}
	}
	b.WriteString(". ")
}
