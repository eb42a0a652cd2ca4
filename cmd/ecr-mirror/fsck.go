package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/storage"
)

// Exit codes of fsck.
const (
	exitProblems  = 1
	exitUnchecked = 2
)

func fsckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Verify every byte of the cache",
		Long: `Fsck reads every object in the cache and compares it with its digest, and the index with both. It refuses a cache that a
running mirror uses, and keeps one from starting until it is done. It changes nothing without --repair, which drops what is
bad, so that it is fetched again when somebody asks for it; nothing else is lost. What a crash leaves behind is counted as
left over: the next start puts it in order.

Exit codes: 0 nothing is wrong, or no longer; 1 something is; 2 not everything could be checked.`,
		Args: func(cmd *cobra.Command, args []string) error { return unchecked(cobra.NoArgs(cmd, args)) },
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return unchecked(err) })
	path, out := configFlag(cmd), outputFlag(cmd)
	f := fsck{}
	cmd.Flags().StringVar(&f.options.Path, "path", "", "the cache's directory (default: the configuration's cache.path)")
	cmd.Flags().BoolVar(&f.options.Repair, "repair", false, "drop what is bad")
	rate := cmd.Flags().String("rate", "", "read at most so much a second, as 50MiB (default: as fast as the disk is)")
	cmd.MarkFlagsMutuallyExclusive("config", "path")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if f.options.Path == "" {
			cfg, err := config.Load(*path)
			if err != nil {
				return unchecked(err)
			}
			f.options.Path = cfg.Cache.Path
		}
		if *rate != "" {
			var perSecond config.Size
			if err := perSecond.UnmarshalText([]byte(*rate)); err != nil {
				return unchecked(fmt.Errorf("--rate: %w", err))
			}
			f.options.BytesPerSecond = int64(perSecond)
		}
		f.json, f.out, f.err = out.json(), cmd.OutOrStdout(), cmd.ErrOrStderr()
		return f.run(cmd.Context())
	}
	return cmd
}

// unchecked gives an error the exit code of a check that did not take place.
func unchecked(err error) error {
	if err == nil {
		return nil
	}
	return exitError{exitUnchecked, err}
}

// fsck is one run of the command.
type fsck struct {
	options  storage.CheckOptions
	json     bool
	out, err io.Writer
}

// fsckAnswer is what --output json prints.
type fsckAnswer struct {
	storage.CheckReport
	Found []storage.Problem `json:"found"`
	Error string            `json:"error,omitempty"` // not everything was checked
}

func (f *fsck) run(ctx context.Context) error {
	answer := fsckAnswer{Found: []storage.Problem{}}
	progress := newReadProgress(f.err)
	o := f.options
	o.Progress = progress.show
	o.Problem = func(p storage.Problem) {
		if f.json {
			answer.Found = append(answer.Found, p)
			return
		}
		mended := ""
		if p.Repaired {
			mended = "repaired: "
		}
		progress.clear()
		fmt.Fprintf(f.out, "%s%s: %s: %s\n", mended, p.Kind, p.Path, oneLine(p.Detail))
	}
	report, err := storage.Check(ctx, o)
	progress.end()
	answer.CheckReport = report
	var written error
	if f.json {
		if err != nil {
			answer.Error = err.Error()
		}
		written = writeJSON(f.out, answer)
	} else {
		_, written = fmt.Fprintf(f.out, "%d objects, %s; %d links, %d tags, %d interrupted downloads, %d left over by a crash; %d problems, %d repaired\n",
			report.Objects, size(report.Bytes), report.Links, report.Tags, report.Fills, report.Leftover, report.Problems, report.Repaired)
	}
	if err = errors.Join(err, written); err != nil {
		return unchecked(err)
	}
	if left := report.Problems - report.Repaired; left > 0 {
		return exitError{exitProblems, fmt.Errorf("%s: %d problems", o.Path, left)}
	}
	return nil
}

// readProgress shows how much has been read: a bar on a terminal, else a line now and then.
type readProgress struct {
	w     io.Writer
	bar   *progressbar.ProgressBar // nil: no terminal
	last  time.Time                // a line was written
	every time.Duration
}

func newReadProgress(w io.Writer) *readProgress {
	p := &readProgress{w: w, last: time.Now(), every: 10 * time.Second}
	if isTerminal(w) {
		p.bar = progressbar.NewOptions64(1, progressbar.OptionSetWriter(w), progressbar.OptionShowBytes(true), progressbar.OptionShowTotalBytes(true),
			progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(), progressbar.OptionThrottle(100*time.Millisecond))
	}
	return p
}

func (p *readProgress) show(done, total int64) {
	if p.bar != nil {
		if total != p.bar.GetMax64() {
			p.bar.ChangeMax64(total)
		}
		_ = p.bar.Set64(done) // what cannot be drawn is not missed
	} else if time.Since(p.last) >= p.every {
		p.last = time.Now()
		fmt.Fprintf(p.w, "read %s of %s\n", size(done), size(total))
	}
}

// clear makes place for a line, if it is the same terminal.
func (p *readProgress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear() // as above
	}
}

func (p *readProgress) end() {
	if p.bar != nil {
		_ = p.bar.Exit() // as above
		fmt.Fprintln(p.w)
	}
}
