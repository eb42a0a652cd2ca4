package remote

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

const pageRepos = 1000

// Repositories implements registry.Catalog through /v2/_catalog, which Distribution and many others have and the OCI
// specification has not: without it the error says so. Names that are not repository names are left out.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		c := call{method: http.MethodGet, path: wire.CatalogPath(pageRepos), scopes: []string{"registry:catalog:*"}, accept: []string{"application/json"}}
		for body, err := range r.pages(ctx, c) {
			var page struct{ Repositories []string }
			if err == nil {
				err = decode(body, &page)
			}
			switch registry.ClassOf(err) {
			case registry.NotFound, registry.Invalid, registry.Denied:
				err = fmt.Errorf("it does not list its repositories to us: %w", err)
			}
			if err != nil {
				yield("", fmt.Errorf("repositories of %s: %w", r.base.Host, err))
				return
			}
			for _, repo := range page.Repositories {
				if wire.CheckRepo(repo) == nil && !yield(repo, nil) {
					return
				}
			}
		}
	}
}

// Images implements registry.Catalog with one HEAD per tag. What has no tag is not seen, and when an image was pushed is not
// known, so since leaves nothing out. A tag that is deleted meanwhile is left out.
func (r *Registry) Images(ctx context.Context, repo string, since time.Time) iter.Seq2[registry.Image, error] {
	return func(yield func(registry.Image, error) bool) {
		var order []digest.Digest
		found := make(map[digest.Digest]*registry.Image)
		for tag, err := range r.Tags(ctx, repo) {
			var d registry.Descriptor
			if err == nil {
				if d, err = r.Resolve(ctx, repo, tag); errors.Is(err, registry.NotFound) {
					continue
				}
			}
			if err != nil {
				yield(registry.Image{}, fmt.Errorf("images of %.256s: %w", repo, err))
				return
			}
			if found[d.Digest] == nil {
				found[d.Digest] = &registry.Image{Descriptor: d}
				order = append(order, d.Digest)
			}
			found[d.Digest].Tags = append(found[d.Digest].Tags, tag)
		}
		for _, d := range order {
			if !yield(*found[d], nil) {
				return
			}
		}
	}
}
