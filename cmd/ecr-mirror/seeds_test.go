package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// walk is a walk-through that people follow for ECR's replication, or for a pipeline in its place, done with a mirror. Accounts
// reach each other only by policies, as at AWS.
type walk struct {
	t      *testing.T
	emu    *ecrtest.Emulator
	source *ecrtest.Registry
	push   *remote.Registry
	queue  string
}

func newWalk(t *testing.T, account, region string) *walk {
	t.Helper()
	emu, err := ecrtest.New(ecrtest.Options{})
	must(t, err)
	must(t, emu.Start(ecrtest.Listen{}))
	t.Cleanup(func() { must(t, emu.Close()) })
	emu.Subscribe(account, region, demoQueue)
	w := &walk{t: t, emu: emu, source: emu.Registry(account, region), queue: emu.QueueURL(account, region, demoQueue)}
	w.push = w.at(account, region)
	return w
}

// at is a registry as docker sees it.
func (w *walk) at(account, region string) *remote.Registry {
	w.t.Helper()
	r, err := remote.New(remote.Options{Registry: "http://" + w.emu.RegistryHost(account, region), Username: "AWS", Password: w.emu.Token(account, region)})
	must(w.t, err)
	return r
}

// mirror serves mirrors, in YAML, with the credentials of the source's account; base nil: with those of the environment.
func (w *walk) mirror(mirrors string, base *aws.Config) *rig {
	w.t.Helper()
	mirrors = strings.NewReplacer("$endpoint", w.emu.ControlURL(), "$queue", w.queue).Replace(mirrors)
	yaml := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ncache: {path: %s, size: 1GiB}\nmirrors:\n%s", w.t.TempDir(), mirrors)
	a := startApp(w.t, yaml, base)
	return &rig{t: w.t, emu: w.emu, source: w.source, push: w.push, url: "http://" + a.registryAddr.String(), app: a, yaml: yaml, aws: base}
}

func (w *walk) credentials(account string) *aws.Config {
	return &aws.Config{Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return w.emu.Credentials(account), nil })}
}

// pushed pushes an image to a repository of the source, which is created when it is new.
func (w *walk) pushed(repo, tag string, n registrytest.Node) {
	w.t.Helper()
	if err := w.source.CreateRepository(repo); err != nil && !strings.Contains(err.Error(), "already exists") {
		w.t.Fatal(err)
	}
	registrytest.Push(w.t, w.push, repo, tag, n)
}

func (w *walk) has(r *remote.Registry, repo, tag string, n registrytest.Node) bool {
	d, err := r.Resolve(w.t.Context(), repo, tag)
	return err == nil && d.Digest == n.Desc.Digest
}

