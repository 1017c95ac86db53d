package disk

import (
	"fmt"
	"testing"

	"kvasir/internal/cache"
)

// BenchmarkOpen is a start with 100,000 records, with the journal and without.
func BenchmarkOpen(b *testing.B) {
	const records = 100_000
	dir := b.TempDir()
	r := newRig(b, Options{Dir: dir, Quota: 1 << 40})
	small := tiny
	small.Layers, small.Bytes = 1, 64
	m, err := r.Model(small)
	if err != nil {
		b.Fatal(err)
	}
	m.Root(rootA, nil)
	done := make(chan cache.Outcome, queueLength)
	parent, ids := rootA, text(0, 32*records)
	for i := range records {
		s := &cache.Save{Root: rootA, Parent: parent, Tokens: ids[i*32 : i*32+32]}
		s.Key = cache.Chain(parent, nil, s.Tokens)
		if i%50 != 49 {
			parent = s.Key
		} else {
			parent = rootA
		}
		small.BlockSize = 32
		m.format.BlockSize = 32
		for !m.Save(s, func(d []byte) []byte { return d }, func(o cache.Outcome) { done <- o }) {
		}
		if o := <-done; o != cache.SaveDone {
			b.Fatal(o)
		}
	}
	r.Close()
	for _, journal := range []bool{true, false} {
		b.Run(fmt.Sprintf("journal=%v", journal), func(b *testing.B) {
			for b.Loop() {
				if !journal {
					b.StopTimer()
					root, err := openDir(dir)
					if err != nil {
						b.Fatal(err)
					}
					root.Remove(journalName)
					root.Close()
					b.StartTimer()
				}
				d, err := Open(Options{Dir: dir, Quota: 1 << 40})
				if err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				if n := d.Stats().Records; n != records {
					b.Fatalf("%d records", n)
				}
				b.ReportMetric(d.Stats().OpenSeconds, "s/open")
				d.Close()
				b.StartTimer()
			}
		})
	}
}

// BenchmarkSave writes records of 720 KiB.
func BenchmarkSave(b *testing.B) {
	r := newRig(b, Options{Dir: b.TempDir(), Quota: 1 << 30})
	large := tiny
	large.Layers, large.Bytes = 30, 720<<10
	m, err := r.Model(large)
	if err != nil {
		b.Fatal(err)
	}
	m.Root(rootA, nil)
	payload := make([]byte, large.Bytes)
	done := make(chan cache.Outcome, 1)
	b.SetBytes(int64(large.Bytes))
	i := int32(0)
	for b.Loop() {
		i++
		s := &cache.Save{Root: rootA, Parent: rootA, Tokens: []int32{i, 1, 2, 3}}
		s.Key = cache.Chain(rootA, nil, s.Tokens)
		m.Save(s, func([]byte) []byte { return payload }, func(o cache.Outcome) { done <- o })
		<-done
	}
}
