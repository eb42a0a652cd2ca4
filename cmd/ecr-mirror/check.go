package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/config"
)

// configFlag adds the flag that names the configuration file.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", "ecr-mirror.yaml", "configuration file")
}

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration and say what it means",
		Long:  "Check reads the configuration and every file that it names, and reports all problems at once. No registry is asked.",
		Args:  cobra.NoArgs,
	}
	path := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := config.Load(*path)
		if err != nil {
			return err
		}
		return explain(cmd.OutOrStdout(), cfg)
	}
	return cmd
}

func explain(w io.Writer, cfg *config.Config) error {
	_, err := fmt.Fprintf(w, "registry on %s, admin on %s, cache in %s\n", cfg.Listen, cfg.Admin, cfg.Cache.Path)
	for i := range cfg.Mirrors {
		m := &cfg.Mirrors[i]
		destination, events := "nothing: cache only", []string{}
		if m.Destination != nil {
			destination = m.Destination.Host()
		}
		if m.Replication.Destinations == "own" {
			for _, d := range m.Others() {
				destination += fmt.Sprintf("\n  not mine:    %s", d)
			}
		}
		for _, t := range m.Targets() {
			if !t.Own {
				destination += "\n  and:         " + t.Registry.Host()
			}
		}
		if m.Events.SQS != "" {
			events = append(events, m.Events.SQS)
		}
		if m.Events.Webhook != nil {
			events = append(events, "webhook at "+m.Events.Webhook.Path)
		}
		if len(events) == 0 {
			events = append(events, "none")
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "mirror of %v\n  source:      %s\n  destination: %s\n  events:      %s\n", m.Names, m.Source.Host(), destination, strings.Join(events, ", "))
		}
	}
	return err
}
