package openai

import (
	"slices"

	"kvasir/internal/llm"
)

// constrain notes what the text must be. Whether that can be had is for the grammar to say.
func (d *decoder) constrain(f *Field, c *llm.Constraint) {
	if !slices.Contains(d.constrained, f.Name) { // of a field that is there twice the last one counts
		d.constrained = append(d.constrained, f.Name)
	}
	d.call.Request.Constraint = c
}

// unconstrain takes back what the field said before.
func (d *decoder) unconstrain(f *Field) {
	if slices.Contains(d.constrained, f.Name) {
		d.constrained = slices.DeleteFunc(d.constrained, func(s string) bool { return s == f.Name })
		d.call.Request.Constraint = nil
	}
}

// raw takes any value and returns its text.
func (d *decoder) raw() (string, error) {
	d.kind()
	start := d.i
	if err := d.skip(); err != nil {
		return "", err
	}
	return string(d.b[start:d.i]), nil
}

// schemaText takes a JSON Schema; some clients send it as a string.
func (d *decoder) schemaText(field string, quoted bool) (string, error) {
	switch k := d.kind(); {
	case k == '{', k == 't', k == 'f':
		return d.raw()
	case k == '"' && quoted:
		return d.str()
	}
	return "", d.wrongType(field, field, "a JSON Schema, which is an object")
}

// responseFormat takes OpenAI's object: {"type": "text" | "json_object" | "json_schema", "json_schema": {"name", "schema", "strict"}}. llama.cpp
// has "schema" beside the type json_object, too.
func (d *decoder) responseFormat(f *Field) error {
	if d.kind() != '{' {
		return d.wrongType(f.Name, f.Name, "an object")
	}
	var typ, schema, beside string
	hasFormat := false
	err := d.object(func(key []byte) (err error) {
		if d.kind() == 'n' {
			return d.null()
		}
		switch string(key) {
		case "type":
			if d.kind() != '"' {
				return d.wrongType(f.Name, f.Name+".type", "a string")
			}
			typ, err = d.str()
		case "schema":
			beside, err = d.schemaText(f.Name+".schema", false)
		case "json_schema":
			hasFormat = true
			schema, err = d.namedSchema(f.Name + ".json_schema")
		default:
			err = d.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	c := &llm.Constraint{Kind: llm.ConstrainSchema, Text: schema, Param: f.Name}
	switch typ {
	case "text":
		d.unconstrain(f)
		return nil
	case "json_object":
		if c.Text = beside; beside == "" {
			c.Kind = llm.ConstrainObject
		}
	case "json_schema":
		if !hasFormat {
			return llm.Invalid(f.Name, "%s.json_schema is required with the type json_schema", f.Name)
		}
		if c.Param += ".json_schema.schema"; schema == "" {
			c.Kind = llm.ConstrainObject
		}
	default:
		return llm.Invalid(f.Name, "%s.type must be text, json_object or json_schema", f.Name)
	}
	d.constrain(f, c)
	return nil
}

// namedSchema takes OpenAI's json_schema object and returns its schema, "" if there is none.
func (d *decoder) namedSchema(field string) (schema string, err error) {
	if d.kind() != '{' {
		return "", d.wrongType(field, field, "an object with name and schema")
	}
	name := ""
	err = d.object(func(key []byte) (err error) {
		if d.kind() == 'n' {
			return d.null()
		}
		switch string(key) {
		case "name":
			name, err = d.text(field + ".name")
		case "schema":
			schema, err = d.schemaText(field+".schema", false)
		case "strict":
			_, err = d.boolean(field + ".strict")
		default:
			err = d.skip()
		}
		return err
	})
	if err == nil && name == "" {
		err = llm.Invalid(field+".name", "%s.name is required", field)
	}
	return schema, err
}

func (d *decoder) guidedJSON(f *Field) error {
	text, err := d.schemaText(f.Name, f.Name == "guided_json")
	if err == nil {
		d.constrain(f, &llm.Constraint{Kind: llm.ConstrainSchema, Text: text, Param: f.Name})
	}
	return err
}

func (d *decoder) guidedRegex(f *Field) error {
	text, err := d.text(f.Name)
	if err == nil {
		d.constrain(f, &llm.Constraint{Kind: llm.ConstrainRegex, Text: text, Param: f.Name})
	}
	return err
}

func (d *decoder) guidedChoice(f *Field) error {
	all, err := d.choiceTexts(f.Name)
	if err == nil {
		d.constrain(f, &llm.Constraint{Kind: llm.ConstrainChoice, Choices: all, Param: f.Name})
	}
	return err
}

// choiceTexts takes a non-empty array of strings.
func (d *decoder) choiceTexts(field string) (all []string, err error) {
	if d.kind() != '[' {
		return nil, d.wrongType(field, field, "an array of strings")
	}
	err = d.array(func(i int) error {
		if i >= MaxChoiceTexts {
			return llm.Invalid(field, "%s may have at most %d strings", field, MaxChoiceTexts)
		}
		if d.kind() != '"' {
			return d.wrongType(field, at(field, i), "a string")
		}
		s, err := d.str()
		all = append(all, s)
		return err
	})
	if err == nil && len(all) == 0 {
		err = llm.Invalid(field, "%s is empty: there must be at least one choice", field)
	}
	return all, err
}

// structuredOutputs takes vLLM's object.
func (d *decoder) structuredOutputs(f *Field) error {
	if d.kind() != '{' {
		return d.wrongType(f.Name, f.Name, "an object")
	}
	var c *llm.Constraint
	compact, said := false, 0
	set := func(n *llm.Constraint) {
		c = n
		said++
	}
	err := d.object(func(key []byte) (err error) {
		if d.kind() == 'n' {
			return d.null()
		}
		name := f.Name + "." + string(key)
		var text string
		switch string(key) {
		case "json":
			text, err = d.schemaText(name, true)
			set(&llm.Constraint{Kind: llm.ConstrainSchema, Text: text, Param: name})
		case "regex":
			text, err = d.text(name)
			set(&llm.Constraint{Kind: llm.ConstrainRegex, Text: text, Param: name})
		case "choice":
			var all []string
			all, err = d.choiceTexts(name)
			set(&llm.Constraint{Kind: llm.ConstrainChoice, Choices: all, Param: name})
		case "json_object":
			var yes bool
			if yes, err = d.boolean(name); yes {
				set(&llm.Constraint{Kind: llm.ConstrainObject, Param: name})
			}
		case "disable_any_whitespace":
			compact, err = d.boolean(name)
		case "disable_additional_properties", "disable_fallback":
			_, err = d.boolean(name) // what is not listed is closed unless the schema says otherwise; there is no other backend
		default:
			if err = d.skip(); err == nil {
				err = &llm.Error{Kind: llm.KindInvalid, Param: f.Name, Code: "unsupported_parameter",
					Message: name + " is not supported; supported: json, regex, choice, json_object and disable_any_whitespace"}
			}
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case said != 1:
		return llm.Invalid(f.Name, "%s must have one of json, regex, choice and json_object: true", f.Name)
	}
	c.Compact = compact
	d.constrain(f, c)
	return nil
}
