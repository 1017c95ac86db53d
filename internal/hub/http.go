package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"kvasir/internal/config"
	"kvasir/internal/gguf"
)

const (
	maxRedirects = 10
	maxFailures  = 5       // in a row, without goodProgress between them
	goodProgress = 1 << 20 // bytes of one attempt that prove the server alive
)

// part is a file that is being fetched, with the hash of what it holds.
type part struct {
	f    *os.File
	hash hash.Hash
	have int64
}

// partState lies beside a part so that a later process can go on with it.
type partState struct {
	URL  string `json:"url"`
	ETag string `json:"etag,omitempty"` // strong ones only
}

// permanent marks an error that a retry would not change.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// answer is what a response says about the whole file.
type answer struct {
	resp   *http.Response
	total  int64  // -1: not announced
	start  int64  // offset of the body in the file
	linked string // SHA-256 announced by the hub, hex
}

// fromHub fetches one file of a repository, or all parts of a split model, resuming what is there. The protocol is plain HTTP: the hub answers with the file
// or with redirects to it, and may announce the SHA-256 of large files in X-Linked-Etag and their size in X-Linked-Size.
func (f *fetcher) fromHub(ctx context.Context) (fetched, error) {
	endpoint, err := url.Parse(f.o.HFEndpoint)
	if err != nil {
		return fetched{}, errors.New("bad endpoint URL")
	}
	client := f.client()
	defer client.CloseIdleConnections()
	var files []listed
	if f.src.file != "" {
		for _, name := range gguf.PartNames(f.src.file) {
			files = append(files, listed{path: name})
		}
	} else if files, err = f.list(ctx, endpoint, client); err != nil {
		return fetched{}, err
	}
	got := fetched{source: "hf:" + f.src.repo + "/" + files[0].path, verified: true}
	one := *f
	for _, file := range files {
		one.whole += file.bytes
	}
	if len(files) == 1 {
		one.whole = 0 // its own size is enough
	} else if err := f.room(max(one.whole-treeSize(f.store.abs(f.dir)), 0)); err != nil { // before the first part, not after most of them
		return fetched{}, err
	}
	for _, file := range files {
		if f.want.sum == "" {
			one.want = expected{path.Base(file.path), file.bytes, file.sum, "the hub's list"}
		}
		u := endpoint.JoinPath(f.src.repo, "resolve", "main", file.path)
		key := sha256.Sum256([]byte(u.Redacted()))
		name := path.Join(f.dir, hex.EncodeToString(key[:8]))
		d := &download{fetcher: &one, endpoint: endpoint, url: u, partName: name + ".part", stateName: name + ".json", client: client}
		sum, linked, n, err := d.run(ctx)
		if err != nil {
			if len(files) > 1 {
				err = fmt.Errorf("%s: %w", path.Base(file.path), err)
			}
			return fetched{}, err
		}
		got.verified = got.verified && (one.want.sum != "" || linked != "")
		got.parts = append(got.parts, fetchedPart{d.partName, one.want.file, sum, n})
		one.before += n
	}
	return got, nil
}

func (f *fetcher) client() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: f.o.limits.connect}).DialContext,
			TLSHandshakeTimeout:   f.o.limits.connect,
			ResponseHeaderTimeout: f.o.limits.header,
			DisableCompression:    true, // offsets and sizes are those of the file itself
			ForceAttemptHTTP2:     true,
		},
		// Redirects are followed by get, which decides for each whether the token may go along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// A download is the transfer of one URL into one part.
type download struct {
	*fetcher
	endpoint, url       *url.URL
	partName, stateName string
	client              *http.Client
	state               partState
	linked              string
}

