// Package e2e runs the official Go client against the whole server on a small random model.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/openai/openai-go/v3"
	"github.com/openai/openai-go/v3/option"
	"github.com/prometheus/client_golang/prometheus"

	"kvasir/internal/kernel"
	"kvasir/internal/pipeline"
	"kvasir/internal/sched"
	"kvasir/internal/server"
	"kvasir/internal/store/disk"
	"kvasir/internal/testmodel"
)

type keys map[string]string

func (k keys) Tenant(key string) (string, bool) { t, ok := k[key]; return t, ok }

func serve(t *testing.T, k server.Keys, queue, batch int) (*pipeline.Pipeline, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(file, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	path, err := kernel.Default()
	if err != nil {
		t.Fatal(err)
	}
	p, err := pipeline.Open(file, pipeline.Options{Names: []string{"tiny"}, Path: path, Threads: 2, BlockSize: 32, KVBytes: 8 << 20,
		MaxQueue: queue, MaxBatch: batch, Secret: []byte("0123456789abcdef")})
	if err != nil {
		t.Fatal(err)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(pipeline.NewCollector(p))
	ts := httptest.NewServer(server.New(p, server.Options{Keys: k, AdminKey: "an admin key for tests", Registry: reg, Log: slog.New(slog.DiscardHandler)}).Handler())
	t.Cleanup(func() {
		ts.Close()
		p.Close(context.Background())
		if s := p.Stats(); s.Cache.Held != 0 || s.Running != 0 {
			t.Errorf("at the end: %+v", s)
		}
	})
	return p, ts.URL
}

func client(url, key string, retries int) openai.Client {
	return openai.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey(key), option.WithMaxRetries(retries))
}

func chat(text string) openai.ChatCompletionNewParams {
	return openai.ChatCompletionNewParams{Model: "tiny", Temperature: openai.Float(0), MaxCompletionTokens: openai.Int(12),
		Messages: []openai.ChatCompletionMessageParamUnion{openai.SystemMessage("Be brief."), openai.UserMessage(text)}}
}

func TestChatStreamAndCache(t *testing.T) {
	_, url := serve(t, nil, 8, 4)
	c := client(url, "none", 0)
	ctx := context.Background()
	whole, err := c.Chat.Completions.New(ctx, chat("What is a block table?"))
	if err != nil {
		t.Fatal(err)
	}
	if whole.Usage.PromptTokensDetails.CachedTokens != 0 || whole.Usage.CompletionTokens != 12 || whole.Choices[0].FinishReason != "length" {
		t.Errorf("first: %+v %q", whole.Usage, whole.Choices[0].FinishReason)
	}
	params := chat("What is a block table?")
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	st := c.Chat.Completions.NewStreaming(ctx, params)
	acc := openai.ChatCompletionAccumulator{}
	for st.Next() {
		if !acc.AddChunk(st.Current()) {
			t.Fatal("a chunk does not fit the others")
		}
	}
	if st.Err() != nil {
		t.Fatal(st.Err())
	}
	if acc.Choices[0].Message.Content != whole.Choices[0].Message.Content {
		t.Errorf("stream %q, whole %q", acc.Choices[0].Message.Content, whole.Choices[0].Message.Content)
	}
	if got, want := acc.Usage.PromptTokensDetails.CachedTokens, whole.Usage.PromptTokens-1; got != want {
		t.Errorf("%d cached tokens, want %d", got, want)
	}
	text, err := c.Completions.New(ctx, openai.CompletionNewParams{Model: "tiny", MaxTokens: openai.Int(5), N: openai.Int(2), Temperature: openai.Float(0),
		Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfStrings: []string{"one", "two"}}})
	if err != nil || len(text.Choices) != 4 || text.Choices[0].Text != text.Choices[1].Text {
		t.Errorf("completions: %v %+v", err, text)
	}
}

