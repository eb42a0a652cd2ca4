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
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/cli"
	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
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

// permissions probes every action that iam-policy would print for c, which images are written to or only read from.
func (d *doctor) permissions(ctx context.Context, r *ecr.Registry, c config.Registry, repo string, written bool) {
	all, err := policies(d.cfg, d.options)
	if err != nil {
		d.note(finding{Check: "permission", Where: c.Host()}, err)
		return
	}
	prefix := "arn:" + partitionOf(c) + ":ecr:" + c.Region + ":" + c.Account + ":repository/"
	asked := map[string]bool{}
	for _, g := range all {
		for _, s := range g.Document.Statement {
			for _, res := range s.Resource {
				pattern, here := strings.CutPrefix(res, prefix)
				if res == "*" && written { // what is of no repository is for writing
					pattern, here = res, true
				}
				if g.Kind != "identity" || !here {
					continue
				}
				name := repo
				if name == "" || !iam.Match(pattern, name) {
					name = unused(pattern)
				}
				for _, action := range s.Action {
					if f := (finding{Check: "permission", Where: c.Host(), What: action, Needed: d.needed(all, g, s, c, action, res)}); !asked[action] {
						asked[action] = true
						d.probe(ctx, r, f, action, name)
					}
				}
			}
		}
	}
}

func (d *doctor) probe(ctx context.Context, r *ecr.Registry, f finding, action, name string) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	err := r.Probe(ctx, action, name)
	if err != nil && f.Needed != nil && f.Needed.Kind == "registry" && strings.Contains(err.Error(), "no identity-based policy") {
		f.Needed.Kind, f.Needed.AttachTo, f.Needed.Document.Statement[0].Principal = "identity", d.options.principal, nil
	}
	d.note(f, err)
}

// needed is the one statement that allows an action: across accounts that of the other's registry, else that of the mirror's role.
func (d *doctor) needed(all []grant, g grant, s iam.Statement, c config.Registry, action, resource string) *grant {
	one := iam.Statement{Sid: s.Sid, Effect: iam.Allow, Action: iam.Strings{action}, Resource: iam.Strings{resource}}
	for _, other := range all {
		if other.Kind == "registry" && other.AttachTo == c.Host() && resource != "*" {
			one.Principal = &iam.Principal{AWS: iam.Strings{g.AttachTo}}
			return &grant{"registry", c.Host(), iam.Document{Version: iam.Version, Statement: []iam.Statement{one}}}
		}
	}
	return &grant{"identity", g.AttachTo, iam.Document{Version: iam.Version, Statement: []iam.Statement{one}}}
}

// queue asks how the queue of events is. Receiving takes a message that stays visible to others.
func (d *doctor) queue(ctx context.Context, m *config.Mirror) {
	ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
	defer cancel()
	where := m.Events.SQS
	client, err := newQueue(ctx, where, m.Source, d.base)
	if err != nil {
		d.note(finding{Check: "queue", Where: where}, err)
		return
	}
	if !d.cfg.Works() {
		d.note(finding{Check: "queue", Where: where, What: "sqs:SendMessage"}, classed(events.Probe(ctx, client, where)))
		return
	}
	_, err = client.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: &where, MaxNumberOfMessages: 1, VisibilityTimeout: 0})
	d.note(finding{Check: "queue", Where: where, What: "sqs:ReceiveMessage"}, classed(err))
	out, err := client.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &where, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll}})
	if err != nil {
		d.note(finding{Check: "queue", Where: where, What: "events.amazonaws.com may send"},
			registry.Errorf(registry.Internal, "the doctor alone needs sqs:GetQueueAttributes: %w", err))
		return
	}
	f := finding{Check: "queue", Where: where, What: "events.amazonaws.com may send", Detail: out.Attributes["ApproximateNumberOfMessages"] + " messages wait"}
	d.note(f, d.mayArrive(m, out.Attributes))
}

// mayArrive reports whether the queue's policy lets EventBridge's rule at the source send.
func (d *doctor) mayArrive(m *config.Mirror, attributes map[string]string) error {
	queue := attributes["QueueArn"]
	rule := "arn:" + partitionOf(m.Source) + ":events:" + m.Source.Region + ":" + m.Source.Account + ":rule/" + d.options.eventRule
	policy, err := iam.Parse(iam.Queue, []byte(attributes["Policy"]))
	if attributes["Policy"] != "" && err != nil {
		return registry.Errorf(registry.Internal, "the queue's policy: %w", err)
	}
	v := iam.Decide(iam.Request{ARN: "events.amazonaws.com", Action: "sqs:SendMessage", Resource: queue, Context: map[string]string{iam.SourceARN: rule,
		iam.SourceAccount: m.Source.Account}}, nil, []iam.Document{policy})
	if !v.Allowed {
		return registry.Errorf(registry.Denied, "the queue's policy does not let %s send: see iam-policy", rule)
	}
	return nil
}

// classed gives an error of the queue a class.
func classed(err error) error {
	if err == nil {
		return nil
	}
	class := registry.Unavailable
	if s := err.Error(); strings.Contains(s, "AccessDenied") || strings.Contains(s, "not authorized") || strings.Contains(s, "InvalidClientTokenId") {
		class = registry.Denied
	}
	return &registry.Error{Class: class, Err: err}
}
