package ecrtest

import (
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

type lifecyclePolicy struct {
	Name string `json:"repositoryName"`
	Text string `json:"lifecyclePolicyText"`
}

func noLifecycle(r *Registry, name string) error {
	return errf("LifecyclePolicyNotFoundException", "Lifecycle policy does not exist for the repository with name '%s' in the registry with id '%s'", name, r.Account)
}

func (p *repository) lifecycleOut() map[string]any {
	out := map[string]any{"lifecyclePolicyText": p.Lifecycle}
	if !p.EvaluatedAt.IsZero() {
		out["lastEvaluatedAt"] = epoch(p.EvaluatedAt)
	}
	return out
}

func putLifecyclePolicy(c call, in lifecyclePolicy) (any, error) {
	if _, err := parseLifecycle(in.Text); err != nil {
		return nil, err
	}
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		p.Lifecycle, p.EvaluatedAt = in.Text, time.Time{}
		return map[string]any{"lifecyclePolicyText": p.Lifecycle}, nil
	})
}

func getLifecyclePolicy(c call, in repositoryName) (any, error) {
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		if p.Lifecycle == "" {
			return nil, noLifecycle(c.Registry, p.Name)
		}
		return p.lifecycleOut(), nil
	})
}

func deleteLifecyclePolicy(c call, in repositoryName) (any, error) {
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		if p.Lifecycle == "" {
			return nil, noLifecycle(c.Registry, p.Name)
		}
		out := p.lifecycleOut()
		p.Lifecycle, p.EvaluatedAt = "", time.Time{}
		return out, nil
	})
}

// preview is what a policy would do, as of when it was asked for.
type preview struct {
	text    string
	results []previewResult
}

type previewResult struct {
	Tags     []string      `json:"imageTags,omitempty"`
	Digest   digest.Digest `json:"imageDigest"`
	PushedAt epoch         `json:"imagePushedAt"`
	Action   previewAction `json:"action"`
	Priority int           `json:"appliedRulePriority"`
	Class    string        `json:"storageClass"`
}

type previewAction struct {
	Type        string `json:"type"`
	TargetClass string `json:"targetStorageClass,omitempty"`
}

// startLifecyclePreview evaluates at once; its answer still says IN_PROGRESS, as ECR's does.
func startLifecyclePreview(c call, in lifecyclePolicy) (any, error) {
	return c.change(in.Name, func(p *repository) (map[string]any, error) {
		text := in.Text
		if text == "" {
			text = p.Lifecycle
		}
		if text == "" {
			return nil, noLifecycle(c.Registry, p.Name)
		}
		l, err := parseLifecycle(text)
		if err != nil {
			return nil, err
		}
		v := &preview{text: text, results: []previewResult{}}
		for _, act := range l.evaluate(p, c.emu.now()) {
			i := p.Images[act.digest]
			action := previewAction{Type: "EXPIRE"}
			if act.rule.Action.Type == "transition" {
				action = previewAction{"TRANSITION", "ARCHIVE"}
			}
			v.results = append(v.results, previewResult{p.tagsOf(act.digest), act.digest, epoch(i.PushedAt), action, act.rule.Priority, "STANDARD"})
		}
		p.preview = v
		return map[string]any{"lifecyclePolicyText": text, "status": "IN_PROGRESS"}, nil
	})
}

func getLifecyclePreview(c call, in struct {
	paging
	Name   string      `json:"repositoryName"`
	IDs    []imageID   `json:"imageIds"`
	Filter imageFilter `json:"filter"`
}) (any, error) {
	size, err := in.size(100, 100)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.Name)
	if err != nil {
		return nil, err
	}
	v := p.preview
	if v == nil {
		return nil, errf("LifecyclePolicyPreviewNotFoundException", "Lifecycle policy preview does not exist for the repository with name '%s' in the registry with id '%s'", p.Name, c.Account)
	}
	type moving struct {
		Class string `json:"targetStorageClass"`
		Total int    `json:"imageTotalCount"`
	}
	summary := struct {
		Expiring int      `json:"expiringImageTotalCount"`
		Moving   []moving `json:"transitioningImageTotalCounts,omitempty"`
	}{}
	archive := moving{Class: "ARCHIVE"}
	var found []previewResult
	for _, r := range v.results {
		if r.Action.Type == "EXPIRE" {
			summary.Expiring++
		} else {
			archive.Total++
		}
		named := in.IDs == nil || slices.ContainsFunc(in.IDs, func(id imageID) bool { return id.ImageDigest == r.Digest || slices.Contains(r.Tags, id.ImageTag) })
		if named && (in.Filter.TagStatus != "TAGGED" || r.Tags != nil) && (in.Filter.TagStatus != "UNTAGGED" || r.Tags == nil) {
			found = append(found, r)
		}
	}
	if archive.Total > 0 {
		summary.Moving = []moving{archive}
	}
	found, next, err := page(append([]previewResult{}, found...), func(r previewResult) string { return string(r.Digest) }, in.NextToken, size)
	if err != nil {
		return nil, err
	}
	out := paged("previewResults", found, next)
	out["registryId"], out["repositoryName"], out["lifecyclePolicyText"] = c.Account, p.Name, v.text
	out["status"], out["summary"] = "COMPLETE", summary
	return out, nil
}
