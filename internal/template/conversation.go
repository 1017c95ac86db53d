package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ardanlabs/jinja"

	"kvasir/internal/llm"
)

// A node is a value that a request brought, with its keys in the order in which they were written: templates print tools and
// arguments as JSON. Its texts are leaves, which come with marks when spans are looked for.
type node struct {
	value jinja.Value // of what is neither a text nor has items
	text  *leaf
	items []node // of a list, or of a dict with its keys
	keys  []leaf
	kind  nodeKind
}

type nodeKind uint8

const (
	scalarNode nodeKind = iota
	textNode
	listNode
	dictNode
)

// A leaf is a text. Its number is its place among the fields, -1 if it is none.
type leaf struct {
	text   string
	number int
}

// conversation is what is rendered: the messages with all their fields, and the tools.
type conversation struct {
	messages []node
	tools    *node
	args     map[string]jinja.Value
	fields   []field // texts that participants wrote
	size     int
	in       Input
}

// newConversation reads a request.
func newConversation(in Input) (*conversation, error) {
	c := &conversation{in: in, messages: make([]node, len(in.Messages)), args: map[string]jinja.Value{}}
	if len(in.Fields) > len(in.Messages) {
		return nil, fmt.Errorf("chat template: fields of %d messages, but %d messages", len(in.Fields), len(in.Messages))
	}
	for i, m := range in.Messages {
		n := node{kind: dictNode}
		n.put("role", node{kind: textNode, text: &leaf{m.Role, -1}})
		n.put("content", c.leaf(i, "content", "", m.Content))
		if m.Name != "" {
			n.put("name", c.leaf(i, "name", "", m.Name))
		}
		c.size += len(m.Role) + len(m.Content) + len(m.Name) + 32
		if i < len(in.Fields) && len(in.Fields[i]) > 0 {
			more, err := c.parse(in.Fields[i], i, "")
			if err == nil && more.kind != dictNode {
				err = errors.New("not an object")
			}
			if err != nil {
				return nil, llm.Invalid("messages", "messages[%d]: %v", i, err)
			}
			for k, item := range more.items {
				n.put(more.keys[k].text, item)
			}
		}
		c.messages[i] = n
	}
	if len(in.Tools) > 0 {
		n, err := c.parse(in.Tools, -1, "tools")
		if err != nil {
			return nil, llm.Invalid("tools", "tools: %v", err)
		}
		c.tools = &n
	}
	return c, c.readArgs()
}

// put sets a dict's entry; a later one of the same name takes the earlier one's place.
func (n *node) put(key string, item node) {
	for i := range n.keys {
		if n.keys[i].text == key {
			n.items[i] = item
			return
		}
	}
	n.keys, n.items = append(n.keys, leaf{key, -1}), append(n.items, item)
}

// prose are the fields whose texts are looked for whatever they are. Other texts, such as names, types and ids, are looked
// for only if they are no plain words: templates compare them, and a plain word is no special token.
var prose = map[string]bool{"content": true, "name": true, "reasoning_content": true, "reasoning": true, "thinking": true}

// leaf makes a node of a text in a field of a message, below the given key of the field.
func (c *conversation) leaf(message int, name, key, text string) node {
	return node{kind: textNode, text: &leaf{text, c.number(message, name, text, prose[name] && key != "type" && key != "role")}}
}

func (c *conversation) number(message int, name, text string, always bool) int {
	if text == "" || !always && plainWord(text) {
		return -1
	}
	c.fields = append(c.fields, field{message, name, []piece{{text: text}}})
	return len(c.fields) - 1
}

// plainWord reports whether a text has nothing but ASCII letters, digits and -_.: in it.
func plainWord(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case b|0x20 >= 'a' && b|0x20 <= 'z', b >= '0' && b <= '9', b == '-', b == '_', b == '.', b == ':':
		default:
			return false
		}
	}
	return true
}

