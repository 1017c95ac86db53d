// Package token turns text into token ids and back, from the vocabulary that a GGUF file carries: byte-level BPE as GPT-2,
// Llama 3, Qwen and DeepSeek use it, and SentencePiece's BPE over characters with bytes for what has no token, as Llama 2,
// Mistral, Phi-3 and Gemma use it.
//
// Text is first cut at special tokens, then into pieces: by the model's pre-tokenizer (pre.go, split.go), or where no merge
// can cross (spm.go). Each piece is merged by rank (bpe.go). A Memo keeps the ids of parts of long texts, to be used when they
// come again. No Unicode normalisation is applied, so that decoding gives back the bytes that were encoded; only U+2581, which
// SentencePiece writes for a space, comes back as one.
package token

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrUnsupported is wrapped by errors about a tokenizer model or pre-tokenizer that this package does not have.
var ErrUnsupported = errors.New("unsupported tokenizer")

// ErrInvalid is wrapped by errors about a vocabulary that contradicts itself.
var ErrInvalid = errors.New("invalid tokenizer data")

// Token types, as in the GGUF key tokenizer.ggml.token_type.
const (
	TypeNormal      int32 = 1
	TypeUnknown     int32 = 2
	TypeControl     int32 = 3
	TypeUserDefined int32 = 4
	TypeUnused      int32 = 5
	TypeByte        int32 = 6
)

// None is the id of a special token that a model does not have.
const None int32 = -1

// Config describes a tokenizer. Ids that the model does not have are None, not 0.
type Config struct {
	Model  string    // the algorithm: "gpt2" (byte-level BPE), "llama" (SentencePiece BPE) or "gemma4" (merges over characters)
	Pre    string    // the pre-tokenizer of gpt2: see New
	Tokens []string  // by id; normal tokens of gpt2 in GPT-2's byte alphabet, of the others with U+2581 for a space
	Types  []int32   // by id
	Merges []string  // of gpt2 and gemma4: "left right", best first
	Scores []float32 // of llama, by id: of two tokens that could be made, that with the higher score is

	BOS, EOS, EOT, EOM int32
	Unknown, Pad       int32
	EOG                []int32 // more ids that end a generation
	AddBOS, AddEOS     bool    // the model wants BOS before a prompt, EOS behind a text
	AddSpacePrefix     bool    // a space goes before a text, and before what follows a special token; not of gpt2
	StripAfter         bool    // white space behind a special token belongs to it, but for <s>, <unk> and <|endoftext|> (Phi-3)
}

// A Tokenizer is immutable and safe for concurrent use.
type Tokenizer struct {
	cfg    Config     // without Tokens, Types and Merges once New is done
	split  splitFunc  // of one stage
	stages []stage    // of several, and then split is nil
	cut    cutRule    // where a text may be cut into chunks
	whole  bool       // a piece that is a token is not merged from its bytes
	chars  *charTable // not nil: merges begin with characters, not with bytes

	text   string           // the bytes of all tokens, one after another
	raw    []byte           // the same, for Bytes
	offset []uint32         // token id is text[offset[id]:offset[id+1]]
	kind   []uint8          // by id: flags below
	named  map[string]int32 // special tokens by text
	words  wordTable        // normal tokens by bytes: what ordinary text may become

	byteID   [256]int32 // None where the vocabulary lacks the byte
	merges   mergeTable
	specials specialSet
}

const (
	kindControl uint8 = 1 << iota // control or unknown: made by ParseSpecial only, hidden unless asked for
	kindUser                      // user-defined: matched in every text
	kindEOG
	kindStrip // takes the white space that follows
)

