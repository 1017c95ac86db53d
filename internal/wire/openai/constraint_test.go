package openai

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"kvasir/internal/llm"
)

func TestDecodeConstraints(t *testing.T) {
	const schema = `{"type": "object",  "properties":{"b":{},"a":{"const":"\u00e9"}}}`
	quoted := string(appendString(nil, schema))
	for field, want := range map[string]*llm.Constraint{
		`"response_format":{"type":"text"}`:                                nil,
		`"response_format":{"type":"json_object"}`:                         {Kind: llm.ConstrainObject, Param: "response_format"},
		`"response_format":{"type":"json_object","schema":` + schema + `}`: {Kind: llm.ConstrainSchema, Text: schema, Param: "response_format"},
		`"response_format":{"json_schema":{"name":"x","description":"d","strict":true,"schema":` + schema + `},"type":"json_schema"}`: {
			Kind: llm.ConstrainSchema, Text: schema, Param: "response_format.json_schema.schema"},
		`"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":null}}`: {Kind: llm.ConstrainObject, Param: "response_format.json_schema.schema"},
		`"guided_json":` + schema:                                                    {Kind: llm.ConstrainSchema, Text: schema, Param: "guided_json"},
		`"guided_json":` + quoted:                                                    {Kind: llm.ConstrainSchema, Text: schema, Param: "guided_json"},
		`"json_schema":` + schema:                                                    {Kind: llm.ConstrainSchema, Text: schema, Param: "json_schema"},
		`"guided_regex":"a\\d+"`:                                                     {Kind: llm.ConstrainRegex, Text: `a\d+`, Param: "guided_regex"},
		`"guided_choice":["a","b\n"]`:                                                {Kind: llm.ConstrainChoice, Choices: []string{"a", "b\n"}, Param: "guided_choice"},
		`"structured_outputs":{"json":` + quoted + `}`:                               {Kind: llm.ConstrainSchema, Text: schema, Param: "structured_outputs.json"},
		`"structured_outputs":{"regex":"x","disable_any_whitespace":true}`:           {Kind: llm.ConstrainRegex, Text: "x", Compact: true, Param: "structured_outputs.regex"},
		`"structured_outputs":{"choice":["x"],"json":null}`:                          {Kind: llm.ConstrainChoice, Choices: []string{"x"}, Param: "structured_outputs.choice"},
		`"structured_outputs":{"json_object":true}`:                                  {Kind: llm.ConstrainObject, Param: "structured_outputs.json_object"},
		`"guided_regex":"a","guided_regex":"b"`:                                      {Kind: llm.ConstrainRegex, Text: "b", Param: "guided_regex"},
		`"guided_regex":"a","response_format":{"type":"text"}`:                       {Kind: llm.ConstrainRegex, Text: "a", Param: "guided_regex"},
		`"response_format":{"type":"json_object"},"response_format":{"type":"text"}`: nil,
	} {
		for _, e := range []Endpoint{Completions, Chat} {
			c := mustDecode(t, e, base[e]+","+field+"}")
			if d := cmp.Diff(want, c.Request.Constraint); d != "" {
				t.Errorf("%s %s: %s", e, field, d)
			}
		}
	}
}

func TestDecodeConstraintErrors(t *testing.T) {
	for _, c := range []struct{ field, param, message string }{
		{`"response_format":"json"`, "response_format", "an object"},
		{`"response_format":{}`, "response_format", "text, json_object or json_schema"},
		{`"response_format":{"type":"xml"}`, "response_format", "text, json_object or json_schema"},
		{`"response_format":{"type":5}`, "response_format", "a string"},
		{`"response_format":{"type":"json_schema"}`, "response_format", "json_schema is required"},
		{`"response_format":{"type":"json_schema","json_schema":{"schema":{}}}`, "response_format.json_schema.name", "required"},
		{`"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":"y"}}`, "response_format.json_schema.schema", "an object"},
		{`"response_format":{"type":"json_schema","json_schema":{"name":"x","strict":1}}`, "response_format.json_schema.strict", "a boolean"},
		{`"guided_regex":5`, "guided_regex", "a string"},
		{`"guided_choice":[]`, "guided_choice", "at least one"},
		{`"guided_choice":["a",5]`, "guided_choice", "guided_choice[1] must be a string"},
		{`"guided_choice":[` + strings.Repeat(`"a",`, MaxChoiceTexts) + `"a"]`, "guided_choice", "4096"},
		{`"structured_outputs":{}`, "structured_outputs", "one of json"},
		{`"structured_outputs":{"json_object":false}`, "structured_outputs", "one of json"},
		{`"structured_outputs":{"regex":"a","choice":["b"]}`, "structured_outputs", "one of json"},
		{`"structured_outputs":{"grammar":"root ::= x"}`, "structured_outputs", "structured_outputs.grammar is not supported"},
		{`"guided_regex":"a","response_format":{"type":"json_object"}`, "response_format", "send one of them"},
		{`"guided_grammar":"x"`, "guided_grammar", "GBNF"},
	} {
		_, err := Decode(Chat, []byte(base[Chat]+","+c.field+"}"))
		var e *llm.Error
		if !errors.As(err, &e) || e.Kind != llm.KindInvalid || e.Param != c.param || !strings.Contains(e.Message, c.message) {
			t.Errorf("%.80s: %#v", c.field, err)
		}
	}
}
