package token

import "slices"

// A Range is a range of bytes of a text, from Start up to but not including End.
type Range struct{ Start, End int }

// Options say how a text is encoded. The zero value takes it literally, with nothing added.
type Options struct {
	AddBOS       bool // put BOS first if the model wants it (Config.AddBOS)
	AddEOS       bool // put EOS last if the model wants it (Config.AddEOS)
	ParseSpecial bool // control tokens written out in the text, such as <|im_end|>, become those tokens

	// NoSpecial are parts of the text, such as what a user wrote, in which ParseSpecial does not hold: a control token
	// that touches one of them with only a byte stays text. Cutting the text into pieces is not affected.
	NoSpecial []Range
}

// Encode appends the ids of text to dst. Any bytes are allowed; those that are no UTF-8 are encoded byte by byte.
// Special tokens are found leftmost and then longest first. User-defined tokens are found in every part of every text,
// as they are part of the language that a model has learned; control tokens only where Options allow.
//
// Bytes that the vocabulary has no token for are left out (SmolLM 2 lacks six control characters and the bytes 0xF1 and
// 0xF2 among those that occur in UTF-8). All other text is given back by Decode, but for the white space that a special token
// takes (Config.StripAfter) and for U+2581, which is a space for SentencePiece.
func (t *Tokenizer) Encode(dst []int32, text string, o Options) []int32 {
	return t.encode(dst, text, o, nil)
}

// An appender appends the ids of a part of a text, one without special tokens between two of them. It is not empty; open says
// that the text ends with it.
type appender func(dst []int32, part string, open bool) []int32

// encode is Encode with another way to append the ids of a part without special tokens, if part is not nil.
func (t *Tokenizer) encode(dst []int32, text string, o Options, part appender) []int32 {
	if part == nil {
		part = func(dst []int32, text string, _ bool) []int32 {
			if t.cfg.AddSpacePrefix {
				return t.appendPrefixed(dst, text)
			}
			return t.appendText(dst, text)
		}
	}
	if o.AddBOS && t.cfg.AddBOS {
		dst = append(dst, t.cfg.BOS)
	}
	closed := sorted(o.NoSpecial)
	allowed := func(id int32, start, end int) bool {
		if t.kind[id]&kindUser != 0 {
			return true
		}
		if !o.ParseSpecial {
			return false
		}
		for len(closed) > 0 && closed[0].End <= start { // start only grows
			closed = closed[1:]
		}
		return len(closed) == 0 || closed[0].Start >= end
	}
	done := 0
	for i := t.specials.candidate(text, 0); i < len(text); {
		id, end := t.specials.match(text, i, allowed)
		if id == None {
			i = t.specials.candidate(text, i+1)
			continue
		}
		if i > done {
			dst = part(dst, text[done:i], false)
		}
		dst = append(dst, id)
		if t.kind[id]&kindStrip != 0 {
			end = skip(text, end, space)
		}
		done = end
		i = t.specials.candidate(text, end)
	}
	if done < len(text) {
		dst = part(dst, text[done:], true)
	}
	if o.AddEOS && t.cfg.AddEOS {
		dst = append(dst, t.cfg.EOS)
	}
	return dst
}

// appendText appends the ids of text without special tokens.
func (t *Tokenizer) appendText(dst []int32, text string) []int32 {
	if t.split != nil {
		for i := 0; i < len(text); {
			end := t.split(text, i)
			dst = t.appendPiece(dst, text[i:end])
			i = end
		}
		return dst
	}
	var ends [maxStages]int
	for i := 0; i < len(text); {
		end := t.pieceEnd(text, i, &ends)
		dst = t.appendPiece(dst, text[i:end])
		i = end
	}
	return dst
}

// pieceEnd returns the end of the piece that begins at i, where the one before ends. Of several stages, ends keeps where the
// current piece of each ends: they lie within those of the stage before, so where one ends the next ones of all later stages begin.
func (t *Tokenizer) pieceEnd(text string, i int, ends *[maxStages]int) int {
	if t.split != nil {
		return t.split(text, i)
	}
	end := len(text)
	for k, stage := range t.stages {
		if ends[k] <= i {
			ends[k] = stage(text[:end], i)
		}
		end = ends[k]
	}
	return end
}

// sorted returns the ranges that are not empty, ordered by Start.
func sorted(ranges []Range) []Range {
	for i, r := range ranges {
		if r.Start >= r.End || i > 0 && r.Start < ranges[i-1].Start {
			ranges = slices.DeleteFunc(slices.Clone(ranges), func(r Range) bool { return r.Start >= r.End })
			slices.SortFunc(ranges, func(a, b Range) int { return a.Start - b.Start })
			return ranges
		}
	}
	return ranges
}
