package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/presence"
)

// Exit codes of ready; every other failure is 1.
const (
	exitNotYet = 2
	exitNever  = 3
)

// exitError has main end with a code of its own.
type exitError struct {
	code int
	error
}

func readyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ready REF",
		Short: "Wait until every destination can serve an image",
		Long: `Ready asks source and destinations, as status REF does, until every destination can serve REF with all its platforms and
referrers: a deployment waits for it instead of guessing how long replication takes. Where rules choose platforms it is
enough that those are there: the state is then partial, for only the mirror serves the index.

Exit codes: 0 every destination can serve it; 1 the question could not be asked; 2 not within the timeout; 3 it will not
come by itself, because no rule wants it there, or because the destination's tag is immutable and names another image.`,
		Args: cobra.ExactArgs(1),
	}
	path, out := configFlag(cmd), outputFlag(cmd)
	timeout := cmd.Flags().Duration("timeout", 10*time.Minute, "how long to wait; 0s: ask once")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		cfg, err := config.Load(*path)
		if err != nil {
			return err
		}
		a := newAsker(cfg, nil)
		defer func() {
			if closed := a.close(); closed != nil {
				err = errors.Join(err, closed)
			}
		}()
		answer, err := a.wait(cmd.Context(), args[0], *timeout)
		if answer.Images == nil {
			return err
		}
		write := func(w io.Writer) error { return writeEntries(w, answer) }
		if out.json() {
			write = func(w io.Writer) error { return writeJSON(w, answer) }
		}
		return errors.Join(err, write(cmd.OutOrStdout()))
	}
	return cmd
}

// wait asks until everything is ready, and returns the last answer. A delay between two questions grows from half a second to
// ten. Once there was an answer, a question that fails is asked again: the mirror may be restarting. The error is an exitError
// unless the question itself is wrong.
func (a *asker) wait(ctx context.Context, ref string, timeout time.Duration) (answer statusAnswer, err error) {
	deadline := time.Now().Add(timeout)
	for delay := time.Second / 2; ; delay = min(2*delay, 10*time.Second) {
		now, err := a.ask(ctx, url.Values{"ref": {ref}})
		if err != nil && answer.Images == nil {
			return statusAnswer{}, err
		}
		waiting := 0
		if err == nil {
			answer = now
		}
		for _, e := range answer.Images {
			switch e.State {
			case string(presence.Ready), string(presence.Partial):
			case stateUnwanted, replicate.Conflict.String():
				return answer, exitError{exitNever, fmt.Errorf("%s: %s will not have it: %s", ref, e.Mirror, e.State)}
			default:
				waiting++
			}
		}
		if waiting == 0 && err == nil {
			return answer, nil
		}
		left := time.Until(deadline)
		if left <= 0 || !sleep(ctx, min(delay, left)) {
			if err != nil {
				return answer, exitError{exitNotYet, fmt.Errorf("%s: %w", ref, err)}
			}
			return answer, exitError{exitNotYet, fmt.Errorf("%s: not ready at %d of %d destinations", ref, waiting, len(answer.Images))}
		}
	}
}
