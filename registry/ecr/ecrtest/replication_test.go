package ecrtest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	ecrtypes "github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// replicateTo configures one rule of c's registry.
func replicateTo(t *testing.T, c *ecr.Client, region, account string, prefixes ...string) {
	t.Helper()
	rule := ecrtypes.ReplicationRule{Destinations: []ecrtypes.ReplicationDestination{{Region: &region, RegistryId: &account}}}
	for _, p := range prefixes {
		rule.RepositoryFilters = append(rule.RepositoryFilters, ecrtypes.RepositoryFilter{Filter: &p, FilterType: "PREFIX_MATCH"})
	}
	if _, err := c.PutReplicationConfiguration(t.Context(), &ecr.PutReplicationConfigurationInput{
		ReplicationConfiguration: &ecrtypes.ReplicationConfiguration{Rules: []ecrtypes.ReplicationRule{rule}}}); err != nil {
		t.Fatal(err)
	}
}

func in(emu *ecrtest.Emulator, t *testing.T, account, region string) *ecr.Client {
	cfg := emu.Config(account, region)
	cfg.HTTPClient = httpClient(t)
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return ecr.NewFromConfig(cfg)
}

// tagged returns the digest that a tag names; "" when there is none.
func tagged(t *testing.T, c *ecr.Client, repo, tag string) string {
	t.Helper()
	out, err := c.DescribeImages(t.Context(), &ecr.DescribeImagesInput{RepositoryName: &repo, ImageIds: []ecrtypes.ImageIdentifier{{ImageTag: &tag}}})
	if err != nil {
		return ""
	}
	return *out.ImageDetails[0].ImageDigest
}

// A push in one region comes to the next by a rule's prefix, with all that is under it; not further, and not what was there before.
func TestReplication(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	a, b, far := client(t, emu, emu.Credentials(account)), in(emu, t, account, "eu-central-1"), in(emu, t, account, "eu-west-1")
	emu.Subscribe(account, "eu-central-1", "events")
	old, ix, sig := registrytest.Image(1, 10), registrytest.Index(registrytest.Image(2, 20), registrytest.Image(3, 30)), registrytest.Node{}
	push(t, a, "hello-app", "old", old)
	replicateTo(t, a, "eu-central-1", account, "hello")
	replicateTo(t, b, "eu-west-1", account)
	push(t, a, "hello-app", "v1", ix)
	sig = registrytest.Referrer(ix.Desc, "application/x.sig", []byte("s"))
	push(t, a, "hello-app", "", sig)
	push(t, a, "other", "v1", old)

	want := []ecrtypes.ImageReplicationStatus{{Region: aws.String("eu-central-1"), RegistryId: aws.String(account), Status: "COMPLETE"}}
	if d := cmp.Diff(want, replicated(t, a, "hello-app", "v1"), cmp.AllowUnexported(ecrtypes.ImageReplicationStatus{})); d != "" {
		t.Error(d)
	}
	if got := replicated(t, a, "hello-app", "old"); len(got) != 0 {
		t.Errorf("what was there before: %v", got)
	}
	if got := replicated(t, a, "other", "v1"); len(got) != 0 {
		t.Errorf("outside of the filter: %v", got)
	}
	if tagged(t, b, "hello-app", "v1") != ix.Desc.Digest.String() || tagged(t, b, "hello-app", "old") != "" || tagged(t, b, "other", "v1") != "" {
		t.Error("the destination has other images")
	}
	if got := replicated(t, b, "hello-app", "v1"); len(got) != 0 || tagged(t, far, "hello-app", "v1") != "" {
		t.Errorf("replicated twice: %v", got)
	}
	seen := strings.Join(collect(t, emu, "eu-central-1", "events", 4), "\n") // two children, the index and the referrer
	if strings.Count(seen, `"detail-type":"ECR Replication Action"`) != 4 || strings.Contains(seen, "PUSH") || !strings.Contains(seen, `"source-account":"111122223333"`) ||
		!strings.Contains(seen, `"source-region":"us-west-2"`) || !strings.Contains(seen, `"resources":["arn:aws:ecr:eu-central-1:111122223333:repository/hello-app"]`) {
		t.Errorf("events: %s", seen)
	}
}

