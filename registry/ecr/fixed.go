package ecr

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Fixed implements registry.Fixer with one DescribeRepositories: the repository's tag mutability, which its exclusion filters
// invert for the tags that they match ("*" is any run of characters; User Guide, "Image tag mutability exclusion filters").
func (r *Registry) Fixed(ctx context.Context, repo string) (func(string) bool, error) {
	fixed, err := r.fixed(ctx, repo)
	if err != nil {
		return nil, fmt.Errorf("tag mutability of %.256s: %w", repo, err)
	}
	return fixed, nil
}

func (r *Registry) fixed(ctx context.Context, repo string) (func(string) bool, error) {
	found, err := r.repository(ctx, repo)
	if err != nil {
		return nil, err
	}
	var filters []*regexp.Regexp
	for _, f := range found.ImageTagMutabilityExclusionFilters {
		pattern := strings.ReplaceAll(regexp.QuoteMeta(aws.ToString(f.Filter)), `\*`, `.*`)
		filters = append(filters, regexp.MustCompile(`\A(?:`+pattern+`)\z`)) // quoted: always compiles
	}
	excluded := func(tag string) bool {
		return slices.ContainsFunc(filters, func(re *regexp.Regexp) bool { return re.MatchString(tag) })
	}
	switch found.ImageTagMutability {
	case types.ImageTagMutabilityImmutable:
		return func(string) bool { return true }, nil
	case types.ImageTagMutabilityImmutableWithExclusion:
		return func(tag string) bool { return !excluded(tag) }, nil
	case types.ImageTagMutabilityMutableWithExclusion:
		return excluded, nil
	}
	return func(string) bool { return false }, nil
}

// repository describes repo.
func (r *Registry) repository(ctx context.Context, repo string) (types.Repository, error) {
	if err := checkRepo(repo); err != nil {
		return types.Repository{}, err
	}
	out, err := call(ctx, r, describeRepos, r.api.DescribeRepositories, &ecr.DescribeRepositoriesInput{RegistryId: r.id(), RepositoryNames: []string{repo}})
	if err != nil {
		return types.Repository{}, err
	}
	if len(out.Repositories) != 1 {
		return types.Repository{}, registry.Errorf(registry.Unavailable, "%d answers for one repository", len(out.Repositories))
	}
	return out.Repositories[0], nil
}