// New builds a tokenizer. The model must be gpt2, llama or gemma4, and the pre-tokenizer of gpt2 one of those that pre.go
// names; otherwise the error is an ErrUnsupported that lists them. A vocabulary that contradicts itself is an ErrInvalid.
func New(c Config) (*Tokenizer, error) {
	if err := checkSupported(c.Model, c.Pre); err != nil {
		return nil, err
	}
	if len(c.Tokens) == 0 {
		return nil, fmt.Errorf("%w: no tokens", ErrInvalid)
	}
	if len(c.Types) != len(c.Tokens) {
		return nil, fmt.Errorf("%w: %d tokens but %d token types", ErrInvalid, len(c.Tokens), len(c.Types))
	}
	t := &Tokenizer{cfg: c}
	if pre := preTokenizerOf(c.Model, c.Pre); pre.chars {
		t.chars = newCharTable(len(c.Tokens))
		t.split, t.cut = t.splitChars, cutPairs
	} else {
		t.split, t.stages, t.cut, t.whole = pre.split, pre.stages, pre.cut, pre.whole
	}
	if err := t.checkIDs(); err != nil {
		return nil, err
	}
	if err := t.buildVocab(); err != nil {
		return nil, err
	}
	build := t.buildMerges
	if c.Model == "llama" {
		build = t.buildScored
	}
	if err := build(); err != nil {
		return nil, err
	}
	t.markKinds()
	t.cfg.Tokens, t.cfg.Types, t.cfg.Merges, t.cfg.Scores = nil, nil, nil, nil
	return t, nil
}

// checkIDs verifies that the named ids lie in the vocabulary.
func (t *Tokenizer) checkIDs() error {
	c := &t.cfg
	type namedID struct {
		name string
		id   int32
	}
	named := []namedID{
		{"BOS", c.BOS}, {"EOS", c.EOS}, {"EOT", c.EOT}, {"EOM", c.EOM}, {"unknown", c.Unknown}, {"padding", c.Pad},
	}
	for _, id := range c.EOG {
		named = append(named, namedID{"end-of-generation", id})
	}
	for _, n := range named {
		if n.id < None || int(n.id) >= len(c.Tokens) {
			return fmt.Errorf("%w: %s token id %d is outside the vocabulary of %d", ErrInvalid, n.name, n.id, len(c.Tokens))
		}
	}
	if c.AddBOS && c.BOS == None || c.AddEOS && c.EOS == None {
		return fmt.Errorf("%w: the model wants a BOS or EOS token but names none", ErrInvalid)
	}
	return nil
}

// buildVocab fills text, kind, named, words, byteID and specials. Of tokens with the same text the first counts.
func (t *Tokenizer) buildVocab() error {
	n := len(t.cfg.Tokens)
	t.offset = make([]uint32, n+1)
	t.kind = make([]uint8, n)
	t.named = make(map[string]int32)
	total := 0
	for _, s := range t.cfg.Tokens {
		total += len(s)
	}
	if total > 1<<31 {
		return fmt.Errorf("%w: %d bytes of token text", ErrInvalid, total)
	}
	t.raw = make([]byte, 0, total) // a token's bytes are never longer than its text
	for id, s := range t.cfg.Tokens {
		var err error
		if t.raw, err = t.appendTokenBytes(t.raw, int32(id), s); err != nil {
			return err
		}
		t.offset[id+1] = uint32(len(t.raw))
	}
	t.text = string(t.raw)
	t.words.init(t.text, t.offset)
	for i := range t.cfg.Tokens {
		id := int32(i)
		switch t.cfg.Types[id] {
		case TypeControl, TypeUnknown:
			t.kind[id] |= kindControl
		case TypeUserDefined:
			t.kind[id] |= kindUser
		case TypeNormal:
			if t.words.add(id); t.words.crowded {
				return errCrowded
			}
			continue
		default:
			continue
		}
		if _, ok := t.named[t.tokenText(id)]; !ok {
			t.named[t.tokenText(id)] = id
		}
		t.specials.add(t.tokenText(id), id)
	}
	for b := range t.byteID {
		t.byteID[b] = None
		if t.chars == nil {
			t.byteID[b] = t.words.get(string([]byte{byte(b)}))
		}
	}
	for id, typ := range t.cfg.Types { // byte tokens stand in for bytes that have no normal token
		if typ == TypeByte {
			if b := t.tokenText(int32(id)); t.byteID[b[0]] == None {
				t.byteID[b[0]] = int32(id)
			}
		}
	}
	if t.chars != nil {
		return t.buildChars()
	}
	return nil
}

