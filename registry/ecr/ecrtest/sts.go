package ecrtest

import "net/http"

// serveSTS answers GetCallerIdentity, by which tools ask who they are. AssumeRole is not here: a role is an identity of its
// own, see Emulator.Role.
func (e *Emulator) serveSTS(w http.ResponseWriter, who signed, op string) {
	const namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
	p := &queryProtocol{}
	if op != "GetCallerIdentity" {
		p.fail(w, http.StatusBadRequest, sqsErr("InvalidAction", "", "Could not find operation "+op))
		return
	}
	writeQuery(w, op, namespace, struct {
		Arn     string
		UserID  string `xml:"UserId"`
		Account string
	}{"arn:" + partition(who.Region) + ":iam::" + who.Account + ":user/" + who.Name, who.Key, who.Account})
}
