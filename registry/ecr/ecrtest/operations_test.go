package ecrtest_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// sdkModule is where the SDK's own snapshots of answers and exceptions are.
var sdkModule = sync.OnceValue(func() string {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws/aws-sdk-go-v2/service/ecr").Output()
	if err != nil {
		panic(err)
	}
	return strings.TrimSpace(string(dir))
})

// checked is a transport that compares the members of every answer with those of the SDK's snapshot of the operation or exception.
type checked struct {
	t    *testing.T
	base http.RoundTripper

	mu   sync.Mutex
	seen map[string]bool // operations that were answered well
}

func (c *checked) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.base.RoundTrip(r)
	_, name, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "_V20150921.")
	if err != nil || !ok {
		return resp, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	resp.Body = io.NopCloser(strings.NewReader(string(body)))
	if err != nil {
		return resp, err
	}
	var got any
	if err := json.Unmarshal(body, &got); err != nil {
		c.t.Errorf("%s: %s: %v", name, body, err)
		return resp, nil
	}
	file := "response_snapshot/" + name + ".response.snap"
	if resp.StatusCode != http.StatusOK {
		typ, _ := got.(map[string]any)["__type"].(string)
		file = "response_snapshot/" + typ + ".error.snap"
	}
	snap, err := os.ReadFile(filepath.Join(sdkModule(), file))
	if err != nil { // an exception of all services
		return resp, nil
	}
	lines := strings.Split(string(snap), "\n")
	var want any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &want); err != nil {
		c.t.Error(file, err)
	}
	c.same(name, want, got)
	c.mu.Lock()
	c.seen[name] = c.seen[name] || resp.StatusCode == http.StatusOK
	c.mu.Unlock()
	return resp, nil
}

// same reports members that the snapshot does not have, and those of another type.
func (c *checked) same(path string, want, got any) {
	switch got := got.(type) {
	case map[string]any:
		members, ok := want.(map[string]any)
		if !ok {
			c.t.Errorf("%s: an object instead of %v", path, want)
			return
		}
		if _, free := members["key0"]; free { // a map with keys of the caller's
			return
		}
		for name, v := range got {
			w, known := members[name]
			if !known {
				c.t.Errorf("%s.%s: AWS has no such member", path, name)
				continue
			}
			c.same(path+"."+name, w, v)
		}
	case []any:
		list, ok := want.([]any)
		if !ok {
			c.t.Errorf("%s: a list instead of %v", path, want)
			return
		}
		for _, v := range got {
			c.same(path+"[]", list[0], v)
		}
	default:
		w, _ := json.Marshal(want)
		g, _ := json.Marshal(got)
		if (w[0] == '"') != (g[0] == '"') || (w[0] == 't') != (g[0] == 't' || g[0] == 'f') {
			c.t.Errorf("%s: %s instead of %s", path, g, w)
		}
	}
}

