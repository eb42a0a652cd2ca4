package remote_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// Answers of a registry that is not well, and the class that callers see for each operation.
func TestStatuses(t *testing.T) {
	image := registrytest.Image(1, 10)
	blob, manifest := image.Objects("app")[1], image.Objects("app")[2]
	for status, want := range map[int]registry.Class{
		301: registry.Unavailable, // without a Location
		400: registry.Invalid, 401: registry.Denied, 403: registry.Denied, 404: registry.NotFound, 408: registry.Unavailable,
		429: registry.Throttled, 500: registry.Unavailable, 502: registry.Unavailable, 503: registry.Unavailable, 204: registry.Unavailable,
	} {
		f := newFake(t)
		f.answer = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(status)
			return true
		}
		r := f.open(t, remote.Options{})
		_, err1 := r.Resolve(t.Context(), "app", "v1")
		_, err2 := r.Stat(t.Context(), blob)
		_, err3 := r.Open(t.Context(), blob, registry.Whole)
		_, err4 := r.Open(t.Context(), manifest, registry.Whole)
		var err5 error
		for _, err := range r.Tags(t.Context(), "app") {
			err5 = err
		}
		for i, err := range []error{err1, err2, err3, err4, err5} {
			if err == nil || registry.ClassOf(err) != want {
				t.Errorf("%d: operation %d: %v, want %v", status, i+1, err, want)
			}
			code := []string{registry.CodeManifestUnknown, registry.CodeBlobUnknown, registry.CodeBlobUnknown, registry.CodeManifestUnknown, registry.CodeNameUnknown}[i]
			if want == registry.NotFound && registry.CodeOf(err) != code {
				t.Errorf("%d: operation %d: code %q, want %q", status, i+1, registry.CodeOf(err), code)
			}
			var e *registry.Error
			if errors.As(err, &e) && (status == 429 || status == 503) && e.RetryAfter != 7*time.Second {
				t.Errorf("%d: operation %d: retry after %v", status, i+1, e.RetryAfter)
			}
		}
		if n := len(f.seen()); n != 5 {
			t.Errorf("%d: %d requests, want 5: nothing is repeated here", status, n)
		}
	}
}

// Blob answers that are not what was asked for.
func TestBlobAnswers(t *testing.T) {
	image := registrytest.Image(1, 1000)
	o, body := image.Objects("app")[1], image.Blobs[1].Body
	type answer struct {
		status int
		header http.Header
		body   []byte
	}
	h := func(kv ...string) http.Header {
		h := http.Header{}
		for i := 0; i < len(kv); i += 2 {
			h.Set(kv[i], kv[i+1])
		}
		return h
	}
	rng := registry.Range{Offset: 10, Length: 20}
	for _, tt := range []struct {
		name string
		ask  registry.Range
		answer
		open, read error // class, or nil
		sequential bool
	}{
		{"right", rng, answer{206, h("Content-Range", "bytes 10-29/1000"), body[10:30]}, nil, nil, false},
		{"range ignored", rng, answer{200, nil, body}, nil, nil, true},
		{"range ignored, from 0", registry.Range{Offset: 0, Length: 5}, answer{200, nil, body}, nil, nil, true},
		{"range ignored, and too short", registry.Range{Offset: 1000, Length: 5}, answer{200, nil, body}, registry.Invalid, nil, false},
		{"whole cut short", registry.Whole, answer{200, h("Content-Length", "1000"), body[:400]}, nil, registry.Unavailable, false},
		{"ignored range cut before it", registry.Range{Offset: 500, Length: 5}, answer{200, h("Content-Length", "1000"), body[:400]}, registry.Unavailable, nil, false},
		{"range cut short", rng, answer{206, h("Content-Range", "bytes 10-29/1000", "Content-Length", "20"), body[10:25]}, nil, registry.Unavailable, false},
		{"no size", registry.Whole, answer{200, h("Transfer-Encoding", "chunked"), body}, registry.Unavailable, nil, false},
		{"another range", rng, answer{206, h("Content-Range", "bytes 0-19/1000"), body[:20]}, registry.Corrupt, nil, false},
		{"shorter range", rng, answer{206, h("Content-Range", "bytes 10-19/1000"), body[10:20]}, registry.Corrupt, nil, false},
		{"longer range", rng, answer{206, h("Content-Range", "bytes 10-999/1000"), body[10:]}, registry.Corrupt, nil, false},
		{"length against range", rng, answer{206, h("Content-Range", "bytes 10-29/1000"), body[10:25]}, registry.Corrupt, nil, false},
		{"range without size", rng, answer{206, h("Content-Range", "bytes 10-29/*"), body[10:30]}, registry.Unavailable, nil, false},
		{"no content-range", rng, answer{206, nil, body[10:30]}, registry.Corrupt, nil, false},
		{"nonsense content-range", rng, answer{206, h("Content-Range", "bytes 29-10/5"), body[10:30]}, registry.Corrupt, nil, false},
		{"206 unasked", registry.Whole, answer{206, h("Content-Range", "bytes 0-999/1000"), body}, registry.Unavailable, nil, false},
		{"416", registry.Range{Offset: 5000, Length: 1}, answer{416, h("Content-Range", "bytes */1000"), nil}, registry.Invalid, nil, false},
		{"a page for people", registry.Whole, answer{503, h("Content-Type", "text/html"), []byte("<html>")}, registry.Unavailable, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.answer = func(w http.ResponseWriter, r *http.Request) bool {
				for k, v := range tt.header {
					w.Header()[k] = v
				}
				w.WriteHeader(tt.status)
				w.Write(tt.body)
				return true
			}
			r := f.open(t, remote.Options{})
			c, err := r.Open(t.Context(), o, tt.ask)
			if !errors.Is(err, tt.open) {
				t.Fatalf("open: %v, want %v", err, tt.open)
			}
			if err != nil {
				return
			}
			defer c.Close()
			got, err := io.ReadAll(c)
			if !errors.Is(err, tt.read) || (err != nil && !errors.Is(err, io.ErrUnexpectedEOF)) {
				t.Errorf("read: %v, want %v", err, tt.read)
			}
			clip, _ := tt.ask.Clip(1000)
			if want := body[clip.Offset : clip.Offset+clip.Length]; err == nil && !bytes.Equal(got, want) || !bytes.HasPrefix(want, got) {
				t.Errorf("read %d bytes that are not those asked for", len(got))
			}
			if c.Sequential != tt.sequential || c.Descriptor.Size != 1000 {
				t.Errorf("sequential %v, size %d", c.Sequential, c.Descriptor.Size)
			}
		})
	}
}

