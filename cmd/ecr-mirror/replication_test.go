package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

// Repositories are created with the configured settings, and what this process writes keeps to the configured rate.
func TestRepositorySettingsAndRates(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, `
- source:      {registry: $source, endpoint: $endpoint}
  destination:
    registry: $destination
    endpoint: $endpoint
    rates: {putImage: 4}
    repositories: {tagMutability: IMMUTABLE, scanOnPush: true, tags: {owner: mirror}}
`)
	img := registrytest.Image(1, 100)
	r.seed("team/app", "v1", img)
	if code, printed := r.sync(t.Context(), r.config(true), false); code != 0 || !r.replicated("team/app", "v1", img) {
		t.Fatalf("sync: exit code %d\n%s", code, printed)
	}
	if want := fmt.Sprintf("ecr_mirror_ecr_rate{account=%q,call=%q,region=%q} 4\n", demoDestinationAccount, "PutImage", demoDestinationRegion); !strings.Contains(r.metrics(), want) {
		t.Errorf("no metric %s", want)
	}
	out, err := ecr.NewFromConfig(r.emu.Config(demoDestinationAccount, demoDestinationRegion)).DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{})
	if err != nil || len(out.Repositories) != 1 {
		t.Fatalf("%v, %v", out, err)
	}
	repo := out.Repositories[0]
	if repo.ImageTagMutability != "IMMUTABLE" || !repo.ImageScanningConfiguration.ScanOnPush {
		t.Errorf("created as %+v", repo)
	}
	tags, err := ecr.NewFromConfig(r.emu.Config(demoDestinationAccount, demoDestinationRegion)).ListTagsForResource(t.Context(),
		&ecr.ListTagsForResourceInput{ResourceArn: repo.RepositoryArn})
	if err != nil || len(tags.Tags) != 1 || *tags.Tags[0].Key != "owner" || *tags.Tags[0].Value != "mirror" {
		t.Errorf("resource tags %v, %v", tags, err)
	}
}

// elsewhere is the third registry of these tests, in a third region.
const (
	elsewhereRegion = "ap-southeast-2"
	elsewhere       = demoDestinationAccount + "/" + elsewhereRegion
	elsewhereHost   = demoDestinationAccount + ".dkr.ecr." + elsewhereRegion + ".amazonaws.com"
)

// at returns a registry of the rig as docker pull sees it.
func (r *rig) at(account, region string) *remote.Registry {
	r.t.Helper()
	reg, err := remote.New(remote.Options{Registry: "http://" + r.emu.RegistryHost(account, region), Username: "AWS", Password: r.emu.Token(account, region)})
	if err != nil {
		r.t.Fatal(err)
	}
	return reg
}

// One push reaches every region that ECR's rules and ours name, in two accounts, and its bytes leave the source once.
func TestFanOut(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "replication.json")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `{"registryId": %q, "replicationConfiguration": {"rules": [{
		"destinations": [{"region": %q, "registryId": %[3]q}, {"region": %q, "registryId": %[3]q}],
		"repositoryFilters": [{"filter": "prod/", "filterType": "PREFIX_MATCH"}]}]}}`,
		demoSourceAccount, demoDestinationRegion, demoDestinationAccount, elsewhereRegion), 0o600))
	r := newRigOf(t, `
- source:      {registry: $source, endpoint: $endpoint}
  destination: {registry: $destination, endpoint: $endpoint}
  events: {sqs: $queue}
  replication:
    destinations: all
    registries: [{registry: `+elsewhereHost+`, endpoint: $endpoint}]
    rulesFile: `+file+`
    rules: [{repositories: [team/**], destinations: [`+elsewhereHost+`], rename: {from: team/, to: ours/}}]
`, elsewhere)
	third := r.at(demoDestinationAccount, elsewhereRegion)
	names := func(reg *remote.Registry, repo string, img registrytest.Node) bool {
		d, err := reg.Resolve(t.Context(), repo, "v1")
		return err == nil && d.Digest == img.Desc.Digest
	}
	both, one, none := registrytest.Image(1, 1<<20), registrytest.Image(2, 1<<20), registrytest.Image(3, 1<<20)
	for repo, img := range map[string]registrytest.Node{"prod/app": both, "team/app": one, "dev/app": none} {
		must(t, r.source.CreateRepository(repo))
		registrytest.Push(t, r.push, repo, "v1", img)
	}
	r.eventually("prod/app in both regions", func() bool { return names(r.arrives, "prod/app", both) && names(third, "prod/app", both) })
	r.eventually("team/app in the third", func() bool { return names(third, "ours/app", one) })
	r.eventually("an idle queue", func() bool { return r.app.queue.Pending().Waiting() == 0 })
	if names(r.arrives, "team/app", one) || names(r.arrives, "ours/app", one) || names(third, "dev/app", none) || names(r.arrives, "dev/app", none) {
		t.Error("what no rule sends there arrived")
	}
	for _, o := range both.Objects("prod/app") {
		var sent int64
		for _, read := range r.source.LayerReads(o.Digest) {
			sent += read.Sent
		}
		if sent > 1<<20 {
			t.Errorf("%d bytes of %v left the source for two destinations", sent, o)
		}
	}
}

