package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// answers are what commands print with --output json, or always: to a command that has the flag belongs a line here.
func answers() map[string]any {
	return map[string]any{
		"check": checked{}, "client-config": clientAnswer{}, "dead-letters drop": admin.DeadLetter{}, "dead-letters list": admin.DeadLetter{},
		"dead-letters retry": admin.DeadLetter{}, "dead-letters show": admin.DeadLetter{}, "doctor": diagnosis{}, "emulator": emulated{}, "fsck": fsckAnswer{},
		"iam-policy": grantsAnswer{}, "plan": planLine{}, "ready": statusAnswer{}, "status": statusAnswer{}, "sync": planLine{}, "version": build{},
	}
}

// field is one of an answer, by its path: images[].state.
type field struct {
	path, kind, about string
	optional          bool
}

// describer finds what the source says of answers.
type describer struct {
	t        *testing.T
	comments map[string]map[string]string // of the fields, as Type.Field, by directory
}

func newDescriber(t *testing.T) *describer {
	return &describer{t, make(map[string]map[string]string)}
}

// shape returns the fields of an answer's type, with the comments of the source.
func (d *describer) shape(of reflect.Type, prefix string) (all []field) {
	d.t.Helper()
	about := d.about(of)
	for i := range of.NumField() {
		f := of.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous {
			all = append(all, d.shape(f.Type, prefix)...)
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			d.t.Errorf("%v.%s has no name in JSON", of, f.Name)
		}
		one := field{path: prefix + name, optional: strings.Contains(options, "omit"), about: about[of.Name()+"."+f.Name]}
		kind := f.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		one.kind = kindOf(kind)
		if kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct {
			one.path, one.kind, kind = one.path+"[]", "object", kind.Elem()
		}
		all = append(all, one)
		if one.kind == "object" {
			all = append(all, d.shape(kind, one.path+".")...)
		}
	}
	return all
}

func kindOf(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[time.Time]():
		return "time"
	case reflect.TypeFor[iam.Document]():
		return "policy"
	case reflect.TypeFor[[]byte]():
		return "base64"
	}
	switch t.Kind() {
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64, reflect.Float64:
		return "number"
	case reflect.Slice:
		return kindOf(t.Elem()) + "s"
	case reflect.Map:
		return kindOf(t.Elem()) + "s by " + kindOf(t.Key())
	}
	return "object"
}

// about returns the comments of the directory where a type is.
func (d *describer) about(of reflect.Type) map[string]string {
	d.t.Helper()
	dir := strings.TrimPrefix(of.PkgPath()+"/", module)
	if of.PkgPath() == "main" || strings.HasSuffix(of.PkgPath(), "/cmd/ecr-mirror") {
		dir = "cmd/ecr-mirror"
	}
	if known, ok := d.comments[dir]; ok {
		return known
	}
	files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
	must(d.t, err)
	about := make(map[string]string)
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		must(d.t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range s.Fields.List {
					for _, n := range f.Names {
						about[spec.Name.Name+"."+n.Name] = strings.Join(strings.Fields(f.Doc.Text()+" "+f.Comment.Text()), " ")
					}
				}
			}
			return false
		})
	}
	if len(about) == 0 {
		d.t.Errorf("no source of %v in %s", of, dir)
	}
	d.comments[dir] = about
	return about
}

// commands calls f for every command that a user can run, in the order of the reference.
func commands(root *cobra.Command, f func(*cobra.Command)) {
	for _, cmd := range root.Commands() {
		if cmd.HasSubCommands() {
			commands(cmd, f)
		} else if cmd.IsAvailableCommand() {
			f(cmd)
		}
	}
}

// nameOf is the command as one types it after ecr-mirror.
func nameOf(cmd *cobra.Command) string {
	return strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ")
}

// docs/commands.md is what the commands say. After a change: go test ./cmd/ecr-mirror -run TestCommandReference -update
func TestCommandReference(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "commands.md")
	got := manual(t)
	if *update {
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s is not what the commands say: go test ./cmd/ecr-mirror -run TestCommandReference -update (-want +got):\n%s", file, d)
	}
}

// manualPage is docs/commands.md as far as it is written.
type manualPage struct {
	*describer
	text      strings.Builder
	described map[reflect.Type]string // answers, by the first command that gives them
}

func (m *manualPage) printf(format string, args ...any) { fmt.Fprintf(&m.text, format+"\n", args...) }

func manual(t *testing.T) string {
	root := command()
	m := &manualPage{describer: newDescriber(t), described: make(map[reflect.Type]string)}
	p := m.printf
	p("# Commands\n\n<!-- Made from the commands themselves: go test ./cmd/ecr-mirror -run TestCommandReference -update -->\n")
	p("%s\n\n| | |\n|---|---|", prose(root.Long))
	for _, g := range root.Groups() {
		for _, cmd := range root.Commands() {
			if cmd.GroupID == g.ID && cmd.IsAvailableCommand() {
				p("| [`%s`](#%s) | %s |", cmd.Name(), cmd.Name(), cmd.Short)
			}
		}
	}
	p("\nExamples below are run by `TestExamples`. [Exit codes](#exit-codes) and what [answers](#output) look like are the same for all.\n")
	p("## Exit codes\n\n| code | | |\n|---|---|---|")
	for _, c := range cli.Codes() {
		p("| %d | %s | %s |", c.Code, c.Name, c.Meaning)
	}
	for _, topic := range []string{"output", "environment"} {
		cmd, _, err := root.Find([]string{topic})
		must(t, err)
		p("\n## %s\n\n%s", strings.ToUpper(topic[:1])+topic[1:], prose(cmd.Long))
	}
	for _, cmd := range root.Commands() {
		if cmd.IsAvailableCommand() {
			m.describe(cmd, "##")
		}
	}
	return strings.TrimRight(m.text.String(), "\n") + "\n"
}

