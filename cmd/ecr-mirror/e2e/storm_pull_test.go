package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// stormClient is a client of the mirrors. It believes nothing: every byte is compared with what was pushed.
type stormClient struct {
	s      *storm
	client *http.Client
}

func newStormClient(s *storm) *stormClient {
	return &stormClient{s, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Second}}}
}

var (
	errRefused = errors.New("refused") // another time, or another host, may have it
	errCut     = errors.New("cut")     // the end of the body is missing
	errAbsent  = errors.New("absent")
	errWrong   = errors.New("WRONG")
)

// form is how a client names the registry.
type form int

const (
	direct form = iota
	prefixed
	ns
)

// part is one of an image's parts at a mirror.
type part struct {
	m    *subject
	form form
	repo string
}

func (r part) url(rest string) string {
	switch r.form {
	case prefixed:
		return "http://" + r.m.addr + "/v2/" + stormHost + "/" + r.repo + rest
	case ns:
		return "http://" + r.m.addr + "/v2/" + r.repo + rest + "?ns=" + stormHost
	}
	return "http://" + r.m.addr + "/v2/" + r.repo + rest
}

// step is one thing that a client does.
func (p *stormClient) step(r *rand.Rand) (what, result string) {
	time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
	at := part{m: p.s.mirrors[r.IntN(len(p.s.mirrors))], form: form(r.IntN(3))}
	img, ok := p.s.model.pick(r)
	if !ok {
		return "nothing to pull", ""
	}
	at.repo = img.repo
	blob := func() digest.Digest {
		n := img.node
		for len(n.Blobs) == 0 {
			n = n.Children[r.IntN(len(n.Children))]
		}
		return n.Blobs[r.IntN(len(n.Blobs))].Desc.Digest
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var err error
	image := img.repo + "@" + img.node.Desc.Digest.String()
	there := func(err error) error { return p.absent(err, image, began) }
	switch n := r.IntN(20); {
	case n < 7 && img.tag != "":
		what, err = "pull "+img.tag, p.pull(ctx, at, img.tag, time.Time{})
	case n < 10:
		what, err = "pull", p.pull(ctx, at, img.node.Desc.Digest.String(), time.Time{})
	case n < 14:
		what = "range of " + blob().String()
		err = there(p.blobRange(ctx, at, blob(), r))
	case n < 16:
		what, err = "head", there(p.head(ctx, at, img.node.Desc.Digest))
	case n < 17:
		what, err = "slowly", there(p.blob(ctx, at, blob(), &slowly{}))
	case n < 19:
		what, err = "abort", there(p.abort(ctx, at, blob(), r.Int64N(1<<20)))
	default:
		what, err = "tags", p.tags(ctx, at)
	}
	return fmt.Sprintf("%s at %s of %s", what, at.m.name, image), p.judge(at.m, began, err)
}

// judge says in a word how an operation ended, counts it, and fails the test if it must not have ended so.
func (p *stormClient) judge(m *subject, began time.Time, err error) string {
	result, s := "ok", p.s
	switch {
	case err == nil:
	case errors.Is(err, errWrong):
		result = "WRONG"
		s.t.Errorf("%s: %v", m.name, err)
	case errors.Is(err, errAbsent):
		result = "absent"
	case m.troubled(began):
		result = "excused"
	case errors.Is(err, errCut):
		result = "cut"
	default:
		result = "refused"
	}
	s.model.count(result)
	if err != nil {
		return result + ": " + err.Error()
	}
	return result
}

// open asks for what has 200 or 206. The caller closes the body.
func (p *stormClient) open(ctx context.Context, method, url, byteRange string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", strings.Join(append(registry.ManifestTypes(), "*/*"), ", "))
	want := http.StatusOK
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
		want = http.StatusPartialContent
	}
	res, err := p.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefused, err)
	}
	if res.StatusCode == want {
		return res, nil
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 500)) // for the message
	_ = res.Body.Close()                                 // only the status counts
	switch res.StatusCode {
	case http.StatusNotFound:
		return nil, fmt.Errorf("%w: %s: %s", errAbsent, url, text)
	case http.StatusServiceUnavailable, http.StatusForbidden: // a role may be away
		return nil, fmt.Errorf("%w: %s: %s %s", errRefused, url, res.Status, text)
	}
	return nil, fmt.Errorf("%w: %s %s: %s %s", errWrong, method, url, res.Status, text)
}

// whole returns all of a body that says how long it is.
func whole(res *http.Response, through io.Writer) ([]byte, error) {
	defer func() { _ = res.Body.Close() }() // read to its end, or given up
	var b bytes.Buffer
	if _, err := io.Copy(io.MultiWriter(&b, through), res.Body); err != nil {
		return nil, fmt.Errorf("%w: %d of %d bytes of %s: %w", errCut, b.Len(), res.ContentLength, res.Request.URL, err)
	}
	if res.ContentLength != int64(b.Len()) {
		return nil, fmt.Errorf("%w: %s: %d bytes, and Content-Length %d", errWrong, res.Request.URL, b.Len(), res.ContentLength)
	}
	return b.Bytes(), nil
}

const absence = 15 * time.Second // for how long what came may still be said to be absent

// pull is what docker pull does. since is from when on what the tag named may be answered.
func (p *stormClient) pull(ctx context.Context, at part, ref string, since time.Time) error {
	began := time.Now()
	res, err := p.open(ctx, http.MethodGet, at.url("/manifests/"+ref), "")
	key := at.repo + ":" + ref
	byDigest := strings.Contains(ref, ":")
	if byDigest {
		key = at.repo + "@" + ref
	}
	if err != nil {
		return p.absent(err, key, began)
	}
	named := digest.Digest(res.Header.Get("Docker-Content-Digest"))
	age := res.Header.Get("X-Ecr-Mirror-Tag-Age")
	body, err := whole(res, io.Discard)
	if err != nil {
		return err
	}
	got := digest.FromBytes(body)
	if got != named || byDigest && got.String() != ref {
		return fmt.Errorf("%w: %s: %s, and the header says %s", errWrong, key, got, named)
	}
	if !byDigest && !p.s.model.held(key, got, since, time.Now()) {
		return fmt.Errorf("%w: %s: %s, age %q: that it did not name since %v", errWrong, key, got, age, since)
	}
	var m struct {
		Config    *ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if err := json.Unmarshal(body, &m); err != nil {
		return fmt.Errorf("%w: %s: %w", errWrong, key, err)
	}
	for _, c := range m.Manifests {
		if err := p.pull(ctx, at, c.Digest.String(), since); err != nil {
			return err
		}
	}
	if m.Config != nil {
		m.Layers = append(m.Layers, *m.Config)
	}
	for _, l := range m.Layers {
		if err := p.absent(p.blob(ctx, at, l.Digest, io.Discard), at.repo+"@"+got.String(), began); err != nil {
			return err
		}
	}
	return nil
}

// absent is err, unless it is a lie: what had been there for long, and was not deleted, is not absent.
func (p *stormClient) absent(err error, key string, began time.Time) error {
	if errors.Is(err, errAbsent) && !p.s.model.held(key, "", began.Add(-absence), time.Now()) {
		return fmt.Errorf("%w: %s is there: %w", errWrong, key, err)
	}
	return err
}

func (p *stormClient) blob(ctx context.Context, at part, d digest.Digest, through io.Writer) error {
	res, err := p.open(ctx, http.MethodGet, at.url("/blobs/"+d.String()), "")
	if err != nil {
		return err
	}
	b, err := whole(res, through)
	if err == nil && digest.FromBytes(b) != d {
		err = fmt.Errorf("%w: blob %s: %s", errWrong, d, digest.FromBytes(b))
	}
	return err
}

// part is a Range, somewhere.
func (p *stormClient) blobRange(ctx context.Context, at part, d digest.Digest, r *rand.Rand) error {
	all := p.s.model.bytes(d)
	from := r.IntN(len(all))
	to := from + r.IntN(len(all)-from)
	byteRange := fmt.Sprintf("bytes=%d-%d", from, to)
	if r.IntN(3) == 0 {
		byteRange, to = fmt.Sprintf("bytes=%d-", from), len(all)-1
	}
	res, err := p.open(ctx, http.MethodGet, at.url("/blobs/"+d.String()), byteRange)
	if err != nil {
		return err
	}
	says := res.Header.Get("Content-Range")
	b, err := whole(res, io.Discard)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("bytes %d-%d/%d", from, to, len(all)); says != want || !bytes.Equal(b, all[from:to+1]) {
		return fmt.Errorf("%w: blob %s: %d bytes for %s, and Content-Range %s", errWrong, d, len(b), byteRange, says)
	}
	return nil
}

func (p *stormClient) head(ctx context.Context, at part, d digest.Digest) error {
	res, err := p.open(ctx, http.MethodHead, at.url("/manifests/"+d.String()), "")
	if err != nil {
		return err
	}
	_ = res.Body.Close() // there is none
	if want := int64(len(p.s.model.bytes(d))); res.ContentLength != want || res.Header.Get("Docker-Content-Digest") != d.String() {
		return fmt.Errorf("%w: head of %s: %d bytes, want %d; %s", errWrong, d, res.ContentLength, want, res.Header.Get("Docker-Content-Digest"))
	}
	return nil
}

// abort leaves in the middle. What came until then is right, but for the end that may be withheld.
func (p *stormClient) abort(ctx context.Context, at part, d digest.Digest, n int64) error {
	res, err := p.open(ctx, http.MethodGet, at.url("/blobs/"+d.String()), "")
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()                            // given up
	_, _ = io.CopyN(io.Discard, res.Body, min(n, res.ContentLength/2)) // whatever comes
	return nil
}

func (p *stormClient) tags(ctx context.Context, at part) error {
	res, err := p.open(ctx, http.MethodGet, at.url("/tags/list"), "")
	if err != nil {
		return err
	}
	b, err := whole(res, io.Discard)
	var list struct{ Tags []string }
	if err == nil && json.Unmarshal(b, &list) != nil {
		return fmt.Errorf("%w: tags of %s: %s", errWrong, at.repo, b)
	}
	return err
}

// slowly is a client that cannot write faster.
type slowly struct{ n int }

func (s *slowly) Write(b []byte) (int, error) {
	if s.n += len(b); s.n > 256<<10 {
		s.n = 0
		time.Sleep(100 * time.Millisecond)
	}
	return len(b), nil
}
