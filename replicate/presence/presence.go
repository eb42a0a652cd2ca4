// Package presence asks registries which of an image's parts a destination has. It reads, and it believes no record: so it is
// right whoever brought the image there, ECR's own replication included.
//
// # Limitations
//
// A manifest that the destination has is taken to be complete below: registries accept it only after what it refers to.
// What is about a referrer (a signature of a signature) is not looked for. Of a source that does not permit to list referrers
// none are expected.
package presence

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

// State is what a destination can make of a reference.
type State string

const (
	Ready  State = "ready"  // it serves the reference, with all platforms and referrers
	Absent State = "absent" // it has nothing of the image
	Behind State = "behind" // it has the image or a part of it, but the tag is missing or names another
	// Partial: not all platforms are wanted there, and those that are are there, with their referrers. The index and its
	// tag are not, for a registry refuses an index whose images are missing: the mirror serves them.
	Partial    State = "partial"
	Incomplete State = "incomplete" // the tag is right, but platforms or referrers are missing
	Unknown    State = "unknown"    // source or destination could not be asked
	Gone       State = "gone"       // the source has no such image
)

// Registry is what is asked of source and destination. If it is a registry.Describer, times of pushes are known.
type Registry interface {
	registry.Reader
	registry.Lister
}

// Check says where to look.
type Check struct {
	Source      Registry
	Destination interface {
		Registry
		registry.Writer // for Missing alone
	}
	// Repo is what the destination calls a repository of the source; nil: the same.
	Repo func(string) string
	// Platforms choose among the images of an index; nil: all.
	Platforms rules.Platforms
}

// Part is a manifest below or about the image.
type Part struct {
	Digest  digest.Digest
	Name    string // the platform, as os/architecture/variant, a referrer's artifact type, or a tag; "" when the registry does not say
	Present bool   // at the destination
}

// Report is what was found.
type Report struct {
	State      State
	Digest     digest.Digest // what the reference names at the source; "" when that could not be asked
	Have       digest.Digest // what it names at the destination; "" when nothing
	Platforms  []Part        // of an index
	Referrers  []Part        // of the image, and of those of an index
	Tags       []Part        // that are about these images, as cosign's signatures are
	PushedAt   time.Time     // at the source; zero when unknown
	PullableAt time.Time     // when the image arrived at the destination; zero when unknown or not there
	Bytes      int64         // of the image's blobs; 0 when unknown
	Err        error         // why the state is Unknown
}

// Tag looks for what a tag names at the source.
func (c *Check) Tag(ctx context.Context, repo, tag string) Report {
	var r Report
	want, err := c.Source.Resolve(ctx, repo, tag)
	have, haveErr := c.Destination.Resolve(ctx, c.repo(repo), tag)
	if haveErr == nil {
		r.Have = have.Digest
	}
	switch {
	case registry.ClassOf(err) == registry.NotFound && err != nil:
		r.State = Gone
	case err != nil:
		r.State, r.Err = Unknown, fmt.Errorf("source: %w", err)
	case haveErr != nil && registry.ClassOf(haveErr) != registry.NotFound:
		r.State, r.Err, r.Digest = Unknown, fmt.Errorf("destination: %w", haveErr), want.Digest
	default:
		r.Digest = want.Digest
		c.fill(ctx, &r, repo, r.Have == r.Digest)
	}
	return r
}

// Content looks for an image by digest.
func (c *Check) Content(ctx context.Context, repo string, d digest.Digest) Report {
	r := Report{Digest: d}
	c.fill(ctx, &r, repo, true)
	return r
}

// fill looks for r.Digest. tagged: the destination's tag, if there is one, is right.
func (c *Check) fill(ctx context.Context, r *Report, repo string, tagged bool) {
	if err := c.parts(ctx, r, repo, tagged); err != nil {
		r.State, r.Err = Unknown, err
	}
	if r.State == Unknown || r.State == Gone {
		return
	}
	if s, ok := c.Source.(registry.Describer); ok {
		if img, err := s.Describe(ctx, repo, r.Digest); err == nil { // a time that is not known does not change the state
			r.PushedAt, r.Bytes = img.PushedAt, img.Bytes
		}
	}
	if d, ok := c.Destination.(registry.Describer); ok && r.State != Absent {
		if img, err := d.Describe(ctx, c.repo(repo), r.Digest); err == nil {
			r.PullableAt = img.PushedAt
		}
	}
}

