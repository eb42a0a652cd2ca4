package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find out what a configuration lacks: credentials, permissions, reachability, clock, events",
		Long: `Doctor asks every registry and queue of a configuration, as the mirror would, by calls that change nothing: who the mirror is,
what it may do and what it may not, with the statement that is missing and where it belongs, whether layers can be fetched,
whether the clock is right, and whether events can arrive. Of a front (--role front), which may not list repositories, it wants
one by --repository; whether the front may send what it misses it finds out by a message that workers ignore. It ends with exit
code 1 if anything is wrong.`,
		Args: cobra.NoArgs,
	}
	path, role := configFlag(cmd), roleFlag(cmd)
	out := outputFlag(cmd)
	var o policyOptions
	f := cmd.Flags()
	f.StringVar(&o.eventRule, "event-rule", "ecr-mirror", "name of the EventBridge rule at the source that sends to the queue")
	repo := f.String("repository", "", "repository to ask about; default: in each registry the first that the rules want")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadAs(*path, *role)
		if err != nil {
			return err
		}
		d := &doctor{cfg: cfg, options: o, repo: *repo}
		d.examine(cmd.Context())
		if out.json() {
			err = writeJSON(cmd.OutOrStdout(), d.findings)
		} else {
			err = printFindings(cmd.OutOrStdout(), d.findings)
		}
		if n := d.failed(); err == nil && n > 0 {
			return fmt.Errorf("doctor: %d of %d checks failed", n, len(d.findings))
		}
		return err
	}
	return cmd
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
		rows = append(rows, []string{f.Result, f.Check, f.Where, oneLine(f.What), oneLine(f.Detail)})
	}
	if err := table(w, []string{"RESULT", "CHECK", "WHERE", "WHAT", "DETAIL"}, rows); err != nil {
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
