package ecrtest

import (
	"net/http"
	"strings"
	"time"
)

// serveSTS answers GetCallerIdentity, by which tools ask who they are, and AssumeRole for a principal that Role made: every
// principal of the emulator is trusted to assume it. The credentials do not expire here, whatever the answer says.
func (e *Emulator) serveSTS(w http.ResponseWriter, who signed, op string, p sqsProtocol, roleARN, session string) {
	const namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
	switch op {
	case "GetCallerIdentity":
		writeQuery(w, op, namespace, struct {
			Arn     string
			UserID  string `xml:"UserId"`
			Account string
		}{"arn:" + partition(who.Region) + ":iam::" + who.Account + ":user/" + who.Name, who.Key, who.Account})
	case "AssumeRole":
		role := e.roleByARN(roleARN)
		if role == nil || session == "" {
			p.fail(w, http.StatusForbidden, sqsErr("AccessDenied", "", "User: "+who.Name+" is not authorized to perform: sts:AssumeRole on resource: "+roleARN))
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
		}{credentials{role.Key, role.Secret, hashed("session " + session), e.now().UTC().Add(time.Hour).Format(time.RFC3339)},
			assumed{"arn:" + partition(who.Region) + ":sts::" + role.Account + ":assumed-role/" + role.Name + "/" + session, role.Key + ":" + session}})
	default:
		p.fail(w, http.StatusBadRequest, sqsErr("InvalidAction", "", "Could not find operation "+op))
	}
}

// roleByARN returns the principal that arn:PARTITION:iam::ACCOUNT:role/NAME names; nil when Role has not made it.
func (e *Emulator) roleByARN(arn string) *principal {
	f := strings.Split(arn, ":")
	if len(f) != 6 || f[2] != "iam" || !strings.HasPrefix(f[5], "role/") {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.principals {
		if p.Account == f[4] && p.Name == strings.TrimPrefix(f[5], "role/") {
			return p
		}
	}
	return nil
}
