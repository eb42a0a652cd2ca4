package config_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ecr-mirror/ecr-mirror/config"
)

const referenceFile = "../docs/configuration.md"

// docs/configuration.md says what the comments of the structs say: `go test ./config -run TestReference -update` writes it.
func TestReference(t *testing.T) {
	want := reference(t)
	if *update {
		if err := os.WriteFile(referenceFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the comments say: go test ./config -run TestReference -update", referenceFile)
	}
}

// Every key has a meaning, and the full example gives it; a default that the code sets is the one that the comment names.
func TestReferenceIsComplete(t *testing.T) {
	full, err := os.ReadFile(filepath.Join("testdata", "full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r := readReference(t)
	for _, s := range r.sections {
		for _, k := range s.keys {
			if k.meaning == "" {
				t.Errorf("%s.%s has no comment", s.name, k.name)
			}
			if !regexp.MustCompile(`\b` + k.name + `:`).Match(full) {
				t.Errorf("testdata/full.yaml does not give %s of %s", k.name, s.name)
			}
		}
	}
	cfg, err := config.Parse("minimal.yaml", []byte("mirrors: [{source: {registry: registry.example.com}}]"), env(nil))
	if err != nil {
		t.Fatal(err)
	}
	checked := r.defaults(t, reflect.ValueOf(*cfg), "Mirrors")
	checked += r.defaults(t, reflect.ValueOf(cfg.Mirrors[0]), "Names", "Source", "Set")
	if checked < 15 {
		t.Errorf("%d defaults only", checked)
	}
}

// defaults compares the values of v, which nobody gave, with what the comments say, but for the fields named.
func (r *referenceOf) defaults(t *testing.T, v reflect.Value, but ...string) (checked int) {
	t.Helper()
	for i := range v.NumField() {
		f, value := v.Type().Field(i), v.Field(i)
		skip := f.Tag.Get("yaml") == "-" || value.IsZero()
		for _, name := range but {
			skip = skip || f.Name == name
		}
		if skip {
			continue
		}
		if value.Kind() == reflect.Struct {
			checked += r.defaults(t, value)
			continue
		}
		checked++
		says, want := r.byType[v.Type().Name()].key(f.Tag.Get("yaml")).standard, fmt.Sprint(value)
		first := strings.TrimRight(strings.Fields(says + " -")[0], ",;.`")
		if d, err := time.ParseDuration(strings.Trim(first, "`")); err == nil {
			first = d.String()
		}
		if strings.Trim(first, "`") != want && !strings.HasPrefix(says, "(") && !strings.Contains(says, "quarter of") && !strings.Contains(says, "smaller of") {
			t.Errorf("%s.%s: the comment says %q, the code %s", v.Type().Name(), f.Name, says, want)
		}
	}
	return checked
}

// section is one struct: a level of the file.
type section struct {
	name, about string
	at          []string // paths where it stands
	keys        []key
}

func (s *section) key(name string) (k key) {
	for _, k = range s.keys {
		if k.name == name {
			return k
		}
	}
	return k
}

type key struct{ name, kind, standard, meaning, level string }

type referenceOf struct {
	structs  map[string]*ast.TypeSpec
	abouts   map[string]string
	sections []*section
	byType   map[string]*section
}

func readReference(t *testing.T) *referenceOf {
	t.Helper()
	r := &referenceOf{structs: map[string]*ast.TypeSpec{}, abouts: map[string]string{}, byType: map[string]*section{}}
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(files, "../replicate/rules/rules.go", "../replicate/rules/rename.go") {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if os.IsNotExist(err) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, s := range g.Specs {
				spec := s.(*ast.TypeSpec)
				if _, ok := spec.Type.(*ast.StructType); ok && r.structs[spec.Name.Name] == nil {
					r.structs[spec.Name.Name], r.abouts[spec.Name.Name] = spec, flat(g.Doc.Text()+spec.Doc.Text())
				}
			}
		}
	}
	r.visit("Config", "")
	return r
}

// visit adds the section of a struct that stands at path, and those below it.
func (r *referenceOf) visit(name, path string) {
	if s := r.byType[name]; s != nil {
		s.at = append(s.at, path)
		return
	}
	s := &section{name: name, about: r.abouts[name], at: []string{path}}
	r.sections, r.byType[name] = append(r.sections, s), s
	for _, f := range r.structs[name].Type.(*ast.StructType).Fields.List {
		if f.Tag == nil {
			continue
		}
		tag, _ := strconv.Unquote(f.Tag.Value)
		yaml := reflect.StructTag(tag).Get("yaml")
		if yaml == "-" || yaml == "" {
			continue
		}
		k := key{name: yaml}
		k.kind, k.level = r.kind(f.Type)
		k.standard, k.meaning = meaning(f.Names[0].Name, yaml, flat(f.Doc.Text()+f.Comment.Text()))
		if k.meaning == "" && k.level != "" {
			_, k.meaning = meaning(k.level, yaml, r.abouts[k.level])
		}
		s.keys = append(s.keys, k)
		if k.level != "" {
			below := strings.TrimPrefix(path+"."+yaml, ".")
			if strings.HasPrefix(k.kind, "list") {
				below += "[]"
			}
			r.visit(k.level, below)
		}
	}
}

// kind is the type as a reader of YAML sees it, and the struct if it is one.
func (r *referenceOf) kind(e ast.Expr) (kind, level string) {
	switch e := e.(type) {
	case *ast.StarExpr:
		return r.kind(e.X)
	case *ast.ArrayType:
		kind, level = r.kind(e.Elt)
		return "list of " + kind, level
	case *ast.MapType:
		return "map of text", ""
	case *ast.SelectorExpr:
		if e.Sel.Name == "Duration" {
			return "duration", ""
		}
		return r.kind(e.Sel)
	case *ast.Ident:
		if r.structs[e.Name] != nil {
			return "keys", e.Name
		}
		if kind, ok := map[string]string{"string": "text", "bool": "true or false", "int": "number", "float64": "number", "Rate": "number", "Share": "number", "Price": "number", "Size": "size"}[e.Name]; ok {
			return kind, ""
		}
	}
	panic(fmt.Sprintf("reference: no words for %T", e))
}

var defaultRE = regexp.MustCompile(`[;.]? *\b[Dd]efault(?: \(0s?\))?: (.+?)(?:\.?$|\.( [A-Z` + "`" + `]))`)

// meaning splits a comment into the default and the rest, with the key in place of the field's name.
func meaning(field, yaml, text string) (standard, rest string) {
	rest = regexp.MustCompile(`^`+field+`\b`).ReplaceAllString(text, "`"+yaml+"`")
	if m := defaultRE.FindStringSubmatchIndex(rest); m != nil {
		standard, rest = rest[m[2]:m[3]], rest[:m[0]]+after(rest, m)
	} else if cut := regexp.MustCompile(`[;.]? *\b[Rr]equired\.?$`).FindStringIndex(rest); cut != nil {
		standard, rest = "required", rest[:cut[0]]
	} else if regexp.MustCompile(`; at least one\b`).MatchString(rest) {
		standard = "required"
	}
	rest = regexp.MustCompile("^`"+yaml+"` (is|are) ").ReplaceAllString(rest, "")
	if rest != "" {
		rest = strings.TrimSuffix(rest, ".") + "."
		if !regexp.MustCompile(`^[a-z]+(:|;|,| or )`).MatchString(rest) { // which begins with a value
			rest = strings.ToUpper(rest[:1]) + rest[1:]
		}
	}
	return standard, rest
}

// after is what follows a default in the middle of a comment.
func after(text string, match []int) string {
	if match[4] < 0 {
		return ""
	}
	return "." + text[match[4]:]
}

func flat(text string) string { return strings.Join(strings.Fields(text), " ") }

// reference is the document.
func reference(t *testing.T) string {
	r := readReference(t)
	var b strings.Builder
	b.WriteString("# Configuration\n\n<!-- Written by `go test ./config -run TestReference -update` from the comments in config and replicate/rules. -->\n\n" +
		flat(`One YAML file, by default`+" `ecr-mirror.yaml` "+`in the working directory. A key that is not here is refused, and all problems are
		reported at once with their lines (`+"`ecr-mirror check`"+`). Values may hold`+" `${NAME}`"+`, which becomes that environment variable's value; a
		variable that is not set is a problem, and`+" `$${` stands for `${`"+` itself. Durations are written`+" `30s`, `5m` or `24h`, sizes `500MB` or `50GiB`"+`.
		Relative paths start at the configuration file's directory. The file is read once: a change needs a restart, which loses no job and no
		complete blob.`) + "\n")
	for _, s := range r.sections {
		id := strings.ToLower(s.name)
		title := "The file"
		if s.at[0] != "" {
			title = "`" + strings.Join(everywhere(s.at), "`, `") + "`"
		}
		fmt.Fprintf(&b, "\n<a id=%q></a>\n\n## %s\n\n", id, title)
		if about := cell(s.about); about != "" && s.name != "Config" {
			fmt.Fprintf(&b, "%s\n\n", strings.TrimPrefix(regexp.MustCompile(`^`+s.name+` `).ReplaceAllStringFunc(about, func(string) string { return "`" + last(s.at[0]) + "` " }), " "))
		}
		b.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
		for _, k := range s.keys {
			kind := k.kind
			if k.level != "" {
				kind = strings.Replace(kind, "keys", "[keys](#"+strings.ToLower(k.level)+")", 1)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.name, kind, cell(k.standard), cell(k.meaning))
		}
	}
	full, err := os.ReadFile(filepath.Join("testdata", "full.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	b.WriteString("\n## Every key at work\n\nThe variables that it uses have to be set:\n\n```sh\nexport STAGE=prod MIRROR_PROFILE=writer\n```\n\n```yaml\n" + string(full) + "```\n")
	return b.String()
}

// everywhere adds to what is in a source that it is in the other registries as well.
func everywhere(paths []string) (all []string) {
	for _, path := range paths {
		all = append(all, path)
		if below, ok := strings.CutPrefix(path, "mirrors[].source."); ok {
			all = append(all, "mirrors[].destination."+below, "mirrors[].replication.registries[]."+below)
		}
	}
	return all
}

func last(path string) string { return path[strings.LastIndex(path, ".")+1:] }

// cell is text in a table.
func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }
