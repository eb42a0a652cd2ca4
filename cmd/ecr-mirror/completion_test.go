package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// program skips the test where there is no such program, and fails it in CI, where all have to be.
func program(t *testing.T, path string) {
	t.Helper()
	if _, err := exec.LookPath(path); err != nil {
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is needed in CI", path)
			}
			t.Skipf("needs %s, which is not there", path)
		}
	}
}

// What shells complete: commands, flags, formats, clients, the registries of the configuration, and what a running mirror knows.
func TestCompletion(t *testing.T) {
	t.Parallel()
	s := newServed(t)
	s.rig.kill("team/app", "v1")
	letter := s.rig.listed()[0].ID
	t.Run("bash", func(t *testing.T) {
		const installed = "/usr/share/bash-completion/bash_completion"
		program(t, installed)
		var script strings.Builder
		fmt.Fprintf(&script, "source %s\nsource <(ecr-mirror completion bash)\n", installed)
		cases := []struct {
			words []string // the last is begun
			want  []string
		}{
			{[]string{"sta"}, []string{"status"}},
			{[]string{"dead-letters", "re"}, []string{"retry"}},
			{[]string{"help", "exit"}, []string{"exit-codes"}},
			{[]string{"plan", "--exit"}, []string{"--exit-code"}},
			{[]string{"plan", "--output", ""}, []string{"json", "table"}},
			{[]string{"serve", "--role", "w"}, []string{"worker"}},
			{[]string{"check", "--config", "e"}, []string{"ecr-mirror.yaml", "eu.yaml"}},
			{[]string{"client-config", "pod"}, []string{"podman"}},
			{[]string{"client-config", "podman", "--config", "ecr-mirror.yaml", "--registry", ""}, []string{demoSourceHost, demoDestinationHost}},
			{[]string{"status", "--state", "d"}, []string{"dead", "done"}},
			{[]string{"status", "--repository", "team/"}, []string{"team/app"}},
			{[]string{"status", "team/a"}, []string{"team/app:v1"}},
			{[]string{"ready", "team/app", ":", ""}, []string{"v1"}}, // as bash has its words
			{[]string{"ready", "team/app:v1", ""}, nil},
			{[]string{"dead-letters", "show", ""}, []string{letter}},
			{[]string{"dead-letters", "show", "--admin", "127.0.0.1:1", ""}, nil}, // where no mirror is
		}
		for _, c := range cases {
			line := strings.ReplaceAll("ecr-mirror "+strings.Join(c.words, " "), " : ", ":")
			fmt.Fprintf(&script, "COMP_WORDS=(ecr-mirror %s) COMP_CWORD=%d COMP_LINE='%s' COMP_POINT=%d COMP_TYPE=9 COMPREPLY=()\n", quoted(c.words), len(c.words), line, len(line))
			fmt.Fprintf(&script, "__start_ecr-mirror 2>/dev/null; echo \"${COMPREPLY[*]@Q}\"\n")
		}
		_, out, errs := s.do(t, script.String(), "")
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if len(lines) != len(cases) {
			t.Fatalf("%d answers to %d questions:\n%s%s", len(lines), len(cases), out, errs)
		}
		for i, c := range cases {
			got := strings.Fields(strings.ReplaceAll(lines[i], "'", " "))
			got = slices.DeleteFunc(got, func(w string) bool { return w == "" })
			slices.Sort(got)
			slices.Sort(c.want)
			if !slices.Equal(got, c.want) {
				t.Errorf("%q: %q, want %q", c.words, got, c.want)
			}
		}
	})
	t.Run("fish", func(t *testing.T) {
		program(t, "fish")
		_, out, errs := s.do(t, `fish -c 'ecr-mirror completion fish | source; complete -C "ecr-mirror sta"; complete -C "ecr-mirror status team/"'`, "")
		if !strings.HasPrefix(out, "status\tShow what is where") || !strings.Contains(out, "team/app:v1\n") {
			t.Errorf("%s%s", out, errs)
		}
	})
	t.Run("zsh", func(t *testing.T) {
		program(t, "zsh")
		_, out, errs := s.do(t, `zsh -f -c 'autoload -U compinit; compinit -u; source <(ecr-mirror completion zsh); print -r -- $_comps[ecr-mirror] $+functions[_ecr-mirror]'`, "")
		if out != "_ecr-mirror 1\n" {
			t.Errorf("%s%s", out, errs)
		}
	})
}

func quoted(words []string) string {
	var all []string
	for _, w := range words {
		all = append(all, "'"+w+"'")
	}
	return strings.Join(all, " ")
}
