package events_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ecr-mirror/ecr-mirror/registry"
	"github.com/ecr-mirror/ecr-mirror/replicate/events"
)

const dgst = "sha256:7786d6f9f2e5e0e6d5b1a0f5f4d5e1c5a8c4f2f1e9d8c7b6a5f4e3d2c1b0a998"

func sample(t testing.TB, name string) []byte {
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each file in testdata has the shape that is documented, or that was seen.
func TestDecodeSamples(t *testing.T) {
	at := time.Date(2019, 11, 16, 1, 54, 34, 0, time.UTC)
	change := registry.Change{Registry: "123456789012.dkr.ecr.us-west-2.amazonaws.com", Repo: "my-repo", Digest: dgst, At: at}
	with := func(f func(*registry.Change)) []registry.Change { c := change; f(&c); return []registry.Change{c} }
	latest := with(func(c *registry.Change) { c.Tag = "latest" })
	gone := with(func(c *registry.Change) { c.Op, c.Explicit = registry.Delete, true })
	onThe := func(host string, f func(*registry.Change)) []registry.Change {
		return with(func(c *registry.Change) { c.Registry, c.Tag = host, "latest"; f(c) })
	}
	pushed := onThe("registry.example.com:5000", func(*registry.Change) {})
	for name, tc := range map[string]struct {
		want []registry.Change
		err  error
	}{
		"push":            {latest, nil},
		"push-untagged":   {[]registry.Change{change}, nil},
		"push-no-tag-key": {[]registry.Change{change}, nil},
		"push-china": {with(func(c *registry.Change) {
			c.Tag, c.Registry = "latest", "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn"
		}), nil},
		"push-media-types":  {latest, nil},
		"delete":            {with(func(c *registry.Change) { c.Tag, c.Op = "latest", registry.Delete }), nil},
		"referrer":          {[]registry.Change{change}, nil},
		"sns":               {latest, nil},
		"cloudtrail":        {with(func(c *registry.Change) { c.Tag, c.Registry = "latest", "111122223333.dkr.ecr.us-west-2.amazonaws.com" }), nil},
		"cloudtrail-failed": {nil, events.ErrIgnored},
		"cloudtrail-create": {nil, events.ErrIgnored},
		"cloudtrail-delete": {append(gone[:1:1], with(func(c *registry.Change) {
			c.Op, c.Explicit, c.Digest = registry.Delete, true, "sha256:0000000000000000000000000000000000000000000000000000000000000000"
		})...), nil},
		"cloudtrail-delete-nothing": {nil, events.ErrIgnored},
		"cloudtrail-delete-bad":     {nil, events.ErrMalformed},
		"cloudtrail-expired":        {nil, events.ErrIgnored},
		"push-failed":               {nil, events.ErrIgnored},
		"storage-class":             {nil, events.ErrIgnored},
		"replication":               {nil, events.ErrIgnored},
		"scan":                      {nil, events.ErrIgnored},
		"sns-subscription":          {nil, events.ErrUnknown},
		"ec2":                       {nil, events.ErrUnknown},
		"forged-source":             {nil, events.ErrUnknown},

		"pull-through-cache": {nil, events.ErrIgnored},

		"miss":          {latest, nil},
		"miss-untagged": {onThe("registry.example.com:5000", func(c *registry.Change) { c.Tag = "" }), nil},
		"miss-version":  {nil, events.ErrUnknown},
		"miss-more":     {nil, events.ErrMalformed},
		"miss-forged":   {nil, events.ErrUnknown},
		"probe":         {nil, events.ErrIgnored},

		"notification":                {pushed, nil},
		"notification-no-host":        {pushed, nil},
		"notification-node":           {onThe("xtal.local:5000", func(c *registry.Change) { c.Tag = "" }), nil},
		"notification-batch":          {append(pushed[:1:1], onThe("other.example.com", func(c *registry.Change) { c.Tag = "v2" })...), nil},
		"notification-untag":          {onThe("registry.example.com:5000", func(c *registry.Change) { c.Op, c.Explicit, c.Digest = registry.Delete, true, "" }), nil},
		"notification-delete":         {onThe("registry.example.com:5000", func(c *registry.Change) { c.Op, c.Explicit, c.Tag = registry.Delete, true, "" }), nil},
		"notification-blob":           {nil, events.ErrIgnored},
		"notification-pull":           {nil, events.ErrIgnored},
		"notification-partly-bad":     {pushed, events.ErrMalformed},
		"notification-no-repository":  {nil, events.ErrMalformed},
		"notification-bad-host":       {nil, events.ErrMalformed},
		"notification-unknown-action": {nil, events.ErrUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := events.Decode(sample(t, name))
			if !errors.Is(err, tc.err) || (err == nil) != (tc.err == nil) {
				t.Fatalf("got error %v, want %v", err, tc.err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("changes (-want +got):\n%s", d)
			}
			if err != nil && registry.ClassOf(err) != registry.Invalid {
				t.Errorf("%v has class %v", err, registry.ClassOf(err))
			}
		})
	}
}

// Every field of a push is validated: whoever may write to the queue could put anything there.
func TestDecodeRefuses(t *testing.T) {
	push := string(sample(t, "push"))
	for name, body := range map[string]string{
		"nothing":          "",
		"not JSON":         "hello",
		"cut":              push[:len(push)/2],
		"a list":           "[" + push + "]",
		"too large":        push + strings.Repeat(" ", events.MaxSize),
		"account":          strings.Replace(push, "123456789012", "12345678901x", 1),
		"short account":    strings.Replace(push, "123456789012", "1234", 1),
		"region":           strings.Replace(push, "us-west-2", "us-west-2.evil.example/", 1),
		"no region":        strings.Replace(push, "us-west-2", "", 1),
		"repository":       strings.Replace(push, "my-repo", "../my-repo", 1),
		"upper repository": strings.Replace(push, "my-repo", "My-Repo", 1),
		"no repository":    strings.Replace(push, "my-repo", "", 1),
		"tag":              strings.Replace(push, `"latest"`, `"la test"`, 1),
		"long tag":         strings.Replace(push, `"latest"`, `"`+strings.Repeat("a", 129)+`"`, 1),
		"digest":           strings.Replace(push, dgst, "sha256:1", 1),
		"no digest":        strings.Replace(push, dgst, "", 1),
		"time":             strings.Replace(push, "2019-11-16T01:54:34Z", "yesterday", 1),
		"no detail":        strings.Replace(push, `"detail":`, `"details":`, 1),
		"tag of a type":    strings.Replace(push, `"latest"`, `["latest"]`, 1),
	} {
		t.Run(name, func(t *testing.T) {
			if body == push {
				t.Fatal("the sample does not hold what this replaces")
			}
			got, err := events.Decode([]byte(body))
			if !errors.Is(err, events.ErrMalformed) || got != nil {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestDecodeOpensOneEnvelope(t *testing.T) {
	wrap := func(b []byte) []byte {
		w, err := json.Marshal(map[string]string{"Type": "Notification", "Message": string(b)})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if _, err := events.Decode(wrap(sample(t, "push"))); err != nil {
		t.Error(err)
	}
	if _, err := events.Decode(wrap(wrap(sample(t, "push")))); !errors.Is(err, events.ErrUnknown) {
		t.Errorf("two envelopes: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatal("no samples", err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		changes, err := events.Decode(b)
		if err == nil && len(changes) == 0 || errors.Is(err, events.ErrIgnored) && len(changes) > 0 {
			t.Fatalf("%d changes and error %v", len(changes), err)
		}
		if err != nil && registry.ClassOf(err) != registry.Invalid {
			t.Errorf("%v has class %v", err, registry.ClassOf(err))
		}
		for _, c := range changes {
			untagged := c.Op == registry.Delete && c.Tag != "" && c.Digest == ""
			if !untagged && c.Digest.Validate() != nil || c.Repo == "" || strings.Contains(c.Repo, "..") || strings.ContainsAny(c.Registry, "/@ ") || c.At.IsZero() {
				t.Errorf("change %+v", c)
			}
		}
	})
}
