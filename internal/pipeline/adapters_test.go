package pipeline

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"kvasir/internal/gguf"
	"kvasir/internal/llm"
	"kvasir/internal/sched"
	"kvasir/internal/store/disk"
	"kvasir/internal/testmodel"
)

// adapters makes n adapters of the tiny model, all different, named a0, a1 and so on.
func adapters(t testing.TB, n int) []Adapter {
	t.Helper()
	var list []Adapter
	for i := range n {
		path := filepath.Join(t.TempDir(), "adapter.gguf")
		shape := testmodel.Adapter{Rank: []int{2, 8, 16, 33}[i%4], Alpha: 8, Type: []gguf.Type{gguf.F16, gguf.F32}[i%2], Seed: uint64(i)}
		if i%5 == 4 {
			shape.Only = []string{"attn_q.weight", "attn_v.weight"}
		}
		if err := testmodel.WriteAdapter(path, testmodel.Tiny, shape); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, Adapter{Name: fmt.Sprintf("a%d", i), Path: path, Digest: sha256.Sum256(b)})
	}
	return list
}

// scaled is an adapter with a scale of its own.
func scaled(name string, scale float32) llm.AdapterChoice {
	return llm.AdapterChoice{Name: name, Scale: &scale}
}

// A way is what a request may use: an adapter by its name as a model, a list, or nothing.
type way struct {
	name string // of the model; "" is tiny
	list []llm.AdapterChoice
}

func (w way) String() string {
	s := "base"
	if w.name != "" {
		s = w.name
	}
	for _, c := range w.list {
		s += fmt.Sprint(" ", c.Name, c.ID)
		if c.Scale != nil {
			s += fmt.Sprint(":", *c.Scale)
		}
	}
	return s
}

// request is a greedy one, with the log-probabilities of what it generates.
func (w way) request(prompt []int32, n int) *llm.Request {
	r := request(ids(prompt...), n)
	r.Logprobs, r.Adapters = 0, w.list
	if w.name != "" {
		r.Model = w.name
	}
	return r
}

// difference says whether two answers have the same tokens with the same log-probabilities.
func difference(got, want outcome) error {
	a, b := got.choices[0].tokens, want.choices[0].tokens
	if len(a) != len(b) {
		return fmt.Errorf("%d tokens, want %d", len(a), len(b))
	}
	for i := range a {
		if a[i].ID != b[i].ID || math.Float32bits(a[i].Logprob) != math.Float32bits(b[i].Logprob) {
			return fmt.Errorf("token %d is %d (%v), want %d (%v)", i, a[i].ID, a[i].Logprob, b[i].ID, b[i].Logprob)
		}
	}
	return nil
}

