package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// decisions are the permission checks of a run.
type decisions struct {
	mu   sync.Mutex
	all  []iam.Request
	fail []string
}

func (d *decisions) note(r iam.Request, v iam.Verdict) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if strings.HasSuffix(r.ARN, "user/admin") { // of the test itself
		return
	}
	d.all = append(d.all, r)
	if !v.Allowed {
		d.fail = append(d.fail, fmt.Sprintf("%s: %s on %s %s", r.ARN, r.Action, r.Resource, v.Why))
	}
}

// judge reports what was denied, and what of the policies was not needed.
func (d *decisions) judge(t *testing.T, printed []grant) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.fail {
		t.Errorf("denied: %s", f)
	}
	for _, g := range printed {
		for i, s := range g.Document.Statement {
			for _, action := range s.Action {
				if !slices.ContainsFunc(d.all, func(r iam.Request) bool { return r.Action == action && needed(g, i, r) }) {
					t.Errorf("%s: statement %s: %s is not needed", g.where(), s.Sid, action)
				}
			}
		}
	}
}

// A mirror with nothing but the policies that are printed does all that it does, and uses every action of every statement: without
// the statement the call would have been denied.
func TestPrintedPoliciesSuffice(t *testing.T) {
	const key, queueKey = "arn:aws:kms:eu-central-1:444455556666:key/k", "arn:aws:kms:us-west-2:111122223333:key/q"
	const encrypted = "repositories: {encryption: KMS, kmsKey: \"" + key + "\", tags: {a: b}}"
	for name, tc := range map[string]struct{ source, events, replication, repositories string }{
		"its own role in both accounts":             {"", "", ", deletes: propagate, deletion: {grace: 0s}", encrypted},
		"a role of each account and a shared queue": {"roleArn: arn:aws:iam::" + demoSourceAccount + ":role/reader, ", ", shared: true", "", encrypted},
		"settings that are shown":                   {"", "", ", settings: {mode: show}", encrypted},
		"settings that are set":                     {"", "", ", deletes: propagate, deletion: {grace: 0s}, settings: {mode: converge, kmsKeys: {'" + sourceKey + "': alias/mirror}}", "repositories: {}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rec := &decisions{}
			r := newRigWith(t, emulatorOptions{strict: true, decisions: rec.note}, "- source: {registry: $source, endpoint: $endpoint}\n")
			for _, account := range []string{demoSourceAccount, demoDestinationAccount} { // the setting that counts is the caller's account's
				_, err := awsecr.NewFromConfig(r.emu.Config(account, demoDestinationRegion)).PutAccountSetting(t.Context(),
					&awsecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: aws.String("ENABLED")})
				must(t, err)
			}
			const queue = "arn:aws:sqs:" + demoSourceRegion + ":" + demoSourceAccount + ":pushes"
			q := sqs.NewFromConfig(r.emu.Config(demoSourceAccount, demoSourceRegion))
			_, err := q.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("pushes"), Attributes: map[string]string{"KmsMasterKeyId": queueKey}})
			must(t, err)
			yaml := fmt.Sprintf(`
listen: 127.0.0.1:0
admin: 127.0.0.1:0
cache: {path: %s, size: 1GiB}
mirrors:
- source: {%sregistry: %s, endpoint: %q}
  destination: {registry: "http://%s", type: ecr, account: %q, region: %s, endpoint: %q, %s}
  events: {sqs: %q%s}
  replication: {rules: [{repositories: ["team/**"]}]%s}
`, t.TempDir(), tc.source, demoSourceHost, r.emu.ControlURL(), r.emu.RegistryHost(demoDestinationAccount, demoDestinationRegion), demoDestinationAccount, demoDestinationRegion, r.emu.ControlURL(), tc.repositories, r.emu.QueueURL(demoSourceAccount, demoSourceRegion, "pushes"), tc.events, tc.replication)
			cfg, err := config.Parse("test.yaml", []byte(yaml), os.LookupEnv)
			must(t, err)
			printed, err := policies(cfg, policyOptions{eventRule: "ecr-mirror", queueKey: queueKey})
			must(t, err)
			creds := r.attach(printed)
			t.Cleanup(func() { rec.judge(t, printed) }) // once the mirror has stopped
			must(t, r.emu.Rule(demoSourceAccount, demoSourceRegion, "ecr-mirror", `{"source":["aws.ecr"]}`, queue))

			base := aws.Config{Region: demoSourceRegion, BaseEndpoint: aws.String(r.emu.ControlURL()),
				Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil })}
			m := &rig{t: t, emu: r.emu, source: r.source, destination: r.destination, push: r.push, arrives: r.arrives, yaml: yaml, aws: &base}
			m.app = startApp(t, yaml, &base)
			m.url = "http://" + m.app.registryAddr.String()
			m.mirror, err = remote.New(remote.Options{Registry: m.url})
			must(t, err)
			source, destination := m.owners()
			created(t, source, "team/drift", someSettings())
			must(t, destination.CreateRepository(t.Context(), "team/drift"))
			created(t, source, "team/encrypted", someSettings())
			m.seed("team/encrypted", "v1", registrytest.Image(5, 100))
			m.everything()
		})
	}
}

