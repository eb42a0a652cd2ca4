package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
)

// version is set by the linker (-X main.version=…); without it the module's build information answers.
var version string

// build is the answer of version.
type build struct {
	Version  string `json:"version"`
	Go       string `json:"go"`       // the version of Go that built it
	Platform string `json:"platform"` // as linux/arm64
}

func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Long:  "Version prints the version of this program, and what built it for which platform.",
		Example: `
ecr-mirror version
ecr-mirror version --output json`,
	}
	out := cli.OutputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b := build{buildVersion(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
		return out.Print(cmd.OutOrStdout(), b, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "ecr-mirror %s (%s, %s)\n", b.Version, b.Go, b.Platform)
			return err
		})
	}
	return cmd
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
