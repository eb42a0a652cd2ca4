// Command ecr-mirror is a pull-through mirror for Amazon ECR and any OCI registry: one binary for the mirror itself, for
// checking its configuration, and for an emulated ECR to try it on. This package holds flags, wiring and signals; it is the
// only one that knows all the others.
//
// # Limitations
//
// serve reads its configuration once: a change needs a restart, which loses no job and no complete blob.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "ecr-mirror:", err)
		os.Exit(exitCode(err))
	}
}

// exitCode is 1 unless the command has a code of its own for how it failed.
func exitCode(err error) int {
	var own exitError
	if errors.As(err, &own) {
		return own.code
	}
	return 1
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "ecr-mirror",
		Short:         "A pull-through mirror for Amazon ECR and any OCI registry",
		SilenceErrors: true, // main prints the error, once
		SilenceUsage:  true,
	}
	root.AddCommand(serveCommand(), demoCommand(), emulatorCommand(), checkCommand(), planCommand(), syncCommand(), statusCommand(), readyCommand(), deadLettersCommand(), fsckCommand(), clientConfigCommand(),
		iamPolicyCommand(), doctorCommand(), versionCommand())
	return root
}
