package openai

import (
	"net/http"

	"kvasir/internal/llm"
)

// StatusClientClosed is the status, borrowed from nginx, that logs and metrics show when the caller went away; nobody receives it.
const StatusClientClosed = 499

type errorShape struct {
	status    int
	typ, code string
}

var errorShapes = map[llm.ErrorKind]errorShape{
	llm.KindInternal:      {http.StatusInternalServerError, "server_error", ""},
	llm.KindInvalid:       {http.StatusBadRequest, "invalid_request_error", ""},
	llm.KindContextLength: {http.StatusBadRequest, "invalid_request_error", "context_length_exceeded"},
	llm.KindUnauthorized:  {http.StatusUnauthorized, "invalid_request_error", "invalid_api_key"},
	llm.KindForbidden:     {http.StatusForbidden, "permission_error", ""},
	llm.KindNotFound:      {http.StatusNotFound, "invalid_request_error", "model_not_found"},
	llm.KindTooLarge:      {http.StatusRequestEntityTooLarge, "invalid_request_error", "request_too_large"},
	llm.KindOverloaded:    {http.StatusTooManyRequests, "rate_limit_error", "rate_limit_exceeded"},
	llm.KindUnavailable:   {http.StatusServiceUnavailable, "server_error", "unavailable"},
	llm.KindCanceled:      {StatusClientClosed, "server_error", "canceled"},
}

func shapeOf(k llm.ErrorKind) errorShape {
	if s, ok := errorShapes[k]; ok {
		return s
	}
	return errorShapes[llm.KindInternal]
}

// Status is the HTTP status of an error kind.
func Status(k llm.ErrorKind) int { return shapeOf(k).status }

// AppendError appends the error body: {"error":{"message","type","param","code"}}. err.Code takes the place of the kind's own code.
func AppendError(dst []byte, err *llm.Error) []byte {
	s := shapeOf(err.Kind)
	if err.Code != "" {
		s.code = err.Code
	}
	dst = append(dst, `{"error":{"message":`...)
	dst = appendString(dst, err.Message)
	dst = append(dst, `,"type":`...)
	dst = appendString(dst, s.typ)
	dst = append(dst, `,"param":`...)
	dst = appendOrNull(dst, err.Param)
	dst = append(dst, `,"code":`...)
	dst = appendOrNull(dst, s.code)
	return append(dst, `}}`...)
}

func appendOrNull(dst []byte, s string) []byte {
	if s == "" {
		return append(dst, "null"...)
	}
	return appendString(dst, s)
}
