// Package peak measures what a processor can do at most: operations a second that stay in registers, and bytes a second
// from memory. They are the limits that the kernels' rates are held against (a roofline); nothing else uses this package.
//
// The loops of the assembly paths do nothing but issue the instruction that bounds a matrix product on that path. The Go path's are plain Go,
// which says what portable code reaches, not what the processor could do.
package peak

//go:generate go run -C ../_asm ./peak -out ../peak/peak_amd64.s -stubs ../peak/stubs_amd64.go -pkg peak

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"kvasir/internal/kernel"
)

// An Op is a kind of arithmetic.
type Op uint8

// The kinds. A multiplication and an addition are two operations.
const (
	Int8 Op = iota // sums of products of bytes, as quantised weights need
	F32            // float32 multiply-add, as attention needs
)

func (o Op) String() string {
	if o == Int8 {
		return "int8"
	}
	return "f32"
}

// A Rate is what was measured, per second.
type Rate struct {
	Median float64 `json:"median"`
	Best   float64 `json:"best"`
}

// Readable is what the buffer of Bandwidth is a multiple of, for each thread.
const Readable = 512

// shortest is how long one measurement is at least: long against starting threads and the clock.
const shortest = 10 * time.Millisecond

// Instructions says what the loop of a path and kind is made of.
func Instructions(p kernel.Path, o Op) string { return loopOf(p, o).name }

// Compute measures operations a second on so many threads at once, times times. p must be one of kernel.Available. It fails if
// ctx ends.
func Compute(ctx context.Context, p kernel.Path, o Op, threads, times int) (Rate, error) {
	if err := check(threads, times); err != nil {
		return Rate{}, err
	}
	l := loopOf(p, o)
	turns := 1000
	one := func() time.Duration { return together(threads, func(int) { l.run(turns) }) }
	for one() < shortest {
		if err := ctx.Err(); err != nil {
			return Rate{}, err
		}
		turns *= 2
	}
	return repeat(ctx, times, func() float64 {
		return float64(l.ops) * float64(turns) * float64(threads) / one().Seconds()
	})
}

// Bandwidth measures bytes read a second by so many threads at once, times times, each thread over its own part of buf. It takes the path's own loop
// and the plain one in turn and returns the rate of the quicker: narrow loads can read more from one core (Zen 4: 21 GB/s with 8 bytes at a
// time, 18 with 32, 16 with 64), and it is the limit that is asked for. To measure memory
// and not a cache, buf must be much larger than the caches and must have been written to. It fails if buf has less than Readable bytes
// a thread, or if ctx ends.
func Bandwidth(ctx context.Context, p kernel.Path, threads, times int, buf []byte) (Rate, error) {
	if err := check(threads, times); err != nil {
		return Rate{}, err
	}
	if len(buf)/threads < Readable {
		return Rate{}, fmt.Errorf("%d threads cannot share %d bytes; each needs %d", threads, len(buf), Readable)
	}
	part := len(buf) / threads / Readable * Readable
	var rates [2][]float64
	for range times {
		for i, read := range [2]func([]byte){readerOf(p), readGo} {
			if err := ctx.Err(); err != nil {
				return Rate{}, err
			}
			t := together(threads, func(i int) { read(buf[i*part:][:part]) })
			rates[i] = append(rates[i], float64(part)*float64(threads)/t.Seconds())
		}
	}
	own, plain := rateOf(rates[0]), rateOf(rates[1])
	if plain.Median > own.Median {
		return plain, nil
	}
	return own, nil
}

func check(threads, times int) error {
	if threads < 1 || times < 1 {
		return errors.New("at least one thread and one measurement are needed")
	}
	return nil
}

// repeat calls one so many times, at least once.
func repeat(ctx context.Context, times int, one func() float64) (Rate, error) {
	v := make([]float64, times)
	for i := range v {
		if err := ctx.Err(); err != nil {
			return Rate{}, err
		}
		v[i] = one()
	}
	return rateOf(v), nil
}

func rateOf(v []float64) Rate {
	slices.Sort(v)
	n := len(v)
	return Rate{Median: (v[(n-1)/2] + v[n/2]) / 2, Best: v[n-1]}
}

// together runs f on so many threads, each on a processor of its own where the system lets us say so (two new threads tend to begin on the same
// one), and returns the time from when all were there to the end of the last.
func together(threads int, f func(i int)) time.Duration {
	var ready, done sync.WaitGroup
	open := make(chan struct{})
	ready.Add(threads)
	for i := range threads {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			defer pin(i)()
			ready.Done()
			<-open
			f(i)
		})
	}
	ready.Wait()
	start := time.Now()
	close(open)
	done.Wait()
	return time.Since(start)
}