// collect receives n messages of a queue of account.
func collect(t *testing.T, emu *ecrtest.Emulator, region, queue string, n int) (bodies []string) {
	t.Helper()
	c, u := sqsClient(t, emu, account, region), emu.QueueURL(account, region, queue)
	for len(bodies) < n {
		out, err := c.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{QueueUrl: &u, MaxNumberOfMessages: 10, WaitTimeSeconds: 10})
		if err != nil || len(out.Messages) == 0 {
			t.Fatalf("%d of %d messages: %v", len(bodies), n, err)
		}
		for _, m := range out.Messages {
			bodies = append(bodies, *m.Body)
		}
	}
	return bodies
}

// Another account's registry takes replicas only as its policy says.
func TestReplicationAcrossAccounts(t *testing.T) {
	const resource = `"Resource":"arn:aws:ecr:eu-central-1:444455556666:repository/*"`
	for _, tc := range []struct{ name, policy, status, code string }{
		{"no policy", "", "FAILED", "AccessDenied"},
		{"ReplicateImage alone", `"ecr:ReplicateImage"`, "FAILED", "AccessDenied"},
		{"both", `["ecr:ReplicateImage","ecr:CreateRepository"]`, "COMPLETE", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			emu := start(t, ecrtest.Options{Accounts: []string{account, other}})
			a, b := client(t, emu, emu.Credentials(account)), in(emu, t, other, "eu-central-1")
			if tc.policy != "" {
				text := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + account + `:root"},"Action":` + tc.policy + `,` + resource + `}}`
				if _, err := b.PutRegistryPolicy(t.Context(), &ecr.PutRegistryPolicyInput{PolicyText: &text}); err != nil {
					t.Fatal(err)
				}
			}
			img := registrytest.Image(1, 10)
			replicateTo(t, a, "eu-central-1", other)
			push(t, a, "app", "v1", img)
			got := replicated(t, a, "app", "v1")
			if len(got) != 1 || string(got[0].Status) != tc.status || aws.ToString(got[0].FailureCode) != tc.code {
				t.Errorf("%+v", got)
			}
			if here := tagged(t, b, "app", "v1") != ""; here != (tc.status == "COMPLETE") {
				t.Errorf("in the destination: %v", here)
			}
		})
	}
}

// The destination's own state decides how a replica arrives: a template for the settings, an immutable tag, an archived image.
func TestReplicaArrives(t *testing.T) {
	emu := start(t, ecrtest.Options{Quirks: ecrtest.Quirks{ReplicationEmitsPush: true}})
	a, b, ctx := client(t, emu, emu.Credentials(account)), in(emu, t, account, "eu-central-1"), t.Context()
	emu.Subscribe(account, "eu-central-1", "events")
	if _, err := b.CreateRepositoryCreationTemplate(ctx, &ecr.CreateRepositoryCreationTemplateInput{Prefix: aws.String("ROOT"),
		AppliedFor: []ecrtypes.RCTAppliedFor{"REPLICATION"}, ImageTagMutability: "IMMUTABLE"}); err != nil {
		t.Fatal(err)
	}
	replicateTo(t, a, "eu-central-1", account)
	first, second := registrytest.Image(1, 10), registrytest.Image(2, 10)
	push(t, a, "app", "v1", first)
	replicated(t, a, "app", "v1")
	if got := strings.Join(collect(t, emu, "eu-central-1", "events", 2), ""); !strings.Contains(got, `"action-type":"PUSH"`) {
		t.Errorf("with the quirk there is a PUSH: %s", got)
	}
	repos, err := b.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"app"}})
	if err != nil || repos.Repositories[0].ImageTagMutability != "IMMUTABLE" {
		t.Errorf("template: %v, %v", repos, err)
	}
	if _, err := b.UpdateImageStorageClass(ctx, &ecr.UpdateImageStorageClassInput{RepositoryName: aws.String("app"),
		ImageId: &ecrtypes.ImageIdentifier{ImageTag: aws.String("v1")}, TargetStorageClass: "ARCHIVE"}); err != nil {
		t.Fatal(err)
	}
	if err := put(t, a, "app", "again", first); err != nil {
		t.Fatal(err)
	}
	replicated(t, a, "app", "again")
	out, err := b.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: aws.String("app"), ImageIds: []ecrtypes.ImageIdentifier{{ImageTag: aws.String("again")}}})
	if err != nil || out.ImageDetails[0].ImageStatus != "ACTIVE" {
		t.Errorf("archived: %v, %v", out, err)
	}
	push(t, a, "app", "v1", second)
	if got := replicated(t, a, "app", "v1"); len(got) != 1 || got[0].Status != "COMPLETE" {
		t.Error(got)
	}
	if tagged(t, b, "app", "v1") != first.Desc.Digest.String() {
		t.Error("an immutable tag moved")
	}
	list, err := b.ListImages(ctx, &ecr.ListImagesInput{RepositoryName: aws.String("app"), Filter: &ecrtypes.ListImagesFilter{TagStatus: "UNTAGGED"}})
	if err != nil || len(list.ImageIds) != 1 || *list.ImageIds[0].ImageDigest != second.Desc.Digest.String() {
		t.Errorf("the second image is there without its tag: %v, %v", list, err)
	}
}

