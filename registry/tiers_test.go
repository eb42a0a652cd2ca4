package registry_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestSuiteThroughTiersAndNames(t *testing.T) {
	wrap := map[string]func(near, far *mem.Registry) registry.Reader{
		"tiers": func(near, far *mem.Registry) registry.Reader { return registry.Tiers(near, far) },
		"named": func(_, far *mem.Registry) registry.Reader { return registry.Named("far", far) },
		"renamed twice": func(_, far *mem.Registry) registry.Reader {
			up := registry.Rename(far, func(r string) string { return strings.TrimPrefix(r, "x/") })
			return registry.Rename(up, func(r string) string { return "x/" + r })
		},
	}
	for name, w := range wrap {
		t.Run(name, func(t *testing.T) {
			registrytest.Run(t, func(*testing.T) registrytest.Subject {
				near, far := mem.New(), mem.New()
				return registrytest.Subject{Reader: w(near, far), Writer: far, EmptyBlobs: true}
			})
		})
	}
}

// Every pair of answers of two tiers, and what comes of it.
func TestTiers(t *testing.T) {
	image := registrytest.Image(1, 100)
	o := image.Objects("app")[1]
	errOf := func(c registry.Class) error { return registry.Errorf(c, "far away") }
	for _, tt := range []struct {
		near, far error // nil: has it
		want      error // nil: content; else a Class
		calls     int   // of the far tier
	}{
		{nil, nil, nil, 0},
		{registry.Unknown(o), nil, nil, 1},
		{errOf(registry.Denied), nil, nil, 1},
		{errOf(registry.Throttled), nil, nil, 1},
		{errOf(registry.Unavailable), nil, nil, 1},
		{errOf(registry.Corrupt), nil, nil, 1},
		{errOf(registry.Invalid), nil, registry.Invalid, 0},
		{errOf(registry.Internal), nil, registry.Internal, 0},
		{errors.New("unclassed"), nil, registry.Internal, 0},
		{registry.Unknown(o), registry.Unknown(o), registry.NotFound, 1},
		{errOf(registry.Unavailable), registry.Unknown(o), registry.Unavailable, 1}, // absence is not invented
		{registry.Unknown(o), errOf(registry.Unavailable), registry.Unavailable, 1},
		{errOf(registry.Denied), errOf(registry.Unavailable), registry.Denied, 1}, // the first one
		{registry.Unknown(o), errOf(registry.Internal), registry.Internal, 1},
	} {
		near, far := registrytest.NewFaulty(mem.New()), registrytest.NewFaulty(mem.New())
		for _, f := range []*registrytest.Faulty{near, far} {
			registrytest.Push(t, f, "app", "v1", image)
			f.Forget()
		}
		near.Before, far.Before = registrytest.FailNth("", 0, tt.near), registrytest.FailNth("", 0, tt.far)
		r := registry.Tiers(registry.Named("near", near), registry.Named("far", far))
		check := func(op string, err error) {
			t.Helper()
			if (tt.want == nil) != (err == nil) || (err != nil && registry.ClassOf(err) != tt.want) {
				t.Errorf("%v, %v: %s: %v, want %v", tt.near, tt.far, op, err, tt.want)
			}
			if n := far.Count(op); n != tt.calls {
				t.Errorf("%v, %v: %s: %d calls of the far tier, want %d", tt.near, tt.far, op, n, tt.calls)
			}
		}
		_, err := r.Resolve(t.Context(), "app", "v1")
		check("resolve", err)
		_, err = r.Stat(t.Context(), o)
		check("stat", err)
		c, err := r.Open(t.Context(), o, registry.Whole)
		check("open", err)
		if err == nil {
			if b, err := io.ReadAll(c); err != nil || len(b) != 100 {
				t.Errorf("read %d bytes, %v", len(b), err)
			}
			if from, want := c.From.(interface{ String() string }).String(), [...]string{"near", "far"}[tt.calls]; from != want {
				t.Errorf("content from %s, want %s", from, want)
			}
		}
	}
}

