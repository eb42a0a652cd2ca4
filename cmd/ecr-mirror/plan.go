package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
)

// whoDoesIt is for the help of plan and sync.
const whoDoesIt = `While a mirror runs with this configuration on this host, it does the work, asked through its admin port: it holds the
queue, and the quotas are shared with its own jobs. --admin names another mirror of this host. Else this command does it
by itself, in the configured cache directory. A CronJob or another host needs no disk in common with the mirrors: it
compares registries. Its cache directory should be kept from run to run, though: what has expired at a destination is
known from the queue that is in it.`

func planCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Compare sources and destinations, and print what sync would do",
		Long: `Plan lists every source and destination and prints, oldest push first, what is missing or differs: images and tags to add,
tags to move, conflicts (the destination's tag is immutable), and what has expired (it was there, and the destination's own
lifecycle removed it: only --force or a pull brings it back). With deletes: propagate it also prints what was deleted at the
source: when the mirror will delete it at the destination, or what speaks against that today. Sync deletes nothing.

With replication.settings it also prints how the settings of repositories that both have differ: "set" is what sync sets, in mode
converge ("differs" in mode show); "fixed" cannot be changed once a repository exists; "keep" is the destination's own; "refused"
says why it is not taken over. For repositories that the destination lacks only what is refused is printed.

` + whoDoesIt + cli.ExitCodes(
			cli.Code{Code: cli.OK, Meaning: "everything was compared"},
			cli.Code{Code: cli.Found, Meaning: "some repositories could not be compared, or, with --exit-code, sync has something to do"}),
		Example: `
# What is missing or differs
ecr-mirror plan
# With what the destination's own lifecycle removed, for machines
ecr-mirror plan --force --output json
# An alarm of a CronJob: exit code 3 if anything is missing
ecr-mirror plan --exit-code`,
	}
	admin, out, force := addAdminFlags(cmd), cli.OutputFlag(cmd), forceFlag(cmd)
	differ := cmd.Flags().Bool("exit-code", false, "end with exit code 3 if sync has something to do")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, cfg, err := admin.load(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		w := newPlanWriter(cmd.OutOrStdout(), cmd.ErrOrStderr(), out.JSON())
		defer w.progress.End()
		jobs, err := plan(cmd.Context(), client, cfg, nil, *force, w)
		switch {
		case err != nil:
			return err
		case w.uncompared > 0:
			return cli.Exitf(cli.Found, "%d repositories were not compared", w.uncompared)
		case *differ && jobs > 0:
			return cli.Exitf(cli.Found, "%d jobs are left for sync", jobs)
		}
		return nil
	}
	return cmd
}

func forceFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("force", false, "bring back what the destination's own lifecycle removed")
}

// plan has a plan made and written, and returns how many jobs it has.
func plan(ctx context.Context, admin *adminClient, cfg *config.Config, base *aws.Config, force bool, w *planWriter) (int, error) {
	w.progress.Show(w.comparing())
	end, err := admin.lines(ctx, http.MethodGet, "/plan", force, w.line)
	if !errors.Is(err, errNotServing) {
		return end.Jobs, errors.Join(err, w.flush())
	}
	if !cfg.Works() {
		return 0, errFront()
	}
	p, stop, err := newPlanner(ctx, cfg, base)
	if err != nil {
		return 0, inUse(cfg, err)
	}
	jobs, _, err := p.plan(ctx, force, w.line)
	if err == nil {
		err = w.line(planLine{End: &planEnd{Jobs: len(jobs)}})
	}
	return len(jobs), errors.Join(err, w.flush(), stop())
}

// newPlanner returns a planner without a mirror, with a copy of the queue that the last one left.
func newPlanner(ctx context.Context, cfg *config.Config, base *aws.Config) (_ *planner, stop func() error, err error) {
	queue, stop, err := copyQueue(cfg)
	if err != nil {
		return nil, nil, err
	}
	all, err := places(ctx, cfg, upstreams{aws: base, limits: ecr.NewLimits()})
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	p := &planner{queue: queue, reapers: reapers(all, queue, nil, nil), settings: settlings(all)}
	for _, at := range all {
		p.sweeps = append(p.sweeps, at.sweep(queue))
	}
	return p, stop, nil
}

