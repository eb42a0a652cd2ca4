package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

const account = "111122223333"

// emulator is an `ecr-mirror emulator` with a source and a destination region.
type emulator struct {
	env                 []string // credentials of the source's account, for the mirror
	Endpoint            string
	Registries          []struct{ Account, Region, Host, Name string }
	Queues              []struct{ Name, URL string }
	AccessKeyID         map[string]string
	SecretAccessKey     map[string]string
	source, destination ecr
}

// ecr is one emulated registry.
type ecr struct {
	*emulator
	env                []string // credentials of its account
	region, host, name string
}

// startEmulator subscribes the queues to the source's events. Source and destination are of one account.
func startEmulator(t *testing.T, queues ...string) *emulator {
	t.Helper()
	return startEmulatorOf(t, account+"/us-west-2", account+"/eu-central-1", queues...)
}

// startEmulatorOf is startEmulator with the places of source and destination, as ACCOUNT/REGION.
func startEmulatorOf(t *testing.T, source, destination string, queues ...string) *emulator {
	t.Helper()
	args := []string{"emulator", "--listen", "127.0.0.1:0", "--replication-delay", "0s", "--registry", source, "--registry", destination}
	for _, q := range queues {
		args = append(args, "--queue", account+"/us-west-2/"+q)
	}
	p := start(t, nil, binary(t), args...)
	p.wait(t, "ready", func() bool { return strings.Contains(p.stdout.String(), "\n") })
	var e emulator
	if err := json.Unmarshal([]byte(p.stdout.String()), &e); err != nil {
		t.Fatalf("emulator printed %q: %v", p.stdout.String(), err)
	}
	if len(e.Registries) != 2 || len(e.Queues) != len(queues) {
		t.Fatalf("emulator printed %q, want two registries and %d queues", p.stdout.String(), len(queues))
	}
	for i, to := range []*ecr{&e.source, &e.destination} {
		r := e.Registries[i]
		*to = ecr{&e, e.of(r.Account), r.Region, r.Host, r.Name}
	}
	e.env = e.source.env
	return &e
}

// of is the environment of an account's administrator.
func (e *emulator) of(account string) []string {
	return []string{"AWS_ACCESS_KEY_ID=" + e.AccessKeyID[account], "AWS_SECRET_ACCESS_KEY=" + e.SecretAccessKey[account],
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true", "AWS_PAGER="}
}

func (r ecr) aws(t *testing.T, args ...string) string {
	t.Helper()
	return run(t, r.env, "aws", append([]string{"--endpoint-url", r.Endpoint, "--region", r.region, "--output", "json"}, args...)...)
}

// image returns the digest of a tag by the AWS CLI; "" when the registry does not have it.
func (r ecr) image(t *testing.T, repo, tag string) digest.Digest {
	t.Helper()
	out, err := try(t, r.env, "aws", "--endpoint-url", r.Endpoint, "--region", r.region, "--output", "json",
		"ecr", "batch-get-image", "--repository-name", repo, "--image-ids", "imageTag="+tag)
	if err != nil {
		if strings.Contains(out, "RepositoryNotFoundException") {
			return ""
		}
		t.Fatalf("%v\n%s", err, out)
	}
	var answer struct {
		Images []struct{ ImageManifest string }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatalf("aws printed %q: %v", out, err)
	}
	if len(answer.Images) == 0 {
		return ""
	}
	return digest.FromString(answer.Images[0].ImageManifest)
}

// login logs docker in at the registry, with the token that the AWS CLI gets.
func (d docker) login(t *testing.T, r ecr) {
	t.Helper()
	d.run(t, "login", "-u", "AWS", "-p", strings.TrimSpace(r.aws(t, "ecr", "get-login-password")), r.host)
}

// push pushes a new image to repo:1 of the source and returns its digest there.
func (e *emulator) push(t *testing.T, d docker, repo, text string) digest.Digest {
	t.Helper()
	origin := dockerRegistry(t)
	push(t, origin, "seed", text, image(t, "amd64", text, 1<<20))
	e.source.aws(t, "ecr", "create-repository", "--repository-name", repo)
	d.login(t, e.source)
	d.run(t, "pull", "-q", origin+"/seed:"+text)
	d.run(t, "tag", origin+"/seed:"+text, e.source.host+"/"+repo+":1")
	d.run(t, "push", "-q", e.source.host+"/"+repo+":1")
	pushed := e.source.image(t, repo, "1")
	if pushed == "" {
		t.Fatal("the pushed image is not in the source")
	}
	return pushed
}

// mirror is the configuration of a mirror from the source to the destination.
func (e *emulator) mirror(more string) string {
	return fmt.Sprintf("- source: {registry: %s, endpoint: %q}\n  destination: {registry: %s, endpoint: %q}\n%s",
		e.source.name, e.Endpoint, e.destination.name, e.Endpoint, more)
}

// docker push to the source; the event alone brings the image to the destination, and docker pulls it from the mirror.
func TestECRPushReplicates(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "docker", "dockerd", "docker-registry", "aws")
	e := startEmulator(t, "pushes", "audit")
	m := startMirror(t, e.env, e.mirror(fmt.Sprintf("  events: {sqs: %q}\n", e.Queues[0].URL)))
	d := startDocker(t, "")
	pushed := e.push(t, d, "team/app", "evented")

	eventually(t, "the event brought the image to the destination", func() bool { return e.destination.image(t, "team/app", "1") == pushed })
	heard := e.source.aws(t, "sqs", "receive-message", "--queue-url", e.Queues[1].URL, "--wait-time-seconds", "5")
	if !strings.Contains(heard, "ECR Image Action") || !strings.Contains(heard, "PUSH") || !strings.Contains(heard, pushed.String()) {
		t.Errorf("the event of the push: %s", heard)
	}
	for _, name := range []string{m.addr + "/team/app:1", m.addr + "/" + e.source.name + "/team/app@" + pushed.String()} {
		if got := strings.TrimSpace(d.pullAndRun(t, name)); !strings.HasSuffix(got, "evented amd64") {
			t.Errorf("docker run %s printed %q", name, got)
		}
	}
}

// No event arrives: the pull finds the image in the source and leaves it in the destination.
func TestECRMissReplicates(t *testing.T) {
	t.Parallel()
	programs.Need(t, "root", "docker", "dockerd", "docker-registry", "aws")
	e := startEmulator(t)
	m := startMirror(t, e.env, e.mirror(""))
	d := startDocker(t, "")
	pushed := e.push(t, d, "team/app", "missed")
	if got := e.destination.image(t, "team/app", "1"); got != "" {
		t.Fatalf("the destination has %s before anyone asked", got)
	}

	if got := strings.TrimSpace(d.pullAndRun(t, m.addr+"/team/app:1")); !strings.HasSuffix(got, "missed amd64") {
		t.Errorf("docker run through the mirror printed %q", got)
	}
	eventually(t, "the pull left the image in the destination", func() bool { return e.destination.image(t, "team/app", "1") == pushed })
	d.login(t, e.destination)
	if got := strings.TrimSpace(d.pullAndRun(t, e.destination.host+"/team/app:1")); !strings.HasSuffix(got, "missed amd64") {
		t.Errorf("docker run from the destination printed %q", got)
	}
}
