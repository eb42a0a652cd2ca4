package ecr

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// RepositorySettings are those of repositories that CreateRepository creates. The zero value is ECR's own default.
type RepositorySettings struct {
	TagMutability string            // MUTABLE, IMMUTABLE; "": MUTABLE
	ScanOnPush    bool              // basic scanning; ECR prefers the registry's own scanning configuration
	Encryption    string            // AES256, KMS, KMS_DSSE; "": AES256
	KMSKey        string            // ARN; "" with KMS: the AWS managed key
	Tags          map[string]string // takes ecr:TagResource
}

// Missing implements registry.Writer, a hundred objects a call. A repository that does not exist is NotFound with code
// NAME_UNKNOWN.
func (r *Registry) Missing(ctx context.Context, repo string, objects []registry.Object) ([]registry.Object, error) {
	missing, err := r.missing(ctx, repo, objects)
	if err != nil {
		return nil, fmt.Errorf("missing of %.256s: %w", repo, err)
	}
	return missing, nil
}

func (r *Registry) missing(ctx context.Context, repo string, objects []registry.Object) ([]registry.Object, error) {
	if err := checkRepo(repo); err != nil {
		return nil, err
	}
	var want [2][]digest.Digest // by kind
	seen := make(map[registry.Object]bool, len(objects))
	for _, o := range objects {
		if err := checkDigest(o.Digest); err != nil {
			return nil, err
		}
		if o.Repo = repo; !seen[o] {
			seen[o] = true
			want[o.Kind] = append(want[o.Kind], o.Digest)
		}
	}
	there := make(map[registry.Object]bool, len(objects))
	for batch := range slices.Chunk(want[registry.Blob], batchSize) {
		layers, err := r.check(ctx, repo, batch)
		if err != nil {
			return nil, err
		}
		for d := range layers {
			there[registry.Object{Repo: repo, Kind: registry.Blob, Digest: d}] = true
		}
	}
	for batch := range slices.Chunk(want[registry.Manifest], batchSize) {
		images, err := r.have(ctx, repo, batch)
		if err != nil {
			return nil, err
		}
		for _, d := range images {
			there[registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}] = true
		}
	}
	var missing []registry.Object
	for _, o := range objects {
		if o.Repo = repo; !there[o] {
			missing = append(missing, o)
		}
	}
	return missing, nil
}

// have returns those of digests (at most batchSize) that are images of repo.
func (r *Registry) have(ctx context.Context, repo string, digests []digest.Digest) ([]digest.Digest, error) {
	in := &ecr.BatchGetImageInput{RegistryId: r.id(), RepositoryName: &repo, AcceptedMediaTypes: registry.ManifestTypes()}
	for _, d := range digests {
		in.ImageIds = append(in.ImageIds, types.ImageIdentifier{ImageDigest: aws.String(d.String())})
	}
	out, err := call(ctx, r, batchGetImage, r.api.BatchGetImage, in)
	if err != nil {
		return nil, err
	}
	for _, f := range out.Failures {
		if err := imageFailure(f); registry.ClassOf(err) != registry.NotFound {
			return nil, err
		}
	}
	var there []digest.Digest
	for _, img := range out.Images {
		if img.ImageId != nil {
			there = append(there, digest.Digest(aws.ToString(img.ImageId.ImageDigest)))
		}
	}
	return there, nil
}

// PutManifest implements registry.Writer with one PutImage. What ECR's strict schema refuses is Invalid; so is a manifest
// whose blobs or children are not there yet.
func (r *Registry) PutManifest(ctx context.Context, repo, tag string, d registry.Descriptor, body []byte) error {
	if err := r.putManifest(ctx, repo, tag, d, body); err != nil {
		return fmt.Errorf("put manifest %.256s:%.128s@%.200s: %w", repo, tag, d.Digest, err)
	}
	return nil
}

