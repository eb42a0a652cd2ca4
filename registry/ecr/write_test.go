package ecr

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

var begin = step{initiateUpload, ok(fields{"uploadId": "u-1", "partSize": 5000}), nil}

// part expects an upload part and takes its bytes.
func part(got *bytes.Buffer, first, last int, a answer) step {
	return step{uploadPart, a, func(t *testing.T, in fields) {
		if in["uploadId"] != "u-1" || in["partFirstByte"] != float64(first) || in["partLastByte"] != float64(last) {
			t.Errorf("part of %v, %v to %v; want %d to %d", in["uploadId"], in["partFirstByte"], in["partLastByte"], first, last)
		}
		b, err := base64.StdEncoding.DecodeString(in["layerPartBlob"].(string))
		if err != nil || len(b) != last-first+1 {
			t.Errorf("part of %d bytes: %v", len(b), err)
		}
		got.Truncate(first) // a part that was sent again
		got.Write(b)
	}}
}

func received(last int) answer { return ok(fields{"lastByteReceived": last}) }

func complete(a answer) step { return step{completeUpload, a, nil} }

func TestPutBlob(t *testing.T) {
	const size = 12_003
	b := registrytest.NewBlob("x", registrytest.Bytes(1, size))
	var got bytes.Buffer
	cut := answer{cut: true}
	p1, p2, p3 := 4999, 9999, size-1
	first := []step{begin, part(&got, 0, p1, received(p1))}
	rest := []step{part(&got, p2+1, p3, received(p3)), complete(ok(fields{"layerDigest": b.Desc.Digest}))}
	second := part(&got, p1+1, p2, received(p2))
	for name, script := range map[string][]step{
		"as it should be":             slices.Concat(first, []step{second}, rest),
		"part failed":                 slices.Concat(first, []step{part(&got, p1+1, p2, exc("ServerException")), second}, rest),
		"part throttled":              slices.Concat(first, []step{part(&got, p1+1, p2, exc("ThrottlingException")), second}, rest),
		"part failed after its cut":   slices.Concat(first, []step{part(&got, p1+1, p2, cut), second}, rest),
		"part failed, had arrived":    slices.Concat(first, []step{part(&got, p1+1, p2, cut), part(&got, p1+1, p2, excWith("InvalidLayerPartException", fields{"lastValidByteReceived": p2}))}, rest),
		"layer exists":                slices.Concat(first, []step{second, rest[0], complete(exc("LayerAlreadyExistsException"))}),
		"completion failed":           slices.Concat(first, []step{second, rest[0], complete(cut), rest[1]}),
		"completion failed, was done": slices.Concat(first, []step{second, rest[0], complete(cut), complete(exc("LayerAlreadyExistsException"))}),
		"completion failed, was done and forgotten": slices.Concat(first, []step{second, rest[0], complete(cut), complete(exc("UploadNotFoundException")),
			{checkLayers, ok(layersAnswer(layer(b.Desc, "AVAILABLE"))), nil}}),
	} {
		t.Run(name, func(t *testing.T) {
			got.Reset()
			r := newControl(t, script...).registry()
			if err := r.PutBlob(t.Context(), "team/app", b.Desc, bytes.NewReader(b.Body)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), b.Body) {
				t.Errorf("the registry got %d other bytes", got.Len())
			}
		})
	}
}

