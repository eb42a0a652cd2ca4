package mirror

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// maxListed is how many items of one listing are held: more than twice the images that ECR keeps in a repository
// (100,000; Amazon ECR service quotas), and some 40 MiB of the longest tags.
const maxListed = 1 << 18

// listPause is how long a listing may go without a next item; a page of a thousand tags takes well under a second.
const listPause = 5 * time.Second

// Tags implements registry.Lister: the union of source and destination. If one of them fails, the other's list is the
// answer; NotFound only if both say so. A list that broke off counts as failed.
func (m *Mirror) Tags(ctx context.Context, repo string) iter.Seq2[string, error] {
	return union(ctx, "tags of "+repo, m.listers(), func(tag string) string { return tag },
		func(ctx context.Context, l registry.Lister) iter.Seq2[string, error] { return l.Tags(ctx, repo) })
}

// Referrers implements registry.Lister by the same rules as Tags.
func (m *Mirror) Referrers(ctx context.Context, repo string, d digest.Digest, artifactType string) iter.Seq2[registry.Descriptor, error] {
	return union(ctx, "referrers of "+repo+"@"+d.String(), m.listers(), func(d registry.Descriptor) digest.Digest { return d.Digest },
		func(ctx context.Context, l registry.Lister) iter.Seq2[registry.Descriptor, error] {
			return l.Referrers(ctx, repo, d, artifactType)
		})
}

type lister struct {
	name string
	registry.Lister
}

func (m *Mirror) listers() []lister {
	var all []lister
	if m.opts.SourceLister != nil {
		all = append(all, lister{"source", m.opts.SourceLister})
	}
	if m.opts.DestinationLister != nil {
		all = append(all, lister{"destination", m.opts.DestinationLister})
	}
	return all
}

// union lists everywhere at once, so that one place that hangs costs listPause and not the answer, and yields every item
// once by its key: the source's first.
func union[T any, K comparable](ctx context.Context, what string, from []lister, key func(T) K,
	list func(context.Context, registry.Lister) iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		items, errs := make([][]T, len(from)), make([]error, len(from))
		var wg sync.WaitGroup
		for i, l := range from {
			wg.Go(func() {
				items[i], errs[i] = collect(ctx, func(ctx context.Context) iter.Seq2[T, error] { return list(ctx, l.Lister) })
				if errs[i] != nil {
					errs[i] = fmt.Errorf("list %s: %s: %w", what, l.name, errs[i])
				}
			})
		}
		wg.Wait()
		var failed error
		answered := false
		seen := make(map[K]bool)
		for i := range from {
			if errs[i] != nil {
				if failed == nil || registry.ClassOf(failed) == registry.NotFound {
					failed = errs[i]
				}
				continue
			}
			answered = true
			for _, it := range items[i] {
				if k := key(it); !seen[k] {
					seen[k] = true
					if !yield(it, nil) {
						return
					}
				}
			}
		}
		if !answered && failed != nil {
			yield(*new(T), failed)
		}
	}
}

// collect reads a listing to its end, and gives up on one that stops coming, or does not stop.
func collect[T any](ctx context.Context, list func(context.Context) iter.Seq2[T, error]) ([]T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pause := time.AfterFunc(listPause, cancel)
	defer pause.Stop()
	var items []T
	for it, err := range list(ctx) {
		if err != nil {
			return nil, err
		}
		if len(items) == maxListed {
			return nil, registry.Errorf(registry.Unavailable, "more than %d items", maxListed)
		}
		pause.Reset(listPause)
		items = append(items, it)
	}
	return items, nil
}
