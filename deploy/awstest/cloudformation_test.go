package awstest

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
)

const templates = "../cloudformation"

// regions are where AWS is.
var regions = strings.Fields("eu-central-1 us-east-1 ap-southeast-1 eu-west-1 sa-east-1 ca-central-1 ap-northeast-1 af-south-1 me-central-1 il-central-1 ap-southeast-5 us-east-2")

// source renders source.yaml for the first n regions.
func source(t *testing.T, n int, more map[string]any) *stack {
	t.Helper()
	params := map[string]any{"TargetRegions": strings.Join(regions[:n], ","), "Templates": "https://bucket.s3.us-west-2.amazonaws.com/ecr-mirror"}
	for k, v := range more {
		params[k] = v
	}
	s, err := render(filepath.Join(templates, "source.yaml"), account, sourceRegion, params)
	must(t, err)
	return s
}

func (s *stack) of(kind string) (all []resource) {
	for _, r := range s.resources {
		if r.kind == kind {
			all = append(all, r)
		}
	}
	return all
}

// However many regions there are, every one has its own of everything, within AWS's limits.
func TestTemplatesForManyRegions(t *testing.T) {
	for _, n := range []int{1, 5, 6, 12} {
		s := source(t, n, map[string]any{"NamePrefix": strings.Repeat("p", 31), "RepositoryPrefixes": "a/,b/,c/,d/,e/", "Roles": "front-and-worker"})
		for kind, want := range map[string]int{"AWS::SQS::Queue": 2 * n, "AWS::SQS::QueuePolicy": 2 * n, "AWS::Events::Rule": n, "AWS::IAM::Role": 2 * n,
			"AWS::CloudWatch::Alarm": 3 * n, "AWS::CloudFormation::Stack": 2 * n, "AWS::ECR::RegistryPolicy": 0} {
			if got := len(s.of(kind)); got != want {
				t.Errorf("%d regions: %d of %s, want %d", n, got, kind, want)
			}
		}
		if s.own > 500 {
			t.Errorf("%d regions: %d resources in a stack", n, s.own)
		}
		s.checkLimits(t)
	}
}

// checkLimits holds names and sizes to what AWS takes (Amazon SQS, EventBridge, CloudWatch and IAM quotas).
func (s *stack) checkLimits(t *testing.T) {
	t.Helper()
	seen := map[string]bool{}
	name := func(r resource, key string, most int) {
		text, _ := r.props[key].(string)
		if text == "" || len(text) > most || seen[r.kind+text] {
			t.Errorf("%s %q: empty, not its own, or longer than %d", r.kind, text, most)
		}
		seen[r.kind+text] = true
	}
	for _, r := range s.resources {
		switch r.kind {
		case "AWS::SQS::Queue":
			name(r, "QueueName", 80)
		case "AWS::Events::Rule":
			name(r, "Name", 64)
			if n := len(r.props["Targets"].([]any)); n < 1 || n > 5 {
				t.Errorf("%v: %d targets", r.props["Name"], n)
			}
		case "AWS::IAM::Role":
			name(r, "RoleName", 64)
			if n := len(encode(r.props["Policies"])); n > 10240 {
				t.Errorf("%v: policies of %d characters", r.props["RoleName"], n)
			}
		case "AWS::CloudWatch::Alarm":
			name(r, "AlarmName", 255)
		}
	}
	for key, value := range s.outputs {
		if len(value) > 1024 {
			t.Errorf("output %s: %d bytes", key, len(value))
		}
	}
	text, err := os.ReadFile(s.file)
	must(t, err)
	if len(text) > 51200 {
		t.Errorf("%s: %d bytes do not go into a request", s.file, len(text))
	}
}

func TestTemplateParameters(t *testing.T) {
	for _, params := range []map[string]any{
		{"TargetRegions": "eu-central-1,Frankfurt"},
		{"TargetRegions": "eu-central-1, us-east-1"},
		{"NamePrefix": "ecr_mirror"},
		{"RepositoryPrefixes": "a,b,c,d,e,f"},
		{"RepositoryPrefixes": "Team/"},
		{"MirrorAccount": "me"},
		{"RunsOn": "irsa"},
		{"AlarmAge": "1"},
		{"KmsKey": "alias/mine"},
	} {
		given := map[string]any{"TargetRegions": "eu-central-1", "Templates": "https://bucket/x"}
		for k, v := range params {
			given[k] = v
		}
		if _, err := render(filepath.Join(templates, "source.yaml"), account, sourceRegion, given); err == nil {
			t.Errorf("%v: no error", params)
		}
	}
	if _, err := render(filepath.Join(templates, "roles.yaml"), account, sourceRegion, map[string]any{"TargetRegion": "eu-central-1", "SourceRegion": "us-west-2", "RunsOn": "irsa"}); err == nil {
		t.Error("irsa without an issuer: no error")
	}
}