// parse reads JSON. With an empty name the object's own keys are the fields' names.
func (c *conversation) parse(raw json.RawMessage, message int, name string) (node, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	n, err := c.next(d, message, name, "", 0)
	if err != nil {
		return n, fmt.Errorf("%w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return n, errors.New("more than one JSON value")
	}
	c.size += len(raw)
	return n, nil
}

func (c *conversation) next(d *json.Decoder, message int, name, key string, depth int) (node, error) {
	if depth > maxNesting {
		return node{}, fmt.Errorf("values are nested more than %d deep", maxNesting)
	}
	t, err := d.Token()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return node{}, err
	}
	switch t := t.(type) {
	case string:
		return c.leaf(message, name, key, t), nil
	case json.Number:
		v, err := jsonNumber(t)
		return node{value: v}, err
	case bool:
		return node{value: jinja.NewBool(t)}, nil
	case json.Delim:
		n := node{kind: listNode}
		if t == '{' {
			n.kind = dictNode
		}
		seen := map[string]int{}
		for d.More() {
			if n.kind == listNode {
				item, err := c.next(d, message, name, key, depth+1)
				if err != nil {
					return node{}, err
				}
				n.items = append(n.items, item)
				continue
			}
			t, err := d.Token()
			if err != nil {
				return node{}, err
			}
			k := t.(string) // the decoder takes no other keys
			inner := name
			if name == "" && depth == 0 {
				inner = k
			}
			item, err := c.next(d, message, inner, k, depth+1)
			if err != nil {
				return node{}, err
			}
			if at, twice := seen[k]; twice {
				n.items[at] = item
				continue
			}
			seen[k] = len(n.keys)
			n.keys, n.items = append(n.keys, leaf{k, c.number(message, inner, k, false)}), append(n.items, item)
		}
		_, err := d.Token()
		return n, err
	}
	return node{value: jinja.None()}, nil
}

// jsonNumber is what Python reads: an integer unless there is a point or an exponent.
func jsonNumber(t json.Number) (jinja.Value, error) {
	if !strings.ContainsAny(string(t), ".eE") {
		i, err := t.Int64()
		if err != nil {
			return undefined(fmt.Errorf("the integer %s is too large (supported: 64 bits)", t))
		}
		return jinja.NewInt(i), nil
	}
	f, err := t.Float64()
	if err != nil {
		return undefined(fmt.Errorf("the number %s is too large", t))
	}
	return jinja.NewFloat(f), nil
}

// build makes the engine's value, with the fields' marks.
func (n *node) build(fields []field) jinja.Value {
	switch n.kind {
	case textNode:
		return jinja.NewString(n.text.marked(fields))
	case listNode:
		items := make([]jinja.Value, len(n.items))
		for i := range n.items {
			items[i] = n.items[i].build(fields)
		}
		return jinja.NewList(items)
	case dictNode:
		v := jinja.NewDict()
		d := v.AsDict()
		for i := range n.items {
			d.Set(n.keys[i].marked(fields), n.items[i].build(fields))
		}
		return v
	}
	return n.value
}

func (l *leaf) marked(fields []field) string {
	if l.number < 0 || fields == nil {
		return l.text
	}
	return fields[l.number].marked()
}

// readArgs converts the further variables.
func (c *conversation) readArgs() error {
	for k, v := range c.in.Args {
		switch k {
		case "messages", "add_generation_prompt", "bos_token", "eos_token":
			return llm.Invalid("chat_template_kwargs", "chat_template_kwargs cannot set %q", k)
		}
		if strings.HasPrefix(k, "__") {
			return llm.Invalid("chat_template_kwargs", "chat_template_kwargs: the name %q is reserved", k)
		}
		x, err := value(v)
		if err != nil {
			return llm.Invalid("chat_template_kwargs", "chat_template_kwargs: %s: %v", k, err)
		}
		left := 4 * baseSize
		if !measure(x, &left, 0, nil) {
			return llm.Invalid("chat_template_kwargs", "chat_template_kwargs: %s is too large or nested too deeply", k)
		}
		c.size += 4*baseSize - left
		c.args[k] = x
	}
	return nil
}
