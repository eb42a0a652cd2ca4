package ecr

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

var (
	_ registry.Reader      = (*Registry)(nil)
	_ registry.Locator     = (*Registry)(nil)
	_ registry.Lister      = (*Registry)(nil)
	_ registry.Catalog     = (*Registry)(nil)
	_ registry.Describer   = (*Registry)(nil)
	_ registry.Keeper      = (*Registry)(nil)
	_ registry.Writer      = (*Registry)(nil)
	_ registry.Deleter     = (*Registry)(nil)
	_ registry.Provisioner = (*Registry)(nil)
)

// blobMediaType is what Stat and Open say of a blob: its media type is in the manifest, nowhere else.
const blobMediaType = "application/octet-stream"

// Resolve implements registry.Reader with one BatchGetImage. A manifest that ECR converted (see registry.ManifestTypes), and
// so does not have the digest it is announced under, is Corrupt.
func (r *Registry) Resolve(ctx context.Context, repo, tag string) (registry.Descriptor, error) {
	d, err := r.resolve(ctx, repo, tag)
	if err != nil {
		return registry.Descriptor{}, fmt.Errorf("resolve %.256s:%.128s: %w", repo, tag, err)
	}
	return d, nil
}

func (r *Registry) resolve(ctx context.Context, repo, tag string) (registry.Descriptor, error) {
	if err := checkRepo(repo); err != nil {
		return registry.Descriptor{}, err
	}
	if err := checkTag(tag); err != nil {
		return registry.Descriptor{}, err
	}
	d, body, err := r.image(ctx, repo, types.ImageIdentifier{ImageTag: &tag})
	if err != nil {
		return registry.Descriptor{}, err
	}
	r.manifests.put(registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d.Digest}, d, body)
	return d, nil
}

// Stat implements registry.Reader: BatchGetImage of a manifest, BatchCheckLayerAvailability of a blob or, where that is
// denied, what Open does.
func (r *Registry) Stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	d, err := r.stat(ctx, o)
	if err != nil {
		return registry.Descriptor{}, fmt.Errorf("stat %v: %w", o, err)
	}
	return d, nil
}

func (r *Registry) stat(ctx context.Context, o registry.Object) (registry.Descriptor, error) {
	if err := checkObject(o); err != nil {
		return registry.Descriptor{}, err
	}
	if o.Kind == registry.Manifest {
		d, body, err := r.image(ctx, o.Repo, types.ImageIdentifier{ImageDigest: aws.String(o.Digest.String())})
		if err == nil {
			r.manifests.put(o, d, body)
		}
		return d, err
	}
	layers, err := r.check(ctx, o.Repo, []digest.Digest{o.Digest})
	if errors.Is(err, registry.Denied) { // who may pull need not be allowed to ask
		c, err := r.openLayer(ctx, o, registry.Range{})
		if err != nil {
			return registry.Descriptor{}, err
		}
		return c.Descriptor, c.Close()
	}
	if err != nil {
		return registry.Descriptor{}, err
	}
	size, ok := layers[o.Digest]
	if !ok {
		return registry.Descriptor{}, registry.Unknown(o)
	}
	return registry.Descriptor{MediaType: blobMediaType, Digest: o.Digest, Size: size}, nil
}

// Open implements registry.Reader. Manifests are verified whole before their first byte; blobs are streamed from their
// presigned URL unverified.
func (r *Registry) Open(ctx context.Context, o registry.Object, rg registry.Range) (*registry.Content, error) {
	c, err := r.open(ctx, o, rg)
	if err != nil {
		return nil, fmt.Errorf("open %v: %w", o, err)
	}
	return c, nil
}

func (r *Registry) open(ctx context.Context, o registry.Object, rg registry.Range) (*registry.Content, error) {
	if err := checkObject(o); err != nil {
		return nil, err
	}
	if rg.Offset < 0 {
		return nil, registry.Errorf(registry.Invalid, "range at %d", rg.Offset)
	}
	if o.Kind == registry.Blob {
		return r.openLayer(ctx, o, rg)
	}
	d, body, ok := r.manifests.get(o)
	if !ok {
		var err error
		if d, body, err = r.image(ctx, o.Repo, types.ImageIdentifier{ImageDigest: aws.String(o.Digest.String())}); err != nil {
			return nil, err
		}
	}
	rg, ok = rg.Clip(d.Size)
	if !ok {
		return nil, registry.Errorf(registry.Invalid, "range outside its %d bytes", d.Size)
	}
	return &registry.Content{Descriptor: d, Range: rg, From: r,
		ReadCloser: io.NopCloser(bytes.NewReader(body[rg.Offset : rg.Offset+rg.Length]))}, nil
}

