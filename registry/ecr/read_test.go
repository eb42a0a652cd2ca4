package ecr

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestResolveThenOpenIsOneCall(t *testing.T) {
	img := registrytest.Image(1, 100)
	c := newControl(t, step{batchGetImage, ok(imageAnswer(img, "v1")), func(t *testing.T, in fields) {
		var types []string
		for _, v := range in["acceptedMediaTypes"].([]any) {
			types = append(types, v.(string))
		}
		if d := cmp.Diff(registry.ManifestTypes(), types); d != "" {
			t.Errorf("accepted media types (-want +got):\n%s", d)
		}
	}})
	r := c.registry()
	d, err := r.Resolve(t.Context(), "team/app", "v1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(img.Desc, d); diff != "" {
		t.Errorf("descriptor (-want +got):\n%s", diff)
	}
	content, err := r.Open(t.Context(), object(d, registry.Manifest), registry.Range{Offset: 5, Length: 10})
	if got := readAll(t, content, err); !bytes.Equal(got, img.Body[5:15]) {
		t.Errorf("got %q", got)
	}
	c.wantCalls(batchGetImage)
}

func TestResolveRefusesConvertedManifest(t *testing.T) {
	img, other := registrytest.Image(1, 100), registrytest.Image(2, 100)
	body := imageAnswer(img, "v1")
	body["images"].([]any)[0].(fields)["imageManifest"] = string(other.Body)
	c := newControl(t, step{batchGetImage, ok(body), nil})
	_, err := c.registry().Resolve(t.Context(), "team/app", "v1")
	wantClass(t, err, registry.Corrupt, "")
}

func TestManifestWithoutMediaTypeInAnswer(t *testing.T) {
	ix := registrytest.Index(registrytest.Image(1, 10))
	body := imageAnswer(ix, "")
	delete(body["images"].([]any)[0].(fields), "imageManifestMediaType")
	c := newControl(t, step{batchGetImage, ok(body), nil})
	d, err := c.registry().Stat(t.Context(), object(ix.Desc, registry.Manifest))
	if err != nil || d.MediaType != ix.Desc.MediaType {
		t.Errorf("got %v, %v", d, err)
	}
}

func TestImageFailures(t *testing.T) {
	for failure, want := range map[string]struct {
		class registry.Class
		code  string
	}{
		"ImageNotFound":           {registry.NotFound, registry.CodeManifestUnknown},
		"InvalidImageDigest":      {registry.Invalid, registry.CodeDigestInvalid},
		"InvalidImageTag":         {registry.Invalid, registry.CodeTagInvalid},
		"KmsError":                {registry.Denied, codeDenied},
		"UpstreamAccessDenied":    {registry.Denied, codeDenied},
		"UpstreamTooManyRequests": {registry.Throttled, codeTooManyRequests},
		"UpstreamUnavailable":     {registry.Unavailable, ""},
		"SomethingNew":            {registry.Unavailable, ""},
	} {
		t.Run(failure, func(t *testing.T) {
			c := newControl(t, step{batchGetImage, ok(fields{"failures": []any{fields{"failureCode": failure, "failureReason": "why"}}}), nil})
			_, err := c.registry().Resolve(t.Context(), "team/app", "v1")
			wantClass(t, err, want.class, want.code)
		})
	}
}

func TestStatBlob(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 77))
	for name, tc := range map[string]struct {
		answer answer
		class  registry.Class
		code   string
	}{
		"unavailable":   {ok(layersAnswer(layer(b.Desc, "UNAVAILABLE"))), registry.NotFound, registry.CodeBlobUnknown},
		"archived":      {ok(layersAnswer(layer(b.Desc, "ARCHIVED"))), registry.NotFound, registry.CodeBlobUnknown},
		"no repository": {exc("RepositoryNotFoundException"), registry.NotFound, registry.CodeNameUnknown},
		"bad digest":    {ok(fields{"failures": []any{fields{"failureCode": "InvalidLayerDigest"}}}), registry.Invalid, registry.CodeDigestInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newControl(t, step{checkLayers, tc.answer, nil}).registry().Stat(t.Context(), object(b.Desc, registry.Blob))
			wantClass(t, err, tc.class, tc.code)
		})
	}
	d, err := newControl(t, step{checkLayers, ok(layersAnswer(layer(b.Desc, "AVAILABLE"))), nil}).registry().
		Stat(t.Context(), object(b.Desc, registry.Blob))
	if err != nil || d.Size != 77 || d.Digest != b.Desc.Digest {
		t.Errorf("got %v, %v", d, err)
	}
}

// A caller who may not ask for a blob's size may still pull it; what that says is the answer.
func TestStatBlobPullOnly(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 77))
	denied := step{checkLayers, exc("AccessDeniedException"), nil}
	l := newLayers(t, serveBytes(b.Body))
	d, err := newControl(t, denied, l.mint(0)).registry().Stat(t.Context(), object(b.Desc, registry.Blob))
	if err != nil || d.Size != 77 || d.Digest != b.Desc.Digest {
		t.Errorf("got %v, %v", d, err)
	}
	l.wantCalls(path(0) + " bytes=0-0")
	for name, want := range map[string]struct {
		class registry.Class
		code  string
	}{
		"LayersNotFoundException": {registry.NotFound, registry.CodeBlobUnknown},
		"AccessDeniedException":   {registry.Denied, codeDenied},
	} {
		_, err := newControl(t, denied, step{downloadURL, exc(name), nil}).registry().Stat(t.Context(), object(b.Desc, registry.Blob))
		wantClass(t, err, want.class, want.code)
	}
}

