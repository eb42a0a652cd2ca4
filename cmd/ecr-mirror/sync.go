package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
)

// followEvery is the time between two looks at the progress.
const followEvery = 200 * time.Millisecond

func syncCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Compare sources and destinations, and make them agree",
		Long: `Sync makes the plan that plan prints, does it and shows how far it is. Nothing is deleted. It can be interrupted at any time
(Ctrl-C, SIGTERM, kill -9): run again it goes on, and sends no layer that has arrived a second time. With replication.settings
in mode converge it also sets the settings of repositories that differ from the source's, before it copies.

` + whoDoesIt + cli.ExitCodes(
			cli.Code{Code: cli.OK, Meaning: "source and destinations agree"},
			cli.Code{Code: cli.Found, Meaning: "some of it needs an operator (see dead-letters), waits for tomorrow's byte budget, or could not be compared"},
			cli.Code{Code: cli.Interrupted, Meaning: "a mirror that runs goes on with it; else run sync again"}),
		Example: `
ecr-mirror sync
# Also bring back what the destination's own lifecycle removed
ecr-mirror sync --force
# The plan for machines, the progress for people
ecr-mirror sync --output json >plan.jsonl`,
	}
	admin, out, force := addAdminFlags(cmd), cli.OutputFlag(cmd), forceFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, cfg, err := admin.load(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		s := &syncer{admin: client, cfg: cfg, force: *force, plan: newPlanWriter(cmd.OutOrStdout(), cmd.ErrOrStderr(), out.JSON()), errs: cmd.ErrOrStderr()}
		defer s.plan.progress.End()
		return s.run(cmd.Context())
	}
	return cmd
}

// syncer is one run of the command.
type syncer struct {
	admin *adminClient
	cfg   *config.Config
	base  *aws.Config // nil: the SDK's default chain
	force bool
	plan  *planWriter // its progress becomes that of the jobs
	errs  io.Writer
}

func (s *syncer) run(ctx context.Context) error {
	err := s.synchronize(ctx)
	if err != nil && ctx.Err() != nil && cli.CodeOf(err) == cli.Failed {
		return cli.Exitf(cli.Interrupted, "interrupted while comparing: %w", err)
	}
	return err
}

func (s *syncer) synchronize(ctx context.Context) error {
	s.plan.progress.Show(s.plan.comparing())
	_, err := s.admin.lines(ctx, http.MethodPost, "/sync", s.force, s.plan.line)
	if errors.Is(err, errNotServing) {
		return s.alone(ctx)
	}
	if err := errors.Join(err, s.plan.flush()); err != nil {
		return err
	}
	return s.follow(ctx, "the mirror goes on with it", func() (p progress, err error) {
		return p, s.admin.decode(ctx, http.MethodGet, "/sync", &p)
	})
}

// alone does the work in this process: the mirror's workers and store, without its listeners, events and sweeps.
func (s *syncer) alone(ctx context.Context) error {
	level := &slog.HandlerOptions{Level: slog.LevelError}
	a, err := assemble(ctx, s.cfg, s.base, slog.New(slog.NewTextHandler(s.errs, level)))
	if err != nil {
		return inUse(s.cfg, err)
	}
	planner := a.planner()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.work(working) }()
	run, err := planner.sync(ctx, s.force, s.plan.line)
	if err == nil {
		err = s.plan.line(planLine{End: &planEnd{Jobs: run.sum.Jobs}})
	}
	if err = errors.Join(err, s.plan.flush()); err == nil {
		err = s.follow(ctx, "run sync again to go on", func() (progress, error) {
			select {
			case err := <-ended:
				ended <- err
				return progress{}, fmt.Errorf("the workers ended: %w", err)
			default:
				return run.progress(), nil
			}
		})
	}
	stop()
	return errors.Join(err, <-ended)
}

// follow shows the progress until all is done, or ctx ends: what is not done then is written down, and goes on as later says.
func (s *syncer) follow(ctx context.Context, later string, look func() (progress, error)) error {
	var p progress
	for {
		now, err := look()
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil {
			p = now
			if p.Jobs > 0 {
				s.plan.progress.Show(p.step())
			}
		}
		switch {
		case err == nil && p.ended():
			if err := s.end(p); err != nil {
				return err
			}
			if p.Failed > 0 || p.Waiting > 0 || s.plan.uncompared > 0 {
				return cli.Exitf(cli.Found, "of %d jobs %d need an operator (see dead-letters) and %d wait for tomorrow's byte budget; %d repositories were not compared or set",
					p.Jobs, p.Failed, p.Waiting, s.plan.uncompared)
			}
			return nil
		case !sleep(ctx, followEvery):
			if err := s.end(p); err != nil {
				return err
			}
			return cli.Exitf(cli.Interrupted, "interrupted: %d of %d jobs are done; %s", p.Done, p.Jobs, later)
		}
	}
}

// end says how far it came.
func (s *syncer) end(p progress) error {
	s.plan.progress.End()
	if s.plan.json == nil {
		return nil
	}
	return s.plan.line(planLine{Sync: &p})
}

// step shows jobs, for they are what takes time where layers are shared. Its text has what their count does not say: bytes, where
// the source tells them beforehand, and failures.
func (p progress) step() cli.Step {
	var notes []string
	if p.Bytes > 0 {
		notes = append(notes, cli.Size(p.BytesDone)+" of "+cli.Size(p.Bytes))
	}
	if p.Failed > 0 {
		notes = append(notes, fmt.Sprintf("%d failed", p.Failed))
	}
	if p.Waiting > 0 {
		notes = append(notes, fmt.Sprintf("%d wait for tomorrow", p.Waiting))
	}
	return cli.Step{Text: strings.Join(notes, ", "), Done: int64(p.Done), Total: int64(p.Jobs), Unit: "jobs"}
}