// A repository that has another name at the destination is found there by pulls that use the source's name, and by pulls
// that use the destination's host and name; one whose name there is another's is not taken for it.
func TestRenamedAtTheDestination(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
  events: {sqs: $queue}
  replication: {rules: [{repositories: [team/**], rename: {from: team/, to: ""}}]}
`)
	img, other := registrytest.Image(1, 1<<20), registrytest.Image(2, 1<<20)
	r.seed("app", "v1", other) // whose name at the destination is team/app's
	must(t, r.source.CreateRepository("team/app"))
	registrytest.Push(t, r.push, "team/app", "v1", img)
	r.eventually("team/app:v1 at the destination as app:v1", func() bool { return r.replicated("app", "v1", img) })

	r.source.SetUnreachable(true)
	purge(t, r, "team/app")
	if err := r.pulled("team/app", "v1"); err != nil {
		t.Errorf("pull by the source's name while only the destination has it: %v", err)
	}
	if s := r.status("/v2/app/manifests/v1?ns=" + demoDestinationHost); s != http.StatusOK {
		t.Errorf("pull by the destination's host and name: %d", s)
	}
	if s := r.status("/v2/team/app/manifests/v1?ns=" + demoDestinationHost); s == http.StatusOK {
		t.Error("the destination's host serves the source's name")
	}
	if _, err := r.mirror.Resolve(t.Context(), "app", "v1"); err == nil {
		t.Error("app:v1 was answered by the destination, where that is team/app")
	}
	r.source.SetUnreachable(false)
	r.eventually("a pull of what is not replicated", func() bool { return r.pulled("app", "v1") == nil })
}

// purge has the mirror forget a repository.
func purge(t *testing.T, r *rig, repo string) {
	t.Helper()
	res, err := http.Post("http://"+r.app.adminAddr.String()+"/purge?repository="+repo, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusNoContent {
		t.Fatalf("purge: %s", res.Status)
	}
}

// Of an index the platforms that a rule chooses are replicated; clients pull the whole index through the mirror all the same.
func TestChosenPlatforms(t *testing.T) {
	t.Parallel()
	r := newRig(t, `
  events: {sqs: $queue}
  replication: {rules: [{repositories: [team/*], tags: ["v*"], platforms: [linux/arm64]}]}
`)
	amd, arm := registrytest.Image(1, 1<<20), registrytest.Image(2, 1<<20)
	index := registrytest.Index(amd, arm)
	must(t, r.source.CreateRepository("team/app"))
	registrytest.Push(t, r.push, "team/app", "v1", index)
	there := func(n registrytest.Node) bool {
		_, err := r.arrives.Stat(t.Context(), registry.Object{Repo: "team/app", Kind: registry.Manifest, Digest: n.Desc.Digest})
		return err == nil
	}
	r.eventually("the chosen image at the destination", func() bool { return there(arm) })
	r.eventually("an idle queue", func() bool { return r.app.queue.Pending().Waiting() == 0 })
	if there(amd) || there(index) {
		t.Error("what the rule does not choose is at the destination")
	}
	signature := registrytest.Referrer(arm.Desc, "application/signature", []byte("signed later"))
	registrytest.Push(t, r.push, "team/app", "", signature)
	r.eventually("its signature, by an event of its own", func() bool { return there(signature) })
	if err := r.pulled("team/app", "v1"); err != nil {
		t.Errorf("pull of the whole: %v", err)
	}
	a := r.asker(true)
	answer, err := a.wait(t.Context(), "team/app:v1", 10*time.Second)
	if err != nil || len(answer.Images) != 1 || answer.Images[0].State != "partial" || len(answer.Images[0].Missing) != 0 {
		t.Errorf("ready: %v, %+v", err, answer)
	}
}

// Where the destination's account allows it, a layer that it has in one repository is mounted to the next.
func TestMountsAtTheDestination(t *testing.T) {
	t.Parallel()
	r := newRigOf(t, fmt.Sprintf(`
- source:      {registry: $source, endpoint: $endpoint}
  destination: {registry: $front, type: ecr, account: %q, region: %s, endpoint: $endpoint}
  events: {sqs: $queue}
`, demoDestinationAccount, demoDestinationRegion))
	// The setting is the caller's account's, and a rig's credentials are those of the source.
	for _, account := range []string{demoSourceAccount, demoDestinationAccount} {
		_, err := ecr.NewFromConfig(r.emu.Config(account, demoDestinationRegion)).PutAccountSetting(t.Context(),
			&ecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: aws.String("ENABLED")})
		must(t, err)
	}
	img := registrytest.Image(1, 1<<20, 1<<20)
	for _, repo := range []string{"one", "two"} {
		must(t, r.source.CreateRepository(repo))
		registrytest.Push(t, r.push, repo, "v1", img)
		r.eventually(repo+" at the destination", func() bool { return r.replicated(repo, "v1", img) })
		r.eventually("an idle queue", func() bool { return r.app.queue.Pending().Waiting() == 0 })
	}
	uploads := 0
	for _, c := range r.emu.Calls() {
		if strings.HasPrefix(c, demoDestinationRegion+" "+demoDestinationAccount+" CompleteLayerUpload") {
			uploads++
		}
	}
	if uploads != len(img.Blobs) {
		t.Errorf("%d uploads, want %d: each blob once", uploads, len(img.Blobs))
	}
}

// ECR has room for 25 destinations in a rule; here are 30, and the bytes leave the source once.
func TestThirtyDestinations(t *testing.T) {
	t.Parallel()
	type there struct{ account, region string }
	all := []there{{demoDestinationAccount, demoDestinationRegion}}
	var registries, others, rule []string
	for i := range 29 {
		p := there{fmt.Sprintf("7000000000%02d", i), elsewhereRegion}
		all = append(all, p)
		registries = append(registries, p.account+"/"+p.region)
		others = append(others, fmt.Sprintf("{registry: %s.dkr.ecr.%s.amazonaws.com, endpoint: $endpoint}", p.account, p.region))
	}
	for _, p := range all {
		rule = append(rule, fmt.Sprintf(`{"registryId": %q, "region": %q}`, p.account, p.region))
	}
	file := filepath.Join(t.TempDir(), "replication.json")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `{"rules": [{"destinations": [%s]}]}`, strings.Join(rule, ", ")), 0o600))
	r := newRigOf(t, `
- source:      {registry: $source, endpoint: $endpoint}
  destination: {registry: $destination, endpoint: $endpoint}
  events: {sqs: $queue}
  replication:
    destinations: all
    registries: [`+strings.Join(others, ", ")+`]
    rulesFile: `+file+`
`, registries...)
	img := registrytest.Image(1, 64<<10, 1<<10)
	must(t, r.source.CreateRepository("app"))
	registrytest.Push(t, r.push, "app", "v1", img)
	for _, p := range all {
		reg := r.at(p.account, p.region)
		r.eventually("app:v1 in account "+p.account, func() bool {
			d, err := reg.Resolve(t.Context(), "app", "v1")
			return err == nil && d.Digest == img.Desc.Digest
		})
	}
	answer, err := r.asker(true).wait(t.Context(), "app:v1", 20*time.Second)
	if err != nil || len(answer.Images) != len(all) {
		t.Errorf("ready: %v, %+v", err, answer)
	}
	for _, b := range img.Blobs {
		var sent int64
		for _, read := range r.source.LayerReads(b.Desc.Digest) {
			sent += read.Sent
		}
		if sent != b.Desc.Size {
			t.Errorf("%d bytes of %s left the source, which has %d", sent, b.Desc.Digest, b.Desc.Size)
		}
	}
}
