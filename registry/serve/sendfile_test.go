package serve_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/serve"
)

// fileReader serves one blob from a file through Span, a growing one in steps.
type fileReader struct {
	registry.Reader
	path  string
	size  int64
	steps []error // Span returns them in turn, a nil gives bytes
}

func (r *fileReader) Open(ctx context.Context, o registry.Object, rg registry.Range) (*registry.Content, error) {
	f, err := os.Open(r.path)
	if err != nil {
		return nil, err
	}
	rg, _ = rg.Clip(r.size)
	if _, err := f.Seek(rg.Offset, io.SeekStart); err != nil {
		return nil, err
	}
	return &registry.Content{Descriptor: registry.Descriptor{Digest: o.Digest, Size: r.size}, Range: rg, From: r,
		ReadCloser: &fileBody{File: f, left: rg.Length, steps: r.steps}}, nil
}

type fileBody struct {
	*os.File
	left  int64
	steps []error
}

func (b *fileBody) Span(_ context.Context, max int64) (*os.File, int64, error) {
	if len(b.steps) > 0 {
		err := b.steps[0]
		if b.steps = b.steps[1:]; err != nil {
			return nil, 0, err
		}
	}
	n := min(b.left, max, 300_000)
	b.left -= n
	return b.File, n, nil
}

// spyListener counts what reaches a connection's ReadFrom as a bare file, which is what the kernel can send by itself.
type spyListener struct {
	net.Listener
	files *atomic.Int64 // bytes that came from files
}

type spyConn struct {
	*net.TCPConn
	files *atomic.Int64
}

func (l spyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return spyConn{c.(*net.TCPConn), l.files}, nil
}

func (c spyConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.TCPConn.ReadFrom(r)
	if l, ok := r.(*io.LimitedReader); ok {
		if _, ok := l.R.(*os.File); ok {
			c.files.Add(n)
		}
	}
	return n, err
}

// TestSendfile holds that every byte of content in a file goes from the file to the connection without passing the server.
func TestSendfile(t *testing.T) {
	body := registrytest.Bytes(9, 3<<20)
	path := t.TempDir() + "/blob"
	if err := os.WriteFile(path, body, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		steps []error
		rng   string
		want  int64 // bytes from the file
		ok    bool
	}{
		"whole":      {want: 3 << 20, ok: true},
		"range":      {rng: "bytes=1000000-1999999", want: 1000000, ok: true},
		"cut":        {steps: []error{nil, nil, errors.New("upstream is gone")}, want: 600_000},
		"ends early": {steps: []error{nil, io.EOF}, want: 300_000},
		"corrupt":    {steps: []error{registry.Errorf(registry.Corrupt, "wrong")}},
	} {
		t.Run(name, func(t *testing.T) {
			var files atomic.Int64
			srv := httptest.NewUnstartedServer(serve.New(serve.Options{Mirrors: []serve.Mirror{{Reader: &fileReader{path: path, size: 3 << 20, steps: c.steps}}}}))
			srv.Listener = spyListener{srv.Listener, &files}
			srv.Start()
			defer srv.Close()
			req, _ := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/v2/app/blobs/"+digest.FromBytes(body).String(), nil)
			want := body
			if c.rng != "" {
				req.Header.Set("Range", c.rng)
				want = body[1000000:2000000]
			}
			resp, err := srv.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if c.ok != (err == nil) || !c.ok && !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(want, got) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if int64(len(got)) != c.want || files.Load() != c.want {
				t.Errorf("%d bytes, %d of them straight from the file, want %d", len(got), files.Load(), c.want)
			}
		})
	}
}
