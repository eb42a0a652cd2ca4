package settings

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
)

const (
	from, to, third = "111122223333", "444455556666", "777788889999"
	key             = "arn:aws:kms:us-west-2:" + from + ":key/1"
)

func mapping() Mapping {
	return Mapping{From: Place{"aws", from, "us-west-2"}, To: Place{"aws", to, "eu-central-1"},
		Keys: map[string]string{key: "alias/mirror", key + "2": "arn:aws:kms:eu-central-1:" + to + ":key/2", key + "3": "arn:aws:kms:us-east-1:" + to + ":key/3"}}
}

func wantText(t *testing.T, err error, part string) {
	t.Helper()
	if (err == nil) != (part == "") || err != nil && !strings.Contains(err.Error(), part) {
		t.Errorf("error %v, want %q", err, part)
	}
}

func TestMutability(t *testing.T) {
	m := mapping()
	source := registry.Settings{TagMutability: "IMMUTABLE_WITH_EXCLUSION", Exclusions: []string{"latest", "dev-*"}, Encryption: "AES256"}
	w := m.Want(source)
	if same := w.Compare(registry.Settings{TagMutability: source.TagMutability, Exclusions: []string{"dev-*", "latest"}, Encryption: "AES256"}); len(same) > 0 {
		t.Errorf("the same differs: %+v", same)
	}
	got := w.Compare(registry.Settings{TagMutability: "IMMUTABLE_WITH_EXCLUSION", Exclusions: []string{"latest"}, Encryption: "AES256"})
	want := []Difference{{Setting: registry.SettingMutability, Want: "IMMUTABLE_WITH_EXCLUSION dev-*,latest", Have: "IMMUTABLE_WITH_EXCLUSION latest"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	m.Given.TagMutability = "MUTABLE"
	if w := m.Want(source); w.TagMutability != "MUTABLE" || len(w.Exclusions) > 0 {
		t.Errorf("given MUTABLE, want %+v", w.Settings)
	}
	m.Given.TagMutability = ""
	source.TagMutability = "SOMETIMES"
	w = m.Want(source)
	wantText(t, w.Refused[registry.SettingMutability], "SOMETIMES")
	if got := w.Compare(registry.Settings{TagMutability: "MUTABLE", Encryption: "AES256"}); len(got) != 1 || got[0].Action != Refuse {
		t.Errorf("%+v", got)
	}
}

func TestEncryption(t *testing.T) {
	const here = "arn:aws:kms:eu-central-1:" + to
	for name, tc := range map[string]struct {
		source  registry.Settings
		given   string
		key     string // wanted
		have    string // key there
		differs bool
		refused string
	}{
		"none":                  {registry.Settings{Encryption: "AES256"}, "", "", "", false, ""},
		"an alias":              {registry.Settings{Encryption: "KMS", KMSKey: key}, "", here + ":alias/mirror", here + ":key/any", false, ""},
		"an alias, other place": {registry.Settings{Encryption: "KMS", KMSKey: key}, "", here + ":alias/mirror", "arn:aws:kms:eu-central-1:" + third + ":key/any", true, ""},
		"a key":                 {registry.Settings{Encryption: "KMS_DSSE", KMSKey: key + "2"}, "", here + ":key/2", here + ":key/2", false, ""},
		"another key there":     {registry.Settings{Encryption: "KMS", KMSKey: key + "2"}, "", here + ":key/2", here + ":key/1", true, ""},
		"in another region":     {registry.Settings{Encryption: "KMS", KMSKey: key + "3"}, "", "", "", false, "is not a key in eu-central-1"},
		"no key":                {registry.Settings{Encryption: "KMS", KMSKey: key + "4"}, "", "", "", false, "no key of the destination"},
		"of another kind":       {registry.Settings{Encryption: "ROT13"}, "", "", "", false, "ROT13"},
		"given":                 {registry.Settings{Encryption: "KMS", KMSKey: key + "4"}, "KMS", "", here + ":key/any", false, ""},
	} {
		m := mapping()
		m.Given.Encryption = tc.given
		tc.source.TagMutability = "MUTABLE"
		w := m.Want(tc.source)
		wantText(t, w.Refused[registry.SettingEncryption], tc.refused)
		if err := w.Creatable(); (err != nil) != (tc.refused != "") || err != nil && !errors.Is(err, registry.Invalid) {
			t.Errorf("%s: creatable: %v", name, err)
		}
		if w.KMSKey != tc.key {
			t.Errorf("%s: key %s, want %s", name, w.KMSKey, tc.key)
		}
		got := w.Compare(registry.Settings{TagMutability: "MUTABLE", Encryption: tc.source.Encryption, KMSKey: tc.have})
		if tc.refused == "" && (len(got) > 0) != tc.differs || tc.differs && got[0].Action != Fixed {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func lifecycleOf(count string) string {
	return `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"` + count + `","countNumber":10},"action":{"type":"expire"}}]}`
}

func TestLifecycle(t *testing.T) {
	base := registry.Settings{TagMutability: "MUTABLE", Encryption: "AES256"}
	with := func(text string) registry.Settings { s := base; s.Lifecycle = text; return s }
	const kept = "imageCountMoreThan"
	spaced := strings.ReplaceAll(lifecycleOf(kept), ",", ",\n ")
	for _, tc := range []struct {
		source, there string
		action        Action
		differs       bool
		refused       string
	}{
		{"", "", 0, false, ""},
		{lifecycleOf(kept), spaced, 0, false, ""},
		{lifecycleOf(kept), "", Set, true, ""},
		{lifecycleOf(kept), lifecycleOf("sinceImagePushed"), Set, true, ""},
		{"", lifecycleOf(kept), Keep, true, ""},
		{lifecycleOf(kept), lifecycleOf("sinceImagePulled"), Refuse, true, "the one that is there"},
		{lifecycleOf("sinceImagePulled"), "", Refuse, true, "sinceImagePulled"},
		{strings.Replace(lifecycleOf(kept), "expire", "burn", 1), "", Refuse, true, "burn"},
		{strings.Replace(lifecycleOf(kept), `"rules"`, `"when":"never","rules"`, 1), "", Refuse, true, "when"},
		{lifecycleOf(kept) + "{}", "", Refuse, true, "more than one"},
	} {
		got := mapping().Want(with(tc.source)).Compare(with(tc.there))
		if len(got) > 0 != tc.differs || tc.differs && got[0].Action != tc.action {
			t.Errorf("%s, there %s: %+v", tc.source, tc.there, got)
		}
		if tc.refused != "" {
			wantText(t, got[0].Err, tc.refused)
		}
	}
}

func TestTags(t *testing.T) {
	m := mapping()
	m.Given.Tags = map[string]string{"owner": "mirror"}
	w := m.Want(registry.Settings{TagMutability: "MUTABLE", Encryption: "AES256", Tags: map[string]string{"owner": "team", "cost": "1", "aws:stack": "x"}})
	if d := cmp.Diff(map[string]string{"owner": "mirror", "cost": "1"}, w.Tags); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	there := registry.Settings{TagMutability: "MUTABLE", Encryption: "AES256", Tags: map[string]string{"owner": "mirror", "cost": "2", "own": "kept"}}
	if d := cmp.Diff([]Difference{{Setting: registry.SettingTags, Want: "cost=1", Have: "cost=2"}}, w.Compare(there)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	there.Tags["cost"] = "1"
	if got := w.Compare(there); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}
