package config

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const notYet = "not supported by this version"

// decoder fills structs from YAML nodes and goes on after a problem. yaml.Decoder would report types and unknown keys
// together too, but names Go types, knows no variables and keeps no lines for the checks that come after.
type decoder struct {
	getenv   func(string) (string, bool)
	lines    map[string]int // of every path that is in the file
	problems []Problem
}

// problem reports something about path, at its line or that of the nearest thing around it that is in the file.
func (d *decoder) problem(path, format string, args ...any) {
	line := 0
	for p := path; ; p = outer(p) {
		if l, ok := d.lines[p]; ok || p == "" {
			line = l
			break
		}
	}
	d.problems = append(d.problems, Problem{Line: max(line, 1), Path: path, Text: fmt.Sprintf(format, args...)})
}

// outer returns the path around path; "" around the outermost.
func outer(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// decode fills v, a pointer to a struct.
func (d *decoder) decode(n *yaml.Node, v any) {
	d.lines[""] = n.Line
	d.value("", n, reflect.ValueOf(v).Elem())
}

// given reports whether the file has path.
func (d *decoder) given(path string) bool { _, ok := d.lines[path]; return ok }

type defaulter interface{ setDefaults() }

func (d *decoder) value(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		d.problem(path, "empty: give it a value or leave it out")
		return
	}
	switch {
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(path, n, v.Elem())
	case v.Kind() == reflect.Struct:
		d.mapping(path, n, v)
	case v.Kind() == reflect.Slice:
		d.sequence(path, n, v)
	case v.Kind() == reflect.Map:
		d.texts(path, n, v)
	case n.Kind != yaml.ScalarNode:
		d.problem(path, "want a single value")
	default:
		if text, ok := d.expand(path, n.Value); ok {
			d.scalar(path, text, v)
		}
	}
}

func (d *decoder) mapping(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.problem(path, "want keys with values")
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i].Value
		at := strings.TrimPrefix(path+"."+key, ".")
		if d.given(at) {
			d.problems = append(d.problems, Problem{n.Content[i].Line, at, fmt.Sprintf("given twice, first in line %d", d.lines[at])})
			continue
		}
		d.lines[at] = n.Content[i].Line
		if f, ok := fieldOf(v, key); ok {
			d.value(at, n.Content[i+1], f)
		} else {
			d.problem(at, "unknown key")
		}
	}
}

func fieldOf(v reflect.Value, key string) (reflect.Value, bool) {
	for i := range v.NumField() {
		if tag := v.Type().Field(i).Tag.Get("yaml"); tag == key && tag != "-" {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func (d *decoder) sequence(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.SequenceNode {
		d.problem(path, "want a list")
		return
	}
	items := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		d.lines[at] = item.Line
		if def, ok := items.Index(i).Addr().Interface().(defaulter); ok {
			def.setDefaults()
		}
		d.value(at, item, items.Index(i))
	}
	v.Set(items)
}

// texts decodes a map of texts.
func (d *decoder) texts(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		d.problem(path, "want keys with values")
		return
	}
	m := make(map[string]string, len(n.Content)/2)
	for i := 0; i < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, ""
		at := path + "." + key
		if d.given(at) {
			d.problems = append(d.problems, Problem{n.Content[i].Line, at, fmt.Sprintf("given twice, first in line %d", d.lines[at])})
			continue
		}
		d.lines[at] = n.Content[i].Line
		d.value(at, n.Content[i+1], reflect.ValueOf(&value).Elem())
		m[key] = value
	}
	v.Set(reflect.ValueOf(m))
}

func (d *decoder) scalar(path, text string, v reflect.Value) {
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text // of any YAML type: an account is a text even where YAML sees a number
	case *bool:
		if text != "true" && text != "false" {
			d.problem(path, "want true or false, not %q", text)
		}
		*p = text == "true"
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			d.problem(path, "want a number, not %q", text)
			return
		}
		*p = n
	case *time.Duration:
		t, err := time.ParseDuration(text)
		if err != nil || t < 0 {
			d.problem(path, "want a duration like 30s, not %q", text)
			return
		}
		*p = t
	case encoding.TextUnmarshaler:
		if err := p.UnmarshalText([]byte(text)); err != nil {
			d.problem(path, "%v", err)
		}
	default:
		panic("config: no decoder for " + v.Type().String()) // unreachable: every type above has a case
	}
}

var variable = regexp.MustCompile(`\$?\$\{[^}]*\}?`)
var variableName = regexp.MustCompile(`^\$\{([A-Za-z_][A-Za-z0-9_]*)\}$`)

// expand replaces ${NAME}. ok is false after a problem.
func (d *decoder) expand(path, text string) (expanded string, ok bool) {
	ok = true
	expanded = variable.ReplaceAllStringFunc(text, func(s string) string {
		if strings.HasPrefix(s, "$$") {
			return s[1:]
		}
		m := variableName.FindStringSubmatch(s)
		if m == nil {
			d.problem(path, "%q is not a variable: want ${NAME}, or $${ for ${ itself", s)
			ok = false
			return s
		}
		value, set := d.getenv(m[1])
		if !set {
			d.problem(path, "environment variable %s is not set", m[1])
			ok = false
		}
		return value
	})
	return expanded, ok
}
