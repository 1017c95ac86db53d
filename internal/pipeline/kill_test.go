package pipeline

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kvasir/internal/sched"
	"kvasir/internal/store/disk"
	"kvasir/internal/testmodel"
)

var killFlag = flag.Int("kills", 0, "kills of TestKill; 0: 10, with -short 4")

// killEnv tells a process of this test that it is to serve, from the directory that it names, until it is killed.
const killEnv = "KVASIR_TEST_KILL_DIR"

// A killLine is what the process that is killed says of a finished request.
type killLine struct {
	Ready          bool
	Prompt, Tokens int
	Reused, Loaded int
	Text           string
	Err            string
}

// TestKill lets a process serve random requests with a disk cache and kills it at random moments. Whatever it has said by then is right, it can always be
// started again, and what it had stored is there.
func TestKill(t *testing.T) {
	if dir := os.Getenv(killEnv); dir != "" {
		killed(t, dir)
		return
	}
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("repeat with -chaos-seed %d", seed)
	kills := *killFlag
	if kills == 0 {
		if kills = 10; testing.Short() {
			kills = 4
		}
	}
	dir := t.TempDir()
	model := filepath.Join(dir, "tiny.gguf")
	if err := testmodel.Write(model, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	known := knownPrompts(t, model, rnd, 60)
	var prompts [][]int32
	for _, k := range known {
		prompts = append(prompts, k.prompt)
	}
	b, err := json.Marshal(prompts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "prompts.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	p := open(t, nil)
	decode := tokenText(p)
	var starts []time.Duration
	answers, tokens, reused, loaded, first, firstLoaded := 0, 0, 0, 0, 0, 0
	// Until something was loaded there are more runs, longer and longer: on a busy machine some random moments are too early for anything.
	for k := 0; k < kills || loaded == 0 && k < kills+60; k++ {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKill$", fmt.Sprintf("-chaos-seed=%d", rnd.Uint64()))
		cmd.Env = append(os.Environ(), killEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		begin := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(rnd.ExpFloat64() * 150e6)
		if k >= kills {
			after = time.Duration(k-kills+1) * 500 * time.Millisecond
		}
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		said, ready := 0, false
		for lines.Scan() {
			var l killLine
			if json.Unmarshal(lines.Bytes(), &l) != nil {
				continue // cut off in the middle, or the test's own
			}
			switch {
			case l.Ready:
				ready = true
				starts = append(starts, time.Since(begin))
				time.AfterFunc(after, func() { cmd.Process.Kill() })
			case l.Err != "":
				t.Errorf("run %d: a request failed: %s", k, l.Err)
			default:
				if want := decode(known[l.Prompt].next[:l.Tokens]); l.Text != want {
					t.Errorf("run %d: prompt %d, %d reused, %d loaded: %q, want %q", k, l.Prompt, l.Reused, l.Loaded, l.Text, want)
				}
				n := len(known[l.Prompt].prompt)
				if said < 4 && k > 0 {
					first, firstLoaded = first+n, firstLoaded+l.Loaded
				}
				said++
				answers, tokens, reused, loaded = answers+1, tokens+n, reused+l.Reused, loaded+l.Loaded
			}
		}
		cmd.Wait()
		if !ready {
			t.Fatalf("run %d did not start: %s", k, stderr.String())
		}
		if t.Failed() {
			break
		}
	}
	slices.Sort(starts)
	t.Logf("%d kills, %d right answers; start p50 %v, p99 %v; of %d prompt tokens %d reused, %d of them from disk; of the first answers after a start %d of %d from disk",
		len(starts), answers, starts[len(starts)/2], starts[(len(starts)*99+99)/100-1], tokens, reused, loaded, firstLoaded, first)
	if answers == 0 || loaded == 0 {
		t.Error("nothing was answered, or nothing loaded")
	}
}

// killed serves until it is killed.
func killed(t *testing.T, dir string) {
	var prompts [][]int32
	b, err := os.ReadFile(filepath.Join(dir, "prompts.json"))
	if err == nil {
		err = json.Unmarshal(b, &prompts)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := disk.Open(disk.Options{Dir: filepath.Join(dir, "kv"), Quota: 6 << 20})
	if err != nil {
		t.Fatal(err)
	}
	o := options()
	o.KVBytes, o.Disk, o.Load = 40*blockBytes, d, sched.LoadAlways
	p, err := Open(filepath.Join(dir, "tiny.gguf"), o)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	say := func(l killLine) {
		b, _ := json.Marshal(l)
		mu.Lock()
		fmt.Printf("\n%s\n", b)
		mu.Unlock()
	}
	say(killLine{Ready: true})
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(*seedFlag, uint64(c)))
			for range 100_000 { // longer than anybody waits
				l := killLine{Prompt: rnd.IntN(len(prompts)), Tokens: 1 + rnd.IntN(20)}
				st, err := p.Generate(context.Background(), request(ids(prompts[l.Prompt]...), l.Tokens))
				if err == nil {
					out := read(st, 1)
					l.Text, err = out.choices[0].text, out.err
					if err == nil {
						l.Reused, l.Loaded = out.decisions[0].Reused, out.decisions[0].Loaded
					}
				}
				if err != nil {
					l.Err = err.Error()
				}
				say(l)
			}
		})
	}
	wg.Wait()
}
