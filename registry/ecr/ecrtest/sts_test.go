package ecrtest_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
)

func TestAssumeRole(t *testing.T) {
	emu := start(t, ecrtest.Options{Accounts: []string{account, other}})
	emu.Role(account, "mirror", "ecr:DescribeRepositories")
	cfg := emu.Config(other, region)
	cfg.HTTPClient = httpClient(t)
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	c, ctx := sts.NewFromConfig(cfg), t.Context()
	who, err := c.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *who.Account != other {
		t.Fatal(who, err)
	}
	if _, err := c.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::111122223333:role/none"), RoleSessionName: aws.String("s")}); code(err) != "AccessDenied" {
		t.Error(err)
	}
	out, err := c.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::111122223333:role/mirror"), RoleSessionName: aws.String("s")})
	if err != nil {
		t.Fatal(err)
	}
	role := client(t, emu, aws.Credentials{AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken})
	if _, err := role.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{}); err != nil {
		t.Error(err)
	}
	if _, err := role.ListImages(ctx, &ecr.ListImagesInput{RepositoryName: aws.String("app")}); code(err) != "AccessDeniedException" {
		t.Error(err)
	}
}
