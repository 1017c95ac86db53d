// Package grammar constrains generated text: it compiles a JSON Schema, a regular expression or a list of choices to an automaton over
// bytes, and says for each of its states which tokens of a vocabulary may come next.
//
// A value of the schema is a rule. Scalars, keys and punctuation are deterministic automata (dfa.go); rules call each other, so that the
// whole is a pushdown automaton (term.go) that steps by partial derivatives (Antimirov, "Partial derivatives of regular expressions and finite
// automaton constructions", 1996). Its states are sets of stacks, because alternatives may begin alike. What can never end in a valid value is cut
// out when the grammar is compiled, so that every state that is reached can be completed.
//
// Masks follow XGrammar (Dong et al., "XGrammar: Flexible and Efficient Structured Generation Engine for Large Language Models", 2024): the
// tokens that a frame of the stack takes whatever lies below it are found once, by a walk through a trie of the vocabulary, and kept; of the tokens
// in whose midst the frame ends, the places in the trie are kept, and looked at with the stack at hand (mask.go).
//
// Objects have their properties in the order of the schema. Between the parts of a JSON text there may be a little white space, see Spec.Compact.
package grammar
