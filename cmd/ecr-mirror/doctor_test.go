package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// examined has the doctor look at a mirror of the source account's role ecr-mirror, whose policies attach puts in place.
func examined(t *testing.T, attach func(r *rig, printed []grant) aws.Credentials) (*doctor, *rig) {
	t.Helper()
	r := newRigWith(t, emulatorOptions{strict: true}, "- source: {registry: $source, endpoint: $endpoint}\n")
	q := sqs.NewFromConfig(r.emu.Config(demoSourceAccount, demoSourceRegion))
	_, err := q.CreateQueue(t.Context(), &sqs.CreateQueueInput{QueueName: aws.String("pushes")})
	must(t, err)
	r.seed("team/app", "v1", registrytest.Image(1, 100))
	must(t, r.destination.CreateRepository("team/app"))
	yaml := fmt.Sprintf(`
mirrors:
- source: {registry: %s, endpoint: %q}
  destination: {registry: %s, endpoint: %q}
  events: {sqs: %q}
  replication: {rules: [{repositories: ["team/**"]}]}
`, demoSourceHost, r.emu.ControlURL(), demoDestinationHost, r.emu.ControlURL(), r.emu.QueueURL(demoSourceAccount, demoSourceRegion, "pushes"))
	cfg, err := config.Parse("test.yaml", []byte(yaml), os.LookupEnv)
	must(t, err)
	printed, err := policies(cfg, policyOptions{eventRule: "ecr-mirror", principal: "arn:aws:iam::" + demoSourceAccount + ":role/ecr-mirror"})
	must(t, err)
	creds := attach(r, printed)
	d := &doctor{cfg: cfg, options: policyOptions{eventRule: "ecr-mirror"}, base: &aws.Config{Region: demoSourceRegion, BaseEndpoint: aws.String(r.emu.ControlURL()),
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return creds, nil })}}
	d.examine(t.Context())
	return d, r
}

// attachAt is rig.attach for registry policies of the destination.
func (r *rig) attachAt(printed []grant, edit func(*grant)) aws.Credentials {
	r.t.Helper()
	var rest []grant
	for _, g := range printed {
		edit(&g)
		switch {
		case len(g.Document.Statement) == 0:
		case g.Kind == "registry":
			api := awsecr.NewFromConfig(r.emu.Config(demoDestinationAccount, demoDestinationRegion))
			_, err := api.PutRegistryPolicy(r.t.Context(), &awsecr.PutRegistryPolicyInput{PolicyText: aws.String(g.Document.String())})
			must(r.t, err)
		default:
			rest = append(rest, g)
		}
	}
	return r.attach(rest)
}

func (d *doctor) results() string {
	var out bytes.Buffer
	if err := printFindings(&out, d.findings); err != nil {
		return err.Error()
	}
	return out.String()
}

func TestDoctor(t *testing.T) {
	t.Parallel()
	t.Run("all is well", func(t *testing.T) {
		t.Parallel()
		d, _ := examined(t, func(r *rig, printed []grant) aws.Credentials { return r.attachAt(printed, func(*grant) {}) })
		n := map[string]int{}
		for _, f := range d.findings {
			n[f.Result+" "+f.Check]++
		}
		// The doctor alone would need sqs:GetQueueAttributes; the destination has no image.
		if d.failed() != 0 || n["ok permission"] != 6+13 || n["ok credentials"] != 2 || n["ok clock"] != 2 || n["ok layers"] != 1 || n["unknown queue"] != 1 || n["ok queue"] != 1 {
			t.Errorf("%v\n%s", n, d.results())
		}
	})
	t.Run("ecr:ReplicateImage alone", func(t *testing.T) {
		t.Parallel()
		d, _ := examined(t, func(r *rig, printed []grant) aws.Credentials {
			return r.attachAt(printed, func(g *grant) {
				if g.Kind == "registry" { // as tutorials on ECR's own replication have it
					g.Document.Statement = []iam.Statement{{Sid: "replication", Effect: iam.Allow, Principal: &iam.Principal{AWS: iam.Strings{"arn:aws:iam::" + demoSourceAccount + ":root"}},
						Action: iam.Strings{"ecr:CreateRepository", "ecr:ReplicateImage"}, Resource: iam.Strings{"arn:aws:ecr:" + demoDestinationRegion + ":" + demoDestinationAccount + ":repository/*"}}}
				}
			})
		})
		got := d.results()
		for _, want := range []string{
			"ecr:PutImage", "no resource-based policy allows the ecr:PutImage action",
			"needed: registry policy (put-registry-policy) of " + demoDestinationHost,
			`"Action": "ecr:PutImage",`,
			`"Resource": "arn:aws:ecr:` + demoDestinationRegion + ":" + demoDestinationAccount + `:repository/team/*"`,
			`"AWS": "arn:aws:iam::` + demoSourceAccount + `:role/ecr-mirror"`,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("no %s in:\n%s", want, got)
			}
		}
		for _, f := range d.findings {
			if f.Where == demoSourceHost && f.Result == resultFailed {
				t.Errorf("the source: %+v", f)
			}
		}
	})
	t.Run("a statement of its own is missing", func(t *testing.T) {
		t.Parallel()
		d, r := examined(t, func(r *rig, printed []grant) aws.Credentials {
			return r.attachAt(printed, func(g *grant) {
				switch g.Kind {
				case "identity":
					g.Document = g.Document.Without(0) // Read
				case "queue":
					g.Document.Statement = nil
				}
			})
		})
		got := d.results()
		if !strings.Contains(got, "needed: identity policy of arn:aws:iam::"+demoSourceAccount+":role/ecr-mirror") || !strings.Contains(got, `"Action": "ecr:BatchGetImage"`) {
			t.Errorf("%s", got)
		}
		// The queue's policy is missing too, which the administrator may see.
		d = &doctor{cfg: d.cfg, options: d.options, base: &aws.Config{Region: demoSourceRegion, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return r.emu.Credentials(demoSourceAccount), nil
		})}}
		d.queue(t.Context(), &d.cfg.Mirrors[0])
		if got := d.results(); !strings.Contains(got, "does not let arn:aws:events:"+demoSourceRegion+":"+demoSourceAccount+":rule/ecr-mirror send") {
			t.Errorf("%s", got)
		}
	})
	t.Run("a region is down", func(t *testing.T) {
		t.Parallel()
		d, _ := examined(t, func(r *rig, printed []grant) aws.Credentials {
			r.destination.SetDown(true)
			return r.emu.Credentials(demoSourceAccount)
		})
		if got := d.results(); d.failed() == 0 || !strings.Contains(got, "unavailable") && !strings.Contains(got, "ServerException") {
			t.Errorf("%s", got)
		}
	})
}