func TestTenantsAndErrors(t *testing.T) {
	_, url := serve(t, keys{"key-a": "a", "key-b": "b"}, 8, 4)
	ctx := context.Background()
	cached := func(key string) int64 {
		c := client(url, key, 0)
		r, err := c.Chat.Completions.New(ctx, chat(strings.Repeat("A long and secret plan. ", 20)))
		if err != nil {
			t.Fatal(err)
		}
		return r.Usage.PromptTokensDetails.CachedTokens
	}
	if a, b, again := cached("key-a"), cached("key-b"), cached("key-a"); a != 0 || b != 0 || again == 0 {
		t.Errorf("cached tokens %d, other tenant %d, again %d", a, b, again)
	}
	status := func(key string, p openai.ChatCompletionNewParams) (int, string) {
		c := client(url, key, 0)
		_, err := c.Chat.Completions.New(ctx, p)
		var e *openai.Error
		if !errors.As(err, &e) {
			t.Fatalf("error %v", err)
		}
		return e.StatusCode, e.Code
	}
	if s, code := status("key-x", chat("x")); s != 401 || code != "invalid_api_key" {
		t.Errorf("wrong key: %d %s", s, code)
	}
	p := chat("x")
	p.Model = "other"
	if s, code := status("key-a", p); s != 404 || code != "model_not_found" {
		t.Errorf("unknown model: %d %s", s, code)
	}
	if s, code := status("key-a", chat(strings.Repeat("word ", 5000))); s != 400 || code != "context_length_exceeded" {
		t.Errorf("long prompt: %d %s", s, code)
	}
	p = chat("x")
	p.Tools = []openai.ChatCompletionToolUnionParam{openai.ChatCompletionFunctionTool(openai.FunctionDefinitionParam{Name: "f"})}
	if s, _ := status("key-a", p); s != 400 {
		t.Errorf("tools: %d", s)
	}
}

// A watched transport tells of every answer that passes.
type watched func(*http.Response)

func (w watched) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		w(res)
	}
	return res, err
}

// A caller who finds the queue full is told when to come back, and the SDK does: it gets its answer once there is room.
func TestRetriesWhenFull(t *testing.T) {
	p, url := serve(t, nil, 1, 1)
	// One long generation runs and another waits, until the caller was refused.
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range 2 {
		long := chat("a long story")
		long.MaxCompletionTokens = openai.Int(3000)
		long.LogitBias = map[string]int64{"0": -100, "2": -100} // it does not end by itself
		wg.Go(func() {
			c := client(url, "none", 0)
			if _, err := c.Chat.Completions.New(ctx, long); !errors.Is(err, context.Canceled) {
				t.Errorf("long generation: %v", err)
			}
		})
		eventually(t, p, fmt.Sprint(i+1, " submitted"), func(s sched.Stats) bool { return s.Running == 1 && s.Waiting == i })
	}
	statuses := map[int]int{}
	c := openai.NewClient(option.WithBaseURL(url+"/v1"), option.WithAPIKey("none"), option.WithMaxRetries(20),
		option.WithHTTPClient(&http.Client{Transport: watched(func(r *http.Response) {
			statuses[r.StatusCode]++
			if r.StatusCode == http.StatusTooManyRequests {
				if r.Header.Get("Retry-After") == "" {
					t.Error("429 without Retry-After")
				}
				leave()
			}
		})}))
	got, err := c.Chat.Completions.New(context.Background(), chat("short"))
	if err != nil || got.Usage.CompletionTokens != 12 {
		t.Errorf("the short one: %v %+v", err, got)
	}
	if statuses[429] == 0 || statuses[200] != 1 {
		t.Errorf("answers by status: %v", statuses)
	}
}

// eventually waits until the scheduler's numbers are as wanted; it fails only if they never are.
func eventually(t *testing.T, p *pipeline.Pipeline, what string, ok func(sched.Stats) bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(p.Stats()); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: %+v", what, p.Stats())
		}
	}
}

