package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/arn"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

const (
	doctorTimeout = 30 * time.Second // of one check
	// clockTolerance: AWS refuses signatures that are five minutes off.
	clockTolerance = time.Minute
)

// doctor asks about everything that a configuration names, one thing after the other.
type doctor struct {
	cfg     *config.Config
	options policyOptions
	repo    string
	base    *aws.Config // nil: the SDK's default chain

	progress *cli.Progress // nil: none
	findings []finding
	seen     map[string]bool // registries that were asked about
}

func (d *doctor) failed() (n int) {
	for _, f := range d.findings {
		if f.Result == resultFailed {
			n++
		}
	}
	return n
}

func (d *doctor) note(f finding, err error) {
	switch {
	case err == nil:
		f.Result = resultOK
	case registry.ClassOf(err) == registry.Internal || registry.ClassOf(err) == registry.Invalid:
		f.Result, f.Detail, f.Needed = resultUnknown, err.Error(), nil
	default:
		f.Result, f.Detail = resultFailed, err.Error()
	}
	if registry.ClassOf(err) != registry.Denied {
		f.Needed = nil
	}
	d.add(f)
}

func (d *doctor) add(f finding) {
	d.findings = append(d.findings, f)
	d.progress.Show(cli.Step{Text: fmt.Sprintf("%d questions asked, the last: %s %s %s", len(d.findings), f.Where, f.Check, f.What)})
}

func (d *doctor) examine(ctx context.Context) {
	d.seen = map[string]bool{}
	for i := range d.cfg.Mirrors {
		m := &d.cfg.Mirrors[i]
		d.registry(ctx, m, m.Source)
		for _, t := range m.Targets() {
			if t.Own || d.cfg.Works() {
				d.registry(ctx, m, t.Registry)
			}
		}
		if m.Events.SQS != "" && (d.cfg.Works() || m.Destination != nil && m.Replication.OnMiss) {
			d.queue(ctx, m)
		}
	}
}

// registry asks about one registry: what it lets the mirror do, by the statements that iam-policy would print for it.
func (d *doctor) registry(ctx context.Context, m *config.Mirror, c config.Registry) {
	if d.seen[c.Host()] {
		return
	}
	d.seen[c.Host()] = true
	up, err := upstreams{aws: d.base}.open(ctx, c)
	if err != nil {
		d.note(finding{Check: "registry", Where: c.Host()}, err)
		return
	}
	r, ok := up.(*ecr.Registry)
	if !ok {
		ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
		defer cancel()
		_, err := up.Resolve(ctx, "ecr-mirror-doctor", "none")
		if registry.ClassOf(err) == registry.NotFound {
			err = nil
		}
		d.note(finding{Check: "registry", Where: c.Host()}, err)
		return
	}
	defer r.Close()
	if !d.identity(ctx, r, c) {
		return
	}
	repo := d.layers(ctx, r, c)
	written := m.Source.Host() != c.Host() && d.cfg.Works()
	d.permissions(ctx, r, c, repo, written)
	if written {
		rate := float64(c.Rates.PutImage)
		if rate == 0 {
			rate = ecr.DefaultRate("PutImage")
		}
		d.add(finding{Check: "quota", Where: c.Host(), What: "PutImage", Result: resultOK,
			Detail: fmt.Sprintf("at most %g a second from here; ECR's default for the account and region is 10, for all who push", rate)})
	}
}

// identity says who the mirror is there, and compares the clocks; without an answer nothing else is worth asking.
func (d *doctor) identity(ctx context.Context, r *ecr.Registry, c config.Registry) bool {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	who, err := r.Identity(ctx)
	if err == nil && d.options.principal == "" && c.RoleARN == "" {
		d.options.principal = roleOf(who.ARN)
	}
	d.note(finding{Check: "credentials", Where: c.Host(), What: who.ARN}, err)
	if err != nil {
		return false
	}
	err = nil
	if skew := who.Skew.Abs(); skew > clockTolerance {
		err = &registry.Error{Class: registry.Denied, Err: fmt.Errorf("%v off AWS's clock: signatures are refused from five minutes on", skew.Round(time.Second))}
	}
	d.note(finding{Check: "clock", Where: c.Host()}, err)
	return true
}