func (r *Registry) putManifest(ctx context.Context, repo, tag string, d registry.Descriptor, body []byte) error {
	if err := checkObject(registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d.Digest}); err != nil {
		return err
	}
	if len(body) > registry.MaxManifestSize {
		return registry.Errorf(registry.Invalid, "%d bytes, more than %d", len(body), registry.MaxManifestSize)
	}
	if err := registry.VerifyBytes(body, d.Digest); err != nil {
		return err
	}
	in := &ecr.PutImageInput{RegistryId: r.id(), RepositoryName: &repo, ImageManifest: aws.String(string(body)),
		ImageDigest: aws.String(d.Digest.String())}
	if d.MediaType != "" { // needed by manifests that do not name their own, such as Helm's
		in.ImageManifestMediaType = &d.MediaType
	}
	if tag != "" {
		if err := checkTag(tag); err != nil {
			return err
		}
		in.ImageTag = &tag
	}
	_, err := call(ctx, r, putImage, r.api.PutImage, in)
	switch exception(err) {
	case "ImageAlreadyExistsException": // this digest, under this tag: what was asked for
		return nil
	case "ImageTagAlreadyExistsException":
		// An immutable tag refuses even what it names already (aws/containers-roadmap #2179, #2380): look what that is.
		now, _, rerr := r.image(ctx, repo, types.ImageIdentifier{ImageTag: &tag})
		if rerr == nil && now.Digest == d.Digest {
			return nil
		}
		if rerr != nil && registry.ClassOf(rerr) != registry.NotFound {
			return rerr
		}
		return fmt.Errorf("it names %s: %w", now.Digest, err)
	}
	return err
}

// CreateRepository implements registry.Provisioner with Options.Settings; those of a repository that exists are left alone.
func (r *Registry) CreateRepository(ctx context.Context, repo string) error {
	err := checkRepo(repo)
	if err == nil {
		_, err = call(ctx, r, createRepository, r.api.CreateRepository, r.set.input(r.id(), repo))
	}
	if err != nil && exception(err) != "RepositoryAlreadyExistsException" {
		return fmt.Errorf("create repository %.256s: %w", repo, err)
	}
	return nil
}

func (s RepositorySettings) input(account *string, repo string) *ecr.CreateRepositoryInput {
	in := &ecr.CreateRepositoryInput{RegistryId: account, RepositoryName: &repo, ImageTagMutability: types.ImageTagMutability(s.TagMutability)}
	if s.ScanOnPush {
		in.ImageScanningConfiguration = &types.ImageScanningConfiguration{ScanOnPush: true}
	}
	if s.Encryption != "" {
		in.EncryptionConfiguration = &types.EncryptionConfiguration{EncryptionType: types.EncryptionType(s.Encryption)}
		if s.KMSKey != "" {
			in.EncryptionConfiguration.KmsKey = &s.KMSKey
		}
	}
	in.Tags = resourceTags(s.Tags)
	return in
}

// resourceTags are in the order of their keys.
func resourceTags(tags map[string]string) (all []types.Tag) {
	for k, v := range tags {
		all = append(all, types.Tag{Key: &k, Value: &v})
	}
	slices.SortFunc(all, func(a, b types.Tag) int { return cmp.Compare(*a.Key, *b.Key) })
	return all
}

// DeleteManifest implements registry.Deleter. A manifest that an index refers to is Invalid: delete the index first.
func (r *Registry) DeleteManifest(ctx context.Context, repo string, d digest.Digest) error {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}
	err := checkObject(o)
	if err == nil {
		r.manifests.forget(o)
		err = r.delete(ctx, o)
		r.manifests.forget(o) // a reader may have put it back meanwhile
	}
	if err != nil && registry.ClassOf(err) != registry.NotFound {
		return fmt.Errorf("delete %v: %w", o, err)
	}
	return nil
}

func (r *Registry) delete(ctx context.Context, o registry.Object) error {
	out, err := call(ctx, r, batchDeleteImage, r.api.BatchDeleteImage, &ecr.BatchDeleteImageInput{RegistryId: r.id(),
		RepositoryName: &o.Repo, ImageIds: []types.ImageIdentifier{{ImageDigest: aws.String(o.Digest.String())}}})
	if err != nil {
		return err
	}
	for _, f := range out.Failures {
		return imageFailure(f)
	}
	return nil
}
