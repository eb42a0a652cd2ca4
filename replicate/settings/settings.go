// Package settings says what the settings of a repository at a destination should be, by those of the repository at the source
// that it is a copy of, and what differs. It asks nobody and changes nothing.
//
// What is not understood is refused with a reason, one setting at a time; the others are not kept from agreeing. What only the
// destination has, a document or a tag, is its own: nothing is ever taken away.
//
// Limitations: scanning is not compared. Which key an alias names is not known: an alias agrees with every key of its account and region. A principal of the
// source's account becomes the one of the same name in the destination's, whoever that is there.
package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

// Place is where a registry is.
type Place struct{ Partition, Account, Region string }

// Mapping turns settings of one registry's repositories into those of another's.
type Mapping struct {
	From, To Place
	// Keys are the destination's KMS keys by those of the source, as ARNs; a destination's may be "alias/NAME", which is in its
	// own account and region.
	Keys map[string]string
	// Given goes before what the source has: TagMutability, Encryption with KMSKey, and each of Tags.
	Given registry.Settings
}

// Wanted is what a repository should have. A setting that is refused is empty in Settings.
type Wanted struct {
	registry.Settings
	Refused map[registry.Setting]error
}

// Want returns what the copy of a repository should have.
func (m Mapping) Want(source registry.Settings) Wanted {
	w := Wanted{Refused: make(map[registry.Setting]error)}
	refuse := func(s registry.Setting, err error) {
		if err != nil {
			w.Refused[s] = err
		}
	}
	refuse(registry.SettingMutability, m.mutability(source, &w.Settings))
	refuse(registry.SettingEncryption, m.encryption(source, &w.Settings))
	if source.Lifecycle != "" {
		_, err := parseLifecycle(source.Lifecycle)
		if refuse(registry.SettingLifecycle, err); err == nil {
			w.Lifecycle = source.Lifecycle
		}
	}
	if source.Policy != "" {
		var err error
		w.Policy, err = m.policy(source.Policy)
		refuse(registry.SettingPolicy, err)
	}
	w.Tags = maps.Clone(source.Tags)
	if w.Tags == nil {
		w.Tags = make(map[string]string)
	}
	maps.DeleteFunc(w.Tags, func(key, _ string) bool { return strings.HasPrefix(strings.ToLower(key), "aws:") }) // AWS's own, which nobody may set
	maps.Copy(w.Tags, m.Given.Tags)
	return w
}

func (m Mapping) mutability(source registry.Settings, to *registry.Settings) error {
	if m.Given.TagMutability != "" {
		to.TagMutability = m.Given.TagMutability
		return nil
	}
	switch source.TagMutability {
	case "MUTABLE", "IMMUTABLE", "MUTABLE_WITH_EXCLUSION", "IMMUTABLE_WITH_EXCLUSION":
		to.TagMutability, to.Exclusions = source.TagMutability, slices.Sorted(slices.Values(source.Exclusions))
		return nil
	}
	return fmt.Errorf("tag mutability %q is not understood", source.TagMutability)
}

func (m Mapping) encryption(source registry.Settings, to *registry.Settings) error {
	var key string
	switch s := source.Encryption; {
	case m.Given.Encryption != "":
		to.Encryption, to.KMSKey = m.Given.Encryption, m.Given.KMSKey
		return nil
	case s == "AES256":
	case s != "KMS" && s != "KMS_DSSE":
		return fmt.Errorf("encryption %q is not understood", s)
	default:
		key = m.Keys[source.KMSKey]
		if key == "" {
			return fmt.Errorf("no key of the destination is given for %s", source.KMSKey)
		}
		here := "arn:" + m.To.Partition + ":kms:" + m.To.Region + ":"
		if strings.HasPrefix(key, "alias/") {
			key = here + m.To.Account + ":" + key
		}
		if !strings.HasPrefix(key, here) {
			return fmt.Errorf("%s is not a key in %s", key, m.To.Region)
		}
	}
	to.Encryption, to.KMSKey = source.Encryption, key
	return nil
}

