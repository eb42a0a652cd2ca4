package remote

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// location returns where an upload goes on; anywhere but the registry's own origin is refused.
func (r *Registry) location(resp *http.Response) (*url.URL, error) {
	u, err := resp.Location()
	if err != nil {
		return nil, registry.Errorf(registry.Unavailable, "upload location: missing or not a URL")
	}
	if !sameOrigin(u, r.base) || u.User != nil {
		return nil, registry.Errorf(registry.Invalid, "upload location: %s://%s is not %s", u.Scheme, u.Host, r.base)
	}
	return u, nil
}

// cancelUpload frees what a registry keeps for an upload that will not be finished. Nobody waits long for it, and a failure
// changes nothing: registries purge abandoned uploads.
func (r *Registry) cancelUpload(ctx context.Context, repo string, at *url.URL) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if resp, err := r.do(ctx, call{method: http.MethodDelete, url: at, scopes: push(repo)}); err == nil {
		resp.Body.Close()
	}
}

// upload is a request body made of the caller's reader. The HTTP transport may go on reading a body after the request has
// failed; the caller's reader is its own again after detach.
type upload struct {
	timeout time.Duration
	alive   func(time.Duration) // puts off the request's deadline

	mu   sync.Mutex // held during a Read
	r    *bufio.Reader
	done bool
	err  error // of r
}

func newUpload(body io.Reader, d registry.Descriptor, timeout time.Duration) *upload {
	return &upload{timeout: timeout, r: bufio.NewReaderSize(registry.Verify(body, d.Digest, d.Size), 64<<10)}
}

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.done {
		return 0, io.ErrClosedPipe
	}
	n, err := u.r.Read(p)
	if err == nil && n > 0 {
		// The last byte leaves once the end behind it is verified, so the registry never has all of a body that is refused here.
		if _, err = u.r.Peek(1); err != nil {
			if err == io.EOF {
				err = nil
			} else {
				n = 0
			}
		}
	}
	if err != nil && err != io.EOF {
		u.err = err
	}
	if u.alive != nil {
		// The caller's reader bounds its own silence; the registry's is bounded from here, with time to store it all.
		u.alive(15 * u.timeout)
	}
	return n, err
}

func (u *upload) detach() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.done = true
}

func (u *upload) failed() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}
