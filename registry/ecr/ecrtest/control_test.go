package ecrtest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestPushAndPull(t *testing.T) {
	emu := start(t, ecrtest.Options{PartSize: 1000})
	c := client(t, emu, emu.Credentials(account))
	a, b := registrytest.Image(1, 2500, 10), registrytest.Image(2, 100)
	ix := registrytest.Index(a, b)
	push(t, c, "team/app", "v1", ix)
	ctx := t.Context()

	got, err := c.BatchGetImage(ctx, &ecr.BatchGetImageInput{RepositoryName: aws.String("team/app"), ImageIds: []ecrtypes.ImageIdentifier{
		{ImageTag: aws.String("v1")}, {ImageDigest: aws.String(a.Desc.Digest.String())}, {ImageTag: aws.String("nope")}, {}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Images) != 2 || *got.Images[0].ImageManifest != string(ix.Body) || *got.Images[0].ImageManifestMediaType != ix.Desc.MediaType ||
		*got.Images[0].ImageId.ImageDigest != ix.Desc.Digest.String() || *got.Images[1].ImageManifest != string(a.Body) {
		t.Errorf("images: %+v", got.Images)
	}
	var codes []string
	for _, f := range got.Failures {
		codes = append(codes, string(f.FailureCode)+": "+*f.FailureReason)
	}
	if d := cmp.Diff([]string{"ImageNotFound: Requested image not found",
		"MissingDigestAndTag: Invalid request parameters: both tag and digest cannot be null"}, codes); d != "" {
		t.Error(d)
	}

	layer := a.Blobs[1]
	u, err := c.GetDownloadUrlForLayer(ctx, &ecr.GetDownloadUrlForLayerInput{RepositoryName: aws.String("team/app"), LayerDigest: aws.String(layer.Desc.Digest.String())})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := httpClient(t).Get(*u.DownloadUrl)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !bytes.Equal(body, layer.Body) {
		t.Errorf("layer: %d bytes, status %d", len(body), resp.StatusCode)
	}
	want := []ecrtest.Read{{Repo: "team/app", Length: 2500, Sent: 2500}}
	if d := cmp.Diff(want, emu.Registry(account, region).LayerReads(layer.Desc.Digest)); d != "" {
		t.Error(d)
	}

	di, err := c.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: aws.String("team/app"), ImageIds: []ecrtypes.ImageIdentifier{{ImageTag: aws.String("v1")}}})
	if err != nil {
		t.Fatal(err)
	}
	d := di.ImageDetails[0]
	if *d.ImageSizeInBytes != 2510+a.Blobs[0].Desc.Size || d.ImageTags[0] != "v1" || time.Since(*d.ImagePushedAt) > time.Minute || d.ImageStatus != ecrtypes.ImageStatusActive {
		t.Errorf("detail: %+v", d)
	}
	if n := len(slices.DeleteFunc(emu.Calls(), func(s string) bool { return s != region+" "+account+" PutImage team/app:v1" })); n != 1 {
		t.Errorf("%d calls of PutImage team/app:v1 among %q", n, emu.Calls())
	}
}

