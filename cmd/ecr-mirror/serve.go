package main

import (
	"io"
	"log/slog"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/config"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the mirror",
		Long: `Serve runs the mirror until SIGTERM or SIGINT, then lets open pulls finish; a second signal ends it at once.

With --role front it serves clients and writes to no destination: what it misses it hands to the workers, by the queue of
events. With --role worker it does what comes by that queue, sweeps, and serves no clients.`,
		Args: cobra.NoArgs,
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
	return cmd.Flags().String("role", "", "all, front or worker; default: what the configuration says, else all")
}

// loadAs reads the configuration at path for a process of a role; "": its own.
func loadAs(path, role string) (*config.Config, error) {
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
