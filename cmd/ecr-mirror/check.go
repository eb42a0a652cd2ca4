package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// configFlag adds the flag that names the configuration file.
func configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", "ecr-mirror.yaml", "configuration file")
}

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration and say what it means",
		Long: `Check reads the configuration and every file that it names, and reports all problems at once. No registry is asked.
With --image it says where the rules of each mirror send that image, and under which name.`,
		Args: cobra.NoArgs,
	}
	path, role := configFlag(cmd), roleFlag(cmd)
	image := cmd.Flags().String("image", "", "REPOSITORY[:TAG], as the source names it: say what the rules make of it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := loadAs(*path, *role)
		if err != nil {
			return err
		}
		if *image != "" {
			return explainImage(cmd.OutOrStdout(), cfg, *image)
		}
		return explain(cmd.OutOrStdout(), cfg)
	}
	return cmd
}

// explainImage says where the rules send an image.
func explainImage(w io.Writer, cfg *config.Config, image string) error {
	named, err := reference.Parse(image)
	repo, ok := named.(reference.Named)
	if _, digested := named.(reference.Digested); err != nil || !ok || digested {
		return registry.Errorf(registry.Invalid, "%.300q: want REPOSITORY[:TAG]", image)
	}
	tag := ""
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	for i := range cfg.Mirrors {
		m := &cfg.Mirrors[i]
		if _, err := fmt.Fprintf(w, "mirror of %v\n", m.Names); err != nil {
			return err
		}
		for _, t := range m.Targets() {
			if _, err := fmt.Fprintf(w, "  %s: %s\n", t.Registry.Host(), verdict(t.Rules, repo.Name(), tag)); err != nil {
				return err
			}
		}
	}
	return nil
}

func verdict(p *rules.Part, repo, tag string) string {
	there := p.There(repo)
	switch {
	case there == "":
		return "not copied: its name there is that of " + p.Here(repo)
	case p.Follows(repo, tag):
		return "copied if it is about an image that is there"
	case !p.Match(repo, tag):
		return "not copied: no rule wants it"
	}
	said := "copied"
	if there != repo {
		said += " as " + there
	}
	if chosen := p.Platforms(repo, tag); len(chosen) > 0 {
		said += ", of an index only " + chosen.String()
	}
	return said
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
