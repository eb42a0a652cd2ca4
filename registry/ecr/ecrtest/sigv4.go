package ecrtest

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ecr-mirror/ecr-mirror/registry/ecr/iam"
)

// principal is who signs requests.
type principal struct {
	Account, Name, Key, Secret string
	Policies                   []iam.Document

	// Of an assumed role.
	Session, Token string
	Expires        time.Time
}

func (p *principal) expired(now time.Time) bool { return p.Token != "" && !now.Before(p.Expires) }

// maxSkew is how far a request's date may be from this machine's clock. Signers use the machine's clock too, so it is
// measured against that and not against Options.Clock.
const maxSkew = 5 * time.Minute

// signed is what a valid signature says.
type signed struct {
	*principal
	Region, Service string
}

// verify recomputes the signature of a request whose body has been read (AWS Signature Version 4).
func (e *Emulator) verify(r *http.Request, body []byte) (signed, error) {
	auth, ok := parseAuthorization(r.Header.Get("Authorization"))
	if !ok {
		return signed{}, errf("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	who := e.principal(auth.key)
	if who == nil {
		return signed{}, errf("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if r.Header.Get("X-Amz-Security-Token") != who.Token {
		return signed{}, errf("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if who.expired(e.now()) {
		return signed{}, errf("ExpiredTokenException", "The security token included in the request is expired")
	}
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || auth.date != at.Format("20060102") {
		return signed{}, errf("InvalidSignatureException", "Credential date does not match the date of the request.")
	}
	if skew := time.Since(at); skew > maxSkew || skew < -maxSkew {
		return signed{}, errf("InvalidSignatureException", "Signature expired: %s is not within %v of %s", at.Format("20060102T150405Z"), maxSkew, time.Now().UTC().Format("20060102T150405Z"))
	}
	if !slices.Contains([]string{"ecr", "sqs", "sts", "events"}, auth.service) || !regionRE.MatchString(auth.region) {
		return signed{}, errf("InvalidSignatureException", "Credential should be scoped to a correct service: 'ecr', 'sqs', 'sts' or 'events'.")
	}
	clone := &http.Request{Method: r.Method, Host: r.Host, URL: &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery}, Header: http.Header{}}
	for _, h := range auth.headers {
		switch h {
		case "host":
		case "content-length":
			clone.ContentLength = int64(len(body))
		default:
			clone.Header[http.CanonicalHeaderKey(h)] = r.Header.Values(h)
		}
	}
	creds := aws.Credentials{AccessKeyID: auth.key, SecretAccessKey: who.Secret, SessionToken: clone.Header.Get("X-Amz-Security-Token")}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(context.Background(), creds, clone, hex.EncodeToString(sum[:]), auth.service, auth.region, at); err != nil {
		return signed{}, err
	}
	want, _ := parseAuthorization(clone.Header.Get("Authorization"))
	if subtle.ConstantTimeCompare([]byte(want.signature), []byte(auth.signature)) != 1 {
		return signed{}, errf("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return signed{who, auth.region, auth.service}, nil
}

type authorization struct {
	key, date, region, service, signature string
	headers                               []string
}

// parseAuthorization reads "AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, SignedHeaders=a;b, Signature=hex".
func parseAuthorization(h string) (a authorization, ok bool) {
	rest, ok := strings.CutPrefix(h, "AWS4-HMAC-SHA256 ")
	if !ok {
		return a, false
	}
	for part := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch k {
		case "Credential":
			f := strings.Split(v, "/")
			if len(f) != 5 || f[4] != "aws4_request" {
				return a, false
			}
			a.key, a.date, a.region, a.service = f[0], f[1], f[2], f[3]
		case "SignedHeaders":
			a.headers = strings.Split(strings.ToLower(v), ";")
		case "Signature":
			a.signature = v
		}
	}
	return a, a.key != "" && a.headers != nil && a.signature != ""
}
