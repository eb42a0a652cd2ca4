package ecr

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/registry/wire"
)

// layerURL is a presigned URL. Never logged: whoever has it may read the layer until it expires.
type layerURL struct {
	url            string
	renew, expires time.Time
}

// Locate implements registry.Locator. A URL is renewed when four fifths of its life are over.
func (r *Registry) Locate(ctx context.Context, o registry.Object) (string, time.Time, error) {
	err := checkObject(o)
	if err == nil && o.Kind != registry.Blob {
		err = registry.Errorf(registry.Invalid, "only blobs have a URL")
	}
	var u layerURL
	if err == nil {
		u, err = r.locate(ctx, o)
	}
	if err != nil {
		return "", time.Time{}, fmt.Errorf("locate %v: %w", o, err)
	}
	return u.url, u.expires, nil
}

// locate returns the cached URL of o or asks for one, once for all who ask at the same time. The call outlives the one who
// made it, for the others wait for it too; lanes do not share it, or a client would wait in the backfill's lane.
func (r *Registry) locate(ctx context.Context, o registry.Object) (layerURL, error) {
	if u, ok := r.urls.get(o); ok {
		return u, nil
	}
	key := registry.LaneOf(ctx).String() + " " + o.String()
	done := r.flight.DoChan(key, func() (any, error) {
		if u, ok := r.urls.get(o); ok { // a call that ended between the look above and this one
			return u, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*r.limit) // the wait for a turn included
		defer cancel()
		out, err := call(ctx, r, downloadURL, r.api.GetDownloadUrlForLayer, &ecr.GetDownloadUrlForLayerInput{
			RegistryId: r.id(), RepositoryName: &o.Repo, LayerDigest: aws.String(o.Digest.String())})
		if err != nil {
			return nil, err
		}
		u, err := parseLayerURL(aws.ToString(out.DownloadUrl), time.Now())
		if err != nil {
			return nil, err
		}
		r.urls.put(o, u)
		return u, nil
	})
	select {
	case <-ctx.Done():
		return layerURL{}, &registry.Error{Class: registry.Unavailable, Err: ctx.Err()}
	case res := <-done:
		if res.Err != nil {
			return layerURL{}, res.Err
		}
		return res.Val.(layerURL), nil
	}
}

// parseLayerURL checks a URL and reads its life; one that does not say lives for an hour from now. It must be https, but on
// loopback, where emulators live.
func parseLayerURL(s string, now time.Time) (layerURL, error) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.User != nil { // the error would print the URL, which is a secret
		return layerURL{}, registry.Errorf(registry.Unavailable, "layer URL: not a URL of a host")
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme != "https" &&
		(u.Scheme != "http" || u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback())) {
		return layerURL{}, registry.Errorf(registry.Denied, "layer URL: %s://%s is neither https nor loopback", u.Scheme, u.Host)
	}
	from, life, ok := wire.PresignedLife(u, now)
	if !ok {
		from, life = now, urlLifetime
	}
	return layerURL{s, from.Add(life * 4 / 5), from.Add(life)}, nil
}
