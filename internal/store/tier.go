package store

import "kvasir/internal/cache"

// A Tier keeps KV blocks of one model beyond memory. Its methods never wait for I/O: the step loop calls them. A tier that
// fails answers as if it held nothing.
type Tier interface {
	// Find says what the tier has of the prompt's tokens at and behind position from, at most up to the last but one. It counts as a use of
	// all that it finds.
	Find(root cache.Key, prompt []int32, from int) Found
	// Load reads what Find found, verifies it and hands it to the sink, on goroutines of its own. Sink.End is called exactly once, last, unless
	// a read never returns.
	Load(Found, Sink)
	// Save writes a block behind the caller. done is called exactly once, by another goroutine, when s.Block is not read any more. It returns
	// false, and calls nothing, where it can take no more now.
	Save(s *cache.Save, kv Source, done func(cache.Outcome)) bool
	// Declined says that what Find found was not loaded because computing is quicker: the tier may know its speed less well from then on.
	Declined()
}

// Found is what a Tier has of a prompt.
type Found struct {
	Tokens    int     // of the prompt, from its first; 0 for nothing
	Continues bool    // something that is stored goes on behind them otherwise than the prompt
	First     int     // index of the first block to load
	Blocks    int     // how many are to be loaded
	Seconds   float64 // how long that should take, what is loaded for others before included; 0: not known
	Each      float64 // of it, how long a block takes until it comes
	Handle    any     // the tier's own
}

// A Sink takes what is loaded. Its methods are safe for concurrent use.
type Sink interface {
	// Wanted is asked before each read; after false nothing more is read.
	Wanted() bool
	// Put takes the verified KV of a block of the prompt. The blocks may come in any order, from several goroutines; kv is valid until
	// Put returns.
	Put(block int, kv []byte)
	// End says that nothing more comes, and why if that is less than all.
	End(error)
}

// A Source gives the KV of a block: its own bytes, or dst, which has room for a block, filled with them. What is not in use of a block is zero.
type Source func(dst []byte) []byte