// run returns the file's SHA-256, the one that the hub announced, and the size.
func (d *download) run(ctx context.Context) (sum, linked string, n int64, err error) {
	p, err := d.open(ctx)
	if err != nil {
		return "", "", 0, err
	}
	defer p.f.Close()
	total, failures, delivered := int64(-1), 0, false
	for {
		before := p.have
		total, err = d.attempt(ctx, p)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return "", "", 0, context.Cause(ctx)
		}
		delivered = delivered || p.have > before
		var perm permanent
		var none unreached
		if errors.As(err, &perm) || errors.As(err, &none) && !delivered {
			return "", "", 0, err
		}
		if p.have-before >= goodProgress {
			failures = 0
		}
		if failures++; failures >= maxFailures {
			return "", "", 0, fmt.Errorf("given up after %d attempts (%s fetched are kept): %w", failures, config.Size(p.have).Short(), err)
		}
		d.report(Downloading, p.have, max(total, d.want.bytes, 0), fmt.Sprintf("%v; trying again", err))
		if err := d.wait(ctx, failures, err); err != nil {
			return "", "", 0, err
		}
	}
	d.report(Verifying, total, total, "")
	sum = hex.EncodeToString(p.hash.Sum(nil))
	if err = d.checkSum(sum, d.linked); err == nil {
		err = checkMagic(p.f)
	}
	if err != nil {
		p.f.Close()
		return "", "", 0, errors.Join(err, d.store.root.Remove(d.partName), d.store.root.Remove(d.stateName))
	}
	if err := p.f.Sync(); err != nil {
		return "", "", 0, err
	}
	return sum, d.linked, total, p.f.Close()
}

// wait passes the time before the next attempt: longer after each failure, and at least what the server asked for.
func (f *fetcher) wait(ctx context.Context, failures int, err error) error {
	wait := f.o.limits.backoff(failures - 1)
	var busy overloaded
	if errors.As(err, &busy) {
		wait = max(wait, busy.after)
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(wait):
		return nil
	}
}

