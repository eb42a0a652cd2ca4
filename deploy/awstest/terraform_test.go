package awstest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const modules = "../terraform"

// terraform is a copy of the modules, where Terraform may write.
type terraform struct {
	t         *testing.T
	tool, dir string
	providers string // a directory with the AWS provider
}

// newTerraform needs Terraform, and the AWS provider in a directory on this machine: nothing is downloaded.
func newTerraform(t *testing.T) *terraform {
	t.Helper()
	f := &terraform{t: t, tool: found(t, "terraform"), dir: t.TempDir()}
	home, _ := os.UserHomeDir()
	for _, pattern := range []string{"/opt/*", "/usr/share/terraform/plugins", "/usr/local/share/terraform/plugins", filepath.Join(home, ".terraform.d/plugins")} {
		if all, _ := filepath.Glob(filepath.Join(pattern, "registry.terraform.io/hashicorp/aws")); len(all) > 0 {
			f.providers = filepath.Join(all[0], "../../..")
		}
	}
	if f.providers == "" {
		t.Skip("left out: Terraform's AWS provider is not there")
	}
	must(t, os.CopyFS(f.dir, os.DirFS(modules)))
	must(t, os.WriteFile(filepath.Join(f.dir, "terraformrc"), nil, 0o600))
	return f
}

func (f *terraform) run(args ...string) []byte {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, f.tool, args...)
	cmd.Dir = f.dir
	cmd.Env = append(os.Environ(), "TF_CLI_CONFIG_FILE="+filepath.Join(f.dir, "terraformrc"), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1", "AWS_EC2_METADATA_DISABLED=true")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		f.t.Fatalf("terraform %v: %v\n%s%s", args, err, out, stderr.String())
	}
	return out
}

// plan writes a root module and returns what Terraform would make of the modules that it calls, by their names.
func (f *terraform) plan(root string) map[string]*stack {
	f.t.Helper()
	must(f.t, os.WriteFile(filepath.Join(f.dir, "main.tf"), []byte(root), 0o600))
	f.run("init", "-input=false", "-no-color", "-plugin-dir="+f.providers)
	f.run("plan", "-input=false", "-no-color", "-out=plan")
	var plan struct {
		Values struct {
			Outputs map[string]struct{ Value map[string]string }
			Root    struct {
				Modules []struct {
					Address   string
					Resources []planned
				} `json:"child_modules"`
			} `json:"root_module"`
		} `json:"planned_values"`
	}
	must(f.t, json.Unmarshal(f.run("show", "-json", "plan"), &plan))
	all := map[string]*stack{}
	for _, m := range plan.Values.Root.Modules {
		name := strings.TrimPrefix(m.Address, "module.")
		all[name] = &stack{resources: translated(f.t, m.Resources), outputs: plan.Values.Outputs[name].Value}
	}
	return all
}

// planned is a resource in a plan.
type planned struct {
	Type, Name string
	Index      any
	Values     map[string]any
}

