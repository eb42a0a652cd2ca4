package ecrtest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/ecrtest"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// roleWith is a role with one identity policy of the given statements.
func roleWith(t *testing.T, emu *ecrtest.Emulator, account, name string, statements ...string) aws.Credentials {
	t.Helper()
	c, err := emu.RoleWith(account, name, `{"Statement":[`+strings.Join(statements, ",")+`]}`)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Calls of one account's role on the other's registry, by the policies on either side.
func TestPolicies(t *testing.T) {
	const (
		all       = `{"Effect":"Allow","Action":"*","Resource":"*"}`
		noPut     = `{"Effect":"Deny","Action":"ecr:Put*","Resource":"*"}`
		root      = `"Principal":{"AWS":"arn:aws:iam::444455556666:root"}`
		role      = `"Principal":{"AWS":"arn:aws:iam::444455556666:role/r"}`
		own       = `"Principal":{"AWS":"arn:aws:iam::111122223333:role/r"}`
		replicate = `{"Effect":"Allow",` + root + `,"Action":["ecr:CreateRepository","ecr:ReplicateImage"],"Resource":"arn:aws:ecr:us-west-2:111122223333:repository/*"}`
	)
	img := registrytest.Image(1, 10)
	for _, tc := range []struct {
		name                           string
		account                        string // of the role r
		identity, registry, repository string
		want                           string // part of the refusal; "" is allowed
	}{
		{"own account", account, all, "", "", ""},
		{"own account, nothing allowed", account, noPut + `,{"Effect":"Allow","Action":"ecr:Batch*","Resource":"*"}`, "", "", "explicit deny in an identity-based policy"},
		{"own account, allowed by the repository", account, `{"Effect":"Allow","Action":"ecr:Get*","Resource":"*"}`, "", `{"Effect":"Allow",` + own + `,"Action":"ecr:*"}`, ""},
		{"own account, denied by the registry", account, all, `{"Effect":"Deny",` + own + `,"Action":"ecr:PutImage","Resource":"*"}`, "", "explicit deny in a resource-based policy"},
		{"own account, another repository", account, `{"Effect":"Allow","Action":"ecr:*","Resource":"arn:aws:ecr:us-west-2:111122223333:repository/other/*"}`, "", "", "no identity-based policy allows the ecr:PutImage action"},
		{"across", other, all, "", "", "no resource-based policy allows the ecr:PutImage action"},
		{"across, replication alone", other, all, replicate, "", "no resource-based policy allows the ecr:PutImage action"},
		{"across, by the registry", other, all, `{"Effect":"Allow",` + root + `,"Action":"ecr:*","Resource":"arn:aws:ecr:us-west-2:111122223333:repository/team/*"}`, "", ""},
		{"across, by the registry, for others", other, all, `{"Effect":"Allow",` + root + `,"Action":"ecr:*","Resource":"arn:aws:ecr:us-west-2:111122223333:repository/x*"}`, "", "no resource-based"},
		{"across, by the repository", other, all, "", `{"Effect":"Allow",` + role + `,"Action":"ecr:PutImage"}`, ""},
		{"across, nothing of its own", other, `{"Effect":"Allow","Action":"ecr:Get*","Resource":"*"}`, "", `{"Effect":"Allow",` + role + `,"Action":"ecr:PutImage"}`, "no identity-based"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			emu := start(t, ecrtest.Options{Accounts: []string{account, other}})
			admin := client(t, emu, emu.Credentials(account))
			push(t, admin, "team/app", "v1", img)
			if tc.registry != "" {
				if _, err := admin.PutRegistryPolicy(t.Context(), &ecr.PutRegistryPolicyInput{PolicyText: aws.String(`{"Version":"2012-10-17","Statement":` + tc.registry + `}`)}); err != nil {
					t.Fatal(err)
				}
			}
			if tc.repository != "" {
				if _, err := admin.SetRepositoryPolicy(t.Context(), &ecr.SetRepositoryPolicyInput{RepositoryName: aws.String("team/app"), PolicyText: aws.String(`{"Statement":[` + tc.repository + `]}`)}); err != nil {
					t.Fatal(err)
				}
			}
			creds := roleWith(t, emu, tc.account, "r", tc.identity)
			_, err := client(t, emu, creds).PutImage(t.Context(), &ecr.PutImageInput{RegistryId: aws.String(account), RepositoryName: aws.String("team/app"),
				ImageManifest: aws.String(string(img.Body)), ImageTag: aws.String("v2")})
			if tc.want == "" && err != nil || tc.want != "" && (code(err) != "AccessDeniedException" || !strings.Contains(err.Error(), tc.want) ||
				!strings.Contains(err.Error(), "User: arn:aws:sts::"+tc.account+":assumed-role/r/ecrtest is not authorized to perform: ecr:PutImage on resource: arn:aws:ecr:us-west-2:111122223333:repository/team/app")) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// A policy that could not be enforced is not stored.
func TestPoliciesThatAreNotUnderstood(t *testing.T) {
	emu := start(t, ecrtest.Options{})
	c := client(t, emu, emu.Credentials(account))
	emu.Registry(account, region).CreateRepository("app")
	for _, policy := range []string{``, `x`, `{"Statement":[{"Effect":"Allow","Principal":"*","NotAction":"ecr:*","Resource":"*"}]}`,
		`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"ecr:*","Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}]}`} {
		if _, err := c.SetRepositoryPolicy(t.Context(), &ecr.SetRepositoryPolicyInput{RepositoryName: aws.String("app"), PolicyText: &policy}); code(err) != "InvalidParameterException" || !strings.Contains(err.Error(), "Invalid repository policy provided") {
			t.Errorf("repository policy %s: %v", policy, err)
		}
		if _, err := c.PutRegistryPolicy(t.Context(), &ecr.PutRegistryPolicyInput{PolicyText: &policy}); code(err) != "InvalidParameterException" {
			t.Errorf("registry policy %s: %v", policy, err)
		}
		if _, err := emu.RoleWith(account, "r", policy); err == nil {
			t.Errorf("identity policy %s: no error", policy)
		}
	}
}

func TestQueuePolicies(t *testing.T) {
	const key = "arn:aws:kms:us-west-2:111122223333:key/k"
	emu := start(t, ecrtest.Options{Accounts: []string{account, other}})
	admin, ctx := sqsClient(t, emu, account, region), t.Context()
	q, err := admin.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: aws.String("q")})
	if err != nil {
		t.Fatal(err)
	}
	set := func(name, value string) error {
		_, err := admin.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: q.QueueUrl, Attributes: map[string]string{name: value}})
		return err
	}
	receive := func(account string, statements ...string) error {
		cfg := emu.Config(account, region)
		cfg.HTTPClient = httpClient(t)
		creds := roleWith(t, emu, account, "r", statements...)
		cfg.Credentials = aws.NewCredentialsCache(fixed(creds))
		cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
		_, err := sqs.NewFromConfig(cfg).ReceiveMessage(ctx, &sqs.ReceiveMessageInput{QueueUrl: q.QueueUrl})
		return err
	}
	const allow = `{"Effect":"Allow","Action":"sqs:ReceiveMessage","Resource":"arn:aws:sqs:us-west-2:111122223333:q"}`
	if err := receive(account, allow); err != nil {
		t.Errorf("allowed: %v", err)
	}
	if err := receive(account, strings.Replace(allow, "Receive", "Delete", 1)); code(err) != "AccessDenied" && code(err) != "AccessDeniedException" {
		t.Errorf("another action: %v", err)
	}
	if err := receive(other, allow); code(err) != "AccessDenied" && code(err) != "AccessDeniedException" {
		t.Errorf("another account: %v", err)
	}
	if err := set("Policy", `{"Statement":{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"sqs:*","Resource":"*"}}`); err != nil {
		t.Fatal(err)
	}
	if err := receive(other, allow); err != nil {
		t.Errorf("another account with a policy: %v", err)
	}
	if err := set("Policy", `{"Statement":{"Effect":"Allow","Principal":{"AWS":"444455556666"},"NotAction":"sqs:*","Resource":"*"}}`); err == nil {
		t.Error("a policy that is not understood was stored")
	}
	if err := set("KmsMasterKeyId", key); err != nil {
		t.Fatal(err)
	}
	if err := receive(account, allow); err == nil || !strings.Contains(err.Error(), "kms:Decrypt") {
		t.Errorf("without the key: %v", err)
	}
	if err := receive(account, allow, `{"Effect":"Allow","Action":"kms:Decrypt","Resource":"`+key+`"}`); err != nil {
		t.Errorf("with the key: %v", err)
	}
}

