package ecrtest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	account = "111122223333"
	other   = "444455556666"
	region  = "us-west-2"
)

// clock is a clock that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func start(t *testing.T, opt ecrtest.Options) *ecrtest.Emulator {
	t.Helper()
	emu, err := ecrtest.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := emu.Start(ecrtest.Listen{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { emu.Close() })
	return emu
}

// httpClient is a client of a test's own, which follows no redirect, so that no connection outlives the test.
func httpClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func client(t *testing.T, emu *ecrtest.Emulator, creds aws.Credentials) *ecr.Client {
	cfg := emu.Config(account, region)
	h := httpClient(t)
	h.Transport = &checked{t: t, base: h.Transport, seen: map[string]bool{}}
	cfg.HTTPClient = h
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil })
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return ecr.NewFromConfig(cfg)
}

// code returns the exception's name of an SDK error.
func code(err error) string {
	var a smithy.APIError
	if errors.As(err, &a) {
		return a.ErrorCode()
	}
	return ""
}

// push writes n bottom-up by the control API.
func push(t *testing.T, c *ecr.Client, repo, tag string, n registrytest.Node) {
	t.Helper()
	ctx := t.Context()
	_, err := c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &repo})
	var exists *ecrtypes.RepositoryAlreadyExistsException
	if err != nil && !errors.As(err, &exists) {
		t.Fatal(err)
	}
	for _, b := range n.Blobs {
		if err := upload(t, c, repo, b.Body, 10<<20); err != nil && code(err) != "LayerAlreadyExistsException" {
			t.Fatal(err)
		}
	}
	for _, child := range n.Children {
		push(t, c, repo, "", child)
	}
	if err := put(t, c, repo, tag, n); err != nil {
		t.Fatal(err)
	}
}

func upload(t *testing.T, c *ecr.Client, repo string, body []byte, part int) error {
	ctx := t.Context()
	u, err := c.InitiateLayerUpload(ctx, &ecr.InitiateLayerUploadInput{RepositoryName: &repo})
	if err != nil {
		return err
	}
	for at := 0; at < len(body); at += part {
		end := min(at+part, len(body))
		out, err := c.UploadLayerPart(ctx, &ecr.UploadLayerPartInput{RepositoryName: &repo, UploadId: u.UploadId,
			PartFirstByte: aws.Int64(int64(at)), PartLastByte: aws.Int64(int64(end - 1)), LayerPartBlob: body[at:end]})
		if err != nil {
			return err
		}
		if *out.LastByteReceived != int64(end-1) {
			t.Errorf("last byte received: %d, want %d", *out.LastByteReceived, end-1)
		}
	}
	_, err = c.CompleteLayerUpload(ctx, &ecr.CompleteLayerUploadInput{RepositoryName: &repo, UploadId: u.UploadId, LayerDigests: []string{digest.FromBytes(body).String()}})
	return err
}

func put(t *testing.T, c *ecr.Client, repo, tag string, n registrytest.Node) error {
	in := &ecr.PutImageInput{RepositoryName: &repo, ImageManifest: aws.String(string(n.Body)),
		ImageManifestMediaType: &n.Desc.MediaType, ImageDigest: aws.String(n.Desc.Digest.String())}
	if tag != "" {
		in.ImageTag = &tag
	}
	_, err := c.PutImage(t.Context(), in)
	return err
}

// v2 sends one request to a registry's own listener with a token for it.
type v2 struct {
	t      *testing.T
	http   *http.Client
	base   string
	token  string
	header http.Header
}

func v2Client(t *testing.T, emu *ecrtest.Emulator, c *ecr.Client) *v2 {
	out, err := c.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	return &v2{t, httpClient(t), "http://" + emu.RegistryHost(account, region), *out.AuthorizationData[0].AuthorizationToken, http.Header{}}
}

func (v *v2) do(method, path string, body []byte, header ...string) (*http.Response, string) {
	v.t.Helper()
	if strings.HasPrefix(path, "/") {
		path = v.base + path
	}
	req, err := http.NewRequestWithContext(v.t.Context(), method, path, bytes.NewReader(body))
	if err != nil {
		v.t.Fatal(err)
	}
	if v.token != "" {
		req.Header.Set("Authorization", "Basic "+v.token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := v.http.Do(req)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return resp, string(b)
}

func asErr[T error](err error, target *T) bool { return errors.As(err, target) }