// Sixteen adapters, lists of them, and the model alone: nothing that was computed for one is used for another, and 200 requests of all of
// them at once are answered as each adapter answers when it is served alone, without a cache and without drafts.
func TestAdaptersApart(t *testing.T) {
	const count, requests, prompts, most = 16, 200, 3, 140
	list := adapters(t, count)
	ways := []way{{}}
	for _, a := range list {
		ways = append(ways, way{name: a.Name})
	}
	ways = append(ways, way{list: []llm.AdapterChoice{scaled("a1", 0.5), {ID: 2}}}, way{list: []llm.AdapterChoice{{Name: "a2"}, scaled("a1", 0.5)}},
		way{list: []llm.AdapterChoice{scaled("a3", 2)}}, way{list: []llm.AdapterChoice{scaled("a3", -1)}})

	type key struct{ way, prompt, length int }
	alone := map[key]outcome{}
	rng := rand.New(rand.NewPCG(1, 16))
	asks := make([]key, requests)
	for i := range asks {
		asks[i] = key{i % len(ways), rng.IntN(prompts), most - 2*rng.IntN(20)}
	}
	for w, way := range ways {
		p := open(t, func(o *Options) {
			o.NoCache, o.NoDrafts, o.Adapters = true, true, list[:4]
			if w >= 1 && w <= count {
				o.Adapters = list[w-1 : w]
			}
		})
		for _, k := range append(asks, key{w, 0, most}) {
			if _, ok := alone[k]; !ok && k.way == w {
				alone[k] = must(t, p, way.request(ramp(k.prompt, most)[:k.length], 10))
			}
		}
	}
	texts := map[string]string{}
	for w, way := range ways {
		text := fmt.Sprint(alone[key{w, 0, most}].choices[0].tokens) // with log-probabilities: the order of a list changes no more than the last bits
		if other, twice := texts[text]; twice {
			t.Errorf("%v and %v say the same", way, other)
		}
		texts[text] = way.String()
	}

	p := open(t, func(o *Options) { o.Adapters, o.KVBytes = list, 2048*blockBytes })
	for round, want := range []string{llm.ReasonNeverSeen, llm.ReasonFull} {
		for w, way := range ways {
			o := must(t, p, way.request(ramp(0, most), 10))
			if err := difference(o, alone[key{w, 0, most}]); err != nil {
				t.Errorf("round %d, %v: %v", round, way, err)
			}
			if d := o.decisions[0]; d.Reason != want || round == 0 && d.Reused != 0 || round == 1 && d.Reused != most-1 {
				t.Errorf("round %d, %v: %+v", round, way, d)
			}
		}
	}

	var wg sync.WaitGroup
	var mu sync.Mutex
	reused := 0
	for _, k := range asks {
		wg.Go(func() {
			o := run(t, p, ways[k.way].request(ramp(k.prompt, most)[:k.length], 10))
			if o.err == nil {
				o.err = difference(o, alone[k])
			}
			if o.err != nil {
				t.Errorf("%v: %v", ways[k.way], o.err)
			}
			mu.Lock()
			reused += o.usage.CachedTokens
			mu.Unlock()
		})
	}
	wg.Wait()
	if reused < requests/prompts*(most-40) {
		t.Errorf("%d tokens reused by %d requests", reused, requests)
	}
}

// A scale of 0, in a list or as all of it, is the model alone, and shares its cache; so do two names of one file.
func TestAdapterScaleZeroIsBase(t *testing.T) {
	list := adapters(t, 2)
	again := list[0]
	again.Name = "again"
	p := open(t, func(o *Options) { o.Adapters = append(list, again) })
	base := must(t, p, way{}.request(ramp(0, 100), 10))
	one := must(t, p, way{name: "a0"}.request(ramp(0, 100), 10))
	for _, c := range []struct {
		way
		want outcome
	}{
		{way{list: []llm.AdapterChoice{scaled("a0", 0)}}, base},
		{way{list: []llm.AdapterChoice{}}, base},
		{way{list: []llm.AdapterChoice{scaled("a1", 0), {Name: "a0"}}}, one},
		{way{list: []llm.AdapterChoice{scaled("a0", 1)}}, one},
		{way{name: "again"}, one},
	} {
		o := must(t, p, c.way.request(ramp(0, 100), 10))
		if err := difference(o, c.want); err != nil || o.decisions[0].Reused != 99 {
			t.Errorf("%v: %v, %+v", c.way, err, o.decisions[0])
		}
	}
}

