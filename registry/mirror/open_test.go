package mirror_test

import (
	"context"
	"io"
	"iter"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/mirror"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

const repo = "team/app"

func manifest(n registrytest.Node) registry.Object {
	return registry.Object{Repo: repo, Kind: registry.Manifest, Digest: n.Desc.Digest}
}

func open(t *testing.T, m *mirror.Mirror, o registry.Object) (tier string, err error) {
	t.Helper()
	var tr registry.Trace
	c, err := m.Open(registry.WithTrace(t.Context(), &tr), o, registry.Whole)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(c)
	c.Close()
	if err == nil {
		err = registry.VerifyBytes(body, o.Digest)
	}
	return tr.Tier(), err
}

func TestMissed(t *testing.T) {
	src, dst, disk := mem.New(), mem.New(), mem.New()
	cold, warm, hot := registrytest.Image(1, 10), registrytest.Image(2, 10), registrytest.Image(3, 10)
	for _, n := range []registrytest.Node{cold, warm, hot} {
		registrytest.Push(t, src, repo, "", n)
	}
	registrytest.Push(t, src, repo, "v1", cold)
	registrytest.Push(t, dst, repo, "", warm)
	registrytest.Push(t, disk, repo, "", hot)
	source, destination := registry.Named("source", src), registry.Named("destination", dst)
	for _, cacheOnly := range []bool{false, true} {
		var missed []mirror.Miss
		o := mirror.Options{Objects: registry.Tiers(disk, destination, source), Source: source, Destination: destination,
			Missed: func(m mirror.Miss) error { missed = append(missed, m); return nil }}
		if cacheOnly {
			o.Destination = nil
		}
		m := mirror.New(o)
		var want []mirror.Miss
		if !cacheOnly {
			want = []mirror.Miss{{Repo: repo, Descriptor: cold.Desc}, {Repo: repo, Tag: "v1", Descriptor: cold.Desc}}
		}
		tiers := map[string]string{}
		for name, o := range map[string]registry.Object{"warm": manifest(warm), "hot": manifest(hot), "cold": manifest(cold), "blob": cold.Objects(repo)[0]} {
			tier, err := open(t, m, o)
			if err != nil {
				t.Fatalf("open %s: %v", name, err)
			}
			tiers[name] = tier
		}
		if !cacheOnly {
			if diff := cmp.Diff(map[string]string{"warm": "destination", "hot": "local", "cold": "source", "blob": "source"}, tiers); diff != "" {
				t.Errorf("tiers (-want +got):\n%s", diff)
			}
		}
		resolve(t, m, repo, "v1") // learns the tag, and does not report by itself
		if _, err := open(t, m, manifest(cold)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, missed); diff != "" {
			t.Errorf("cache only %v: missed (-want +got):\n%s", cacheOnly, diff)
		}
	}
}

// By digest a destination's outage and a source's absence are 503, not 404: the absence is not the destination's.
func TestAbsenceIsNotInvented(t *testing.T) {
	src := mem.New()
	down := broken{registry.Unavailable}
	source := registry.Named("source", src)
	m := mirror.New(mirror.Options{Objects: registry.Tiers(mem.New(), registry.Named("destination", down), source), Source: source, Destination: down})
	o := manifest(registrytest.Image(1, 10))
	if _, err := m.Stat(t.Context(), o); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("stat: %v, want unavailable", err)
	}
	if _, err := m.Open(t.Context(), o, registry.Whole); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("open: %v, want unavailable", err)
	}
}

// broken fails everything.
type broken struct{ class registry.Class }

func (b broken) err() error { return registry.Errorf(b.class, "%v on purpose", b.class) }
func (b broken) Resolve(context.Context, string, string) (registry.Descriptor, error) {
	return registry.Descriptor{}, b.err()
}
func (b broken) Stat(context.Context, registry.Object) (registry.Descriptor, error) {
	return registry.Descriptor{}, b.err()
}
func (b broken) Open(context.Context, registry.Object, registry.Range) (*registry.Content, error) {
	return nil, b.err()
}
func (b broken) Tags(context.Context, string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if yield("half", nil) {
			yield("", b.err())
		}
	}
}
func (b broken) Referrers(context.Context, string, digest.Digest, string) iter.Seq2[registry.Descriptor, error] {
	return func(yield func(registry.Descriptor, error) bool) { yield(registry.Descriptor{}, b.err()) }
}

