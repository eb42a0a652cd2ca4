package ecrtest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/mem"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// The longest prefix wins, ROOT is for the rest, and only what a template is applied for is created by it.
func TestCreateOnPush(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c, ctx := client(t, emu, emu.Credentials(account)), t.Context()
	template := func(prefix string, m ecrtypes.ImageTagMutability, applied ...ecrtypes.RCTAppliedFor) {
		t.Helper()
		if _, err := c.CreateRepositoryCreationTemplate(ctx, &ecr.CreateRepositoryCreationTemplateInput{Prefix: &prefix, AppliedFor: applied, ImageTagMutability: m}); err != nil {
			t.Fatal(err)
		}
	}
	template("team", "IMMUTABLE", "CREATE_ON_PUSH")
	template("team/sub", "MUTABLE", "CREATE_ON_PUSH")
	template("cached", "IMMUTABLE", "PULL_THROUGH_CACHE")
	v := v2Client(t, emu, c)
	post := func(name string) int {
		resp, _ := v.do("POST", "/v2/"+name+"/blobs/uploads/", nil)
		return resp.StatusCode
	}
	var got []int
	for _, name := range []string{"team/a", "team/sub/a", "teams", "cached/a"} {
		got = append(got, post(name))
	}
	if d := cmp.Diff([]int{202, 202, 404, 404}, got); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]ecrtypes.ImageTagMutability{"team/a": "IMMUTABLE", "team/sub/a": "MUTABLE"} {
		out, err := c.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{name}})
		if err != nil || out.Repositories[0].ImageTagMutability != want {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	template("ROOT", "MUTABLE", "CREATE_ON_PUSH")
	if got := post("teams"); got != 202 {
		t.Errorf("ROOT: %d", got)
	}
	// Who may not push can still make an empty repository appear.
	v = v2Client(t, emu, client(t, emu, emu.Role(account, "nobody", "ecr:GetAuthorizationToken")))
	if got := post("appears"); got != 403 {
		t.Errorf("nobody pushed: %d", got)
	}
	if _, err := c.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"appears"}}); err != nil {
		t.Error(err)
	}
	for want, in := range map[string]*ecr.CreateRepositoryCreationTemplateInput{
		"TemplateAlreadyExistsException": {Prefix: aws.String("team"), AppliedFor: []ecrtypes.RCTAppliedFor{"REPLICATION"}},
		"InvalidParameterException":      {Prefix: aws.String("Team"), AppliedFor: []ecrtypes.RCTAppliedFor{"REPLICATION"}},
		"ValidationException":            {Prefix: aws.String("x"), AppliedFor: []ecrtypes.RCTAppliedFor{"REPLICATION"}, ResourceTags: []ecrtypes.Tag{{Key: aws.String("a"), Value: aws.String("b")}}},
	} {
		if _, err := c.CreateRepositoryCreationTemplate(ctx, in); code(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := c.DeleteRepositoryCreationTemplate(ctx, &ecr.DeleteRepositoryCreationTemplateInput{Prefix: aws.String("none")}); code(err) != "TemplateNotFoundException" {
		t.Error(err)
	}
}

// Quotas on what exists are LimitExceededException.
func TestLimits(t *testing.T) {
	emu := start(t, ecrtest.Options{Limits: map[string]int{"Repositories": 2, "ImagesPerRepository": 1, "TagsPerImage": 2, "LayerParts": 2, "PullThroughCacheRules": 1}, PartSize: 10})
	c, ctx := client(t, emu, emu.Credentials(account)), t.Context()
	a, b := registrytest.Image(1, 10), registrytest.Image(2, 10)
	push(t, c, "a1", "v1", a)
	create := func(name string) error {
		_, err := c.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name})
		return err
	}
	rule := func(prefix string) error {
		_, err := c.CreatePullThroughCacheRule(ctx, &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: &prefix, UpstreamRegistryUrl: aws.String("quay.io")})
		return err
	}
	for _, blob := range b.Blobs {
		if err := upload(t, c, "a1", blob.Body, 10<<20); err != nil {
			t.Fatal(err)
		}
	}
	for name, got := range map[string][2]error{
		"repositories": {create("b1"), create("c1")},
		"images":       {nil, put(t, c, "a1", "", b)},
		"tags":         {put(t, c, "a1", "v2", a), put(t, c, "a1", "v3", a)},
		"parts":        {upload(t, c, "a1", make([]byte, 20), 10), upload(t, c, "a1", make([]byte, 30), 10)},
		"cache rules":  {rule("q1"), rule("q2")},
	} {
		if code(got[0]) != "" || code(got[1]) != "LimitExceededException" {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestLifecycle(t *testing.T) {
	clk := newClock()
	emu := start(t, ecrtest.Options{Clock: clk.Now})
	emu.Subscribe(account, region, "events")
	c, ctx, repo := client(t, emu, emu.Credentials(account)), t.Context(), aws.String("app")
	for i, tag := range []string{"prod-1", "dev-1", "dev-2", "dev-3", ""} {
		push(t, c, "app", tag, registrytest.Image(uint64(i), 10))
		clk.Advance(24 * time.Hour)
	}
	child := registrytest.Image(9, 10)
	push(t, c, "app", "ix", registrytest.Index(child))
	clk.Advance(24 * time.Hour)
	policy := func(rules ...string) *string {
		return aws.String(`{"rules":[` + strings.Join(rules, ",") + `]}                                                                          `)
	}
	const (
		prod     = `{"rulePriority":1,"selection":{"tagStatus":"tagged","tagPrefixList":["prod"],"countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}`
		dev      = `{"rulePriority":2,"selection":{"tagStatus":"tagged","tagPatternList":["dev-*"],"countType":"imageCountMoreThan","countNumber":2},"action":{"type":"expire"}}`
		untagged = `{"rulePriority":3,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":1},"action":{"type":"expire"}}`
		rest     = `{"rulePriority":9,"selection":{"tagStatus":"any","countType":"sinceImagePulled","countUnit":"days","countNumber":3},"action":{"type":"transition","targetStorageClass":"archive"}}`
	)
	preview := func(rules ...string) (got []string) {
		t.Helper()
		if _, err := c.StartLifecyclePolicyPreview(ctx, &ecr.StartLifecyclePolicyPreviewInput{RepositoryName: repo, LifecyclePolicyText: policy(rules...)}); err != nil {
			t.Fatal(err)
		}
		out, err := c.GetLifecyclePolicyPreview(ctx, &ecr.GetLifecyclePolicyPreviewInput{RepositoryName: repo})
		if err != nil || out.Status != "COMPLETE" {
			t.Fatal(out, err)
		}
		for _, r := range out.PreviewResults {
			got = append(got, fmt.Sprintf("%d %s %s", *r.AppliedRulePriority, r.Action.Type, strings.Join(r.ImageTags, ",")))
		}
		if int(*out.Summary.ExpiringImageTotalCount) > len(got) {
			t.Errorf("summary: %+v", out.Summary)
		}
		return got
	}
	sorted := func(s []string) string {
		m := map[string]int{}
		for _, x := range s {
			m[x]++
		}
		return fmt.Sprint(m)
	}
	if d := cmp.Diff(sorted([]string{"2 EXPIRE dev-1", "3 EXPIRE "}), sorted(preview(prod, dev, untagged))); d != "" {
		t.Error(d)
	}
	// What an earlier rule selected, a later one does not touch, and the child of an index stays with it.
	if d := cmp.Diff(sorted([]string{"2 EXPIRE dev-1"}), sorted(preview(prod, dev, rest))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(sorted([]string{"9 TRANSITION prod-1", "9 TRANSITION dev-1", "9 TRANSITION dev-2"}), sorted(preview(rest))); d != "" {
		t.Error(d)
	}
	for _, bad := range []*string{policy(), policy(prod, prod), policy(rest, `{"rulePriority":10,"selection":{"tagStatus":"untagged","countType":"imageCountMoreThan","countNumber":1},"action":{"type":"expire"}}`),
		policy(strings.Replace(prod, `"expire"`, `"keep"`, 1)), policy(strings.Replace(prod, `"countNumber"`, `"count"`, 1)), aws.String("{}")} {
		if _, err := c.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: repo, LifecyclePolicyText: bad}); code(err) != "InvalidParameterException" {
			t.Errorf("%s: %v", *bad, err)
		}
	}
	drain(t, emu, "events")
	if _, err := c.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: repo, LifecyclePolicyText: policy(dev, rest)}); err != nil {
		t.Fatal(err)
	}
	if err := emu.Registry(account, region).ApplyLifecycle(); err != nil {
		t.Fatal(err)
	}
	events := strings.Join(drain(t, emu, "events"), "\n")
	if strings.Count(events, "DELETE") != 1 || strings.Count(events, `"target-storage-class":"ARCHIVE"`) != 1 {
		t.Errorf("events: %s", events)
	}
	if tagged(t, c, "app", "dev-1") != "" || tagged(t, c, "app", "dev-3") == "" {
		t.Error("other images are gone")
	}
}

