// Package draft guesses the next tokens of a sequence from text that was seen before, so that a step can check several at once.
//
// Where a model copies (code that is edited, documents that are quoted, a form that is filled in again), what comes next has often been seen
// behind the same tokens: in the sequence itself ("prompt lookup", Saxena 2023), in what was generated lately under the same root key
// ("SuffixDecoding", Oliaro and others 2024), or in the cached continuation of the very same text. The scheduler computes the guessed tokens in
// the rows behind the last known one and keeps those that the model chooses itself, so a guess changes when a token comes, never which.
//
// A Drafter follows one sequence. Each new token is held against its guess, whether that was tried or not, which tells for free how far guesses
// of this text can be trusted; Cost learns from the steps what a further row costs. Both together say how long a draft pays.
package draft