// While no upstream can be reached a manifest is served only with its content.
func TestOnlyWholeImagesInAnOutage(t *testing.T) {
	amd, arm := registrytest.Image(1, 10, 20), registrytest.Image(2, 10, 20)
	attestation := registrytest.Image(3, 10)
	index := registrytest.Index(amd, arm)
	odd := registrytest.Index(amd)
	for name, tc := range map[string]struct {
		root  registrytest.Node
		lacks []registry.Object
		want  bool
	}{
		"image, whole":             {amd, nil, true},
		"image without a layer":    {amd, amd.Objects(repo)[1:2], false},
		"image without its config": {amd, amd.Objects(repo)[:1], false},
		"index, whole":             {index, nil, true},
		"index with one image":     {index, arm.Objects(repo), true},
		"index with half images":   {index, []registry.Object{amd.Objects(repo)[0], arm.Objects(repo)[1]}, false},
		"index alone":              {index, append(amd.Objects(repo), arm.Objects(repo)...), false},
		"index of one":             {odd, nil, true},
		"artifact":                 {registrytest.Referrer(attestation.Desc, "application/x", []byte("x")), nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			disk, src := mem.New(), mem.New()
			registrytest.Push(t, disk, repo, "", tc.root)
			registrytest.Push(t, src, repo, "v1", tc.root)
			up := &upstream{Reader: src, say: func(ctx context.Context) (registry.Descriptor, error) { return src.Resolve(ctx, repo, "v1") }}
			local := func(o registry.Object) bool {
				_, err := disk.Stat(context.Background(), o)
				return err == nil && !slices.Contains(tc.lacks, o)
			}
			now := time.Now()
			m := mirror.New(mirror.Options{Objects: disk, Source: up, Local: local, Now: func() time.Time { return now }})
			check := func(when string, want bool) {
				t.Helper()
				_, errOpen := open(t, m, manifest(tc.root))
				_, errStat := m.Stat(t.Context(), manifest(tc.root))
				_, errResolve := m.Resolve(t.Context(), repo, "v1")
				for call, err := range map[string]error{"open": errOpen, "stat": errStat, "resolve": errResolve} {
					if want && err != nil || !want && registry.ClassOf(err) != registry.Unavailable {
						t.Errorf("%s, %s: %v, want an answer: %v", when, call, err, want)
					}
				}
			}
			check("upstream up", true)
			now = now.Add(time.Hour)
			up.set(fails(registry.Unavailable))
			m.Resolve(t.Context(), repo, "v1") // notices the outage
			check("upstream down", tc.want)
			now = now.Add(time.Hour) // the outage was long ago: it says nothing of now
			up.set(says(tc.root.Desc))
			check("upstream back", true)
		})
	}
}

func TestUnion(t *testing.T) {
	image := registrytest.Image(1, 10)
	sig1, sig2 := registrytest.Referrer(image.Desc, "application/sig", []byte("1")), registrytest.Referrer(image.Desc, "application/sig", []byte("2"))
	src, dst, empty := mem.New(), mem.New(), mem.New()
	registrytest.Push(t, src, repo, "a", image)
	registrytest.Push(t, src, repo, "b", image)
	registrytest.Push(t, src, repo, "", sig1)
	registrytest.Push(t, dst, repo, "b", image)
	registrytest.Push(t, dst, repo, "c", image)
	registrytest.Push(t, dst, repo, "", sig1)
	registrytest.Push(t, dst, repo, "", sig2)
	var null registry.Lister
	down, denied := broken{registry.Unavailable}, broken{registry.Denied}
	for _, tc := range []struct {
		name                string
		source, destination registry.Lister
		tags                []string
		referrers           int
		class               registry.Class // without tags
	}{
		{"both", src, dst, []string{"a", "b", "c"}, 2, 0},
		{"source alone", src, null, []string{"a", "b"}, 1, 0},
		{"destination alone", null, dst, []string{"b", "c"}, 2, 0},
		{"destination lacks the repository", src, empty, []string{"a", "b"}, 1, 0},
		{"source lacks the repository", empty, dst, []string{"b", "c"}, 2, 0},
		{"destination down", src, down, []string{"a", "b"}, 1, 0},
		{"source down", down, dst, []string{"b", "c"}, 2, 0},
		{"source hangs", hanging{}, dst, []string{"b", "c"}, 2, 0},
		{"source does not end", endless{}, dst, []string{"b", "c"}, 2, 0},
		{"nothing ends", endless{}, endless{}, nil, 0, registry.Unavailable},
		{"both lack it", empty, empty, nil, 0, registry.NotFound},
		{"absent and down", empty, down, nil, 0, registry.Unavailable},
		{"down and absent", down, empty, nil, 0, registry.Unavailable},
		{"denied and absent", denied, empty, nil, 0, registry.Denied},
		{"both down", down, denied, nil, 0, registry.Unavailable},
		{"both hang", hanging{}, hanging{}, nil, 0, registry.Unavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := mirror.New(mirror.Options{Objects: mem.New(), Source: mem.New(), SourceLister: tc.source, DestinationLister: tc.destination})
				var tags []string
				var failed error
				for tag, err := range m.Tags(t.Context(), repo) {
					if err != nil {
						failed = err
						break
					}
					tags = append(tags, tag)
				}
				if diff := cmp.Diff(tc.tags, tags); diff != "" {
					t.Errorf("tags (-want +got):\n%s", diff)
				}
				if (failed != nil) != (tc.tags == nil) || failed != nil && registry.ClassOf(failed) != tc.class {
					t.Errorf("tags: %v, want class %v", failed, tc.class)
				}
				n := 0
				for d, err := range m.Referrers(t.Context(), repo, image.Desc.Digest, "application/sig") {
					if err == nil && d.ArtifactType == "application/sig" {
						n++
					}
				}
				if n != tc.referrers {
					t.Errorf("%d referrers, want %d", n, tc.referrers)
				}
			})
		})
	}
}

