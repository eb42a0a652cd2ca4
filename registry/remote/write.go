package remote

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// Missing implements registry.Writer: one HEAD for each object, 8 at a time. In a repository that is not there everything is
// missing: plain registries create it when they are pushed to.
func (r *Registry) Missing(ctx context.Context, repo string, objects []registry.Object) ([]registry.Object, error) {
	absent := make([]bool, len(objects))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, o := range objects {
		o.Repo = repo
		g.Go(func() error {
			_, err := r.Stat(gctx, o)
			if errors.Is(err, registry.NotFound) {
				absent[i], err = true, nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var missing []registry.Object
	for i, o := range objects {
		if o.Repo = repo; absent[i] {
			missing = append(missing, o)
		}
	}
	return missing, nil
}

// Mount implements registry.Writer. A registry that opens an upload instead has it closed again.
func (r *Registry) Mount(ctx context.Context, o registry.Object, from string) (ok bool, err error) {
	defer within(&err, "mount %v from %s", o, from)
	if err := errors.Join(checkObject(o), wire.CheckRepo(from)); err != nil {
		return false, err
	}
	q := url.Values{"mount": {o.Digest.String()}, "from": {from}}
	c := call{method: http.MethodPost, path: wire.UploadsPath(o.Repo) + "?" + q.Encode(), scopes: append(push(o.Repo), pull(from)...)}
	resp, err := r.expect(ctx, c, http.StatusCreated, http.StatusAccepted)
	if err != nil {
		return false, absent(err, registry.CodeNameUnknown)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusAccepted {
		if at, err := r.location(resp); err == nil {
			r.cancelUpload(ctx, o.Repo, at)
		}
	}
	return resp.StatusCode == http.StatusCreated, nil
}

// PutBlob implements registry.Writer: a POST, then the bytes in one PUT. It returns when body is no longer read; an error of
// body is returned with its own class. Wrong bytes are Corrupt.
func (r *Registry) PutBlob(ctx context.Context, repo string, d registry.Descriptor, body io.Reader) (err error) {
	o := registry.Object{Repo: repo, Digest: d.Digest}
	defer within(&err, "put %v", o)
	if err := checkObject(o); err != nil {
		return err
	}
	if d.Size < 0 {
		return registry.Errorf(registry.Invalid, "size %d", d.Size)
	}
	up := newUpload(body, d, r.timeout)
	if d.Size == 0 {
		if _, err := io.Copy(io.Discard, up); err != nil {
			return err
		}
	}
	resp, err := r.expect(ctx, call{method: http.MethodPost, path: wire.UploadsPath(repo), scopes: push(repo)}, http.StatusAccepted)
	if err != nil {
		return absent(err, registry.CodeNameUnknown)
	}
	resp.Body.Close()
	at, err := r.location(resp)
	if err != nil {
		return err
	}
	to := *at
	q := to.Query()
	q.Set("digest", d.Digest.String())
	to.RawQuery = q.Encode()
	put := call{method: http.MethodPut, url: &to, scopes: push(repo), ctype: "application/octet-stream", body: up, size: d.Size}
	resp, err = r.expect(ctx, put, http.StatusCreated, http.StatusNoContent)
	if err == nil {
		return errors.Join(up.failed(), resp.Body.Close())
	}
	r.cancelUpload(ctx, repo, at)
	if failed := up.failed(); failed != nil && ctx.Err() == nil {
		return failed
	}
	if c := registry.CodeOf(err); c == registry.CodeDigestInvalid || c == "SIZE_INVALID" {
		return registry.Errorf(registry.Corrupt, "%w", err)
	}
	return err
}

// PutManifest implements registry.Writer. What refers to content that is not there is Invalid.
func (r *Registry) PutManifest(ctx context.Context, repo, tag string, d registry.Descriptor, body []byte) (err error) {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d.Digest}
	defer within(&err, "put %v %s", o, tag)
	ref := d.Digest.String()
	if err := checkObject(o); err != nil {
		return err
	}
	if tag != "" {
		if ref = tag; checkTag(tag) != nil {
			return checkTag(tag)
		}
	}
	if len(body) > registry.MaxManifestSize {
		return registry.Errorf(registry.Invalid, "%d bytes, more than %d", len(body), registry.MaxManifestSize)
	}
	if err := registry.VerifyBytes(body, d.Digest); err != nil {
		return err
	}
	c := call{method: http.MethodPut, path: wire.ManifestPath(repo, ref), scopes: push(repo), ctype: d.MediaType, body: bytes.NewReader(body), size: int64(len(body))}
	resp, err := r.expect(ctx, c, http.StatusCreated, http.StatusOK)
	switch {
	case err == nil:
		defer resp.Body.Close()
		if stored := digest.Digest(resp.Header.Get("Docker-Content-Digest")); stored.Validate() == nil {
			return registry.VerifyBytes(body, stored)
		}
		return nil
	case errors.Is(err, registry.Conflict) && tag != "": // success if it already names d
		if now, e := r.statManifest(ctx, repo, tag); e == nil && now.Digest == d.Digest {
			return nil
		}
	case errors.Is(err, registry.NotFound) && registry.CodeOf(err) != "" && registry.CodeOf(err) != registry.CodeNameUnknown:
		return registry.Errorf(registry.Invalid, "refers to what is not there: %v", err)
	}
	return absent(err, registry.CodeNameUnknown)
}

// DeleteManifest implements registry.Deleter.
func (r *Registry) DeleteManifest(ctx context.Context, repo string, d digest.Digest) (err error) {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}
	defer within(&err, "delete %v", o)
	if err := checkObject(o); err != nil {
		return err
	}
	scopes := append(push(repo), "repository:"+repo+":delete")
	resp, err := r.expect(ctx, call{method: http.MethodDelete, path: path(o), scopes: scopes}, http.StatusAccepted, http.StatusOK, http.StatusNoContent, http.StatusNotFound)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
