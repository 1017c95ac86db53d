package llm

import "fmt"

// ErrorKind classifies an error by what the caller can do about it; dialects map it to a status and a body.
type ErrorKind int

// The kinds.
const (
	KindInternal      ErrorKind = iota // our fault
	KindInvalid                        // the request is malformed or asks for something that is not supported
	KindContextLength                  // the prompt (and MaxTokens) do not fit the context or the KV budget
	KindUnauthorized                   // no or wrong API key
	KindForbidden                      // a Host, Origin or capability that configuration does not allow
	KindNotFound                       // unknown model or path
	KindTooLarge                       // body over the limit
	KindOverloaded                     // the queue is full; retry later
	KindUnavailable                    // starting or draining
	KindCanceled                       // the caller went away
)

// Error is an error that a caller may see.
type Error struct {
	Kind       ErrorKind
	Message    string
	Param      string // the request field at fault, if one is
	Code       string // machine-readable, e.g. "context_length_exceeded"
	RetryAfter int    // seconds, with KindOverloaded and KindUnavailable
}

func (e *Error) Error() string { return e.Message }

// Invalid returns a KindInvalid error about one field of the request.
func Invalid(param, format string, args ...any) *Error {
	return &Error{Kind: KindInvalid, Param: param, Message: fmt.Sprintf(format, args...)}
}
