package disk

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"kvasir/internal/store/disk/faultfs"
)

// What no request has used for the retention time is deleted, at the start too; what is in use stays whole.
func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := faultfs.New()
		o := Options{FS: files, Retention: time.Hour}
		r := newRig(t, o)
		r.save(rootA, text(1, 12), 0)
		r.save(rootA, text(2, 12), 0)
		for range 9 {
			time.Sleep(10 * time.Minute)
			r.m.Find(rootA, text(1, 8), 0) // the first two blocks
		}
		if s := r.Stats(); s.Records != 2 || s.Expired != 4 {
			t.Errorf("%+v", s)
		}
		r.Close()
		time.Sleep(2 * time.Hour)
		r = newRig(t, o)
		synctest.Wait()
		if s := r.Stats(); s.Records != 0 || s.Expired != 2 {
			t.Errorf("%+v", s)
		}
		r.Close()
		if names := files.Files(); slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, suffix) }) {
			t.Errorf("left: %v", names)
		}
	})
}

// The write rate is kept, and the end does not wait for it.
func TestWriteRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{FS: faultfs.New(), WriteRate: 4096})
		begin := time.Now()
		r.save(rootA, text(1, 40), 0)
		if took := time.Since(begin); took < 8*time.Second || took > 10*time.Second {
			t.Errorf("10 records of 4,096 bytes took %v", took)
		}
		begin = time.Now()
		r.Close()
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}

// Others fill the disk: the tier deletes its own, and writes no more than leaves enough free.
func TestFreeSpace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := faultfs.New()
		files.Capacity = 400 << 10
		o := Options{FS: files, Floor: 100 << 10}
		r := newRig(t, o)
		free := func() uint64 { n, _ := files.Free(); return n }
		for i := range 60 {
			time.Sleep(time.Second)
			r.save(rootA, text(i, 8), 0)
			if free() < uint64(o.Floor) {
				t.Fatalf("after %d texts %d bytes are free", i, free())
			}
		}
		if s := r.Stats(); s.Evicted == 0 || s.Records < 40 || s.Full+s.WriteFaults != 0 {
			t.Errorf("%+v", s)
		}
		files.Set("another's", make([]byte, 200<<10))
		time.Sleep(2 * every)
		if s := r.Stats(); free() < uint64(o.Floor) || s.Records < 5 {
			t.Errorf("%d bytes are free beside %+v", free(), s)
		}
		if f, _, err := r.load(rootA, text(59, 9), 0); f.Tokens != 8 || err != nil {
			t.Errorf("the newest: %+v %v", f, err)
		}
		files.Set("more of it", make([]byte, 150<<10))
		time.Sleep(2 * every)
		r.save(rootA, text(100, 8), 0)
		if s := r.Stats(); s.Records != 0 || s.Full == 0 {
			t.Errorf("no room at all: %+v", s)
		}
		files.Remove("another's")
		files.Remove("more of it")
		r.save(rootA, text(100, 8), 0)
		if f, _, err := r.load(rootA, text(100, 9), 0); f.Tokens != 8 || err != nil {
			t.Errorf("room again: %+v %v", f, err)
		}
	})
}

// A share is one of what is free and what the tier has already.
func TestShare(t *testing.T) {
	files := faultfs.New()
	files.Capacity = 10 << 20
	var before int64
	for i := range 2 {
		d, err := Open(Options{FS: files, Share: 0.25})
		if err != nil {
			t.Fatal(err)
		}
		q := d.Stats().Quota
		if q < 5<<19 || q > 5<<19+1<<17 || i > 0 && (q < before-1<<16 || q > before+1<<16) {
			t.Errorf("start %d: a quota of %d", i, q)
		}
		before = q
		d.Close()
		r := newRig(t, Options{FS: files})
		r.save(rootA, text(i, 400), 0)
		r.Close()
	}
}
