package ecrtest_test

import (
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
)

// docs/emulator.md says what is emulated: its tests exist, its switches are Quirks, and it leaves none out.
func TestDocumentation(t *testing.T) {
	page, err := os.ReadFile("../../../docs/emulator.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, dir := range []string{".", "../../../cmd/ecr-mirror/e2e"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(dir, err)
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(text, -1) {
				tests[string(m[1])] = true
			}
		}
	}
	switches := map[string]bool{}
	typ := reflect.TypeFor[ecrtest.Quirks]()
	for i := range typ.NumField() {
		switches[typ.Field(i).Name] = false
	}
	rows := 0
	for line := range strings.SplitSeq(string(page), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 5 || strings.Contains(line, "Shown by") || strings.HasPrefix(line, "|---") {
			continue
		}
		rows++
		name, confidence, quirk := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[2]), strings.Trim(cells[3], " `")
		if confidence != "H" && confidence != "M" && (confidence != "L" || quirk == "") {
			t.Errorf("%s: confidence %q, switch %q", name, confidence, quirk)
		}
		if _, known := switches[quirk]; quirk != "" && !known {
			t.Errorf("%s: no switch %q", name, quirk)
		}
		switches[quirk] = true
		for shown := range strings.SplitSeq(cells[4], ",") {
			if shown = strings.TrimSpace(shown); !tests[shown] {
				t.Errorf("%s: no test %q", name, shown)
			}
		}
	}
	for name, listed := range switches {
		if !listed {
			t.Errorf("switch %s is not on the page", name)
		}
	}
	if rows < 40 {
		t.Errorf("%d rows", rows)
	}
}
