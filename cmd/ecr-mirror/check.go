package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// configFlag adds the flag that names the configuration file.
func configFlag(cmd *cobra.Command) *string {
	path := cmd.Flags().StringP("config", "c", "ecr-mirror.yaml", "configuration `FILE`")
	cli.CompleteFiles(cmd, "config", "yaml", "yml")
	return path
}

func checkCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check a configuration and say what it means",
		Long: `Check reads the configuration and every file that it names, and prints all problems at once, each with its line, and notes on
what is allowed but perhaps not meant. No registry
is asked. With --image it says where the rules of each mirror send that image, and under which name.` +
			cli.ExitCodes(cli.Code{Code: cli.Found, Meaning: "the configuration has problems"}),
		Example: `
ecr-mirror check
# What the rules make of an image
ecr-mirror check --config eu.yaml --image team/app:v1
ecr-mirror check --output json`,
	}
	path, role, out := configFlag(cmd), roleFlag(cmd), cli.OutputFlag(cmd)
	image := cmd.Flags().String("image", "", "`REPOSITORY[:TAG]`, as the source names it: say what the rules make of it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		repo, tag, err := parseImage(*image)
		if err != nil {
			return cli.Exit{Code: cli.Usage, Err: err}
		}
		cfg, err := loadAs(*path, *role)
		if bad, ok := errors.AsType[*config.Error](err); ok {
			a := checked{Problems: []problem{}, Mirrors: []checkedMirror{}, Notes: []string{}}
			for _, p := range bad.Problems {
				a.Problems = append(a.Problems, problem(p))
			}
			return errors.Join(
				out.Print(cmd.OutOrStdout(), a, func(w io.Writer) error { _, err := fmt.Fprintln(w, bad); return err }),
				cli.Exitf(cli.Found, "%s: %d problems", bad.Name, len(bad.Problems)))
		}
		if err != nil {
			return err
		}
		a := newChecked(cfg, repo, tag)
		return out.Print(cmd.OutOrStdout(), a, func(w io.Writer) error {
			for _, n := range a.Notes {
				if repo == "" {
					fmt.Fprintln(cmd.ErrOrStderr(), "note:", n)
				}
			}
			return a.print(w)
		})
	}
	return cmd
}

// parseImage reads REPOSITORY[:TAG].
func parseImage(image string) (repo, tag string, err error) {
	if image == "" {
		return "", "", nil
	}
	named, err := reference.Parse(image)
	r, ok := named.(reference.Named)
	if _, digested := named.(reference.Digested); err != nil || !ok || digested {
		return "", "", fmt.Errorf("--image %.300q: want REPOSITORY[:TAG]", image)
	}
	if t, ok := named.(reference.Tagged); ok {
		tag = t.Tag()
	}
	return r.Name(), tag, nil
}

// checked is the answer of check.
type checked struct {
	Problems []problem       `json:"problems"`         // of the configuration; with any, nothing else is said
	Listen   string          `json:"listen,omitempty"` // the registry's address
	Admin    string          `json:"admin,omitempty"`  // its address
	Cache    string          `json:"cache,omitempty"`  // its directory
	Mirrors  []checkedMirror `json:"mirrors"`          // in the order of the configuration
	Notes    []string        `json:"notes"`            // what is allowed, and perhaps not meant

	image bool // which the mirrors tell of
}

type problem struct {
	Line int    `json:"line"` // of the file; 1 is the first
	Path string `json:"path"` // as in mirrors[0].source.registry; "" is the whole file
	Text string `json:"text"` // what is wrong
}

type checkedMirror struct {
	Names        []string             `json:"names"`             // the registries that it answers for
	Source       string               `json:"source"`            // its host
	Destinations []checkedDestination `json:"destinations"`      // its own first; none: it only caches
	NotMine      []string             `json:"notMine,omitempty"` // destinations that the rules name, and that mirrors elsewhere bring to
	Events       []string             `json:"events"`            // where pushes are heard of
}

type checkedDestination struct {
	Registry string `json:"registry"`        // its host
	Own      bool   `json:"own"`             // pulls are served from it
	Image    string `json:"image,omitempty"` // what the rules make of --image there
}

// newChecked says what cfg means, and what its rules make of repo, unless that is "".
func newChecked(cfg *config.Config, repo, tag string) checked {
	a := checked{Problems: []problem{}, Listen: cfg.Listen, Admin: cfg.Admin, Cache: cfg.Cache.Path, Notes: notes(cfg), image: repo != ""}
	for i := range cfg.Mirrors {
		m := &cfg.Mirrors[i]
		c := checkedMirror{Names: m.Names, Source: m.Source.Host(), Destinations: []checkedDestination{}, Events: []string{}}
		for _, t := range m.Targets() {
			d := checkedDestination{Registry: t.Registry.Host(), Own: t.Own}
			if repo != "" {
				d.Image = verdict(t.Rules, repo, tag)
			}
			c.Destinations = append(c.Destinations, d)
		}
		if m.Replication.Destinations == "own" {
			for _, d := range m.Others() {
				c.NotMine = append(c.NotMine, fmt.Sprint(d))
			}
		}
		if m.Events.SQS != "" {
			c.Events = append(c.Events, m.Events.SQS)
		}
		if m.Events.Webhook != nil {
			c.Events = append(c.Events, "webhook at "+m.Events.Webhook.Path)
		}
		a.Mirrors = append(a.Mirrors, c)
	}
	return a
}

// notes are what the configuration may say, and people seldom mean.
func notes(cfg *config.Config) []string {
	all := []string{}
	for i := range cfg.Mirrors {
		m := &cfg.Mirrors[i]
		heard := m.Events.SQS != "" || m.Events.Webhook != nil
		if len(m.Targets()) > 0 && !heard && m.Replication.Sweep == 0 {
			all = append(all, fmt.Sprintf("mirrors[%d]: no events and no sweep: only what is pulled is replicated", i))
		}
		if heard && len(m.Targets()) > 0 && m.Replication.Sweep == 0 {
			all = append(all, fmt.Sprintf("mirrors[%d]: no sweep: what events lose is found by nobody, unless sync runs now and then", i))
		}
	}
	return all
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

func (a checked) print(w io.Writer) error {
	var text strings.Builder
	if !a.image {
		fmt.Fprintf(&text, "registry on %s, admin on %s, cache in %s\n", a.Listen, a.Admin, a.Cache)
	}
	for _, m := range a.Mirrors {
		fmt.Fprintf(&text, "mirror of %v\n", m.Names)
		if a.image {
			for _, d := range m.Destinations {
				fmt.Fprintf(&text, "  %s: %s\n", d.Registry, d.Image)
			}
			continue
		}
		fmt.Fprintf(&text, "  source:      %s\n", m.Source)
		destination := "nothing: cache only"
		for _, d := range m.Destinations {
			if d.Own {
				destination = d.Registry
			}
		}
		fmt.Fprintf(&text, "  destination: %s\n", destination)
		for _, d := range m.NotMine {
			fmt.Fprintf(&text, "  not mine:    %s\n", d)
		}
		for _, d := range m.Destinations {
			if !d.Own {
				fmt.Fprintf(&text, "  and:         %s\n", d.Registry)
			}
		}
		events := strings.Join(m.Events, ", ")
		if events == "" {
			events = "none"
		}
		fmt.Fprintf(&text, "  events:      %s\n", events)
	}
	_, err := io.WriteString(w, text.String())
	return err
}
