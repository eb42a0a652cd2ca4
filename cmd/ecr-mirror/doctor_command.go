package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
)

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what a configuration lacks",
		Long: `Doctor asks every registry and queue of a configuration, as the mirror would, by calls that change nothing: who the mirror is,
what it may do and what it may not, with the statement that is missing and where it belongs, whether layers can be fetched,
whether the clock is right, and whether events can arrive. Each question may take 30 seconds.

Of a front (--role front), which may not list repositories, it wants one by --repository; whether the front may send what it
misses it finds out by a message that workers ignore.` +
			cli.ExitCodes(cli.Code{Code: cli.Found, Meaning: "something is wrong"}),
		Example: `
ecr-mirror doctor
# About a repository of your choice, with the missing statements for machines
ecr-mirror doctor --repository team/app --output json`,
	}
	path, role, out := configFlag(cmd), roleFlag(cmd), cli.OutputFlag(cmd)
	var o policyOptions
	eventRuleFlag(cmd.Flags(), &o)
	repo := cmd.Flags().String("repository", "", "ask about this `REPOSITORY` (default: in each registry the first that the rules want)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadAs(*path, *role)
		if err != nil {
			return err
		}
		d := &doctor{cfg: cfg, options: o, repo: *repo, progress: cli.NewProgress(cmd.ErrOrStderr())}
		defer d.progress.End()
		d.examine(cmd.Context())
		d.progress.End()
		if err := cmd.Context().Err(); err != nil {
			return err
		}
		answer := diagnosis{Failed: d.failed(), Findings: d.findings}
		err = out.Print(cmd.OutOrStdout(), answer, func(w io.Writer) error { return printFindings(w, d.findings) })
		if err == nil && answer.Failed > 0 {
			return cli.Exitf(cli.Found, "%d of %d checks failed", answer.Failed, len(d.findings))
		}
		return err
	}
	return cmd
}

// diagnosis is the answer of doctor.
type diagnosis struct {
	Failed   int       `json:"failed"` // of the findings
	Findings []finding `json:"findings"`
}

// finding is the outcome of one check.
type finding struct {
	Check  string `json:"check"`            // credentials, clock, permission, layers, quota, queue or registry
	Where  string `json:"where"`            // a registry's host, a queue's URL
	What   string `json:"what,omitempty"`   // an action, a principal
	Result string `json:"result"`           // ok, failed or unknown
	Detail string `json:"detail,omitempty"` // the error, or what was found
	Needed *grant `json:"needed,omitempty"` // the policy with the statement that is missing
}

// Results of checks.
const (
	resultOK      = "ok"
	resultFailed  = "failed"
	resultUnknown = "unknown" // nobody could tell
)

func printFindings(w io.Writer, all []finding) error {
	var rows [][]string
	for _, f := range all {
		rows = append(rows, []string{f.Result, f.Check, f.Where, cli.Line(f.What), cli.Line(f.Detail)})
	}
	if err := cli.Table(w, []string{"RESULT", "CHECK", "WHERE", "WHAT", "DETAIL"}, rows); err != nil {
		return err
	}
	needed := map[string]bool{}
	for _, f := range all {
		if f.Needed == nil {
			continue
		}
		text := fmt.Sprintf("\nneeded: %s\n%s\n", f.Needed.where(), f.Needed.Document)
		if needed[text] {
			continue
		}
		needed[text] = true
		if _, err := io.WriteString(w, text); err != nil {
			return err
		}
	}
	return nil
}

// unused is a repository name that a pattern of a policy covers, and that nobody has.
func unused(pattern string) string {
	stem, any := strings.CutSuffix(pattern, "*")
	if !any {
		return pattern
	}
	if stem == "" || strings.HasSuffix(stem, "/") {
		return stem + "ecr-mirror-doctor"
	}
	return stem + "-ecr-mirror-doctor"
}
