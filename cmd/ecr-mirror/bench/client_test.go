package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// accept is what every request accepts: docker-registry gives OCI manifests only to those who name them.
const accept = "application/vnd.oci.image.manifest.v1+json, */*"

// got is a finished download.
type got struct {
	status int
	first  time.Duration // until the first byte of the body
	all    time.Duration
}

// client returns one with connections of its own, which follows redirects.
func client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableCompression: true, ReadBufferSize: 64 * kib}}
}

// get downloads url, or the range of it, and compares it with want. The body of an answer to a range that is not 206 is
// left alone.
func get(ctx context.Context, c *http.Client, url, rng string, want []byte) (g got, err error) {
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
		return g, nil
	}
	if rng == "" && g.status != http.StatusOK {
		return g, fmt.Errorf("%s: %s", url, resp.Status)
	}
	buf := make([]byte, 256*kib)
	done := 0
	for {
		n, err := resp.Body.Read(buf)
		if done == 0 && n > 0 {
			g.first = time.Since(begin)
		}
		if !bytes.HasPrefix(want[done:], buf[:n]) {
			return g, fmt.Errorf("%s: wrong bytes within %d of %d", url, done+n, len(want))
		}
		done += n
		if err == io.EOF {
			break
		}
		if err != nil {
			return g, fmt.Errorf("%s: after %d bytes of %d: %w", url, done, len(want), err)
		}
	}
	if done < len(want) {
		return g, fmt.Errorf("%s: complete with %d bytes of %d", url, done, len(want))
	}
	g.all = time.Since(begin)
	return g, nil
}

// pull fetches an image as docker and containerd do by default: the manifest by its tag, then three blobs at a time.
func pull(ctx context.Context, addr string, img registrytest.Node) (time.Duration, error) {
	begin := time.Now()
	c := client()
	defer c.CloseIdleConnections()
	if _, err := get(ctx, c, "http://"+addr+manifestPath(tag), "", img.Body); err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for _, l := range img.Blobs {
		g.Go(func() error {
			_, err := get(ctx, c, "http://"+addr+blobPath(l.Desc), "", l.Body)
			return err
		})
	}
	err := g.Wait()
	return time.Since(begin), err
}

// crowd has n clients download url at once, and returns the median time to the first byte and the time until the last is
// done.
func crowd(ctx context.Context, n int, url string, want []byte) (first, last time.Duration, err error) {
	g, ctx := errgroup.WithContext(ctx)
	firsts, alls := make([]time.Duration, n), make([]time.Duration, n)
	for i := range n {
		g.Go(func() error {
			c := client()
			defer c.CloseIdleConnections()
			r, err := get(ctx, c, url, "", want)
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
