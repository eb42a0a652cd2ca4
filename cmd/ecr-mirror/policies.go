package main

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// What the mirror calls. ListImageReferrers is authorized by ecr:BatchGetImage (Amazon ECR User Guide, "Actions"), and only mounts
// need ecr:GetAuthorizationToken: for all else the mirror speaks to the control API.
func readActions() iam.Strings {
	return iam.Strings{"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"}
}

// compareActions are for sweeps, plan and sync.
func compareActions() iam.Strings { return iam.Strings{"ecr:DescribeImages"} }

func writeActions() iam.Strings {
	return iam.Strings{"ecr:CompleteLayerUpload", "ecr:CreateRepository", "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart"}
}

// settingsActions read settings, beside ecr:DescribeRepositories.
func settingsActions() iam.Strings {
	return iam.Strings{"ecr:GetLifecyclePolicy", "ecr:GetRepositoryPolicy", "ecr:ListTagsForResource"}
}

// convergeActions set them, beside ecr:TagResource.
func convergeActions() iam.Strings {
	return iam.Strings{"ecr:PutImageTagMutability", "ecr:PutLifecyclePolicy", "ecr:SetRepositoryPolicy"}
}

// mountActions are of no repository. Without them, layers are sent instead of mounted.
func mountActions() iam.Strings {
	return iam.Strings{"ecr:GetAccountSetting", "ecr:GetAuthorizationToken"}
}

// grant is a policy and where it belongs.
type grant struct {
	Kind     string       `json:"kind"`   // identity, trust, registry, queue or key
	AttachTo string       `json:"attach"` // a role's, registry's, queue's or key's ARN; of a registry its host
	Document iam.Document `json:"policy"`
}

func (g grant) where() string {
	what := map[string]string{"identity": "identity policy of", "trust": "trust policy of", "registry": "registry policy (put-registry-policy) of",
		"queue": "policy of the queue", "key": "statements for the policy of the key"}
	return what[g.Kind] + " " + g.AttachTo
}

type policyOptions struct{ principal, eventRule, queueKey string }

// grants collects statements by where they belong, in the order of their need.
type grants struct {
	policyOptions
	cfg *config.Config
	all []grant
}

func (g *grants) add(kind, attachTo string, s iam.Statement) {
	i := slices.IndexFunc(g.all, func(x grant) bool { return x.Kind == kind && x.AttachTo == attachTo })
	if i < 0 {
		i = len(g.all)
		g.all = append(g.all, grant{kind, attachTo, iam.Document{Version: iam.Version}})
	}
	d := &g.all[i].Document
	s.Effect = iam.Allow
	for j, old := range d.Statement { // the same said of more
		if old.Sid == s.Sid && slices.Equal(old.Action, s.Action) {
			for _, r := range s.Resource {
				if !slices.Contains(old.Resource, r) {
					d.Statement[j].Resource = append(d.Statement[j].Resource, r)
				}
			}
			return
		}
	}
	d.Statement = append(d.Statement, s)
}

// policies returns the least policies for cfg.
func policies(cfg *config.Config, o policyOptions) ([]grant, error) {
	if err := o.check(cfg); err != nil {
		return nil, err
	}
	g := &grants{policyOptions: o, cfg: cfg}
	for i := range cfg.Mirrors {
		m := &cfg.Mirrors[i]
		if err := g.mirror(m); err != nil {
			return nil, fmt.Errorf("mirror %s: %w", m.Names[0], err)
		}
	}
	return g.all, nil
}

