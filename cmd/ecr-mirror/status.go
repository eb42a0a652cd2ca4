package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/replicate"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// asker answers questions about images: through the mirror that runs with the configuration, else by itself.
type asker struct {
	cfg   *config.Config
	admin *adminClient
	base  *aws.Config // nil: the SDK's default chain
	stop  []func() error
	local *answerer // what this process answers with; nil as long as the mirror runs

	progress *cli.Progress // nil: none
}

func newAsker(admin *adminClient, cfg *config.Config, base *aws.Config) *asker {
	return &asker{cfg: cfg, admin: admin, base: base}
}

// ask gives the answer of GET /status. A question that makes no sense is one of usage.
func (a *asker) ask(ctx context.Context, q url.Values) (answer statusAnswer, err error) {
	defer func() {
		if err != nil && registry.ClassOf(err) == registry.Invalid {
			err = cli.Exit{Code: cli.Usage, Err: err}
		}
	}()
	err = a.admin.decode(ctx, http.MethodGet, "/status?"+q.Encode(), &answer)
	if !errors.Is(err, errNotServing) {
		return answer, err
	}
	if a.local == nil {
		if err := a.open(ctx); err != nil {
			return answer, err
		}
	}
	if a.local.queue == nil && q.Get("ref") == "" {
		return answer, fmt.Errorf("%w with this configuration, and none has left a queue in %s: name an image, which asks the registries", errNotServing, a.cfg.Cache.Path)
	}
	return a.local.answer(ctx, q)
}

// open makes this process answer, with a copy of the queue that the last mirror left, if there is one.
func (a *asker) open(ctx context.Context) error {
	all, err := places(ctx, a.cfg, upstreams{aws: a.base, limits: ecr.NewLimits()})
	if err != nil {
		return err
	}
	var queue *replicate.Queue
	if _, err := os.Stat(queuePath(a.cfg)); err == nil {
		var stop func() error
		if queue, stop, err = copyQueue(a.cfg); err != nil {
			return inUse(a.cfg, err)
		}
		a.stop = append(a.stop, stop)
	}
	a.local = &answerer{queue, all}
	return nil
}

