package main

import (
	"context"
	"fmt"
	"log/slog"

	"golang.org/x/sync/errgroup"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
	"github.com/ecr-mirror/ecr-mirror/replicate/settings"
)

// settling compares the settings of one destination's repositories with those of the source, and sets them where it may. Nil is one
// that does nothing.
type settling struct {
	mirror, destination string // as in a planSummary
	catalog             registry.Catalog
	source, target      registry.Settler
	rules               *rules.Part
	mapping             settings.Mapping
	converge            bool
	log                 *slog.Logger
}

// newSettling returns that of a place; nil where the configuration does not want it or a registry has no settings.
func newSettling(c *config.Mirror, t config.Target, at place, log *slog.Logger) *settling {
	source, ok := at.source.(registry.Settler)
	target, also := at.destination.(registry.Settler)
	mode := c.Replication.Settings.Mode
	if !ok || !also || mode == "" {
		return nil
	}
	placeOf := func(r config.Registry) settings.Place {
		return settings.Place{Partition: partitionOf(r), Account: r.Account, Region: r.Region}
	}
	given := t.Registry.Repositories
	return &settling{mirror: at.mirror, destination: at.name, catalog: at.source, source: source, target: target, rules: at.rules, converge: mode == "converge", log: log,
		mapping: settings.Mapping{From: placeOf(c.Source), To: placeOf(t.Registry), Keys: c.Replication.Settings.KMSKeys,
			Given: registry.Settings{TagMutability: given.TagMutability, Encryption: given.Encryption, KMSKey: given.KMSKey, Tags: given.Tags}}}
}

func settlings(all []place) (found []*settling) {
	for _, p := range all {
		if p.settings != nil {
			found = append(found, p.settings)
		}
	}
	return found
}

// settingDifference is one setting of a repository that differs, or did: action "set" is what a sync has set.
type settingDifference struct {
	Mirror      string `json:"mirror"`
	Destination string `json:"destination"`
	Action      string `json:"action"` // set, differs, fixed, keep, refused or failed
	Repository  string `json:"repository"`
	Setting     string `json:"setting"`
	Want        string `json:"want,omitempty"`
	Have        string `json:"have,omitempty"`
	Error       string `json:"error,omitempty"` // why it is refused, or failed
}

// compareSettings calls line for every setting that differs.
func (p *planner) compareSettings(ctx context.Context, sum *planSummary, line func(planLine) error) error {
	for _, s := range p.settings {
		if s.mirror != sum.Mirror || s.destination != sum.Destination {
			continue
		}
		all, err := s.compareAll(registry.WithLane(ctx, registry.LaneSweep), p.converge && s.converge)
		if err != nil {
			return fmt.Errorf("%s: settings: %w", sum.Mirror, err)
		}
		for _, r := range all {
			if r.err != nil {
				if sum.SettingsProblems == nil {
					sum.SettingsProblems = make(map[string]string)
				}
				sum.SettingsProblems[r.repo] = r.err.Error()
			}
			for _, d := range r.found {
				sum.Actions["setting "+d.Action]++
				if err := line(planLine{Setting: &d}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// settled is what became of one repository of the source.
type settled struct {
	repo  string
	found []settingDifference
	err   error // it could not be compared, or not all be set
}

// compareAll returns the repositories that the rules want, in the source's order. The error is that the source could not be listed.
func (s *settling) compareAll(ctx context.Context, set bool) ([]*settled, error) {
	var all []*settled
	for repo, err := range s.catalog.Repositories(ctx) {
		if err != nil {
			return nil, err
		}
		if s.rules.MatchRepo(repo) && s.rules.There(repo) != "" {
			all = append(all, &settled{repo: repo})
		}
	}
	var g errgroup.Group
	g.SetLimit(8)
	for _, r := range all {
		g.Go(func() error {
			s.compare(ctx, r, set)
			return nil
		})
	}
	_ = g.Wait() // none returns one
	return all, ctx.Err()
}

func (s *settling) compare(ctx context.Context, r *settled, set bool) {
	source, err := s.source.Settings(ctx, r.repo)
	if registry.CodeOf(err) == registry.CodeNameUnknown { // deleted since it was listed
		return
	}
	if err != nil {
		r.err = fmt.Errorf("source: %w", err)
		return
	}
	there := s.rules.There(r.repo)
	have, err := s.target.Settings(ctx, there)
	absent := registry.CodeOf(err) == registry.CodeNameUnknown
	if err != nil && !absent {
		r.err = fmt.Errorf("destination: %w", err)
		return
	}
	want := s.mapping.Want(source)
	for _, d := range want.Compare(have) {
		if absent && d.Action != settings.Refuse { // it is created with it
			continue
		}
		f := settingDifference{Mirror: s.mirror, Destination: s.destination, Action: d.Action.String(), Repository: r.repo, Setting: d.Setting.String(), Want: d.Want, Have: d.Have}
		switch {
		case d.Err != nil:
			f.Error = d.Err.Error()
		case d.Action == settings.Set && !s.converge:
			f.Action = "differs"
		case d.Action == settings.Set && set:
			if err := s.target.Set(ctx, there, d.Setting, want.Settings); err != nil {
				f.Action, f.Error, r.err = "failed", err.Error(), err
			}
		}
		r.found = append(r.found, f)
	}
}

// creating returns w, which creates repositories with the settings of their sources where it may.
func (s *settling) creating(w registry.Writer) registry.Writer {
	if s == nil || !s.converge {
		return w
	}
	return creator{w, s}
}

type creator struct {
	registry.Writer
	*settling
}

// CreateRepository implements registry.Provisioner. A repository whose encryption is refused is not created: it could never be put
// right. Other settings that are refused, or that cannot be set, keep no image from its place: plan shows them.
func (c creator) CreateRepository(ctx context.Context, there string) error {
	source, err := c.source.Settings(ctx, c.rules.Here(there))
	if registry.ClassOf(err) == registry.NotFound { // nothing about the destination
		err = &registry.Error{Class: registry.Unavailable, Err: err}
	}
	if err != nil {
		return fmt.Errorf("create repository %.256s: at the source: %w", there, err)
	}
	want := c.mapping.Want(source)
	if err := want.Creatable(); err != nil {
		return fmt.Errorf("create repository %.256s: %w", there, err)
	}
	if err := c.target.CreateWith(ctx, there, want.Settings); err != nil {
		return err
	}
	have, err := c.target.Settings(ctx, there)
	if err != nil {
		c.warn(there, err)
		return nil
	}
	for _, d := range want.Compare(have) {
		if d.Action != settings.Set {
			continue
		}
		if err := c.target.Set(ctx, there, d.Setting, want.Settings); err != nil {
			c.warn(there, err)
		}
	}
	return nil
}

func (c creator) warn(there string, err error) {
	c.log.Warn("a new repository has not all settings of its source: plan shows them, sync sets them", "mirror", c.mirror, "destination", c.destination, "repository", there, "error", err)
}

// cell is text for a cell of a table: on one line, and not all of a document.
func cell(text string) string {
	const most = 80
	switch runes := []rune(cli.Line(text)); {
	case len(runes) > most:
		return string(runes[:most]) + "…"
	case len(runes) == 0:
		return "-"
	default:
		return string(runes)
	}
}