// needed reports whether a request would be denied without statement i of g.
func needed(g grant, i int, r iam.Request) bool {
	decide := func(d iam.Document) bool {
		if g.Kind == "identity" {
			r.Owner = r.Account
			return r.ARN == g.AttachTo && iam.Decide(r, []iam.Document{d}, nil).Allowed
		}
		r.Owner = "another"
		everything := []iam.Document{{Statement: []iam.Statement{{Effect: iam.Allow, Action: iam.Strings{"*"}, Resource: iam.Strings{"*"}}}}}
		return iam.Decide(r, everything, []iam.Document{d}).Allowed
	}
	return decide(g.Document) && !decide(g.Document.Without(i))
}

// attach puts policies where they belong, and returns the credentials of the mirror's own role.
func (r *rig) attach(printed []grant) (own aws.Credentials) {
	r.t.Helper()
	for _, g := range printed {
		name := g.AttachTo[strings.LastIndexByte(g.AttachTo, '/')+1:]
		var err error
		switch g.Kind {
		case "identity":
			var c aws.Credentials
			if c, err = r.emu.RoleWith(accountOf(g.AttachTo), name, g.Document.String()); own.AccessKeyID == "" {
				own = c
			}
		case "trust":
			err = r.emu.Trust(accountOf(g.AttachTo), name, g.Document.String())
		case "registry":
			api := awsecr.NewFromConfig(r.emu.Config(demoSourceAccount, demoSourceRegion))
			_, err = api.PutRegistryPolicy(r.t.Context(), &awsecr.PutRegistryPolicyInput{PolicyText: aws.String(g.Document.String())})
		case "queue":
			q := sqs.NewFromConfig(r.emu.Config(demoSourceAccount, demoSourceRegion))
			_, err = q.SetQueueAttributes(r.t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: aws.String(r.emu.QueueURL(demoSourceAccount, demoSourceRegion, "pushes")),
				Attributes: map[string]string{"Policy": g.Document.String()}})
		case "key":
			err = r.emu.KeyPolicy(g.AttachTo, g.Document.String())
		}
		must(r.t, err)
	}
	return own
}

