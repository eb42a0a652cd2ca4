package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// part is something long-running.
type part struct {
	name string
	run  func(context.Context) error
}

// runStages runs all parts until ctx ends or one of them fails, and then stops stage after stage: a part outlives those of
// the stages before it, which may still be using it. It returns the first failure.
func runStages(ctx context.Context, stages ...[]part) error {
	failed := make(chan error, 1)
	report := func(err error) {
		select {
		case failed <- err:
		default: // only the first failure counts; the others follow from it
		}
	}
	stop := make([]func(), len(stages))
	for i, parts := range stages {
		stageCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		var wg sync.WaitGroup
		for _, p := range parts {
			wg.Go(func() {
				switch err := p.run(stageCtx); {
				case stageCtx.Err() == nil && err == nil:
					report(fmt.Errorf("%s: ended by itself", p.name))
				case err != nil && !(stageCtx.Err() != nil && errors.Is(err, context.Canceled)):
					report(fmt.Errorf("%s: %w", p.name, err))
				}
			})
		}
		stop[i] = func() { cancel(); wg.Wait() }
	}
	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	for _, s := range stop {
		s()
	}
	if err == nil {
		select {
		case err = <-failed: // while stopping
		default:
		}
	}
	return err
}
