package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"

	"kvasir/internal/folders"
	"kvasir/internal/gguf"
)

const (
	maxListPages = 64       // of a repository's list of files
	maxListBytes = 16 << 20 // of one page
)

// listed is one file of a repository.
type listed struct {
	path  string
	bytes int64  // 0: unknown
	sum   string // SHA-256 in hex; "": unknown
}

// list asks the hub which files the source's repository has, and returns the one that its tag means, or all its parts. The hub answers pages
// of JSON, each with the address of the next in its Link header. The SHA-256 of every part comes from this one list, so that parts of
// different versions cannot meet.
func (f *fetcher) list(ctx context.Context, endpoint *url.URL, client *http.Client) ([]listed, error) {
	u := endpoint.JoinPath("api", "models", f.src.repo, "tree", "main")
	u.RawQuery = "recursive=true"
	d := &download{fetcher: f, endpoint: endpoint, url: u, client: client}
	files := map[string]listed{}
	var names []string
	for pages := 0; d.url != nil; pages++ {
		if pages == maxListPages {
			return nil, fmt.Errorf("the list of files of %s has more than %d pages", f.src.repo, maxListPages)
		}
		page, err := d.page(ctx)
		if err != nil {
			return nil, fmt.Errorf("list of files: %w", err)
		}
		for _, l := range page {
			if _, twice := files[l.path]; !twice {
				files[l.path] = l
				names = append(names, l.path)
			}
		}
	}
	slices.Sort(names)
	return pick(f.src, files, names)
}

// pick is the choice by tag, with all parts.
func pick(src source, files map[string]listed, names []string) ([]listed, error) {
	name, ok := folders.Choose(names, src.tag)
	if !ok {
		if tags := folders.Tags(names); len(tags) > 0 {
			return nil, fmt.Errorf("%s has no file for the tag %q; there are: %s", src.repo, src.tag, strings.Join(tags, ", "))
		}
		return nil, fmt.Errorf("%s has no model in the GGUF format; repositories that have one often end in -GGUF", src.repo)
	}
	var out []listed
	for _, p := range gguf.PartNames(name) {
		l, ok := files[p]
		if !ok {
			return nil, fmt.Errorf("%s is incomplete: it has no %s", src.repo, p)
		}
		out = append(out, l)
	}
	return out, nil
}

// page fetches one page of the list and sets url to the next one, nil after the last.
func (d *download) page(ctx context.Context) ([]listed, error) {
	for failures := 0; ; {
		page, next, err := d.askPage(ctx)
		if err == nil {
			d.url = next
			return page, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		var perm permanent
		var none unreached
		if failures++; failures >= maxFailures || errors.As(err, &perm) || errors.As(err, &none) {
			return nil, err
		}
		d.report(Connecting, 0, 0, fmt.Sprintf("%v; trying again", err))
		if err := d.wait(ctx, failures, err); err != nil {
			return nil, err
		}
	}
}

func (d *download) askPage(ctx context.Context) ([]listed, *url.URL, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, d.o.limits.idle, ErrStalled) // a page is small
	defer cancel()
	a, err := d.get(ctx, http.Header{"Accept": {"application/json"}, "User-Agent": {"kvasir"}})
	if err != nil {
		return nil, nil, err
	}
	defer a.resp.Body.Close()
	if a.resp.StatusCode == http.StatusNotFound {
		return nil, nil, permanent{fmt.Errorf("%s has no repository %s", a.resp.Request.URL.Host, d.src.repo)}
	}
	if a.resp.StatusCode != http.StatusOK {
		return nil, nil, d.statusError(a.resp)
	}
	body, err := io.ReadAll(io.LimitReader(a.resp.Body, maxListBytes+1))
	if err != nil {
		if c := context.Cause(ctx); c != nil {
			err = c
		}
		return nil, nil, fmt.Errorf("cut off: %w", err)
	}
	if len(body) > maxListBytes {
		return nil, nil, permanent{fmt.Errorf("larger than %d bytes", maxListBytes)}
	}
	page, err := parseList(body)
	if err != nil {
		return nil, nil, permanent{err}
	}
	next, err := nextPage(d.url, a.resp.Header.Values("Link"), d.endpoint)
	if err != nil {
		return nil, nil, permanent{err}
	}
	return page, next, nil
}

// parseList takes the .gguf files out of a page. What cannot be a path in a repository, or a file that this package would store, is left out.
func parseList(body []byte) ([]listed, error) {
	var entries []struct {
		Type string `json:"type"`
		Path string `json:"path"`
		Size int64  `json:"size"`
		LFS  *struct {
			OID  string `json:"oid"`
			Size int64  `json:"size"`
		} `json:"lfs"`
	}
	if err := json.Unmarshal(body, &entries); err != nil {
		return nil, fmt.Errorf("not a list of files: %w", err)
	}
	var out []listed
	for _, e := range entries {
		dir, base := path.Split(e.Path)
		odd := func(p string) bool { return !segmentPattern.MatchString(p) }
		if e.Type != "file" || !filePattern.MatchString(base) || e.Size < 0 || dir != "" && slices.ContainsFunc(strings.Split(strings.TrimSuffix(dir, "/"), "/"), odd) {
			continue
		}
		l := listed{path: e.Path, bytes: e.Size}
		if e.LFS != nil {
			if e.LFS.Size > 0 {
				l.bytes = e.LFS.Size
			}
			if sumPattern.MatchString(e.LFS.OID) {
				l.sum = e.LFS.OID
			}
		}
		out = append(out, l)
	}
	return out, nil
}

// nextPage reads the address of the next page out of Link headers such as <https://hub.example/…>; rel="next". It must be on the hub itself,
// since the token goes there.
func nextPage(at *url.URL, links []string, endpoint *url.URL) (*url.URL, error) {
	for _, link := range strings.Split(strings.Join(links, ","), ",") {
		target, params, ok := strings.Cut(strings.TrimSpace(link), ">")
		if !ok || !strings.HasPrefix(target, "<") || !strings.Contains(strings.ReplaceAll(params, `"`, ""), "rel=next") {
			continue
		}
		u, err := at.Parse(target[1:])
		if err != nil || !sameOrigin(u, endpoint) {
			return nil, errors.New("the list goes on at another server")
		}
		return u, nil
	}
	return nil, nil
}
