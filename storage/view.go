package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Over returns up with the store in front of it: content is answered from the disk where it is linked, and else downloaded
// once. namespace is the mirror: the same repository name in two namespaces shares bytes, but what one may read says
// nothing about the other. Resolve goes to up, for tags change; tags that are to outlive a restart go to Tags.
//
// Blobs from it implement registry.Spanner, unless there was no room for them. Content.From of what is being downloaded is
// the Reader that answered upstream; of what was on the disk, the returned Reader.
func (s *Store) Over(namespace string, up registry.Reader) registry.Reader {
	return &view{s: s, namespace: namespace, up: up}
}

type view struct {
	s         *Store
	namespace string
	up        registry.Reader
	plain     atomic.Int64 // until then, in Unix nanoseconds, up is not asked for ranges: it ignored one
}

func (v *view) place(o registry.Object) place { return place{v.namespace, o.Repo, o.Kind} }

// Resolve implements registry.Reader.
func (v *view) Resolve(ctx context.Context, repo, tag string) (registry.Descriptor, error) {
	return v.up.Resolve(ctx, repo, tag)
}

func check(o registry.Object) error {
	if err := o.Digest.Validate(); err != nil {
		e := registry.Errorf(registry.Invalid, "%v: %w", o, err)
		e.Code = registry.CodeDigestInvalid
		return e
	}
	if o.Repo == "" || strings.ContainsRune(o.Repo, 0) {
		e := registry.Errorf(registry.Invalid, "repository %q: invalid name", o.Repo)
		e.Code = registry.CodeNameInvalid
		return e
	}
	return nil
}

// Stat implements registry.Reader.
func (v *view) Stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	if err := check(o); err != nil {
		return registry.Descriptor{}, err
	}
	p, s := v.place(o), v.s
	if l, ok := s.meta.link(p, o.Digest); ok && s.has(key{o.Digest, false}) {
		registry.TraceOf(ctx).SetTier("local")
		return registry.Descriptor{MediaType: l.MediaType, Digest: o.Digest, Size: l.Size}, nil
	}
	s.mu.Lock()
	f := s.fills[o.Digest]
	s.mu.Unlock()
	if f != nil && f.member(p) {
		select {
		case <-f.ready:
			if f.desc.Digest != "" { // an upstream has answered
				return f.desc, nil
			}
		default:
		}
	}
	return v.up.Stat(ctx, o)
}

// Has reports whether o is here complete and may be read in the namespace, without asking anybody.
func (s *Store) Has(namespace string, o registry.Object) bool {
	_, ok := s.meta.link(place{namespace, o.Repo, o.Kind}, o.Digest)
	return ok && s.has(key{o.Digest, false})
}

func (s *Store) has(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.space.item(k) != nil
}

// Open implements registry.Reader.
func (v *view) Open(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	if err := check(o); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Kind == registry.Manifest {
		return v.openManifest(ctx, o, r)
	}
	return v.openBlob(ctx, o, r)
}

// openBlob finds the blob on the disk, or in a fill, or starts one. Each look may be overtaken: by an eviction, by a fill
// that ends, by another reader's fill that fails for reasons of its own. Then it looks again.
func (v *view) openBlob(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	s, p := v.s, v.place(o)
	allowed := false // our own upstream has said that the blob is there
	var desc registry.Descriptor
	for range 8 {
		if l, ok := s.meta.link(p, o.Digest); ok {
			c, err := v.openLocal(ctx, registry.Descriptor{MediaType: l.MediaType, Digest: o.Digest, Size: l.Size}, r)
			if c != nil || err != nil {
				return c, err
			}
		}
		if s.uncached.Contains(o.Digest) {
			return v.openPast(ctx, o, r)
		}
		s.mu.Lock()
		f, started := s.fills[o.Digest], false
		it := s.space.item(key{o.Digest, false})
		here := it != nil
		if _, ok := s.meta.link(p, o.Digest); ok && f == nil && here { // its fill ended just now
			s.mu.Unlock()
			continue
		}
		if f == nil && !here {
			if time.Now().Before(s.troubleUntil) {
				s.mu.Unlock()
				return v.openPast(ctx, o, r)
			}
			var err error
			if f, err = s.startFill(ctx, v, o, r); err != nil {
				s.mu.Unlock()
				return nil, err
			}
			started = true
			f.waiting.Add(1) // the fill, which needs s.mu first, sees it
		}
		s.mu.Unlock()
		if !started && !allowed && (f == nil || !f.member(p)) {
			var err error
			if desc, err = v.up.Stat(ctx, o); err != nil {
				return nil, err
			}
			desc.Digest, allowed = o.Digest, true
		}
		if f == nil {
			desc.Size = it.size // whatever upstream says: these bytes were verified
			s.mu.Lock()
			if it.booked() { // or its links went with it
				s.meta.putLink(p, desc)
			}
			s.mu.Unlock()
			s.flushSoon()
			continue
		}
		if !started && !f.join(ctx, p, v, r) {
			continue
		}
		if !started {
			f.waiting.Add(1)
		}
		select {
		case <-f.ready:
		case <-ctx.Done():
			f.waiting.Add(-1)
			return nil, ctx.Err()
		}
		c, err := v.follow(ctx, f, p, r)
		f.waiting.Add(-1)
		switch {
		case errors.Is(err, errUncached):
			return v.openPast(ctx, o, r)
		case errors.Is(err, errOvertaken):
			continue
		case err == nil && !started:
			s.metrics.coalesced.Inc()
		case err != nil && (f.starter != v || f.origin != p) && registry.ClassOf(err) != registry.Invalid:
			continue // a refusal of another upstream, or of another repository there, says nothing about ours
		}
		return c, err
	}
	return v.openPast(ctx, o, r) // overtaken too often
}

