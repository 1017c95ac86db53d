package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"kvasir/internal/llm"
)

// These tests run the whole http.Server over a network in memory with a clock that only moves when everybody waits.

func post(t *testing.T, ctx context.Context, r *running, path, body string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://localhost:8080"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func get(t *testing.T, r *running, path string) (int, string) {
	t.Helper()
	res, err := r.client.Get("http://localhost:8080" + path)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, readAll(t, res)
}

func readAll(t *testing.T, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// one is a script that gives every request this stream and hands it out.
func one(s *fakeStream) func(*llm.Request) (*fakeStream, error) {
	s.closed, s.once = make(chan struct{}), new(sync.Once)
	return func(*llm.Request) (*fakeStream, error) { return s, nil }
}

func TestDisconnectClosesTheStream(t *testing.T) {
	for name, steps := range map[string][]step{"while streaming": {text("a"), never()}, "before the first event": {never()}} {
		for _, body := range []string{streamBody, completionBody} {
			synctest.Test(t, func(t *testing.T) {
				s := &fakeStream{steps: steps}
				r := start(t, newFake(one(s)), Options{})
				conn, err := r.ln.dial()
				if err != nil {
					t.Fatal(err)
				}
				go io.Copy(io.Discard, conn)
				writeRequest(t, conn, "/v1/completions", body)
				synctest.Wait()
				if isClosed(s.closed) {
					t.Fatalf("%s: closed too early", name)
				}
				conn.Close()
				synctest.Wait()
				if !isClosed(s.closed) {
					t.Errorf("%s, %s: the stream goes on without its client", name, body)
				}
				if _, m := get(t, r, "/metrics"); !strings.Contains(m, `status="499"} 1`) {
					t.Errorf("%s: no 499 in the metrics", name)
				}
			})
		}
	}
}

func writeRequest(t *testing.T, conn net.Conn, path, body string) {
	t.Helper()
	req, err := http.NewRequest("POST", "http://localhost:8080"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
}

// TestSlowClient: a client that reads nothing is dropped after WriteTimeout, and hinders nobody until then.
func TestSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := &fakeStream{steps: []step{text("a"), text("b"), finish("stop")}}
		stuckScript := one(stuck)
		g := newFake(func(r *llm.Request) (*fakeStream, error) {
			if r.Prompts[0].Text == "stuck" {
				return stuckScript(r)
			}
			return always(hello())(r)
		})
		r := start(t, g, Options{WriteTimeout: 30 * time.Second})
		conn, err := r.ln.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		begun := time.Now()
		writeRequest(t, conn, "/v1/completions", `{"model":"smol","prompt":"stuck","stream":true}`)
		synctest.Wait()
		if body := readAll(t, post(t, t.Context(), r, "/v1/completions", streamBody)); !strings.HasSuffix(body, "[DONE]\n\n") {
			t.Errorf("the other client got %q", body)
		}
		if time.Since(begun) != 0 || isClosed(stuck.closed) {
			t.Errorf("the other client waited %v; the stuck stream is closed: %v", time.Since(begun), isClosed(stuck.closed))
		}
		<-stuck.closed
		if took := time.Since(begun); took != 30*time.Second {
			t.Errorf("the stuck client was dropped after %v", took)
		}
	})
}

// TestSlowRequest: a header or a body that trickles in is cut off.
func TestSlowRequest(t *testing.T) {
	for _, c := range []struct {
		name, sent string
		after      time.Duration
		status     string
	}{
		{"header", "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-A: b", 5 * time.Second, ""},
		{"body", "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", 20 * time.Second, "HTTP/1.1 400"},
		{"body of an unknown path", "POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{", 20 * time.Second, "HTTP/1.1 404"},
		{"nothing", "", 5 * time.Second, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, newFake(always(hello())), Options{ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 20 * time.Second})
			conn, err := r.ln.dial()
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			begun := time.Now()
			go io.WriteString(conn, c.sent)
			got, _ := io.ReadAll(conn)
			if took := time.Since(begun); took < c.after || took > c.after+time.Second {
				t.Errorf("%s: cut off after %v", c.name, took)
			}
			if !strings.HasPrefix(string(got), c.status) {
				t.Errorf("%s: %q", c.name, got)
			}
		})
	}
}

// TestLongGeneration: the timeouts of reading and writing do not end a request that takes longer than they.
func TestLongGeneration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		later := make(chan struct{})
		time.AfterFunc(time.Hour, func() { close(later) })
		s := &fakeStream{steps: []step{after(later, text("a")), finish("stop")}}
		r := start(t, newFake(one(s)), Options{})
		res := post(t, t.Context(), r, "/v1/completions", streamBody)
		if body := readAll(t, res); !strings.Contains(body, `"text":"a"`) || !strings.HasSuffix(body, "[DONE]\n\n") {
			t.Errorf("%q", body)
		}
		if code, _ := get(t, r, "/health"); code != 200 { // the connection is still good
			t.Error(code)
		}
	})
}

func TestRequestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newFake(nil)
		r := start(t, g, Options{RequestTimeout: time.Minute})
		g.script = always(fakeStream{steps: []step{never()}})
		res := post(t, t.Context(), r, "/v1/completions", streamBody)
		if body := readAll(t, res); res.StatusCode != 503 || !strings.Contains(body, `"code":"timeout"`) || res.Header.Get("X-Should-Retry") != "false" {
			t.Errorf("%d %v %s", res.StatusCode, res.Header, body)
		}
		g.script = always(fakeStream{steps: []step{text("a"), never()}})
		res = post(t, t.Context(), r, "/v1/completions", streamBody)
		if body := readAll(t, res); res.StatusCode != 200 || !strings.Contains(body, `data: {"error":{"message":"the request took longer than 1m0s (--request-timeout)"`) || strings.Contains(body, "[DONE]") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})
}

func TestEventsArriveOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &fakeStream{steps: []step{text("a"), after(gate, text("b")), finish("stop")}}
		r := start(t, newFake(one(s)), Options{})
		res := post(t, t.Context(), r, "/v1/completions", streamBody)
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		if !lines.Scan() || !strings.Contains(lines.Text(), `"text":"a"`) {
			t.Fatalf("%q", lines.Text())
		}
		close(gate) // "b" is generated only now, so "a" was flushed before
		rest := 0
		for lines.Scan() {
			rest++
		}
		if lines.Err() != nil || rest != 9 { // four more events and their empty lines, and the first's
			t.Errorf("%d lines, %v", rest, lines.Err())
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		s := &fakeStream{steps: []step{text("a"), after(gate, text("b")), finish("stop")}}
		r := start(t, newFake(one(s)), Options{})
		res := post(t, t.Context(), r, "/v1/completions", streamBody)
		done := make(chan error)
		go func() { done <- r.Shutdown(context.Background()) }()
		synctest.Wait()
		if code, body := get(t, r, "/ready"); code != 503 || body != `{"status":"draining"}` {
			t.Errorf("/ready: %d %s", code, body)
		}
		if code, _ := get(t, r, "/health"); code != 200 {
			t.Errorf("/health: %d", code)
		}
		refused := post(t, t.Context(), r, "/v1/completions", streamBody)
		if body := readAll(t, refused); refused.StatusCode != 503 || refused.Header.Get("Retry-After") != "1" || !strings.Contains(body, "shutting_down") {
			t.Errorf("%d %v %s", refused.StatusCode, refused.Header, body)
		}
		select {
		case err := <-done:
			t.Fatalf("Shutdown returned %v with a stream running", err)
		default:
		}
		close(gate)
		if body := readAll(t, res); !strings.Contains(body, `"text":"b"`) || !strings.HasSuffix(body, "[DONE]\n\n") {
			t.Errorf("the running stream got %q", body)
		}
		if err := <-done; err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if _, err := r.ln.dial(); err == nil {
			t.Error("the listener is open")
		}
		if err := r.Shutdown(context.Background()); err != nil {
			t.Errorf("a second Shutdown: %v", err)
		}
	})
}

func TestDrainDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStream{steps: []step{text("a"), never()}}
		r := start(t, newFake(one(s)), Options{})
		res := post(t, t.Context(), r, "/v1/completions", streamBody)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		begun := time.Now()
		done := make(chan error)
		go func() { done <- r.Shutdown(ctx) }()
		body := readAll(t, res)
		if !strings.Contains(body, `data: {"error":{"message":"the server is shutting down"`) || time.Since(begun) != 10*time.Second {
			t.Errorf("after %v: %q", time.Since(begun), body)
		}
		if err := <-done; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Shutdown: %v", err)
		}
		if !isClosed(s.closed) {
			t.Error("the stream was not closed")
		}
	})
}

func TestServeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeStream{steps: []step{never()}}
		r := start(t, newFake(one(s)), Options{})
		go func() { synctest.Wait(); r.cancel() }()
		res := post(t, t.Context(), r, "/v1/completions", completionBody)
		if body := readAll(t, res); res.StatusCode != 503 || !strings.Contains(body, "shutting_down") {
			t.Errorf("%d %s", res.StatusCode, body)
		}
	})
}

func TestHeaderLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, newFake(always(hello())), Options{MaxHeader: 8 << 10})
		req, err := http.NewRequest("GET", "http://localhost:8080/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Long", strings.Repeat("x", 20<<10))
		conn, err := r.ln.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go req.Write(conn) // the server stops reading, so this may fail
		res, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil || res.StatusCode != 431 {
			t.Errorf("%v %v", res, err)
		}
	})
}