func TestPutBlobFails(t *testing.T) {
	b := registrytest.NewBlob("x", registrytest.Bytes(1, 1000))
	var got bytes.Buffer
	all := part(&got, 0, 999, received(999))
	failing := part(&got, 0, 999, exc("ServerException"))
	for name, tc := range map[string]struct {
		script []step
		body   io.Reader
		class  registry.Class
		code   string
	}{
		"no repository":      {[]step{{initiateUpload, exc("RepositoryNotFoundException"), nil}}, nil, registry.NotFound, registry.CodeNameUnknown},
		"denied":             {[]step{{initiateUpload, exc("AccessDeniedException"), nil}}, nil, registry.Denied, codeDenied},
		"body ends early":    {[]step{begin}, bytes.NewReader(b.Body[:999]), registry.Corrupt, ""},
		"body too long":      {[]step{begin, all}, io.MultiReader(bytes.NewReader(b.Body), bytes.NewReader([]byte{1})), registry.Corrupt, ""},
		"other bytes":        {[]step{begin, all}, bytes.NewReader(registrytest.Bytes(2, 1000)), registry.Corrupt, ""},
		"body fails":         {[]step{begin}, io.MultiReader(bytes.NewReader(b.Body[:10]), failingReader{}), registry.Unavailable, ""},
		"body is cut":        {[]step{begin}, io.MultiReader(bytes.NewReader(b.Body[:10]), iotest.ErrReader(io.ErrUnexpectedEOF)), registry.Unavailable, ""},
		"part keeps failing": {[]step{begin, failing, failing, failing}, nil, registry.Unavailable, ""},
		"out of step": {[]step{begin, part(&got, 0, 999, excWith("InvalidLayerPartException", fields{"lastValidByteReceived": 17}))}, nil,
			registry.Unavailable, codeBlobUploadInvalid},
		"part lost":         {[]step{begin, part(&got, 0, 999, received(500))}, nil, registry.Unavailable, ""},
		"upload expired":    {[]step{begin, part(&got, 0, 999, exc("UploadNotFoundException"))}, nil, registry.Unavailable, codeBlobUploadUnknown},
		"digest refused":    {[]step{begin, all, complete(exc("InvalidLayerException"))}, nil, registry.Corrupt, registry.CodeDigestInvalid},
		"key not usable":    {[]step{begin, all, complete(exc("KmsException"))}, nil, registry.Denied, codeDenied},
		"completion forgot": {[]step{begin, all, complete(answer{cut: true}), complete(exc("UploadNotFoundException")), {checkLayers, ok(layersAnswer(layer(b.Desc, "UNAVAILABLE"))), nil}}, nil, registry.Unavailable, codeBlobUploadUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			got.Reset()
			if tc.body == nil {
				tc.body = bytes.NewReader(b.Body)
			}
			err := newControl(t, tc.script...).registry().PutBlob(t.Context(), "team/app", b.Desc, tc.body)
			wantClass(t, err, tc.class, tc.code)
		})
	}
	err := newControl(t).registry().PutBlob(t.Context(), "team/app", registry.DescriptorOf("x", nil), bytes.NewReader(nil))
	wantClass(t, err, registry.Invalid, codeBlobUploadInvalid) // empty: ECR is not even asked
}

