// Command ecr-mirror is a pull-through mirror for Amazon ECR and any OCI registry: one binary for the mirror itself, for
// checking its configuration, and for an emulated ECR to try it on. This package holds flags, wiring and signals; it is the
// only one that knows all the others. docs/commands.md is made from its commands.
//
// # Limitations
//
// serve reads its configuration once: a change needs a restart, which loses no job and no complete blob.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(cli.Run(ctx, command()))
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:     "ecr-mirror",
		Short:   "A pull-through mirror for Amazon ECR and any OCI registry",
		Version: buildVersion(),
		Long: `Ecr-mirror is a pull-through mirror for Amazon ECR and any OCI registry: pulls are answered from the local disk, else from
the destination, else from the source, and what was missing at the destination is written there.`,
	}
	cli.Assemble(root, []cli.Group{
		{Title: "Run", Commands: []*cobra.Command{serveCommand(), demoCommand(), emulatorCommand()}},
		{Title: "Replicate", Commands: []*cobra.Command{planCommand(), syncCommand(), statusCommand(), readyCommand(), deadLettersCommand()}},
		{Title: "Operate", Commands: []*cobra.Command{doctorCommand(), fsckCommand(), versionCommand()}},
		{Title: "Set up", Commands: []*cobra.Command{checkCommand(), iamPolicyCommand(), clientConfigCommand()}},
	}, cli.ExitCodesTopic(), outputTopic(), environmentTopic())
	return root
}
