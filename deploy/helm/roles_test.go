package helm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

const (
	account = "111122223333"
	here    = "eu-central-1"
	there   = "us-west-2"
)

// ecr is an emulated account with two regions and a queue.
type ecr struct {
	*ecrtest.Emulator
	source, destination *remote.Registry
}

func startECR(t *testing.T) ecr {
	t.Helper()
	emu, err := ecrtest.New(ecrtest.Options{Accounts: []string{account}})
	if err != nil {
		t.Fatal(err)
	}
	source, destination := emu.Registry(account, there), emu.Registry(account, here)
	if err := emu.Start(ecrtest.Listen{Registries: map[string]string{source.Host(): "", destination.Host(): ""}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { emu.Close() }) // nobody waits for it
	if err := source.CreateRepository("team/app"); err != nil {
		t.Fatal(err)
	}
	e := ecr{Emulator: emu}
	for region, r := range map[string]**remote.Registry{there: &e.source, here: &e.destination} {
		*r, err = remote.New(remote.Options{Registry: "http://" + emu.RegistryHost(account, region), Username: "AWS", Password: emu.Token(account, region)})
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// identity is a role's environment with the policies that iam-policy prints for it.
func (e ecr) identity(t *testing.T, config, role string) []string {
	t.Helper()
	var printed struct {
		Policies []struct {
			Kind   string
			Policy json.RawMessage
		}
	}
	out := run(t, nil, binary(t), "iam-policy", "--config", config, "--role", role, "--output", "json")
	if err := json.Unmarshal([]byte(out), &printed); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var policies []string
	for _, p := range printed.Policies {
		if p.Kind == "identity" {
			policies = append(policies, string(p.Policy))
		}
	}
	c, err := e.RoleWith(account, role, policies...)
	if err != nil || len(policies) == 0 {
		t.Fatalf("%v\n%s", err, out)
	}
	return []string{"AWS_ACCESS_KEY_ID=" + c.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + c.SecretAccessKey, "AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=" + here}
}

// Fronts read, workers write what fronts miss, and the sweep finds the rest, each with the least policy of its account's.
func TestRolesOfPods(t *testing.T) {
	t.Parallel()
	e := startECR(t)
	e.SendMessage(account, there, "ecr-pushes", "{}") // the queue is there, and no push is heard of
	missed, swept := registrytest.Image(1, 300<<10), registrytest.Image(2, 1<<10)
	registrytest.Push(t, e.source, "team/app", "v1", missed)

	mirrors := fmt.Sprintf(`[{"source":{"registry":"%[1]s.dkr.ecr.%[2]s.amazonaws.com","endpoint":"%[4]s"},"destination":{"registry":"%[1]s.dkr.ecr.%[3]s.amazonaws.com","endpoint":"%[4]s"},`+
		`"events":{"sqs":"%[5]s","shared":true}}]`, account, there, here, e.ControlURL(), e.QueueURL(account, there, "ecr-pushes"))
	values := []string{"--set-json", `image={"repository":"r.example.com/ecr-mirror","tag":"v1"}`, "--set-json", `config={"auth":{"none":true}}`, "--set-json", "config.mirrors=" + mirrors,
		"--set-json", "workers.replicas=1", "--set-json", "sweep.enabled=true"}
	var each [3][]object // on this host's network the ports of each pod are its own
	for i := range each {
		each[i] = render(t, append(ports(t, "0.0.0.0", "0.0.0.0"), values...)...)
	}
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte(find(t, each[0], "ConfigMap/mirror-ecr-mirror").text("data", "config.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	identities := map[string][]string{"mirror-ecr-mirror": e.identity(t, config, "front"), "mirror-ecr-mirror-worker": e.identity(t, config, "worker")}

	f := node{objects: each[0], identities: identities}.run(t, find(t, each[0], "StatefulSet/mirror-ecr-mirror"))
	w := node{objects: each[1], identities: identities}.run(t, find(t, each[1], "StatefulSet/mirror-ecr-mirror-worker"))
	for _, p := range []*pod{f, w} {
		eventually(t, "ready", p.process, func() bool { return p.passes(t, "readinessProbe") })
	}
	_, client := certificate(t)
	pull(t, client, fmt.Sprintf("http://127.0.0.1:%d", f.port("registry")), missed)
	eventually(t, "what the front missed is at the destination", w.process, func() bool {
		d, err := e.destination.Resolve(t.Context(), "team/app", "v1")
		return err == nil && d.Digest == missed.Desc.Digest
	})

	registrytest.Push(t, e.source, "team/app", "v2", swept)
	s := node{objects: each[2], identities: identities}.run(t, find(t, each[2], "CronJob/mirror-ecr-mirror-sweep"))
	<-s.done
	if code := s.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the sweep's exit status is %d", code)
	}
	if d, err := e.destination.Resolve(t.Context(), "team/app", "v2"); err != nil || d.Digest != swept.Desc.Digest {
		t.Errorf("after the sweep: %v, %v", d, err)
	}
}
