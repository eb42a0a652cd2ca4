package cli

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

// tree is a small command line.
func tree(run func(ctx context.Context) error) *cobra.Command {
	leaf := func(use string) *cobra.Command {
		cmd := &cobra.Command{Use: use, Short: use, RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context()) }}
		OutputFlag(cmd)
		return cmd
	}
	kind := leaf("kind KIND")
	kind.ValidArgs = []string{"a\tfirst", "b"}
	parent := &cobra.Command{Use: "parent", Short: "parent"}
	parent.AddCommand(leaf("child"))
	root := &cobra.Command{Use: "tool"}
	Assemble(root, []Group{{"One", []*cobra.Command{leaf("none"), leaf("one ARG"), leaf("maybe [ARG]"), leaf("many ARG..."), leaf("any [ARG]..."), kind, parent}}}, ExitCodesTopic())
	return root
}

func runs(t *testing.T, run func(context.Context) error, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	root := tree(run)
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&errs)
	code = Run(t.Context(), root)
	return code, out.String(), errs.String()
}

// Wrong usage is one line that says what is wrong and where to read on, and nothing is done.
func TestUsage(t *testing.T) {
	for line, want := range map[string]string{
		"none": "", "one x": "", "maybe": "", "maybe x": "", "many x y z": "", "any": "", "any x y": "", "kind a": "", "kind b -o json": "", "parent child": "",
		"none x":              `surplus argument "x" (see tool none --help)`,
		"one":                 `ARG is missing (see tool one --help)`,
		"one x y":             `surplus argument "y" (see tool one --help)`,
		"maybe x y":           `surplus argument "y" (see tool maybe --help)`,
		"many":                `ARG is missing (see tool many --help)`,
		"kind c":              `KIND "c": want a, b (see tool kind --help)`,
		"none --nonsense":     `unknown flag: --nonsense (see tool none --help)`,
		"none -o yaml":        `invalid argument "yaml" for "-o, --output" flag: want table or json (see tool none --help)`,
		"none -o":             `flag needs an argument: 'o' in -o (see tool none --help)`,
		"nome":                `unknown command "nome": did you mean none or one? (see tool --help)`,
		"xxxxxx":              `unknown command "xxxxxx" (see tool --help)`,
		"parent chil":         `unknown command "chil": did you mean child? (see tool parent --help)`,
		"parent child x":      `surplus argument "x" (see tool parent child --help)`,
		"help nonsense":       `unknown command or topic "nonsense" (see tool help --help)`,
		"help parent nothing": `unknown command or topic "parent nothing" (see tool help --help)`,
		"completion csh":      `unknown command "csh": did you mean bash or fish or zsh? (see tool completion --help)`,
	} {
		did := false
		code, out, errs := runs(t, func(context.Context) error { did = true; return nil }, strings.Fields(line)...)
		switch {
		case want == "" && (code != OK || !did || errs != ""):
			t.Errorf("%s: exit code %d: %s", line, code, errs)
		case want != "" && (code != Usage || did || errs != "tool: "+want+"\n" || out != ""):
			t.Errorf("%s: exit code %d, printed %q and %q, want %q", line, code, out, errs, want)
		}
	}
	for _, line := range []string{"", "parent", "help", "help none", "none --help", "help exit-codes", "help parent child", "exit-codes"} {
		if code, out, errs := runs(t, nil, strings.Fields(line)...); code != OK || errs != "" || !strings.Contains(out, "Usage:") && !strings.Contains(out, "130") {
			t.Errorf("%q: exit code %d, printed %q and %q", line, code, out, errs)
		}
	}
}

func TestExitCodes(t *testing.T) {
	for want, err := range map[int]error{
		Failed: errors.New("x"), Usage: Exitf(Usage, "x"), Found: Exitf(Found, "x"), NotYet: Exitf(NotYet, "x"), Never: errors.Join(Exitf(Never, "x")), Interrupted: Exitf(Interrupted, "x"),
	} {
		code, _, errs := runs(t, func(context.Context) error { return err }, "none")
		if code != want || !strings.HasPrefix(errs, "tool: x") {
			t.Errorf("exit code %d, want %d: %q", code, want, errs)
		}
	}
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	var errs bytes.Buffer
	root := tree(func(ctx context.Context) error { return ctx.Err() })
	root.SetArgs([]string{"none"})
	root.SetErr(&errs)
	if code := Run(ctx, root); code != Interrupted || errs.String() != "tool: interrupted\n" {
		t.Errorf("exit code %d: %q", code, &errs)
	}
}

