package awstest

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

var update = flag.Bool("update", false, "write the schemas in testdata, of the Terraform provider and the cfn-lint that are there")

// providerSchema is what Terraform's AWS provider says of the resources and data sources that the modules have.
type providerSchema struct {
	Provider  string           `json:"provider"` // with its version
	Resources map[string]block `json:"resource"`
	Data      map[string]block `json:"data"`
}

type block struct {
	Attributes map[string]string `json:"attributes,omitempty"` // required, optional, computed, or optional and computed
	Blocks     map[string]block  `json:"blocks,omitempty"`
	Least      int               `json:"least,omitempty"` // how many blocks of this kind there are at least
	Most       int               `json:"most,omitempty"`  // and at most; 0 is any number
}

const providerFile = "testdata/provider.json"

func readJSON[T any](t *testing.T, file string) (v T) {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	must(t, json.Unmarshal(text, &v))
	return v
}

func writeJSON(t *testing.T, file string, v any) {
	t.Helper()
	text, err := json.MarshalIndent(v, "", " ")
	must(t, err)
	must(t, os.WriteFile(file, append(text, '\n'), 0o644))
}

// parsed is the body of a file of Terraform.
func parsed(file string, text []byte) (*hclsyntax.Body, error) {
	f, diags := hclsyntax.ParseConfig(text, file, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, diags
	}
	return f.Body.(*hclsyntax.Body), nil
}

// of finds the schema of a resource or a data source.
func (s providerSchema) of(b *hclsyntax.Block) (block, bool) {
	kinds := map[string]map[string]block{"resource": s.Resources, "data": s.Data}[b.Type]
	found, ok := kinds[b.Labels[0]]
	return found, ok
}

// check returns what is wrong with the resources and data sources of a file.
func (s providerSchema) check(body *hclsyntax.Body) (wrong []string) {
	for _, b := range body.Blocks {
		if b.Type != "resource" && b.Type != "data" {
			continue
		}
		known, ok := s.of(b)
		if !ok {
			wrong = append(wrong, fmt.Sprintf("%v: no %s %s", b.TypeRange, b.Type, b.Labels[0]))
			continue
		}
		// What every one has ("Meta-arguments" in Terraform's language).
		own := *b.Body
		own.Attributes = maps.Clone(own.Attributes)
		for _, name := range []string{"count", "for_each", "provider", "depends_on"} {
			delete(own.Attributes, name)
		}
		own.Blocks = slices.DeleteFunc(slices.Clone(own.Blocks), func(b *hclsyntax.Block) bool { return b.Type == "lifecycle" })
		wrong = append(wrong, known.check(b.Labels[0], &own)...)
	}
	return wrong
}

func (s block) check(path string, body *hclsyntax.Body) (wrong []string) {
	for name, a := range body.Attributes {
		switch s.Attributes[name] {
		case "":
			wrong = append(wrong, fmt.Sprintf("%v: %s has no %s", a.NameRange, path, name))
		case "computed":
			wrong = append(wrong, fmt.Sprintf("%v: %s.%s cannot be set", a.NameRange, path, name))
		}
	}
	for name, kind := range s.Attributes {
		if kind == "required" && body.Attributes[name] == nil {
			wrong = append(wrong, fmt.Sprintf("%v: %s needs %s", body.MissingItemRange(), path, name))
		}
	}
	there, dynamic := map[string]int{}, map[string]bool{}
	for _, b := range body.Blocks {
		name, content := b.Type, b.Body
		if name == "dynamic" {
			name = b.Labels[0]
			dynamic[name] = true
			for _, inner := range b.Body.Blocks {
				content = inner.Body // dynamic has one block, content
			}
		} else {
			there[name]++
		}
		if nested, ok := s.Blocks[name]; ok {
			wrong = append(wrong, nested.check(path+"."+name, content)...)
		} else {
			wrong = append(wrong, fmt.Sprintf("%v: %s has no block %s", b.TypeRange, path, name))
		}
	}
	for name, nested := range s.Blocks {
		if n := there[name]; n < nested.Least && !dynamic[name] || nested.Most > 0 && n > nested.Most {
			wrong = append(wrong, fmt.Sprintf("%v: %s has %d of the block %s", body.MissingItemRange(), path, n, name))
		}
	}
	return wrong
}

// The modules and the examples are formatted as terraform fmt does, and set what the AWS provider takes. Nothing is kept of the
// schema that they do not use.
func TestModulesFollowProviderSchema(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob(filepath.Join(modules, "*", "*.tf"))
	must(t, err)
	examples, err := filepath.Glob(filepath.Join(modules, "examples", "*", "*.tf"))
	must(t, err)
	if len(files) < 8 || len(examples) < 2 {
		t.Fatalf("%v and %v are all files", files, examples)
	}
	used := map[string]map[string]bool{"resource": {}, "data": {}}
	bodies := map[string]*hclsyntax.Body{}
	for _, file := range append(files, examples...) {
		text, err := os.ReadFile(file)
		must(t, err)
		if string(hclwrite.Format(text)) != string(text) {
			t.Errorf("%s: not formatted (terraform fmt)", file)
		}
		bodies[file], err = parsed(file, text)
		must(t, err)
		for _, b := range bodies[file].Blocks {
			if b.Type == "resource" || b.Type == "data" {
				used[b.Type][b.Labels[0]] = true
			}
		}
	}
	if *update {
		writeJSON(t, providerFile, askProvider(t, used))
	}
	s := readJSON[providerSchema](t, providerFile)
	for _, body := range bodies {
		for _, wrong := range s.check(body) {
			t.Error(wrong)
		}
	}
	for kind, kept := range map[string]map[string]block{"resource": s.Resources, "data": s.Data} {
		for name := range kept {
			if !used[kind][name] {
				t.Errorf("%s: %s %s is not used", providerFile, kind, name)
			}
		}
	}
}

