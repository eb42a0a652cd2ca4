package ecr

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// call makes one control call when its turn has come (see Limits), within the call timeout, and gives its error a class.
func call[In, Out any](ctx context.Context, r *Registry, api string,
	do func(context.Context, *In, ...func(*ecr.Options)) (*Out, error), in *In) (*Out, error) {
	b := r.limits.bucket(r.account, r.region, api)
	if err := b.wait(ctx, registry.LaneOf(ctx)); err != nil {
		return nil, &registry.Error{Class: registry.Unavailable, Err: err}
	}
	d := r.limit
	if api == uploadPart {
		d *= 4
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	start := time.Now()
	out, err := do(ctx, in)
	if stale(exception(err)) && r.creds.renew(ctx, start) { // once: what is refused again is refused
		out, err = do(ctx, in)
	}
	err = classify(api, err)
	if err != nil && registry.ClassOf(err) == registry.Throttled {
		b.throttled()
	} else if err == nil {
		b.fine()
	}
	r.limits.observe(r.host, api, err, time.Since(start))
	r.log.DebugContext(ctx, "ecr call", "registry", r.host, "call", api, "duration", time.Since(start), "err", err)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// id returns the account for a request's RegistryId; nil is the caller's own.
func (r *Registry) id() *string {
	if r.account == "" {
		return nil
	}
	return &r.account
}

func checkRepo(repo string) error {
	n, err := reference.WithName(repo)
	if err == nil && n.Name() == repo && len(repo) >= minName && len(repo) <= maxName {
		return nil
	}
	e := registry.Errorf(registry.Invalid, "repository %.300q: not a name that ECR takes", repo)
	e.Code = registry.CodeNameInvalid
	return e
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		e := registry.Errorf(registry.Invalid, "digest %.200q: %w", string(d), err)
		e.Code = registry.CodeDigestInvalid
		return e
	}
	return nil
}

func checkTag(tag string) error {
	if loc := reference.TagRegexp.FindStringIndex(tag); loc == nil || loc[0] != 0 || loc[1] != len(tag) {
		e := registry.Errorf(registry.Invalid, "tag %.200q: not a tag", tag)
		e.Code = registry.CodeTagInvalid
		return e
	}
	return nil
}

func checkObject(o registry.Object) error {
	if err := checkRepo(o.Repo); err != nil {
		return err
	}
	return checkDigest(o.Digest)
}

// maxAnswer bounds an answer of the control API in bytes: a hundred manifests, quoted, of a size that is still sane.
const maxAnswer = 128 << 20

// boundedClient is the SDK's HTTP client with bodies that end at maxAnswer: the SDK reads answers whole.
type boundedClient struct{ base aws.HTTPClient }

func (c boundedClient) Do(req *http.Request) (*http.Response, error) {
	resp, err := c.base.Do(req)
	if err == nil && resp.Body != nil {
		resp.Body = &boundedBody{resp.Body, maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, registry.Errorf(registry.Invalid, "answer of more than %d bytes", maxAnswer)
	}
	return n, err
}

// clientTransport and roundTripClient have something put around the SDK's client that is made to be put around a transport.
type clientTransport struct{ client aws.HTTPClient }

func (t clientTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	return t.client.Do(req)
}

type roundTripClient struct{ transport http.RoundTripper }

func (c roundTripClient) Do(req *http.Request) (*http.Response, error) {
	return c.transport.RoundTrip(req)
}