type fixed aws.Credentials

func (f fixed) Retrieve(context.Context) (aws.Credentials, error) { return aws.Credentials(f), nil }

func TestSessionsExpire(t *testing.T) {
	clk := newClock()
	emu := start(t, ecrtest.Options{Clock: clk.Now})
	emu.Role(account, "mirror", "ecr:*")
	cfg := emu.Config(account, region)
	cfg.HTTPClient = httpClient(t)
	out, err := sts.NewFromConfig(cfg).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::111122223333:role/mirror"),
		RoleSessionName: aws.String("s"), DurationSeconds: aws.Int32(900)})
	if err != nil {
		t.Fatal(err)
	}
	creds := aws.Credentials{AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken}
	c := client(t, emu, creds)
	list := func(c *ecr.Client) string {
		_, err := c.DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{})
		return code(err)
	}
	v := v2Client(t, emu, c)
	if got := list(c); got != "" {
		t.Error(got)
	}
	creds.SessionToken = "other"
	if got := list(client(t, emu, creds)); got != "UnrecognizedClientException" {
		t.Error(got)
	}
	emu.Role(account, "mirror", "ecr:PutImage") // a changed role changes its sessions
	if got := list(c); got != "AccessDeniedException" {
		t.Error(got)
	}
	clk.Advance(15 * time.Minute)
	if got := list(c); got != "ExpiredTokenException" {
		t.Error(got)
	}
	if resp, _ := v.do("GET", "/v2/", nil); resp.StatusCode != 200 { // a registry token outlives the session that it came from
		t.Error(resp.Status)
	}
}