// image returns one manifest, verified against the digest that was asked for or announced.
func (r *Registry) image(ctx context.Context, repo string, id types.ImageIdentifier) (registry.Descriptor, []byte, error) {
	out, err := call(ctx, r, batchGetImage, r.api.BatchGetImage, &ecr.BatchGetImageInput{RegistryId: r.id(),
		RepositoryName: &repo, ImageIds: []types.ImageIdentifier{id}, AcceptedMediaTypes: registry.ManifestTypes()})
	if err != nil {
		return registry.Descriptor{}, nil, err
	}
	for _, f := range out.Failures {
		return registry.Descriptor{}, nil, imageFailure(f)
	}
	if len(out.Images) != 1 || out.Images[0].ImageManifest == nil || out.Images[0].ImageId == nil {
		return registry.Descriptor{}, nil, registry.Errorf(registry.Unavailable, "%s: no image in the answer", batchGetImage)
	}
	img := out.Images[0]
	want := digest.Digest(aws.ToString(img.ImageId.ImageDigest))
	if id.ImageDigest != nil {
		want = digest.Digest(*id.ImageDigest)
	}
	if want.Validate() != nil {
		return registry.Descriptor{}, nil, registry.Errorf(registry.Corrupt, "%s: digest %.100q in the answer", batchGetImage, want)
	}
	body := []byte(*img.ImageManifest)
	if len(body) > registry.MaxManifestSize {
		return registry.Descriptor{}, nil, registry.Errorf(registry.Invalid, "manifest of %d bytes", len(body))
	}
	if err := registry.VerifyBytes(body, want); err != nil {
		return registry.Descriptor{}, nil, err
	}
	d := registry.Descriptor{MediaType: registry.ManifestType(aws.ToString(img.ImageManifestMediaType), body), Digest: want, Size: int64(len(body))}
	if d.MediaType == "" { // older answers leave it out: the body says it
		links, err := registry.ParseManifest("", body)
		if err != nil {
			return registry.Descriptor{}, nil, err
		}
		d.MediaType = links.MediaType
	}
	return d, body, nil
}

// imageFailure is what one entry of BatchGetImage's or BatchDeleteImage's failures means.
func imageFailure(f types.ImageFailure) error {
	e := registry.Errorf(registry.Unavailable, "%s: %s", f.FailureCode, aws.ToString(f.FailureReason))
	switch f.FailureCode {
	case types.ImageFailureCodeImageNotFound, types.ImageFailureCodeImageTagDoesNotMatchDigest:
		e.Class, e.Code = registry.NotFound, registry.CodeManifestUnknown
	case types.ImageFailureCodeInvalidImageDigest:
		e.Class, e.Code = registry.Invalid, registry.CodeDigestInvalid
	case types.ImageFailureCodeInvalidImageTag, types.ImageFailureCodeMissingDigestAndTag:
		e.Class, e.Code = registry.Invalid, registry.CodeTagInvalid
	case types.ImageFailureCodeImageReferencedByManifestList:
		e.Class, e.Code = registry.Invalid, codeUnsupported
	case types.ImageFailureCodeKmsError, types.ImageFailureCodeUpstreamAccessDenied:
		e.Class, e.Code = registry.Denied, codeDenied
	case types.ImageFailureCodeUpstreamTooManyRequests:
		e.Class, e.Code = registry.Throttled, codeTooManyRequests
	}
	return e
}

// check returns the sizes of those of digests (at most batchSize) that are layers of repo and can be read. An archived layer
// cannot: User Guide, "Archiving an image".
func (r *Registry) check(ctx context.Context, repo string, digests []digest.Digest) (map[digest.Digest]int64, error) {
	in := &ecr.BatchCheckLayerAvailabilityInput{RegistryId: r.id(), RepositoryName: &repo}
	for _, d := range digests {
		in.LayerDigests = append(in.LayerDigests, d.String())
	}
	out, err := call(ctx, r, checkLayers, r.api.BatchCheckLayerAvailability, in)
	if err != nil {
		return nil, err
	}
	for _, f := range out.Failures {
		if f.FailureCode != types.LayerFailureCodeMissingLayerDigest {
			e := registry.Errorf(registry.Invalid, "%s: %s", f.FailureCode, aws.ToString(f.FailureReason))
			e.Code = registry.CodeDigestInvalid
			return nil, e
		}
	}
	there := make(map[digest.Digest]int64, len(out.Layers))
	for _, l := range out.Layers {
		if l.LayerAvailability == types.LayerAvailabilityAvailable {
			there[digest.Digest(aws.ToString(l.LayerDigest))] = aws.ToInt64(l.LayerSize)
		}
	}
	return there, nil
}
