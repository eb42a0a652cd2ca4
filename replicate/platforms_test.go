package replicate_test

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// Of an index the chosen images are copied, with their attestations and what is about them; the index cannot be there.
func TestPlatforms(t *testing.T) {
	p := newPlaces()
	amd, arm, attestation, plain := registrytest.Image(1, 10), registrytest.Image(2, 20), registrytest.Image(3, 30), registrytest.Image(4, 40)
	root := registrytest.Index(amd, arm, attestation, registrytest.Image(5, 50), plain)
	root = editIndex(root, func(ix *ocispec.Index) {
		about := func(i, j int) {
			ix.Manifests[i].Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
			ix.Manifests[i].Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest",
				"vnd.docker.reference.digest": ix.Manifests[j].Digest.String()}
		}
		about(2, 1) // of arm
		about(3, 0) // of amd
		ix.Manifests[4].Platform = nil
	})
	registrytest.Push(t, p.src, "app", "v1", root)
	of := func(n registrytest.Node) registrytest.Node {
		r := registrytest.Referrer(n.Desc, "application/sbom", []byte(n.Desc.Digest))
		registrytest.Push(t, p.src, "app", "", r)
		return r
	}
	ofAMD, ofARM, ofRoot := of(amd), of(arm), of(root)
	im := p.image("app")
	im.Lister, im.Platforms = p.from, rules.Platforms{{OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "s390x"}}
	var c replicate.Copier
	res, err := c.Tag(t.Context(), im, "v1")
	if must(t, err); res.Partial != "linux/arm64,linux/s390x" || res.Found || res.Digest != root.Desc.Digest {
		t.Errorf("result %+v", res)
	}
	for _, n := range []registrytest.Node{arm, attestation, plain, ofARM} {
		has(t, p.dst, "app", n)
	}
	for name, n := range map[string]registrytest.Node{"the other platform": amd, "its attestation": root.Children[3], "its SBOM": ofAMD, "the index's": ofRoot, "the index": root} {
		o := registry.Object{Repo: "app", Kind: registry.Manifest, Digest: n.Desc.Digest}
		if _, err := p.dst.Stat(t.Context(), o); err == nil {
			t.Errorf("%s was copied", name)
		}
	}
	if d, err := p.dst.Resolve(t.Context(), "app", "v1"); err == nil {
		t.Errorf("the tag names %v", d)
	}
	res, err = c.Tag(t.Context(), im, "v1")
	if must(t, err); !res.Found || res.Partial == "" {
		t.Errorf("again: %+v", res)
	}

	// An image is no index: it is copied as it is. An index whose platforms are all wanted is whole.
	registrytest.Push(t, p.src, "app", "one", amd)
	res, err = c.Tag(t.Context(), im, "one")
	if must(t, err); res.Partial != "" {
		t.Errorf("an image: %+v", res)
	}
	names(t, p.dst, "app", "one", amd)
	im.Platforms = append(im.Platforms, rules.Platform{OS: "linux", Architecture: "amd64"})
	res, err = c.Tag(t.Context(), im, "v1")
	if must(t, err); res.Partial != "" {
		t.Errorf("all platforms: %+v", res)
	}
	names(t, p.dst, "app", "v1", root)
	has(t, p.dst, "app", ofRoot)
}

// A partial image is no difference to a sweep, until other platforms are wanted.
func TestSweepOfPartialImages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chosen := rules.Platforms{{OS: "linux", Architecture: "arm64"}}
		platforms := func(repo, tag string) rules.Platforms { return chosen }
		r := run(t, func(o *replicate.Options) {
			d := o.Mirrors["m"].Destinations["d"]
			d.Platforms = platforms
			o.Mirrors["m"].Destinations["d"] = d
		})
		root := registrytest.Index(registrytest.Image(1, 10), registrytest.Image(2, 20))
		registrytest.Push(t, r.src, "app", "v1", root)
		sw := &replicate.Sweep{Mirror: "m", Destination: "d", Source: r.src, Target: r.dst, Queue: r.q, Platforms: platforms,
			Wants: func(repo, tag string) bool { return tag != "" }}
		sweep := func() []replicate.Difference {
			plan, err := sw.Plan(t.Context(), time.Time{}, nil)
			must(t, err)
			must(t, r.q.PutAll(t.Context(), plan.Jobs(time.Now())))
			r.settle(time.Minute)
			return plan.Differences
		}
		if n := len(sweep()); n != 1 {
			t.Errorf("%d differences at first", n)
		}
		has(t, r.dst, "app", root.Children[1])
		rec, ok, err := r.q.Receipt(contentJob("app", root.Desc.Digest).Key)
		if must(t, err); !ok || rec.Partial != "linux/arm64" {
			t.Errorf("receipt %+v", rec)
		}
		if d := sweep(); len(d) != 0 {
			t.Errorf("a partial image is a difference: %+v", d)
		}
		chosen = append(chosen, rules.Platform{OS: "linux", Architecture: "s390x"})
		if n := len(sweep()); n != 1 {
			t.Errorf("%d differences when another platform is wanted", n)
		}
		if d := sweep(); len(d) != 0 {
			t.Errorf("the same again: %+v", d)
		}
		chosen = nil
		if n := len(sweep()); n != 1 {
			t.Errorf("%d differences when all platforms are wanted", n)
		}
		names(t, r.dst, "app", "v1", root)
	})
}

func editIndex(n registrytest.Node, edit func(*ocispec.Index)) registrytest.Node {
	var ix ocispec.Index
	err := json.Unmarshal(n.Body, &ix)
	if err == nil {
		edit(&ix)
		n.Body, err = json.Marshal(ix)
	}
	if err != nil {
		panic(err) // unreachable: registrytest made it
	}
	n.Desc = registry.DescriptorOf(n.Desc.MediaType, n.Body)
	return n
}
