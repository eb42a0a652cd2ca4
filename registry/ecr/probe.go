package ecr

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Probe finds out whether the caller may do an action, such as "ecr:PutImage", on a repository, by a call that changes nothing:
// about a layer, image or upload that cannot exist. nil is yes, whether or not there is such a repository, for AWS looks at
// permissions first; Denied is no; any other error means that nobody knows. The one trace is of ecr:InitiateLayerUpload: an upload
// that nobody goes on with. ecr:CreateRepository is only asked about a repository that exists.
func (r *Registry) Probe(ctx context.Context, action, repo string) error {
	probe := r.probes(repo)[action]
	if probe == nil {
		return registry.Errorf(registry.Invalid, "no harmless call tells about %s", action)
	}
	err := checkRepo(repo)
	if err == nil {
		err = probe(ctx)
	}
	switch class := registry.ClassOf(err); {
	case err == nil, class == registry.NotFound, class == registry.Conflict:
		return nil
	case class == registry.Invalid || class == registry.Corrupt || exception(err) == "UploadNotFoundException":
		if exception(err) != "" { // it was refused for what it said, and so it was allowed
			return nil
		}
	}
	return fmt.Errorf("probe %s on %.256s: %w", action, repo, err)
}

// probes are the calls by their actions.
func (r *Registry) probes(repo string) map[string]func(context.Context) error {
	none := digest.FromString("ecr-mirror: a digest of nothing that was ever pushed").String()
	name, id := &repo, types.ImageIdentifier{ImageDigest: &none}
	nobody := aws.String("00000000-0000-0000-0000-000000000000")
	return map[string]func(context.Context) error{
		"ecr:BatchGetImage": func(ctx context.Context) error {
			return probe(ctx, r, batchGetImage, r.api.BatchGetImage, &ecr.BatchGetImageInput{RegistryId: r.id(), RepositoryName: name, ImageIds: []types.ImageIdentifier{id}})
		},
		"ecr:GetDownloadUrlForLayer": func(ctx context.Context) error {
			return probe(ctx, r, downloadURL, r.api.GetDownloadUrlForLayer, &ecr.GetDownloadUrlForLayerInput{RegistryId: r.id(), RepositoryName: name, LayerDigest: &none})
		},
		"ecr:BatchCheckLayerAvailability": func(ctx context.Context) error {
			return probe(ctx, r, checkLayers, r.api.BatchCheckLayerAvailability, &ecr.BatchCheckLayerAvailabilityInput{RegistryId: r.id(), RepositoryName: name, LayerDigests: []string{none}})
		},
		"ecr:ListImages": func(ctx context.Context) error {
			return probe(ctx, r, listImages, r.api.ListImages, &ecr.ListImagesInput{RegistryId: r.id(), RepositoryName: name, MaxResults: aws.Int32(1)})
		},
		"ecr:DescribeImages": func(ctx context.Context) error {
			return probe(ctx, r, describeImages, r.api.DescribeImages, &ecr.DescribeImagesInput{RegistryId: r.id(), RepositoryName: name, MaxResults: aws.Int32(1)})
		},
		"ecr:DescribeRepositories": func(ctx context.Context) error {
			return probe(ctx, r, describeRepos, r.api.DescribeRepositories, &ecr.DescribeRepositoriesInput{RegistryId: r.id(), MaxResults: aws.Int32(1)})
		},
		"ecr:GetLifecyclePolicy": func(ctx context.Context) error {
			return probe(ctx, r, getLifecyclePolicy, r.api.GetLifecyclePolicy, &ecr.GetLifecyclePolicyInput{RegistryId: r.id(), RepositoryName: name})
		},
		"ecr:GetRepositoryPolicy": func(ctx context.Context) error {
			return probe(ctx, r, getPolicy, r.api.GetRepositoryPolicy, &ecr.GetRepositoryPolicyInput{RegistryId: r.id(), RepositoryName: name})
		},
		"ecr:ListTagsForResource": func(ctx context.Context) error {
			arn := "arn:" + PartitionOf(r.region) + ":ecr:" + r.region + ":" + r.account + ":repository/" + repo
			return probe(ctx, r, listTags, r.api.ListTagsForResource, &ecr.ListTagsForResourceInput{ResourceArn: &arn})
		},
		"ecr:InitiateLayerUpload": func(ctx context.Context) error {
			return probe(ctx, r, initiateUpload, r.api.InitiateLayerUpload, &ecr.InitiateLayerUploadInput{RegistryId: r.id(), RepositoryName: name})
		},
		"ecr:UploadLayerPart": func(ctx context.Context) error {
			return probe(ctx, r, uploadPart, r.api.UploadLayerPart, &ecr.UploadLayerPartInput{RegistryId: r.id(), RepositoryName: name, UploadId: nobody,
				PartFirstByte: aws.Int64(0), PartLastByte: aws.Int64(0), LayerPartBlob: []byte{0}})
		},
		"ecr:CompleteLayerUpload": func(ctx context.Context) error {
			return probe(ctx, r, completeUpload, r.api.CompleteLayerUpload, &ecr.CompleteLayerUploadInput{RegistryId: r.id(), RepositoryName: name, UploadId: nobody, LayerDigests: []string{none}})
		},
		"ecr:PutImage": func(ctx context.Context) error { // "{}" is no manifest
			return probe(ctx, r, putImage, r.api.PutImage, &ecr.PutImageInput{RegistryId: r.id(), RepositoryName: name, ImageManifest: aws.String("{}")})
		},
		"ecr:BatchDeleteImage": func(ctx context.Context) error {
			return probe(ctx, r, batchDeleteImage, r.api.BatchDeleteImage, &ecr.BatchDeleteImageInput{RegistryId: r.id(), RepositoryName: name, ImageIds: []types.ImageIdentifier{id}})
		},
		"ecr:GetAccountSetting": func(ctx context.Context) error {
			return probe(ctx, r, getAccountSetting, r.api.GetAccountSetting, &ecr.GetAccountSettingInput{Name: aws.String("BLOB_MOUNTING")})
		},
		"ecr:GetAuthorizationToken": func(ctx context.Context) error {
			return probe(ctx, r, getToken, r.api.GetAuthorizationToken, &ecr.GetAuthorizationTokenInput{})
		},
		"ecr:CreateRepository": func(ctx context.Context) error {
			if err := probe(ctx, r, describeRepos, r.api.DescribeRepositories, &ecr.DescribeRepositoriesInput{RegistryId: r.id(), RepositoryNames: []string{repo}}); err != nil {
				return &registry.Error{Class: registry.Internal, Err: fmt.Errorf("nobody knows without a repository that exists: %w", err)}
			}
			err := probe(ctx, r, createRepository, r.api.CreateRepository, &ecr.CreateRepositoryInput{RegistryId: r.id(), RepositoryName: name})
			if exception(err) == "RepositoryAlreadyExistsException" {
				return nil
			}
			return err
		},
	}
}

func probe[In, Out any](ctx context.Context, r *Registry, api string, do func(context.Context, *In, ...func(*ecr.Options)) (*Out, error), in *In) error {
	_, err := call(ctx, r, api, do, in)
	return err
}