// attributes says how CloudFormation calls what Terraform sets; "" what only one of them has.
func attributes() map[string]map[string]string {
	return map[string]map[string]string{
		"aws_sqs_queue": {"name": "QueueName", "message_retention_seconds": "MessageRetentionPeriod", "visibility_timeout_seconds": "VisibilityTimeout",
			"sqs_managed_sse_enabled": "SqsManagedSseEnabled", "kms_master_key_id": "KmsMasterKeyId", "max_message_size": ""},
		"aws_sqs_queue_redrive_policy":       {"redrive_policy": "RedrivePolicy"},
		"aws_sqs_queue_redrive_allow_policy": {"redrive_allow_policy": "RedriveAllowPolicy"},
		"aws_sqs_queue_policy":               {"policy": "PolicyDocument"},
		"aws_cloudwatch_event_rule":          {"name": "Name", "description": "Description", "event_pattern": "EventPattern", "event_bus_name": ""},
		"aws_cloudwatch_event_target":        {"target_id": "Id", "arn": "Arn", "rule": "", "dead_letter_config": "DeadLetterConfig", "event_bus_name": ""},
		"aws_iam_role": {"name": "RoleName", "description": "Description", "assume_role_policy": "AssumeRolePolicyDocument", "permissions_boundary": "PermissionsBoundary",
			"max_session_duration": "", "path": ""},
		"aws_iam_role_policy":     {"name": "PolicyName", "policy": "PolicyDocument", "role": ""},
		"aws_ecr_registry_policy": {"policy": "PolicyText"},
		"aws_cloudwatch_metric_alarm": {"alarm_name": "AlarmName", "alarm_description": "AlarmDescription", "namespace": "Namespace", "metric_name": "MetricName", "dimensions": "Dimensions",
			"statistic": "Statistic", "period": "Period", "evaluation_periods": "EvaluationPeriods", "comparison_operator": "ComparisonOperator", "threshold": "Threshold",
			"treat_missing_data": "TreatMissingData", "alarm_actions": "AlarmActions", "ok_actions": "OKActions", "actions_enabled": ""},
	}
}

// translated is what a plan makes, as CloudFormation would say it.
func translated(t *testing.T, resources []planned) (all []resource) {
	t.Helper()
	kinds := map[string]string{"aws_sqs_queue": "AWS::SQS::Queue", "aws_sqs_queue_policy": "AWS::SQS::QueuePolicy", "aws_cloudwatch_event_rule": "AWS::Events::Rule",
		"aws_iam_role": "AWS::IAM::Role", "aws_ecr_registry_policy": "AWS::ECR::RegistryPolicy", "aws_cloudwatch_metric_alarm": "AWS::CloudWatch::Alarm"}
	parts := map[string]map[string]any{} // what Terraform has as resources of their own
	for _, r := range resources {
		names, known := attributes()[r.Type]
		if !known {
			t.Errorf("%s.%s: not known", r.Type, r.Name)
		}
		props := map[string]any{}
		for key, v := range r.Values {
			name, known := names[key]
			switch text := encode(v); {
			case known && name != "" && text != "null" && text != "[]":
				props[name] = v
			case !known && !slices.Contains([]string{"null", "", "0", "[]", "{}", "false"}, text):
				t.Errorf("%s.%s: %s = %s", r.Type, r.Name, key, text)
			}
		}
		if kind := kinds[r.Type]; kind != "" {
			all = append(all, resource{fmt.Sprint(r.Name, "/", r.Index), kind, props})
		} else {
			parts[fmt.Sprint(r.Type, "/", r.Index)] = props
		}
	}
	for _, r := range all {
		name, index, _ := strings.Cut(r.id, "/")
		switch r.kind {
		case "AWS::SQS::Queue":
			if name == "events" {
				r.props["RedrivePolicy"] = parts["aws_sqs_queue_redrive_policy/"+index]["RedrivePolicy"]
			} else {
				if encode(r.props["VisibilityTimeout"]) == "30" { // the default, which a plan shows
					delete(r.props, "VisibilityTimeout")
				}
				r.props["RedriveAllowPolicy"] = parts["aws_sqs_queue_redrive_allow_policy/"+index]["RedriveAllowPolicy"]
			}
		case "AWS::Events::Rule":
			target := parts["aws_cloudwatch_event_target/"+index]
			target["DeadLetterConfig"] = map[string]any{"Arn": target["DeadLetterConfig"].([]any)[0].(map[string]any)["arn"]}
			r.props["Targets"] = []any{target}
		case "AWS::IAM::Role":
			r.props["Policies"] = []any{parts["aws_iam_role_policy/"+index]}
		case "AWS::CloudWatch::Alarm":
			for name, value := range section(r.props, "Dimensions") {
				r.props["Dimensions"] = []any{map[string]any{"Name": name, "Value": value}}
			}
		}
	}
	return all
}

