package token

import (
	"fmt"
	"slices"
	"strings"
)

// A preTokenizer says how text becomes pieces. It has a split, or stages, or chars.
type preTokenizer struct {
	split  splitFunc
	stages []stage
	chars  bool    // none: pieces end where no merge can cross (spm.go)
	cut    cutRule // where a text may be cut into chunks (chunk.go)
	whole  bool    // a piece that is a token is that token
	addBOS bool    // unless the file says otherwise
}

// preTokenizers are the values of tokenizer.ggml.pre, as llama.cpp's converter writes them. Names stand together with what the models
// of that name use: where llama.cpp's own expressions differ from the models' tokenizer.json, the latter counts.
var preTokenizers = func() map[string]preTokenizer {
	all := map[string]preTokenizer{}
	add := func(p preTokenizer, names string) {
		for _, name := range strings.Fields(names) {
			all[name] = p
		}
	}
	add(preTokenizer{split: splitGPT2}, "gpt2 gpt-2 default phi-2 mpt olmo jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum")
	add(preTokenizer{split: splitSmolLM}, "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2")
	add(preTokenizer{split: splitLlama3, whole: true, addBOS: true}, "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2")
	add(preTokenizer{split: splitLlama3}, "dbrx smaug-bpe chatglm-bpe")
	add(preTokenizer{split: splitLlama3, whole: true}, "glm4 glm5")
	add(preTokenizer{stages: []stage{threeNumbers, splitLlama3}, whole: true}, "minicpm5")
	add(preTokenizer{split: splitQwen2}, "qwen2 deepseek-r1-qwen kormo megrez stablelm2 hunyuan solar-open grok-2 bailingmoe bailingmoe2 llada-moe")
	add(preTokenizer{split: splitQwen35}, "qwen35")
	add(preTokenizer{split: splitSeedCoder}, "seed-coder")
	add(preTokenizer{split: splitTekken, whole: true, addBOS: true}, "tekken")
	add(preTokenizer{split: splitO200k}, "gpt-4o llama4 kanana2 talkie minimax-m2")
	add(preTokenizer{stages: deepseekLLM, cut: cutLines}, "deepseek-llm")
	add(preTokenizer{stages: deepseekCoder, cut: cutLines}, "deepseek-coder")
	add(preTokenizer{stages: deepseekV3}, "deepseek-v3 hunyuan-dense joyai-llm hy_v4")
	add(preTokenizer{stages: falcon}, "falcon")
	add(preTokenizer{chars: true, addBOS: true}, "gemma4")
	return all
}()

// preTokenizerOf returns what checkSupported has found to be there.
func preTokenizerOf(model, pre string) preTokenizer {
	if model == "gpt2" {
		return preTokenizers[pre]
	}
	return preTokenizer{chars: true, addBOS: true}
}

func checkSupported(model, pre string) error {
	switch model {
	case "llama", "gemma4":
		return nil
	case "gpt2":
	default:
		return fmt.Errorf("%w: model %q (supported: gemma4, gpt2, llama)", ErrUnsupported, model)
	}
	if _, ok := preTokenizers[pre]; !ok {
		names := make([]string, 0, len(preTokenizers))
		for name := range preTokenizers {
			names = append(names, name)
		}
		slices.Sort(names)
		return fmt.Errorf("%w: pre-tokenizer %q (supported: %s)", ErrUnsupported, pre, strings.Join(names, ", "))
	}
	return nil
}
