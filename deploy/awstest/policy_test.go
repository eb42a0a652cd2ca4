package awstest

import (
	"encoding/json"
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

// granted is policies by what they are of: an identity policy by its role's ARN, the others by their kind.
type granted map[string]iam.Document

// add puts a policy beside what is there, statement by statement.
func (g granted) add(of string, d iam.Document) {
	all := g[of]
	all.Version = d.Version
	for _, s := range d.Statement {
		if !slices.ContainsFunc(all.Statement, func(old iam.Statement) bool { return cmp.Equal(old, s) }) {
			all.Statement = append(all.Statement, s)
		}
	}
	g[of] = all
}

// print adds what iam-policy prints for a configuration, and a role of it or "".
func (g granted) print(t *testing.T, configuration, as, role, rule, key string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ecr-mirror.yaml")
	must(t, os.WriteFile(file, []byte(configuration), 0o600))
	args := []string{"iam-policy", "--config", file, "--output", "json", "--principal", role, "--event-rule", rule, "--queue-key", key}
	if as != "" {
		args = append(args, "--role", as)
	}
	out, err := exec.CommandContext(t.Context(), binary(t), args...).Output()
	if err != nil {
		t.Fatalf("iam-policy: %v\n%s", err, out)
	}
	var all struct {
		Policies []struct {
			Kind, Attach string
			Policy       iam.Document
		}
	}
	must(t, json.Unmarshal(out, &all))
	for _, one := range all.Policies {
		of := one.Kind
		if of == "identity" {
			of = one.Attach
		}
		g.add(of, one.Policy)
	}
}

// render adds what a stack makes, with one of roles in the place of those whose ARNs match a condition: a template cannot name
// roles that may not exist yet, for AWS would refuse them.
func (g granted) render(t *testing.T, s *stack, roles []string) {
	t.Helper()
	parse := func(kind iam.Kind, document any) iam.Document {
		d, err := iam.Parse(kind, []byte(encode(document)))
		if err != nil {
			t.Fatalf("%v\n%s", err, encode(document))
		}
		for i, s := range d.Statement {
			pattern := s.Condition["ArnLike"][iam.PrincipalARN]
			if len(pattern) != 1 {
				continue
			}
			named := slices.DeleteFunc(slices.Clone(roles), func(role string) bool { return !iam.Match(pattern[0], role) })
			if len(named) != 1 || s.Principal.AWS[0] != strings.Split(named[0], "role/")[0]+"root" || len(s.Condition) != 1 {
				t.Errorf("statement %s is not for one of %v: %v", s.Sid, roles, s)
				continue
			}
			d.Statement[i].Principal, d.Statement[i].Condition = &iam.Principal{AWS: named}, nil
		}
		return d
	}
	for _, r := range s.resources {
		switch {
		case r.kind == "AWS::IAM::Role":
			g.add(strings.Split(roles[0], "role/")[0]+"role/"+r.props["RoleName"].(string), parse(iam.Identity, r.props["Policies"].([]any)[0].(map[string]any)["PolicyDocument"]))
		case r.id == "QueuePolicy":
			g.add("queue", parse(iam.Queue, r.props["PolicyDocument"]))
		case r.kind == "AWS::ECR::RegistryPolicy":
			g.add("registry", parse(iam.Registry, r.props["PolicyText"]))
		}
	}
}

// Roles, queue and registry have what iam-policy prints for the rendered configuration, statement by statement.
func TestTemplatesGrantWhatIAMPolicyPrints(t *testing.T) {
	t.Parallel()
	const key = "arn:aws:kms:us-west-2:111122223333:key/12345678-1234-1234-1234-123456789012"
	for name, tc := range map[string]struct {
		source, target, mirrors string
		params                  map[string]any
	}{
		"one account":                {sourceRegion, "eu-central-1", account, nil},
		"two prefixes, a key":        {sourceRegion, "eu-central-1", account, map[string]any{"RepositoryPrefixes": "team/,base-", "KmsKey": key}},
		"mirrors in another account": {sourceRegion, "ap-southeast-1", other, map[string]any{"RepositoryPrefixes": "team/", "NamePrefix": "images"}},
		"within China":               {"cn-north-1", "cn-northwest-1", account, nil},
		"GovCloud, another account":  {"us-gov-west-1", "us-gov-east-1", other, nil},
		"the same region":            {sourceRegion, sourceRegion, other, nil},
		"five prefixes":              {sourceRegion, "eu-central-1", account, map[string]any{"RepositoryPrefixes": "a/,b/,c/,d/,e/"}},
		"fronts and workers":         {sourceRegion, "eu-central-1", account, map[string]any{"Roles": "front-and-worker", "KmsKey": key}},
		"both in another account":    {sourceRegion, "eu-central-1", other, map[string]any{"Roles": "front-and-worker", "KmsKey": key}},
	} {
		t.Run(name, func(t *testing.T) {
			all := map[string]any{"TargetRegions": tc.target, "Templates": "https://bucket/x", "NamePrefix": "ecr-mirror", "KmsKey": ""}
			inRoles := map[string]any{"TargetRegion": tc.target, "SourceRegion": tc.source, "SourceAccount": account}
			for k, v := range tc.params {
				all[k], inRoles[k] = v, v
			}
			if tc.mirrors != account {
				all["MirrorAccount"] = tc.mirrors
			}
			s := rendered(t, "source.yaml", account, tc.source, all)
			configuration := s.outputs["Queue"+stripped.ReplaceAllString(tc.target, "")+".Configuration"]
			if _, err := config.Parse("rendered.yaml", []byte(configuration), os.LookupEnv); err != nil {
				t.Fatalf("%v\n%s", err, configuration)
			}
			name := all["NamePrefix"].(string) + "-" + tc.target
			role := "arn:" + s.ref("AWS::Partition").(string) + ":iam::" + tc.mirrors + ":role/" + name
			want, got, roles := granted{}, granted{}, []string{role}
			if tc.params["Roles"] == nil {
				want.print(t, configuration, "", role, name, all["KmsKey"].(string))
			} else {
				roles = []string{role + "-front", role + "-worker"}
				want.print(t, configuration, "worker", roles[1], name, all["KmsKey"].(string))
				want.print(t, configuration, "front", roles[0], name, all["KmsKey"].(string))
			}
			delete(want, "key") // the customer's
			got.render(t, s, roles)
			if tc.mirrors != account {
				got.render(t, rendered(t, "roles.yaml", tc.mirrors, tc.target, inRoles), roles)
			}
			// Actions, resources and statements have no order.
			order := cmp.Options{cmpopts.SortSlices(func(a, b string) bool { return a < b }), cmpopts.SortSlices(func(a, b iam.Statement) bool { return a.Sid < b.Sid })}
			if d := cmp.Diff(want, got, order); d != "" {
				t.Errorf("-printed +rendered:\n%s", d)
			}
		})
	}
}
