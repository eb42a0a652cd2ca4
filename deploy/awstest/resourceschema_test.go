package awstest

import (
	"encoding/json"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// resourceSchemas is AWS's schemas of the resource types that the templates have, trimmed to what JSON Schema knows.
type resourceSchemas struct {
	Source  string                    `json:"source"` // with its version
	Schemas map[string]map[string]any `json:"schemas"`
}

const resourceFile = "testdata/resources.json"

// compiled is the validators of the resource types.
func (s resourceSchemas) compiled(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	c, all := jsonschema.NewCompiler(), map[string]*jsonschema.Schema{}
	for kind, schema := range s.Schemas {
		url := "https://schemas.example/" + strings.ReplaceAll(kind, "::", "-")
		must(t, c.AddResource(url, schema))
		var err error
		all[kind], err = c.Compile(url)
		must(t, err)
	}
	return all
}

// validate holds the properties of a resource to the schema of its type.
func validate(schemas map[string]*jsonschema.Schema, r resource) error {
	schema := schemas[r.kind]
	if schema == nil {
		return fmt.Errorf("%s: no schema of %s", r.id, r.kind)
	}
	props, err := jsonschema.UnmarshalJSON(strings.NewReader(encode(r.props)))
	if err != nil {
		return fmt.Errorf("%s: %w", r.id, err)
	}
	if err := schema.Validate(props); err != nil {
		return fmt.Errorf("%s, a %s: %w", r.id, r.kind, err)
	}
	return nil
}

// Every resource of every template is one that AWS's schema of its type takes, whatever the conditions. Nothing is kept of the
// schemas that they do not use.
func TestTemplatesFollowResourceSchemas(t *testing.T) {
	t.Parallel()
	const key, bound = "arn:aws:kms:us-west-2:111122223333:key/12345678-1234-1234-1234-123456789012", "arn:aws:iam::aws:policy/Bound"
	stacks := []*stack{source(t, 2, nil),
		source(t, 6, map[string]any{"RepositoryPrefixes": "team/,base-", "KmsKey": key, "AlarmTopic": "arn:aws:sns:us-west-2:111122223333:pages", "AlarmAge": "600", "PermissionsBoundary": bound}),
		source(t, 2, map[string]any{"MirrorAccount": other}),
		source(t, 2, map[string]any{"MirrorAccount": other, "Roles": "front-and-worker"})}
	for _, on := range []string{"pod-identity", "irsa", "ecs", "ec2"} {
		for _, roles := range []string{"one", "front-and-worker"} {
			stacks = append(stacks, rendered(t, "roles.yaml", account, sourceRegion, map[string]any{"TargetRegion": "eu-central-1", "SourceRegion": sourceRegion,
				"RunsOn": on, "Roles": roles, "OidcProvider": "oidc.example/id/A", "KmsKey": key, "PermissionsBoundary": bound}))
		}
	}
	used := map[string]bool{}
	for _, s := range stacks {
		for _, r := range s.resources {
			used[r.kind] = true
		}
	}
	if *update {
		writeJSON(t, resourceFile, askLint(t, slices.Sorted(maps.Keys(used))))
	}
	kept := readJSON[resourceSchemas](t, resourceFile)
	schemas := kept.compiled(t)
	for _, s := range stacks {
		for _, r := range s.resources {
			if err := validate(schemas, r); err != nil {
				t.Error(err)
			}
		}
	}
	for kind := range schemas {
		if !used[kind] {
			t.Errorf("%s: %s is not used", resourceFile, kind)
		}
	}
}

func TestResourceSchemasRefuse(t *testing.T) {
	t.Parallel()
	schemas := readJSON[resourceSchemas](t, resourceFile).compiled(t)
	for _, tc := range []struct{ kind, props, want string }{
		{"AWS::SQS::Queue", `{"QueueName": "a"}`, ""},
		{"AWS::SQS::Queue", `{"Name": "a"}`, "'Name' not allowed"},
		{"AWS::SQS::Queue", `{"Arn": "a"}`, "'Arn' not allowed"}, // AWS's to say
		{"AWS::SQS::Queue", `{"VisibilityTimeout": "60s"}`, "/VisibilityTimeout"},
		{"AWS::SQS::Queue", `{"MessageRetentionPeriod": 1209601}`, "/MessageRetentionPeriod"},
		{"AWS::SQS::QueuePolicy", `{"PolicyDocument": {}}`, "'Queues'"},
		{"AWS::Events::Rule", `{"Name": "a b"}`, "/Name"},
		{"AWS::Events::Rule", `{"Targets": [{"Arn": "arn:aws:sqs:a"}]}`, "'Id'"},
		{"AWS::IAM::Role", `{"AssumeRolePolicyDocument": {}, "Description": "\u2014"}`, "/Description"},
		{"AWS::CloudWatch::Alarm", `{"ComparisonOperator": "GreaterThan"}`, "/ComparisonOperator"},
		{"AWS::SNS::Topic", `{}`, "no schema"},
	} {
		var props map[string]any
		must(t, json.Unmarshal([]byte(tc.props), &props))
		err := validate(schemas, resource{"a", tc.kind, props})
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %s: %v, and not: %s", tc.kind, tc.props, err, tc.want)
		}
	}
}

// askLint has cfn-lint's Python print the schemas that it has from AWS, those of us-east-1.
func askLint(t *testing.T, kinds []string) resourceSchemas {
	t.Helper()
	const script = `import json, sys
from cfnlint.schema.manager import ProviderSchemaManager
from cfnlint.version import __version__
m = ProviderSchemaManager()
print(json.dumps({"source": "resource provider schemas of us-east-1 in cfn-lint " + __version__,
    "schemas": {k: m.get_resource_schema("us-east-1", k).schema for k in sys.argv[1:]}}))`
	out, err := exec.CommandContext(t.Context(), "python3", append([]string{"-c", script}, kinds...)...).Output()
	must(t, err)
	var s resourceSchemas
	must(t, json.Unmarshal(out, &s))
	for _, schema := range s.Schemas {
		trim(schema)
		props := section(schema, "properties")
		readOnly, _ := schema["readOnlyProperties"].([]any)
		for _, path := range readOnly {
			delete(props, strings.TrimPrefix(path.(string), "/properties/"))
		}
		maps.DeleteFunc(schema, func(key string, _ any) bool {
			return !slices.Contains([]string{"additionalProperties", "definitions", "properties", "required"}, key)
		})
	}
	return s
}

var escape = regexp.MustCompile(`\\u([0-9A-F]{4})`)

// trim takes away what says nothing to JSON Schema, writes patterns as Go does, and leaves out those that Go cannot have.
func trim(v any) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			trim(one)
		}
	case map[string]any:
		for _, key := range []string{"description", "insertionOrder", "maxUniqueItems", "default"} {
			if _, named := v[key].(map[string]any); !named {
				delete(v, key)
			}
		}
		for _, key := range []string{"format", "pattern"} {
			text, ok := v[key].(string)
			if !ok {
				continue
			}
			delete(v, key)
			if text = escape.ReplaceAllString(text, `\x{$1}`); key == "pattern" {
				if _, err := regexp.Compile(text); err == nil {
					v[key] = text
				}
			}
		}
		for _, one := range v {
			trim(one)
		}
	}
}
