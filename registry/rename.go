package registry

import (
	"context"
	"iter"
	"time"

	"github.com/opencontainers/go-digest"
)

// Rename asks r for repository to(repo) instead of repo: a mirror whose names differ from the upstream's. Where to returns ""
// r has no such repository, and is not asked.
func Rename(r Reader, to func(repo string) string) Reader { return &renamed{r, to} }

type renamed struct {
	r  Reader
	to func(string) string
}

func (n *renamed) Resolve(ctx context.Context, repo, tag string) (Descriptor, error) {
	there, err := name(n.to, repo)
	if err != nil {
		return Descriptor{}, err
	}
	return n.r.Resolve(ctx, there, tag)
}

func (n *renamed) Stat(ctx context.Context, o Object) (_ Descriptor, err error) {
	if o.Repo, err = name(n.to, o.Repo); err != nil {
		return Descriptor{}, err
	}
	return n.r.Stat(ctx, o)
}

func (n *renamed) Open(ctx context.Context, o Object, r Range) (_ *Content, err error) {
	if o.Repo, err = name(n.to, o.Repo); err != nil {
		return nil, err
	}
	c, err := n.r.Open(ctx, o, r)
	if err == nil {
		c.From = n // further ranges must be renamed too
	}
	return c, err
}

// RenameLister is Rename for a Lister.
func RenameLister(l Lister, to func(repo string) string) Lister { return &renamedLister{l, to} }

type renamedLister struct {
	l  Lister
	to func(string) string
}

func (n *renamedLister) Tags(ctx context.Context, repo string) iter.Seq2[string, error] {
	there, err := name(n.to, repo)
	if err != nil {
		return func(yield func(string, error) bool) { yield("", err) }
	}
	return n.l.Tags(ctx, there)
}

func (n *renamedLister) Referrers(ctx context.Context, repo string, d digest.Digest, artifactType string) iter.Seq2[Descriptor, error] {
	there, err := name(n.to, repo)
	if err != nil {
		return func(yield func(Descriptor, error) bool) { yield(Descriptor{}, err) }
	}
	return n.l.Referrers(ctx, there, d, artifactType)
}

// RenameLocator is Rename for a Locator.
func RenameLocator(l Locator, to func(repo string) string) Locator { return &renamedLocator{l, to} }

type renamedLocator struct {
	l  Locator
	to func(string) string
}

func (n *renamedLocator) Locate(ctx context.Context, o Object) (_ string, _ time.Time, err error) {
	if o.Repo, err = name(n.to, o.Repo); err != nil {
		return "", time.Time{}, err
	}
	return n.l.Locate(ctx, o)
}

func name(to func(string) string, repo string) (string, error) {
	if there := to(repo); there != "" {
		return there, nil
	}
	e := Errorf(NotFound, "repository %.256s: has no name there", repo)
	e.Code = CodeNameUnknown
	return "", e
}