// A destination that is down, or that a fault hits, has the replication fail; the next push tries again.
func TestReplicationFails(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	a := client(t, emu, emu.Credentials(account))
	replicateTo(t, a, "eu-central-1", account)
	emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "ReplicateImage" && c.Nth == 0 && c.Target == "app:v1" {
			return ecrtest.Fault{Status: 500}
		}
		return ecrtest.Fault{}
	})
	img := registrytest.Image(1, 10)
	push(t, a, "app", "v1", img)
	if got := replicated(t, a, "app", "v1"); got[0].Status != "FAILED" {
		t.Error(got)
	}
	emu.Registry(account, "eu-central-1").SetDown(true)
	put(t, a, "app", "v2", img)
	if got := replicated(t, a, "app", "v1"); got[0].Status != "FAILED" {
		t.Error(got)
	}
	emu.Registry(account, "eu-central-1").SetDown(false)
	put(t, a, "app", "v3", img)
	if got := replicated(t, a, "app", "v1"); got[0].Status != "COMPLETE" {
		t.Error(got)
	}
}

// What a restart interrupts goes on: status and destination are on disk.
func TestReplicationSurvivesRestart(t *testing.T) {
	opt := ecrtest.Options{Dir: t.TempDir(), ReplicationDelay: time.Hour}
	emu := start(t, opt)
	a := client(t, emu, emu.Credentials(account))
	replicateTo(t, a, "eu-central-1", account)
	push(t, a, "app", "v1", registrytest.Image(1, 10))
	emu.Close()
	emu = start(t, opt)
	a = client(t, emu, emu.Credentials(account))
	if got := replicated(t, a, "app", "v1"); len(got) != 1 || got[0].Status != "COMPLETE" {
		t.Error(got)
	}
	if tagged(t, in(emu, t, account, "eu-central-1"), "app", "v1") == "" {
		t.Error("the image is not there")
	}
}

func TestReplicationConfiguration(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	put := func(rules ...ecrtypes.ReplicationRule) string {
		_, err := c.PutReplicationConfiguration(t.Context(), &ecr.PutReplicationConfigurationInput{ReplicationConfiguration: &ecrtypes.ReplicationConfiguration{Rules: rules}})
		return code(err)
	}
	rule := func(region, account string, filters ...ecrtypes.RepositoryFilter) ecrtypes.ReplicationRule {
		return ecrtypes.ReplicationRule{Destinations: []ecrtypes.ReplicationDestination{{Region: &region, RegistryId: &account}}, RepositoryFilters: filters}
	}
	prefix := func(s string) ecrtypes.RepositoryFilter {
		return ecrtypes.RepositoryFilter{Filter: &s, FilterType: "PREFIX_MATCH"}
	}
	many := func(n int) (f []ecrtypes.RepositoryFilter) {
		for range n {
			f = append(f, prefix("ab"))
		}
		return f
	}
	rules := func(n int) (r []ecrtypes.ReplicationRule) {
		for range n {
			r = append(r, rule("eu-west-1", account))
		}
		return r
	}
	for name, tc := range map[string]struct {
		rules []ecrtypes.ReplicationRule
		want  string
	}{
		"none":              {nil, ""},
		"one":               {rules(1), ""},
		"25 rules":          {rules(25), ""},
		"26 rules":          {rules(26), "InvalidParameterException"},
		"itself":            {[]ecrtypes.ReplicationRule{rule(region, account)}, "InvalidParameterException"},
		"another partition": {[]ecrtypes.ReplicationRule{rule("cn-north-1", account)}, "InvalidParameterException"},
		"no region":         {[]ecrtypes.ReplicationRule{rule("Europe", account)}, "InvalidParameterException"},
		"100 filters":       {[]ecrtypes.ReplicationRule{rule("eu-west-1", account, many(100)...)}, ""},
		"101 filters":       {[]ecrtypes.ReplicationRule{rule("eu-west-1", account, many(101)...)}, "InvalidParameterException"},
		"another filter":    {[]ecrtypes.ReplicationRule{rule("eu-west-1", account, ecrtypes.RepositoryFilter{Filter: aws.String("a*"), FilterType: "GLOB"})}, "InvalidParameterException"},
	} {
		if got := put(tc.rules...); got != tc.want {
			t.Errorf("%s: %s, want %q", name, got, tc.want)
		}
	}
}

