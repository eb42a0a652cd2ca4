package serve

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// maxListings are made at once: each is in memory as a whole, and costs the registry a call for every page of its own.
const maxListings = 16

// list is within for a listing, and begins when there is room for it.
func list[T any](x *exchange, ask func(context.Context) (T, error)) (T, error) {
	v, end, err := within(x.ctx, x.h.opts.DirectTimeout, func(ctx context.Context) (v T, err error) {
		select {
		case x.h.listings <- struct{}{}:
			defer func() { <-x.h.listings }()
		case <-ctx.Done():
			return v, ctx.Err()
		}
		return ask(ctx)
	})
	end()
	return v, err
}

// tags answers a page of tags in lexical order. A listing that fails half way is an error, never a shorter list.
func (x *exchange) tags() error {
	limit := x.req.N
	if limit < 0 {
		limit = wire.MaxPage
	}
	page, err := list(x, func(ctx context.Context) ([]string, error) {
		page := make([]string, 0, 64)
		shrink := func() {
			slices.Sort(page)
			page = slices.Compact(page)
			page = page[:min(len(page), limit+1)] // one more than asked for tells whether there is a next page
		}
		for tag, err := range x.mirror.Lister.Tags(ctx, x.repo) {
			if err != nil {
				return nil, err
			}
			if tag <= x.req.Last {
				continue
			}
			if page = append(page, tag); len(page) > 4*wire.MaxPage {
				shrink()
			}
		}
		shrink()
		return page, nil
	})
	if err != nil {
		return err
	}
	if len(page) > limit {
		if page = page[:limit]; limit > 0 {
			x.w.Header().Set("Link", x.nextPage(limit, page[limit-1]))
		}
	}
	body, err := json.Marshal(struct {
		Name string   `json:"name"`
		Tags []string `json:"tags"`
	}{x.req.Name, page})
	if err != nil {
		return err
	}
	return x.write("application/json", append(body, '\n'))
}

func (x *exchange) nextPage(n int, last string) string {
	q := url.Values{"n": {strconv.Itoa(n)}, "last": {last}}
	if x.req.NS != "" {
		q.Set("ns", x.req.NS)
	}
	return fmt.Sprintf(`<%s?%s>; rel="next"`, wire.TagsPath(x.req.Name, 0, ""), q.Encode())
}

// referrers answers the index of what refers to a manifest. A subject that nobody knows has none; a repository that nobody
// knows is NAME_UNKNOWN.
func (x *exchange) referrers() error {
	ix := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	found, err := list(x, func(ctx context.Context) ([]registry.Descriptor, error) {
		found := []registry.Descriptor{} // not nil: the body says []
		seen := make(map[string]bool)
		for d, err := range x.mirror.Lister.Referrers(ctx, x.repo, x.req.Digest, x.req.ArtifactType) {
			if registry.ClassOf(err) == registry.NotFound && registry.CodeOf(err) != registry.CodeNameUnknown && err != nil {
				break
			}
			if err != nil {
				return nil, err
			}
			if seen[d.Digest.String()] || x.req.ArtifactType != "" && d.ArtifactType != x.req.ArtifactType {
				continue
			}
			if len(found) == wire.MaxPage {
				return nil, registry.Errorf(registry.Unavailable, "more than %d referrers", wire.MaxPage)
			}
			seen[d.Digest.String()] = true
			found = append(found, d)
		}
		return found, nil
	})
	if err != nil {
		return err
	}
	ix.Manifests = found
	body, err := json.Marshal(ix)
	if err != nil {
		return err
	}
	if x.req.ArtifactType != "" {
		x.w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	return x.write(ocispec.MediaTypeImageIndex, body)
}
