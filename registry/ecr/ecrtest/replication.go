package ecrtest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// ECR's own replication (Amazon ECR User Guide, "Private image replication"): asynchronous, by rules of name prefixes, once per
// push and never further than one hop, under the same name, without settings, deletes or what was there before.

type replicationConfig struct {
	Rules []replicationRule `json:"rules"`
}

type replicationRule struct {
	Destinations []destination   `json:"destinations"`
	Filters      []replicaFilter `json:"repositoryFilters,omitempty"`
}

type destination struct {
	Region     string `json:"region"`
	RegistryID string `json:"registryId"`
}

func (d destination) place() place { return place{d.RegistryID, d.Region} }

type replicaFilter struct {
	Filter     string `json:"filter"`
	FilterType string `json:"filterType"`
}

// replica is an image's status at one destination, and what is still to be done there.
type replica struct {
	destination
	Status string // IN_PROGRESS, COMPLETE, FAILED
	Code   string // why it failed
}

// Quotas of a replication configuration (Amazon ECR User Guide, "Amazon ECR service quotas").
const (
	maxReplicationRules        = 25
	maxReplicationDestinations = 25
	maxReplicationFilters      = 100
)

func (c replicationConfig) check(own *Registry) error {
	bad := func(format string, args ...any) error {
		return invalidParameter("replicationConfiguration", fmt.Sprintf(format, args...))
	}
	unique := map[destination]bool{}
	if len(c.Rules) > maxReplicationRules {
		return bad("Member must have length less than or equal to %d", maxReplicationRules)
	}
	for _, r := range c.Rules {
		if len(r.Filters) > maxReplicationFilters || len(r.Destinations) == 0 {
			return bad("a rule has destinations, and at most %d filters", maxReplicationFilters)
		}
		for _, f := range r.Filters {
			if f.FilterType != "PREFIX_MATCH" || len(f.Filter) < 2 || len(f.Filter) > 256 {
				return bad("filterType must be PREFIX_MATCH, and filter have 2 to 256 characters")
			}
		}
		for _, d := range r.Destinations {
			switch {
			case !ValidPlace(d.RegistryID, d.Region):
				return bad("destinations have a region and a registryId of 12 digits")
			case d.place() == own.place:
				return bad("Replication destination cannot be the same as the source registry")
			case partition(d.Region) != partition(own.Region):
				return bad("Replication across partitions is not supported")
			}
			unique[d] = true
		}
	}
	if len(unique) > maxReplicationDestinations {
		return bad("at most %d unique destinations", maxReplicationDestinations)
	}
	return nil
}

// destinations are where images of repository name go.
func (c replicationConfig) destinations(name string) []destination {
	var all []destination
	for _, r := range c.Rules {
		if len(r.Filters) > 0 && !slices.ContainsFunc(r.Filters, func(f replicaFilter) bool { return strings.HasPrefix(name, f.Filter) }) {
			continue
		}
		for _, d := range r.Destinations {
			if !slices.Contains(all, d) {
				all = append(all, d)
			}
		}
	}
	return all
}

func describeRegistry(c call, _ struct{}) (any, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return map[string]any{"registryId": c.Account, "replicationConfiguration": c.Replication.out()}, nil
}

// out has an empty list where there are no rules.
func (c replicationConfig) out() replicationConfig {
	c.Rules = append([]replicationRule{}, c.Rules...)
	return c
}

func putReplicationConfiguration(c call, in struct {
	Config replicationConfig `json:"replicationConfiguration"`
}) (any, error) {
	if err := in.Config.check(c.Registry); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Replication = in.Config
	return map[string]any{"replicationConfiguration": c.Replication.out()}, c.saveSettings()
}

func describeImageReplicationStatus(c call, in struct {
	RepositoryName string  `json:"repositoryName"`
	ImageID        imageID `json:"imageId"`
}) (any, error) {
	type status struct {
		destination
		Status string `json:"status"`
		Code   string `json:"failureCode,omitempty"`
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.repo(in.RepositoryName)
	if err != nil {
		return nil, err
	}
	_, img, fail := p.lookup(in.ImageID)
	if fail != nil {
		return nil, imageNotFound(c.Registry, p, in.ImageID)
	}
	all := []status{}
	for _, r := range img.Replicas {
		all = append(all, status(r))
	}
	return map[string]any{"repositoryName": p.Name, "imageId": in.ImageID, "replicationStatuses": all}, nil
}

// replicate starts the replications of a push, and reports whether there are any. The caller holds r.mu.
func (r *Registry) replicate(p *repository, d digest.Digest, tag string) bool {
	destinations := r.Replication.destinations(p.Name)
	for _, to := range destinations {
		p.Images[d].replica(to, "IN_PROGRESS", "")
		r.emu.running.Go(func() {
			if r.emu.pause(r.emu.opt.ReplicationDelay) {
				r.finish(p.Name, d, to, r.copyTo(to, p.Name, d, tag))
			}
		})
	}
	return len(destinations) > 0
}

// replica notes the status at a destination.
func (i *image) replica(to destination, status, code string) {
	i.Replicas = append(slices.DeleteFunc(i.Replicas, func(r replica) bool { return r.destination == to }), replica{to, status, code})
}

// finish notes what became of a replication; the image may be gone.
func (r *Registry) finish(name string, d digest.Digest, to destination, code string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.repos[name]
	if p == nil || p.Images[d] == nil {
		return
	}
	status := "COMPLETE"
	if code != "" {
		status = "FAILED"
	}
	p.Images[d].replica(to, status, code)
	if err := r.save(p); err != nil {
		r.emu.opt.Log.Error("save replication status", "repository", name, "error", err)
	}
}

// resume starts anew what a restart interrupted. By then nothing knows which tag was pushed: all of the image's are.
func (r *Registry) resume() {
	for _, p := range r.repos {
		for d, i := range p.Images {
			for _, to := range i.Replicas {
				if to.Status != "IN_PROGRESS" {
					continue
				}
				r.emu.running.Go(func() {
					code := ""
					for _, tag := range append(r.tags(p.Name, d), "") {
						code = r.copyTo(to.destination, p.Name, d, tag)
					}
					r.finish(p.Name, d, to.destination, code)
				})
			}
		}
	}
}

func (r *Registry) tags(name string, d digest.Digest) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.repos[name]; p != nil {
		return p.tagsOf(d)
	}
	return nil
}