// The text of completions comes as a whole and as a stream, with what was asked for.
func TestCompletionsStream(t *testing.T) {
	_, url := serve(t, nil, 8, 4)
	c := client(url, "none", 0)
	params := openai.CompletionNewParams{Model: "tiny", MaxTokens: openai.Int(9), Temperature: openai.Float(1), Seed: openai.Int(4), N: openai.Int(2),
		Prompt: openai.CompletionNewParamsPromptUnion{OfArrayOfTokenArrays: [][]int64{{30, 40, 50}, {60, 70}}}, LogitBias: map[string]int64{"0": -100, "2": -100}}
	whole, err := c.Completions.New(context.Background(), params)
	if err != nil {
		t.Fatal(err)
	}
	params.StreamOptions.IncludeUsage = openai.Bool(true)
	st := c.Completions.NewStreaming(context.Background(), params)
	defer st.Close()
	texts, reasons := map[int64]string{}, map[int64]string{}
	var usage openai.CompletionUsage
	for st.Next() {
		for _, ch := range st.Current().Choices {
			texts[ch.Index] += ch.Text
			reasons[ch.Index] += string(ch.FinishReason)
		}
		usage = st.Current().Usage
	}
	if st.Err() != nil || len(whole.Choices) != 4 {
		t.Fatalf("%v, %d choices", st.Err(), len(whole.Choices))
	}
	distinct := map[string]bool{}
	for _, ch := range whole.Choices {
		distinct[ch.Text] = true
		if texts[ch.Index] != ch.Text || reasons[ch.Index] != "length" || ch.FinishReason != "length" {
			t.Errorf("choice %d: stream %q (%s), whole %q", ch.Index, texts[ch.Index], reasons[ch.Index], ch.Text)
		}
	}
	if len(distinct) != 4 || usage.PromptTokens != 5 || usage.CompletionTokens != 36 || usage.PromptTokensDetails.CachedTokens != 3 {
		t.Errorf("%d different texts, usage %s", len(distinct), usage.RawJSON())
	}
}

// A stop string ends the text before it, whole and as a stream, and none of it is sent.
func TestStopOverHTTP(t *testing.T) {
	_, url := serve(t, nil, 8, 4)
	c := client(url, "none", 0)
	params := chat("Tell me.")
	params.MaxCompletionTokens = openai.Int(30)
	whole, err := c.Chat.Completions.New(context.Background(), params)
	if err != nil {
		t.Fatal(err)
	}
	text := []rune(whole.Choices[0].Message.Content)
	if len(text) < 12 {
		t.Fatalf("only %q was generated", string(text))
	}
	stop := string(text[6:11])
	want, _, _ := strings.Cut(string(text), stop)
	params.Stop.OfString = openai.String(stop)
	st := c.Chat.Completions.NewStreaming(context.Background(), params)
	defer st.Close()
	var acc openai.ChatCompletionAccumulator
	for st.Next() {
		acc.AddChunk(st.Current())
	}
	if st.Err() != nil || acc.Choices[0].Message.Content != want || acc.Choices[0].FinishReason != "stop" {
		t.Errorf("%v %q (%s), want %q", st.Err(), acc.Choices[0].Message.Content, acc.Choices[0].FinishReason, want)
	}
}