// copyQueue opens a copy of the queue, so that a mirror can start meanwhile; where there is none, an empty one. stop closes and
// removes it.
func copyQueue(cfg *config.Config) (queue *replicate.Queue, stop func() error, err error) {
	dir, err := os.MkdirTemp("", "ecr-mirror-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { return os.RemoveAll(dir) }
	at := filepath.Join(dir, "queue.db")
	if _, err := os.Stat(queuePath(cfg)); err == nil {
		if err := replicate.Snapshot(queuePath(cfg), at); err != nil {
			return nil, nil, errors.Join(err, remove())
		}
	}
	if queue, err = replicate.OpenQueue(at); err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return queue, func() error { return errors.Join(queue.Close(), remove()) }, nil
}

func queuePath(cfg *config.Config) string { return filepath.Join(cfg.Cache.Path, "queue.db") }

func (a *asker) close() error {
	var errs []error
	for _, f := range a.stop {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// inUse says what to do when another process has the cache directory, though no mirror answers where the configuration says.
func inUse(cfg *config.Config, err error) error {
	if errors.Is(err, storage.ErrLocked) || errors.Is(err, replicate.ErrLocked) {
		return fmt.Errorf("%s is in use by a process whose admin port is not %s: name that by --admin, or wait for its end: %w", cfg.Cache.Path, cfg.Admin, err)
	}
	return err
}

// whoAnswers is for the help of status and ready.
const whoAnswers = `While a mirror runs with the configuration on this host, it is asked through its admin port; else this command answers
itself, with the queue that the last mirror left in the cache directory, which it does not lock. --admin names another
mirror of this host.`

func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [REF]",
		Short: "Show what is where, and what is on its way",
		Long: `Status with a REF (REPOSITORY:TAG or REPOSITORY@DIGEST, with or without a registry that a mirror has as a name) asks source
and destinations: its answer is right whoever brought the image there. Without one it lists what the queue knows.

` + whoAnswers + `

States of an image:
  ready       it can be pulled there
  partial     the platforms that rules choose are there; the mirror serves the
              index
  incomplete  platforms or referrers are missing
  behind      the tag names another image, or none
  absent      it is not there
  expired     the destination's own lifecycle removed it
  unwanted    no rule wants it there
  gone        the source does not have it
  unknown     a registry could not be asked
States of a job:
  pending, leased      waiting, and being done
  dead                 given up: see dead-letters
  conflict             the destination's tag is immutable
  done, found          done here, and brought by others`,
		Example: `
# Where an image is, and what it lacks there
ecr-mirror status team/app:v1
# What was given up
ecr-mirror status --state dead --output json
# The last of one repository
ecr-mirror status --repository team/app --limit 20`,
		ValidArgsFunction: completeImages,
	}
	admin, out := addAdminFlags(cmd), cli.OutputFlag(cmd)
	state := cmd.Flags().String("state", "", "list only this `STATE`")
	repo := cmd.Flags().String("repository", "", "list only this `REPOSITORY`, as the source names it")
	cli.CompleteWords(cmd, "state", "pending", "leased", "dead", "conflict", "done", "found")
	cli.Complete(cmd, "repository", completeRepositories)
	limit := cmd.Flags().Int("limit", 100, "list at most this `NUMBER`")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		if *limit < 1 {
			return cli.Exitf(cli.Usage, "--limit %d: want 1 or more", *limit)
		}
		if len(args) > 0 && (*state != "" || *repo != "") {
			return cli.Exitf(cli.Usage, "--state and --repository choose from the list: leave them out with REF")
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
		q := url.Values{"state": {*state}, "repository": {*repo}}
		if len(args) > 0 {
			q.Set("ref", args[0])
		}
		progress := cli.NewProgress(cmd.ErrOrStderr())
		defer progress.End()
		progress.Show(cli.Step{Text: "asking"})
		answer, err := a.collect(cmd.Context(), q, *limit)
		progress.End()
		if err := errors.Join(err, cmd.Context().Err()); err != nil {
			return err // interrupted, its answer is that it does not know
		}
		return out.Print(cmd.OutOrStdout(), answer, func(w io.Writer) error { return writeEntries(w, answer) })
	}
	return cmd
}

// collect follows the pages up to limit entries.
func (a *asker) collect(ctx context.Context, q url.Values, limit int) (all statusAnswer, err error) {
	all.Images = []entry{}
	for limit > len(all.Images) {
		q.Set("limit", strconv.Itoa(min(limit-len(all.Images), 1000)))
		page, err := a.ask(ctx, q)
		if err != nil {
			return all, err
		}
		all.Images, all.Next = append(all.Images, page.Images...), page.Next
		if page.Next == "" {
			break
		}
		q.Set("after", page.Next)
	}
	return all, nil
}

func writeEntries(w io.Writer, a statusAnswer) error {
	rows := make([][]string, 0, len(a.Images))
	for _, e := range a.Images {
		name, lag := e.Repository, "-"
		if e.Tag != "" {
			name += ":" + e.Tag
		}
		if e.Lag > 0 {
			lag = strconv.FormatFloat(e.Lag, 'f', 1, 64) + "s"
		}
		note := e.Error
		if len(e.Missing) > 0 {
			note = strings.TrimPrefix(note+"; lacks "+strings.Join(e.Missing, ", "), "; ")
		}
		rows = append(rows, []string{e.Mirror, e.Destination, name, cli.Digest(e.Digest), e.State, cli.Time(e.PushedAt), cli.Time(e.PullableAt), lag,
			cli.Size(e.Bytes), strconv.Itoa(e.Attempts), cli.Line(note)})
	}
	if err := cli.Table(w, []string{"MIRROR", "DESTINATION", "IMAGE", "DIGEST", "STATE", "PUSHED", "PULLABLE", "LAG", "BYTES", "ATTEMPTS", "NOTE"}, rows); err != nil {
		return err
	}
	if a.Next != "" {
		_, err := fmt.Fprintln(w, "there is more: raise --limit")
		return err
	}
	return nil
}
