package registrytest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// A Faulty without faults keeps every contract.
func TestFaultySuite(t *testing.T) {
	registrytest.Run(t, func(*testing.T) registrytest.Subject {
		f := registrytest.NewFaulty(mem.New())
		return registrytest.Subject{Reader: f, Writer: f, Lister: f, EmptyBlobs: true}
	})
}

func TestFaultyHooks(t *testing.T) {
	boom := errors.New("boom")
	inner := mem.New()
	f := registrytest.NewFaulty(inner)
	image := registrytest.Image(1, 100)
	f.Before = registrytest.FailNth("put-blob", 1, boom)
	f.After = registrytest.FailNth("put-manifest", 1, boom)
	b := image.Blobs[0]
	if err := f.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)); err != boom {
		t.Errorf("put blob: %v", err)
	}
	if missing, _ := inner.Missing(t.Context(), "app", image.Objects("app")); len(missing) != 3 {
		t.Errorf("the call that failed before took effect: missing %v", missing)
	}
	for _, b := range image.Blobs {
		if err := f.PutBlob(t.Context(), "app", b.Desc, bytes.NewReader(b.Body)); err != nil {
			t.Errorf("put blob: %v", err)
		}
	}
	if err := f.PutManifest(t.Context(), "app", "v1", image.Desc, image.Body); err != boom {
		t.Errorf("put manifest: %v", err)
	}
	if d, err := inner.Resolve(t.Context(), "app", "v1"); err != nil || d.Digest != image.Desc.Digest {
		t.Errorf("the call that failed after did not take effect: %v, %v", d, err)
	}
	d0, d1, m := b.Desc.Digest.String(), image.Blobs[1].Desc.Digest.String(), image.Desc.Digest.String()
	want := []string{"put-blob blob app@" + d0, "put-blob blob app@" + d0, "put-blob blob app@" + d1, "put-manifest app:v1@" + m}
	if diff := cmp.Diff(want, f.Calls()); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
	if n := f.Count("put-blob"); n != 3 {
		t.Errorf("%d put-blob", n)
	}
	f.Forget()
	if f.Count() != 0 {
		t.Error("calls after Forget")
	}
}

func TestCallStrings(t *testing.T) {
	f := registrytest.NewFaulty(mem.New())
	image := registrytest.Image(1, 100)
	registrytest.Push(t, f, "app", "v1", image)
	f.Forget()
	o := image.Objects("app")[1]
	for _, r := range []registry.Range{registry.Whole, {Offset: 5, Length: -1}, {Offset: 5, Length: 2}, {Offset: 0, Length: 0}} {
		if c, err := f.Open(t.Context(), o, r); err != nil {
			t.Error(err)
		} else if c.From != f {
			t.Errorf("from %v", c.From)
		}
	}
	f.Missing(t.Context(), "app", image.Objects("app"))
	f.Resolve(t.Context(), "app", "v1")
	for range f.Tags(t.Context(), "app") {
	}
	hex := o.Digest.Encoded()[:6]
	want := []string{"open blob app@" + hex, "open blob app@" + hex + " 5+", "open blob app@" + hex + " 5+2", "open blob app@" + hex + " 0+0",
		"missing app 3", "resolve app:v1", "tags app"}
	if diff := cmp.Diff(want, registrytest.Short(f.Calls())); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

func TestBodyFaults(t *testing.T) {
	boom := errors.New("boom")
	flipped := func(b []byte) []byte { b = bytes.Clone(b); b[40] ^= 0xff; return b }
	image := registrytest.Image(1, 100)
	body := image.Blobs[1].Body
	for _, tt := range []struct {
		name  string
		fault registrytest.Fault
		want  []byte
		err   error
	}{
		{"error", registrytest.Fault{At: 40, Err: boom}, body[:40], boom},
		{"error at once", registrytest.Fault{Err: boom}, nil, boom},
		{"truncated", registrytest.Fault{At: 40, Truncate: true}, body[:40], nil},
		{"corrupt", registrytest.Fault{At: 40, Corrupt: true}, flipped(body), nil},
		{"past the end", registrytest.Fault{At: 400, Err: boom}, body, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := registrytest.NewFaulty(mem.New())
			registrytest.Push(t, f, "app", "v1", image)
			f.Body = func(registrytest.Call) *registrytest.Fault { return &tt.fault }
			c, err := f.Open(t.Context(), image.Objects("app")[1], registry.Whole)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got, err := io.ReadAll(c)
			if !errors.Is(err, tt.err) {
				t.Errorf("error %v, want %v", err, tt.err)
			}
			if !bytes.Equal(got, tt.want) {
				t.Errorf("got %d bytes, want %d", len(got), len(tt.want))
			}
		})
	}
}

func TestStall(t *testing.T) {
	for _, how := range []string{"released", "closed", "cancelled"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := registrytest.NewFaulty(mem.New())
				image := registrytest.Image(1, 100)
				registrytest.Push(t, f, "app", "v1", image)
				stall := make(chan struct{})
				f.Body = func(registrytest.Call) *registrytest.Fault { return &registrytest.Fault{At: 40, Stall: stall} }
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				c, err := f.Open(ctx, image.Objects("app")[1], registry.Whole)
				if err != nil {
					t.Fatal(err)
				}
				var got []byte
				done := make(chan error, 1)
				go func() {
					b, err := io.ReadAll(c)
					got = b
					done <- err
				}()
				synctest.Wait()
				select {
				case err := <-done:
					t.Fatalf("did not stall: %v", err)
				default:
				}
				want := 40
				switch how {
				case "released":
					close(stall)
					want = 100
				case "closed":
					c.Close()
				case "cancelled":
					cancel()
				}
				err = <-done
				if len(got) != want || (err == nil) != (how == "released") {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
			})
		})
	}
}