func (c *Check) parts(ctx context.Context, r *Report, repo string, tagged bool) error {
	links, err := c.manifest(ctx, repo, r.Digest)
	if registry.ClassOf(err) == registry.NotFound && err != nil {
		r.State = Gone
		return nil
	}
	if err != nil {
		return err
	}
	chosen, partial := c.Platforms.Choose(links.Manifests)
	for _, m := range chosen {
		p := Part{Digest: m.Digest}
		if m.Platform != nil {
			p.Name = m.Platform.OS + "/" + m.Platform.Architecture
			if m.Platform.Variant != "" {
				p.Name += "/" + m.Platform.Variant
			}
		}
		r.Platforms = append(r.Platforms, p)
	}
	subjects := make([]digest.Digest, 0, 1+len(chosen))
	if !partial { // what is about an index that cannot be there is not expected there
		subjects = append(subjects, r.Digest)
	}
	for _, m := range chosen {
		if rules.Attests(m) == "" {
			subjects = append(subjects, m.Digest)
		}
	}
	if err := c.about(ctx, r, repo, subjects); err != nil {
		return err
	}
	root := []Part{{Digest: r.Digest}}
	if err := c.look(ctx, c.repo(repo), root, r.Platforms, r.Referrers); err != nil {
		return fmt.Errorf("destination: %w", err)
	}
	below := 0
	complete := true
	for _, parts := range [][]Part{r.Platforms, r.Referrers, r.Tags} {
		for _, p := range parts {
			if p.Present {
				below++
			}
			complete = complete && p.Present
		}
	}
	if partial && !root[0].Present && complete {
		r.State = Partial
		return nil
	}
	complete = complete && root[0].Present
	switch {
	case complete && tagged:
		r.State = Ready
	case root[0].Present && tagged:
		r.State = Incomplete
	case root[0].Present || below > 0 || r.Have != "":
		r.State = Behind
	default:
		r.State = Absent
	}
	return nil
}

// look notes which parts the destination has.
func (c *Check) look(ctx context.Context, repo string, lists ...[]Part) error {
	var objects []registry.Object
	for _, parts := range lists {
		for _, p := range parts {
			objects = append(objects, registry.Object{Repo: repo, Kind: registry.Manifest, Digest: p.Digest})
		}
	}
	missing, err := c.Destination.Missing(ctx, repo, objects)
	if registry.CodeOf(err) == registry.CodeNameUnknown {
		return nil
	}
	if err != nil {
		return err
	}
	lacks := make(map[digest.Digest]bool, len(missing))
	for _, o := range missing {
		lacks[o.Digest] = true
	}
	for _, parts := range lists {
		for i := range parts {
			parts[i].Present = !lacks[parts[i].Digest]
		}
	}
	return nil
}

// manifest reads what d refers to: from the destination if it has it, for that is near.
func (c *Check) manifest(ctx context.Context, repo string, d digest.Digest) (registry.Links, error) {
	links, err := c.read(ctx, c.Destination, c.repo(repo), d)
	if err == nil {
		return links, nil
	}
	links, sourceErr := c.read(ctx, c.Source, repo, d)
	if sourceErr == nil {
		return links, nil
	}
	if registry.ClassOf(sourceErr) == registry.NotFound && registry.ClassOf(err) != registry.NotFound {
		return registry.Links{}, fmt.Errorf("destination: %w", err) // the source lost it, and the destination cannot be asked
	}
	return registry.Links{}, fmt.Errorf("source: %w", sourceErr)
}

func (c *Check) read(ctx context.Context, from registry.Reader, repo string, d digest.Digest) (registry.Links, error) {
	content, err := from.Open(ctx, registry.Object{Repo: repo, Kind: registry.Manifest, Digest: d}, registry.Whole)
	if err != nil {
		return registry.Links{}, err
	}
	body, err := io.ReadAll(io.LimitReader(content, registry.MaxManifestSize+1))
	if err := errors.Join(err, content.Close()); err != nil {
		return registry.Links{}, err
	}
	if len(body) <= registry.MaxManifestSize { // else ParseManifest refuses it
		if err := registry.VerifyBytes(body, d); err != nil {
			return registry.Links{}, err
		}
	}
	return registry.ParseManifest(content.Descriptor.MediaType, body)
}

func (c *Check) repo(repo string) string {
	if c.Repo == nil {
		return repo
	}
	return c.Repo(repo)
}
