package iam

import (
	"fmt"
	"slices"
)

// Keys of conditions. Those of the principal are known of every request; the others are in its Context, where they apply.
const (
	PrincipalARN     = "aws:PrincipalArn"
	PrincipalAccount = "aws:PrincipalAccount"
	SourceARN        = "aws:SourceArn"
	SourceAccount    = "aws:SourceAccount"
	ViaService       = "kms:ViaService"
)

// conditions are the operators that are understood; the others are refused when a policy is read.
func conditions() map[string]func(pattern, value string) bool {
	equal := func(p, v string) bool { return p == v }
	return map[string]func(pattern, value string) bool{
		"StringEquals": equal, "StringLike": Match,
		"ArnEquals": Match, "ArnLike": Match, // the two are one (IAM User Guide, "ARN condition operators")
	}
}

func (c Condition) check() error {
	known := []string{PrincipalARN, PrincipalAccount, SourceARN, SourceAccount, ViaService}
	for op, keys := range c {
		if conditions()[op] == nil {
			return fmt.Errorf("condition operator %q is not understood", op)
		}
		for key, values := range keys {
			if !slices.Contains(known, key) {
				return fmt.Errorf("condition key %q is not understood", key)
			}
			if len(values) == 0 {
				return fmt.Errorf("condition %s of %s has no value", op, key)
			}
		}
	}
	return nil
}

// met reports whether all conditions hold; one on a key that the request does not have does not.
func (c Condition) met(r Request) bool {
	for op, keys := range c {
		holds := conditions()[op]
		for key, values := range keys {
			v, ok := r.value(key)
			if !ok || holds == nil || !slices.ContainsFunc(values, func(p string) bool { return holds(p, v) }) {
				return false
			}
		}
	}
	return true
}

func (r Request) value(key string) (string, bool) {
	switch {
	case key == PrincipalARN && r.ARN != "":
		return r.ARN, true
	case key == PrincipalAccount && r.Account != "":
		return r.Account, true
	}
	v, ok := r.Context[key]
	return v, ok
}
