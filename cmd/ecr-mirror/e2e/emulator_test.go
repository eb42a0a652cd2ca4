package e2e

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/memory"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

// The emulator alone, driven by the AWS CLI as the tutorials on ECR's own replication do it: a rule with a prefix at the source, a
// registry policy at the destination, a push, its replication status, and the image in the other account's region.
func TestReplicationWalkThrough(t *testing.T) {
	t.Parallel()
	programs.Need(t, "aws", "skopeo", "docker-registry")
	const other = "444455556666"
	e := startEmulatorOf(t, account+"/ap-southeast-1", other+"/us-east-1")
	dir := t.TempDir()
	rules, policy := filepath.Join(dir, "replication.json"), filepath.Join(dir, "policy.json")
	write(t, rules, `{"rules": [{"destinations": [{"region": "us-east-1", "registryId": "`+other+`"}],
		"repositoryFilters": [{"filter": "hello", "filterType": "PREFIX_MATCH"}]}]}`)
	write(t, policy, `{"Version": "2012-10-17", "Statement": [{"Sid": "ecr-replication", "Effect": "Allow",
		"Principal": {"AWS": "arn:aws:iam::`+account+`:root"}, "Action": ["ecr:CreateRepository", "ecr:ReplicateImage"],
		"Resource": "arn:aws:ecr:us-east-1:`+other+`:repository/*"}]}`)
	e.source.aws(t, "ecr", "put-replication-configuration", "--replication-configuration", "file://"+rules)
	if got := e.source.aws(t, "ecr", "describe-registry"); !strings.Contains(got, "PREFIX_MATCH") || !strings.Contains(got, other) {
		t.Errorf("describe-registry: %s", got)
	}
	pushed := image(t, "amd64", "walked", 1<<20)
	origin := dockerRegistry(t)
	push(t, origin, "seed", "1", pushed)
	copyTo := func(name string) {
		e.source.aws(t, "ecr", "create-repository", "--repository-name", name)
		run(t, nil, "skopeo", "copy", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds", "AWS:"+e.source.password(t),
			"docker://"+origin+"/seed:1", "docker://"+e.source.host+"/"+name+":v3")
	}
	status := func(name string) string {
		return e.source.aws(t, "ecr", "describe-image-replication-status", "--repository-name", name, "--image-id", "imageTag=v3", "--output", "text", "--query", "replicationStatuses[].[region,registryId,status]")
	}

	copyTo("hello-denied") // before the destination's registry policy
	eventually(t, "the replication fails", func() bool { return strings.Fields(status("hello-denied"))[2] == "FAILED" })
	e.destination.aws(t, "ecr", "put-registry-policy", "--policy-text", "file://"+policy)
	copyTo("hello-app")
	copyTo("other-app")
	eventually(t, "the replication completes", func() bool { return strings.Fields(status("hello-app"))[2] == "COMPLETE" })
	if got := strings.Join(strings.Fields(status("hello-app")), " "); got != "us-east-1 "+other+" COMPLETE" {
		t.Errorf("describe-image-replication-status: %s", got)
	}
	if got := e.destination.image(t, "hello-app", "v3"); got != pushed.Desc.Digest {
		t.Errorf("hello-app:v3 at the destination: %s, want %s", got, pushed.Desc.Digest)
	}
	if got := strings.TrimSpace(e.destination.aws(t, "ecr", "describe-repositories", "--output", "text", "--query", "repositories[].repositoryName")); got != "hello-app" {
		t.Errorf("repositories at the destination: %s", got)
	}
	got := run(t, nil, "skopeo", "inspect", "--raw", "--tls-verify=false", "--creds", "AWS:"+e.destination.password(t), "docker://"+e.destination.host+"/hello-app:v3")
	if got != string(pushed.Body) {
		t.Errorf("manifest at the destination: %s", got)
	}
	// The same grant lets nobody push: one account's own push into the other is denied.
	if out, err := try(t, e.source.env, "aws", "--endpoint-url", e.Endpoint, "--region", "us-east-1", "ecr", "initiate-layer-upload", "--registry-id", other, "--repository-name", "hello-app"); err == nil || !strings.Contains(out+err.Error(), "AccessDeniedException") {
		t.Errorf("push by ecr:ReplicateImage: %s, %v", out, err)
	}
}

// password is a token for the registry.
func (r ecr) password(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(r.aws(t, "ecr", "get-login-password"))
}

