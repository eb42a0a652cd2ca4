package awstest

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
	"github.com/ecr-mirror/ecr-mirror/registry/remote"
)

const (
	account, other = "111122223333", "444455556666"
	sourceRegion   = "us-west-2"
)

// world is the emulator, where nobody may do what no policy allows.
type world struct {
	*ecrtest.Emulator
	t     *testing.T
	roles map[string]aws.Credentials // by ARN

	mu     sync.Mutex
	denied []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, roles: map[string]aws.Credentials{}}
	var err error
	w.Emulator, err = ecrtest.New(ecrtest.Options{Decisions: func(r iam.Request, v iam.Verdict) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !v.Allowed {
			w.denied = append(w.denied, fmt.Sprintf("%s: %s on %s %s", r.ARN, r.Action, r.Resource, v.Why))
		}
	}})
	must(t, err)
	must(t, w.Start(ecrtest.Listen{}))
	t.Cleanup(func() { // once the mirrors have stopped
		must(t, w.Close())
		for _, d := range w.denied {
			t.Error("denied:", d)
		}
	})
	w.Registry(account, sourceRegion)
	return w
}

// apply makes what a stack renders to. A property that it does not know is an error.
func (w *world) apply(s *stack) {
	w.t.Helper()
	queues := sqs.NewFromConfig(w.Config(s.account, s.region))
	for _, kind := range []string{"AWS::SQS::Queue", "AWS::Events::Rule", "AWS::IAM::Role", "AWS::SQS::QueuePolicy", "AWS::ECR::RegistryPolicy"} {
		for _, r := range s.resources {
			if r.kind != kind {
				continue
			}
			props := r.props
			switch kind {
			case "AWS::SQS::Queue":
				attributes := map[string]string{}
				for key, v := range props {
					if attributes[key] = fmt.Sprint(v); key == "RedrivePolicy" || key == "RedriveAllowPolicy" {
						attributes[key] = encode(v)
					}
				}
				delete(attributes, "QueueName")
				_, err := queues.CreateQueue(w.t.Context(), &sqs.CreateQueueInput{QueueName: aws.String(props["QueueName"].(string)), Attributes: attributes})
				must(w.t, err)
			case "AWS::Events::Rule":
				w.rule(s, props)
			case "AWS::IAM::Role":
				var policies []string
				for _, p := range props["Policies"].([]any) {
					policies = append(policies, encode(p.(map[string]any)["PolicyDocument"]))
				}
				name := props["RoleName"].(string)
				c, err := w.RoleWith(s.account, name, policies...)
				must(w.t, err)
				w.roles["arn:aws:iam::"+s.account+":role/"+name] = c
			case "AWS::SQS::QueuePolicy":
				for _, url := range props["Queues"].([]any) {
					_, err := queues.SetQueueAttributes(w.t.Context(), &sqs.SetQueueAttributesInput{QueueUrl: aws.String(w.local(url.(string))),
						Attributes: map[string]string{"Policy": encode(props["PolicyDocument"])}})
					must(w.t, err)
				}
			case "AWS::ECR::RegistryPolicy":
				_, err := awsecr.NewFromConfig(w.Config(s.account, s.region)).PutRegistryPolicy(w.t.Context(),
					&awsecr.PutRegistryPolicyInput{PolicyText: aws.String(encode(props["PolicyText"]))})
				must(w.t, err)
			}
		}
	}
}

// rule is PutRule and PutTargets.
func (w *world) rule(s *stack, props map[string]any) {
	w.t.Helper()
	in := map[string]any{"EventPattern": encode(props["EventPattern"])}
	for _, key := range []string{"Name", "Description"} {
		in[key] = props[key]
	}
	w.events(s, "PutRule", in)
	w.events(s, "PutTargets", map[string]any{"Rule": props["Name"], "Targets": props["Targets"]})
}

func (w *world) events(s *stack, op string, in any) {
	w.t.Helper()
	body := encode(in)
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.ControlURL(), strings.NewReader(body))
	must(w.t, err)
	req.Header.Set("X-Amz-Target", "AWSEvents."+op)
	req.Header.Set("Content-Type", "application/x-amz-json-1.1")
	sum := sha256.Sum256([]byte(body))
	must(w.t, v4.NewSigner().SignHTTP(w.t.Context(), w.Credentials(s.account), req, hex.EncodeToString(sum[:]), "events", s.region, time.Now()))
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	must(w.t, err)
	defer resp.Body.Close()
	var answer map[string]any
	must(w.t, json.NewDecoder(resp.Body).Decode(&answer))
	if resp.StatusCode != http.StatusOK || answer["FailedEntryCount"] != nil && answer["FailedEntryCount"] != 0.0 {
		w.t.Fatalf("%s: %v", op, answer)
	}
}

