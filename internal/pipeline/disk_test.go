package pipeline

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"kvasir/internal/llm"
	"kvasir/internal/sched"
	"kvasir/internal/store/disk"
	"kvasir/internal/testmodel"
)

// A prompt after a restart finds on disk exactly what it shares with what was there before, and generates the same.
func TestRestart(t *testing.T) {
	model := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(model, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "kv")
	start := func() (*Pipeline, func()) {
		d, err := disk.Open(disk.Options{Dir: dir, Quota: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		o := options()
		o.Disk, o.Load = d, sched.LoadAlways
		p, err := Open(model, o)
		if err != nil {
			t.Fatal(err)
		}
		return p, func() {
			if err := p.Close(context.Background()); err != nil {
				t.Error(err)
			}
			checkBlocks(t, p)
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	p, stop := start()
	base := ramp(0, 333)
	r := request(ids(base...), 40)
	r.Logprobs = 0
	cold := must(t, p, r)
	stop()
	history := slices.Concat(base, cold.choices[0].ids())
	for _, n := range []int{1, 31, 32, 33, 200, 333, 350, 372} {
		p, stop = start()
		prompt := append(slices.Clone(history[:n]), 499, 498, 497)
		r := request(ids(prompt...), 8)
		r.Logprobs = 0
		got := must(t, p, r)
		want := llm.Decision{PromptTokens: n + 3, Reused: n, Loaded: n, Reason: llm.ReasonDiverged}
		if n == 372 {
			want.Reason = llm.ReasonExtended
		}
		if got.decisions[0] != want {
			t.Errorf("%d shared: %+v", n, got.decisions[0])
		}
		other := *r
		other.Tenant = fmt.Sprint("tenant ", n)
		if o := must(t, p, &other); o.decisions[0].Reused != 0 || o.decisions[0].Reason != llm.ReasonNeverSeen {
			t.Errorf("another tenant: %+v", o.decisions[0])
		}
		r.NoCache = true
		if again := must(t, p, r); again.choices[0].text != got.choices[0].text {
			t.Errorf("%d shared: %q, computed %q", n, got.choices[0].text, again.choices[0].text)
		}
		stop()
	}
}
