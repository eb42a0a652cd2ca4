package ecr

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Mount implements registry.Writer. The control API has no mount: this is the one call to the registry's V2 front, with a token
// of GetAuthorizationToken. It is made only where the account setting BLOB_MOUNTING is ENABLED, which takes
// ecr:GetAccountSetting; ECR then mounts layers that an image of from refers to, in one registry and under one encryption
// (User Guide, "Blob mounting"). A refusal of any kind is false.
func (r *Registry) Mount(ctx context.Context, o registry.Object, from string) (bool, error) {
	err := checkObject(o)
	if err == nil {
		err = checkRepo(from)
	}
	ok := false
	if err == nil {
		ok, err = r.mount(ctx, o, from)
	}
	if err != nil {
		return false, fmt.Errorf("mount %v from %.256s: %w", o, from, err)
	}
	return ok, nil
}

func (r *Registry) mount(ctx context.Context, o registry.Object, from string) (bool, error) {
	if enabled, err := r.mounts.enabled(ctx, r); err != nil || !enabled {
		return false, err
	}
	if err := r.limits.bucket(r.account, r.region, initiateUpload).wait(ctx, registry.LaneOf(ctx)); err != nil {
		return false, &registry.Error{Class: registry.Unavailable, Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, r.limit)
	defer cancel()
	token, err := r.mounts.authorization(ctx, r)
	if err != nil {
		return false, err
	}
	q := url.Values{"mount": {o.Digest.String()}, "from": {from}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.front+"/v2/"+o.Repo+"/blobs/uploads/?"+q.Encode(), nil)
	if err != nil {
		return false, registry.Errorf(registry.Internal, "%w", err)
	}
	req.Header.Set("Authorization", "Basic "+token)
	start := time.Now()
	resp, err := r.layers.Do(req) // follows no redirect, so the token goes nowhere else
	if err == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
		resp.Body.Close()
		err = r.mounts.answer(resp)
	} else {
		err = &registry.Error{Class: registry.Unavailable, Err: withoutURL(err)}
	}
	r.limits.observe(r.host, "mount", err, time.Since(start))
	return err == nil && resp.StatusCode == http.StatusCreated, err
}

// mounts is what mounting needs to know, asked for when it is first needed.
type mounts struct {
	mu      sync.Mutex // held during the calls: others would ask the same
	setting bool
	known   time.Time // until then
	token   string
	fresh   time.Time // until then
}

const (
	settingLife = 10 * time.Minute // of what was read of the account setting
	settingMiss = time.Hour        // of not being allowed to read it
)

func (m *mounts) enabled(ctx context.Context, r *Registry) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Now().Before(m.known) {
		return m.setting, nil
	}
	out, err := call(ctx, r, getAccountSetting, r.api.GetAccountSetting, &ecr.GetAccountSettingInput{Name: aws.String("BLOB_MOUNTING")})
	switch class := registry.ClassOf(err); {
	case err == nil:
		m.setting, m.known = aws.ToString(out.Value) == "ENABLED", time.Now().Add(settingLife)
	case class == registry.Denied, class == registry.Invalid, class == registry.NotFound: // or an endpoint that does not know the call
		m.setting, m.known = false, time.Now().Add(settingMiss)
	default:
		return false, err
	}
	return m.setting, nil
}

// authorization returns the credentials for Basic authentication. AWS's own helper renews a token at half of its life.
func (m *mounts) authorization(ctx context.Context, r *Registry) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Now().Before(m.fresh) {
		return m.token, nil
	}
	out, err := call(ctx, r, getToken, r.api.GetAuthorizationToken, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return "", err
	}
	if len(out.AuthorizationData) == 0 {
		return "", registry.Errorf(registry.Unavailable, "%s: no token", getToken)
	}
	var d types.AuthorizationData = out.AuthorizationData[0]
	if _, err := base64.StdEncoding.DecodeString(aws.ToString(d.AuthorizationToken)); err != nil {
		return "", registry.Errorf(registry.Unavailable, "%s: not a token", getToken)
	}
	m.token, m.fresh = *d.AuthorizationToken, time.Now().Add(max(0, time.Until(aws.ToTime(d.ExpiresAt))/2))
	return m.token, nil
}

// answer returns an error unless ECR decided: 201 is a mount, and 202 an upload instead of it, which ends by itself. Other
// answers below 500 are refusals: the upload that follows shows why, if it fails, too.
func (m *mounts) answer(resp *http.Response) error {
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized, s == http.StatusForbidden:
		m.mu.Lock()
		m.fresh = time.Time{} // it may have been the token: 403 is ECR's answer to an expired one
		m.mu.Unlock()
	case s == http.StatusTooManyRequests:
		return &registry.Error{Class: registry.Throttled, Code: codeTooManyRequests, RetryAfter: retryAfter(resp.Header), Err: errors.New("mount: " + resp.Status)}
	case s >= 500:
		return registry.Errorf(registry.Unavailable, "mount: %s", resp.Status)
	}
	return nil
}