// openLocal opens a complete object. Without an error and without content, it is not there.
func (v *view) openLocal(ctx context.Context, d registry.Descriptor, r registry.Range) (*registry.Content, error) {
	s, k := v.s, key{d.Digest, false}
	s.mu.Lock()
	it := s.space.pin(k, time.Now())
	s.mu.Unlock()
	if it == nil {
		return nil, nil
	}
	f, err := os.Open(s.blobPath(d.Digest))
	if err == nil {
		var info os.FileInfo
		if info, err = f.Stat(); err == nil && info.Size() != d.Size {
			f.Close()
			err = fmt.Errorf("%d bytes, want %d: %w", info.Size(), d.Size, os.ErrNotExist)
		}
	}
	b := &body{ctx: ctx, s: s, f: f, item: it}
	if errors.Is(err, os.ErrNotExist) { // somebody was here
		s.log.ErrorContext(ctx, "object lost on the disk", "digest", d.Digest, "error", err)
		s.lose(it)
		return nil, nil
	} else if err != nil {
		s.mu.Lock()
		s.space.unpin(it)
		s.mu.Unlock()
		return nil, fmt.Errorf("open %s: %w", d.Digest, err)
	}
	c, err := b.content(d, r, v)
	if err == nil {
		registry.TraceOf(ctx).SetTier("local")
	}
	return c, err
}

// lose drops an object that is not what it should be, and the caller's pin.
func (s *Store) lose(it *item) {
	s.mu.Lock()
	s.space.unpin(it)
	var gone []string
	if it.booked() {
		s.space.drop(it)
		gone = s.forget([]*item{it})
	}
	s.mu.Unlock()
	s.remove(gone)
	s.flushSoon()
}

// follow opens r of a fill that is ready.
func (v *view) follow(ctx context.Context, f *fill, p place, r registry.Range) (*registry.Content, error) {
	b, err := f.reader(ctx)
	if err != nil {
		return nil, err
	}
	b.probe = r.Length >= 0 && r.Length <= withheld && f.desc.Size > withheld
	from := v.up // what answered another place is not ours to read from
	if p == f.origin {
		from = f.from
	}
	c, err := b.content(f.desc, r, from)
	if err == nil {
		if name, ok := f.from.(fmt.Stringer); ok {
			registry.TraceOf(ctx).SetTier(name.String())
		}
	}
	return c, err
}

// content makes b the content r of d, or closes it.
func (b *body) content(d registry.Descriptor, r registry.Range, from registry.Reader) (*registry.Content, error) {
	r, ok := r.Clip(d.Size)
	if !ok {
		b.Close()
		return nil, registry.Errorf(registry.Invalid, "open %s: range outside its %d bytes", d.Digest, d.Size)
	}
	if _, err := b.f.Seek(r.Offset, io.SeekStart); err != nil {
		b.Close()
		return nil, err
	}
	b.end = r.Offset + r.Length
	return &registry.Content{Descriptor: d, Range: r, From: from, ReadCloser: b}, nil
}