// Help fits a terminal of Width columns.
func TestHelpWidth(t *testing.T) {
	long := strings.Repeat("some words that go on and on ", 9)
	got := wrap(long + "\n" + long + "\n\n  a list of things that are wider than the terminal but stay as they are, to the end\n" + long)
	kept := 0
	for line := range strings.SplitSeq(got, "\n") {
		if strings.HasPrefix(line, "  a list") {
			kept++
		} else if len(line) > Width {
			t.Errorf("%d columns: %s", len(line), line)
		}
	}
	if kept != 1 || strings.Join(strings.Fields(got), " ") != strings.Join(strings.Fields(long+long+"a list of things that are wider than the terminal but stay as they are, to the end "+long), " ") {
		t.Errorf("%d:\n%s", kept, got)
	}
	if got := wrap("Codes:\n  1  one\n  2  two\n\nEnd"); got != "Codes:\n  1  one\n  2  two\n\nEnd" {
		t.Errorf("%q", got)
	}
}

// Where there is no terminal a line comes every ten seconds, and one at the end of what can be counted.
func TestLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		p := newProgress(&out, false)
		p.Show(Step{Text: "a moment"})
		time.Sleep(11 * time.Second)
		p.Show(Step{Text: "comparing"})
		for done := range 5 {
			p.Show(Step{Text: "all well", Done: int64(done), Total: 8, Unit: "jobs"})
			time.Sleep(5 * time.Second)
		}
		p.Show(Step{Text: "1 failed", Done: 7, Total: 8, Unit: "jobs"})
		p.End()
		p.End()
		want := `comparing
2 of 8 jobs, all well, about 30s left
4 of 8 jobs, all well, about 20s left
7 of 8 jobs, 1 failed, about 4s left
`
		if d := cmp.Diff(want, out.String()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
		out.Reset()
		p = newProgress(&out, false)
		p.Show(Step{Done: 1 << 20, Total: 2 << 20, Bytes: true, Unit: "read"})
		p.Aside(func() { out.WriteString("found\n") })
		p.End()
		if got := out.String(); got != "found\n1.0MiB of 2.0MiB read\n" {
			t.Errorf("%q", got)
		}
		out.Reset()
		p = newProgress(&out, false)
		p.Show(Step{Text: "a moment"})
		p.End()
		var none *Progress
		none.Show(Step{})
		none.Aside(func() {})
		none.End()
		if out.Len() > 0 {
			t.Errorf("a quick command prints %q", &out)
		}
	})
}

// screen is a Buffer that may be read while it is written.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *screen) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.b.Reset()
}

// On a terminal a spinner turns until the end is known, then a bar grows; both are off the line when something else is printed.
func TestBar(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out screen
		p := newProgress(&out, true)
		p.Show(Step{Text: "comparing"})
		if synctest.Wait(); out.String() != "" {
			t.Errorf("a quick command draws %q", out.String())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := strings.Count(out.String(), "comparing"); n < 5 {
			t.Errorf("a spinner that turned %d times: %q", n, out.String())
		}
		p.Aside(func() { _, _ = out.Write([]byte("found\n")) })
		if !strings.HasSuffix(out.String(), " \rfound\n") {
			t.Errorf("the spinner is on the line: %q", out.String())
		}
		p.Show(Step{Text: "3.0MiB of 8.0MiB, 1 failed", Done: 3, Total: 8, Unit: "jobs"})
		time.Sleep(time.Second)
		p.Show(Step{Text: "all", Done: 8, Total: 8, Unit: "jobs"})
		p.End()
		got := out.String()
		for _, want := range []string{"(3/8)", "3.0MiB of 8.0MiB, 1 failed", "(8/8)"} {
			if !strings.Contains(got, want) {
				t.Errorf("%q is not in %q", want, got)
			}
		}
		if !strings.HasSuffix(got, "\n") || strings.Contains(got, "\x1b") {
			t.Errorf("the end: %q", got)
		}
		out.Reset()
		p = newProgress(&out, true)
		p.Show(Step{Text: strings.Repeat("wide ", 50)})
		time.Sleep(time.Second)
		p.End()
		for _, picture := range strings.Split(out.String(), "\r") {
			if len([]rune(picture)) > Width {
				t.Errorf("%d columns: %q", len([]rune(picture)), picture)
			}
		}
		if !strings.HasSuffix(out.String(), " \r") {
			t.Errorf("the spinner stays: %q", out.String())
		}
	})
}