// hanging lists one item and then nothing until it is given up.
type hanging struct{}

func (hanging) Tags(ctx context.Context, _ string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if yield("half", nil) {
			<-ctx.Done()
			yield("", ctx.Err())
		}
	}
}

func (hanging) Referrers(ctx context.Context, _ string, _ digest.Digest, _ string) iter.Seq2[registry.Descriptor, error] {
	return func(yield func(registry.Descriptor, error) bool) {
		<-ctx.Done()
		yield(registry.Descriptor{}, ctx.Err())
	}
}

// endless lists on until it is given up.
type endless struct{}

func (endless) Tags(context.Context, string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for yield("more", nil) {
		}
	}
}

func (endless) Referrers(context.Context, string, digest.Digest, string) iter.Seq2[registry.Descriptor, error] {
	return func(yield func(registry.Descriptor, error) bool) {
		for yield(registry.Descriptor{}, nil) {
		}
	}
}

func TestUnionStops(t *testing.T) {
	src := mem.New()
	for _, tag := range []string{"a", "b", "c"} {
		registrytest.Push(t, src, repo, tag, registrytest.Image(1, 10))
	}
	m := mirror.New(mirror.Options{Objects: src, Source: src, SourceLister: src})
	n := 0
	for range m.Tags(t.Context(), repo) {
		if n++; n == 2 {
			break
		}
	}
	if n != 2 {
		t.Errorf("%d tags before the break, want 2", n)
	}
}

func TestAttestationsAreNotImages(t *testing.T) {
	amd, note := registrytest.Image(1, 10), registrytest.Image(2, 10)
	none := ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	body := []byte(`{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageIndex + `","manifests":[` +
		`{"mediaType":"` + amd.Desc.MediaType + `","digest":"` + amd.Desc.Digest.String() + `","size":1,"platform":{"os":"linux","architecture":"amd64"}},` +
		`{"mediaType":"` + note.Desc.MediaType + `","digest":"` + note.Desc.Digest.String() + `","size":1,"platform":{"os":"` + none.OS + `","architecture":"` + none.Architecture + `"}}]}`)
	index := registrytest.Node{Desc: registry.DescriptorOf(ocispec.MediaTypeImageIndex, body), Body: body, Children: []registrytest.Node{amd, note}}
	disk := mem.New()
	registrytest.Push(t, disk, repo, "", index)
	src := &upstream{say: fails(registry.Unavailable)}
	m := mirror.New(mirror.Options{Objects: disk, Source: src,
		Local: func(o registry.Object) bool { return !slices.Contains(amd.Objects(repo), o) }})
	m.Resolve(t.Context(), repo, "v1")
	if _, err := m.Stat(t.Context(), manifest(index)); registry.ClassOf(err) != registry.Unavailable {
		t.Errorf("an index of which only the attestation is local: %v, want unavailable", err)
	}
}

func TestCollectors(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	for _, name := range []string{"one", "two"} {
		m := mirror.New(mirror.Options{Name: name, Objects: mem.New(), Source: mem.New(), Destination: mem.New()})
		resolve(t, m, repo, "v1")
		for _, c := range m.Collectors() {
			if err := reg.Register(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := []string{"ecr_mirror_missed_total", "ecr_mirror_resolves_total", "ecr_mirror_tag_age_seconds", "ecr_mirror_upstream_bytes_total", "ecr_mirror_upstream_calls_total", "ecr_mirror_upstream_down"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// A tag that moved while its answer was fresh, and whose old image was deleted, is asked for anew: nobody has what it named.
func TestTagOfWhatIsGone(t *testing.T) {
	src := mem.New()
	old, now := registrytest.Image(1, 10), registrytest.Image(2, 10)
	registrytest.Push(t, src, repo, "v1", old)
	source := registry.Named("source", src)
	m := mirror.New(mirror.Options{Objects: registry.Tiers(source), Source: source, TTL: time.Hour})
	if a := resolve(t, m, repo, "v1"); a.Desc.Digest != old.Desc.Digest {
		t.Fatalf("%+v", a)
	}
	registrytest.Push(t, src, repo, "v1", now)
	if err := src.DeleteManifest(t.Context(), repo, old.Desc.Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, m, manifest(old)); registry.ClassOf(err) != registry.NotFound {
		t.Fatalf("open what is gone: %v", err)
	}
	if a := resolve(t, m, repo, "v1"); a.Desc.Digest != now.Desc.Digest {
		t.Errorf("%+v, want %s", a, now.Desc.Digest)
	}
}
