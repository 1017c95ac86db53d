package openai

import (
	"strconv"

	"kvasir/internal/llm"
)

// lora takes the list of adapters: llama.cpp's objects of id and scale, with a name in place of the id if the caller likes. Which adapters
// there are is for the model to say.
func (d *decoder) lora(f *Field) error {
	if d.kind() != '[' {
		return d.wrongType(f.Name, f.Name, "an array of objects with name (or id) and scale")
	}
	r := &d.call.Request
	r.Adapters = nil
	return d.array(func(i int) error {
		if i >= MaxAdapters {
			return llm.Invalid(f.Name, "%s may have at most %d entries", f.Name, MaxAdapters)
		}
		c, err := d.adapter(at(f.Name, i))
		r.Adapters = append(r.Adapters, c)
		return err
	})
}

// adapter takes one entry. A misspelt key would change the answer silently, so unknown ones are errors.
func (d *decoder) adapter(field string) (c llm.AdapterChoice, err error) {
	if d.kind() != '{' {
		return c, d.wrongType(field, field, "an object with name (or id) and scale")
	}
	hasID := false
	err = d.object(func(key []byte) error {
		if d.kind() == 'n' {
			return d.null()
		}
		name := field + "." + string(key)
		switch string(key) {
		case "name":
			s, err := d.text(name)
			if err == nil && (s == "" || len(s) > MaxNameLen) {
				err = rangeError(name, "1 to "+strconv.Itoa(MaxNameLen)+" bytes long")
			}
			c.Name = s
			return err
		case "id":
			v, err := d.intIn(name, 0, maxInt32)
			c.ID, hasID = int(v), true
			return err
		case "scale":
			v, err := d.floatIn(name, -1000, 1000)
			scale := float32(v)
			c.Scale = &scale
			return err
		}
		return llm.Invalid(field, "%s has an unknown key; it may have name, id and scale", field)
	})
	if err == nil && hasID == (c.Name != "") {
		err = llm.Invalid(field, "%s needs either name or id", field)
	}
	return c, err
}