// everything has the mirror do all that it can: replicate by event and by miss, list, compare, and delete.
func (r *rig) everything() {
	t := r.t
	evented, missed, swept := registrytest.Image(1, 1000), registrytest.Image(2, 1000), registrytest.Image(3, 1000)
	must(t, r.source.CreateRepository("team/app"))
	registrytest.Push(t, r.push, "team/app", "evented", evented)
	r.eventually("the event replicated the image", func() bool { return r.replicated("team/app", "evented", evented) })
	r.seed("team/app", "missed", missed)
	must(t, r.pulled("team/app", "missed"))
	r.eventually("the pull replicated the image", func() bool { return r.replicated("team/app", "missed", missed) })
	for _, err := range r.mirror.Tags(t.Context(), "team/app") {
		must(t, err)
	}
	for _, err := range r.mirror.Referrers(t.Context(), "team/app", missed.Desc.Digest, "") {
		must(t, err)
	}
	theirs := registrytest.Image(4, 1000) // only the destination has it
	registrytest.Push(t, r.arrives, "team/app", "theirs", theirs)
	_, err := r.read(registry.Object{Repo: "team/app", Digest: theirs.Blobs[0].Desc.Digest}, theirs.Blobs[0].Desc.Size)
	must(t, err)
	r.seed("other", "v1", swept) // no rule wants it: it is only in the source
	_, err = r.mirror.Stat(t.Context(), registry.Object{Repo: "other", Digest: swept.Blobs[0].Desc.Digest})
	must(t, err)
	r.seed("team/new", "swept", swept)
	if code, printed := r.sync(t.Context(), r.config(true), false); code != 0 || !r.replicated("team/new", "swept", swept) {
		t.Errorf("sync: exit code %d: %s", code, printed)
	}
	r.seed("team/new", "swept", missed) // the tag moves
	if code, printed := r.sync(t.Context(), r.config(true), false); code != 0 || !r.replicated("team/new", "swept", missed) {
		t.Errorf("sync: exit code %d: %s", code, printed)
	}
	if len(r.app.reapers) == 0 { // the queue is shared: what a replica was at when it stopped is for the others at once
		held := make(chan struct{})
		reached := sync.OnceFunc(func() { close(held) })
		r.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
			if c.Op != "PutImage" || c.Region != demoDestinationRegion {
				return ecrtest.Fault{}
			}
			reached()
			return ecrtest.Fault{Delay: time.Hour}
		})
		must(t, r.source.CreateRepository("team/held"))
		registrytest.Push(t, r.push, "team/held", "v1", missed)
		<-held
		return
	}
	api := awsecr.NewFromConfig(r.emu.Config(demoSourceAccount, demoSourceRegion))
	_, err = api.BatchDeleteImage(t.Context(), &awsecr.BatchDeleteImageInput{RepositoryName: aws.String("team/app"),
		ImageIds: []types.ImageIdentifier{{ImageDigest: aws.String(evented.Desc.Digest.String())}}})
	must(t, err)
	r.eventually("the deletion was carried on", func() bool {
		for _, reaper := range r.app.reapers {
			must(t, reaper.Once(t.Context()))
		}
		return !r.replicated("team/app", "evented", evented)
	})
}

// What is printed for people is each policy below where it belongs, and nothing that the configuration at hand does not need.
func TestIAMPolicyCommand(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	must(t, os.WriteFile(file, []byte(`
cache: {path: /var/lib/ecr-mirror}
mirrors:
- source: {registry: 111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn}
  destination: {registry: 111122223333.dkr.ecr.cn-northwest-1.amazonaws.com.cn}
  replication: {rules: [{repositories: ["team/**"], rename: {to: copy/}}]}
- source: {registry: registry.example.com}
`), 0o600))
	run := func(args ...string) (string, error) {
		cmd := command()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"iam-policy", "--config", file}, args...))
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	got, err := run()
	must(t, err)
	for _, want := range []string{"# identity policy of arn:aws-cn:iam::111122223333:role/ecr-mirror\n", `"arn:aws-cn:ecr:cn-northwest-1:111122223333:repository/copy/team/*"`, `"ecr:PutImage"`} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	for _, not := range []string{"sqs:", "kms:", "sts:", "registry policy", "BatchDelete", "ReplicateImage", "TagResource", "RepositoryPolicy", "ListTags", "LifecyclePolicy", "Mutability"} {
		if strings.Contains(got, not) {
			t.Errorf("%s in\n%s", not, got)
		}
	}
	got, err = run("--output", "json", "--principal", "arn:aws-cn:iam::444455556666:role/mirror")
	must(t, err)
	var answer grantsAnswer
	must(t, json.Unmarshal([]byte(got), &answer))
	grants := answer.Policies
	kinds := map[string]int{}
	for _, g := range grants {
		kinds[g.Kind]++
	}
	if kinds["identity"] != 1 || kinds["registry"] != 2 || len(grants) != 3 {
		t.Errorf("%v", kinds)
	}
	if _, err := run("--principal", "me"); err == nil {
		t.Error("no error for a principal that is no ARN")
	}
}
