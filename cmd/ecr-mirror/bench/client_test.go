package bench

import (
	"context"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// accept is what every request accepts: docker-registry gives OCI manifests only to those who name them.
const accept = "application/vnd.oci.image.manifest.v1+json, */*"

// got is a finished download.
type got struct {
	status int
	bytes  int64
	first  time.Duration // until the first byte of the body
	all    time.Duration
}

// client returns one with connections of its own, which follows redirects.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableCompression: true, ReadBufferSize: 64 * kib}}
}

// get downloads url, or the range of it, and verifies want unless it is "".
func get(ctx context.Context, c *http.Client, url, rng string, want digest.Digest) (g got, err error) {
	begin := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return g, err
	}
	req.Header.Set("Accept", accept)
	if rng != "" {
		req.Header.Set("Range", rng)
	}
	resp, err := c.Do(req)
	if err != nil {
		return g, err
	}
	defer resp.Body.Close()
	if g.status = resp.StatusCode; g.status >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 300))
		return g, fmt.Errorf("%s: %s: %s", url, resp.Status, text)
	}
	if rng != "" && g.status != http.StatusPartialContent {
		return g, nil // the answer is not read: it is not what was asked for
	}
	var sum hash.Hash
	if want != "" {
		sum = want.Algorithm().Hash()
	}
	buf := make([]byte, 256*kib)
	for err == nil {
		var n int
		n, err = resp.Body.Read(buf)
		if g.bytes == 0 && n > 0 {
			g.first = time.Since(begin)
		}
		g.bytes += int64(n)
		if sum != nil {
			sum.Write(buf[:n])
		}
	}
	g.all = time.Since(begin)
	switch {
	case err != io.EOF:
		return g, err
	case resp.ContentLength >= 0 && g.bytes != resp.ContentLength:
		return g, fmt.Errorf("%s: %d bytes of %d", url, g.bytes, resp.ContentLength)
	case sum != nil && digest.NewDigest(want.Algorithm(), sum) != want:
		return g, fmt.Errorf("%s: wrong bytes", url)
	}
	return g, nil
}

// pull fetches an image as docker and containerd do by default: the manifest by its tag, then three blobs at a time.
func pull(ctx context.Context, base string, img registrytest.Node) (time.Duration, error) {
	begin := time.Now()
	c := client()
	defer c.CloseIdleConnections()
	if _, err := get(ctx, c, base+"/manifests/"+tag, "", img.Desc.Digest); err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for _, l := range img.Blobs {
		g.Go(func() error {
			_, err := get(ctx, c, base+"/blobs/"+l.Desc.Digest.String(), "", l.Desc.Digest)
			return err
		})
	}
	err := g.Wait()
	return time.Since(begin), err
}

// crowd has n clients download url at once, the first of them verifying, and returns the median time to the first byte and
// the time until the last is done.
func crowd(ctx context.Context, n int, url string, want digest.Digest) (first, last time.Duration, err error) {
	g, ctx := errgroup.WithContext(ctx)
	firsts, alls := make([]time.Duration, n), make([]time.Duration, n)
	for i := range n {
		g.Go(func() error {
			c := client()
			defer c.CloseIdleConnections()
			check := want
			if i > 0 {
				check = ""
			}
			r, err := get(ctx, c, url, "", check)
			firsts[i], alls[i] = r.first, r.all
			return err
		})
	}
	err = g.Wait()
	return median(firsts), slices.Max(alls), err
}

func median[T ~int64 | ~float64](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}
