package ecrtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// lifecycle is a repository's lifecycle policy (Amazon ECR User Guide, "Lifecycle policies").
type lifecycle struct {
	Rules []lifecycleRule `json:"rules"`
}

type lifecycleRule struct {
	Priority    int    `json:"rulePriority"`
	Description string `json:"description"`
	Selection   struct {
		TagStatus    string   `json:"tagStatus"`
		Prefixes     []string `json:"tagPrefixList"`
		Patterns     []string `json:"tagPatternList"`
		StorageClass string   `json:"storageClass"`
		CountType    string   `json:"countType"`
		CountUnit    string   `json:"countUnit"`
		CountNumber  int      `json:"countNumber"`
	} `json:"selection"`
	Action struct {
		Type        string `json:"type"`
		TargetClass string `json:"targetStorageClass"`
	} `json:"action"`
}

const (
	maxLifecycleText  = 30720
	minLifecycleText  = 100
	maxLifecycleRules = 50
)

// parseLifecycle reads a policy and returns its rules by priority.
func parseLifecycle(text string) (lifecycle, error) {
	bad := func(format string, args ...any) (lifecycle, error) {
		return lifecycle{}, invalidParameter("LifecyclePolicyText", "Lifecycle policy validation failure: "+fmt.Sprintf(format, args...))
	}
	if len(text) < minLifecycleText || len(text) > maxLifecycleText {
		return bad("want %d to %d characters", minLifecycleText, maxLifecycleText)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	var l lifecycle
	if err := dec.Decode(&l); err != nil {
		return bad("%v", err)
	}
	slices.SortStableFunc(l.Rules, func(a, b lifecycleRule) int { return a.Priority - b.Priority })
	if len(l.Rules) == 0 || len(l.Rules) > maxLifecycleRules {
		return bad("want 1 to %d rules", maxLifecycleRules)
	}
	for i, r := range l.Rules {
		s := r.Selection
		lists := len(s.Prefixes) + len(s.Patterns)
		switch {
		case r.Priority < 1 || i > 0 && l.Rules[i-1].Priority == r.Priority:
			return bad("rulePriority %d: want each once, from 1", r.Priority)
		case !slices.Contains([]string{"tagged", "untagged", "any"}, s.TagStatus):
			return bad("tagStatus %q", s.TagStatus)
		case (s.TagStatus == "tagged") != (lists > 0):
			return bad("tagPrefixList or tagPatternList belongs to tagStatus tagged")
		case s.TagStatus == "any" && i != len(l.Rules)-1:
			return bad("a rule with tagStatus any has the highest rulePriority")
		case s.CountNumber < 1:
			return bad("countNumber %d", s.CountNumber)
		case !slices.Contains([]string{"imageCountMoreThan", "sinceImagePushed", "sinceImagePulled"}, s.CountType):
			return bad("countType %q", s.CountType)
		case (s.CountType == "imageCountMoreThan") != (s.CountUnit == ""), s.CountUnit != "" && s.CountUnit != "days":
			return bad("countUnit %q with countType %s", s.CountUnit, s.CountType)
		case r.Action.Type != "expire" && r.Action.Type != "transition", (r.Action.Type == "transition") != (r.Action.TargetClass == "archive"):
			return bad("action %q to %q", r.Action.Type, r.Action.TargetClass)
		}
	}
	return l, nil
}

// verdict is what a policy says of an image.
type verdict struct {
	digest digest.Digest
	rule   lifecycleRule
}

// evaluate returns the images that the rules act on. Every rule selects its images as if the others did not exist, and an image that
// a rule selected is out of the reach of those of lower priority, whether or not the rule acts on it. The children of an index stay
// as long as it does. The caller holds the registry's lock.
func (l lifecycle) evaluate(p *repository, now time.Time) []verdict {
	taken := map[digest.Digest]bool{}
	for _, i := range p.Images {
		for _, c := range i.Children {
			taken[c] = true
		}
	}
	var acts []verdict
	for _, r := range l.Rules {
		var selected []digest.Digest
		for d, i := range p.Images {
			if !taken[d] && !i.Archived && r.selects(p.tagsOf(d)) {
				selected = append(selected, d)
			}
		}
		slices.SortFunc(selected, func(a, b digest.Digest) int { // newest first
			if c := p.Images[b].PushedAt.Compare(p.Images[a].PushedAt); c != 0 {
				return c
			}
			return strings.Compare(string(a), string(b))
		})
		for n, d := range selected {
			taken[d] = true
			if r.due(n, p.Images[d], now) {
				acts = append(acts, verdict{d, r})
			}
		}
	}
	return acts
}

func (r lifecycleRule) selects(tags []string) bool {
	s := r.Selection
	switch s.TagStatus {
	case "untagged":
		return len(tags) == 0
	case "any":
		return true
	}
	for _, prefix := range s.Prefixes { // every one of the list has to be met by some tag
		if !slices.ContainsFunc(tags, func(t string) bool { return strings.HasPrefix(t, prefix) }) {
			return false
		}
	}
	for _, pattern := range s.Patterns {
		if !slices.ContainsFunc(tags, func(t string) bool { return iam.Match(pattern, t) }) {
			return false
		}
	}
	return true
}

func (r lifecycleRule) due(nth int, i *image, now time.Time) bool {
	age := time.Duration(r.Selection.CountNumber) * 24 * time.Hour
	switch r.Selection.CountType {
	case "imageCountMoreThan":
		return nth >= r.Selection.CountNumber
	case "sinceImagePulled":
		return now.Sub(latest(i.PulledAt, i.PushedAt)) > age
	}
	return now.Sub(i.PushedAt) > age
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ApplyLifecycle does now what the lifecycle policies of r say; ECR does it within a day. Expired images are announced as DELETE.
func (r *Registry) ApplyLifecycle() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(r.repos)) {
		p := r.repos[name]
		if p.Lifecycle == "" {
			continue
		}
		l, err := parseLifecycle(p.Lifecycle)
		if err != nil {
			return err
		}
		for _, v := range l.evaluate(p, r.emu.now()) {
			if v.rule.Action.Type == "transition" {
				p.Images[v.digest].archive(true, r.emu.now())
				r.publishClass(p, v.digest, "ARCHIVE")
			} else if _, _, err := r.remove(p, imageID{ImageDigest: v.digest}); err != nil {
				return err
			}
		}
		p.EvaluatedAt = r.emu.now()
		if err := r.save(p); err != nil {
			return err
		}
	}
	return nil
}