func (w *walk) file(text string) string {
	w.t.Helper()
	name := filepath.Join(w.t.TempDir(), "replication.json")
	must(w.t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// ap-southeast-1 to us-east-1, repositories that begin with "hello": the JSON is what the console shows, the repository is
// created at the destination by the mirror, and nothing is deleted with the source's.
func TestSeedPrefixRuleToOneRegion(t *testing.T) {
	t.Parallel()
	const account = "111122223333"
	w := newWalk(t, account, "ap-southeast-1")
	w.emu.Registry(account, "us-east-1")
	r := w.mirror(`
- source:      {registry: `+account+`.dkr.ecr.ap-southeast-1.amazonaws.com, endpoint: $endpoint}
  destination: {registry: `+account+`.dkr.ecr.us-east-1.amazonaws.com, endpoint: $endpoint}
  events: {sqs: $queue}
  replication: {rulesFile: `+w.file(`{"rules": [{"destinations": [{"region": "us-east-1", "registryId": "`+account+`"}],
    "repositoryFilters": [{"filter": "hello", "filterType": "PREFIX_MATCH"}]}]}`)+`}
`, w.credentials(account))
	east := w.at(account, "us-east-1")
	hello, other := registrytest.Image(1, 1000), registrytest.Image(2, 1000)
	w.pushed("other", "v3", other)
	w.pushed("hello-app", "v3", hello)
	r.eventually("hello-app:v3 in us-east-1", func() bool { return w.has(east, "hello-app", "v3", hello) })
	all, err := places(t.Context(), r.config(true), upstreams{aws: r.aws})
	must(t, err)
	must(t, all[0].source.DeleteManifest(t.Context(), "hello-app", hello.Desc.Digest))
	r.eventually("an idle queue", func() bool {
		n, _ := w.emu.QueueLen(account, "ap-southeast-1", demoQueue)
		return n == 0 && r.app.queue.Pending().Waiting() == 0
	})
	if !w.has(east, "hello-app", "v3", hello) || w.has(east, "other", "v3", other) {
		t.Error("what was deleted at the source is gone, or what no rule names has come")
	}
}

// Another account's registry takes the images once its registry policy lets this account create repositories and push; until
// then the images wait, and status says why. Taken away again, the policy stops what is under way.
func TestSeedAcrossAccounts(t *testing.T) {
	t.Parallel()
	const from, to = "111122223333", "444455556666"
	w := newWalk(t, from, "us-west-2")
	there := w.at(to, "us-west-2")
	r := w.mirror(`
- source:      {registry: `+from+`.dkr.ecr.us-west-2.amazonaws.com, endpoint: $endpoint}
  destination: {registry: `+to+`.dkr.ecr.us-west-2.amazonaws.com, endpoint: $endpoint}
  events: {sqs: $queue}
  replication: {rulesFile: `+w.file(`{"rules": [{"destinations": [{"region": "us-west-2", "registryId": "`+to+`"}]}]}`)+`}
`, w.credentials(from))
	owner := awsecr.NewFromConfig(w.emu.Config(to, "us-west-2"))
	first, second := registrytest.Image(1, 1000), registrytest.Image(2, 1000)
	w.pushed("app", "v1", first)
	a := r.asker(true)
	r.eventually("status says that it is not permitted", func() bool {
		e := r.ask(a, "app:v1")
		return strings.Contains(e.Error, "AccessDenied") && !w.has(there, "app", "v1", first)
	})
	permit := func() {
		_, err := owner.PutRegistryPolicy(t.Context(), &awsecr.PutRegistryPolicyInput{PolicyText: aws.String(`{"Version": "2012-10-17", "Statement": [{
			"Sid": "AllowCrossAccountReplication", "Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::` + from + `:root"},
			"Action": ["ecr:CreateRepository", "ecr:BatchGetImage", "ecr:BatchCheckLayerAvailability", "ecr:InitiateLayerUpload",
				"ecr:UploadLayerPart", "ecr:CompleteLayerUpload", "ecr:PutImage", "ecr:ListImageReferrers", "ecr:GetDownloadUrlForLayer"],
			"Resource": "arn:aws:ecr:us-west-2:` + to + `:repository/*"}]}`)})
		must(t, err)
	}
	permit()
	r.eventually("app:v1 in the other account", func() bool { return w.has(there, "app", "v1", first) })

	var revoked atomic.Bool
	w.emu.Fault(func(c ecrtest.Call) ecrtest.Fault {
		if c.Op == "CompleteLayerUpload" && revoked.CompareAndSwap(false, true) {
			go func() {
				_, err := owner.DeleteRegistryPolicy(context.Background(), &awsecr.DeleteRegistryPolicyInput{})
				if err != nil {
					t.Error(err)
				}
			}()
		}
		return ecrtest.Fault{}
	})
	w.pushed("app", "v2", second)
	r.eventually("the permission is gone", revoked.Load)
	w.emu.Fault(nil)
	r.eventually("what was under way is refused or was done", func() bool {
		e := r.ask(a, "app:v2")
		return e.State == "ready" || strings.Contains(e.Error, "AccessDenied") || e.State == "unknown"
	})
	permit()
	r.eventually("app:v2 once it is permitted again", func() bool { return w.has(there, "app", "v2", second) })
}

// The pipeline's job: a PutImage event of CloudTrail, and the image is in each of the regions that a parameter lists with
// commas, where its repository is created.
func TestSeedEventToSeveralRegions(t *testing.T) {
	t.Parallel()
	const account, targets = "111122223333", "eu-west-1,ap-southeast-1"
	w := newWalk(t, account, "us-east-1")
	w.emu.OnEvent(func(ev ecrtest.Event) []ecrtest.Delivery { return []ecrtest.Delivery{{Body: ev.CloudTrail()}} })
	var destinations, registries []string
	for _, region := range strings.Split(targets, ",") {
		destinations = append(destinations, fmt.Sprintf(`{"region": %q, "registryId": %q}`, region, account))
		registries = append(registries, fmt.Sprintf("{registry: %s.dkr.ecr.%s.amazonaws.com, endpoint: $endpoint}", account, region))
	}
	r := w.mirror(`
- source: {registry: `+account+`.dkr.ecr.us-east-1.amazonaws.com, endpoint: $endpoint}
  events: {sqs: $queue}
  replication:
    destinations: all
    registries: [`+strings.Join(registries, ", ")+`]
    rulesFile: `+w.file(`{"rules": [{"destinations": [`+strings.Join(destinations, ", ")+`]}]}`)+`
`, w.credentials(account))
	img := registrytest.Image(1, 1000)
	w.pushed("my-app", "latest", img)
	for _, region := range strings.Split(targets, ",") {
		there := w.at(account, region)
		r.eventually("my-app:latest in "+region, func() bool { return w.has(there, "my-app", "latest", img) })
	}
	answer, err := r.asker(true).wait(t.Context(), "my-app:latest", 0)
	if err != nil || len(answer.Images) != 2 {
		t.Errorf("ready: %v, %+v", err, answer)
	}
}

// What ECR's replication refuses: from one partition to another, each with credentials of its own.
func TestSeedAcrossPartitions(t *testing.T) {
	const from, to = "111122223333", "444455556666"
	w := newWalk(t, from, "us-west-2")
	china := w.at(to, "cn-north-1")
	var profiles strings.Builder
	for name, account := range map[string]string{"default": from, "china": to} {
		c := w.emu.Credentials(account)
		fmt.Fprintf(&profiles, "[%s]\naws_access_key_id = %s\naws_secret_access_key = %s\n", name, c.AccessKeyID, c.SecretAccessKey)
	}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", w.file(profiles.String()))
	t.Setenv("AWS_CONFIG_FILE", os.DevNull)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	r := w.mirror(`
- source:      {registry: `+from+`.dkr.ecr.us-west-2.amazonaws.com, endpoint: $endpoint, profile: default}
  destination: {registry: `+to+`.dkr.ecr.cn-north-1.amazonaws.com.cn, endpoint: $endpoint, profile: china}
  events: {sqs: $queue}
`, nil)
	img := registrytest.Image(1, 1000)
	w.pushed("app", "v1", img)
	r.eventually("app:v1 in China", func() bool { return w.has(china, "app", "v1", img) })
}