// Every client that pushes leaves the same image, and pulls it again.
func TestClientsPushToTheEmulator(t *testing.T) {
	t.Parallel()
	origin := func(t *testing.T) (string, string) {
		multi := multiArch(t, "pushed", 1<<20)
		addr := dockerRegistry(t)
		push(t, addr, "seed", "1", multi)
		return addr + "/seed:1", multi.Desc.Digest.String()
	}
	for name, tc := range map[string]struct {
		clients []string
		copy    func(t *testing.T, from, to, host, password string)
	}{
		"crane": {[]string{"crane"}, func(t *testing.T, from, to, host, password string) {
			env := []string{"DOCKER_CONFIG=" + t.TempDir()}
			run(t, env, "crane", "auth", "login", host, "-u", "AWS", "-p", password)
			run(t, env, "crane", "copy", from, to)
			run(t, env, "crane", "validate", "--remote", to)
		}},
		"regctl": {[]string{"regctl"}, func(t *testing.T, from, to, host, password string) {
			env := []string{"REGCTL_CONFIG=" + filepath.Join(t.TempDir(), "config.json")}
			source, _, _ := strings.Cut(from, "/")
			run(t, env, "regctl", "registry", "set", "--tls=disabled", source)
			run(t, env, "regctl", "registry", "login", "--skip-check", "-u", "AWS", "-p", password, host)
			run(t, env, "regctl", "registry", "set", "--tls=disabled", host)
			run(t, env, "regctl", "image", "copy", "--referrers", from, to)
			run(t, env, "regctl", "image", "export", to, filepath.Join(t.TempDir(), "image.tar"))
		}},
		"containerd": {[]string{"root", "containerd", "ctr", "runc"}, func(t *testing.T, from, to, host, password string) {
			c := startContainerd(t)
			c.run(t, "images", "pull", "--plain-http", "--all-platforms", "--snapshotter", "native", from)
			c.run(t, "images", "push", "--plain-http", "--user", "AWS:"+password, to, from)
			c.run(t, "images", "rm", from)
			c.run(t, "images", "pull", "--plain-http", "--user", "AWS:"+password, "--snapshotter", "native", to)
		}},
		"podman": {[]string{"root", "podman"}, func(t *testing.T, from, to, host, password string) {
			dir := tempDir(t)
			policy := filepath.Join(dir, "policy.json")
			write(t, policy, `{"default": [{"type": "insecureAcceptAnything"}]}`)
			podman := func(args ...string) {
				run(t, nil, "podman", append([]string{"--root", filepath.Join(dir, "root"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"), "--storage-driver", "vfs"}, args...)...)
			}
			creds := []string{"--tls-verify=false", "--creds", "AWS:" + password}
			podman("manifest", "create", "list")
			podman("manifest", "add", "--all", "--tls-verify=false", "list", "docker://"+from)
			podman(append([]string{"manifest", "push", "--all", "list", "docker://" + to}, creds...)...)
			podman(append([]string{"pull", "-q", "--signature-policy", policy, to}, creds...)...)
		}},
		"oras-go": {nil, func(t *testing.T, from, to, host, password string) {
			open := func(name string) *remote.Repository {
				r, err := remote.NewRepository(name)
				if err != nil {
					t.Fatal(err)
				}
				r.PlainHTTP = true
				return r
			}
			target := open(to)
			target.Client = &auth.Client{Credential: auth.StaticCredential(host, auth.Credential{Username: "AWS", Password: password})}
			if _, err := oras.Copy(t.Context(), open(from), "1", target, "1", oras.DefaultCopyOptions); err != nil {
				t.Fatal(err)
			}
			if _, err := oras.Copy(t.Context(), target, "1", memory.New(), "", oras.DefaultCopyOptions); err != nil {
				t.Fatal(err)
			}
		}},
		"skopeo": {[]string{"skopeo"}, func(t *testing.T, from, to, host, password string) {
			run(t, nil, "skopeo", "copy", "--all", "--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-creds", "AWS:"+password, "docker://"+from, "docker://"+to)
			run(t, nil, "skopeo", "copy", "--all", "--src-tls-verify=false", "--src-creds", "AWS:"+password, "docker://"+to, "dir:"+t.TempDir())
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			programs.Need(t, append(tc.clients, "aws", "docker-registry")...)
			e := startEmulator(t)
			e.source.aws(t, "ecr", "create-repository", "--repository-name", "team/app")
			from, want := origin(t)
			tc.copy(t, from, e.source.host+"/team/app:1", e.source.host, e.source.password(t))
			if got := e.source.image(t, "team/app", "1"); got.String() != want {
				t.Errorf("team/app:1 is %s, want %s", got, want)
			}
		})
	}
}

// Amazon's own credential helper gets a token of the emulator, and the registry takes it.
func TestCredentialHelper(t *testing.T) {
	t.Parallel()
	programs.Need(t, "docker-credential-ecr-login")
	e := startEmulator(t)
	cmd := exec.Command("docker-credential-ecr-login", "get")
	cmd.Env = append(e.env, "HOME="+t.TempDir(), "AWS_ENDPOINT_URL_ECR="+e.Endpoint, "AWS_REGION=us-west-2")
	cmd.Stdin = strings.NewReader(e.source.name)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker-credential-ecr-login: %v\n%s", err, out)
	}
	var got struct{ Username, Secret string }
	if err := json.Unmarshal(out, &got); err != nil || got.Username != "AWS" {
		t.Fatalf("it printed %q: %v", out, err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+e.source.host+"/v2/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(got.Username+":"+got.Secret)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Error(fmt.Sprint(resp.Status), string(body))
	}
}
