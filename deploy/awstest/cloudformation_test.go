package awstest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
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
		s := source(t, n, map[string]any{"NamePrefix": strings.Repeat("p", 31), "RepositoryPrefixes": "a/,b/,c/,d/,e/"})
		for kind, want := range map[string]int{"AWS::SQS::Queue": 2 * n, "AWS::SQS::QueuePolicy": 2 * n, "AWS::Events::Rule": n, "AWS::IAM::Role": n,
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

// grant is what `ecr-mirror iam-policy --output json` prints.
type grant struct {
	Kind   string       `json:"kind"`
	Attach string       `json:"attach"`
	Policy iam.Document `json:"policy"`
}

// printed is what iam-policy prints for a configuration.
func printed(t *testing.T, configuration, role, rule, key string) []grant {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ecr-mirror.yaml")
	must(t, os.WriteFile(file, []byte(configuration), 0o600))
	cmd := exec.CommandContext(t.Context(), binary(t), "iam-policy", "--config", file, "--output", "json", "--principal", role, "--event-rule", rule, "--queue-key", key)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("iam-policy: %v\n%s", err, out)
	}
	var all []grant
	must(t, json.Unmarshal(out, &all))
	return all
}

// parsed reads a policy as the emulator does.
func parsed(t *testing.T, kind iam.Kind, document any) iam.Document {
	t.Helper()
	d, err := iam.Parse(kind, []byte(encode(document)))
	if err != nil {
		t.Fatalf("%v\n%s", err, encode(document))
	}
	return d
}

// as is d with role in the place of those of its account whose ARNs match a condition: a template cannot name roles that may
// not exist yet, for AWS would refuse them.
func as(t *testing.T, d iam.Document, role string) iam.Document {
	t.Helper()
	for i, s := range d.Statement {
		pattern := s.Condition["ArnLike"][iam.PrincipalARN]
		if len(pattern) != 1 {
			continue
		}
		if !iam.Match(pattern[0], role) || s.Principal.AWS[0] != strings.Split(role, "role/")[0]+"root" || len(s.Condition) != 1 {
			t.Errorf("statement %s is not for %s: %v", s.Sid, role, s)
		}
		d.Statement[i].Principal, d.Statement[i].Condition = &iam.Principal{AWS: iam.Strings{role}}, nil
	}
	return d
}

// Roles, queue, registry and key have what iam-policy prints for the rendered configuration, statement by statement.
func TestTemplatesGrantWhatIAMPolicyPrints(t *testing.T) {
	const key = "arn:aws:kms:us-west-2:111122223333:key/12345678-1234-1234-1234-123456789012"
	for name, tc := range map[string]struct {
		source, target, mirrors string
		params                  map[string]any
	}{
		"one account":                 {sourceRegion, "eu-central-1", account, nil},
		"two prefixes, a key":         {sourceRegion, "eu-central-1", account, map[string]any{"RepositoryPrefixes": "team/,base-", "KmsKey": key}},
		"mirrors in another account":  {sourceRegion, "ap-southeast-1", other, map[string]any{"RepositoryPrefixes": "team/", "NamePrefix": "images"}},
		"within China":                {"cn-north-1", "cn-northwest-1", account, nil},
		"GovCloud, another account":   {"us-gov-west-1", "us-gov-east-1", other, nil},
		"the same region":             {sourceRegion, sourceRegion, other, nil},
		"five prefixes, all that fit": {sourceRegion, "eu-central-1", account, map[string]any{"RepositoryPrefixes": "a/,b/,c/,d/,e/"}},
	} {
		t.Run(name, func(t *testing.T) {
			params := map[string]any{"TargetRegions": tc.target, "Templates": "https://bucket/x"}
			prefix, keyARN := "ecr-mirror", ""
			for k, v := range tc.params {
				params[k] = v
			}
			if p, ok := tc.params["NamePrefix"].(string); ok {
				prefix = p
			}
			if k, ok := tc.params["KmsKey"].(string); ok {
				keyARN = k
			}
			if tc.mirrors != account {
				params["MirrorAccount"] = tc.mirrors
			}
			s, err := render(filepath.Join(templates, "source.yaml"), account, tc.source, params)
			must(t, err)
			roles := s
			if tc.mirrors != account {
				more := map[string]any{"TargetRegion": tc.target, "SourceRegion": tc.source, "SourceAccount": account}
				for k, v := range tc.params {
					more[k] = v
				}
				roles, err = render(filepath.Join(templates, "roles.yaml"), tc.mirrors, tc.target, more)
				must(t, err)
			}
			configuration := s.outputs["Queue"+stripped.ReplaceAllString(tc.target, "")+".Configuration"]
			if _, err := config.Parse("rendered.yaml", []byte(configuration), os.LookupEnv); err != nil {
				t.Fatalf("%v\n%s", err, configuration)
			}
			partition := s.ref("AWS::Partition").(string)
			role := fmt.Sprintf("arn:%s:iam::%s:role/%s-%s", partition, tc.mirrors, prefix, tc.target)
			got := map[string]iam.Document{"identity": parsed(t, iam.Identity, roles.of("AWS::IAM::Role")[0].props["Policies"].([]any)[0].(map[string]any)["PolicyDocument"])}
			i := slices.IndexFunc(s.resources, func(r resource) bool { return r.id == "QueuePolicy" })
			got["queue"] = parsed(t, iam.Queue, s.resources[i].props["PolicyDocument"])
			if r := s.of("AWS::ECR::RegistryPolicy"); len(r) > 0 {
				got["registry"] = parsed(t, iam.Registry, r[0].props["PolicyText"])
			}
			want := map[string]iam.Document{}
			for _, g := range printed(t, configuration, role, prefix+"-"+tc.target, keyARN) {
				if g.Kind != "key" { // the key is the customer's
					want[g.Kind] = g.Policy
				}
			}
			for kind, d := range got {
				got[kind] = as(t, d, role)
			}
			sorted := cmpopts.SortSlices(func(a, b string) bool { return a < b }) // of actions and resources
			if d := cmp.Diff(want, got, sorted); d != "" {
				t.Errorf("-printed +rendered:\n%s", d)
			}
		})
	}
}

// Six regions, which are more than a rule has targets: an image that crane pushes at the source is in each of them, brought by a
// mirror that may do what the role of its region may, and nothing else. What no prefix names goes nowhere.
func TestTemplatesReplicate(t *testing.T) {
	t.Parallel()
	need(t, "crane")
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

// The mirrors of another account read images and events by the policies that the source's stack made.
func TestTemplatesReplicateAcrossAccounts(t *testing.T) {
	t.Parallel()
	need(t, "crane")
	w := newWorld(t)
	s := source(t, 2, map[string]any{"RepositoryPrefixes": "team/,base-", "MirrorAccount": other})
	w.apply(s)
	for _, region := range regions[:2] {
		roles, err := render(filepath.Join(templates, "roles.yaml"), other, region,
			map[string]any{"TargetRegion": region, "SourceRegion": sourceRegion, "SourceAccount": account, "RepositoryPrefixes": "team/,base-"})
		must(t, err)
		w.apply(roles)
		w.mirror(roles.outputs["RoleArn"], s.outputs["Queue"+stripped.ReplaceAllString(region, "")+".Configuration"])
	}
	w.replicate(regions[:2], other)
}
