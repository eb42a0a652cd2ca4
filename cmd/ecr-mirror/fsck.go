package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

func fsckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Verify every byte of the cache",
		Long: `Fsck reads every object in the cache and compares it with its digest, and the index with both. It refuses a cache that a
running mirror uses, and keeps one from starting until it is done. It changes nothing without --repair, which drops what is
bad, so that it is fetched again when somebody asks for it; nothing else is lost. What a crash leaves behind is counted as
left over: the next start puts it in order.` + cli.ExitCodes(
			cli.Code{Code: cli.OK, Meaning: "nothing is wrong, or no longer"},
			cli.Code{Code: cli.Failed, Meaning: "not everything could be checked"},
			cli.Code{Code: cli.Found, Meaning: "something is wrong"}),
		Example: `
ecr-mirror fsck
# Drop what is bad, reading 50 MiB a second
ecr-mirror fsck --repair --rate 50MiB
# Of a cache without its configuration
ecr-mirror fsck --path cache --output json`,
	}
	path, out := configFlag(cmd), cli.OutputFlag(cmd)
	f := fsck{}
	cmd.Flags().StringVar(&f.options.Path, "path", "", "the cache's `DIRECTORY` (default: the configuration's cache.path)")
	cli.CompleteDirs(cmd, "path")
	cmd.Flags().BoolVar(&f.options.Repair, "repair", false, "drop what is bad")
	rate := cmd.Flags().String("rate", "", "read at most this `SIZE` a second, as 50MiB (default: as fast as the disk is)")
	cmd.MarkFlagsMutuallyExclusive("config", "path")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.options.Path == "" {
			cfg, err := config.Load(*path)
			if err != nil {
				return err
			}
			f.options.Path = cfg.Cache.Path
		}
		if *rate != "" {
			var perSecond config.Size
			if err := perSecond.UnmarshalText([]byte(*rate)); err != nil {
				return cli.Exitf(cli.Usage, "--rate: %w", err)
			}
			f.options.BytesPerSecond = int64(perSecond)
		}
		f.output, f.out, f.err = out, cmd.OutOrStdout(), cmd.ErrOrStderr()
		return f.run(cmd.Context())
	}
	return cmd
}

// fsck is one run of the command.
type fsck struct {
	options  storage.CheckOptions
	output   *cli.Output
	out, err io.Writer
}

// fsckAnswer is the answer of fsck.
type fsckAnswer struct {
	storage.CheckReport
	Found []storage.Problem `json:"found"`
	Error string            `json:"error,omitempty"` // not everything was checked
}

func (f *fsck) run(ctx context.Context) error {
	answer := fsckAnswer{Found: []storage.Problem{}}
	progress := cli.NewProgress(f.err)
	defer progress.End()
	o := f.options
	o.Progress = func(done, total int64) { progress.Show(cli.Step{Done: done, Total: total, Bytes: true, Unit: "read"}) }
	o.Problem = func(p storage.Problem) {
		if f.output.JSON() {
			answer.Found = append(answer.Found, p)
			return
		}
		mended := ""
		if p.Repaired {
			mended = "repaired: "
		}
		progress.Aside(func() { fmt.Fprintf(f.out, "%s%s: %s: %s\n", mended, p.Kind, p.Path, cli.Line(p.Detail)) })
	}
	report, err := storage.Check(ctx, o)
	progress.End()
	answer.CheckReport = report
	if err != nil {
		answer.Error = err.Error()
	}
	written := f.output.Print(f.out, answer, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%d objects, %s; %d links, %d tags, %d interrupted downloads, %d left over by a crash; %d problems, %d repaired\n",
			report.Objects, cli.Size(report.Bytes), report.Links, report.Tags, report.Fills, report.Leftover, report.Problems, report.Repaired)
		return err
	})
	if err = errors.Join(err, written); err != nil {
		return err
	}
	if left := report.Problems - report.Repaired; left > 0 {
		return cli.Exitf(cli.Found, "%s: %d problems", o.Path, left)
	}
	return nil
}