func TestPartSize(t *testing.T) {
	for said, want := range map[int64]int64{0: 10 << 20, -1: 10 << 20, 5 << 20: 5 << 20, 10 << 20: 10 << 20, 1 << 40: 20 << 20} {
		if got := partSize(said); got != want {
			t.Errorf("%d said: %d, want %d", said, got, want)
		}
	}
	r := newControl(t).registry()
	for _, n := range []int64{1, 2 << 20, 1 << 20, 3 << 20} { // whatever was lent before
		b, done := r.partBuffer(n)
		if int64(len(b)) != n {
			t.Errorf("%d bytes lent, want %d", len(b), n)
		}
		done()
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) {
	return 0, &registry.Error{Class: registry.Unavailable, Err: errors.New("source is gone")}
}

func TestPutManifest(t *testing.T) {
	img, other := registrytest.Image(1, 10), registrytest.Image(2, 10)
	look := func(n registrytest.Node) step { return step{batchGetImage, ok(imageAnswer(n, "v1")), nil} }
	put := func(a answer) step {
		return step{putImage, a, func(t *testing.T, in fields) {
			want := fields{"registryId": account, "repositoryName": "team/app", "imageManifest": string(img.Body),
				"imageManifestMediaType": img.Desc.MediaType, "imageDigest": img.Desc.Digest.String(), "imageTag": "v1"}
			if d := cmp.Diff(want, in); d != "" {
				t.Errorf("PutImage (-want +got):\n%s", d)
			}
		}}
	}
	gone := step{batchGetImage, ok(fields{"failures": []any{fields{"failureCode": "ImageNotFound"}}}), nil}
	for name, tc := range map[string]struct {
		script []step
		class  registry.Class
		code   string // "-": success
	}{
		"new":                        {[]step{put(ok(fields{}))}, 0, "-"},
		"exists":                     {[]step{put(exc("ImageAlreadyExistsException"))}, 0, "-"},
		"immutable, names it":        {[]step{put(exc("ImageTagAlreadyExistsException")), look(img)}, 0, "-"},
		"immutable, names another":   {[]step{put(exc("ImageTagAlreadyExistsException")), look(other)}, registry.Conflict, registry.CodeTagInvalid},
		"immutable, gone meanwhile":  {[]step{put(exc("ImageTagAlreadyExistsException")), gone}, registry.Conflict, registry.CodeTagInvalid},
		"immutable, cannot look":     {[]step{put(exc("ImageTagAlreadyExistsException")), {batchGetImage, exc("ServerException"), nil}}, registry.Unavailable, ""},
		"children missing":           {[]step{put(exc("ReferencedImagesNotFoundException"))}, registry.Invalid, codeManifestBlobUnknown},
		"layers missing":             {[]step{put(exc("LayersNotFoundException"))}, registry.Invalid, codeManifestBlobUnknown},
		"schema":                     {[]step{put(exc("InvalidParameterException"))}, registry.Invalid, codeManifestInvalid},
		"too many images":            {[]step{put(exc("LimitExceededException"))}, registry.Invalid, codeDenied},
		"failed":                     {[]step{put(exc("ServerException"))}, registry.Unavailable, ""},
		"failed after taking effect": {[]step{put(answer{cut: true})}, registry.Unavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := newControl(t, tc.script...).registry().PutManifest(t.Context(), "team/app", "v1", img.Desc, img.Body)
			if tc.code != "-" {
				wantClass(t, err, tc.class, tc.code)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	err := newControl(t).registry().PutManifest(t.Context(), "team/app", "v1", img.Desc, other.Body)
	wantClass(t, err, registry.Corrupt, "")
}

func TestMissingAsksInHundreds(t *testing.T) {
	var all, want []registry.Object
	var script []step
	var answer []any
	for i := range 250 {
		b := registrytest.NewBlob("x", registrytest.Bytes(uint64(i), 8))
		o := object(b.Desc, registry.Blob)
		all = append(all, o)
		kind := "AVAILABLE"
		if i%3 == 0 {
			kind, want = "UNAVAILABLE", append(want, o)
		}
		if answer = append(answer, layer(b.Desc, kind)); len(answer) == 100 || i == 249 {
			n := len(answer)
			script = append(script, step{checkLayers, ok(layersAnswer(answer...)), func(t *testing.T, in fields) {
				if got := len(in["layerDigests"].([]any)); got != n {
					t.Errorf("%d digests in a call, want %d", got, n)
				}
			}})
			answer = nil
		}
	}
	there, absent := registrytest.Image(1), registrytest.Image(2)
	all = append(all, object(there.Desc, registry.Manifest), object(absent.Desc, registry.Manifest), all[0])
	want = append(want, object(absent.Desc, registry.Manifest), all[0])
	images := imageAnswer(there, "")
	images["failures"] = []any{fields{"failureCode": "ImageNotFound", "imageId": fields{"imageDigest": absent.Desc.Digest}}}
	c := newControl(t, append(script, step{batchGetImage, ok(images), nil})...)
	got, err := c.registry().Missing(t.Context(), "team/app", all)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("missing (-want +got):\n%s", d)
	}
	c.wantCalls(append(repeat(3, checkLayers), batchGetImage)...)

	_, err = newControl(t, step{checkLayers, exc("RepositoryNotFoundException"), nil}).registry().Missing(t.Context(), "team/app", all[:1])
	wantClass(t, err, registry.NotFound, registry.CodeNameUnknown)
}

func TestCreateRepository(t *testing.T) {
	create := func(a answer) step {
		return step{createRepository, a, func(t *testing.T, in fields) {
			want := fields{"registryId": account, "repositoryName": "team/app", "imageTagMutability": "IMMUTABLE",
				"imageScanningConfiguration": fields{"scanOnPush": true},
				"encryptionConfiguration":    fields{"encryptionType": "KMS", "kmsKey": "arn:k"},
				"tags":                       []any{fields{"Key": "a", "Value": "1"}, fields{"Key": "b", "Value": "2"}}}
			if d := cmp.Diff(want, in); d != "" {
				t.Errorf("CreateRepository (-want +got):\n%s", d)
			}
		}}
	}
	for name, tc := range map[string]struct {
		answer answer
		class  registry.Class
		code   string
	}{
		"new":      {ok(fields{"repository": fields{}}), 0, "-"},
		"exists":   {exc("RepositoryAlreadyExistsException"), 0, "-"},
		"too many": {exc("LimitExceededException"), registry.Invalid, codeDenied},
		"denied":   {exc("AccessDeniedException"), registry.Denied, codeDenied},
	} {
		t.Run(name, func(t *testing.T) {
			r := newControl(t, create(tc.answer)).registry(func(o *Options) {
				o.Settings = RepositorySettings{TagMutability: "IMMUTABLE", ScanOnPush: true, Encryption: "KMS", KMSKey: "arn:k",
					Tags: map[string]string{"b": "2", "a": "1"}}
			})
			err := r.CreateRepository(t.Context(), "team/app")
			if tc.code != "-" {
				wantClass(t, err, tc.class, tc.code)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDeleteManifest(t *testing.T) {
	img := registrytest.Image(1)
	fails := func(code string) answer { return ok(fields{"failures": []any{fields{"failureCode": code}}}) }
	for name, tc := range map[string]struct {
		answer answer
		class  registry.Class
		code   string
	}{
		"there":         {ok(fields{"imageIds": []any{}}), 0, "-"},
		"absent":        {fails("ImageNotFound"), 0, "-"},
		"no repository": {exc("RepositoryNotFoundException"), 0, "-"},
		"child":         {fails("ImageReferencedByManifestList"), registry.Invalid, codeUnsupported},
		"cut":           {answer{cut: true}, registry.Unavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := newControl(t, step{batchDeleteImage, tc.answer, nil}).registry().DeleteManifest(t.Context(), "team/app", img.Desc.Digest)
			if tc.code != "-" {
				wantClass(t, err, tc.class, tc.code)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}