// Names that are no names never reach ECR: the script is empty.
func TestNamesAreCheckedFirst(t *testing.T) {
	r := newControl(t).registry()
	img := registrytest.Image(1)
	for _, repo := range []string{"", "a", "UPPER", "../etc", "a//b", "a:b", "host.example/x/", string(bytes.Repeat([]byte("a"), 257))} {
		_, err := r.Resolve(t.Context(), repo, "v1")
		wantClass(t, err, registry.Invalid, registry.CodeNameInvalid)
	}
	for _, tag := range []string{"", "-x", "a/b", "a b", string(bytes.Repeat([]byte("a"), 129))} {
		_, err := r.Resolve(t.Context(), "team/app", tag)
		wantClass(t, err, registry.Invalid, registry.CodeTagInvalid)
	}
	o := object(img.Desc, registry.Manifest)
	o.Digest = "sha256:short"
	_, err := r.Open(t.Context(), o, registry.Whole)
	wantClass(t, err, registry.Invalid, registry.CodeDigestInvalid)
}

func TestTagsPages(t *testing.T) {
	ids := func(tags ...string) (all []any) {
		for _, tag := range tags {
			all = append(all, fields{"imageTag": tag, "imageDigest": "sha256:x"})
		}
		return all
	}
	c := newControl(t,
		step{listImages, ok(fields{"imageIds": ids("b", "a"), "nextToken": "2"}), func(t *testing.T, in fields) {
			if in["maxResults"] != 1000.0 || in["filter"].(fields)["tagStatus"] != "TAGGED" || in["nextToken"] != nil {
				t.Errorf("request %v", in)
			}
		}},
		step{listImages, ok(fields{"imageIds": ids("c")}), func(t *testing.T, in fields) {
			if in["nextToken"] != "2" {
				t.Errorf("request %v", in)
			}
		}})
	var got []string
	for tag, err := range c.registry().Tags(t.Context(), "team/app") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, tag)
	}
	if !slices.Equal(got, []string{"b", "a", "c"}) {
		t.Errorf("got %v", got)
	}
}

func TestListingsEndWithTheirError(t *testing.T) {
	c := newControl(t,
		step{listImages, ok(fields{"imageIds": []any{fields{"imageTag": "a"}}, "nextToken": "2"}), nil},
		step{listImages, exc("ThrottlingException"), nil},
		step{describeRepos, ok(fields{"repositories": []any{fields{"repositoryName": "one"}}, "nextToken": "x"}), nil},
		step{describeRepos, ok(fields{"repositories": []any{}, "nextToken": "x"}), nil},
		step{describeImages, exc("RepositoryNotFoundException"), nil})
	r := c.registry()
	var errs []error
	for _, err := range r.Tags(t.Context(), "team/app") {
		errs = append(errs, err)
	}
	wantClass(t, errs[len(errs)-1], registry.Throttled, codeTooManyRequests)
	errs = nil
	for _, err := range r.Repositories(t.Context()) { // an endless listing
		errs = append(errs, err)
	}
	wantClass(t, errs[len(errs)-1], registry.Unavailable, "")
	for _, err := range r.Images(t.Context(), "team/app", time.Time{}) {
		wantClass(t, err, registry.NotFound, registry.CodeNameUnknown)
	}
}

func TestReferrers(t *testing.T) {
	img := registrytest.Image(1)
	sig := registrytest.Referrer(img.Desc, "application/sig", []byte("s"))
	entry := func(kind string) fields {
		return fields{"digest": sig.Desc.Digest, "mediaType": sig.Desc.MediaType, "size": sig.Desc.Size, "artifactType": kind,
			"annotations": fields{"k": "v"}}
	}
	c := newControl(t,
		step{listReferrers, ok(fields{"referrers": []any{entry("application/sig"), entry("other")}}), func(t *testing.T, in fields) {
			if in["maxResults"] != 50.0 || in["subjectId"].(fields)["imageDigest"] != img.Desc.Digest.String() {
				t.Errorf("request %v", in)
			}
		}},
		step{listReferrers, exc("UnknownOperationException"), nil})
	r := c.registry()
	var got []registry.Descriptor
	for d, err := range r.Referrers(t.Context(), "team/app", img.Desc.Digest, "application/sig") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d)
	}
	want := sig.Desc
	want.ArtifactType, want.Annotations = "application/sig", map[string]string{"k": "v"}
	if d := cmp.Diff([]registry.Descriptor{want}, got); d != "" {
		t.Errorf("referrers (-want +got):\n%s", d)
	}
	for d, err := range r.Referrers(t.Context(), "team/app", img.Desc.Digest, "") {
		t.Errorf("an endpoint without referrers has %v, %v", d, err)
	}
}