// normal is v in a form that does not depend on how it was written: JSON in text is read, a list of one is that one, lists
// have an order, and numbers are text.
func normal(v any) any {
	switch v := v.(type) {
	case string:
		var doc map[string]any
		if strings.HasPrefix(v, "{") && json.Unmarshal([]byte(v), &doc) == nil {
			return normal(doc)
		}
		return v
	case map[string]any:
		m := map[string]any{}
		for key, one := range v {
			m[key] = normal(one)
		}
		return m
	case []any:
		l := []any{}
		for _, one := range v {
			l = append(l, normal(one))
		}
		slices.SortFunc(l, func(a, b any) int { return strings.Compare(encode(a), encode(b)) })
		if len(l) == 1 {
			return l[0]
		}
		return l
	}
	return encode(v)
}

// byName is the resources by what they are and are called; those without a name by their policy.
func byName(s *stack) map[string]any {
	all := map[string]any{}
	for _, r := range s.resources {
		if r.kind == "AWS::CloudFormation::Stack" {
			continue
		}
		delete(r.props, "Queues") // a policy names its queue
		for _, key := range []string{"QueueName", "Name", "RoleName", "AlarmName", "PolicyDocument", "PolicyText"} {
			if v, ok := r.props[key]; ok {
				all[r.kind+" "+encode(normal(v))] = normal(r.props)
				break
			}
		}
	}
	return all
}

// The modules make what the templates make, of which other tests show that it is right: resource by resource.
func TestModulesMakeWhatTemplatesMake(t *testing.T) {
	t.Parallel()
	f, w := newTerraform(t), newWorld(t)
	w.Registry(account, "cn-north-1")
	const key, topic, boundary = "arn:aws:kms:us-west-2:111122223333:key/12345678-1234-1234-1234-123456789012", "arn:aws:sns:us-west-2:111122223333:pages", "arn:aws:iam::aws:policy/Bound"
	root := ""
	for alias, region := range map[string]string{"source": sourceRegion, "china": "cn-north-1"} { // each is a process of its own
		c := w.Credentials(account)
		root += fmt.Sprintf("provider \"aws\" {\n  alias = %q\n  region = %q\n  access_key = %q\n  secret_key = %q\n  endpoints {\n    sts = %q\n  }\n}\n", alias, region, c.AccessKeyID, c.SecretAccessKey, w.ControlURL())
	}
	call := func(name, module, alias, arguments string) {
		root += fmt.Sprintf("module %q {\n  source = \"./%s\"\n  providers = { aws = aws.%s }\n%s\n}\n", name, module, alias, arguments)
		if module == "source" {
			root += fmt.Sprintf("output %q {\n  value = module.%s.configurations\n}\n", name, name)
		}
	}
	six := "target_regions = " + encode(regions[:6])
	call("all", "source", "source", six+"\nrepository_prefixes = [\"team/\", \"base-\"]\nkms_key_arn = \""+key+"\"\nalarm_topic_arn = \""+topic+"\"\nalarm_age = 600")
	call("across", "source", "source", six+"\nname_prefix = \"images\"\nmirror_account = \""+other+"\"")
	call("apart", "source", "source", six+"\nmirror_account = \""+other+"\"\nroles = \"front-and-worker\"\ncreate_alarms = false")
	call("china", "source", "china", "target_regions = [\"cn-northwest-1\"]")
	call("pods", "roles", "source", six+"\nsource_region = \"us-west-2\"\nrepository_prefixes = [\"team/\", \"base-\"]\nkms_key_arn = \""+key+"\"\npermissions_boundary = \""+boundary+"\"")
	call("irsa", "roles", "source", "target_regions = [\"eu-central-1\"]\nname_prefix = \"images\"\nsource_region = \"us-west-2\"\nsource_account = \""+other+"\"\nruns_on = \"irsa\"\nroles = \"front-and-worker\"\nkms_key_arn = \""+key+"\"\noidc_providers = { eu-central-1 = \"oidc.example/id/A\" }\nservice_account = \"a:b\"")
	call("ecs", "roles", "source", "target_regions = [\"us-east-1\"]\nsource_region = \"us-west-2\"\nruns_on = \"ecs\"")
	call("ec2", "roles", "china", "target_regions = [\"cn-northwest-1\"]\nsource_region = \"cn-north-1\"\nruns_on = \"ec2\"")
	got := f.plan(root)

	prefixes := map[string]any{"RepositoryPrefixes": "team/,base-", "KmsKey": key, "AlarmTopic": topic, "AlarmAge": "600", "PermissionsBoundary": boundary}
	for name, want := range map[string]*stack{
		"all + pods": source(t, 6, prefixes),
		"across":     source(t, 6, map[string]any{"NamePrefix": "images", "MirrorAccount": other}),
		"apart":      source(t, 6, map[string]any{"MirrorAccount": other, "Roles": "front-and-worker"}).without("AWS::CloudWatch::Alarm"),
		"china": rendered(t, "source.yaml", account, "cn-north-1", map[string]any{"TargetRegions": "cn-northwest-1", "Templates": "https://bucket/x",
			"MirrorAccount": account}),
		"irsa": rendered(t, "roles.yaml", account, "eu-central-1", map[string]any{"TargetRegion": "eu-central-1", "NamePrefix": "images", "SourceRegion": "us-west-2",
			"SourceAccount": other, "Roles": "front-and-worker", "KmsKey": key, "RunsOn": "irsa", "OidcProvider": "oidc.example/id/A", "ServiceAccount": "a:b"}),
		"ecs": rendered(t, "roles.yaml", account, "us-east-1", map[string]any{"TargetRegion": "us-east-1", "SourceRegion": "us-west-2", "RunsOn": "ecs"}),
		"ec2": rendered(t, "roles.yaml", account, "cn-northwest-1", map[string]any{"TargetRegion": "cn-northwest-1", "SourceRegion": "cn-north-1", "RunsOn": "ec2"}),
	} {
		is := &stack{outputs: map[string]string{}}
		for part := range strings.SplitSeq(name, " + ") {
			m := got[part]
			if m == nil {
				t.Fatalf("%s is not in the plan", part)
			}
			is.resources = append(is.resources, m.resources...)
			for region, configuration := range m.outputs {
				is.outputs[region] = configuration
			}
		}
		if d := cmp.Diff(byName(want), byName(is)); d != "" {
			t.Errorf("%s: -template +module:\n%s", name, d)
		}
		for region, configuration := range is.outputs {
			if w := want.outputs["Queue"+stripped.ReplaceAllString(region, "")+".Configuration"]; strings.ReplaceAll(configuration, `","`, `", "`) != w {
				t.Errorf("%s: %s:\n%s\nand not\n%s", name, region, configuration, w)
			}
		}
	}
}

