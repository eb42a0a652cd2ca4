package ecrtest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// serveSTS answers GetCallerIdentity, by which tools ask who they are, and AssumeRole for a role that Role or RoleWith made.
// The role trusts every principal unless Trust says otherwise; the principal needs sts:AssumeRole. Its credentials expire after DurationSeconds, an hour by default.
func (e *Emulator) serveSTS(w http.ResponseWriter, who signed, op string, p sqsProtocol, form url.Values) {
	const namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
	switch op {
	case "GetCallerIdentity":
		writeQuery(w, op, namespace, struct {
			Arn     string
			UserID  string `xml:"UserId"`
			Account string
		}{who.caller(who.Region), who.Key, who.Account})
	case "AssumeRole":
		arn, session := form.Get("RoleArn"), form.Get("RoleSessionName")
		role := e.assume(arn, session, form.Get("DurationSeconds"))
		if role == nil || !e.mayAssume(who, role, arn) {
			p.fail(w, http.StatusForbidden, sqsErr("AccessDenied", "", "User: "+who.caller(who.Region)+" is not authorized to perform: sts:AssumeRole on resource: "+arn))
			return
		}
		type credentials struct {
			AccessKeyID     string `xml:"AccessKeyId"`
			SecretAccessKey string
			SessionToken    string
			Expiration      string
		}
		type assumed struct {
			Arn string
			ID  string `xml:"AssumedRoleId"`
		}
		writeQuery(w, op, namespace, struct {
			Credentials credentials
			Role        assumed `xml:"AssumedRoleUser"`
		}{credentials{role.Key, role.Secret, role.Token, role.Expires.UTC().Format(time.RFC3339)}, assumed{role.caller(who.Region), role.Key + ":" + session}})
	default:
		p.fail(w, http.StatusBadRequest, sqsErr("InvalidAction", "", "Could not find operation "+op))
	}
}

// mayAssume reports whether who may assume role: its own policies allow it, and the role's trust policy, if it has one.
func (e *Emulator) mayAssume(who signed, role *principal, arn string) bool {
	e.mu.Lock()
	trust, ok := e.trusts[[2]string{role.Account, role.Name}]
	e.mu.Unlock()
	r := who.request(who.Region, "sts:AssumeRole", arn, role.Account)
	if !ok { // everybody is trusted
		r.Owner = who.Account
	}
	return e.decide(r, who.Policies, trust).Allowed
}

// assume returns a session of the role that arn:PARTITION:iam::ACCOUNT:role/NAME names; nil when there is no such role.
func (e *Emulator) assume(arn, session, duration string) *principal {
	f := strings.Split(arn, ":")
	if len(f) != 6 || f[2] != "iam" || !strings.HasPrefix(f[5], "role/") || session == "" {
		return nil
	}
	seconds, err := strconv.Atoi(duration)
	if err != nil || seconds < 900 || seconds > 43200 {
		seconds = 3600
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var found *principal
	for key, p := range e.principals {
		switch {
		case p.expired(e.now().Add(-tokenLifetime)): // its registry tokens are over as well
			delete(e.principals, key)
		case p.Account == f[4] && p.Name == strings.TrimPrefix(f[5], "role/") && p.Token == "":
			found = p
		}
	}
	if found == nil {
		return nil
	}
	p := *found
	p.Key, p.Secret, p.Token, p.Session = "ASIA"+strings.ToUpper(uuid()[:8]+uuid()[:8]), hashed(uuid()), hashed("token "+uuid()), session
	p.Expires = e.now().Add(time.Duration(seconds) * time.Second)
	e.principals[p.Key] = &p
	return &p
}