// Codes of failed replications. AWS does not list its own.
const (
	codeAccessDenied  = "AccessDenied"
	codeImageNotFound = "ImageNotFound"
	codeUnavailable   = "InternalError"
)

// copyTo brings an image with all that is under it to a destination, and returns why it could not.
func (r *Registry) copyTo(to destination, name string, d digest.Digest, tag string) (code string) {
	target := name + "@" + d.String()
	if tag != "" {
		target = name + ":" + tag
	}
	f := r.emu.record(Call{Region: to.Region, Account: to.RegistryID, Caller: r.Account, Op: "ReplicateImage", Target: target})
	dst := r.emu.find(to.RegistryID, to.Region)
	if !r.emu.pause(f.Delay) || f.Status != 0 || f.HangUp || dst == nil || dst.down.Load() || dst.unreachable.Load() {
		code = codeUnavailable
	} else if code = dst.admits(r, name); code == "" {
		code = r.copyImage(dst, name, d, tag)
	}
	if dst != nil {
		dst.mu.Lock()
		defer dst.mu.Unlock()
		dst.announceReplica(r, name, d, tag, code)
	}
	return code
}

// admits reports by its registry policy whether dst takes replicas from src: ecr:ReplicateImage, and ecr:CreateRepository for one
// that does not exist (Amazon ECR User Guide, "Registry permissions"). Within an account none is needed.
func (r *Registry) admits(src *Registry, name string) (code string) {
	if src.Account == r.Account {
		return ""
	}
	service := &principal{Account: src.Account, Name: "AWSServiceRoleForECRReplication",
		Policies: allowAll()}
	r.mu.Lock()
	defer r.mu.Unlock()
	actions := []string{"ecr:ReplicateImage"}
	if r.repos[name] == nil {
		actions = append(actions, "ecr:CreateRepository")
	}
	for _, a := range actions {
		if r.allowLocked(service, a, name) != nil {
			return codeAccessDenied
		}
	}
	return ""
}

// copyImage copies images bottom-up, one registry's lock at a time.
func (r *Registry) copyImage(dst *Registry, name string, d digest.Digest, tag string) (code string) {
	r.mu.Lock()
	p := r.repos[name]
	if p == nil || p.Images[d] == nil {
		r.mu.Unlock()
		return codeImageNotFound
	}
	img := *p.Images[d]
	layers := map[digest.Digest]layer{}
	for _, l := range img.Layers {
		layers[l] = p.Layers[l]
	}
	r.mu.Unlock()
	for _, child := range img.Children {
		if code := r.copyImage(dst, name, child, ""); code != "" {
			return code
		}
	}
	if err := dst.receive(name, d, tag, img, layers); err != nil {
		r.emu.opt.Log.Error("replicate", "repository", name, "digest", d.String(), "error", err)
		return codeUnavailable
	}
	return ""
}

// receive stores a replica. A tag that is immutable and taken stays where it is: the image comes without it. An archived image
// comes back.
func (r *Registry) receive(name string, d digest.Digest, tag string, img image, layers map[digest.Digest]layer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.repos[name]
	if p == nil {
		var err error
		if p, err = r.createFor(name, forReplication); err != nil {
			return err
		}
	}
	for l, at := range layers {
		p.Layers[l] = at
	}
	known := p.Images[d]
	if known == nil {
		img.Replicas, img.PushedAt, img.PulledAt, img.Archived = nil, r.emu.now(), time.Time{}, false
		known = &img
		p.Images[d] = known
	}
	known.Archived = false
	if old, taken := p.Tags[tag]; tag != "" && (!taken || old == d || !p.immutable(tag)) {
		p.Tags[tag] = d
	}
	if err := r.save(p); err != nil {
		return err
	}
	if r.emu.opt.Quirks.ReplicationEmitsPush {
		r.publish(p, "PUSH", d, tag, known)
	}
	return nil
}

// pause waits, and reports false when the emulator closes first.
func (e *Emulator) pause(d time.Duration) bool {
	if d <= 0 {
		return e.closing.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-e.closing.Done():
		return false
	}
}
