package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"kvasir/internal/gguf"
	"kvasir/internal/model"
	"kvasir/internal/template"
	"kvasir/internal/token"
)

// A Summary is what a model file says of itself.
type Summary struct {
	Arch    string // general.architecture
	Quant   string // as files are named by it, e.g. "Q4_K_M"
	Context int    // tokens that the model was made for; 0: it does not say
	Bytes   int64  // of all parts
}

// Describe reads the head of the model file at path. If the file can be read but not served here, the error is not of kind gguf.ErrFormat and the Summary
// is valid all the same. It looks at architecture, weight types, tokenizer and template, not at every tensor's shape: Open may still refuse the model.
func Describe(path string) (Summary, error) {
	f, err := gguf.Open(path)
	if err != nil {
		return Summary{}, err
	}
	defer f.Close()
	s := Summary{Quant: fileType(f), Bytes: f.Size()}
	var ok bool
	if s.Arch, ok = f.String("general.architecture"); !ok {
		return s, fmt.Errorf("the file has no general.architecture: %w", gguf.ErrFormat)
	}
	if n, ok := f.Uint(s.Arch + ".context_length"); ok && n < 1<<31 {
		s.Context = int(n)
	}
	return s, servable(f, s.Arch)
}

func servable(f *gguf.File, arch string) error {
	if !slices.Contains(model.Architectures, arch) {
		return fmt.Errorf("architecture %q: %w; known: %s", arch, model.ErrUnsupported, strings.Join(model.Architectures, ", "))
	}
	for _, t := range f.Tensors {
		if err := gguf.Dequantize(t.Type, nil, nil); errors.Is(err, gguf.ErrType) {
			return fmt.Errorf("weights of type %s: %w", t.Type, err)
		}
	}
	if _, err := token.ConfigFromGGUF(f); err != nil {
		return err
	}
	if src, ok := f.String("tokenizer.chat_template"); ok && src != "" {
		if _, err := template.New(src, template.Options{}); err != nil {
			return fmt.Errorf("the model's chat template: %w", err)
		}
	}
	return nil
}

// fileTypes are llama.cpp's numbers of general.file_type: how a file's weights are quantised as a whole.
var fileTypes = map[uint64]string{
	0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M",
	16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M",
	28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0", 38: "MXFP4", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}

// fileType names the quantisation by what the file says, else by the type of most of its weights.
func fileType(f *gguf.File) string {
	if n, ok := f.Uint("general.file_type"); ok && fileTypes[n] != "" {
		return fileTypes[n]
	}
	return commonType(f)
}
