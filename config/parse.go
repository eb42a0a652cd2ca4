package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const maxFile = 1 << 20 // bytes of a configuration or rules file

// Problem is one thing that is wrong.
type Problem struct {
	Line int    // 1 is the first
	Path string // as in mirrors[0].source.registry; "" is the whole file
	Text string
}

// Error is all that is wrong with a configuration, in the order of its lines.
type Error struct {
	Name     string
	Problems []Problem
}

func (e *Error) Error() string {
	var b strings.Builder
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "%s:%d: ", e.Name, p.Line)
		if p.Path != "" {
			b.WriteString(p.Path + ": ")
		}
		b.WriteString(p.Text)
	}
	return b.String()
}

// Load reads the file at path with the process's environment. What is wrong with its content is an *Error.
func Load(path string) (*Config, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("load configuration: %w", err)
	}
	return Parse(path, data, os.LookupEnv)
}

// Parse reads data, which came from the file name: relative paths start at its directory, and rulesFile is read. The result
// has every default filled in. What is wrong is an *Error with all problems.
func Parse(name string, data []byte, getenv func(string) (string, bool)) (*Config, error) {
	d := &decoder{getenv: getenv, lines: make(map[string]int)}
	c := new(Config)
	c.setDefaults()
	if doc := d.document(data); doc != nil {
		d.decode(doc, c)
		if ck := newChecker(d, filepath.Dir(name)); !ck.broken[""] {
			ck.config(c)
		}
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, &Error{Name: name, Problems: d.problems}
	}
	return c, nil
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// document returns the top node of the one document in data, or nil after reporting why there is none.
func (d *decoder) document(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if err == nil {
		switch err := dec.Decode(&more); {
		case err == nil:
			d.problems = append(d.problems, Problem{Line: more.Line, Text: "a second document"})
			return nil
		case !errors.Is(err, io.EOF):
			return d.syntax(err)
		}
		return doc.Content[0]
	}
	if errors.Is(err, io.EOF) {
		d.problems = append(d.problems, Problem{Line: 1, Text: "empty: at least mirrors is required"})
		return nil
	}
	return d.syntax(err)
}

func (d *decoder) syntax(err error) *yaml.Node {
	p := Problem{Line: 1, Text: yamlLine.ReplaceAllString(err.Error(), "")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil && m[1] != "" {
		p.Line, _ = strconv.Atoi(m[1]) // the pattern admits digits only; out of range it is the largest int
	}
	d.problems = append(d.problems, p)
	return nil
}

// readFile reads a regular file of at most maxFile bytes; a pipe or device might never end.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("read %s: more than %d bytes", path, maxFile)
	}
	return data, err
}