func TestManifestAnswers(t *testing.T) {
	image, other := registrytest.Image(1, 10), registrytest.Image(2, 10)
	o := image.Objects("app")[2]
	huge := append(bytes.Clone(image.Body), bytes.Repeat([]byte(" "), registry.MaxManifestSize)...)
	for _, tt := range []struct {
		name        string
		body        []byte
		digest      digest.Digest // header
		ctype       string
		get, byTag  error
		length      string
		wantedMedia string
	}{
		{name: "right", body: image.Body, digest: image.Desc.Digest, ctype: image.Desc.MediaType},
		{name: "type with parameters", body: image.Body, digest: image.Desc.Digest, ctype: image.Desc.MediaType + "; charset=utf-8"},
		{name: "no type", body: image.Body, digest: image.Desc.Digest, ctype: "application/json"},
		{name: "no digest", body: image.Body, ctype: image.Desc.MediaType},
		{name: "digest is nonsense", body: image.Body, digest: "sha256:../x", ctype: image.Desc.MediaType},
		{name: "another manifest", body: other.Body, digest: other.Desc.Digest, ctype: image.Desc.MediaType, get: registry.Corrupt},
		{name: "another manifest under our digest", body: other.Body, digest: image.Desc.Digest, ctype: image.Desc.MediaType, get: registry.Corrupt},
		{name: "our manifest under another digest", body: image.Body, digest: other.Desc.Digest, ctype: image.Desc.MediaType, get: registry.Corrupt},
		{name: "not a manifest", body: []byte("<html>"), ctype: "text/plain", get: registry.Corrupt, byTag: registry.Invalid},
		{name: "huge", body: huge, ctype: image.Desc.MediaType, get: registry.Invalid, byTag: registry.Invalid},
		{name: "huge, without a length", body: huge, ctype: image.Desc.MediaType, length: "chunked", get: registry.Invalid, byTag: registry.Invalid},
		{name: "cut short", body: image.Body[:20], digest: image.Desc.Digest, ctype: image.Desc.MediaType, length: "1000", get: registry.Unavailable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if tt.digest != "" {
					w.Header().Set("Docker-Content-Digest", tt.digest.String())
				}
				w.Header().Set("Content-Type", tt.ctype)
				if tt.length == "chunked" {
					w.Header().Set("Transfer-Encoding", "chunked")
				} else if w.Header().Set("Content-Length", fmt.Sprint(len(tt.body))); tt.length != "" {
					w.Header().Set("Content-Length", tt.length)
				}
				w.WriteHeader(http.StatusOK)
				w.Write(tt.body)
				return true
			}
			r := f.open(t, remote.Options{})
			c, err := r.Open(t.Context(), o, registry.Whole)
			if !errors.Is(err, tt.get) {
				t.Errorf("open: %v, want %v", err, tt.get)
			}
			if err == nil {
				got, err := io.ReadAll(c)
				if err != nil || !bytes.Equal(got, image.Body) || c.Descriptor.MediaType != image.Desc.MediaType {
					t.Errorf("read %d bytes of %q, %v", len(got), c.Descriptor.MediaType, err)
				}
				c.Close()
			}
			d, err := r.Resolve(t.Context(), "app", "v1")
			if !errors.Is(err, tt.byTag) {
				t.Errorf("resolve: %v, want %v", err, tt.byTag)
			}
			if err == nil && (d.Digest != image.Desc.Digest && d.Digest != other.Desc.Digest || d.MediaType != image.Desc.MediaType) {
				t.Errorf("resolve: %v", d)
			}
			for _, h := range f.headers {
				if got := h.Get("Accept"); got != strings.Join(registry.ManifestTypes(), ", ") {
					t.Errorf("accept %q", got)
				}
			}
		})
	}
	f := newFake(t)
	registrytest.Push(t, f.Registry, "app", "v1", image)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Docker-Content-Digest", other.Desc.Digest.String())
		w.Header().Set("Content-Length", "10")
		w.Header().Set("Content-Type", image.Desc.MediaType)
		return true
	}
	if _, err := f.open(t, remote.Options{}).Stat(t.Context(), o); !errors.Is(err, registry.Corrupt) {
		t.Errorf("stat of a digest that is another: %v", err)
	}
}

// Bytes arrive as they are stored, whatever the registry says of their encoding.
func TestNothingIsDecoded(t *testing.T) {
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	z.Write(bytes.Repeat([]byte("a"), 1000))
	z.Close()
	f := newFake(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("accept-encoding %q", got)
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(zipped.Bytes())
		return true
	}
	o := registry.Object{Repo: "app", Digest: digest.FromBytes(zipped.Bytes())}
	c, err := f.open(t, remote.Options{}).Open(t.Context(), o, registry.Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, zipped.Bytes()) {
		t.Errorf("read %d bytes, %v, want %d", len(got), err, zipped.Len())
	}
}

// A registry that goes silent, before its headers or within a body, is given up on after Timeout, and a slow reader is not.
func TestSilence(t *testing.T) {
	image := registrytest.Image(1, 1000)
	o := image.Objects("app")[1]
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := open(t, remote.Options{Registry: "registry.example", Timeout: 20 * time.Second, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})})
		_, err := r.Stat(t.Context(), o)
		if took := time.Since(start); !errors.Is(err, registry.Unavailable) || took != 20*time.Second {
			t.Errorf("no headers: %v after %v", err, took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := open(t, remote.Options{Registry: "registry.example", Timeout: 20 * time.Second, Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			pr, pw := io.Pipe()
			go func() {
				for _, b := range []byte("abc") {
					time.Sleep(15 * time.Second) // slow, but not silent
					pw.Write([]byte{b})
				}
				<-r.Context().Done()
				pw.CloseWithError(r.Context().Err())
			}()
			return &http.Response{StatusCode: 200, ContentLength: 1000, Header: http.Header{}, Body: pr, Request: r}, nil
		})})
		c, err := r.Open(t.Context(), o, registry.Whole)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // the reader's own pause does not count
		start := time.Now()
		got, err := io.ReadAll(c)
		if took := time.Since(start); string(got) != "abc" || !errors.Is(err, registry.Unavailable) || took != 50*time.Second {
			t.Errorf("silent body: %q, %v after %v", got, err, took)
		}
		c.Close()
	})
}

func TestCancelledInTheBody(t *testing.T) {
	f := newFake(t)
	f.answer = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte("abc"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}
	ctx, cancel := context.WithCancel(t.Context())
	c, err := f.open(t, remote.Options{}).Open(ctx, registrytest.Image(1, 1000).Objects("app")[1], registry.Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.ReadFull(c, make([]byte, 3))
	cancel()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) || !errors.Is(err, registry.Unavailable) {
		t.Errorf("read: %v", err)
	}
}

func TestNoRegistryThere(t *testing.T) {
	f := newFake(t)
	r := f.open(t, remote.Options{})
	f.srv.Close()
	if _, err := r.Resolve(t.Context(), "app", "v1"); !errors.Is(err, registry.Unavailable) {
		t.Errorf("resolve: %v", err)
	}
}
