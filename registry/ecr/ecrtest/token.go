package ecrtest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"
)

// tokenLifetime is that of ECR's registry tokens (Amazon ECR User Guide, "Private registry authentication").
const tokenLifetime = 12 * time.Hour

// password is what follows "AWS:" in a registry token: opaque to clients, but this is its shape at AWS, about 2 KB of it.
type password struct {
	Payload    string `json:"payload"`
	DataKey    string `json:"datakey"`
	Version    string `json:"version"`
	Type       string `json:"type"`
	Expiration int64  `json:"expiration"`
}

type claims struct {
	Key, Region string // the principal's access key; the region that issued the token
	Expires     int64
	Pad         []byte
}

var (
	errBadToken     = errors.New("not a token of this emulator")
	errExpiredToken = errors.New("expired token")
	errOtherRegion  = errors.New("token of another region")
)

// Token returns a password for docker login to an account's registries in a region, as GetAuthorizationToken gives it to the
// account's administrator; the user is AWS.
func (e *Emulator) Token(account, region string) string {
	token, _ := e.mintToken(e.principal(e.Credentials(account).AccessKeyID), region)
	return token
}

// mintToken returns a password for who in region and when it expires.
func (e *Emulator) mintToken(who *principal, region string) (string, time.Time) {
	expires := e.now().Add(tokenLifetime)
	c := claims{who.Key, region, expires.Unix(), make([]byte, 500)}
	rand.Read(c.Pad)
	body, _ := json.Marshal(c) // these types always encode
	key := make([]byte, 184)
	rand.Read(key)
	p, _ := json.Marshal(password{base64.StdEncoding.EncodeToString(append(e.mac("token", body), body...)),
		base64.StdEncoding.EncodeToString(key), "2", "DATA_KEY", expires.Unix()})
	return base64.StdEncoding.EncodeToString(p), expires
}

// checkToken returns the principal that a password stands for in region.
func (e *Emulator) checkToken(pw, region string) (*principal, error) {
	raw, err := base64.StdEncoding.DecodeString(pw)
	if err != nil {
		return nil, errBadToken
	}
	var p password
	if json.Unmarshal(raw, &p) != nil {
		return nil, errBadToken
	}
	signed, err := base64.StdEncoding.DecodeString(p.Payload)
	if err != nil || len(signed) < sha256.Size || !hmac.Equal(signed[:sha256.Size], e.mac("token", signed[sha256.Size:])) {
		return nil, errBadToken
	}
	var c claims
	if json.Unmarshal(signed[sha256.Size:], &c) != nil {
		return nil, errBadToken
	}
	who := e.principal(c.Key)
	switch {
	case who == nil:
		return nil, errBadToken
	case e.now().Unix() >= c.Expires:
		return nil, errExpiredToken
	case c.Region != region:
		return nil, errOtherRegion
	}
	return who, nil
}

// mac signs b for one purpose with the emulator's key.
func (e *Emulator) mac(purpose string, b []byte) []byte {
	h := hmac.New(sha256.New, e.key)
	h.Write([]byte(purpose))
	h.Write([]byte{0})
	h.Write(b)
	return h.Sum(nil)
}

// basic is the authorization token of a password: user AWS, in base64.
func basic(pw string) string { return base64.StdEncoding.EncodeToString([]byte("AWS:" + pw)) }
