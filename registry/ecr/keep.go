package ecr

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Keeps implements registry.Keeper with one DescribeImages. Unlike Stat it sees archived images, which answer every pull as if
// they were not there (User Guide, "Archiving an image").
func (r *Registry) Keeps(ctx context.Context, repo string, d digest.Digest) (bool, error) {
	o := registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}
	err := checkObject(o)
	if err == nil {
		_, err = call(ctx, r, describeImages, r.api.DescribeImages, &ecr.DescribeImagesInput{RegistryId: r.id(), RepositoryName: &repo,
			ImageIds: []types.ImageIdentifier{{ImageDigest: aws.String(d.String())}},
			Filter:   &types.DescribeImagesFilter{ImageStatus: types.ImageStatusFilterAny}})
	}
	var gone *types.ImageNotFoundException // nothing that merely reads like it, as ImageArchivedException does
	switch {
	case err == nil:
		return true, nil
	case errors.As(err, &gone):
		return false, nil
	}
	return false, fmt.Errorf("describe %v: %w", o, err)
}

// Expires implements registry.Keeper: does the repository have a lifecycle policy? One GetLifecyclePolicy.
func (r *Registry) Expires(ctx context.Context, repo string) (bool, error) {
	err := checkRepo(repo)
	if err == nil {
		_, err = call(ctx, r, getLifecyclePolicy, r.api.GetLifecyclePolicy, &ecr.GetLifecyclePolicyInput{RegistryId: r.id(), RepositoryName: &repo})
	}
	switch {
	case err == nil:
		return true, nil
	case registry.CodeOf(err) == codeNoPolicy:
		return false, nil
	}
	return false, fmt.Errorf("lifecycle policy of %.256s: %w", repo, err)
}
