package docs

import (
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the top of the repository.
const root = ".."

// documents are all that a reader may be given to read. They are parsed.
func documents(t *testing.T) []document {
	t.Helper()
	var all []document
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && (strings.HasPrefix(d.Name(), ".") && name != root || d.Name() == "testdata" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(name, ".md") {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, name)
		if err != nil {
			return err
		}
		parsed, err := parseDocument(filepath.ToSlash(rel), string(text))
		all = append(all, parsed)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 7 {
		t.Fatalf("%d documents only", len(all))
	}
	return all
}

// Every link leads somewhere: to a file and heading of the repository, or to an absolute URL by HTTPS, which nobody asks.
func TestLinks(t *testing.T) {
	parsed := make(map[string]document)
	for _, d := range documents(t) {
		parsed[d.path] = d
	}
	for _, d := range parsed {
		for _, l := range d.undefined() {
			t.Errorf("%s:%d: [%s] is defined nowhere", d.path, l.n, l.text)
		}
		for _, l := range d.links() {
			u, err := url.Parse(l.text)
			switch {
			case err != nil:
				t.Errorf("%s:%d: %v", d.path, l.n, err)
				continue
			case u.Scheme == "https" && u.Host != "", u.Scheme == "mailto":
				continue
			case u.Scheme != "" || u.Host != "" || strings.HasPrefix(u.Path, "/"):
				t.Errorf("%s:%d: %s: neither relative nor https", d.path, l.n, l.text)
				continue
			}
			target := d.path
			if u.Path != "" {
				target = path.Join(path.Dir(d.path), u.Path)
			}
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(target))); err != nil || strings.HasPrefix(target, "../") {
				t.Errorf("%s:%d: %s: no such file", d.path, l.n, l.text)
				continue
			}
			if to, ok := parsed[target]; u.Fragment != "" && (!ok || !to.anchors()[u.Fragment]) {
				t.Errorf("%s:%d: %s: no such heading", d.path, l.n, l.text)
			}
		}
	}
}

// Every test and benchmark that the documents name exists.
func TestDocumentsNameTests(t *testing.T) {
	defined := make(map[string]bool)
	declaration := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`)
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && name != root {
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := os.ReadFile(name)
		for _, m := range declaration.FindAllSubmatch(text, -1) {
			defined[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, d := range documents(t) {
		for _, test := range regexp.MustCompile("`((?:Test|Benchmark|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(d.text, -1) {
			if named++; !defined[test[1]] {
				t.Errorf("%s names %s, which does not exist", d.path, test[1])
			}
		}
	}
	if named < 15 {
		t.Errorf("the documents name %d tests only", named)
	}
}

// The documents are written in British English.
func TestSpelling(t *testing.T) {
	american := regexp.MustCompile(`(?i)\b(behavior\w*|colors?|colored|centers?|centered|analyz\w+|organiz\w+|recogniz\w+|canceled|labeled|signaled|fulfill)\b`)
	for _, d := range documents(t) {
		for _, l := range d.prose {
			prose := regexp.MustCompile("`[^`]*`|\\([^)]*\\)|\"[^\"]*\"").ReplaceAllString(l.text, "")
			if m := american.FindString(prose); m != "" {
				t.Errorf("%s:%d: %s", d.path, l.n, m)
			}
		}
	}
}

// Commands stand in blocks that somebody runs; those in indented ones are examples of the help, which a test of theirs runs.
func TestCommandsAreInBlocks(t *testing.T) {
	for _, d := range documents(t) {
		if strings.Contains(d.text, "`TestExamples`") {
			continue
		}
		for _, l := range d.prose {
			if text, indented := strings.CutPrefix(strings.ReplaceAll(l.text, "\t", "    "), "    "); indented && commandRE.MatchString(text) {
				t.Errorf("%s:%d: a command that nobody runs: %s", d.path, l.n, l.text)
			}
		}
	}
}