// Six regions, which are more than a rule has targets: an image that crane pushes at the source is in each of them, brought by a
// mirror that may do what the role of its region may, and nothing else. What no prefix names goes nowhere.
func TestTemplatesReplicate(t *testing.T) {
	t.Parallel()
	programs.Need(t, "crane")
	const n = 6
	w := newWorld(t)
	s := source(t, n, map[string]any{"RepositoryPrefixes": "team/,base-"})
	w.apply(s)
	for _, region := range regions[:n] {
		w.mirror("arn:aws:iam::"+account+":role/ecr-mirror-"+region, s.outputs["Queue"+stripped.ReplaceAllString(region, "")+".Configuration"])
	}
	w.replicate(regions[:n], account)
}

// replicate pushes images and waits for those that are wanted.
func (w *world) replicate(regions []string, mirrors string) {
	w.t.Helper()
	unwanted := w.push("private/app", "v1")
	first, second := w.push("team/app", "v1"), w.push("base-image", "v1")
	for _, region := range regions {
		for repo, digest := range map[string]string{"team/app": first, "base-image": second} {
			w.eventually(repo+" in "+region, func() bool { return w.has(mirrors, region, repo, "v1", digest) })
		}
		if w.has(mirrors, region, "private/app", "v1", unwanted) {
			w.t.Errorf("private/app came to %s", region)
		}
		for _, queue := range []string{"ecr-mirror-" + region, "ecr-mirror-" + region + "-dead-letters"} {
			w.eventually("an empty queue "+queue, func() bool { all, _ := w.QueueLen(account, sourceRegion, queue); return all == 0 })
		}
	}
}

// The fronts and workers of another account's mirrors read images, events and the queues' key by the policies that the stacks
// made, with that of the key as iam-policy prints it. What a front misses a worker replicates.
func TestTemplatesReplicateAcrossAccounts(t *testing.T) {
	t.Parallel()
	programs.Need(t, "crane")
	const key = "arn:aws:kms:us-west-2:111122223333:key/12345678-1234-1234-1234-123456789012"
	w := newWorld(t)
	params := map[string]any{"RepositoryPrefixes": "team/,base-", "Roles": "front-and-worker", "KmsKey": key}
	with := func(more map[string]any) map[string]any {
		maps.Copy(more, params)
		return more
	}
	s := source(t, 2, with(map[string]any{"MirrorAccount": other}))
	w.apply(s)
	printed, fronts := granted{}, map[string]string{}
	configurations := map[string]string{}
	for _, region := range regions[:2] {
		roles := rendered(t, "roles.yaml", other, region, with(map[string]any{"TargetRegion": region, "SourceRegion": sourceRegion, "SourceAccount": account}))
		w.apply(roles)
		configurations[region] = s.outputs["Queue"+stripped.ReplaceAllString(region, "")+".Configuration"]
		printed.print(t, configurations[region], "worker", roles.outputs["RoleArn"], "ecr-mirror-"+region, key)
		printed.print(t, configurations[region], "front", roles.outputs["FrontRoleArn"], "ecr-mirror-"+region, key)
	}
	must(t, w.KeyPolicy(key, printed["key"].String()))
	for _, region := range regions[:2] {
		role := "arn:aws:iam::" + other + ":role/ecr-mirror-" + region
		w.mirror(role+"-worker", configurations[region], "--role", "worker")
		fronts[region] = w.mirror(role+"-front", configurations[region], "--role", "front")
	}
	w.replicate(regions[:2], other)

	w.OnEvent(func(ecrtest.Event) []ecrtest.Delivery { return nil })
	missed := w.push("team/missed", "v1")
	for region, front := range fronts {
		if out, err := exec.CommandContext(t.Context(), "crane", "validate", "--remote", front+"/team/missed:v1").CombinedOutput(); err != nil {
			t.Fatalf("crane: %v\n%s", err, out)
		}
		w.eventually("what was missed in "+region, func() bool { return w.has(other, region, "team/missed", "v1", missed) })
	}
}
