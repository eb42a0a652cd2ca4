// Package cli is how every command of a command line behaves: its exit codes, what it says of wrong usage, its help, tables,
// JSON and progress. What the commands do is not its business.
//
// # Limitations
//
// Errors are text on standard error, with --output json as well: machines have the exit code.
package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes, the same for every command.
const (
	OK          = 0
	Failed      = 1
	Usage       = 2
	Found       = 3
	NotYet      = 4
	Never       = 5
	Interrupted = 130 // as a shell has it for SIGINT
)

// Code is a line of the table of exit codes.
type Code struct {
	Code    int
	Name    string
	Meaning string
}

// Codes are all there are.
func Codes() []Code {
	return []Code{
		{OK, "ok", "It is done, and nothing is wrong. A server that was told to end by a signal has ended in order."},
		{Failed, "failed", "It could not be done, or not asked: standard error says why."},
		{Usage, "usage", "The flags or arguments are wrong: nothing was done."},
		{Found, "found", "It is done, and what it found needs somebody: problems of a configuration, missing permissions, differences, " +
			"damage, images that could not be copied."},
		{NotYet, "not yet", "It may still come: the time to wait for it has passed."},
		{Never, "never", "It will not come by itself, however long one waits."},
		{Interrupted, "interrupted", "SIGINT (Ctrl-C) or SIGTERM came first. What was done by then stays done."},
	}
}

// Exit is an error with the exit code that it makes.
type Exit struct {
	Code int
	Err  error
}

func (e Exit) Error() string { return e.Err.Error() }
func (e Exit) Unwrap() error { return e.Err }

// Exitf returns an Exit; format may wrap an error.
func Exitf(code int, format string, args ...any) error {
	return Exit{code, fmt.Errorf(format, args...)}
}

// CodeOf is the exit code of an error: its own, else Failed.
func CodeOf(err error) int {
	if err == nil {
		return OK
	}
	if own, ok := errors.AsType[Exit](err); ok {
		return own.Code
	}
	return Failed
}

// Run runs root, prints the error, if any, on its standard error, and returns the exit code. An error that does not come from
// the command itself is one of usage. A command that ends with ctx's error was interrupted.
func Run(ctx context.Context, root *cobra.Command) int {
	ran := false
	each(root, func(cmd *cobra.Command) {
		if run := cmd.RunE; run != nil {
			cmd.RunE = func(cmd *cobra.Command, args []string) error {
				ran = true
				return run(cmd, args)
			}
		}
	})
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return OK
	}
	code := CodeOf(err)
	switch {
	case !ran:
		code = Usage
	case code == Failed && ctx.Err() != nil && errors.Is(err, context.Canceled):
		code, err = Interrupted, errors.New("interrupted")
	}
	text := strings.TrimSpace(err.Error())
	if code == Usage {
		text += " (see " + cmd.CommandPath() + " --help)"
	}
	fmt.Fprintln(root.ErrOrStderr(), root.Name()+":", text)
	return code
}

// each calls f for root and every command below it.
func each(root *cobra.Command, f func(*cobra.Command)) {
	f(root)
	for _, cmd := range root.Commands() {
		each(cmd, f)
	}
}
