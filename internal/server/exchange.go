package server

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"kvasir/internal/llm"
	"kvasir/internal/wire/openai"
)

const modelsPrefix = "/v1/models/"

// An exchange is one request and its response.
type exchange struct {
	s      *Server
	w      http.ResponseWriter
	r      *http.Request
	rc     *http.ResponseController
	id     string // X-Request-Id
	path   string // of the route, for metrics; "other" if there is none
	tenant string
	start  time.Time
	status int                   // 0: no header was written yet; at the end, what metrics and log show
	stream *openai.StreamEncoder // set once the response is an event stream
	buf    []byte                // what is written next; reused
	failed *llm.Error            // what the caller was told, or what went wrong once it was gone
	gen    *generation           // of the generating routes
}

// serve is the handler of every request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	x := &exchange{s: s, w: w, r: r, rc: http.NewResponseController(w), id: requestID(r), path: "other", start: time.Now()}
	w.Header().Set("X-Request-Id", x.id)
	defer x.finish()
	defer x.recover()
	if err := x.dispatch(); err != nil {
		x.fail(err)
	}
}

// requestID takes over the caller's id if it is harmless.
func requestID(r *http.Request) string {
	id := r.Header.Get("X-Request-Id")
	odd := func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.')
	}
	if id == "" || len(id) > 64 || strings.ContainsFunc(id, odd) {
		return "req_" + rand.Text()
	}
	return id
}

func (x *exchange) dispatch() *llm.Error {
	s, r, h := x.s, x.r, x.w.Header()
	if err := s.access.checkHost(r.Host); err != nil {
		return err
	}
	origin := r.Header.Get("Origin")
	if err := s.access.checkOrigin(origin, r.Host); err != nil {
		return err
	}
	if origin != "" {
		allowCORS(h, origin)
	}
	path := r.URL.Path
	if strings.HasPrefix(path, modelsPrefix) {
		path = modelsPrefix
	}
	to, ok := s.endpoints[path]
	if !ok {
		return &llm.Error{Kind: llm.KindNotFound, Code: "unknown_url",
			Message: "there is no " + quoteShort(r.URL.Path) + " here; supported: /v1/completions, /v1/chat/completions, /v1/models, /health, /ready, /metrics"}
	}
	x.path = path
	if r.Method == http.MethodOptions && origin != "" && r.Header.Get("Access-Control-Request-Method") != "" {
		preflight(h, r, to.methods)
		x.header(http.StatusNoContent)
		return nil
	}
	if !slices.Contains(to.methods, r.Method) {
		h.Set("Allow", strings.Join(to.methods, ", "))
		x.failWith(http.StatusMethodNotAllowed, &llm.Error{Kind: llm.KindInvalid, Code: "method_not_allowed",
			Message: "the method " + short(r.Method) + " is not allowed on " + path + "; supported: " + strings.Join(to.methods, ", ")})
		return nil
	}
	if !to.open {
		tenant, err := s.access.tenant(r)
		if err != nil {
			return err
		}
		x.tenant = tenant
	}
	return to.handle(x)
}

// header writes the status and the header.
func (x *exchange) header(status int) {
	x.status = status
	x.w.WriteHeader(status)
}

// send writes b and flushes it to the network. A client that takes nothing for WriteTimeout makes it fail.
func (x *exchange) send(b []byte) error {
	_ = x.rc.SetWriteDeadline(time.Now().Add(x.s.o.WriteTimeout))
	if _, err := x.w.Write(b); err != nil {
		return err
	}
	return x.rc.Flush()
}

// sendJSON writes a whole JSON response.
func (x *exchange) sendJSON(status int, body []byte) error {
	h := x.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	x.header(status)
	return x.send(body)
}

// fail tells the caller about err: as the response if nothing was sent yet, else as the last event of the stream.
func (x *exchange) fail(err *llm.Error) { x.failWith(openai.Status(err.Kind), err) }

