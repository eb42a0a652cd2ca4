package awstest

import (
	"encoding/json"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Who may assume a mirror's role follows what it runs on.
func TestTemplateTrust(t *testing.T) {
	t.Parallel()
	const issuer = "oidc.eks.eu-central-1.amazonaws.com/id/ABC"
	for name, tc := range map[string]struct {
		region string
		params map[string]any
		want   string
	}{
		"Pod Identity": {"eu-central-1", map[string]any{"RunsOn": "pod-identity"},
			`{"Sid": "PodIdentity", "Effect": "Allow", "Action": ["sts:AssumeRole", "sts:TagSession"], "Principal": {"Service": "pods.eks.amazonaws.com"}}`},
		"IRSA": {"eu-central-1", map[string]any{"RunsOn": "irsa", "OidcProvider": issuer, "ServiceAccount": "images:mirror"},
			`{"Sid": "Irsa", "Effect": "Allow", "Action": "sts:AssumeRoleWithWebIdentity", "Principal": {"Federated": "arn:aws:iam::` + account + `:oidc-provider/` + issuer + `"},
			"Condition": {"StringEquals": {"` + issuer + `:aud": "sts.amazonaws.com", "` + issuer + `:sub": "system:serviceaccount:images:mirror"}}}`},
		"ECS": {"eu-central-1", map[string]any{"RunsOn": "ecs"},
			`{"Sid": "Tasks", "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ecs-tasks.amazonaws.com"}, "Condition": {"StringEquals": {"aws:SourceAccount": "` + account + `"}}}`},
		"EC2":          {"eu-central-1", map[string]any{"RunsOn": "ec2"}, `{"Sid": "Instances", "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}`},
		"EC2 in China": {"cn-north-1", map[string]any{"RunsOn": "ec2"}, `{"Sid": "Instances", "Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com.cn"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			params := map[string]any{"TargetRegion": tc.region, "SourceRegion": "us-west-2", "PermissionsBoundary": "arn:aws:iam::111122223333:policy/bound"}
			for k, v := range tc.params {
				params[k] = v
			}
			s, err := render(filepath.Join(templates, "roles.yaml"), account, tc.region, params)
			must(t, err)
			role := s.of("AWS::IAM::Role")[0].props
			var got, want any
			must(t, json.Unmarshal([]byte(encode(role["AssumeRolePolicyDocument"])), &got))
			must(t, json.Unmarshal([]byte(`{"Version": "2012-10-17", "Statement": [`+tc.want+`]}`), &want))
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if role["PermissionsBoundary"] != "arn:aws:iam::111122223333:policy/bound" {
				t.Errorf("permissions boundary: %v", role["PermissionsBoundary"])
			}
		})
	}
}