// without is s without the resources of a kind.
func (s *stack) without(kind string) *stack {
	s.resources = slices.DeleteFunc(s.resources, func(r resource) bool { return r.kind == kind })
	return s
}

func rendered(t *testing.T, file, account, region string, params map[string]any) *stack {
	t.Helper()
	s, err := render(filepath.Join(templates, file), account, region, params)
	must(t, err)
	return s
}

// The examples are valid, and everything is formatted as terraform fmt does.
func TestModulesAreValid(t *testing.T) {
	t.Parallel()
	f := newTerraform(t)
	f.run("fmt", "-check", "-diff", "-recursive")
	examples, err := filepath.Glob(filepath.Join(f.dir, "examples", "*"))
	must(t, err)
	if len(examples) != 2 {
		t.Errorf("examples: %v", examples)
	}
	root := "" // with all of them: validating takes the provider's whole schema, once
	for _, dir := range examples {
		root += fmt.Sprintf("module %q {\n  source = \"./examples/%[1]s\"\n}\n", filepath.Base(dir))
	}
	must(t, os.WriteFile(filepath.Join(f.dir, "main.tf"), []byte(root), 0o600))
	f.run("init", "-input=false", "-no-color", "-plugin-dir="+f.providers)
	f.run("validate", "-no-color")
}
