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
	"syscall"
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
		t.Skip("left out: Terraform's AWS provider is not there; its schema in testdata is what is checked")
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
	// Interrupted it ends its provider, too; killed it would not.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
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

// The modules make what the templates make, of which other tests show that it is right: resource by resource, in China, where
// partition and domain are not what they are elsewhere.
func TestModulesMakeWhatTemplatesMake(t *testing.T) {
	t.Parallel()
	f, w := newTerraform(t), newWorld(t)
	const home, boundary = "cn-north-1", "arn:aws-cn:iam::aws:policy/Bound"
	const key, topic = "arn:aws-cn:kms:cn-north-1:111122223333:key/12345678-1234-1234-1234-123456789012", "arn:aws-cn:sns:cn-north-1:111122223333:pages"
	w.Registry(account, home)
	c := w.Credentials(account)
	root := fmt.Sprintf("provider \"aws\" {\n  region = %q\n  access_key = %q\n  secret_key = %q\n  endpoints {\n    sts = %q\n  }\n}\n", home, c.AccessKeyID, c.SecretAccessKey, w.ControlURL())
	call := func(name, module string, arguments ...string) {
		root += fmt.Sprintf("module %q {\n  source = \"./%s\"\n  %s\n}\n", name, module, strings.Join(arguments, "\n  "))
		if module == "source" {
			root += fmt.Sprintf("output %q {\n  value = module.%[1]s.configurations\n}\n", name)
		}
	}
	six, one, from := "target_regions = "+encode(regions[:6]), `target_regions = ["cn-northwest-1"]`, `source_region = "cn-north-1"`
	prefixes, kms := `repository_prefixes = ["team/", "base-"]`, `kms_key_arn = "`+key+`"`
	call("all", "source", six, prefixes, kms, `alarm_topic_arn = "`+topic+`"`, "alarm_age = 600")
	call("pods", "roles", six, from, prefixes, kms, `permissions_boundary = "`+boundary+`"`)
	call("across", "source", six, `name_prefix = "images"`, `mirror_account = "`+other+`"`)
	call("apart", "source", six, `mirror_account = "`+other+`"`, `roles = "front-and-worker"`, "create_alarms = false")
	call("irsa", "roles", one, from, kms, `name_prefix = "images"`, `source_account = "`+other+`"`, `roles = "front-and-worker"`, `runs_on = "irsa"`,
		`oidc_providers = { cn-northwest-1 = "oidc.example/id/A" }`, `service_account = "a:b"`)
	call("ecs", "roles", one, from, `runs_on = "ecs"`)
	call("ec2", "roles", one, from, `runs_on = "ec2"`)
	got := f.plan(root)

	template := func(file string, params ...string) *stack {
		given := map[string]any{"TargetRegion": "cn-northwest-1", "SourceRegion": home}
		if file == "source.yaml" {
			given = map[string]any{"TargetRegions": strings.Join(regions[:6], ","), "Templates": "https://bucket/x"}
		}
		for _, p := range params {
			name, value, _ := strings.Cut(p, "=")
			given[name] = value
		}
		return rendered(t, file, account, home, given)
	}
	for name, want := range map[string]*stack{
		"all + pods": template("source.yaml", "RepositoryPrefixes=team/,base-", "KmsKey="+key, "AlarmTopic="+topic, "AlarmAge=600", "PermissionsBoundary="+boundary),
		"across":     template("source.yaml", "NamePrefix=images", "MirrorAccount="+other),
		"apart":      template("source.yaml", "MirrorAccount="+other, "Roles=front-and-worker").without("AWS::CloudWatch::Alarm"),
		"irsa": template("roles.yaml", "NamePrefix=images", "SourceAccount="+other, "Roles=front-and-worker", "KmsKey="+key, "RunsOn=irsa",
			"OidcProvider=oidc.example/id/A", "ServiceAccount=a:b"),
		"ecs": template("roles.yaml", "RunsOn=ecs"),
		"ec2": template("roles.yaml", "RunsOn=ec2"),
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
