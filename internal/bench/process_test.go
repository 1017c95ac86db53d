package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/signal"
	"strings"
	"testing"
	"time"
)

// TestMain lets this binary play a server in a process of its own.
func TestMain(m *testing.M) {
	switch os.Getenv("BENCH_TEST_SERVER") {
	case "":
		os.Exit(m.Run())
	case "serves":
		playServer()
	case "fails":
		fmt.Fprintln(os.Stderr, "kvasir: no such model")
		os.Exit(1)
	case "hangs":
		c := make(chan os.Signal, 1)
		signal.Notify(c, os.Interrupt)
		fmt.Println("started")
		<-c
	}
	os.Exit(0)
}

func playServer() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" {
			fmt.Fprint(w, `{"data":[{"id":"played"}]}`)
			return
		}
		for begin := time.Now(); ownCPU() < 30*time.Millisecond && time.Since(begin) < time.Minute; { // something that CPU can see
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: [DONE]\n\n")
	}))
	fmt.Fprintln(os.Stderr, "a line before")
	fmt.Fprintf(os.Stderr, "ready in 0.01 s: %s  model played\n", srv.URL)
	fmt.Fprintln(os.Stderr, strings.Repeat("x", bufio.MaxScanTokenSize+1)) // must not stop the reading
	fmt.Fprintf(os.Stderr, "%s", strings.Repeat("more than a pipe holds\n", 10000))
	<-stop
}

func ownCPU() time.Duration {
	d, err := CPU(os.Getpid())
	if err != nil {
		panic(err) // in the played server: the caller sees it end
	}
	return d
}

func play(ctx context.Context, t *testing.T, how string) (*Process, error) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Start(ctx, "it", []string{self}, append(os.Environ(), "BENCH_TEST_SERVER="+how))
}

func TestProcess(t *testing.T) {
	p, err := play(context.Background(), t, "serves")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	before, err := p.CPU()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Complete(context.Background(), Call{Prompt: "x", MaxTokens: 1}); err != nil {
		t.Fatal(err)
	}
	if after, err := p.CPU(); err != nil || after < before || after < 30*time.Millisecond {
		t.Errorf("CPU time %v, then %v, %v", before, after, err)
	}
	if d := p.Describe(); d.Name != "it" || d.Model != "played" {
		t.Errorf("%+v", d)
	}
	if err := errors.Join(p.Stop(), p.Stop()); err != nil {
		t.Error(err)
	}
	select {
	case <-p.exited:
	default:
		t.Error("the process runs on")
	}
	if _, err := p.Complete(context.Background(), Call{Prompt: "x", MaxTokens: 1}); err == nil {
		t.Error("a server that was stopped answers")
	}
}

func TestProcessThatFails(t *testing.T) {
	if _, err := play(context.Background(), t, "fails"); err == nil || !strings.Contains(err.Error(), "it ended before it was ready:\nkvasir: no such model") {
		t.Errorf("got %v", err)
	}
	if _, err := Start(context.Background(), "it", []string{t.TempDir() + "/nothing"}, nil); err == nil {
		t.Error("a command that does not exist was started")
	}
}

// A start that is given up leaves no process behind.
func TestProcessCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p, err := play(ctx, t, "hangs")
	if !errors.Is(err, context.Canceled) || p != nil {
		t.Errorf("%v, %v", p, err)
	}
}

func TestCPUOfNobody(t *testing.T) {
	if _, err := CPU(-1); err == nil {
		t.Error("a process that does not exist has a time")
	}
}
