package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

const (
	maxPages    = 10_000
	maxPageSize = 16 << 20 // bytes; registries that know no pages send all tags at once
	pageTags    = 1000
)

// Tags implements registry.Lister.
func (r *Registry) Tags(ctx context.Context, repo string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		fail := func(err error) {
			yield("", fmt.Errorf("tags %s: %w", repo, absent(err, registry.CodeNameUnknown)))
		}
		if err := wire.CheckRepo(repo); err != nil {
			fail(err)
			return
		}
		c := call{method: http.MethodGet, path: wire.TagsPath(repo, pageTags, ""), scopes: pull(repo), accept: []string{"application/json"}}
		for body, err := range r.pages(ctx, c) {
			var page struct{ Tags []string }
			if err == nil {
				err = decode(body, &page)
			}
			if err != nil {
				fail(err)
				return
			}
			for _, tag := range page.Tags {
				if !yield(tag, nil) {
					return
				}
			}
		}
	}
}

// Referrers implements registry.Lister, through the referrers API or, where that is not found, the referrers tag schema.
func (r *Registry) Referrers(ctx context.Context, repo string, d digest.Digest, artifactType string) iter.Seq2[registry.Descriptor, error] {
	return func(yield func(registry.Descriptor, error) bool) {
		fail := func(err error) { yield(registry.Descriptor{}, fmt.Errorf("referrers %s@%s: %w", repo, d, err)) }
		if err := checkObject(registry.Object{Repo: repo, Digest: d}); err != nil {
			fail(err)
			return
		}
		c := call{method: http.MethodGet, path: wire.ReferrersPath(repo, d, artifactType), scopes: pull(repo), accept: []string{ocispec.MediaTypeImageIndex}}
		for body, err := range r.pages(ctx, c) {
			if errors.Is(err, registry.NotFound) {
				if body, err = r.referrersTag(ctx, repo, d); errors.Is(err, registry.NotFound) {
					return // no tag: no referrers
				}
			}
			var links registry.Links
			if err == nil {
				links, err = registry.ParseManifest(ocispec.MediaTypeImageIndex, body)
			}
			if err != nil {
				fail(err)
				return
			}
			for _, m := range links.Manifests {
				// The filter is the registry's to ignore.
				if (artifactType == "" || m.ArtifactType == artifactType) && !yield(m, nil) {
					return
				}
			}
		}
	}
}

// referrersTag reads the index that clients of registries without the referrers API maintain under a tag
// (distribution-spec, "Referrers Tag Schema").
func (r *Registry) referrersTag(ctx context.Context, repo string, d digest.Digest) ([]byte, error) {
	_, body, err := r.getManifest(ctx, repo, fmt.Sprintf("%.32s-%.64s", d.Algorithm(), d.Encoded()))
	return body, err
}

// pages yields the bodies of a listing's pages; an error is the last.
func (r *Registry) pages(ctx context.Context, c call) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for range maxPages {
			body, next, err := r.page(ctx, c)
			if !yield(body, err) || err != nil || next == nil {
				return
			}
			if c.url != nil && next.String() == c.url.String() {
				yield(nil, registry.Errorf(registry.Corrupt, "next page is the same page"))
				return
			}
			c.url = next
		}
		yield(nil, registry.Errorf(registry.Corrupt, "more than %d pages", maxPages))
	}
}

func (r *Registry) page(ctx context.Context, c call) ([]byte, *url.URL, error) {
	resp, err := r.expect(ctx, c, http.StatusOK)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := readAll(resp, maxPageSize)
	if err != nil {
		return nil, nil, err
	}
	at := *resp.Request.URL
	at.Scheme, at.Host = r.base.Scheme, r.base.Host // should a page be redirected, what follows is still asked of the registry
	next, err := wire.Next(&at, resp.Header)
	return body, next, err
}

func decode(body []byte, v any) error {
	if err := json.Unmarshal(body, v); err != nil {
		return registry.Errorf(registry.Unavailable, "not a listing: %w", err)
	}
	return nil
}