// After a restart, with the adapters in another order and under other names, each finds on disk what was its own.
func TestAdaptersApartOnDisk(t *testing.T) {
	list := adapters(t, 2)
	dir := t.TempDir()
	start := func(list []Adapter) *Pipeline {
		d, err := disk.Open(disk.Options{Dir: dir, Quota: 1 << 30})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return open(t, func(o *Options) { o.Disk, o.Load, o.Adapters = d, sched.LoadAlways, list })
	}
	stop := func(p *Pipeline) {
		if err := p.Close(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := p.o.Disk.Close(); err != nil {
			t.Fatal(err)
		}
	}
	p := start(list)
	want := must(t, p, way{name: "a0"}.request(ramp(0, 100), 10))
	stop(p)
	list[0].Name, list[1].Name = "x", "a0"
	p = start([]Adapter{list[1], list[0]})
	for _, name := range []string{"tiny", "a0"} {
		if o := must(t, p, way{name: name}.request(ramp(0, 100), 10)); o.usage.CachedTokens != 0 {
			t.Errorf("%s found what was another's: %+v", name, o.decisions[0])
		}
	}
	o := must(t, p, way{name: "x"}.request(ramp(0, 100), 10))
	if err := difference(o, want); err != nil || o.usage.LoadedTokens != 99 {
		t.Errorf("%v, %+v", err, o.decisions[0])
	}
}

func TestAdapterRequests(t *testing.T) {
	list := adapters(t, 12)
	p := open(t, func(o *Options) { o.Adapters = list })
	nan := float32(math.NaN())
	many := make([]llm.AdapterChoice, 9)
	for i := range many {
		many[i].ID = i
	}
	for _, c := range []struct {
		way
		says string
	}{
		{way{name: "a0", list: []llm.AdapterChoice{{Name: "a1"}}}, "is an adapter"},
		{way{list: []llm.AdapterChoice{{Name: "b"}}}, `no adapter "b"; served: a0 (id 0), a1 (id 1)`},
		{way{list: []llm.AdapterChoice{{ID: 12}}}, "no adapter with id 12"},
		{way{list: []llm.AdapterChoice{{ID: 3}, {Name: "a3"}}}, "again"},
		{way{list: []llm.AdapterChoice{{ID: 1, Scale: &nan}}}, "lora[0].scale"},
		{way{list: []llm.AdapterChoice{{ID: 0}, scaled("a1", 1001)}}, "lora[1].scale"},
		{way{list: many}, "at most 8"},
	} {
		o := run(t, p, c.way.request(ramp(0, 10), 1))
		if e := wantError(t, o.err, llm.KindInvalid); e != nil && (!strings.Contains(e.Message, c.says) || e.Param != "lora") {
			t.Errorf("%v: %q about %q", c.way, e.Message, e.Param)
		}
	}
	none := open(t, nil)
	if o := run(t, none, way{list: []llm.AdapterChoice{{ID: 0}}}.request(ramp(0, 10), 1)); o.err == nil || !strings.Contains(o.err.Error(), "has none") {
		t.Errorf("without adapters: %v", o.err)
	}

	models := p.Models()
	if len(models) != 13 || models[1].ID != "a0" || models[1].Parent != "tiny" || models[1].Digest != fmt.Sprintf("%x", list[0].Digest) || models[1].Context != models[0].Context || models[0].Parent != "" {
		t.Errorf("models %+v", models)
	}
	if p.AdapterBytes() < 12*10000 {
		t.Errorf("adapters of %d bytes", p.AdapterBytes())
	}

	// Any number of scales costs a bounded number of remembered roots, and is served all the same.
	for i := range 2 * maxRoots {
		if _, key, err := p.uses(way{list: []llm.AdapterChoice{scaled("a0", 1+float32(i)/4096)}}.request(nil, 1)); err != nil || p.root("a", key) == p.root("a", nil) {
			t.Fatal(err)
		}
	}
	if n := len(p.roots["a"]); n > maxRoots+1 {
		t.Errorf("%d roots remembered", n)
	}
}

func TestAdapterOpenErrors(t *testing.T) {
	list := adapters(t, 2)
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := testmodel.Write(path, testmodel.Tiny); err != nil {
		t.Fatal(err)
	}
	wide := testmodel.Tiny
	wide.Embd = 256
	other := filepath.Join(t.TempDir(), "other.gguf")
	if err := testmodel.WriteAdapter(other, wide, testmodel.Adapter{Rank: 4, Alpha: 4, Type: gguf.F32}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		list []Adapter
		says string
	}{
		{"the name of the model", []Adapter{{Name: "alias", Path: list[0].Path}}, "not unique"},
		{"one name twice", []Adapter{list[0], list[0]}, "not unique"},
		{"no file", []Adapter{list[0], {Name: "x", Path: filepath.Join(t.TempDir(), "none")}}, "none"},
		{"a model", []Adapter{list[0], {Name: "x", Path: path}}, "general.type"},
		{"another model's", []Adapter{list[0], {Name: "x", Path: other}}, other},
	} {
		o := options()
		o.Adapters = c.list
		p, err := Open(path, o)
		if err == nil {
			p.Close(context.Background())
		}
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