func (x *exchange) failWith(status int, err *llm.Error) {
	x.failed = err
	switch {
	case err.Kind == llm.KindCanceled: // nobody is there to tell
		x.status = status
		return
	case x.stream != nil:
		x.status = status // for the metrics; what was sent is 200
		_ = x.send(x.stream.AppendError(x.buf[:0], err))
		return
	case x.status != 0:
		return
	}
	h := x.w.Header()
	switch err.Kind {
	case llm.KindUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
	case llm.KindOverloaded, llm.KindUnavailable:
		h.Set("Retry-After", strconv.Itoa(max(err.RetryAfter, 1)))
		if err.Code == codeTimeout { // the next try would take as long
			h.Set("X-Should-Retry", "false")
		}
	}
	_ = x.sendJSON(status, openai.AppendError(x.buf[:0], err))
}

// recover turns a panic into an error of this request alone.
func (x *exchange) recover() {
	v := recover()
	if v == nil {
		return
	}
	if v == http.ErrAbortHandler {
		panic(v)
	}
	x.s.log.Error("panic", "id", x.id, "path", x.path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	x.fail(&llm.Error{Kind: llm.KindInternal, Message: internalMessage})
}

// finish counts and logs.
func (x *exchange) finish() {
	took := time.Since(x.start)
	x.s.metrics.requests.WithLabelValues(x.path, strconv.Itoa(x.status)).Inc()
	level := slog.LevelDebug
	attrs := []slog.Attr{slog.String("id", x.id), slog.String("path", x.path), slog.Int("status", x.status)}
	if g := x.gen; g != nil {
		level = slog.LevelInfo
		x.s.metrics.duration.Observe(took.Seconds())
		attrs = append(attrs, g.attrs()...)
	}
	if x.tenant != "" {
		attrs = append(attrs, slog.String("tenant", x.tenant))
	}
	attrs = append(attrs, slog.Duration("duration", took))
	if e := x.failed; e != nil {
		attrs = append(attrs, slog.String("error_code", e.Code), slog.String("error_param", e.Param))
	}
	x.s.log.LogAttrs(x.r.Context(), level, "request", attrs...)
}

// body reads the whole request body into a buffer of the pool; release gives it back.
func (x *exchange) body() (body []byte, release func(), err *llm.Error) {
	limit := x.s.o.MaxBody
	tooLarge := &llm.Error{Kind: llm.KindTooLarge, Message: fmt.Sprintf("the body is over the limit of %d bytes (--max-body)", limit)}
	if x.r.ContentLength > limit {
		return nil, nil, tooLarge
	}
	buf := x.s.bodies.Get().(*[]byte)
	release = func() {
		if cap(*buf) <= 4<<20 { // do not keep the rare huge ones
			x.s.bodies.Put(buf)
		}
	}
	from := http.MaxBytesReader(x.w, x.r.Body, limit)
	b := (*buf)[:0]
	for {
		n, readErr := from.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			release()
			var over *http.MaxBytesError
			if errors.As(readErr, &over) {
				return nil, nil, tooLarge
			}
			return nil, nil, &llm.Error{Kind: llm.KindInvalid, Code: "incomplete_body", Message: "the body could not be read to its end in time"}
		}
		if len(b) == cap(b) {
			b = slices.Grow(b, max(len(b), 64<<10)) // what arrived already bounds what a mere Content-Length can claim
		}
	}
	*buf = b
	return b, release, nil
}

// checkContentType accepts JSON and a missing type; a form's or a file's type is most likely a mistake of the caller.
func (x *exchange) checkContentType() bool {
	if enc := x.r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		x.failWith(http.StatusUnsupportedMediaType, &llm.Error{Kind: llm.KindInvalid, Code: "unsupported_media_type",
			Message: "the Content-Encoding " + quoteShort(enc) + " is not supported; supported: none"})
		return false
	}
	header := x.r.Header.Get("Content-Type")
	if header == "" {
		return true
	}
	typ, _, err := mime.ParseMediaType(header)
	if err == nil && (typ == "application/json" || strings.HasSuffix(typ, "+json")) {
		return true
	}
	x.failWith(http.StatusUnsupportedMediaType, &llm.Error{Kind: llm.KindInvalid, Code: "unsupported_media_type",
		Message: "the Content-Type " + quoteShort(header) + " is not supported; supported: application/json"})
	return false
}