// Every operation that the SDK has is called once with success, in an order that makes sense.
func TestEveryOperation(t *testing.T) {
	up := start(t, ecrtest.Options{Accounts: []string{account, other}})
	c := client(t, up, up.Credentials(account))
	push(t, client(t, up, up.Credentials(account)), "base/app", "v1", registrytest.Image(7, 10))
	transport := c.Options().HTTPClient.(*http.Client).Transport.(*checked)
	ctx := t.Context()
	img := registrytest.Image(1, 10)
	sig := registrytest.Referrer(img.Desc, "application/x.sig", []byte("sig"))
	repo, id := aws.String("team/app"), &ecrtypes.ImageIdentifier{ImageTag: aws.String("v1")}
	arn := aws.String("arn:aws:ecr:us-west-2:111122223333:repository/team/app")
	to := ecrtypes.ReplicationDestination{Region: aws.String("eu-central-1"), RegistryId: aws.String(account)}
	policy := aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"ecr:BatchGetImage"}]}`)
	registryPolicy := aws.String(strings.Replace(*policy, `"Action"`, `"Resource":"*","Action"`, 1))
	lifecycle := aws.String(`{"rules":[{"rulePriority":1,"description":"keep the newest image of this repository, and let the others go",
		"selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}]}`)
	filters := []ecrtypes.ScanningRepositoryFilter{{Filter: aws.String("team/*"), FilterType: "WILDCARD"}}

	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	must(c.PutReplicationConfiguration(ctx, &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &ecrtypes.ReplicationConfiguration{Rules: []ecrtypes.ReplicationRule{{
		Destinations: []ecrtypes.ReplicationDestination{to}, RepositoryFilters: []ecrtypes.RepositoryFilter{{Filter: aws.String("team"), FilterType: "PREFIX_MATCH"}}}}}}))
	must(c.DescribeRegistry(ctx, &ecr.DescribeRegistryInput{}))
	must(c.PutAccountSetting(ctx, &ecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: aws.String("ENABLED")}))
	must(c.GetAccountSetting(ctx, &ecr.GetAccountSettingInput{Name: aws.String("BASIC_SCAN_TYPE_VERSION")}))
	must(c.CreateRepositoryCreationTemplate(ctx, &ecr.CreateRepositoryCreationTemplateInput{Prefix: aws.String("team"), AppliedFor: []ecrtypes.RCTAppliedFor{"REPLICATION", "CREATE_ON_PUSH"},
		Description: aws.String("x"), ImageTagMutability: "IMMUTABLE", LifecyclePolicy: lifecycle, RepositoryPolicy: policy}))
	must(c.UpdateRepositoryCreationTemplate(ctx, &ecr.UpdateRepositoryCreationTemplateInput{Prefix: aws.String("team"), AppliedFor: []ecrtypes.RCTAppliedFor{"REPLICATION"}}))
	must(c.DescribeRepositoryCreationTemplates(ctx, &ecr.DescribeRepositoryCreationTemplatesInput{}))
	must(c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: repo, Tags: []ecrtypes.Tag{{Key: aws.String("a"), Value: aws.String("b")}},
		ImageTagMutability: "MUTABLE_WITH_EXCLUSION", ImageTagMutabilityExclusionFilters: []ecrtypes.ImageTagMutabilityExclusionFilter{{Filter: aws.String("r*"), FilterType: "WILDCARD"}}}))
	push(t, c, *repo, "v1", img)
	push(t, c, *repo, "", sig)
	must(c.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{}))
	must(c.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{MaxResults: aws.Int32(1)}))
	must(c.PutImageTagMutability(ctx, &ecr.PutImageTagMutabilityInput{RepositoryName: repo, ImageTagMutability: "MUTABLE"}))
	must(c.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: repo, PolicyText: policy}))
	must(c.GetRepositoryPolicy(ctx, &ecr.GetRepositoryPolicyInput{RepositoryName: repo}))
	must(c.DeleteRepositoryPolicy(ctx, &ecr.DeleteRepositoryPolicyInput{RepositoryName: repo}))
	must(c.PutRegistryPolicy(ctx, &ecr.PutRegistryPolicyInput{PolicyText: registryPolicy}))
	must(c.GetRegistryPolicy(ctx, &ecr.GetRegistryPolicyInput{}))
	must(c.DeleteRegistryPolicy(ctx, &ecr.DeleteRegistryPolicyInput{}))
	must(c.TagResource(ctx, &ecr.TagResourceInput{ResourceArn: arn, Tags: []ecrtypes.Tag{{Key: aws.String("c"), Value: aws.String("d")}}}))
	must(c.ListTagsForResource(ctx, &ecr.ListTagsForResourceInput{ResourceArn: arn}))
	must(c.UntagResource(ctx, &ecr.UntagResourceInput{ResourceArn: arn, TagKeys: []string{"c"}}))
	must(c.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: repo, LifecyclePolicyText: lifecycle}))
	must(nil, up.Registry(account, "eu-central-1").ApplyLifecycle())
	must(c.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: repo}))
	must(c.StartLifecyclePolicyPreview(ctx, &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: repo}))
	must(c.GetLifecyclePolicyPreview(ctx, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: repo}))
	must(c.DeleteLifecyclePolicy(ctx, &ecr.DeleteLifecyclePolicyInput{RepositoryName: repo}))
	must(c.StartImageScan(ctx, &ecr.StartImageScanInput{RepositoryName: repo, ImageId: id}))
	must(c.DescribeImageScanFindings(ctx, &ecr.DescribeImageScanFindingsInput{RepositoryName: repo, ImageId: id}))
	must(c.PutImageScanningConfiguration(ctx, &ecr.PutImageScanningConfigurationInput{RepositoryName: repo, ImageScanningConfiguration: &ecrtypes.ImageScanningConfiguration{ScanOnPush: true}}))
	must(c.PutRegistryScanningConfiguration(ctx, &ecr.PutRegistryScanningConfigurationInput{Rules: []ecrtypes.RegistryScanningRule{{ScanFrequency: "SCAN_ON_PUSH", RepositoryFilters: filters}}}))
	must(c.GetRegistryScanningConfiguration(ctx, &ecr.GetRegistryScanningConfigurationInput{}))
	must(c.BatchGetRepositoryScanningConfiguration(ctx, &ecr.BatchGetRepositoryScanningConfigurationInput{RepositoryNames: []string{*repo, "none"}}))
	must(c.PutSigningConfiguration(ctx, &ecr.PutSigningConfigurationInput{SigningConfiguration: &ecrtypes.SigningConfiguration{Rules: []ecrtypes.SigningRule{{SigningProfileArn: aws.String("p")}}}}))
	must(c.GetSigningConfiguration(ctx, &ecr.GetSigningConfigurationInput{}))
	must(c.DeleteSigningConfiguration(ctx, &ecr.DeleteSigningConfigurationInput{}))
	must(c.DescribeImageSigningStatus(ctx, &ecr.DescribeImageSigningStatusInput{RepositoryName: repo, ImageId: id}))
	must(c.RegisterPullTimeUpdateExclusion(ctx, &ecr.RegisterPullTimeUpdateExclusionInput{PrincipalArn: aws.String("arn:aws:iam::111122223333:role/m")}))
	must(c.ListPullTimeUpdateExclusions(ctx, &ecr.ListPullTimeUpdateExclusionsInput{}))
	must(c.DeregisterPullTimeUpdateExclusion(ctx, &ecr.DeregisterPullTimeUpdateExclusionInput{PrincipalArn: aws.String("arn:aws:iam::111122223333:role/m")}))
	must(c.CreatePullThroughCacheRule(ctx, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: aws.String("eu"), UpstreamRegistryUrl: aws.String("111122223333.dkr.ecr.eu-central-1.amazonaws.com")}))
	must(c.UpdatePullThroughCacheRule(ctx, &ecr.UpdatePullThroughCacheRuleInput{EcrRepositoryPrefix: aws.String("eu"), CustomRoleArn: aws.String("arn:aws:iam::111122223333:role/m")}))
	must(c.DescribePullThroughCacheRules(ctx, &ecr.DescribePullThroughCacheRulesInput{}))
	must(c.ValidatePullThroughCacheRule(ctx, &ecr.ValidatePullThroughCacheRuleInput{EcrRepositoryPrefix: aws.String("eu")}))
	must(c.DeletePullThroughCacheRule(ctx, &ecr.DeletePullThroughCacheRuleInput{EcrRepositoryPrefix: aws.String("eu")}))
	must(c.BatchGetImage(ctx, &ecr.BatchGetImageInput{RepositoryName: repo, ImageIds: []ecrtypes.ImageIdentifier{*id, {}}}))
	must(c.ListImages(ctx, &ecr.ListImagesInput{RepositoryName: repo, MaxResults: aws.Int32(1)}))
	must(c.ListImageReferrers(ctx, &ecr.ListImageReferrersInput{RepositoryName: repo, SubjectId: &ecrtypes.SubjectIdentifier{ImageDigest: aws.String(img.Desc.Digest.String())}}))
	must(c.BatchCheckLayerAvailability(ctx, &ecr.BatchCheckLayerAvailabilityInput{RepositoryName: repo, LayerDigests: []string{img.Blobs[0].Desc.Digest.String(), "x"}}))
	must(c.GetDownloadUrlForLayer(ctx, &ecr.GetDownloadUrlForLayerInput{RepositoryName: repo, LayerDigest: aws.String(img.Blobs[0].Desc.Digest.String())}))
	must(c.DescribeImageReplicationStatus(ctx, &ecr.DescribeImageReplicationStatusInput{RepositoryName: repo, ImageId: id}))
	fill, err := c.StartReplicationBackfill(ctx, &ecr.StartReplicationBackfillInput{Destination: &to})
	must(fill, err)
	for done := false; !done && err == nil; {
		var out *ecr.DescribeReplicationBackfillResultsOutput
		out, err = c.DescribeReplicationBackfillResults(ctx, &ecr.DescribeReplicationBackfillResultsInput{ReplicationBackfillId: fill.ReplicationBackfillId})
		must(out, err)
		done = err != nil || out.Status == ecrtypes.ReplicationBackfillStatusComplete
	}
	must(c.ListReplicationBackfills(ctx, &ecr.ListReplicationBackfillsInput{}))
	if _, err := c.StopReplicationBackfill(ctx, &ecr.StopReplicationBackfillInput{ReplicationBackfillId: fill.ReplicationBackfillId}); code(err) != "ReplicationBackfillInvalidStatusException" {
		t.Error(err)
	}
	must(c.UpdateImageStorageClass(ctx, &ecr.UpdateImageStorageClassInput{RepositoryName: repo, ImageId: id, TargetStorageClass: "ARCHIVE"}))
	must(c.UpdateImageStorageClass(ctx, &ecr.UpdateImageStorageClassInput{RepositoryName: repo, ImageId: id, TargetStorageClass: "STANDARD"}))
	must(c.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: repo}))
	must(c.BatchDeleteImage(ctx, &ecr.BatchDeleteImageInput{RepositoryName: repo, ImageIds: []ecrtypes.ImageIdentifier{*id, {}}}))
	must(c.DeleteRepository(ctx, &ecr.DeleteRepositoryInput{RepositoryName: repo, Force: true}))
	must(c.DeleteRepositoryCreationTemplate(ctx, &ecr.DeleteRepositoryCreationTemplateInput{Prefix: aws.String("team")}))

	files, err := filepath.Glob(filepath.Join(sdkModule(), "request_snapshot", "*.request.snap"))
	must(nil, err)
	for _, f := range files {
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		if !transport.seen[name] && !slices.Contains([]string{"StopReplicationBackfill"}, name) { // TestBackfill stops one
			t.Errorf("%s was not called", name)
		}
	}
}

// replicated waits until a replication has a status other than IN_PROGRESS.
func replicated(t *testing.T, c *ecr.Client, repo, tag string) []ecrtypes.ImageReplicationStatus {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		out, err := c.DescribeImageReplicationStatus(ctx, &ecr.DescribeImageReplicationStatusInput{RepositoryName: &repo, ImageId: &ecrtypes.ImageIdentifier{ImageTag: &tag}})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(out.ReplicationStatuses, func(s ecrtypes.ImageReplicationStatus) bool { return s.Status == "IN_PROGRESS" }) {
			return out.ReplicationStatuses
		}
		time.Sleep(2 * time.Millisecond)
	}
}