func TestHeadersMetricsDisconnect(t *testing.T) {
	p, url := serve(t, nil, 8, 4)
	body := `{"model":"tiny","prompt":"a b c d e f g h","max_tokens":3,"temperature":0}`
	for i, want := range []string{"miss; cached=0/12; reason=never_seen", "hit; cached=11/12; reason=full"} {
		r, err := http.Post(url+"/v1/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		if h := r.Header.Get("Kvasir-Cache"); h != want {
			t.Errorf("request %d: Kvasir-Cache %q, want %s", i, h, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, "POST", url+"/v1/completions", strings.NewReader(`{"model":"tiny","prompt":"x","max_tokens":1500,"temperature":0,"stream":true,"ignore_eos":true}`))
	req.Header.Set("Content-Type", "application/json")
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Body.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	cancel()
	io.Copy(io.Discard, r.Body)
	r.Body.Close()
	eventually(t, p, "nothing runs", func(s sched.Stats) bool { return s.Running == 0 && s.Cache.Held == 0 })
	if s := p.Stats(); s.DecodeTokens > 1400 {
		t.Errorf("%d tokens were computed for a client that went away", s.DecodeTokens)
	}
	req, _ = http.NewRequest("GET", url+"/metrics", nil)
	req.Header.Set("Authorization", "Bearer an admin key for tests")
	if r, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	page, _ := io.ReadAll(r.Body)
	names := []string{"kvasir_kv_blocks_held 0", "kvasir_prefix_cache_hits_total 11", "kvasir_time_to_first_token_seconds"}
	descs := make(chan *prometheus.Desc, 100)
	pipeline.NewCollector(p).Describe(descs)
	close(descs)
	for d := range descs {
		_, name, _ := strings.Cut(d.String(), `fqName: "`)
		name, _, _ = strings.Cut(name, `"`)
		names = append(names, "\n"+name+" ")
	}
	if len(names) < 15 {
		t.Errorf("only %q", names)
	}
	for _, name := range names {
		if !strings.Contains(string(page), name) {
			t.Errorf("/metrics lacks %s (status %d)", name, r.StatusCode)
		}
	}
}

// After a restart a request finds on disk what the one before had, and the header, the usage and the metrics say so.
func TestDiskTier(t *testing.T) {
	file := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(file, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	body := `{"model":"tiny","prompt":"` + strings.Repeat("a long beginning ", 20) + `","max_tokens":3,"temperature":0}`
	var answers []string
	for life := range 2 {
		d, err := disk.Open(disk.Options{Dir: dir, Quota: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		p, err := pipeline.Open(file, pipeline.Options{Names: []string{"tiny"}, Path: kernel.Available()[0], Threads: 1, BlockSize: 32, KVBytes: 8 << 20,
			MaxQueue: 4, MaxBatch: 4, Secret: []byte("0123456789abcdef"), Disk: d, Load: sched.LoadAlways})
		if err != nil {
			t.Fatal(err)
		}
		reg := prometheus.NewRegistry()
		reg.MustRegister(pipeline.NewCollector(p))
		ts := httptest.NewServer(server.New(p, server.Options{Registry: reg, Log: slog.New(slog.DiscardHandler)}).Handler())
		r, err := http.Post(ts.URL+"/v1/completions", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		var answer openai.Completion
		if err := json.Unmarshal(b, &answer); err != nil {
			t.Fatal(err)
		}
		n := answer.Usage.PromptTokens
		answers = append(answers, answer.Choices[0].Text)
		want, usage := fmt.Sprintf("miss; cached=0/%d; reason=never_seen", n), `"cached_tokens":0}`
		if life > 0 {
			want, usage = fmt.Sprintf("hit; cached=%d/%d; reason=full; disk=%d", n-1, n, n-1), fmt.Sprintf(`"cached_tokens":%d,"disk_cached_tokens":%d}`, n-1, n-1)
		}
		if h := r.Header.Get("Kvasir-Cache"); h != want || !strings.Contains(string(b), usage) {
			t.Errorf("start %d: Kvasir-Cache %q, want %q; %s", life, h, want, b)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		values := map[string]float64{}
		for _, f := range families {
			if f.Metric[0].Counter != nil {
				values[f.GetName()] = f.Metric[0].Counter.GetValue()
			}
		}
		if got := values["kvasir_disk_cache_hits_total"]; got != float64(life)*float64(n-1) || (values["kvasir_disk_cache_read_records_total"] > 0) != (life > 0) {
			t.Errorf("start %d: %v", life, values)
		}
		ts.Close()
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	if answers[0] != answers[1] {
		t.Errorf("%q after the restart, %q before", answers[1], answers[0])
	}
}