func TestTiersErrors(t *testing.T) {
	near, far := mem.New(), mem.New()
	registrytest.Push(t, near, "app", "v1", registrytest.Image(1, 10))
	r := registry.Tiers(near, far)
	_, err := r.Resolve(t.Context(), "app", "v2")
	if code := registry.CodeOf(err); code != registry.CodeManifestUnknown {
		t.Errorf("absent tag: code %s: the repository is known to one tier", code)
	}
	_, err = r.Resolve(t.Context(), "nowhere", "v2")
	if code := registry.CodeOf(err); code != registry.CodeNameUnknown {
		t.Errorf("absent repository: code %s", code)
	}
	if _, err := registry.Tiers().Resolve(t.Context(), "app", "v1"); !errors.Is(err, registry.NotFound) {
		t.Errorf("no tiers: %v", err)
	}
	broken := registrytest.NewFaulty(near)
	broken.Before = registrytest.FailNth("", 0, registry.Errorf(registry.Unavailable, "dial: refused"))
	_, err = registry.Tiers(registry.Named("destination", broken), far).Resolve(t.Context(), "app", "v1")
	if want := "destination: dial: refused"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %q", err, want)
	}
}

func TestTiersCallerGone(t *testing.T) {
	near, far := registrytest.NewFaulty(mem.New()), registrytest.NewFaulty(mem.New())
	ctx, cancel := context.WithCancel(t.Context())
	near.Before = func(registrytest.Call) error { cancel(); return ctx.Err() }
	_, err := registry.Tiers(near, far).Resolve(ctx, "app", "v1")
	if !errors.Is(err, context.Canceled) || far.Count() != 0 {
		t.Errorf("%v, %d calls of the far tier", err, far.Count())
	}
}

// A doubted tier is asked last, and still asked.
func TestTiersDoubt(t *testing.T) {
	o := registrytest.NewBlob("x", nil).Desc
	var asked string
	tier := func(name string) registry.Reader {
		f := registrytest.NewFaulty(mem.New())
		f.Before = func(registrytest.Call) error { asked += name; return nil }
		return registry.Named(name, f)
	}
	a, b, c := tier("a"), tier("b"), tier("c")
	tiers := registry.Tiers(a, b, c)
	for _, tt := range []struct {
		doubted registry.Reader
		want    string
	}{{a, "bca"}, {b, "acb"}, {c, "abc"}, {tier("d"), "abc"}, {nil, "abc"}, {notComparable{}, "abc"}} {
		asked = ""
		ctx := registry.WithDoubt(t.Context(), tt.doubted)
		if _, err := tiers.Open(ctx, registry.Object{Repo: "app", Digest: o.Digest}, registry.Whole); !errors.Is(err, registry.NotFound) {
			t.Errorf("open: %v", err)
		}
		if asked != tt.want {
			t.Errorf("asked %s, want %s", asked, tt.want)
		}
	}
}

type notComparable struct {
	registry.Reader
	_ []int
}

func TestLaneAndTrace(t *testing.T) {
	if l := registry.LaneOf(t.Context()); l != registry.LaneClient {
		t.Errorf("no lane: %v", l)
	}
	if l := registry.LaneOf(registry.WithLane(t.Context(), registry.LaneSweep)); l != registry.LaneSweep {
		t.Errorf("lane %v", l)
	}
	var tr registry.Trace
	ctx := registry.WithTrace(t.Context(), &tr)
	if tr.Tier() != "" || tr.Stale() != 0 {
		t.Errorf("fresh trace: %q %v", tr.Tier(), tr.Stale())
	}
	registry.TraceOf(ctx).SetTier("local")
	registry.TraceOf(ctx).SetStale(time.Minute)
	registry.TraceOf(t.Context()).SetTier("nobody reads it")
	if tr.Tier() != "local" || tr.Stale() != time.Minute {
		t.Errorf("trace: %q %v", tr.Tier(), tr.Stale())
	}
}
