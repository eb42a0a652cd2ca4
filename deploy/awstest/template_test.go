package awstest

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// stack is a template of CloudFormation with its parameters. What it renders to is what AWS would make: functions evaluated,
// loops unrolled, nested stacks rendered as well. A function, parameter or reference that it does not know is an error.
//
// Source: CloudFormation Template Reference, "Intrinsic functions", "Fn::ForEach". There &{Name}, which strips what is not
// alphanumeric, works in the key of a loop alone (cfn-language-discussion#162), and here as well.
type stack struct {
	file            string
	account, region string
	params          map[string]any
	template        map[string]any
	resources       []resource // in the order of their names, those of nested stacks behind
	own             int        // how many of them are of this stack itself
	outputs         map[string]string
}

type resource struct {
	id, kind string
	props    map[string]any
}

// noValue is AWS::NoValue: whatever has it is not there.
type noValue struct{}

func render(file, account, region string, params map[string]any) (_ *stack, err error) {
	s := &stack{file: file, account: account, region: region, params: map[string]any{}, outputs: map[string]string{}}
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(renderError)
			if !ok {
				panic(r)
			}
			err = fmt.Errorf("%s: %w", filepath.Base(file), error(e))
		}
	}()
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	s.template = plain(doc.Content[0]).(map[string]any)
	s.parameters(params)
	for _, key := range []string{"Resources", "Outputs"} {
		s.template[key] = s.unroll(section(s.template, key))
	}
	for _, id := range slices.Sorted(maps.Keys(section(s.template, "Resources"))) {
		if r := section(s.template, "Resources")[id].(map[string]any); r["Condition"] == nil || s.condition(r["Condition"].(string)) {
			props, _ := s.value(r["Properties"]).(map[string]any)
			s.resources = append(s.resources, resource{id, r["Type"].(string), props})
		}
	}
	s.own = len(s.resources)
	for _, r := range s.resources[:s.own] {
		if r.kind == "AWS::CloudFormation::Stack" {
			nested, err := render(filepath.Join(filepath.Dir(file), path.Base(r.props["TemplateURL"].(string))), account, region, section(r.props, "Parameters"))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", r.id, err)
			}
			s.resources = append(s.resources, nested.resources...)
			for name, value := range nested.outputs {
				s.outputs[r.id+"."+name] = value
			}
		}
	}
	for name, o := range section(s.template, "Outputs") {
		if o := o.(map[string]any); o["Condition"] == nil || s.condition(o["Condition"].(string)) {
			s.outputs[name] = s.value(o["Value"]).(string)
		}
	}
	return s, nil
}

type renderError error

func fail(format string, args ...any) { panic(renderError(fmt.Errorf(format, args...))) }

// plain turns a document into maps, lists, strings, numbers and booleans, and !Name into {"Fn::Name": …}.
func plain(n *yaml.Node) any {
	var v any
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			m[n.Content[i].Value] = plain(n.Content[i+1])
		}
		v = m
	case yaml.SequenceNode:
		l := []any{}
		for _, c := range n.Content {
			l = append(l, plain(c))
		}
		v = l
	default:
		v = n.Value
		if !strings.HasPrefix(n.Tag, "!") || strings.HasPrefix(n.Tag, "!!") {
			if err := n.Decode(&v); err != nil {
				fail("line %d: %w", n.Line, err)
			}
		}
	}
	switch name := strings.TrimPrefix(n.Tag, "!"); {
	case strings.HasPrefix(n.Tag, "!!"):
		return v
	case name == "Ref" || name == "Condition":
		return map[string]any{name: v}
	case name == "GetAtt":
		id, attribute, _ := strings.Cut(v.(string), ".")
		return map[string]any{"Fn::GetAtt": []any{id, attribute}}
	default:
		return map[string]any{"Fn::" + name: v}
	}
}

func section(m map[string]any, key string) map[string]any {
	s, _ := m[key].(map[string]any)
	return s
}

// parameters takes what was given and the defaults of the rest, and checks both.
func (s *stack) parameters(given map[string]any) {
	declared := section(s.template, "Parameters")
	for name := range given {
		if declared[name] == nil {
			fail("no parameter %s", name)
		}
	}
	for name, d := range declared {
		d := d.(map[string]any)
		value, ok := given[name]
		if !ok {
			value, ok = d["Default"]
		}
		if !ok {
			fail("parameter %s is needed", name)
		}
		text := fmt.Sprint(value)
		all := []string{text}
		if d["Type"] == "CommaDelimitedList" {
			all = strings.Split(text, ",")
		}
		for _, one := range all {
			if pattern, ok := d["AllowedPattern"].(string); ok && !regexp.MustCompile(`^(?:`+pattern+`)$`).MatchString(one) {
				fail("parameter %s: %q does not match %s", name, one, pattern)
			}
			if allowed, ok := d["AllowedValues"].([]any); ok && !slices.Contains(allowed, any(one)) {
				fail("parameter %s: %q is none of %v", name, one, allowed)
			}
			if least, ok := d["MinValue"].(int); ok {
				if n, err := strconv.Atoi(one); err != nil || n < least {
					fail("parameter %s: %q is less than %d", name, one, least)
				}
			}
		}
		switch d["Type"] {
		case "CommaDelimitedList":
			s.params[name] = list(all)
		case "Number":
			n, err := strconv.Atoi(text)
			if err != nil {
				fail("parameter %s: %w", name, err)
			}
			s.params[name] = n
		default:
			s.params[name] = text
		}
	}
	for name, rule := range section(s.template, "Rules") {
		rule := rule.(map[string]any)
		if when := rule["RuleCondition"]; when != nil && !s.truth(when) {
			continue
		}
		for _, a := range rule["Assertions"].([]any) {
			if a := a.(map[string]any); !s.truth(a["Assert"]) {
				fail("rule %s: %v", name, a["AssertDescription"])
			}
		}
	}
}

func list(all []string) []any {
	l := []any{}
	for _, one := range all {
		l = append(l, one)
	}
	return l
}

var stripped = regexp.MustCompile(`[^0-9A-Za-z]+`)

// unroll does the loops of a section.
func (s *stack) unroll(in map[string]any) map[string]any {
	out := map[string]any{}
	for key, v := range in {
		if !strings.HasPrefix(key, "Fn::ForEach::") {
			out[key] = v
			continue
		}
		loop := v.([]any)
		if s.template["Transform"] != "AWS::LanguageExtensions" {
			fail("%s: a loop needs the transform", key)
		}
		name := loop[0].(string)
		for _, item := range s.value(loop[1]).([]any) {
			for id, body := range loop[2].(map[string]any) {
				id = strings.NewReplacer("&{"+name+"}", stripped.ReplaceAllString(item.(string), ""), "${"+name+"}", item.(string)).Replace(id)
				if stripped.MatchString(id) || out[id] != nil {
					fail("%s: %s is no name of its own", key, id)
				}
				out[id] = bound(body, name, item.(string))
			}
		}
	}
	return out
}

// bound is v with the variable of a loop in its place.
func bound(v any, name, item string) any {
	switch v := v.(type) {
	case string:
		if strings.Contains(v, "&{") {
			fail("%s: works in the key of a loop alone", v)
		}
		return strings.ReplaceAll(v, "${"+name+"}", item)
	case []any:
		l := []any{}
		for _, one := range v {
			l = append(l, bound(one, name, item))
		}
		return l
	case map[string]any:
		if v["Ref"] == name {
			return item
		}
		m := map[string]any{}
		for key, one := range v {
			m[key] = bound(one, name, item)
		}
		return m
	}
	return v
}