// lines does a request that is answered with a plan, and returns its last line, whose error is the error.
func (c *adminClient) lines(ctx context.Context, method, path string, force bool, line func(planLine) error) (planEnd, error) {
	body, err := c.do(ctx, method, path+"?force="+strconv.FormatBool(force))
	if err != nil {
		return planEnd{}, err
	}
	defer body.Close()
	for in := json.NewDecoder(body); ; {
		var l planLine
		if err := in.Decode(&l); err != nil {
			return planEnd{}, fmt.Errorf("the mirror's answer: %w", err)
		}
		if err := line(l); err != nil {
			return planEnd{}, err
		}
		if l.End != nil && l.End.Error != "" {
			return *l.End, errors.New(cli.Printable(l.End.Error, ""))
		}
		if l.End != nil {
			return *l.End, nil
		}
	}
}

// planWriter prints a plan.
type planWriter struct {
	w        io.Writer
	progress *cli.Progress
	json     *json.Encoder // nil: a table
	rows     [][]string
	sets     [][]string // of settings
	sums     []string

	differences, destinations int
	uncompared                int // repositories, or their settings
}

// newPlanWriter returns one that prints to w, and shows on progress how far the plan is. The caller ends its progress.
func newPlanWriter(w, progress io.Writer, asJSON bool) *planWriter {
	p := &planWriter{w: w, progress: cli.NewProgress(progress)}
	if asJSON {
		p.json = json.NewEncoder(w)
	}
	return p
}

// comparing is how far the plan is.
func (p *planWriter) comparing() cli.Step {
	return cli.Step{Text: fmt.Sprintf("comparing: %d destinations done, %d differences", p.destinations, p.differences)}
}

func (p *planWriter) line(l planLine) (err error) {
	switch {
	case l.Destination != nil:
		p.destinations++
		p.uncompared += len(l.Destination.Problems) + len(l.Destination.SettingsProblems)
	case l.Difference != nil || l.Setting != nil:
		p.differences++
	}
	p.progress.Show(p.comparing())
	switch {
	case p.json != nil:
		p.progress.Aside(func() { err = p.json.Encode(l) })
		return err
	case l.Difference != nil:
		d := l.Difference
		name, bytes := d.Repository, "-"
		if d.Tag != "" {
			name += ":" + d.Tag
		}
		if d.Bytes > 0 {
			bytes = cli.Size(d.Bytes)
		}
		when := cli.Time(d.PushedAt)
		if !d.DueAt.IsZero() {
			when = "due " + cli.Time(d.DueAt)
		}
		p.rows = append(p.rows, []string{d.Mirror, d.Destination, d.Action, name, cli.Digest(d.Digest), cli.Digest(d.Have), when, bytes})
	case l.Setting != nil:
		d := l.Setting
		p.sets = append(p.sets, []string{d.Mirror, d.Destination, d.Action, d.Repository, d.Setting, cell(d.Want), cell(d.Have), cell(d.Error)})
	case l.Destination != nil:
		p.sums = append(p.sums, l.Destination.String())
	}
	return nil
}

// flush prints the table.
func (p *planWriter) flush() error {
	if p.json != nil {
		return nil
	}
	var err error
	p.progress.Aside(func() { err = p.print() })
	return err
}

func (p *planWriter) print() (err error) {
	if len(p.rows) > 0 {
		err = cli.Table(p.w, []string{"MIRROR", "DESTINATION", "ACTION", "IMAGE", "DIGEST", "THERE", "PUSHED", "BYTES"}, p.rows)
	}
	if len(p.sets) > 0 && err == nil {
		err = cli.Table(p.w, []string{"MIRROR", "DESTINATION", "ACTION", "REPOSITORY", "SETTING", "WANT", "THERE", "WHY"}, p.sets)
	}
	for _, s := range p.sums {
		if err == nil {
			_, err = fmt.Fprintln(p.w, s)
		}
	}
	p.rows, p.sets, p.sums = nil, nil, nil
	return err
}

func (s *planSummary) String() string {
	var parts []string
	for _, a := range slices.Sorted(maps.Keys(s.Actions)) {
		parts = append(parts, fmt.Sprintf("%s %d", a, s.Actions[a]))
	}
	if len(parts) == 0 {
		parts = []string{"nothing to do"}
	}
	text := fmt.Sprintf("%s to %s: %d images compared: %s; %d jobs", s.Mirror, s.Destination, s.Images, strings.Join(parts, ", "), s.Jobs)
	if s.Bytes > 0 {
		text += ", " + cli.Size(s.Bytes)
	}
	for _, repo := range slices.Sorted(maps.Keys(s.Problems)) {
		text += fmt.Sprintf("\n  %s: not compared: %s", repo, cli.Line(s.Problems[repo]))
	}
	for _, repo := range slices.Sorted(maps.Keys(s.SettingsProblems)) {
		text += fmt.Sprintf("\n  %s: settings: %s", repo, cli.Line(s.SettingsProblems[repo]))
	}
	return text
}
