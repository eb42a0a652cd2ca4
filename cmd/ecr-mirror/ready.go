package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/replicate/presence"
)

func readyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ready REF",
		Short: "Wait until every destination can serve an image",
		Long: `Ready asks source and destinations, as status REF does, until every destination can serve REF with all its platforms and
referrers: a deployment waits for it instead of guessing how long replication takes. Where rules choose platforms it is
enough that those are there: the state is then partial, for only the mirror serves the index.

` + whoAnswers + cli.ExitCodes(
			cli.Code{Code: cli.OK, Meaning: "every destination can serve it"},
			cli.Code{Code: cli.NotYet, Meaning: "not within --timeout, or a registry could not be asked at the end"},
			cli.Code{Code: cli.Never, Meaning: "no rule wants it there, or the destination's tag is immutable and names another image"}),
		Example: `
# A deployment that waits for its image
ecr-mirror ready team/app:v1 --timeout 5m && kubectl rollout restart deployment/app
# Ask once
ecr-mirror ready team/app:v1 --timeout 0s --output json
# Of one of several mirrors, by its source's or destination's name
ecr-mirror ready 111122223333.dkr.ecr.us-west-2.amazonaws.com/team/app:v1`,
		ValidArgsFunction: completeImages,
	}
	admin, out := addAdminFlags(cmd), cli.OutputFlag(cmd)
	timeout := cmd.Flags().Duration("timeout", 10*time.Minute, "how long to wait, as a `DURATION` like 90s or 10m; 0s asks once")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if *timeout < 0 {
			return cli.Exitf(cli.Usage, "--timeout %v: want 0s or more", *timeout)
		}
		client, cfg, err := admin.load(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		a := newAsker(client, cfg, nil)
		defer func() {
			if closed := a.close(); closed != nil {
				err = errors.Join(err, closed)
			}
		}()
		a.progress = cli.NewProgress(cmd.ErrOrStderr())
		defer a.progress.End()
		answer, err := a.wait(cmd.Context(), args[0], *timeout)
		if answer.Images == nil {
			return err
		}
		a.progress.End()
		return errors.Join(err, out.Print(cmd.OutOrStdout(), answer, func(w io.Writer) error { return writeEntries(w, answer) }))
	}
	return cmd
}

// wait asks until everything is ready, and returns the last answer. A delay between two questions grows from half a second to
// ten. Once there was an answer, a question that fails is asked again: the mirror may be restarting. The error is a cli.Exit
// unless the first question failed.
func (a *asker) wait(ctx context.Context, ref string, timeout time.Duration) (answer statusAnswer, err error) {
	deadline := time.Now().Add(timeout)
	for delay := time.Second / 2; ; delay = min(2*delay, 10*time.Second) {
		now, err := a.ask(ctx, url.Values{"ref": {ref}})
		if err != nil && answer.Images == nil {
			return statusAnswer{}, err
		}
		if err == nil {
			answer = now
		}
		waiting, why := 0, ""
		for _, e := range answer.Images {
			switch e.State {
			case string(presence.Ready), string(presence.Partial):
			case stateUnwanted, replicate.Conflict.String():
				return answer, cli.Exitf(cli.Never, "%s: %s will not have it: %s", ref, e.Mirror, e.State)
			default:
				waiting++
				why = e.State
			}
		}
		if waiting == 0 && err == nil {
			return answer, nil
		}
		left := time.Until(deadline)
		if err != nil {
			why = "asking again"
		}
		a.progress.Show(cli.Step{Text: fmt.Sprintf("%s: ready at %d of %d destinations (%s)", ref, len(answer.Images)-waiting, len(answer.Images), why)})
		if left <= 0 || !sleep(ctx, min(delay, left)) {
			switch {
			case ctx.Err() != nil:
				return answer, cli.Exitf(cli.Interrupted, "%s: interrupted: not ready at %d of %d destinations", ref, waiting, len(answer.Images))
			case err != nil:
				return answer, cli.Exitf(cli.NotYet, "%s: %w", ref, err)
			}
			return answer, cli.Exitf(cli.NotYet, "%s: not ready at %d of %d destinations", ref, waiting, len(answer.Images))
		}
	}
}
