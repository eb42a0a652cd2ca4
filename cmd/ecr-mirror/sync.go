package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/config"
)

// Exit codes of sync; every other failure is 1.
const (
	exitLeft        = 2   // not all is done: dead letters, conflicts, a spent byte budget, repositories that could not be compared
	exitInterrupted = 130 // as a shell has it for SIGINT
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

Exit codes: 0 all done; 2 some of it needs an operator (see dead-letters), waits for tomorrow's byte budget, or could not be
compared; 130 interrupted; 1 any other failure.
` + whoDoesIt,
		Args: cobra.NoArgs,
	}
	path, out, force := configFlag(cmd), outputFlag(cmd), forceFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config.Load(*path)
		if err != nil {
			return err
		}
		s := &syncer{cfg: cfg, force: *force, plan: newPlanWriter(cmd.OutOrStdout(), out.json()), bar: newBar(cmd.ErrOrStderr()), errs: cmd.ErrOrStderr()}
		return s.run(cmd.Context())
	}
	return cmd
}

// syncer is one run of the command.
type syncer struct {
	cfg   *config.Config
	base  *aws.Config // nil: the SDK's default chain
	force bool
	plan  *planWriter
	bar   bar
	errs  io.Writer

	uncompared int
}

func (s *syncer) line(l planLine) error {
	if l.Destination != nil {
		s.uncompared += len(l.Destination.Problems) + len(l.Destination.SettingsProblems)
	}
	return s.plan.line(l)
}

func (s *syncer) run(ctx context.Context) error {
	err := s.synchronize(ctx)
	if err != nil && ctx.Err() != nil && exitCode(err) == 1 {
		return exitError{exitInterrupted, fmt.Errorf("interrupted while comparing: %w", err)}
	}
	return err
}

func (s *syncer) synchronize(ctx context.Context) error {
	admin := &adminClient{addr: s.cfg.Admin}
	_, err := admin.lines(ctx, http.MethodPost, "/sync", s.force, s.line)
	if errors.Is(err, errNotServing) {
		return s.alone(ctx)
	}
	if err := errors.Join(err, s.plan.flush()); err != nil {
		return err
	}
	return s.follow(ctx, "the mirror goes on with it", func() (p progress, err error) {
		return p, admin.decode(ctx, http.MethodGet, "/sync", &p)
	})
}

// alone does the work in this process: the mirror's workers and store, without its listeners, events and sweeps.
func (s *syncer) alone(ctx context.Context) error {
	level := &slog.HandlerOptions{Level: slog.LevelError}
	a, err := assemble(ctx, s.cfg, s.base, slog.New(slog.NewTextHandler(s.errs, level)))
	if err != nil {
		return err
	}
	planner := a.planner()
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- a.work(working) }()
	run, err := planner.sync(ctx, s.force, s.line)
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
			s.bar.show(p)
		}
		switch {
		case err == nil && p.ended():
			s.bar.end(p)
			if p.Failed > 0 || p.Waiting > 0 || s.uncompared > 0 {
				return exitError{exitLeft, fmt.Errorf("of %d jobs %d need an operator (see dead-letters) and %d wait for tomorrow's byte budget; %d repositories were not compared or set",
					p.Jobs, p.Failed, p.Waiting, s.uncompared)}
			}
			return nil
		case !sleep(ctx, followEvery):
			s.bar.end(p)
			return exitError{exitInterrupted, fmt.Errorf("interrupted: %d of %d jobs are done; %s", p.Done, p.Jobs, later)}
		}
	}
}
