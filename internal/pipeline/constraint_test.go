package pipeline

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kvasir/internal/llm"
)

const personSchema = `{"type":"object","properties":{"name":{"type":"string","maxLength":12},"age":{"type":"integer","minimum":0,"maximum":99},
"kind":{"enum":["a","b c","é"]}},"required":["name","age","kind"],"additionalProperties":false}`

// constrained is a random request with a constraint, and a check of its text.
func constrained(rnd *rand.Rand) (*llm.Request, func(text string) bool) {
	r := request(ids(ramp(rnd.IntN(4), 5+rnd.IntN(40))...), 120)
	r.IgnoreEOS = rnd.IntN(3) == 0
	r.Logprobs = rnd.IntN(4) - 1
	r.N = 1 + rnd.IntN(3)
	s := &r.Sampling
	s.Seed = rnd.Uint64()
	switch rnd.IntN(3) {
	case 0:
		s.Temperature = 1
	case 1:
		s.Temperature, s.TopK, s.TopP, s.MinP, s.RepetitionPenalty = 0.7, 20, 0.9, 0.01, 1.1
	}
	switch rnd.IntN(3) {
	case 0:
		all := []string{"yes", "no", "", "yes, é\n"}
		r.Constraint = &llm.Constraint{Kind: llm.ConstrainChoice, Choices: all, Param: "guided_choice"}
		return r, func(text string) bool { return slices.Contains(all, text) }
	case 1:
		r.Constraint = &llm.Constraint{Kind: llm.ConstrainRegex, Text: `[a-z]{3,9}( \d{1,3}é?){2}`, Param: "guided_regex"}
		return r, regexp.MustCompile(`\A[a-z]{3,9}( \d{1,3}é?){2}\z`).MatchString
	}
	r.Constraint = &llm.Constraint{Kind: llm.ConstrainSchema, Text: personSchema, Compact: rnd.IntN(2) == 0, Param: "response_format"}
	return r, func(text string) bool {
		var v struct {
			Name, Kind *string
			Age        *int
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.DisallowUnknownFields()
		return d.Decode(&v) == nil && v.Name != nil && len([]rune(*v.Name)) <= 12 && v.Age != nil && *v.Age >= 0 && *v.Age <= 99 && slices.Contains([]string{"a", "b c", "é"}, *v.Kind) &&
			(!r.Constraint.Compact || !strings.Contains(text, `": `) && !strings.Contains(text, "\n"))
	}
}

// Every text that ends is what the constraint demands, and is the same with drafts as without, cold and warm.
func TestConstraints(t *testing.T) {
	with := open(t, nil)
	without := open(t, func(o *Options) { o.NoDrafts = true })
	rnd := rand.New(rand.NewPCG(51, 52))
	ended := 0
	for i := range 60 {
		r, ok := constrained(rnd)
		got := must(t, with, r)
		for k, c := range got.choices {
			if c.finish == llm.FinishStop {
				ended++
				if !ok(c.text) {
					t.Fatalf("request %d, choice %d: %q", i, k, c.text)
				}
			}
			if r.Logprobs < 0 {
				continue
			}
			text := ""
			for _, tok := range c.tokens {
				text += string(tok.Bytes)
				if len(tok.Top) != r.Logprobs || tok.Logprob > 0 {
					t.Fatalf("request %d: token %+v", i, tok)
				}
			}
			if text != c.text {
				t.Fatalf("request %d: the tokens of %q are %q", i, c.text, text)
			}
		}
		for what, p := range map[string]*Pipeline{"again": with, "without drafts": without} {
			if err := same(got, must(t, p, r)); err != nil {
				t.Fatalf("request %d %s: %v", i, what, err)
			}
		}
	}
	if ended < 80 {
		t.Errorf("only %d texts ended", ended)
	}
}

// A text that may not go on ends there: the model is not asked for a token that ends it.
func TestConstraintEndsAtOnce(t *testing.T) {
	p := open(t, nil)
	r := request(text("x"), 50)
	r.IgnoreEOS = false
	r.Constraint = &llm.Constraint{Kind: llm.ConstrainChoice, Choices: []string{"7"}, Param: "guided_choice"}
	if o := must(t, p, r); o.choices[0].text != "7" || o.choices[0].finish != llm.FinishStop || o.usage.CompletionTokens != 1 {
		t.Errorf("%+v", o)
	}
	r.Constraint = &llm.Constraint{Kind: llm.ConstrainObject, Param: "response_format"}
	r.MaxTokens = 3
	if o := must(t, p, r); o.choices[0].finish != llm.FinishLength || o.choices[0].text[0] != '{' {
		t.Errorf("%+v", o)
	}
}

// What cannot be masked is the request's fault, and the error names field and keyword.
func TestConstraintErrors(t *testing.T) {
	p := open(t, nil)
	for _, c := range []struct {
		c       llm.Constraint
		message string
	}{
		{llm.Constraint{Kind: llm.ConstrainSchema, Text: `{"properties":{"a":{"uniqueItems":true}}}`}, "f: the schema at #/properties/a: uniqueItems"},
		{llm.Constraint{Kind: llm.ConstrainRegex, Text: `(`}, "f: the regular expression: missing"},
		{llm.Constraint{Kind: llm.ConstrainChoice}, "f: there must be 1 to"},
		{llm.Constraint{Kind: 9}, "f: an unknown kind"},
	} {
		r := request(text("x"), 5)
		c.c.Param = "f"
		r.Constraint = &c.c
		if e := wantError(t, run(t, p, r).err, llm.KindInvalid); e.Param != "f" || !strings.HasPrefix(e.Message, c.message) {
			t.Errorf("%+v: %+v", c.c, e)
		}
	}
}

// Requests with and without constraints run side by side, each as alone.
func TestConstraintsBeside(t *testing.T) {
	p := open(t, nil)
	rnd := rand.New(rand.NewPCG(53, 54))
	var all []*llm.Request
	var alone []outcome
	for i := range 12 {
		r, _ := constrained(rnd)
		if i%3 == 0 {
			r.Constraint = nil
		}
		r.Tenant = fmt.Sprint(i % 2)
		all, alone = append(all, r), append(alone, must(t, p, r))
	}
	errs := make(chan error, len(all))
	for i, r := range all {
		go func() { errs <- same(alone[i], run(t, p, r)) }()
	}
	for range all {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