func (m *manualPage) describe(cmd *cobra.Command, heading string) {
	p := m.printf
	p("\n%s %s\n\n%s.\n", heading, nameOf(cmd), strings.TrimSuffix(cmd.Short, "."))
	if cobras := cmd.Name() == "completion" || cmd.HasParent() && cmd.Parent().Name() == "completion"; !cobras {
		p("%s\n", prose(cmd.Long))
	}
	if !cmd.HasSubCommands() {
		p("    %s", cmd.UseLine())
	}
	if flags := cmd.NonInheritedFlags(); flags.HasAvailableFlags() {
		p("\n| flag | | |\n|---|---|---|")
		flags.VisitAll(func(f *pflag.Flag) {
			kind, usage := pflag.UnquoteUsage(f)
			name := "--" + f.Name
			if f.Shorthand != "" {
				name = "-" + f.Shorthand + ", " + name
			}
			given := ""
			if kind != "" && f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "0" && f.DefValue != "0s" {
				given = "default " + f.DefValue
			}
			if f.Name != "help" && !f.Hidden {
				p("| `%s` | %s | %s |", strings.TrimSpace(name+" "+kind), strings.ReplaceAll(usage, "|", `\|`), given)
			}
		})
	}
	if cmd.Example != "" {
		p("\nExamples:\n\n    %s", strings.ReplaceAll(cmd.Example, "\n  ", "\n    ")[2:])
	}
	answer, ok := answers()[nameOf(cmd)]
	if first := m.described[reflect.TypeOf(answer)]; ok && first != "" {
		p("\nAnswer for machines: that of [%s](#%s).", first, strings.ReplaceAll(first, " ", "-"))
	} else if ok {
		m.described[reflect.TypeOf(answer)] = nameOf(cmd)
		p("\nAnswer for machines:\n\n| field | | |\n|---|---|---|")
		for _, f := range m.shape(reflect.TypeOf(answer), "") {
			if f.optional {
				f.kind += ", optional"
			}
			p("| `%s` | %s | %s |", f.path, f.kind, strings.ReplaceAll(f.about, "|", `\|`))
		}
	}
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			m.describe(sub, heading+"#")
		}
	}
}

var optionInText = regexp.MustCompile(`--[a-z][a-z-]*`)

// prose is a Long in Markdown: its lists are code.
func prose(long string) string {
	var out []string
	listed := false
	for line := range strings.SplitSeq(long, "\n") {
		if list := strings.HasPrefix(line, "  "); list {
			if !listed && len(out) > 0 && out[len(out)-1] != "" {
				out = append(out, "")
			}
			line, listed = "  "+line, true
		} else {
			if listed && line != "" {
				out = append(out, "")
			}
			listed = false
			line = optionInText.ReplaceAllString(strings.ReplaceAll(line, "<", "&lt;"), "`$0`")
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

// Every command has what a user looks for, says it in the same words as the others, and fits a terminal.
func TestCommandsAreCoherent(t *testing.T) {
	said := make(map[string]map[string]bool) // of a flag that several commands have
	known := answers()
	commands(command(), func(cmd *cobra.Command) {
		name := nameOf(cmd)
		cobras := name == "help" || name == "completion powershell"
		if n := strings.Count(cmd.Example, "ecr-mirror "); !cobras && (n < 1 || n > 5) {
			t.Errorf("%s has %d examples, want 1 to 5", name, n)
		}
		if cmd.Short == "" || len(cmd.Short) > cli.Width-16 || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short %q", name, cmd.Short)
		}
		if !cobras && len(cmd.Long) < len(cmd.Short) {
			t.Errorf("%s: Long %q", name, cmd.Long)
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || f.Usage != strings.TrimSuffix(f.Usage, ".") {
				t.Errorf("%s --%s: %q", name, f.Name, f.Usage)
			}
			if slices.Contains([]string{"output", "config", "admin", "role", "event-rule", "force"}, f.Name) && name != "client-config" && name != "emulator" {
				if said[f.Name] == nil {
					said[f.Name] = make(map[string]bool)
				}
				said[f.Name][f.Shorthand+f.Usage+f.DefValue] = true
			}
		})
		_, answered := known[name]
		if hasOutput := cmd.Flags().Lookup("output") != nil; hasOutput && !answered {
			t.Errorf("%s has --output: add what it answers to the table in reference_test.go", name)
		}
		delete(known, name)
	})
	for name, texts := range said {
		if len(texts) != 1 {
			t.Errorf("--%s means different things: %q", name, slices.Collect(maps.Keys(texts)))
		}
	}
	for name := range known {
		t.Errorf("there is no command %s that answers: take it out of the table in reference_test.go", name)
	}
}