// open opens the part and hashes what an earlier call left in it. A part of another URL, or one that cannot be the beginning of
// the wanted file, is emptied.
func (d *download) open(ctx context.Context) (*part, error) {
	f, err := d.store.root.OpenFile(d.partName, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	p := &part{f: f, hash: sha256.New()}
	data, err := d.store.root.ReadFile(d.stateName)
	if err == nil {
		err = json.Unmarshal(data, &d.state)
	} else if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	info, serr := f.Stat()
	if serr != nil {
		f.Close()
		return nil, serr
	}
	tooLarge := d.want.bytes > 0 && info.Size() > d.want.bytes
	// Without a strong ETag only a known SHA-256 can tell whether two parts fit together.
	loose := d.state.ETag == "" && d.want.sum == ""
	if err != nil || tooLarge || loose || d.state.URL != d.url.Redacted() {
		d.state = partState{}
		if err := p.reset(); err != nil {
			f.Close()
			return nil, err
		}
		return p, nil
	}
	if info.Size() > 0 {
		d.report(Verifying, 0, info.Size(), "")
	}
	if p.have, err = io.Copy(p.hash, contextReader{ctx, f}); err != nil {
		f.Close()
		return nil, err
	}
	return p, nil
}

func (p *part) reset() error {
	p.have = 0
	p.hash.Reset()
	if err := p.f.Truncate(0); err != nil {
		return err
	}
	_, err := p.f.Seek(0, io.SeekStart)
	return err
}

// attempt makes one request and reads its body. It returns the file's size, -1 if that is unknown, and nil if the part is whole.
func (d *download) attempt(ctx context.Context, p *part) (int64, error) {
	if d.want.bytes > 0 && p.have == d.want.bytes {
		return p.have, nil // as with status 416 in ask
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a, err := d.ask(ctx, p)
	if err != nil {
		return -1, err
	}
	defer a.resp.Body.Close()
	if a.total < 0 {
		return -1, permanent{errors.New("the server does not announce the size")}
	}
	if d.want.bytes > 0 && a.total != d.want.bytes {
		return -1, permanent{fmt.Errorf("%w: the server has %d bytes, %s says %d", ErrSize, a.total, d.want.by, d.want.bytes)}
	}
	if d.want.sum != "" && a.linked != "" && a.linked != d.want.sum {
		return -1, permanent{fmt.Errorf("%w: the hub has another file (%s), %s says %s", ErrChecksum, a.linked, d.want.by, d.want.sum)}
	}
	d.linked = a.linked
	if a.start != p.have {
		if err := p.reset(); err != nil { // the whole file from its start
			return a.total, permanent{err}
		}
	}
	if err := d.room(a.total - p.have); err != nil {
		return a.total, permanent{err}
	}
	if err := d.remember(a.resp); err != nil {
		return a.total, permanent{err}
	}
	stalled := time.AfterFunc(d.o.limits.idle, func() { cancel(fmt.Errorf("%w: no byte for %s", ErrStalled, d.o.limits.idle)) })
	defer stalled.Stop()
	buf := make([]byte, 256<<10)
	for p.have < a.total {
		n, err := a.resp.Body.Read(buf[:min(int64(len(buf)), a.total-p.have)])
		if n > 0 {
			stalled.Reset(d.o.limits.idle)
			if w, err := p.f.Write(buf[:n]); err != nil {
				// Hash and length must agree with the file if a later call goes on.
				p.hash.Write(buf[:w])
				p.have += int64(w)
				return a.total, permanent{err}
			}
			p.hash.Write(buf[:n])
			p.have += int64(n)
			d.report(Downloading, p.have, a.total, "")
		}
		if err != nil && p.have < a.total {
			if c := context.Cause(ctx); c != nil {
				err = c
			} else if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return a.total, fmt.Errorf("cut off at %d of %d bytes: %w", p.have, a.total, err)
		}
	}
	if n, _ := a.resp.Body.Read(buf[:1]); n > 0 {
		return a.total, permanent{errors.Join(fmt.Errorf("%w: the server sends more than the %d bytes it announced", ErrSize, a.total), p.reset())}
	}
	return a.total, nil
}

// ask requests the rest of the file, and the whole of it if the server says that the part is of another version.
func (d *download) ask(ctx context.Context, p *part) (answer, error) {
	h := http.Header{"Accept-Encoding": {"identity"}, "User-Agent": {"kvasir"}}
	if p.have > 0 {
		h.Set("Range", fmt.Sprintf("bytes=%d-", p.have))
		if d.state.ETag != "" {
			h.Set("If-Range", d.state.ETag)
		}
	}
	a, err := d.get(ctx, h)
	if err != nil {
		return a, err
	}
	again := func(why string) (answer, error) {
		a.resp.Body.Close()
		if p.have == 0 {
			return answer{}, permanent{errors.New(why)}
		}
		d.state.ETag = ""
		if err := p.reset(); err != nil {
			return answer{}, permanent{err}
		}
		return answer{}, errors.New(why)
	}
	resp := a.resp
	if e := resp.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		resp.Body.Close()
		return answer{}, permanent{fmt.Errorf("the server sends the file encoded (%s)", e)}
	}
	switch resp.StatusCode {
	case http.StatusOK:
		if resp.ContentLength >= 0 {
			a.total = resp.ContentLength
		}
		return a, nil
	case http.StatusPartialContent:
		start, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || start != p.have || total < start {
			return again(fmt.Sprintf("the server answers with the wrong part (%q)", resp.Header.Get("Content-Range")))
		}
		if e := resp.Header.Get("ETag"); d.state.ETag != "" && e != d.state.ETag {
			return again("the file has changed on the server")
		}
		a.start, a.total = start, total
		return a, nil
	case http.StatusRequestedRangeNotSatisfiable:
		if resp.Header.Get("Content-Range") == fmt.Sprintf("bytes */%d", p.have) && p.have > 0 {
			// Nothing is missing: an earlier process ended between the last byte and the rename.
			resp.Body.Close()
			resp.Body = http.NoBody
			a.start, a.total = p.have, p.have
			return a, nil
		}
		return again("the server has no such part of the file")
	}
	defer resp.Body.Close()
	return answer{}, d.statusError(resp)
}

// remember writes down which version of the file the part is of.
func (d *download) remember(resp *http.Response) error {
	st := partState{URL: d.url.Redacted()}
	if e := resp.Header.Get("ETag"); strings.HasPrefix(e, `"`) && len(e) < 512 {
		st.ETag = e
	}
	d.state = st
	data, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return d.store.root.WriteFile(d.stateName, data, 0o644)
}

// parseContentRange reads "bytes first-last/total".
func parseContentRange(s string) (first, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(s, "/")
	a, b, ok3 := strings.Cut(span, "-")
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	total, err3 := strconv.ParseInt(all, 10, 64)
	return first, total, ok && ok2 && ok3 && errors.Join(err1, err2, err3) == nil && first >= 0 && last >= first && total == last+1
}

// contextReader stops reading when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