// appendTokenBytes appends what token id, written s, stands for.
func (t *Tokenizer) appendTokenBytes(dst []byte, id int32, s string) ([]byte, error) {
	typ := t.cfg.Types[id]
	if t.chars != nil && (typ == TypeNormal || typ == TypeUserDefined || typ == TypeUnused) {
		return append(dst, strings.ReplaceAll(s, spaceMark, " ")...), nil
	}
	switch typ {
	case TypeUnknown, TypeControl, TypeUserDefined:
		return append(dst, s...), nil
	case TypeByte:
		if len(s) == len("<0xFF>") && s[:3] == "<0x" && s[5] == '>' {
			if b, err := strconv.ParseUint(s[3:5], 16, 8); err == nil {
				return append(dst, byte(b)), nil
			}
		}
		return nil, fmt.Errorf("%w: byte token %d is written %q, not as <0xFF>", ErrInvalid, id, s)
	case TypeNormal, TypeUnused:
		start := len(dst)
		for _, r := range s {
			b, ok := alphabetByte(r)
			if !ok { // not in the byte alphabet at all: the text stands for itself
				return append(dst[:start], s...), nil
			}
			dst = append(dst, b)
		}
		return dst, nil
	default:
		return nil, fmt.Errorf("%w: token %d has the unknown type %d", ErrInvalid, id, typ)
	}
}

// alphabetByte is the inverse of GPT-2's byte alphabet (bytes_to_unicode in its encoder.py): printable Latin-1 stands
// for itself, and the other 68 bytes, in order, are U+0100 onwards.
func alphabetByte(r rune) (byte, bool) {
	switch {
	case r >= '!' && r <= '~', r >= 0xA1 && r <= 0xAC, r >= 0xAE && r <= 0xFF:
		return byte(r), true
	case r < 0x100:
		return 0, false
	case r <= 0x120:
		return byte(r - 0x100), true // 0x00 to 0x20
	case r <= 0x142:
		return byte(r - 0x121 + 0x7F), true // 0x7F to 0xA0
	case r == 0x143:
		return 0xAD, true
	}
	return 0, false
}

func (t *Tokenizer) tokenText(id int32) string { return t.text[t.offset[id]:t.offset[id+1]] }

func (t *Tokenizer) has(id int32, kind uint8) bool {
	return uint32(id) < uint32(len(t.kind)) && t.kind[id]&kind != 0
}

// Bytes returns what token id stands for; for special tokens that is the text they are written as. The slice is the
// tokenizer's own and must not be changed; it is nil if there is no such token.
func (t *Tokenizer) Bytes(id int32) []byte {
	if uint32(id) >= uint32(len(t.kind)) {
		return nil
	}
	lo, hi := t.offset[id], t.offset[id+1]
	return t.raw[lo:hi:hi]
}

// Vocab returns the number of ids.
func (t *Tokenizer) Vocab() int { return len(t.kind) }

// IsControl reports whether id is a token that text can never become unless special tokens are parsed.
func (t *Tokenizer) IsControl(id int32) bool { return t.has(id, kindControl) }

// IsEOG reports whether id ends a generation.
func (t *Tokenizer) IsEOG(id int32) bool { return t.has(id, kindEOG) }

// BOS returns the token that begins a sequence, or None.
func (t *Tokenizer) BOS() int32 { return t.cfg.BOS }

// EOS returns the token that ends a sequence, or None.
func (t *Tokenizer) EOS() int32 { return t.cfg.EOS }

// AddBOS reports whether the model wants BOS before a prompt.
func (t *Tokenizer) AddBOS() bool { return t.cfg.AddBOS }

// AddEOS reports whether the model wants EOS behind a text that is whole.
func (t *Tokenizer) AddEOS() bool { return t.cfg.AddEOS }

// Lookup finds a token by the text it stands for: a special token such as <|im_end|>, or else a normal one.
func (t *Tokenizer) Lookup(text string) (int32, bool) {
	id, ok := t.named[text]
	if !ok {
		id = t.words.get(text)
	}
	return id, id != None
}
