package main

import (
	"context"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

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