// A backfill brings what was there before its rule; it can be stopped, and fails when half of a hundred images do.
func TestBackfill(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c, b, ctx := client(t, emu, emu.Credentials(account)), in(emu, t, account, "eu-central-1"), t.Context()
	img := registrytest.Image(1, 10)
	push(t, c, "app", "v1", registrytest.Index(img))
	push(t, c, "other", "v1", img)
	to := &ecrtypes.ReplicationDestination{Region: aws.String("eu-central-1"), RegistryId: aws.String(account)}
	if _, err := c.StartReplicationBackfill(ctx, &ecr.StartReplicationBackfillInput{Destination: to}); code(err) != "ValidationException" {
		t.Errorf("not configured: %v", err)
	}
	replicateTo(t, c, "eu-central-1", account, "app")
	run := func(while func(id *string)) *ecr.DescribeReplicationBackfillResultsOutput {
		t.Helper()
		begun, err := c.StartReplicationBackfill(ctx, &ecr.StartReplicationBackfillInput{Destination: to})
		if err != nil {
			t.Fatal(err)
		}
		if while != nil {
			while(begun.ReplicationBackfillId)
		}
		for {
			out, err := c.DescribeReplicationBackfillResults(ctx, &ecr.DescribeReplicationBackfillResultsInput{ReplicationBackfillId: begun.ReplicationBackfillId})
			if err != nil {
				t.Fatal(err)
			}
			if out.EndedAt != nil {
				return out
			}
			time.Sleep(time.Millisecond)
		}
	}
	out := run(nil)
	if out.Status != "COMPLETE" || *out.Progress.TotalReplicationCount != 2 || *out.Progress.CompletedReplicationCount != 2 || len(out.Results) != 2 {
		t.Errorf("%+v %+v", out, out.Progress)
	}
	if tagged(t, b, "app", "v1") == "" || tagged(t, b, "other", "v1") != "" {
		t.Error("the destination has other images")
	}

	held, goOn := make(chan struct{}), make(chan struct{})
	emu.Fault(func(call ecrtest.Call) ecrtest.Fault {
		if call.Op == "ReplicateImage" {
			held <- struct{}{}
			<-goOn
		}
		return ecrtest.Fault{}
	})
	out = run(func(id *string) {
		<-held
		if _, err := c.StartReplicationBackfill(ctx, &ecr.StartReplicationBackfillInput{Destination: to}); code(err) != "ReplicationBackfillInProgressException" {
			t.Errorf("a second: %v", err)
		}
		stopped, err := c.StopReplicationBackfill(ctx, &ecr.StopReplicationBackfillInput{ReplicationBackfillId: id})
		if err != nil || stopped.Status != "STOPPING" {
			t.Error(stopped, err)
		}
		close(goOn)
	})
	if out.Status != "STOPPED" {
		t.Errorf("stopped: %s", out.Status)
	}
	emu.Fault(nil)
	for i := range 120 {
		put(t, c, "app", "t"+string(rune('a'+i/26))+string(rune('a'+i%26)), registrytest.Index(img))
	}
	emu.Fault(func(call ecrtest.Call) ecrtest.Fault {
		if call.Op == "ReplicateImage" {
			return ecrtest.Fault{Status: 503}
		}
		return ecrtest.Fault{}
	})
	if out = run(nil); out.Status != "FAILED" || *out.FailureCode != "InternalError" || *out.Progress.FailedReplicationCount != 100 {
		t.Errorf("failed: %+v %+v", out, out.Progress)
	}
	if _, err := c.DescribeReplicationBackfillResults(ctx, &ecr.DescribeReplicationBackfillResultsInput{ReplicationBackfillId: aws.String("none")}); code(err) != "ReplicationBackfillNotFoundException" {
		t.Error(err)
	}
	list, err := c.ListReplicationBackfills(ctx, &ecr.ListReplicationBackfillsInput{MaxResults: aws.Int32(2)})
	if err != nil || len(list.Backfills) != 2 || list.NextToken == nil {
		t.Errorf("%+v, %v", list, err)
	}
}
