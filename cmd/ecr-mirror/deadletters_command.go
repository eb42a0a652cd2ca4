package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/admin"
	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
)

// letterFlags are those of the commands below dead-letters.
type letterFlags struct {
	adminFlags
	output *cli.Output
}

func addLetterFlags(cmd *cobra.Command) letterFlags {
	return letterFlags{addAdminFlags(cmd), cli.OutputFlag(cmd)}
}

// client asks a mirror that runs: nobody else can answer.
func (f letterFlags) client() (*adminClient, error) {
	c, _, err := f.load(nil)
	if err == nil {
		c.only = true
	}
	return c, err
}

func deadLettersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead-letters",
		Short: "List, show, retry and drop what the mirror gave up",
		Long: `Dead letters are jobs that failed too often or cannot succeed (a conflict: the destination's tag is immutable and names
another image), and events that could not become jobs. These commands ask the running mirror on this host, on its admin
port; it answers nobody else but who logs in (help environment).`,
	}
	list := &cobra.Command{
		Use:   "list",
		Short: "List all dead letters",
		Long:  "List prints all dead letters, without the messages of events.",
		Example: `
ecr-mirror dead-letters list
# Of a mirror whose admin port is elsewhere on this host
ecr-mirror dead-letters list --admin 127.0.0.1:5001 --output json`,
	}
	listed := addLetterFlags(list)
	list.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := listed.client()
		if err != nil {
			return err
		}
		body, err := c.do(cmd.Context(), http.MethodGet, "/dead-letters")
		if err != nil {
			return err
		}
		defer body.Close()
		return writeLetters(cmd.OutOrStdout(), body, listed.output.JSON())
	}
	show := &cobra.Command{
		Use:               "show ID",
		Short:             "Show a dead letter with its message",
		Long:              "Show prints one dead letter; of an event also its message, as far as it was kept.",
		Example:           "ecr-mirror dead-letters show 0123456789abcdef",
		ValidArgsFunction: completeLetters,
	}
	shown := addLetterFlags(show)
	show.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := shown.client()
		if err != nil {
			return err
		}
		body, err := c.do(cmd.Context(), http.MethodGet, "/dead-letters/"+url.PathEscape(args[0]))
		if err != nil {
			return err
		}
		defer body.Close()
		return writeLetter(cmd.OutOrStdout(), body, shown.output.JSON())
	}
	retry := eachLetter("retry", http.MethodPost, "/retry")
	retry.Short = "Try jobs again now, and read events again"
	retry.Long = `Retry has jobs tried again at once, and events read again. An event that still cannot become a job stays; that is a failure.`
	retry.Example = `
ecr-mirror dead-letters retry 0123456789abcdef
# After the reason has passed
ecr-mirror dead-letters retry --all`
	drop := eachLetter("drop", http.MethodDelete, "")
	drop.Short = "Drop dead letters for good"
	drop.Long = `Drop forgets dead letters. A sweep or sync that still finds the image missing makes a new job of it.`
	drop.Example = `
ecr-mirror dead-letters drop 0123456789abcdef
ecr-mirror dead-letters drop --all --output json`
	cmd.AddCommand(list, show, retry, drop)
	return cmd
}

// eachLetter is a command that does something to dead letters one by one; those that fail do not keep it from the others.
func eachLetter(name, method, path string) *cobra.Command {
	cmd := &cobra.Command{Use: name + " [ID]...", ValidArgsFunction: completeLetters}
	flags := addLetterFlags(cmd)
	all := cmd.Flags().Bool("all", false, name+" all there are now")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		if *all == (len(ids) > 0) {
			return cli.Exitf(cli.Usage, "name dead letters by their IDs, or give --all")
		}
		c, err := flags.client()
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		if *all {
			body, err := c.do(ctx, http.MethodGet, "/dead-letters")
			if err != nil {
				return err
			}
			defer body.Close()
			err = letters(body, func(l admin.DeadLetter, _ []byte) error { ids = append(ids, l.ID); return nil })
			if err != nil {
				return err
			}
		}
		progress := cli.NewProgress(cmd.ErrOrStderr())
		defer progress.End()
		var errs []error
		for i, id := range ids {
			if len(ids) > 1 {
				progress.Show(cli.Step{Done: int64(i), Total: int64(len(ids)), Unit: "dead letters"})
			}
			body, err := c.do(ctx, method, "/dead-letters/"+url.PathEscape(id)+path)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s %s: %w", name, id, err))
				continue
			}
			err = letters(body, func(l admin.DeadLetter, line []byte) (err error) {
				progress.Aside(func() {
					if flags.output.JSON() {
						_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", line)
						return
					}
					_, err = fmt.Fprintln(cmd.OutOrStdout(), name, l.ID, what(l))
				})
				return err
			})
			if errs = append(errs, err); errors.Join(body.Close(), err) != nil {
				break
			}
		}
		return errors.Join(errs...)
	}
	return cmd
}

// letters reads one JSON object after another.
func letters(r io.Reader, each func(l admin.DeadLetter, line []byte) error) error {
	for in := json.NewDecoder(r); ; {
		var line json.RawMessage
		switch err := in.Decode(&line); {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("the mirror's answer: %w", err)
		}
		var l admin.DeadLetter
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("the mirror's answer: %w", err)
		}
		if err := each(l, line); err != nil {
			return err
		}
	}
}

func writeLetters(out io.Writer, body io.Reader, asJSON bool) error {
	if asJSON {
		_, err := io.Copy(out, body)
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	n := 0
	err := letters(body, func(l admin.DeadLetter, _ []byte) error {
		if n++; n == 1 {
			fmt.Fprintln(w, "ID\tKIND\tMIRROR\tWHAT\tTIMES\tSINCE\tREASON")
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%.160s\n", l.ID, l.Kind, l.Mirror, what(l), l.Times, l.First.Local().Format(time.DateTime), cli.Printable(l.Reason, ""))
		return err
	})
	if n == 0 && err == nil {
		fmt.Fprintln(w, "no dead letters")
	}
	return errors.Join(err, w.Flush())
}

func writeLetter(out io.Writer, body io.Reader, asJSON bool) error {
	return letters(body, func(l admin.DeadLetter, line []byte) error {
		if asJSON {
			_, err := fmt.Fprintf(out, "%s\n", line)
			return err
		}
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(w, "id\t%s\nkind\t%s\nmirror\t%s\nwhat\t%s\nreason\t%s\ntimes\t%d\nsince\t%s\n", l.ID, l.Kind, l.Mirror, what(l),
			cli.Printable(l.Reason, ""), l.Times, l.First.Local().Format(time.DateTime))
		if l.Kind == "event" {
			message := cli.Printable(l.Body, "\n\t")
			if l.Raw != nil {
				message = fmt.Sprintf("%q", l.Raw)
			}
			fmt.Fprintf(w, "last\t%s\nsize\t%d bytes\n\n%s\n", l.Last.Local().Format(time.DateTime), l.Size, message)
		}
		return w.Flush()
	})
}

// what names the image of a dead letter.
func what(l admin.DeadLetter) string {
	if l.Kind == "event" {
		return "-"
	}
	ref := l.Repository + ":" + l.Tag
	if l.Tag == "" {
		ref = l.Repository + "@" + l.Digest
	}
	return ref + " (" + l.State + ")"
}
