package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// TestDoubt shows that a near upstream whose bytes are bad does not hide a far one's good ones for longer than one attempt, and
// is forgiven later.
func TestDoubt(t *testing.T) {
	const size = 200_000
	for name, tt := range map[string]struct {
		fault registrytest.Fault
		opts  storage.Options
		opens int // of the near upstream until it is given up
		want  registry.Class
	}{
		"corrupt":           {registrytest.Fault{At: 5, Corrupt: true}, storage.Options{}, 1, registry.Corrupt},
		"corrupt, uncached": {registrytest.Fault{At: 5, Corrupt: true}, storage.Options{Size: 1}, 2, registry.Corrupt},
		"broken":            {registrytest.Fault{At: 0, Err: io.ErrUnexpectedEOF}, storage.Options{}, 2, registry.Unavailable}, // and that pull succeeds
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				far, m, o, body := upstream(t, size)
				near := registrytest.NewFaulty(m)
				near.Body = func(registrytest.Call) *registrytest.Fault { f := tt.fault; return &f }
				s := openStore(t, tt.opts)
				r := s.Over("m", registry.Tiers(registry.Named("near", near), registry.Named("far", far)))
				got, err := read(t.Context(), r, o, registry.Whole)
				if err != nil && !errors.Is(err, tt.want) || err == nil && !bytes.Equal(got, body) { // nil: that fill ended before it was joined
					t.Fatalf("first: %d bytes, %v; want %v", len(got), err, tt.want)
				}
				synctest.Wait()
				wantCalls(t, near, tt.opens, 0)
				wantBytes(t, r, o, registry.Whole, body)
				wantCalls(t, near, tt.opens, 0)

				time.Sleep(11 * time.Minute)
				near.Body = nil
				near.Forget()
				other := registrytest.NewBlob("x", registrytest.Bytes(9, 300))
				put(t, m, "app", other)
				wantBytes(t, r, registry.Object{Repo: "app", Digest: other.Desc.Digest}, registry.Whole, other.Body)
				if tt.opts.Size == 1 {
					wantBytes(t, r, o, registry.Whole, body)
					wantCalls(t, near, 3, 0)
				} else {
					wantCalls(t, near, 1, 0)
				}
			})
		})
	}
}

// TestWrongEmptyBlob shows that an empty answer is not the whole of a blob that is not empty.
func TestWrongEmptyBlob(t *testing.T) {
	good, _, o, body := upstream(t, 100)
	lying := registry.Named("lying", empty{mem.New()})
	r := openStore(t, storage.Options{}).Over("m", registry.Tiers(lying, good))
	got, err := read(t.Context(), r, o, registry.Whole)
	if err != nil && !errors.Is(err, registry.Corrupt) || err == nil && !bytes.Equal(got, body) { // nil: as in TestDoubt
		t.Errorf("%d bytes, %v; want corrupt", len(got), err)
	}
	wantBytes(t, r, o, registry.Whole, body)
}

// empty has everything, without a byte.
type empty struct{ registry.Reader }

func (e empty) Open(_ context.Context, o registry.Object, _ registry.Range) (*registry.Content, error) {
	return &registry.Content{Descriptor: registry.Descriptor{Digest: o.Digest}, From: e, ReadCloser: io.NopCloser(bytes.NewReader(nil))}, nil
}