// Action is what becomes of a difference.
type Action uint8

const (
	Set    Action = iota // the destination should have what is wanted
	Fixed                // it cannot be changed any more
	Keep                 // the source has none: it is the destination's own
	Refuse               // it is not understood, or would let somebody do more: Err says
)

func (a Action) String() string { return [...]string{"set", "fixed", "keep", "refused"}[a] }

// Difference is one setting that source and destination do not agree about.
type Difference struct {
	Setting    registry.Setting
	Action     Action
	Want, Have string // for people; Want is "" when it is refused or there is none
	Err        error  // why it is refused
}

// Compare returns how a repository differs from what is wanted, in the order of the settings.
func (w Wanted) Compare(have registry.Settings) (found []Difference) {
	add := func(s registry.Setting, a Action, want, have string) {
		if w.Refused[s] == nil {
			found = append(found, Difference{Setting: s, Action: a, Want: want, Have: have})
		}
	}
	exclusions := slices.Sorted(slices.Values(have.Exclusions))
	if w.TagMutability != have.TagMutability || !slices.Equal(w.Exclusions, exclusions) {
		add(registry.SettingMutability, Set, mutabilityText(w.TagMutability, w.Exclusions), mutabilityText(have.TagMutability, exclusions))
	}
	if w.Encryption != have.Encryption || !sameKey(w.KMSKey, have.KMSKey) {
		add(registry.SettingEncryption, Fixed, encryptionText(w.Settings), encryptionText(have))
	}
	document := func(s registry.Setting, want, have string, compare func(want, have string) (bool, error)) {
		switch same, err := compare(want, have); {
		case w.Refused[s] != nil:
		case want == "" && have != "":
			add(s, Keep, "", have)
		case err != nil:
			found = append(found, Difference{Setting: s, Action: Refuse, Have: have, Err: err})
		case !same:
			add(s, Set, want, have)
		}
	}
	document(registry.SettingLifecycle, w.Lifecycle, have.Lifecycle, sameLifecycle)
	document(registry.SettingPolicy, w.Policy, have.Policy, samePolicy)
	lacks := maps.Clone(w.Tags)
	maps.DeleteFunc(lacks, func(k, v string) bool { there, ok := have.Tags[k]; return ok && there == v })
	if len(lacks) > 0 {
		others := maps.Clone(have.Tags)
		maps.DeleteFunc(others, func(k, _ string) bool { _, ok := lacks[k]; return !ok })
		add(registry.SettingTags, Set, tagsText(lacks), tagsText(others))
	}
	for s, err := range w.Refused {
		found = append(found, Difference{Setting: s, Action: Refuse, Err: err})
	}
	slices.SortFunc(found, func(a, b Difference) int { return int(a.Setting) - int(b.Setting) })
	return found
}

// sameKey reports whether a repository encrypted with the key have is as wanted: any will do, that very key, or one that an alias may
// name.
func sameKey(want, have string) bool {
	if want == "" || want == have {
		return true
	}
	place, _, alias := strings.Cut(want, ":alias/")
	return alias && strings.HasPrefix(have, place+":key/")
}

func mutabilityText(mutability string, exclusions []string) string {
	return strings.TrimSpace(mutability + " " + strings.Join(exclusions, ","))
}

func encryptionText(s registry.Settings) string {
	return strings.TrimSpace(s.Encryption + " " + s.KMSKey)
}

func tagsText(tags map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, k+"="+tags[k])
	}
	return strings.Join(all, ", ")
}

// Creatable is the error that keeps a repository from being created: its encryption, which could not be put right later.
func (w Wanted) Creatable() error {
	if err := w.Refused[registry.SettingEncryption]; err != nil {
		return &registry.Error{Class: registry.Invalid, Err: fmt.Errorf("encryption: %w", err)}
	}
	return nil
}
