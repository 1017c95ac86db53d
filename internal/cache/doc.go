// Package cache is the book-keeping of the prefix cache: which token ids have their keys and values (KV) in which block.
//
// It owns the ids of all KV blocks, one prefix tree for each root key, and the reference counts. It holds no KV bytes, does no I/O, reads no
// clock and starts no goroutine. A Cache and its Sequences are NOT safe for concurrent use: the scheduler's loop owns them.
//
// # The tree
//
// A node stands for one block below its parent: token ids tokens[0, len), of which [0, filled) have their KV computed. Only a full node (len =
// BlockSize) has children. Children are sorted by their token ids, so the longest common prefix with a query is found beside its insertion
// point, exact to the token, and two blocks are the same only if their ids compare equal: a hash is never proof.
//
//   - A pending node (filled < len) is being computed by its owner, a live sequence. Everything below it is pending with filled = 0.
//   - A ready node (filled = len) has ready ancestors only. Its rows [0, len) never change again.
//
// # Who may read and write which rows
//
// A sequence of n tokens has a table of ceil(n/BlockSize) blocks. For block i of it, at positions [i·B, (i+1)·B):
//
//	block                       rows [0, filled)         rows [filled, len(node))   rows [len(node), B)
//	shared node (i < shared)    read by all              written by the owner       none: a shared node is full
//	own node in the tree        read by all, copied      written by this sequence   written by this sequence
//	private (no node)           read by this sequence    -                          written by this sequence
//	reserved (behind the table) -                        -                          written by this sequence
//
// Rows behind the tokens of a sequence, in its last block and in reserved ones, may hold drafts: KV of tokens that it was not given yet. Only
// Append and Advance make them its own; until then no node has them, so nobody else can find, copy or share them.
//
// A prompt's partial tail is a node of the prompt's ids only; generated ids go into the same block behind it, invisible to others until the
// block is full or the sequence ends, when the node is put in again with its longer ids. Others take the first k rows of a node that does not
// match as a whole by copy (copy on write), k ≤ len(node), so the two never meet.
//
// # References
//
// A node counts one reference for each sequence that has it in its table (the owner too) and one for each copy from it that is not done. Who
// references a node references its ancestors, so a node without references has only such descendants: it is cached, and can be evicted once it
// is a leaf. A block is free only when no node and no table has it.
//
// # Waiting
//
// A sequence waits only for sequences that were matched before it, so there is no cycle. When an owner ends before it has computed what others
// wait for, these lose their match at once (their blocks and references are given back) and Poll matches them anew: who polls first owns what is left.
package cache