func (g *grants) mirror(m *config.Mirror) error {
	if !g.cfg.Works() {
		return g.front(m)
	}
	targets := m.Targets()
	g.registry(m.Source, "Read", g.readActions(), "*")
	if len(targets) > 0 {
		g.registry(m.Source, "Compare", compareActions(), "*")
		g.registry(m.Source, "ListRepositories", iam.Strings{"ecr:DescribeRepositories"}, "*")
	}
	propagates := m.Replication.Deletes == "propagate"
	mode := m.Replication.Settings.Mode
	if mode != "" && len(targets) > 0 {
		g.registry(m.Source, "ReadSettings", settingsActions(), "*")
	} else if propagates {
		g.registry(m.Source, "ReadLifecycle", iam.Strings{"ecr:GetLifecyclePolicy"}, "*")
	}
	for _, t := range targets {
		g.registry(t.Registry, "Read", g.readActions(), "*")
		g.registry(t.Registry, "Compare", compareActions(), "*")
		g.registry(t.Registry, "ListRepositories", iam.Strings{"ecr:DescribeRepositories"}, "*")
		names := t.Rules.Names()
		g.registry(t.Registry, "Write", writeActions(), names...)
		if t.Registry.IsECR() {
			g.add("identity", g.caller(t.Registry), iam.Statement{Sid: "Mount", Action: mountActions(), Resource: iam.Strings{"*"}})
		}
		if mode != "" {
			g.registry(t.Registry, "ReadSettings", settingsActions(), names...)
		}
		if mode == "converge" {
			g.registry(t.Registry, "WriteSettings", convergeActions(), names...)
		}
		if len(t.Registry.Repositories.Tags) > 0 || mode == "converge" {
			g.registry(t.Registry, "TagRepositories", iam.Strings{"ecr:TagResource"}, names...)
		}
		g.keys(m, t.Registry)
		if propagates {
			g.registry(t.Registry, "Delete", iam.Strings{"ecr:BatchDeleteImage"}, names...)
		}
	}
	if m.Events.SQS == "" {
		return nil
	}
	return g.queue(m)
}

// front allows to read, and to send what was missed to the queue.
func (g *grants) front(m *config.Mirror) error {
	g.registry(m.Source, "Read", g.readActions(), "*")
	if m.Destination == nil {
		return nil
	}
	g.registry(*m.Destination, "Read", g.readActions(), "*")
	if !m.Replication.OnMiss {
		return nil
	}
	arn, err := queueARN(m)
	if err != nil {
		return err
	}
	g.toQueue(arn, "sqs:SendMessage")
	g.useKey("kms:Decrypt", "kms:GenerateDataKey")
	return nil
}

// readActions are of a mirror that serves clients, or not. At a destination that it only writes to, a worker reads to see what is
// there, and ecr:GetDownloadUrlForLayer is what a mount takes.
func (g *grants) readActions() iam.Strings {
	if g.cfg.Fronts() {
		return append(readActions(), "ecr:ListImages")
	}
	return readActions()
}