// A pull through a cache rule imports the image, and keeps serving it when the upstream is gone; a tag is asked for again after a day.
func TestPullThrough(t *testing.T) {
	clk := newClock()
	hub := mem.New()
	up := registrytest.Index(registrytest.Image(1, 10), registrytest.Image(2, 20))
	registrytest.Push(t, hub, "library/alpine", "3", up)
	emu := start(t, ecrtest.Options{Accounts: []string{account, other}, Clock: clk.Now, Upstreams: map[string]registry.Reader{"registry-1.docker.io": hub}})
	emu.Subscribe(account, region, "events")
	c, ctx := client(t, emu, emu.Credentials(account)), t.Context()
	rule := func(prefix, url string, more func(*ecr.CreatePullThroughCacheRuleInput)) error {
		in := &ecr.CreatePullThroughCacheRuleInput{EcrRepositoryPrefix: &prefix, UpstreamRegistryUrl: &url}
		if more != nil {
			more(in)
		}
		_, err := c.CreatePullThroughCacheRule(ctx, in)
		return err
	}
	secret := func(in *ecr.CreatePullThroughCacheRuleInput) {
		in.CredentialArn = aws.String("arn:aws:secretsmanager:us-west-2:111122223333:secret:ecr-pullthroughcache/hub")
	}
	if err := rule("docker-hub", "registry-1.docker.io", nil); code(err) != "InvalidParameterException" {
		t.Errorf("no secret: %v", err)
	}
	if err := rule("any", "registry.example.com", nil); code(err) != "UnsupportedUpstreamRegistryException" {
		t.Error(err)
	}
	if err := rule("docker-hub", "registry-1.docker.io", secret); err != nil {
		t.Fatal(err)
	}
	v := v2Client(t, emu, c)
	status := func(path string) int { resp, _ := v.do("GET", path, nil); return resp.StatusCode }
	const path = "/v2/docker-hub/library/alpine/manifests/3"
	puller := v2Client(t, emu, client(t, emu, emu.Role(account, "puller", "ecr:GetAuthorizationToken", "ecr:BatchGetImage")))
	if resp, body := puller.do("GET", path, nil); resp.StatusCode != 404 || !strings.Contains(body, "NAME_UNKNOWN") {
		t.Errorf("without ecr:BatchImportUpstreamImage: %d %s", resp.StatusCode, body)
	}
	if resp, body := v.do("GET", path, nil); resp.StatusCode != 200 || body != string(up.Body) {
		t.Fatalf("%d %s", resp.StatusCode, body)
	}
	for _, child := range up.Children {
		if got := status("/v2/docker-hub/library/alpine/blobs/" + child.Blobs[0].Desc.Digest.String()); got != 307 {
			t.Errorf("layer of a child: %d", got)
		}
	}
	if events := strings.Join(drain(t, emu, "events"), ""); !strings.Contains(events, "ECR Pull Through Cache Action") || !strings.Contains(events, `"sync-status":"SUCCESS"`) || strings.Contains(events, "PUSH") {
		t.Errorf("events: %s", events)
	}
	if got := status("/v2/docker-hub/library/none/manifests/1"); got != 404 {
		t.Errorf("not at the upstream: %d", got)
	}
	next := registrytest.Image(5, 50)
	registrytest.Push(t, hub, "library/alpine", "3", next)
	body := func() string { _, b := v.do("GET", path, nil); return b }
	if body() != string(up.Body) {
		t.Error("a tag moved within the day")
	}
	clk.Advance(24*time.Hour + time.Second)
	v = v2Client(t, emu, c)
	if body() != string(next.Body) {
		t.Error("the tag did not move after a day")
	}

	// Another account's ECR, whose policy has to let the rule's role read.
	theirs := in(emu, t, other, "eu-central-1")
	img := registrytest.Image(6, 10)
	push(t, theirs, "app", "v1", img)
	if err := rule("team", "444455556666.dkr.ecr.eu-central-1.amazonaws.com", nil); code(err) != "InvalidParameterException" {
		t.Errorf("no role: %v", err)
	}
	emu.Role(account, "importer", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
	if err := rule("team", "444455556666.dkr.ecr.eu-central-1.amazonaws.com", func(in *ecr.CreatePullThroughCacheRuleInput) {
		in.CustomRoleArn = aws.String("arn:aws:iam::111122223333:role/importer")
	}); err != nil {
		t.Fatal(err)
	}
	if resp, text := v.do("GET", "/v2/team/app/manifests/v1", nil); resp.StatusCode != 403 || !strings.Contains(text, "DENIED") {
		t.Errorf("upstream denies: %d %s", resp.StatusCode, text)
	}
	policy := `{"Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/importer"},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}}`
	if _, err := theirs.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: aws.String("app"), PolicyText: &policy}); err != nil {
		t.Fatal(err)
	}
	if got := status("/v2/team/app/manifests/v1"); got != 200 {
		t.Errorf("upstream allows: %d", got)
	}
	emu.Registry(other, "eu-central-1").SetDown(true)
	clk.Advance(24*time.Hour + time.Second)
	v = v2Client(t, emu, c)
	if got := status("/v2/team/app/manifests/v1"); got != 200 {
		t.Errorf("upstream down, image imported before: %d", got)
	}
	if got := status("/v2/team/other/manifests/v1"); got != 500 {
		t.Errorf("upstream down: %d", got)
	}
}
