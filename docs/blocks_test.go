package docs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"go.yaml.in/yaml/v3"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// fileRE finds the name of the file that a block is: "# NAME" in its first line, with a word after it or none.
var fileRE = regexp.MustCompile(`^# *((?:~?/)?[\w./-]+\.(?:ya?ml|toml|conf|service|tf|tfvars|env))(?:[:, ].*)?$`)

// commandRE finds what looks like a command in a block that is said to be output.
var commandRE = regexp.MustCompile(`(?m)^(\$ |# |(sudo |bin/)?(ecr-mirror|docker|kubectl|helm|aws|make|terraform|systemctl|curl) [a-z-])`)

// run does what b asks of a reader. Every language has to say what that is.
func (w *world) run(d document, b block) error {
	if b.note != "" {
		return fmt.Errorf("a note that means nothing: %s", b.note)
	}
	switch b.language {
	case "sh":
		return w.shell(b.text)
	case "text":
		if commandRE.MatchString(b.text) {
			return errors.New("commands in a block of text, where nobody runs them")
		}
		return nil
	case "yaml", "json", "toml", "ini", "hcl":
	default:
		return fmt.Errorf("a block of %q, of which nobody says what to do with it", b.language)
	}
	first, _, _ := strings.Cut(b.text, "\n")
	m := fileRE.FindStringSubmatch(first)
	if m != nil {
		if err := w.save(m[1], b); err != nil {
			return err
		}
	}
	switch b.language {
	case "yaml":
		return w.yaml(d, b, m != nil)
	case "json":
		return checkJSON(b.text)
	case "toml":
		var v any
		return toml.Unmarshal([]byte(b.text), &v)
	}
	if m == nil {
		return fmt.Errorf("%s that has no file name in its first line, so that no command can use it", b.language)
	}
	return used(d, m[1])
}

// save writes the block as the file that it says it is.
func (w *world) save(name string, b block) error {
	name = strings.Replace(name, "~", "/root", 1)
	if !filepath.IsAbs(name) {
		name = filepath.Join(w.work(), name)
	}
	return errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(b.text), 0o644))
}

// used is an error unless a command of the document names the file.
func used(d document, name string) error {
	for _, b := range d.blocks {
		if b.language == "sh" && strings.Contains(b.text, filepath.Base(name)) {
			return nil
		}
	}
	return fmt.Errorf("%s: no command uses it", name)
}

// Keys of the configuration: of the file, and of one of its mirrors.
var fileKeys, mirrorKeys = keysOf(config.Config{}), keysOf(config.Mirror{})

func keysOf(v any) (keys []string) {
	for i := range reflect.TypeOf(v).NumField() {
		keys = append(keys, reflect.TypeOf(v).Field(i).Tag.Get("yaml"))
	}
	return keys
}

// yaml checks a configuration, whole or a part of one, by `ecr-mirror check`. What is something else is a file that a command uses.
func (w *world) yaml(d document, b block, file bool) error {
	var v any
	if err := yaml.Unmarshal([]byte(b.text), &v); err != nil {
		return err
	}
	if whole, ok := v.(map[string]any); ok && whole["mirrors"] != nil {
		return w.check([]byte(b.text))
	}
	base := map[string]any{}
	text, err := os.ReadFile(filepath.Join("testdata", "work", "ecr-mirror.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &base)
	}
	if err != nil {
		return err
	}
	mirror := base["mirrors"].([]any)[0].(map[string]any)
	switch v := v.(type) {
	case []any: // mirrors
		base["mirrors"] = v
	case map[string]any:
		switch {
		case within(v, mirrorKeys) && !within(v, fileKeys):
			merge(mirror, v)
		case within(v, fileKeys):
			for key, value := range v {
				base[key] = value
			}
		default:
			if !file {
				return errors.New("neither a configuration, nor a part of one, nor a file with its name in the first line")
			}
			first, _, _ := strings.Cut(b.text, "\n")
			return used(d, fileRE.FindStringSubmatch(first)[1])
		}
	default:
		return errors.New("neither keys nor a list")
	}
	out, err := yaml.Marshal(base)
	if err != nil {
		return err
	}
	return w.check(out)
}

// check has ecr-mirror check a configuration in the reader's directory, where the files are that it names.
func (w *world) check(configuration []byte) error {
	if err := os.WriteFile(filepath.Join(w.work(), "block.yaml"), configuration, 0o644); err != nil {
		return err
	}
	return w.shell("ecr-mirror check --config block.yaml")
}

func within(v map[string]any, keys []string) bool {
	for key := range v {
		if !slices.Contains(keys, key) {
			return false
		}
	}
	return true
}

// merge adds v to what is there: maps are merged, and all else replaced.
func merge(to, v map[string]any) {
	for key, value := range v {
		there, isMap := to[key].(map[string]any)
		if more, ok := value.(map[string]any); ok && isMap {
			merge(there, more)
		} else {
			to[key] = value
		}
	}
}

// checkJSON decodes strictly what has a decoder here: policies and ECR's replication rules. Anything else is JSON at least.
func checkJSON(text string) error {
	var v map[string]json.RawMessage
	dec := json.NewDecoder(strings.NewReader(text))
	if err := dec.Decode(&v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return errors.New("more than one value")
	}
	switch {
	case v["Statement"] != nil:
		var errs []error
		for kind := iam.Identity; kind <= iam.Trust; kind++ {
			_, err := iam.Parse(kind, []byte(text))
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	case v["rules"] != nil || v["replicationConfiguration"] != nil:
		_, _, err := rules.ParseECR([]byte(text))
		return err
	}
	return nil
}