// keys allows the encryption of repositories that are created. IAM knows no alias: one stands for all keys of its account and region.
func (g *grants) keys(m *config.Mirror, r config.Registry) {
	var keys iam.Strings
	if own := r.Repositories; own.KMSKey != "" {
		keys = append(keys, own.KMSKey)
	} else if s := m.Replication.Settings; s.Mode == "converge" && own.Encryption == "" && r.IsECR() {
		here := "arn:" + partitionOf(r) + ":kms:" + r.Region + ":"
		for _, key := range s.KMSKeys {
			if strings.HasPrefix(key, "alias/") {
				key = here + r.Account + ":" + key
			}
			place, _, alias := strings.Cut(key, ":alias/")
			if alias {
				key = place + ":key/*"
			}
			if strings.HasPrefix(key, here) {
				keys = append(keys, key)
			}
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
	}
	if len(keys) > 0 {
		g.add("identity", g.caller(r), iam.Statement{Sid: "EncryptRepositories", Action: iam.Strings{"kms:CreateGrant", "kms:DescribeKey"},
			Resource: keys, Condition: iam.Condition{"StringEquals": {iam.ViaService: {"ecr." + r.Region + ".amazonaws.com"}}}})
	}
}

// caller is who calls a registry: the role that it is reached with, or the mirror itself.
func (g *grants) caller(r config.Registry) string {
	if r.RoleARN != "" {
		return r.RoleARN
	}
	return g.principal
}

// registry allows actions on repositories of r to its caller, on both sides where they are of two accounts.
func (g *grants) registry(r config.Registry, sid string, actions iam.Strings, names ...string) {
	if !r.IsECR() {
		return
	}
	var resources iam.Strings
	for _, n := range names {
		resources = append(resources, "arn:"+partitionOf(r)+":ecr:"+r.Region+":"+r.Account+":repository/"+n)
	}
	caller := g.caller(r)
	if r.RoleARN != "" && r.RoleARN != g.principal {
		g.add("identity", g.principal, iam.Statement{Sid: "AssumeRoles", Action: iam.Strings{"sts:AssumeRole"}, Resource: iam.Strings{r.RoleARN}})
		g.add("trust", r.RoleARN, iam.Statement{Sid: "Mirror", Principal: &iam.Principal{AWS: iam.Strings{g.principal}}, Action: iam.Strings{"sts:AssumeRole"}})
	}
	g.add("identity", caller, iam.Statement{Sid: sid, Action: actions, Resource: resources})
	if accountOf(caller) != r.Account {
		g.add("registry", r.Host(), iam.Statement{Sid: g.title() + sid, Principal: &iam.Principal{AWS: iam.Strings{caller}}, Action: actions, Resource: resources})
	}
}

// title starts the names of statements in policies that are of others, and that several roles have in common.
func (g *grants) title() string {
	return map[string]string{config.RoleAll: "Mirror", config.RoleFront: "Front", config.RoleWorker: "Worker"}[g.cfg.Role]
}

// queueARN returns the queue that m's events come by.
func queueARN(m *config.Mirror) (string, error) {
	u, err := url.Parse(m.Events.SQS)
	path := strings.Split(strings.Trim(u.Path, "/"), "/")
	if err != nil || len(path) != 2 {
		return "", fmt.Errorf("events.sqs %s: want https://HOST/ACCOUNT/NAME", m.Events.SQS)
	}
	region := m.Source.Region
	if labels := strings.Split(u.Hostname(), "."); labels[0] == "sqs" && len(labels) > 2 {
		region = labels[1]
	}
	return "arn:" + partitionOf(m.Source) + ":sqs:" + region + ":" + path[0] + ":" + path[1], nil
}

// toQueue allows actions on the queue, on both sides where it is another account's.
func (g *grants) toQueue(arn string, actions ...string) {
	g.add("identity", g.principal, iam.Statement{Sid: "Queue", Action: actions, Resource: iam.Strings{arn}})
	if accountOf(g.principal) != accountOf(arn) {
		g.add("queue", arn, iam.Statement{Sid: g.title(), Principal: &iam.Principal{AWS: iam.Strings{g.principal}}, Action: actions, Resource: iam.Strings{arn}})
	}
}

// useKey allows the use of the queue's key, if it has one, on both sides where it is another account's.
func (g *grants) useKey(actions ...string) {
	if g.queueKey == "" {
		return
	}
	g.add("identity", g.principal, iam.Statement{Sid: "QueueKey", Action: actions, Resource: iam.Strings{g.queueKey}})
	if accountOf(g.principal) != accountOf(g.queueKey) {
		g.add("key", g.queueKey, iam.Statement{Sid: g.title(), Principal: &iam.Principal{AWS: iam.Strings{g.principal}}, Action: actions, Resource: iam.Strings{"*"}})
	}
}

// queue allows the mirror to work off its queue, and EventBridge to fill it.
func (g *grants) queue(m *config.Mirror) error {
	arn, err := queueARN(m)
	if err != nil {
		return err
	}
	actions := []string{"sqs:DeleteMessage", "sqs:ReceiveMessage"}
	if m.Events.Shared {
		actions = append(actions, "sqs:ChangeMessageVisibility")
		slices.Sort(actions)
	}
	g.toQueue(arn, actions...)
	region := strings.Split(arn, ":")[3]
	rule := iam.Condition{"ArnEquals": {iam.SourceARN: {"arn:" + partitionOf(m.Source) + ":events:" + region + ":" + m.Source.Account + ":rule/" + g.eventRule}}}
	bridge := &iam.Principal{Service: iam.Strings{"events.amazonaws.com"}}
	g.add("queue", arn, iam.Statement{Sid: "Events", Principal: bridge, Action: iam.Strings{"sqs:SendMessage"}, Resource: iam.Strings{arn}, Condition: rule})
	if g.queueKey != "" {
		g.useKey("kms:Decrypt")
		g.add("key", g.queueKey, iam.Statement{Sid: "Events", Principal: bridge, Action: iam.Strings{"kms:Decrypt", "kms:GenerateDataKey"}, Resource: iam.Strings{"*"}})
	}
	return nil
}

// accountOf returns the account in an ARN.
func accountOf(arn string) string {
	f := strings.Split(arn, ":")
	if len(f) < 6 {
		return ""
	}
	return f[4]
}

// partitionOf returns the partition of a registry: its host's, else that of most regions.
func partitionOf(r config.Registry) string {
	if h, ok := ecr.ParseHost(r.Host()); ok {
		return h.Partition
	}
	return ecr.PartitionOf(r.Region)
}
