package ecr

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/registrytest"
)

// stsThenECR answers AssumeRole with sts and everything else like ECR, whose signatures it records.
type stsThenECR struct {
	status int
	sts    string
	calls  []string
}

func (s *stsThenECR) Do(req *http.Request) (*http.Response, error) {
	answer := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
	_, rest, _ := strings.Cut(req.Header.Get("Authorization"), "Credential=")
	key, _, _ := strings.Cut(rest, "/")
	if strings.HasPrefix(req.URL.Host, "sts.") {
		body, err := io.ReadAll(req.Body)
		if err != nil || !strings.Contains(string(body), "Action=AssumeRole") || !strings.Contains(string(body), "RoleSessionName=ecr-mirror") {
			return answer(400, "not what was expected: "+string(body))
		}
		s.calls = append(s.calls, "AssumeRole by "+key)
		return answer(s.status, s.sts)
	}
	s.calls = append(s.calls, "ECR by "+key)
	return answer(200, `{"failures":[{"failureCode":"ImageNotFound"}]}`)
}

func TestRole(t *testing.T) {
	const granted = `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
		<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2126-01-01T00:00:00Z</Expiration>
		</Credentials></AssumeRoleResult></AssumeRoleResponse>`
	const denied = `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code>
		<Message>not authorized to perform sts:AssumeRole</Message></Error></ErrorResponse>`
	for name, tc := range map[string]struct {
		status int
		sts    string
		class  registry.Class
		calls  string
	}{
		"granted": {200, granted, registry.NotFound, "AssumeRole by AKIDEXAMPLE, ECR by ASIAROLE, ECR by ASIAROLE"},
		"denied":  {403, denied, registry.Denied, "AssumeRole by AKIDEXAMPLE, AssumeRole by AKIDEXAMPLE"},
	} {
		t.Run(name, func(t *testing.T) {
			client := &stsThenECR{status: tc.status, sts: tc.sts}
			cfg := fixedAWS()
			cfg.HTTPClient = client
			r, err := New(t.Context(), Options{Host: host, AWS: cfg, RoleARN: "arn:aws:iam::111122223333:role/mirror"})
			if err != nil {
				t.Fatal(err)
			}
			img := registrytest.Image(1)
			for range 2 { // the role is assumed once
				if _, err := r.Stat(t.Context(), object(img.Desc, registry.Manifest)); registry.ClassOf(err) != tc.class {
					t.Errorf("got %v of class %v", err, registry.ClassOf(err))
				}
			}
			if got := strings.Join(client.calls, ", "); got != tc.calls {
				t.Errorf("calls: %s\nwant:  %s", got, tc.calls)
			}
		})
	}
}
