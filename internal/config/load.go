package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// maxFile bounds a YAML file: a real one has some kilobytes.
const maxFile = 1 << 20

// Load gives every flag that Bind put in fs, and that the command line did not set, its value from the environment or
// else from the YAML file. Call it after fs was parsed. An empty environment variable counts as not set. A key of the
// file that is no setting is an error, a setting that this command does not use is not.
func Load(flags *pflag.FlagSet) error {
	return load(flags, os.LookupEnv)
}

func load(flags *pflag.FlagSet, lookup func(string) (string, bool)) error {
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	apply := func(name, source string, v value) error {
		f := flags.Lookup(name)
		if f == nil || f.Annotations[boundKey] == nil || given[name] {
			return nil
		}
		given[name] = true
		if err := set(flags, f, v); err != nil {
			return fmt.Errorf("%s: %w", source, err)
		}
		return flags.SetAnnotation(name, sourceKey, []string{source})
	}
	for _, st := range settings {
		if v, ok := lookup(Env(st.name)); ok && v != "" {
			if err := apply(st.name, Env(st.name), value{text: v}); err != nil {
				return err
			}
		}
	}

	name, wanted := "", false
	if f := flags.Lookup("config"); f != nil && f.Annotations[boundKey] != nil {
		name = f.Value.String()
		wanted = name != ""
	}
	if !wanted {
		var err error
		if name, err = DefaultFile(); err != nil {
			return nil // no home directory, so no file
		}
	}
	file, err := os.Open(name)
	if !wanted && errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("settings file (%s): %w", source(flags, "config"), err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return fmt.Errorf("settings file: %w", err)
	}
	if len(data) > maxFile {
		return fmt.Errorf("settings file %s: larger than %s", name, Size(maxFile))
	}
	return readYAML(name, data, apply)
}

// value is what the environment or a file gives for one setting.
type value struct {
	text   string
	items  []string // in place of text if isList
	isList bool
}

// set replaces a flag's value, a list as a whole.
func set(flags *pflag.FlagSet, f *pflag.Flag, v value) error {
	if v.isList {
		f.Changed = true
		return f.Value.(pflag.SliceValue).Replace(v.items)
	}
	err := flags.Set(f.Name, v.text)
	// The flag library's wording would name a flag that nobody used.
	var inv *pflag.InvalidValueError
	if errors.As(err, &inv) {
		err = fmt.Errorf("%q: %w", v.text, inv.Unwrap())
	}
	return err
}

// source names where the value of a setting came from.
func source(flags *pflag.FlagSet, name string) string {
	if flags != nil {
		if f := flags.Lookup(name); f != nil {
			if a := f.Annotations[sourceKey]; len(a) > 0 {
				return a[0]
			}
			if !f.Changed {
				return "default of --" + name
			}
		}
	}
	return "--" + name
}

// readYAML calls apply for every key of a YAML mapping with its values and where it stands.
func readYAML(name string, data []byte, apply func(name, source string, v value) error) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil // empty, or only comments
	} else if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: want one YAML document", name)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return fmt.Errorf("%s: want a mapping of settings", name)
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil
	}
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("%s:%d: want a mapping of settings (key: value)", name, root.Line)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i]
		at := fmt.Sprintf("%s:%d", name, key.Line)
		if key.Kind != yaml.ScalarNode || !known(key.Value) {
			return fmt.Errorf("%s: unknown setting %q%s", at, key.Value, nearest(key.Value))
		}
		if key.Value == "config" {
			return fmt.Errorf("%s: config cannot be set in the file itself", at)
		}
		if line, twice := seen[key.Value]; twice {
			return fmt.Errorf("%s: %s is already set on line %d", at, key.Value, line)
		}
		seen[key.Value] = key.Line
		v, err := decode(key.Value, root.Content[i+1])
		if err != nil {
			return fmt.Errorf("%s: %s: %w", at, key.Value, err)
		}
		if err := apply(key.Value, at+": "+key.Value, v); err != nil {
			return err
		}
	}
	return nil
}

// onOff are the settings that are on or off.
var onOff = map[string]bool{"cache": true, "drafts": true, "folders": true}

// decode returns the value of a scalar, or of a list for settings that are lists.
func decode(name string, n *yaml.Node) (value, error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return value{}, errors.New("has no value")
	case n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && onOff[name]:
		// Some readers of YAML take on and off for booleans, so people write either.
		var on bool
		if err := n.Decode(&on); err != nil {
			return value{}, err
		}
		return value{text: map[bool]string{true: "on", false: "off"}[on]}, nil
	case n.Kind == yaml.ScalarNode:
		return value{text: n.Value}, nil
	case n.Kind == yaml.SequenceNode && isList(name):
		v := value{isList: true, items: []string{}}
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode || c.Tag == "!!null" {
				return value{}, errors.New("want a list of plain values")
			}
			v.items = append(v.items, c.Value)
		}
		return v, nil
	case n.Kind == yaml.MappingNode && (name == "models" || name == "lora"):
		v := value{isList: true, items: []string{}}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if k, c := n.Content[i], n.Content[i+1]; k.Kind == yaml.ScalarNode && c.Kind == yaml.ScalarNode && c.Tag != "!!null" {
				v.items = append(v.items, k.Value+"="+c.Value)
				continue
			}
			return value{}, errors.New("want a mapping of names to plain values")
		}
		return v, nil
	case isList(name):
		return value{}, errors.New("want a value or a list of values")
	}
	return value{}, errors.New("want a single value")
}

func isList(name string) bool {
	var s Serve
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	Bind(flags, &s)
	_, ok := flags.Lookup(name).Value.(pflag.SliceValue)
	return ok
}

func known(name string) bool {
	for _, st := range settings {
		if st.name == name {
			return true
		}
	}
	return false
}

// nearest proposes the setting that name was probably meant to be, if one is near.
func nearest(name string) string {
	norm := strings.ToLower(strings.NewReplacer("_", "-", " ", "-").Replace(name))
	best, cost := "", 4
	for _, st := range settings {
		if d := distance(norm, st.name); d < cost && d < len(st.name) {
			best, cost = st.name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			sub := diag
			if a[i] != b[j] {
				sub++
			}
			diag = row[j+1]
			row[j+1] = min(sub, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