func encode(v any) string {
	if text, ok := v.(string); ok {
		return text
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error() // unreachable: maps, lists and strings
	}
	return string(b)
}

var (
	queueHost = regexp.MustCompile(`https://sqs\.[a-z0-9-]+\.amazonaws\.com(\.cn)?`)
	registry  = regexp.MustCompile(`\{registry: ([^}]+)\}`)
)

// local is text with AWS's endpoints become the emulator's.
func (w *world) local(text string) string {
	text = queueHost.ReplaceAllString(text, w.ControlURL())
	return registry.ReplaceAllString(text, `{registry: $1, endpoint: "`+w.ControlURL()+`"}`)
}

// printing is what a process printed so far.
type printing struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *printing) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *printing) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

var serving = regexp.MustCompile(`msg=serving registry=(\S+)`)

// mirror runs a mirror under a role until the test ends, with more arguments of serve, and returns where it serves.
func (w *world) mirror(role, configuration string, args ...string) string {
	w.t.Helper()
	c, ok := w.roles[role]
	if !ok {
		w.t.Fatalf("no role %s", role)
	}
	dir := w.t.TempDir()
	file := filepath.Join(dir, "ecr-mirror.yaml")
	must(w.t, os.WriteFile(file, []byte("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\ncache: {path: "+dir+"/cache, size: 1GiB}\n"+w.local(configuration)), 0o600))
	cmd := exec.Command(binary(w.t), append([]string{"serve", "--config", file}, args...)...)
	cmd.Env = append(os.Environ(), "AWS_ACCESS_KEY_ID="+c.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+c.SecretAccessKey, "AWS_CONFIG_FILE=/dev/null",
		"AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true")
	out := new(printing)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // it does not outlive tests that were killed
	must(w.t, cmd.Start())
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("%s: %v", role, err)
		}
		if w.t.Failed() {
			w.t.Logf("%s:\n%s", role, out)
		}
	})
	w.eventually(role+" serves", func() bool { return serving.MatchString(out.String()) })
	return serving.FindStringSubmatch(out.String())[1]
}

// push pushes an image with crane, and returns its digest.
func (w *world) push(repo, tag string) string {
	w.t.Helper()
	must(w.t, w.Registry(account, sourceRegion).CreateRepository(repo))
	dir, host := w.t.TempDir(), w.RegistryHost(account, sourceRegion)
	auth := base64.StdEncoding.EncodeToString([]byte("AWS:" + w.Token(account, sourceRegion)))
	must(w.t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(`{"auths": {"`+host+`": {"auth": "`+auth+`"}}}`), 0o600))
	var layer bytes.Buffer
	archive := tar.NewWriter(&layer)
	must(w.t, archive.WriteHeader(&tar.Header{Name: "name", Mode: 0o644, Size: int64(len(repo))}))
	_, err := archive.Write([]byte(repo))
	must(w.t, err)
	must(w.t, archive.Close())
	must(w.t, os.WriteFile(filepath.Join(dir, "layer.tar"), layer.Bytes(), 0o600))
	cmd := exec.CommandContext(w.t.Context(), "crane", "append", "-f", filepath.Join(dir, "layer.tar"), "-t", host+"/"+repo+":"+tag)
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir)
	out, err := cmd.Output()
	if err != nil {
		w.t.Fatalf("crane: %v\n%s", err, out)
	}
	_, digest, _ := strings.Cut(strings.TrimSpace(string(out)), "@")
	return digest
}

// has reports whether a registry has an image, as docker sees it.
func (w *world) has(account, region, repo, tag, digest string) bool {
	w.t.Helper()
	r, err := remote.New(remote.Options{Registry: "http://" + w.RegistryHost(account, region), Username: "AWS", Password: w.Token(account, region)})
	must(w.t, err)
	d, err := r.Resolve(w.t.Context(), repo, tag)
	return err == nil && d.Digest.String() == digest
}

func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("not within 30 s: %s", what)
		}
	}
}