func TestUploadErrors(t *testing.T) {
	emu := start(t, ecrtest.Options{PartSize: 1000})
	c := client(t, emu, emu.Credentials(account))
	ctx, repo := t.Context(), aws.String("app")
	begin := func(t *testing.T) *string {
		u, err := c.InitiateLayerUpload(ctx, &ecr.InitiateLayerUploadInput{RepositoryName: repo})
		if err != nil {
			t.Fatal(err)
		}
		return u.UploadId
	}
	part := func(id *string, first, last int64, n int) error {
		_, err := c.UploadLayerPart(ctx, &ecr.UploadLayerPartInput{RepositoryName: repo, UploadId: id, PartFirstByte: &first, PartLastByte: &last, LayerPartBlob: make([]byte, n)})
		return err
	}
	complete := func(id *string, d digest.Digest) error {
		_, err := c.CompleteLayerUpload(ctx, &ecr.CompleteLayerUploadInput{RepositoryName: repo, UploadId: id, LayerDigests: []string{d.String()}})
		return err
	}
	if _, err := c.InitiateLayerUpload(ctx, &ecr.InitiateLayerUploadInput{RepositoryName: repo}); code(err) != "RepositoryNotFoundException" {
		t.Errorf("no repository: %v", err)
	}
	if err := emu.Registry(account, region).CreateRepository("app"); err != nil {
		t.Fatal(err)
	}
	zeros := func(n int) digest.Digest { return digest.FromBytes(make([]byte, n)) }
	for _, tc := range []struct {
		name, want string
		do         func(t *testing.T, id *string) error
	}{
		{"unknown upload", "UploadNotFoundException", func(t *testing.T, _ *string) error { return part(aws.String("no"), 0, 9, 10) }},
		{"length", "InvalidParameterException", func(t *testing.T, id *string) error { return part(id, 0, 9, 11) }},
		{"empty", "EmptyUploadException", func(t *testing.T, id *string) error { return complete(id, zeros(0)) }},
		{"offset", "InvalidLayerPartException", func(t *testing.T, id *string) error {
			part(id, 0, 599, 600)
			err := part(id, 0, 599, 600)
			var e *ecrtypes.InvalidLayerPartException
			if !asErr(err, &e) || *e.LastValidByteReceived != 599 {
				t.Errorf("%+v", e)
			}
			return err
		}},
		{"digest", "InvalidLayerException", func(t *testing.T, id *string) error {
			part(id, 0, 9, 10)
			return complete(id, zeros(11))
		}},
		{"small part", "LayerPartTooSmallException", func(t *testing.T, id *string) error {
			part(id, 0, 9, 10)
			part(id, 10, 19, 10)
			return complete(id, zeros(20))
		}},
		{"twice", "LayerAlreadyExistsException", func(t *testing.T, id *string) error {
			part(id, 0, 9, 10)
			if err := complete(id, zeros(10)); err != nil {
				t.Error(err)
			}
			id = begin(t)
			part(id, 0, 9, 10)
			return complete(id, zeros(10))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := tc.do(t, begin(t)); code(err) != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
}

func TestPutImageErrors(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	img := registrytest.Image(1, 10)
	push(t, c, "app", "v1", img)
	if err := put(t, c, "app", "v1", img); code(err) != "ImageAlreadyExistsException" {
		t.Errorf("identical push: %v", err)
	}
	if err := put(t, c, "app", "v2", img); err != nil {
		t.Errorf("another tag: %v", err)
	}
	if err := put(t, c, "app", "", registrytest.Image(2, 10)); code(err) != "LayersNotFoundException" {
		t.Errorf("layers missing: %v", err)
	}
	if err := put(t, c, "app", "", registrytest.Index(registrytest.Image(3, 10))); code(err) != "ReferencedImagesNotFoundException" {
		t.Errorf("children missing: %v", err)
	}
	wrong := img
	wrong.Desc.Digest = digest.FromString("other")
	if err := put(t, c, "app", "", wrong); code(err) != "ImageDigestDoesNotMatchException" {
		t.Errorf("digest: %v", err)
	}
	huge := img
	huge.Body = append(append([]byte{}, img.Body...), make([]byte, 4<<20)...)
	if err := put(t, c, "app", "", huge); code(err) != "InvalidParameterException" {
		t.Errorf("more than 4 MiB: %v", err)
	}
	if err := put(t, c, "none", "", img); code(err) != "RepositoryNotFoundException" {
		t.Errorf("repository: %v", err)
	}
	bad := registrytest.Referrer(img.Desc, "x/y", []byte("sig"))
	bad.Body = bytes.Replace(bad.Body, []byte(`"subject":{`), []byte(`"subject":{"platform":{"os":"linux","architecture":"amd64"},`), 1)
	bad.Desc.Digest = digest.FromBytes(bad.Body)
	if err := put(t, c, "app", "", bad); code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), "Invalid JSON syntax") {
		t.Errorf("platform in subject: %v", err)
	}

	for _, tc := range []struct {
		mutability ecrtypes.ImageTagMutability
		filter     string
		want       string
	}{
		{ecrtypes.ImageTagMutabilityImmutable, "", "ImageTagAlreadyExistsException"},
		{ecrtypes.ImageTagMutabilityImmutableWithExclusion, "v*", "ImageAlreadyExistsException"},
		{ecrtypes.ImageTagMutabilityImmutableWithExclusion, "latest", "ImageTagAlreadyExistsException"},
		{ecrtypes.ImageTagMutabilityMutableWithExclusion, "v*", "ImageTagAlreadyExistsException"},
	} {
		in := &ecr.PutImageTagMutabilityInput{RepositoryName: aws.String("app"), ImageTagMutability: tc.mutability}
		if tc.filter != "" {
			in.ImageTagMutabilityExclusionFilters = []ecrtypes.ImageTagMutabilityExclusionFilter{{FilterType: "WILDCARD", Filter: &tc.filter}}
		}
		if _, err := c.PutImageTagMutability(t.Context(), in); err != nil {
			t.Fatal(err)
		}
		if err := put(t, c, "app", "v1", img); code(err) != tc.want { // even the identical push
			t.Errorf("%s %q: got %v, want %s", tc.mutability, tc.filter, err, tc.want)
		}
	}
}

func TestLayersNeedAnImage(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	emu.Registry(account, region).CreateRepository("app")
	body := []byte("layer")
	d := aws.String(digest.FromBytes(body).String())
	if err := upload(t, c, "app", body, 100); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GetDownloadUrlForLayer(t.Context(), &ecr.GetDownloadUrlForLayerInput{RepositoryName: aws.String("app"), LayerDigest: d}); code(err) != "LayerInaccessibleException" {
		t.Error(err)
	}
	out, err := c.BatchCheckLayerAvailability(t.Context(), &ecr.BatchCheckLayerAvailabilityInput{RepositoryName: aws.String("app"),
		LayerDigests: []string{*d, digest.FromString("no").String(), "junk"}})
	if err != nil || len(out.Layers) != 2 || out.Layers[0].LayerAvailability != "AVAILABLE" || *out.Layers[0].LayerSize != 5 ||
		out.Layers[1].LayerAvailability != "UNAVAILABLE" || len(out.Failures) != 1 || out.Failures[0].FailureCode != "InvalidLayerDigest" {
		t.Errorf("%+v %v", out, err)
	}
}

func TestPaging(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	img := registrytest.Image(1, 10)
	want := map[string]bool{}
	push(t, c, "app", "t0", img)
	want["t0"] = true
	for i := 1; i < 25; i++ {
		tag := fmt.Sprintf("t%d", i)
		want[tag] = true
		if err := put(t, c, "app", tag, img); err != nil {
			t.Fatal(err)
		}
	}
	got, pages := map[string]bool{}, 0
	p := ecr.NewListImagesPaginator(c, &ecr.ListImagesInput{RepositoryName: aws.String("app"), MaxResults: aws.Int32(10)})
	for ; p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range out.ImageIds {
			got[*id.ImageTag] = true
		}
	}
	if d := cmp.Diff(want, got); d != "" || pages != 3 {
		t.Error(pages, d)
	}
}