func TestProviderSchemaRefuses(t *testing.T) {
	t.Parallel()
	s := readJSON[providerSchema](t, providerFile)
	const target = "resource \"aws_cloudwatch_event_target\" \"a\" {\n  rule = \"r\"\n  arn = \"a\"\n"
	for text, want := range map[string]string{
		target + "}": "",
		target + "  count = 1\n  lifecycle {\n    ignore_changes = all\n  }\n}":                                         "",
		target + "  dead_letter_config {\n    arn = \"b\"\n  }\n}":                                                      "",
		target + "  target = \"b\"\n}":                                                                                  "aws_cloudwatch_event_target has no target",
		target + "  dead_letter_config {\n    queue = \"b\"\n  }\n}":                                                    "aws_cloudwatch_event_target.dead_letter_config has no queue",
		target + "  dead_letter_config {\n  }\n  dead_letter_config {\n  }\n}":                                          "aws_cloudwatch_event_target has 2 of the block dead_letter_config",
		target + "  dead_letters {\n  }\n}":                                                                             "aws_cloudwatch_event_target has no block dead_letters",
		target + "  dynamic \"input_transformer\" {\n    for_each = []\n    content {\n    }\n  }\n}":                   "aws_cloudwatch_event_target.input_transformer needs input_template",
		"resource \"aws_cloudwatch_event_target\" \"a\" {\n  rule = \"r\"\n}":                                           "aws_cloudwatch_event_target needs arn",
		"resource \"aws_sqs_queue\" \"a\" {\n  url = \"https://a\"\n}":                                                  "aws_sqs_queue.url cannot be set",
		"resource \"aws_sqs_queues\" \"a\" {\n}":                                                                        "no resource aws_sqs_queues",
		"data \"aws_sqs_queue\" \"a\" {\n}":                                                                             "no data aws_sqs_queue",
		"data \"aws_iam_policy_document\" \"a\" {\n  statement {\n    condition {\n      test = \"a\"\n    }\n  }\n}\n": "aws_iam_policy_document.statement.condition needs v",
	} {
		body, err := parsed("a.tf", []byte(text))
		must(t, err)
		wrong := strings.Join(s.check(body), "\n")
		if want == "" && wrong != "" || !strings.Contains(wrong, want) {
			t.Errorf("%s\n%s\nand not: %s", text, wrong, want)
		}
	}
}

// askProvider has Terraform print the schema of its AWS provider.
func askProvider(t *testing.T, used map[string]map[string]bool) providerSchema {
	t.Helper()
	f := newTerraform(t)
	versions, err := os.ReadFile(filepath.Join(f.dir, "source", "versions.tf"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(f.dir, "main.tf"), versions, 0o600))
	f.run("init", "-input=false", "-no-color", "-plugin-dir="+f.providers)
	const name = "registry.terraform.io/hashicorp/aws"
	var version struct {
		Selections map[string]string `json:"provider_selections"`
	}
	must(t, json.Unmarshal(f.run("version", "-json"), &version))
	type schemas map[string]struct{ Block providerBlock }
	var all struct {
		Providers map[string]struct {
			Resources schemas `json:"resource_schemas"`
			Data      schemas `json:"data_source_schemas"`
		} `json:"provider_schemas"`
	}
	must(t, json.Unmarshal(f.run("providers", "schema", "-json"), &all))
	kept := func(all schemas, used map[string]bool) map[string]block {
		m := map[string]block{}
		for name := range used {
			m[name] = all[name].Block.trimmed()
		}
		return m
	}
	p := all.Providers[name]
	return providerSchema{name + " " + version.Selections[name], kept(p.Resources, used["resource"]), kept(p.Data, used["data"])}
}

// providerBlock is a block as `terraform providers schema -json` has it.
type providerBlock struct {
	Attributes map[string]struct{ Required, Optional, Computed bool }
	Blocks     map[string]struct {
		Block providerBlock
		Mode  string `json:"nesting_mode"`
		Least int    `json:"min_items"`
		Most  int    `json:"max_items"`
	} `json:"block_types"`
}

func (b providerBlock) trimmed() block {
	s := block{Attributes: map[string]string{}, Blocks: map[string]block{}}
	for name, a := range b.Attributes {
		var kinds []string
		for kind, is := range map[string]bool{"required": a.Required, "optional": a.Optional, "computed": a.Computed} {
			if is {
				kinds = append(kinds, kind)
			}
		}
		s.Attributes[name] = strings.Join(slices.Sorted(slices.Values(kinds)), " ")
	}
	for name, n := range b.Blocks {
		nested := n.Block.trimmed()
		if nested.Least, nested.Most = n.Least, n.Most; n.Mode == "single" {
			nested.Most = 1
		}
		s.Blocks[name] = nested
	}
	return s
}
