package main

import (
	"context"
	"sync"
)

// comparing is what the admin port answers about plans and syncs, each with its planLines.
type comparing struct {
	planner planner

	mu  sync.Mutex
	run *syncRun // the last one
}

func (c *comparing) plan(ctx context.Context, force bool, line func(any) error) {
	jobs, _, err := c.planner.plan(ctx, force, func(l planLine) error { return line(l) })
	end(line, len(jobs), err)
}

func (c *comparing) sync(ctx context.Context, force bool, line func(any) error) {
	run, err := c.planner.sync(ctx, force, func(l planLine) error { return line(l) })
	if err != nil {
		end(line, 0, err)
		return
	}
	c.mu.Lock()
	c.run = run
	c.mu.Unlock()
	end(line, run.sum.Jobs, nil)
}

func end(line func(any) error, jobs int, err error) {
	e := planEnd{Jobs: jobs}
	if err != nil {
		e.Error = err.Error()
	}
	_ = line(planLine{End: &e}) // the client is gone: nothing to do
}

func (c *comparing) progress() (any, bool) {
	c.mu.Lock()
	run := c.run
	c.mu.Unlock()
	if run == nil {
		return nil, false
	}
	return run.progress(), true
}
