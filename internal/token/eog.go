package token

// eogTexts are control tokens that end a turn whatever the file's metadata say: many files name only one of several.
// The last three lines are fill-in-the-middle separators, after which another file would begin. After llama.cpp.
var eogTexts = []string{
	"<|eot_id|>", "<|im_end|>", "<|end|>", "<|eom_id|>", "<|endoftext|>", "<|end_of_text|>", "<end_of_turn>",
	"<EOT>", "_<EOT>", "[EOT]", "[EOS]", "</s>", "<eos>", "<end_of_utterance>", "<｜end▁of▁sentence｜>",
	"<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<turn|>", "<|tool_response>", "[e~[",
	"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]",
	"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>",
	"<|file_sep|>",
}

// keepSpace are the special tokens that Config.StripAfter does not hold for.
var keepSpace = map[string]bool{"<s>": true, "<unk>": true, "<|endoftext|>": true}

// markKinds notes which tokens end a generation and which take the white space behind them.
func (t *Tokenizer) markKinds() {
	for _, s := range eogTexts {
		// Gemma has </s> as the end of struck-through HTML, a user-defined token.
		if id, ok := t.named[s]; ok && (s != "</s>" || t.kind[id]&kindControl != 0) {
			t.kind[id] |= kindEOG
		}
	}
	for _, id := range append([]int32{t.cfg.EOS, t.cfg.EOT, t.cfg.EOM}, t.cfg.EOG...) {
		if id != None {
			t.kind[id] |= kindEOG
		}
	}
	if t.cfg.StripAfter {
		for s, id := range t.named {
			if !keepSpace[s] {
				t.kind[id] |= kindStrip
			}
		}
	}
}
