package ecr

import (
	"cmp"
	"context"
	"fmt"
	"maps"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

var _ registry.Settler = (*Registry)(nil)

// Settings implements registry.Settler with four calls: DescribeRepositories, GetLifecyclePolicy, GetRepositoryPolicy and
// ListTagsForResource.
func (r *Registry) Settings(ctx context.Context, repo string) (registry.Settings, error) {
	s, err := r.settings(ctx, repo)
	if err != nil {
		return registry.Settings{}, fmt.Errorf("settings of %.256s: %w", repo, err)
	}
	return s, nil
}

func (r *Registry) settings(ctx context.Context, repo string) (s registry.Settings, err error) {
	found, err := r.repository(ctx, repo)
	if err != nil {
		return s, err
	}
	s.TagMutability, s.Encryption = cmp.Or(string(found.ImageTagMutability), string(types.ImageTagMutabilityMutable)), string(types.EncryptionTypeAes256)
	for _, f := range found.ImageTagMutabilityExclusionFilters {
		if f.FilterType != types.ImageTagMutabilityExclusionFilterTypeWildcard {
			return s, registry.Errorf(registry.Invalid, "tag mutability exclusion filter of type %.64q: not understood", f.FilterType)
		}
		s.Exclusions = append(s.Exclusions, aws.ToString(f.Filter))
	}
	if e := found.EncryptionConfiguration; e != nil {
		s.Encryption, s.KMSKey = string(e.EncryptionType), aws.ToString(e.KmsKey)
	}
	lifecycle, err := call(ctx, r, getLifecyclePolicy, r.api.GetLifecyclePolicy, &ecr.GetLifecyclePolicyInput{RegistryId: r.id(), RepositoryName: &repo})
	if err == nil {
		s.Lifecycle = aws.ToString(lifecycle.LifecyclePolicyText)
	} else if registry.CodeOf(err) != codeNoPolicy {
		return s, err
	}
	policy, err := call(ctx, r, getPolicy, r.api.GetRepositoryPolicy, &ecr.GetRepositoryPolicyInput{RegistryId: r.id(), RepositoryName: &repo})
	if err == nil {
		s.Policy = aws.ToString(policy.PolicyText)
	} else if registry.CodeOf(err) != codeNoRepositoryPolicy {
		return s, err
	}
	tags, err := call(ctx, r, listTags, r.api.ListTagsForResource, &ecr.ListTagsForResourceInput{ResourceArn: found.RepositoryArn})
	if err != nil {
		return s, err
	}
	s.Tags = make(map[string]string, len(tags.Tags))
	for _, t := range tags.Tags {
		s.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return s, nil
}

// CreateWith implements registry.Settler: Options.Settings are for what s does not say.
func (r *Registry) CreateWith(ctx context.Context, repo string, s registry.Settings) error {
	if err := r.createWith(ctx, repo, s); err != nil {
		return fmt.Errorf("create repository %.256s: %w", repo, err)
	}
	return nil
}

func (r *Registry) createWith(ctx context.Context, repo string, s registry.Settings) error {
	if err := checkRepo(repo); err != nil {
		return err
	}
	set := r.set
	if s.TagMutability != "" {
		set.TagMutability = s.TagMutability
	}
	if s.Encryption != "" {
		set.Encryption, set.KMSKey = s.Encryption, s.KMSKey
	}
	set.Tags = maps.Clone(s.Tags)
	if set.Tags == nil {
		set.Tags = make(map[string]string)
	}
	maps.Copy(set.Tags, r.set.Tags)
	in := set.input(r.id(), repo)
	in.ImageTagMutabilityExclusionFilters = exclusions(s)
	_, err := call(ctx, r, createRepository, r.api.CreateRepository, in)
	if exception(err) == "RepositoryAlreadyExistsException" {
		return nil
	}
	return err
}

// Set implements registry.Settler. A policy with which the caller would lock itself out is Invalid: ECR refuses it.
func (r *Registry) Set(ctx context.Context, repo string, which registry.Setting, s registry.Settings) error {
	err := checkRepo(repo)
	if err == nil {
		err = r.setOne(ctx, repo, which, s)
	}
	if err != nil {
		return fmt.Errorf("set %v of %.256s: %w", which, repo, err)
	}
	return nil
}

func (r *Registry) setOne(ctx context.Context, repo string, which registry.Setting, s registry.Settings) error {
	switch which {
	case registry.SettingMutability:
		_, err := call(ctx, r, putMutability, r.api.PutImageTagMutability, &ecr.PutImageTagMutabilityInput{RegistryId: r.id(), RepositoryName: &repo,
			ImageTagMutability: types.ImageTagMutability(s.TagMutability), ImageTagMutabilityExclusionFilters: exclusions(s)})
		return err
	case registry.SettingLifecycle:
		_, err := call(ctx, r, putLifecyclePolicy, r.api.PutLifecyclePolicy, &ecr.PutLifecyclePolicyInput{RegistryId: r.id(), RepositoryName: &repo, LifecyclePolicyText: &s.Lifecycle})
		return err
	case registry.SettingPolicy:
		_, err := call(ctx, r, setPolicy, r.api.SetRepositoryPolicy, &ecr.SetRepositoryPolicyInput{RegistryId: r.id(), RepositoryName: &repo, PolicyText: &s.Policy})
		return err
	case registry.SettingTags:
		found, err := r.repository(ctx, repo)
		if err != nil {
			return err
		}
		_, err = call(ctx, r, tagResource, r.api.TagResource, &ecr.TagResourceInput{ResourceArn: found.RepositoryArn, Tags: resourceTags(s.Tags)})
		return err
	}
	return registry.Errorf(registry.Invalid, "%v is fixed when a repository is created", which)
}

func exclusions(s registry.Settings) (filters []types.ImageTagMutabilityExclusionFilter) {
	for _, x := range s.Exclusions {
		filters = append(filters, types.ImageTagMutabilityExclusionFilter{Filter: &x, FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard})
	}
	return filters
}
