package main

import (
	"io"
	"log/slog"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the mirror",
		Long: `Serve runs the mirror until SIGTERM or SIGINT, then lets open pulls finish and ends with exit code 0; a second signal ends
it at once. Its log goes to standard error, as log.level and log.format of the configuration say. The admin port answers
/healthz, /readyz and /metrics, and the commands that ask a running mirror: plan, sync, status, ready, dead-letters.

With --role front it serves clients and writes to no destination: what it misses it hands to the workers, by the queue of
events. With --role worker it does what comes by that queue, sweeps, and serves no clients.`,
		Example: `
ecr-mirror serve
ecr-mirror serve --config eu.yaml
# Of several processes the one that replicates
ecr-mirror serve --role worker`,
	}
	path, role := configFlag(cmd), roleFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadAs(*path, *role)
		if err != nil {
			return err
		}
		a, err := newApp(cmd.Context(), cfg, nil, newLogger(cmd.ErrOrStderr(), cfg.Log))
		if err != nil {
			return err
		}
		defer runtime.KeepAlive(make([]byte, ballast))
		return a.run(cmd.Context())
	}
	return cmd
}

// roleFlag adds the flag that goes before the configuration's role.
func roleFlag(cmd *cobra.Command) *string {
	role := cmd.Flags().String("role", "", "`ROLE` of the process: all, front or worker (default: what the configuration says, else all)")
	cli.CompleteWords(cmd, "role", config.RoleAll, config.RoleFront, config.RoleWorker)
	return role
}

// loadAs reads the configuration at path for a process of a role; "": its own.
func loadAs(path, role string) (*config.Config, error) {
	if !slices.Contains([]string{"", config.RoleAll, config.RoleFront, config.RoleWorker}, role) {
		return nil, cli.Exitf(cli.Usage, "--role %q: want all, front or worker", role)
	}
	cfg, err := config.Load(path)
	if err == nil {
		err = cfg.As(role)
	}
	if err != nil {
		return nil, err
	}
	return cfg, nil
}

// ballast is memory that is never touched, so it is address space and nothing else. The garbage collector lets the heap
// double before it runs, and without it the few MiB of a mirror's heap double hundreds of times a second.
const ballast = 16 << 20

func newLogger(w io.Writer, c config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Level)) // config has checked it
	o := &slog.HandlerOptions{Level: level}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