func TestDelete(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	child := registrytest.Image(1, 10)
	ix := registrytest.Index(child)
	push(t, c, "app", "v1", ix)
	put(t, c, "app", "v2", ix)
	del := func(id ecrtypes.ImageIdentifier) *ecr.BatchDeleteImageOutput {
		t.Helper()
		out, err := c.BatchDeleteImage(t.Context(), &ecr.BatchDeleteImageInput{RepositoryName: aws.String("app"), ImageIds: []ecrtypes.ImageIdentifier{id}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	childID := ecrtypes.ImageIdentifier{ImageDigest: aws.String(child.Desc.Digest.String())}
	if out := del(childID); len(out.Failures) != 1 || out.Failures[0].FailureCode != "ImageReferencedByManifestList" {
		t.Errorf("child in use: %+v", out)
	}
	if out := del(ecrtypes.ImageIdentifier{ImageTag: aws.String("v1")}); len(out.ImageIds) != 1 || *out.ImageIds[0].ImageTag != "v1" {
		t.Errorf("tag: %+v", out)
	}
	if out := del(ecrtypes.ImageIdentifier{ImageTag: aws.String("v2")}); len(out.ImageIds) != 1 {
		t.Errorf("last tag: %+v", out)
	}
	if out := del(ecrtypes.ImageIdentifier{ImageDigest: aws.String(ix.Desc.Digest.String())}); len(out.Failures) != 1 || out.Failures[0].FailureCode != "ImageNotFound" {
		t.Errorf("gone with its last tag: %+v", out)
	}
	if out := del(childID); len(out.ImageIds) != 1 {
		t.Errorf("child: %+v", out)
	}
	if _, err := c.DeleteRepository(t.Context(), &ecr.DeleteRepositoryInput{RepositoryName: aws.String("app")}); err != nil {
		t.Error(err)
	}
}

func TestPermissions(t *testing.T) {
	emu := start(t, ecrtest.Options{Accounts: []string{account, other}})
	admin := client(t, emu, emu.Credentials(account))
	push(t, admin, "app", "v1", registrytest.Image(1, 10))
	get := func(creds aws.Credentials) error {
		_, err := client(t, emu, creds).BatchGetImage(t.Context(), &ecr.BatchGetImageInput{RegistryId: aws.String(account), RepositoryName: aws.String("app"),
			ImageIds: []ecrtypes.ImageIdentifier{{ImageTag: aws.String("v1")}}})
		return err
	}
	for _, tc := range []struct {
		name  string
		creds aws.Credentials
		want  string
	}{
		{"admin", emu.Credentials(account), ""},
		{"reader", emu.Role(account, "reader", "ecr:BatchGet*"), ""},
		{"writer", emu.Role(account, "writer", "ecr:PutImage"), "AccessDeniedException"},
		{"other account", emu.Credentials(other), "AccessDeniedException"},
		{"unknown key", aws.Credentials{AccessKeyID: "AKIANOBODY", SecretAccessKey: "x"}, "UnrecognizedClientException"},
		{"wrong secret", aws.Credentials{AccessKeyID: emu.Credentials(account).AccessKeyID, SecretAccessKey: "x"}, "InvalidSignatureException"},
	} {
		if err := get(tc.creds); code(err) != tc.want {
			t.Errorf("%s: got %v, want %q", tc.name, err, tc.want)
		}
	}
	policy := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + other + `:root"},"Action":["ecr:BatchGetImage"]}]}`
	if _, err := admin.SetRepositoryPolicy(t.Context(), &ecr.SetRepositoryPolicyInput{RepositoryName: aws.String("app"), PolicyText: &policy}); err != nil {
		t.Fatal(err)
	}
	if err := get(emu.Credentials(other)); err != nil {
		t.Errorf("repository policy: %v", err)
	}
	admin.DeleteRepositoryPolicy(t.Context(), &ecr.DeleteRepositoryPolicyInput{RepositoryName: aws.String("app")})
	if err := get(emu.Credentials(other)); code(err) != "AccessDeniedException" {
		t.Errorf("policy deleted: %v", err)
	}
	emu.Registry(account, region).Allow(other)
	if err := get(emu.Credentials(other)); err != nil {
		t.Errorf("allowed: %v", err)
	}
}

func TestTamperedRequest(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	cfg := emu.Config(account, region)
	for _, tc := range []struct {
		name   string
		tamper func(*http.Request)
	}{
		{"body", func(r *http.Request) {
			b := []byte(`{"repositoryName":"evil"}`)
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		}},
		{"header", func(r *http.Request) {
			r.Header.Set("X-Amz-Target", strings.Replace(r.Header.Get("X-Amz-Target"), "Create", "Delete", 1))
		}},
		{"date", func(r *http.Request) { r.Header.Set("X-Amz-Date", "20200101T000000Z") }},
		{"path", func(r *http.Request) { r.URL.Path = "/x" }},
	} {
		h := httpClient(t)
		h.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(context.WithoutCancel(r.Context()))
			tc.tamper(r)
			tr := &http.Transport{DisableKeepAlives: true}
			return tr.RoundTrip(r)
		})
		cfg.HTTPClient = h
		cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
		_, err := ecr.NewFromConfig(cfg).CreateRepository(t.Context(), &ecr.CreateRepositoryInput{RepositoryName: aws.String("app")})
		if code(err) != "InvalidSignatureException" {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestThrottle(t *testing.T) {
	clk := newClock()
	emu := start(t, ecrtest.Options{Clock: clk.Now, Rates: map[string]float64{"DescribeRepositories": 2}})
	c := client(t, emu, emu.Credentials(account))
	var got []string
	ask := func() {
		_, err := c.DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{})
		got = append(got, code(err))
	}
	ask()
	ask()
	ask()
	clk.Advance(time.Second / 2)
	ask()
	ask()
	if d := cmp.Diff([]string{"", "", "ThrottlingException", "", "ThrottlingException"}, got); d != "" {
		t.Error(d)
	}
}
