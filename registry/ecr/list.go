package ecr

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// pages yields the items of all pages. page gets the token of the page to fetch, nil for the first, and returns the next
// one's. A token that repeats ends the listing with an error: it would never end.
func pages[T any](what string, check error, page func(token *string) ([]T, *string, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		if check != nil {
			yield(zero, fmt.Errorf("%s: %w", what, check))
			return
		}
		for token := (*string)(nil); ; {
			items, next, err := page(token)
			if err == nil && next != nil && token != nil && *next == *token {
				err = registry.Errorf(registry.Unavailable, "the same page again")
			}
			if err != nil {
				yield(zero, fmt.Errorf("%s: %w", what, err))
				return
			}
			for _, it := range items {
				if !yield(it, nil) {
					return
				}
			}
			if next == nil || *next == "" {
				return
			}
			token = next
		}
	}
}

// Tags implements registry.Lister. The order is ECR's, which is not lexical. Archived images are left out.
func (r *Registry) Tags(ctx context.Context, repo string) iter.Seq2[string, error] {
	return pages(fmt.Sprintf("tags of %.256s", repo), checkRepo(repo), func(token *string) ([]string, *string, error) {
		out, err := call(ctx, r, listImages, r.api.ListImages, &ecr.ListImagesInput{RegistryId: r.id(), RepositoryName: &repo,
			Filter: &types.ListImagesFilter{TagStatus: types.TagStatusTagged}, MaxResults: aws.Int32(pageSize), NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		var tags []string
		for _, id := range out.ImageIds {
			if id.ImageTag != nil {
				tags = append(tags, *id.ImageTag)
			}
		}
		return tags, out.NextToken, nil
	})
}

// Referrers implements registry.Lister. An endpoint that does not know the call has no referrers; archived ones are left out.
func (r *Registry) Referrers(ctx context.Context, repo string, d digest.Digest, artifactType string) iter.Seq2[registry.Descriptor, error] {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}
	return pages(fmt.Sprintf("referrers of %v", o), checkObject(o), func(token *string) ([]registry.Descriptor, *string, error) {
		in := &ecr.ListImageReferrersInput{RegistryId: r.id(), RepositoryName: &repo, MaxResults: aws.Int32(referrerPageSize),
			NextToken: token, SubjectId: &types.SubjectIdentifier{ImageDigest: aws.String(d.String())}}
		if artifactType != "" {
			in.Filter = &types.ListImageReferrersFilter{ArtifactTypes: []string{artifactType}}
		}
		out, err := call(ctx, r, listReferrers, r.api.ListImageReferrers, in)
		if exception(err) == "UnknownOperationException" {
			return nil, nil, nil
		}
		if err != nil {
			return nil, nil, err
		}
		var found []registry.Descriptor
		for _, ref := range out.Referrers {
			desc := registry.Descriptor{MediaType: aws.ToString(ref.MediaType), Digest: digest.Digest(aws.ToString(ref.Digest)),
				Size: aws.ToInt64(ref.Size), ArtifactType: aws.ToString(ref.ArtifactType), Annotations: ref.Annotations}
			if desc.Digest.Validate() == nil && (artifactType == "" || artifactType == desc.ArtifactType) {
				found = append(found, desc)
			}
		}
		return found, out.NextToken, nil
	})
}

// Repositories implements registry.Catalog.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return pages("repositories of "+r.host, nil, func(token *string) ([]string, *string, error) {
		out, err := call(ctx, r, describeRepos, r.api.DescribeRepositories, &ecr.DescribeRepositoriesInput{RegistryId: r.id(),
			MaxResults: aws.Int32(pageSize), NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		var names []string
		for _, repo := range out.Repositories {
			names = append(names, aws.ToString(repo.RepositoryName))
		}
		return names, out.NextToken, nil
	})
}

// Images implements registry.Catalog. Descriptor.Size is 0: ECR tells the size of the layers, not of the manifest. Archived
// images are left out. Bytes is of the layers as ECR counts them, 0 for an index. PushedAt is the image's (DescribeImages, imagePushedAt): a tag moved to an older image may not renew
// it, so a sweep that must see every tag asks for all images.
func (r *Registry) Images(ctx context.Context, repo string, since time.Time) iter.Seq2[registry.Image, error] {
	return pages(fmt.Sprintf("images of %.256s", repo), checkRepo(repo), func(token *string) ([]registry.Image, *string, error) {
		out, err := call(ctx, r, describeImages, r.api.DescribeImages, &ecr.DescribeImagesInput{RegistryId: r.id(),
			RepositoryName: &repo, MaxResults: aws.Int32(pageSize), NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		var images []registry.Image
		for _, d := range out.ImageDetails {
			img := described(d)
			if img.Descriptor.Digest.Validate() == nil && (d.ImagePushedAt == nil || !img.PushedAt.Before(since)) {
				images = append(images, img)
			}
		}
		return images, out.NextToken, nil
	})
}

// Describe implements registry.Describer; see Images.
func (r *Registry) Describe(ctx context.Context, repo string, d digest.Digest) (registry.Image, error) {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}
	if err := checkObject(o); err != nil {
		return registry.Image{}, fmt.Errorf("describe %v: %w", o, err)
	}
	out, err := call(ctx, r, describeImages, r.api.DescribeImages, &ecr.DescribeImagesInput{RegistryId: r.id(), RepositoryName: &repo,
		ImageIds: []types.ImageIdentifier{{ImageDigest: aws.String(d.String())}}})
	if err == nil && (len(out.ImageDetails) != 1 || aws.ToString(out.ImageDetails[0].ImageDigest) != d.String()) {
		err = registry.Unknown(o)
	}
	if err != nil {
		return registry.Image{}, fmt.Errorf("describe %v: %w", o, err)
	}
	return described(out.ImageDetails[0]), nil
}

func described(d types.ImageDetail) registry.Image {
	return registry.Image{PushedAt: aws.ToTime(d.ImagePushedAt), Tags: d.ImageTags, Bytes: aws.ToInt64(d.ImageSizeInBytes),
		Subject: digest.Digest(aws.ToString(d.SubjectManifestDigest)), Descriptor: registry.Descriptor{
			MediaType: aws.ToString(d.ImageManifestMediaType), Digest: digest.Digest(aws.ToString(d.ImageDigest))}}
}
