package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/storage/durable"
)

// maxCached is the largest manifest kept in memory: almost all are a few KiB, and the cache counts entries.
const maxCached = 64 << 10

// answer is a manifest that was fetched, with the Reader that answered.
type answer struct {
	desc registry.Descriptor
	body []byte
	from registry.Reader
}

// openManifest gives out a manifest only when it has all of it, verified. Concurrent readers of one view share a fetch,
// which goes on when they leave.
func (v *view) openManifest(ctx context.Context, o registry.Object, r registry.Range) (*registry.Content, error) {
	s := v.s
	if l, ok := s.meta.link(v.place(o), o.Digest); ok {
		if b := s.localManifest(o.Digest); b != nil {
			c, err := content(registry.Descriptor{MediaType: l.MediaType, Digest: o.Digest, Size: int64(len(b))}, b, r, v)
			if err == nil {
				registry.TraceOf(ctx).SetTier("local")
			}
			return c, err
		}
	}
	work := registry.Apart(s.ctx, ctx)
	fetch := s.flights.DoChan(fmt.Sprintf("%p %s %s", v, o.Repo, o.Digest), func() (any, error) {
		if !s.begin() {
			return nil, errClosed
		}
		defer s.work.Done()
		return v.fetchManifest(work, o)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case res := <-fetch:
		if res.Err != nil {
			return nil, res.Err
		}
		a := res.Val.(answer)
		if name, ok := a.from.(fmt.Stringer); ok {
			registry.TraceOf(ctx).SetTier(name.String())
		}
		return content(a.desc, a.body, r, a.from)
	}
}

func content(d registry.Descriptor, b []byte, r registry.Range, from registry.Reader) (*registry.Content, error) {
	r, ok := r.Clip(d.Size)
	if !ok {
		return nil, registry.Errorf(registry.Invalid, "open %s: range outside its %d bytes", d.Digest, d.Size)
	}
	h := &held{whole: b}
	h.Reset(b[r.Offset : r.Offset+r.Length])
	return &registry.Content{Descriptor: d, Range: r, From: from, ReadCloser: h}, nil
}

// held is a verified manifest in memory. It implements registry.Held.
type held struct {
	bytes.Reader
	whole []byte
}

func (h *held) Bytes() []byte { return h.whole }
func (h *held) Close() error  { return nil }

// localManifest returns the bytes of a manifest that is on the disk, verified, or nil.
func (s *Store) localManifest(d digest.Digest) []byte {
	s.mu.Lock()
	it := s.space.pin(key{d, false}, time.Now())
	s.mu.Unlock()
	if it == nil {
		return nil
	}
	b, ok := s.manifests.Get(d)
	if !ok {
		var err error
		if b, err = readFile(s.blobPath(d), registry.MaxManifestSize); err == nil {
			err = registry.VerifyBytes(b, d)
		}
		switch {
		case errors.Is(err, os.ErrNotExist), errors.Is(err, registry.Corrupt):
			s.log.Error("manifest lost on the disk", "digest", d, "error", err)
			s.lose(it)
			return nil
		case err != nil: // no descriptor is free, the disk hiccups: it may well be sound
			s.log.Error("read manifest", "digest", d, "error", err)
			b = nil
		default:
			s.remember(d, b)
		}
	}
	s.mu.Lock()
	s.space.unpin(it)
	s.mu.Unlock()
	return b
}

func (s *Store) remember(d digest.Digest, b []byte) {
	if len(b) <= maxCached {
		s.manifests.Add(d, b)
	}
}

func readFile(path string, max int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(b)) > max {
		err = fmt.Errorf("%s: more than %d bytes", path, max)
	}
	return b, err
}

func (v *view) fetchManifest(ctx context.Context, o registry.Object) (answer, error) {
	c, err := v.up.Open(ctx, o, registry.Whole)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	if c.Descriptor.Size > registry.MaxManifestSize {
		return answer{}, registry.Errorf(registry.Invalid, "open %v: %d bytes, more than %d", o, c.Descriptor.Size, registry.MaxManifestSize)
	}
	b, err := io.ReadAll(registry.Verify(c, o.Digest, c.Descriptor.Size))
	if err != nil {
		switch {
		case errors.Is(err, registry.Corrupt):
			v.s.metrics.mismatches.Inc()
		case registry.ClassOf(err) == registry.Internal: // an unclassed error of a stream
			err = registry.Errorf(registry.Unavailable, "%w", err)
		}
		return answer{}, fmt.Errorf("read %v: %w", o, err)
	}
	a := answer{registry.Descriptor{MediaType: registry.ManifestType(c.Descriptor.MediaType, b), Digest: o.Digest, Size: int64(len(b))}, b, c.From}
	if err := v.s.keep(v.place(o), a); err != nil {
		v.s.log.WarnContext(ctx, "manifest is not cached", "object", o.String(), "error", err)
	}
	return a, nil
}

// keep stores a verified manifest and links it.
func (s *Store) keep(p place, a answer) error {
	d := a.desc.Digest
	s.mu.Lock()
	it := s.space.pin(key{d, false}, time.Now())
	s.mu.Unlock()
	if it == nil {
		var err error
		if it, err = s.writeManifest(d, a.body); err != nil {
			s.troubled(err)
			return err
		}
	}
	s.mu.Lock()
	if it.booked() {
		s.meta.putLink(p, a.desc)
		s.remember(d, a.body)
	}
	s.space.unpin(it)
	s.mu.Unlock()
	s.flushSoon()
	return nil
}

// writeManifest returns the new object pinned.
func (s *Store) writeManifest(d digest.Digest, body []byte) (*item, error) {
	path := s.blobPath(d)
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	s.mu.Lock()
	tmp := s.tmpPath() // booked under it first: another view may be writing the same manifest
	it, victims, err := s.space.reserve(key{digest.Digest(tmp), true}, int64(len(body)), s.room(), time.Now())
	gone := s.forget(victims)
	s.mu.Unlock()
	s.remove(gone)
	if err != nil {
		return nil, err
	}
	err = s.writeFile(tmp, path, body, 0o600)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.space.unpin(it)
		s.space.drop(it)
		if s.space.item(key{d, false}) == nil {
			os.Remove(path) // it may stand there already, and nobody would know of it
		}
		return nil, err
	}
	s.space.rekey(it, key{d, false})
	return it, nil
}
