package grammar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"strconv"
	"strings"
)

const (
	maxDepth    = 64  // of a schema's text
	maxExponent = 300 // of a number in a schema
)

// kinds of JSON values, as bits: a schema allows a set of them. An integer is a number without a fraction, whatever it is written like.
type kinds uint8

const (
	null kinds = 1 << iota
	boolean
	integer
	fractional // a number that is not an integer
	text
	array
	object

	number   = integer | fractional
	anything = null | boolean | number | text | array | object
)

// A value is a JSON value that keeps the order of its members.
type value struct {
	kind   kinds // one of them
	truth  bool
	number *big.Rat
	text   string // of a string or a number
	items  []*value
	keys   []string
	member map[string]*value
	path   string // JSON pointer in the schema
}

// get is the member of an object, nil if there is none.
func (v *value) get(key string) *value {
	if v == nil {
		return nil
	}
	return v.member[key]
}

// parse reads a JSON text.
func parse(src []byte) (*value, error) {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	v, err := parseValue(d, "#", 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is text behind the value")
	}
	return v, nil
}

func parseValue(d *json.Decoder, path string, depth int) (*value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it nests deeper than %d", maxDepth)
	}
	t, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("not valid JSON: %w", err)
	}
	v := &value{path: path}
	switch t := t.(type) {
	case nil:
		v.kind = null
	case bool:
		v.kind, v.truth = boolean, t
	case string:
		v.kind, v.text = text, t
	case json.Number:
		return numberValue(t.String(), path)
	case json.Delim:
		if t == '[' {
			v.kind = array
			for i := 0; d.More(); i++ {
				item, err := parseValue(d, path+"/"+strconv.Itoa(i), depth+1)
				if err != nil {
					return nil, err
				}
				v.items = append(v.items, item)
			}
		} else {
			v.kind, v.member = object, map[string]*value{}
			for d.More() {
				k, err := d.Token()
				if err != nil {
					return nil, fmt.Errorf("not valid JSON: %w", err)
				}
				key, ok := k.(string)
				if !ok {
					return nil, errors.New("not valid JSON: a key that is no string")
				}
				item, err := parseValue(d, path+"/"+escapePointer(key), depth+1)
				if err != nil {
					return nil, err
				}
				if v.member[key] == nil {
					v.keys = append(v.keys, key)
				}
				v.member[key] = item
			}
		}
		if _, err := d.Token(); err != nil { // the closing one
			return nil, fmt.Errorf("not valid JSON: %w", err)
		}
	}
	return v, nil
}

func numberValue(s, path string) (*value, error) {
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		if e, err := strconv.Atoi(s[i+1:]); err != nil || e > maxExponent || e < -maxExponent {
			return nil, fmt.Errorf("the number %s is out of range", s)
		}
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return nil, fmt.Errorf("%q is not a number", s)
	}
	v := &value{kind: fractional, number: r, text: s, path: path}
	if r.IsInt() {
		v.kind = integer
		if n := r.Num().String(); len(n) <= maxIntegerDigits {
			v.text = n // 1.0 and 1e0, too
		}
	}
	return v, nil
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

func escapePointer(key string) string { return pointerEscapes.Replace(key) }

// appendJSON appends the value's text, without white space. With sorted members equal values have equal texts.
func (v *value) appendJSON(dst []byte) []byte {
	switch v.kind {
	case null:
		return append(dst, "null"...)
	case boolean:
		return strconv.AppendBool(dst, v.truth)
	case text:
		return appendQuoted(dst, v.text)
	case array:
		dst = append(dst, '[')
		for i, item := range v.items {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = item.appendJSON(dst)
		}
		return append(dst, ']')
	case object:
		dst = append(dst, '{')
		for i, k := range v.keys {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendQuoted(dst, k)
			dst = append(dst, ':')
			dst = v.member[k].appendJSON(dst)
		}
		return append(dst, '}')
	}
	return append(dst, v.text...)
}

// equal compares as JSON Schema does: numbers by their value, objects whatever the order of their members.
func (v *value) equal(w *value) bool {
	if v.kind != w.kind {
		return false
	}
	switch v.kind {
	case boolean:
		return v.truth == w.truth
	case text:
		return v.text == w.text
	case integer, fractional:
		return v.number.Cmp(w.number) == 0
	case array:
		if len(v.items) != len(w.items) {
			return false
		}
		for i := range v.items {
			if !v.items[i].equal(w.items[i]) {
				return false
			}
		}
	case object:
		if len(v.keys) != len(w.keys) {
			return false
		}
		for _, k := range v.keys {
			if w.member[k] == nil || !v.member[k].equal(w.member[k]) {
				return false
			}
		}
	}
	return true
}
