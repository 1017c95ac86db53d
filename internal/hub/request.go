package hub

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// statusError says what an answer without a file means.
func (d *download) statusError(resp *http.Response) error {
	err := fmt.Errorf("%s answers %s", resp.Request.URL.Host, resp.Status)
	switch c := resp.StatusCode; {
	case c == http.StatusUnauthorized || c == http.StatusForbidden:
		switch {
		case resp.Header.Get("X-Error-Code") == "GatedRepo":
			err = fmt.Errorf("%w (accept the terms of %s on its page at the hub; HF_TOKEN is a token of that account)", err, d.src.repo)
		case d.o.HFToken == "":
			err = fmt.Errorf("%w (private models need HF_TOKEN; where there is no such repository, hubs say the same)", err)
		case !d.tokenAllowed(d.endpoint):
			err = fmt.Errorf("%w (HF_TOKEN is not sent over plain http)", err)
		default:
			err = fmt.Errorf("%w (HF_TOKEN does not give access to %s)", err, d.src.repo)
		}
		return permanent{err}
	case c == http.StatusTooManyRequests || c >= 500:
		return overloaded{err, retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	}
	return permanent{err}
}

// retryAfter reads a Retry-After header, seconds or a date. More than half a minute is not waited: another mirror may have the file.
func retryAfter(header string, now time.Time) time.Duration {
	wait := time.Duration(0)
	if n, err := strconv.Atoi(header); err == nil {
		wait = time.Duration(min(n, 3600)) * time.Second
	} else if t, err := http.ParseTime(header); err == nil {
		wait = t.Sub(now)
	}
	return min(max(wait, 0), 30*time.Second)
}

// overloaded is a refusal that may pass.
type overloaded struct {
	error
	after time.Duration
}

func (o overloaded) Unwrap() error { return o.error }

// unreached means that there was no answer at all.
type unreached struct{ error }

func (u unreached) Unwrap() error { return u.error }

// get follows redirects by itself: the token goes to the endpoint's own origin and nowhere else, and https never becomes http.
func (d *download) get(ctx context.Context, h http.Header) (answer, error) {
	a := answer{total: -1}
	u := d.url
	for range maxRedirects {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return a, permanent{errors.New("bad URL")}
		}
		req.Header = h.Clone()
		if d.tokenAllowed(u) && d.o.HFToken != "" {
			req.Header.Set("Authorization", "Bearer "+d.o.HFToken)
		}
		resp, err := d.client.Do(req)
		if err != nil {
			var ue *url.Error
			if errors.As(err, &ue) {
				err = ue.Err // its URL may hold the signature of a redirect
			}
			return a, unreached{fmt.Errorf("no answer from %s: %w", u.Host, err)}
		}
		if sameOrigin(u, d.endpoint) {
			if s := strings.Trim(resp.Header.Get("X-Linked-Etag"), `"`); sumPattern.MatchString(s) {
				a.linked = s
			}
			if n, err := strconv.ParseInt(resp.Header.Get("X-Linked-Size"), 10, 64); err == nil && n > 0 {
				a.total = n
			}
		}
		switch resp.StatusCode {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			a.resp = resp
			return a, nil
		}
		resp.Body.Close()
		if u, err = redirect(u, resp.Header.Get("Location")); err != nil {
			return a, permanent{err}
		}
	}
	return a, permanent{fmt.Errorf("%s redirects more than %d times", d.url.Host, maxRedirects)}
}

// redirect returns where u leads to by a Location header; from https only to https.
func redirect(u *url.URL, location string) (*url.URL, error) {
	next, err := u.Parse(location)
	if err != nil || location == "" || next.Host == "" || next.Scheme != "https" && (next.Scheme != "http" || u.Scheme == "https") {
		return nil, fmt.Errorf("%s redirects to somewhere that is not allowed", u.Host)
	}
	return next, nil
}

func sameOrigin(a, b *url.URL) bool { return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host) }

func (d *download) tokenAllowed(u *url.URL) bool {
	if !sameOrigin(u, d.endpoint) {
		return false
	}
	ip, err := netip.ParseAddr(u.Hostname())
	return u.Scheme == "https" || u.Hostname() == "localhost" || err == nil && ip.IsLoopback()
}