// roleOf is the role of a session, as policies name it.
func roleOf(caller string) string {
	a, err := arn.Parse(caller)
	if name, ok := strings.CutPrefix(a.Resource, "assumed-role/"); err == nil && ok {
		role, _, _ := strings.Cut(name, "/")
		return "arn:" + a.Partition + ":iam::" + a.AccountID + ":role/" + role
	}
	return caller
}

// layers reads a byte of some layer, which comes from another host, and returns a repository to ask about.
func (d *doctor) layers(ctx context.Context, r *ecr.Registry, c config.Registry) (repo string) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	f := finding{Check: "layers", Where: c.Host()}
	repo = d.repo
	for name, err := range r.Repositories(ctx) {
		if err != nil || repo != "" {
			break
		}
		if d.wanted(c, name) {
			repo = name
		}
	}
	if repo == "" {
		d.note(f, registry.Errorf(registry.Internal, "there is no repository to ask about: name one by --repository"))
		return ""
	}
	var err error
	for img, ierr := range d.images(ctx, r, repo) {
		if err = ierr; err != nil {
			break
		}
		if ok, rerr := d.readLayer(ctx, r, repo, img, &f); ok || rerr != nil {
			d.note(f, rerr)
			return repo
		}
	}
	if err == nil {
		err = registry.Errorf(registry.Internal, "%s has no image", repo)
	} else if registry.ClassOf(err) == registry.Denied { // permission says so
		err = registry.Errorf(registry.Internal, "%w", err)
	}
	d.note(f, err)
	return repo
}

// images are those of a repository, found by what the mirror's role may do: a front may list tags, and no more.
func (d *doctor) images(ctx context.Context, r *ecr.Registry, repo string) iter.Seq2[registry.Descriptor, error] {
	return func(yield func(registry.Descriptor, error) bool) {
		if d.cfg.Works() {
			for img, err := range r.Images(ctx, repo, time.Time{}) {
				if !yield(img.Descriptor, err) {
					return
				}
			}
			return
		}
		for tag, err := range r.Tags(ctx, repo) {
			var img registry.Descriptor
			if err == nil {
				img, err = r.Resolve(ctx, repo, tag)
			}
			if !yield(img, err) || err != nil {
				return
			}
		}
	}
}

// readLayer reads a byte of an image's config; false when the manifest has none.
func (d *doctor) readLayer(ctx context.Context, r *ecr.Registry, repo string, m registry.Descriptor, f *finding) (bool, error) {
	c, err := r.Open(ctx, registry.Object{Repo: repo, Kind: registry.Manifest, Digest: m.Digest}, registry.Whole)
	if err != nil {
		return false, err
	}
	body, err := io.ReadAll(c)
	if err = errors.Join(err, c.Close()); err != nil {
		return false, err
	}
	links, err := registry.ParseManifest(c.Descriptor.MediaType, body)
	if err != nil || len(links.Blobs) == 0 {
		return false, err
	}
	f.What = repo + "@" + links.Blobs[0].Digest.String()
	l, err := r.Open(ctx, registry.Object{Repo: repo, Kind: registry.Blob, Digest: links.Blobs[0].Digest}, registry.Range{Length: 1})
	if err != nil {
		return true, err
	}
	_, err = io.Copy(io.Discard, l)
	return true, errors.Join(err, l.Close())
}

// wanted reports whether a repository is covered by what is written to c; of a source everything is.
func (d *doctor) wanted(c config.Registry, name string) bool {
	for i := range d.cfg.Mirrors {
		for _, t := range d.cfg.Mirrors[i].Targets() {
			if t.Registry.Host() == c.Host() {
				return slices.ContainsFunc(t.Rules.Names(), func(p string) bool { return iam.Match(p, name) })
			}
		}
	}
	return true
}
