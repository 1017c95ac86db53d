package token

import (
	"fmt"
	"math"

	"kvasir/internal/gguf"
)

// ConfigFromGGUF reads the keys tokenizer.ggml.* of a model file. A tokenizer that New does not support is an
// ErrUnsupported, and a key that is missing or not of its type an ErrInvalid.
func ConfigFromGGUF(f *gguf.File) (Config, error) {
	r := keyReader{f: f}
	c := Config{Model: r.text("model", true), Pre: r.text("pre", false)}
	if r.err != nil {
		return Config{}, r.err
	}
	if c.Model == "gpt2" && c.Pre == "" {
		return Config{}, fmt.Errorf("%w: the file has no tokenizer.ggml.pre, which names the pre-tokenizer; convert the model again with newer software",
			ErrUnsupported)
	}
	if err := checkSupported(c.Model, c.Pre); err != nil {
		return Config{}, err
	}
	pre := preTokenizerOf(c.Model, c.Pre)
	c.Tokens, c.Types = r.texts("tokens"), r.types()
	bos, eos, unknown := None, None, None
	if c.Model == "llama" {
		c.Scores = r.scores()
		bos, eos, unknown = 1, 2, 0 // where the file does not say
	} else {
		c.Merges = r.texts("merges")
	}
	if pre.chars {
		c.AddSpacePrefix = r.flag("add_space_prefix", c.Model == "llama")
		if r.flag("remove_extra_whitespaces", false) {
			return Config{}, fmt.Errorf("%w: tokenizer.ggml.remove_extra_whitespaces is set (supported: texts as they are)", ErrUnsupported)
		}
		architecture, _ := f.String("general.architecture")
		c.StripAfter = c.Model == "llama" && architecture == "phi3"
	}
	c.BOS, c.EOS = r.id("bos_token_id", bos), r.id("eos_token_id", eos)
	c.EOT, c.EOM = r.id("eot_token_id", None), r.id("eom_token_id", None)
	c.Unknown, c.Pad = r.id("unknown_token_id", unknown), r.id("padding_token_id", None)
	for _, key := range []string{"fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id"} { // another file begins after these
		if id := r.id(key, None); id != None {
			c.EOG = append(c.EOG, id)
		}
	}
	c.AddBOS = r.flag("add_bos_token", pre.addBOS && c.BOS != None)
	if c.Model == "gemma4" && c.BOS != None {
		c.AddBOS = true // the first files said no, by mistake
	}
	c.AddEOS = r.flag("add_eos_token", false)
	if r.err != nil {
		return Config{}, r.err
	}
	return c, nil
}

// A keyReader reads keys below tokenizer.ggml. and remembers the first error.
type keyReader struct {
	f   *gguf.File
	err error
}

// want returns the full key; it notes an error if the key is there with another type, or is required and not there.
func (r *keyReader) want(name string, ok, required bool, kind string) {
	if ok || r.err != nil {
		return
	}
	key := "tokenizer.ggml." + name
	if got, there := r.f.TypeOf(key); there {
		r.err = fmt.Errorf("%w: %s is not %s but %s", ErrInvalid, key, kind, got)
	} else if required {
		r.err = fmt.Errorf("%w: the file has no %s", ErrInvalid, key)
	}
}

func (r *keyReader) text(name string, required bool) string {
	s, ok := r.f.String("tokenizer.ggml." + name)
	r.want(name, ok, required, "a string")
	return s
}

func (r *keyReader) texts(name string) []string {
	s, ok := r.f.Strings("tokenizer.ggml." + name)
	r.want(name, ok, true, "an array of strings")
	return s
}

func (r *keyReader) flag(name string, absent bool) bool {
	v, ok := r.f.Bool("tokenizer.ggml." + name)
	r.want(name, ok, false, "a bool")
	if !ok {
		return absent
	}
	return v
}

func (r *keyReader) id(name string, absent int32) int32 {
	v, ok := r.f.Int("tokenizer.ggml." + name)
	r.want(name, ok, false, "an integer")
	switch {
	case !ok:
		return absent
	case v == math.MaxUint32: // how -1 looks as a uint32
		return None
	case v < int64(None) || v > math.MaxInt32:
		if r.err == nil {
			r.err = fmt.Errorf("%w: tokenizer.ggml.%s is %d, not a token id", ErrInvalid, name, v)
		}
		return None
	}
	return int32(v)
}

func (r *keyReader) types() []int32 {
	list, ok := r.f.Ints("tokenizer.ggml.token_type")
	r.want("token_type", ok, true, "an array of integers")
	types := make([]int32, len(list))
	for i, v := range list {
		if v < 0 || v > math.MaxInt32 {
			v = 0 // no type: New says so
		}
		types[i] = int32(v)
	}
	return types
}

func (r *keyReader) scores() []float32 {
	list, ok := r.f.Floats("tokenizer.ggml.scores")
	r.want("scores", ok, true, "an array of numbers")
	scores := make([]float32, len(list))
	for i, v := range list {
		scores[i] = float32(v)
	}
	return scores
}
