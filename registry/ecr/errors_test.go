package ecr

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

func TestErrors(t *testing.T) {
	for _, tc := range []struct {
		answer answer
		class  registry.Class
		code   string
	}{
		{exc("RepositoryNotFoundException"), registry.NotFound, registry.CodeNameUnknown},
		{exc("LifecyclePolicyNotFoundException"), registry.NotFound, "LIFECYCLE_POLICY_UNKNOWN"},
		{exc("RepositoryPolicyNotFoundException"), registry.NotFound, "REPOSITORY_POLICY_UNKNOWN"},
		{exc("ImageNotFoundException"), registry.NotFound, registry.CodeManifestUnknown},
		{exc("InvalidParameterException"), registry.Invalid, codeUnsupported},
		{exc("LimitExceededException"), registry.Throttled, codeTooManyRequests},
		{exc("UnableToGetUpstreamImageException"), registry.Unavailable, ""},
		{exc("ServerException"), registry.Unavailable, ""},
		{exc("ThrottlingException"), registry.Throttled, codeTooManyRequests},
		{exc("TooManyRequestsException"), registry.Throttled, codeTooManyRequests},
		{exc("AccessDeniedException"), registry.Denied, codeDenied},
		{exc("ExpiredTokenException"), registry.Denied, codeDenied},
		{exc("UnrecognizedClientException"), registry.Denied, codeDenied},
		{exc("InvalidSignatureException"), registry.Denied, codeDenied},
		{exc("BrandNewException"), registry.Invalid, ""},
		{answer{exception: "BrandNewException", status: 500}, registry.Unavailable, ""},
		{answer{exception: "BrandNewException", status: 403}, registry.Denied, codeDenied},
		{answer{exception: "BrandNewException", status: 429}, registry.Throttled, codeTooManyRequests},
		{answer{status: 502, body: "bad gateway"}, registry.Unavailable, ""},
		{answer{status: 404, body: fields{}}, registry.Unavailable, ""}, // a wrong endpoint is not an absent image
		{answer{cut: true}, registry.Unavailable, ""},
	} {
		t.Run(tc.answer.exception, func(t *testing.T) {
			c := newControl(t, step{batchGetImage, tc.answer, nil})
			_, err := c.registry().Resolve(t.Context(), "team/app", "v1")
			wantClass(t, err, tc.class, tc.code)
			if e := tc.answer.exception; e != "" && !strings.HasPrefix(err.Error(), "resolve team/app:v1: BatchGetImage: "+e+": because of "+e) {
				t.Errorf("error reads %q", err)
			}
			c.wantCalls(batchGetImage) // never retried here
		})
	}
}

// Every exception that the SDK knows of the calls used here is in the table.
func TestTableIsComplete(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/ecr/types").Output()
	if err != nil {
		t.Fatal(err)
	}
	f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(strings.TrimSpace(string(out)), "errors.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Of calls that are not used, and the two that mean success.
	others := []string{"Exclusion", "Lifecycle", "PullThrough", "Policy", "Backfill", "Scan", "Secret", "Signing", "Template",
		"StorageClass", "RepositoryNotEmpty", "UnsupportedUpstreamRegistry", "RepositoryAlreadyExists", "ImageAlreadyExists", "LayerAlreadyExists"}
	n := 0
	for name := range f.Scope.Objects {
		if !strings.HasSuffix(name, "Exception") || f.Scope.Objects[name].Kind != ast.Typ {
			continue
		}
		if _, _, ok := verdict("", name); !ok && !contains(name, others) {
			t.Errorf("%s is not in the table", name)
		}
		n++
	}
	if n < 40 {
		t.Errorf("the SDK has %d exceptions?", n)
	}
}

func contains(s string, parts []string) bool {
	for _, p := range parts {
		if strings.Contains(s, p) {
			return true
		}
	}
	return false
}

func TestRetryAfterAndChain(t *testing.T) {
	c := newControl(t, step{batchGetImage, answer{exception: "ThrottlingException", status: 400, header: http.Header{"Retry-After": {"7"}}}, nil},
		step{batchGetImage, exc("RepositoryNotFoundException"), nil})
	r := c.registry()
	_, err := r.Resolve(t.Context(), "team/app", "v1")
	var e *registry.Error
	if !errors.As(err, &e) || e.RetryAfter != 7*time.Second {
		t.Errorf("got %v", err)
	}
	_, err = r.Resolve(t.Context(), "team/app", "v1")
	var typed *types.RepositoryNotFoundException
	if !errors.As(err, &typed) || !strings.Contains(err.Error(), "(request req-1)") {
		t.Errorf("got %v", err)
	}
}

type credentialsFunc func(context.Context) (aws.Credentials, error)

func (f credentialsFunc) Retrieve(ctx context.Context) (aws.Credentials, error) { return f(ctx) }

func TestCredentialsFail(t *testing.T) {
	r := newControl(t).registry(func(o *Options) {
		o.AWS.Credentials = credentialsFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{}, errors.New("no role found")
		})
	})
	_, err := r.Resolve(t.Context(), "team/app", "v1")
	wantClass(t, err, registry.Denied, codeDenied)
}

func TestAnswerIsBounded(t *testing.T) {
	b := &boundedBody{body{}, 1000}
	n := 0
	for {
		k, err := b.Read(make([]byte, 300))
		if n += k; err != nil {
			wantClass(t, err, registry.Invalid, "")
			break
		}
	}
	if n > 1000 {
		t.Errorf("read %d bytes", n)
	}
}

type body struct{}

func (body) Read(p []byte) (int, error) { return len(p), nil }
func (body) Close() error               { return nil }

func TestCallTimeout(t *testing.T) {
	stop := make(chan struct{})
	c := newControl(t, step{batchGetImage, ok(fields{}), func(*testing.T, fields) { <-stop }})
	defer close(stop)
	_, err := c.registry(func(o *Options) { o.CallTimeout = 20 * time.Millisecond }).Resolve(t.Context(), "team/app", "v1")
	wantClass(t, err, registry.Unavailable, "")
}
