package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/ecr-mirror/ecr-mirror/config"
	"github.com/ecr-mirror/ecr-mirror/replicate/rules"
)

var update = flag.Bool("update", false, "write the golden files")

func env(vars map[string]string) func(string) (string, bool) {
	return func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
}

func parse(t *testing.T, name string, vars map[string]string) (*config.Config, error) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return config.Parse(name, data, env(vars))
}

func TestFull(t *testing.T) {
	deletion := config.Deletion{Grace: 24 * time.Hour, PerRun: 100, Interval: time.Hour}
	got, err := parse(t, "testdata/full.yaml", map[string]string{"MIRROR_PROFILE": "writer", "STAGE": "prod"})
	if err != nil {
		t.Fatal(err)
	}
	want := &config.Config{
		Role: "worker", Listen: "0.0.0.0:5000", Admin: "0.0.0.0:5001", AdminAuth: config.AdminAuth{HTPasswd: "testdata/operators", Insecure: true},
		Costs:  config.Costs{TransferPerGB: 0.09, NATPerGB: 0, ZonePerGB: 0.005},
		TLS:    &config.TLS{Cert: "testdata/tls/tls.crt", Key: "testdata/tls/tls.key", ClientCA: "/etc/ecr-mirror/ca.crt"},
		Auth:   config.Auth{HTPasswd: "testdata/users"},
		Cache:  config.Cache{Path: "/data/cache", Size: 200 << 30, FillOnProbe: true},
		Limits: config.Limits{Requests: 1000, RequestsPerClient: 100, Connections: 2000, ConnectionsPerClient: 500},
		Log:    config.Log{Level: "debug", Format: "json"},
		Traces: &config.Traces{Endpoint: "https://collector.example.com/otlp", Sample: 0.5},
		Mirrors: []config.Mirror{{
			Names: []string{"111122223333.dkr.ecr.us-west-2.amazonaws.com", "images.example.com:5000"},
			Source: config.Registry{Registry: "111122223333.dkr.ecr.us-west-2.amazonaws.com", RoleARN: "arn:aws:iam::111122223333:role/read",
				Endpoint: "https://vpce-1.api.ecr.us-west-2.vpce.amazonaws.com", Region: "us-west-2", Account: "111122223333"},
			Destination: &config.Registry{Registry: "111122223333.dkr.ecr.eu-central-1.amazonaws.com", Profile: "writer", Region: "eu-central-1", Account: "111122223333",
				Rates: config.Rates{PutImage: 25, InitiateLayerUpload: 50, UploadLayerPart: 250, CompleteLayerUpload: 50,
					BatchCheckLayerAvailability: 500, BatchGetImage: 1000, GetDownloadURLForLayer: 1500.5},
				Repositories: config.Repositories{TagMutability: "IMMUTABLE", ScanOnPush: true, Encryption: "KMS",
					KMSKey: "arn:aws:kms:eu-central-1:111122223333:key/1", Tags: map[string]string{"owner": "prod-team", "cost": "42"}}},
			Auth:  &config.Auth{ECR: true, OnOutage: "known"},
			Tags:  config.Tags{TTL: 30 * time.Second, StaleFor: 48 * time.Hour, Authority: "destination"},
			Blobs: "redirect",
			Replication: config.Replication{Rules: []rules.Rule{{Repositories: []string{"team/**", "base-*", "/lib-[0-9]+/"}, Exclude: []string{"team/tmp-*"},
				Tags: []string{"v*", "stable", "semver:>=1.2 <3"}, ExcludeTags: []string{"*-dev"}, Platforms: []string{"linux/amd64", "linux/arm64"}}},
				RulesFile: "testdata/replication.json", Destinations: "own", Sweep: 6 * time.Hour, Fronts: &config.Registry{Registry: "mirror.example.com", NS: "111122223333.dkr.ecr.us-west-2.amazonaws.com"}, BytesPerDay: 500 << 30, Deletes: "ignore", Deletion: deletion,
				Settings: config.Settings{Mode: "converge", KMSKeys: map[string]string{"arn:aws:kms:us-west-2:111122223333:key/1": "alias/mirror"}}},
			Events: config.Events{SQS: "https://sqs.eu-central-1.amazonaws.com/111122223333/ecr-prod", Shared: true,
				Webhook: &config.Webhook{Path: "/events/west", TokenFile: "testdata/secrets/token"}},
		}, {
			Names: []string{"emulator:5010"},
			Source: config.Registry{Registry: "http://emulator:5010", Type: "ecr", Region: "us-east-1", Account: "012345678901",
				Endpoint: "http://emulator:5011", Insecure: true},
			Auth:        &config.Auth{HTPasswd: "testdata/users", Insecure: true},
			Tags:        config.Tags{TTL: -1, StaleFor: -1, Authority: "source"},
			Blobs:       "proxy",
			Replication: config.Replication{Destinations: "own", OnMiss: true, Deletes: "ignore", Deletion: deletion},
		}, {
			Names:       []string{"127.0.0.1:5020", "registry.example.com"},
			Source:      config.Registry{Registry: "http://127.0.0.1:5020", Username: "reader", PasswordFile: "testdata/secrets/password"},
			Destination: &config.Registry{Registry: "registry.example.com"},
			Tags:        config.Tags{TTL: time.Minute, StaleFor: 24 * time.Hour, Authority: "source"},
			Blobs:       "proxy",
			Replication: config.Replication{Destinations: "all", OnMiss: true, Deletes: "propagate", Deletion: config.Deletion{Grace: 72 * time.Hour, PerRun: 10, Interval: 2 * time.Hour, Expired: true},
				Registries: []config.Registry{{Registry: "777788889999.dkr.ecr.cn-north-1.amazonaws.com.cn", Profile: "china", Region: "cn-north-1", Account: "777788889999"}},
				Rules: []rules.Rule{{Repositories: []string{"public/**"}, Destinations: []string{"own", "777788889999.dkr.ecr.cn-north-1.amazonaws.com.cn"},
					Rename: &rules.Rename{From: "public/", To: "mirror/"}}}},
			Events: config.Events{Webhook: &config.Webhook{Path: "/events/other", TokenFile: "testdata/secrets/token"}},
		}, {
			Names:       []string{"docker.io", "index.docker.io"},
			Source:      config.Registry{Registry: "mirror.example.com", NS: "docker.io"},
			Auth:        &config.Auth{None: true},
			Tags:        config.Tags{TTL: time.Minute, StaleFor: 24 * time.Hour, Authority: "source"},
			Blobs:       "proxy",
			Replication: config.Replication{Destinations: "own", OnMiss: true, Deletes: "ignore", Deletion: deletion},
		}},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(config.Replication{}, "Set")); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	own := rules.Destination{Region: "eu-central-1", Account: "111122223333"}
	if got := got.Mirrors[0].Own(); got != own {
		t.Errorf("own destination %v, want %v", got, own)
	}
	set := got.Mirrors[0].Targets()[0].Rules
	for image, want := range map[string]bool{"team/a/b:v1": true, "team/tmp-1:v1": false, "team/a:dev": false, "lib-7:1.4.0": true, "lib-7:3.0.0": false, "lib-x:v1": false, "team/a:v1-dev": false, "prod/x:any": true, "other:v1": false} {
		repo, tag, _ := strings.Cut(image, ":")
		if set.Match(repo, tag) != want {
			t.Errorf("match %s is %v, want %v", image, !want, want)
		}
	}
	for _, target := range got.Mirrors[2].Targets() {
		if !target.Rules.Match("public/app", "v1") || target.Rules.Match("app", "v1") || target.Rules.There("public/app") != "mirror/app" {
			t.Errorf("%s: not what its rule says", target.Registry.Host())
		}
	}
	for i, want := range []bool{true, true, false} {
		if got.Mirrors[i].Source.IsECR() != want {
			t.Errorf("mirrors[%d].source is ECR: %v, want %v", i, !want, want)
		}
	}
}

// Where a mirror writes to: its own destination, those that it says how to reach, and those that follow from the source's host.
func TestTargets(t *testing.T) {
	for _, tc := range []struct{ name, mirror, want string }{
		{"own", `
  destination: {registry: 111122223333.dkr.ecr.eu-central-1.amazonaws.com}
  replication: {rulesFile: testdata/replication.json}`, "111122223333.dkr.ecr.eu-central-1.amazonaws.com own"},
		{"all", `
  destination: {registry: 111122223333.dkr.ecr.eu-central-1.amazonaws.com}
  replication: {destinations: all, rulesFile: testdata/replication.json}`,
			"111122223333.dkr.ecr.eu-central-1.amazonaws.com own, 444455556666.dkr.ecr.ap-southeast-2.amazonaws.com"},
		{"all but own", `
  replication: {destinations: all, rulesFile: testdata/replication.json}`,
			"111122223333.dkr.ecr.eu-central-1.amazonaws.com, 444455556666.dkr.ecr.ap-southeast-2.amazonaws.com"},
		{"with credentials, in another partition, no ECR", `
  destination: {registry: 111122223333.dkr.ecr.eu-central-1.amazonaws.com}
  replication:
    destinations: all
    registries:
    - {registry: 444455556666.dkr.ecr.ap-southeast-2.amazonaws.com, roleArn: "arn:aws:iam::444455556666:role/w"}
    - {registry: 777788889999.dkr.ecr.cn-north-1.amazonaws.com.cn, profile: china}
    - {registry: "http://127.0.0.1:5010"}
    rulesFile: testdata/replication.json
    rules:
    - {repositories: [a], destinations: ["127.0.0.1:5010", own]}
    - {repositories: [a], destinations: [777788889999.dkr.ecr.cn-north-1.amazonaws.com.cn]}`,
			"111122223333.dkr.ecr.eu-central-1.amazonaws.com own, 127.0.0.1:5010, 777788889999.dkr.ecr.cn-north-1.amazonaws.com.cn china, " +
				"444455556666.dkr.ecr.ap-southeast-2.amazonaws.com arn:aws:iam::444455556666:role/w"},
		{"a registry that no rule names", `
  destination: {registry: 111122223333.dkr.ecr.eu-central-1.amazonaws.com}
  replication: {destinations: all, registries: [{registry: b.example.com}]}`, "111122223333.dkr.ecr.eu-central-1.amazonaws.com own"},
	} {
		c, err := config.Parse("c.yaml", []byte("mirrors:\n- source: {registry: 111122223333.dkr.ecr.us-west-2.amazonaws.com}"+tc.mirror), env(nil))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		var got []string
		for _, target := range c.Mirrors[0].Targets() {
			text := strings.TrimSpace(target.Registry.Host() + " " + target.Registry.RoleARN + target.Registry.Profile)
			if target.Own {
				text += " own"
			}
			if target.Registry.IsECR() && (target.Registry.Region == "" || target.Registry.Account == "") {
				t.Errorf("%s: %s without region or account", tc.name, text)
			}
			got = append(got, text)
		}
		if diff := cmp.Diff(tc.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s: targets (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestMinimal(t *testing.T) {
	c, err := config.Load("testdata/minimal.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m := c.Mirrors[0]
	if !m.Targets()[0].Rules.Match("any", "v1") {
		t.Error("no rules: want everything")
	}
	want := []string{"127.0.0.1:5000", "127.0.0.1:5001", "/var/lib/ecr-mirror", "info", "text", m.Source.Host(), m.Destination.Host()}
	if diff := cmp.Diff(want, append([]string{c.Listen, c.Admin, c.Cache.Path, c.Log.Level, c.Log.Format}, m.Names...)); diff != "" || c.Cache.Size != 0 {
		t.Errorf("defaults, size %d (-want +got):\n%s", c.Cache.Size, diff)
	}
}

// Every problem, in one message, with its line.
func TestInvalid(t *testing.T) {
	_, err := parse(t, "testdata/invalid.yaml", nil)
	var e *config.Error
	if !errors.As(err, &e) {
		t.Fatalf("want an *Error, not %v", err)
	}
	const golden = "testdata/invalid.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(err.Error()+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, ferr := os.ReadFile(golden)
	if ferr != nil {
		t.Fatal(ferr)
	}
	if diff := cmp.Diff(string(want), err.Error()+"\n"); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestProblems(t *testing.T) {
	const mirrors = "\nmirrors: [{source: {registry: a.example.com}}]\n"
	for _, tc := range []struct{ name, text, want string }{
		{"empty", "", "c.yaml:1: empty: at least mirrors is required"},
		{"comment", "# nothing\n", "c.yaml:1: empty: at least mirrors is required"},
		{"list", "- a\n", "c.yaml:1: want keys with values"},
		{"syntax", "a: b\n c: [", "c.yaml:2: mapping values are not allowed in this context"},
		{"two documents", "listen: 127.0.0.1:1\n---\na: b\n", "c.yaml:2: a second document"},
		{"null", "listen:" + mirrors, "c.yaml:1: listen: empty: give it a value or leave it out"},
		{"no mirrors", "mirrors: []", "c.yaml:1: mirrors: at least one is required"},
		{"no source", "mirrors: [{}]", "c.yaml:1: mirrors[0].source: required"},
		{"open", "listen: :5000" + mirrors, "c.yaml:1: listen: :5000 is not loopback and clients need no credentials: set auth or tls.clientCA, or say auth: {none: true}"},
		{"open by intent", "listen: :5000\nauth: {none: true}" + mirrors, ""},
		{"open to certificates", "listen: :5000\ntls: {cert: a, key: b, clientCA: c}" + mirrors, ""},
		{"loopback IPv6", "listen: '[::1]:5000'" + mirrors, ""},
		{"loopback name", "listen: localhost:5000" + mirrors, ""},
		{"any loopback address", "listen: 127.9.9.9:5000" + mirrors, ""},
		{"none and htpasswd", "auth: {none: true, htpasswd: f}" + mirrors, "c.yaml:1: auth: none, htpasswd and ecr exclude each other"},
		{"same address", "admin: 127.0.0.1:5000" + mirrors, "c.yaml:1: admin: the same address as listen"},
		{"dollar", "log: {level: '$${x}'}" + mirrors, `c.yaml:1: log.level: "${x}": want debug or info or warn or error`},
		{"unclosed variable", "cache: {path: 'a${B'}" + mirrors, `c.yaml:1: cache.path: "${B" is not a variable: want ${NAME}, or $${ for ${ itself`},
		{"unset variable", "cache: {path: '${A}/${B}'}" + mirrors, "c.yaml:1: cache.path: environment variable B is not set"},
		{"a lone dollar is itself", "cache: {path: '/a$b$'}" + mirrors, ""},
		{"anchors", "x: &a [1]" + mirrors, "c.yaml:1: x: unknown key"},
		{"alias", "cache: {path: &p /data}\nauth: {htpasswd: *p}" + mirrors, ""},
		{"huge size", "cache: {size: 9000000TiB}" + mirrors, `c.yaml:1: cache.size: size "9000000TiB" is too large`},
		{"negative duration", "mirrors: [{source: {registry: a.example.com}, tags: {ttl: -1s}}]", `c.yaml:1: mirrors[0].tags.ttl: want a duration like 30s, not "-1s"`},
		{"same registry", "mirrors: [{source: {registry: a.example.com}, destination: {registry: https://A.example.com}}]",
			"c.yaml:1: mirrors[0].destination.registry: the same registry as source\nc.yaml:1: mirrors[0].names: a.example.com is already that of mirrors[0].names"},
		{"same queue", "mirrors:\n- {source: {registry: a.example.com}, events: {sqs: 'https://q/1'}}\n- {source: {registry: b.example.com}, events: {sqs: 'https://q/1'}}",
			"c.yaml:3: mirrors[1].events.sqs: https://q/1 is already that of mirrors[0].events.sqs"},
		{"deletes without events", "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  replication: {deletes: propagate, deletion: {perRun: 0, interval: 1ms}}",
			"c.yaml:4: mirrors[0].replication.deletes: propagate: it is events that tell of deletions, and there are none\nc.yaml:4: mirrors[0].replication.deletion.interval: 1ms: want at least 1s\nc.yaml:4: mirrors[0].replication.deletion.perRun: 0: want at least 1"},
		{"deletes with replicas", "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  events: {sqs: 'https://q/1', shared: true}\n  replication: {deletes: propagate}",
			"c.yaml:5: mirrors[0].replication.deletes: propagate: what this mirror brought is known to the replica that brought it, so not with events.shared"},
		{"deletes where two write", "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  events: {sqs: 'https://q/1'}\n  replication: {deletes: propagate}\n- {names: [x.example.com], source: {registry: c.example.com}, destination: {registry: b.example.com}}",
			"c.yaml:5: mirrors[0].replication.deletes: propagate: mirrors[1] writes to b.example.com, too"},
		{"deletion without deletes", "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  replication: {deletion: {grace: 1h}}",
			"c.yaml:4: mirrors[0].replication.deletion: deletes is not propagate"},
		{"shared circle", "mirrors:\n- {names: [x], source: {registry: a.example.com}, destination: {registry: b.example.com}, events: {sqs: 'https://q/1', shared: true}}\n" +
			"- {names: [y], source: {registry: b.example.com}, destination: {registry: c.example.com}}\n- {names: [z], source: {registry: c.example.com}, destination: {registry: a.example.com}}",
			"c.yaml:2: mirrors[0].events.shared: images may come back from b.example.com to the source; one process alone can end that circle"},
		{"circle", "mirrors:\n- {names: [x], source: {registry: a.example.com}, destination: {registry: b.example.com}}\n- {names: [y], source: {registry: b.example.com}, destination: {registry: a.example.com}}", ""},
		{"shared chain", "mirrors:\n- {names: [x], source: {registry: a.example.com}, destination: {registry: b.example.com}, events: {sqs: 'https://q/1', shared: true}}\n" +
			"- {names: [y], source: {registry: b.example.com}, destination: {registry: c.example.com}}", ""},
		{"shared nothing", "mirrors:\n- {source: {registry: a.example.com}, events: {shared: true}}",
			"c.yaml:2: mirrors[0].events.shared: there is no sqs to share"},
		{"same webhook", "mirrors:\n- {source: {registry: a.example.com}, events: {webhook: {path: /e, tokenFile: t}}}\n- {source: {registry: b.example.com}, events: {webhook: {path: /e, tokenFile: t}}}",
			"c.yaml:3: mirrors[1].events.webhook.path: /e is already that of mirrors[0].events.webhook.path"},
		{"a webhook's token in clear", "listen: :5000\nauth: {none: true}\nmirrors:\n- {source: {registry: a.example.com}, events: {webhook: {path: /e, tokenFile: t}}}\n- {source: {registry: b.example.com}, events: {webhook: {path: /f, tokenFile: t, insecure: true}}}",
			"c.yaml:4: mirrors[0].events.webhook: its token comes over plain HTTP to :5000, which is not loopback: set tls, or say insecure: true"},
		{"another account's rules", "mirrors:\n- source: {registry: 444455556666.dkr.ecr.us-west-2.amazonaws.com}\n  destination: {registry: a.example.com}\n  replication: {rulesFile: testdata/replication.json}",
			"c.yaml:4: mirrors[0].replication.rulesFile: is of registry 111122223333, but source is 444455556666"},
		{"limits", "limits: {requests: 0, connections: x}" + mirrors, `c.yaml:1: limits.connections: want a number, not "x"` + "\nc.yaml:1: limits.requests: 0: want at least 1"},
		{"more for one than for all", "limits: {requests: 5, requestsPerClient: 6}" + mirrors, "c.yaml:1: limits.requestsPerClient: 6: want 1 to 5"},
		{"open to ECR tokens", "listen: :5000\nauth: {ecr: true, onOutage: known, insecure: true}\nmirrors: [{source: {registry: 111122223333.dkr.ecr.us-west-2.amazonaws.com}}]", ""},
		{"tokens in clear", "listen: :5000\nauth: {ecr: true}\nmirrors: [{source: {registry: 111122223333.dkr.ecr.us-west-2.amazonaws.com}}]",
			"c.yaml:2: auth: credentials come over plain HTTP to :5000, which is not loopback: set tls, or say insecure: true"},
		{"passwords in clear, one mirror's and all others'", "listen: :5000\nauth: {htpasswd: f}\nmirrors:\n- {source: {registry: a.example.com}}\n- {source: {registry: b.example.com}}\n- {source: {registry: c.example.com}, auth: {htpasswd: g}}",
			"c.yaml:2: auth: credentials come over plain HTTP to :5000, which is not loopback: set tls, or say insecure: true\n" +
				"c.yaml:6: mirrors[2].auth: credentials come over plain HTTP to :5000, which is not loopback: set tls, or say insecure: true"},
		{"passwords over TLS", "listen: :5000\ntls: {cert: a, key: b}\nauth: {htpasswd: f}" + mirrors, ""},
		{"passwords on loopback", "auth: {htpasswd: f}" + mirrors, ""},
		{"insecure is not none", "listen: :5000\nauth: {insecure: true}" + mirrors,
			"c.yaml:1: listen: :5000 is not loopback and clients need no credentials: set auth or tls.clientCA, or say auth: {none: true}\nc.yaml:2: auth.insecure: is for htpasswd and ecr: there are no credentials to send"},
		{"open by one mirror", "listen: :5000\nauth: {htpasswd: f, insecure: true}\nmirrors: [{source: {registry: a.example.com}, auth: {}}]",
			"c.yaml:1: listen: :5000 is not loopback and clients need no credentials: set auth or tls.clientCA, or say auth: {none: true}"},
		{"tokens of no ECR", "auth: {ecr: true}" + mirrors, "c.yaml:1: auth.ecr: neither source nor destination of mirrors[0] is ECR: nobody could tell whose token is good"},
		{"onOutage of htpasswd", "auth: {htpasswd: f, onOutage: deny}" + mirrors, "c.yaml:1: auth.onOutage: is for ecr: true"},
		{"onOutage", "auth: {ecr: true, onOutage: allow}\nmirrors: [{source: {registry: 111122223333.dkr.ecr.us-west-2.amazonaws.com}}]",
			`c.yaml:1: auth.onOutage: "allow": want deny or known`},
		{"a mirror's own", "mirrors: [{source: {registry: a.example.com}, auth: {ecr: true, none: true}}]",
			"c.yaml:1: mirrors[0].auth: none, htpasswd and ecr exclude each other\nc.yaml:1: mirrors[0].auth.ecr: neither source nor destination of mirrors[0] is ECR: nobody could tell whose token is good"},
		{"redirect to nowhere", "mirrors: [{source: {registry: a.example.com}, blobs: redirect}]", "c.yaml:1: mirrors[0].blobs: redirect, but there is no ECR destination to redirect to"},
		{"redirect to what is not ECR", "mirrors: [{source: {registry: a.example.com}, destination: {registry: b.example.com}, blobs: redirect}]",
			"c.yaml:1: mirrors[0].blobs: redirect, but there is no ECR destination to redirect to"},
		{"ns of ECR", "mirrors: [{source: {registry: 111122223333.dkr.ecr.us-west-2.amazonaws.com, ns: a.example.com}}]",
			"c.yaml:1: mirrors[0].source.ns: not for ECR, which is a registry and not a mirror"},
		{"ns that is no host", "mirrors: [{source: {registry: a.example.com, ns: 'https://b'}}]", `c.yaml:1: mirrors[0].source.ns: "https://b" is not a host or host:port`},
		{"rates", "mirrors: [{source: {registry: a.example.com, type: ecr, account: 111122223333, region: us-east-1, rates: {putImage: 0, batchGetImage: many, uploadLayerPart: NaN}}}]",
			`c.yaml:1: mirrors[0].source.rates.putImage: want calls per second from 0.01 to 100000, not "0"
c.yaml:1: mirrors[0].source.rates.batchGetImage: want calls per second from 0.01 to 100000, not "many"
c.yaml:1: mirrors[0].source.rates.uploadLayerPart: want calls per second from 0.01 to 100000, not "NaN"`},
		{"repository settings", "mirrors: [{source: {registry: a.example.com, type: ecr, account: 111122223333, region: us-east-1, repositories: {tagMutability: maybe, kmsKey: k, tags: {aws:x: y, 'a': 1, a: 2}}}}]",
			`c.yaml:1: mirrors[0].source.repositories.tags.a: given twice, first in line 1
c.yaml:1: mirrors[0].source.repositories.tagMutability: "maybe": want MUTABLE or IMMUTABLE
c.yaml:1: mirrors[0].source.repositories.kmsKey: belongs to encryption: KMS or KMS_DSSE
c.yaml:1: mirrors[0].source.repositories.tags.aws:x: not a tag that AWS takes: 1 to 128 characters that do not begin with aws:, and 256 of value`},
		{"settings", "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  replication: {settings: {mode: maybe, kmsKeys: {alias/a: alias/b}}}",
			`c.yaml:4: mirrors[0].replication.settings.mode: "maybe": want show or converge
c.yaml:4: mirrors[0].replication.settings.mode: for ECR only, and the source is not
c.yaml:4: mirrors[0].replication.settings.kmsKeys.alias/a: want the ARN of a key at the source, and one at the destination or alias/NAME`},
		{"keys without settings", "mirrors:\n- source: {registry: 111122223333.dkr.ecr.us-west-2.amazonaws.com}\n  destination: {registry: b.example.com}\n  replication: {settings: {kmsKeys: {'arn:aws:kms:us-west-2:111122223333:key/1': alias/b}}}",
			`c.yaml:4: mirrors[0].replication.settings.kmsKeys: belongs to mode: show or converge`},
		{"of ECR only", "mirrors: [{source: {registry: a.example.com, rates: {putImage: 1}, repositories: {tags: [a]}}}]",
			`c.yaml:1: mirrors[0].source.repositories.tags: want keys with values
c.yaml:1: mirrors[0].source.rates: for ECR only, and a.example.com is not one of its hosts: say type: ecr if it is ECR
c.yaml:1: mirrors[0].source.repositories: for ECR only, and a.example.com is not one of its hosts: say type: ecr if it is ECR`},
		{"further destinations", "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  replication:\n    destinations: all\n    registries: [{registry: a.example.com}, {registry: b.example.com}, {registry: c.example.com}, {registry: c.example.com}, {}]\n    rules: [{destinations: [own, b.example.com, c.example.com, d.example.com]}]",
			`c.yaml:6: mirrors[0].replication.registries[0].registry: a.example.com is already the source
c.yaml:6: mirrors[0].replication.registries[1].registry: b.example.com is already destination
c.yaml:6: mirrors[0].replication.registries[3].registry: c.example.com is already mirrors[0].replication.registries[2]
c.yaml:6: mirrors[0].replication.registries[4].registry: required
c.yaml:7: mirrors[0].replication.rules[0].destinations[3]: "d.example.com" is no destination of the mirror`},
		{"nowhere to go", "mirrors:\n- source: {registry: a.example.com}\n  replication: {destinations: all, registries: [{registry: c.example.com}], rules: [{destinations: [own]}, {repositories: [x]}]}",
			`c.yaml:3: mirrors[0].replication.rules[0].destinations[0]: "own" is no destination of the mirror`},
		{"nothing of its own", "mirrors:\n- source: {registry: a.example.com}\n  replication: {destinations: all, registries: [{registry: c.example.com}], rules: [{repositories: [x]}]}",
			"c.yaml:3: mirrors[0].replication: without rules, and by a rule without destinations, images go to the mirror's own destination, and it has none"},
		{"no way there", "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  replication: {destinations: all, rulesFile: testdata/replication.json}",
			"c.yaml:4: mirrors[0].replication: rules name 111122223333 in eu-central-1, and the source's host does not tell how to reach it: add it to registries\n" +
				"c.yaml:4: mirrors[0].replication: rules name 444455556666 in ap-southeast-2, and the source's host does not tell how to reach it: add it to registries"},
		{"rules file is a directory", "mirrors:\n- source: {registry: a.example.com}\n  destination: {registry: b.example.com}\n  replication: {rulesFile: testdata}",
			"c.yaml:4: mirrors[0].replication.rulesFile: read testdata: not a regular file"},
	} {
		_, err := config.Parse("c.yaml", []byte(tc.text), env(map[string]string{"A": "a"}))
		got := ""
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]config.Size{"0": 0, "1024": 1024, "5B": 5, "3KB": 3000, "3KiB": 3 << 10, "2 MiB": 2 << 20, "1GB": 1e9, "2TiB": 2 << 40} {
		var s config.Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "1gib", "9223372036854775808"} {
		if err := new(config.Size).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: want an error", text)
		}
	}
}

func TestECRHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"111122223333.dkr.ecr.us-west-2.amazonaws.com":          true,
		"https://111122223333.dkr.ecr.us-west-2.amazonaws.com/": true,
		"111122223333.dkr-ecr.us-west-2.on.aws":                 true,
		"111122223333.dkr.ecr-fips.us-east-1.amazonaws.com":     true,
		"111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn":      true,
		"111122223333.dkr.ecr.eusc-de-east-1.amazonaws.eu":      true,
		"public.ecr.aws": false,
		"111122223333.dkr.ecr.us-west-2.amazonaws.com.evil.example": false,
		"evil.example/111122223333.dkr.ecr.us-west-2.amazonaws.com": false,
		"11112222333.dkr.ecr.us-west-2.amazonaws.com":               false,
	} {
		if r := (&config.Registry{Registry: host}); r.IsECR() != want {
			t.Errorf("%s is ECR: %v, want %v", host, !want, want)
		}
	}
}

func TestLoad(t *testing.T) {
	if _, err := config.Load(filepath.Join(t.TempDir(), "absent.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(big); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("2 MiB of configuration: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"full.yaml", "minimal.yaml", "invalid.yaml"} {
		data, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("mirrors: &a [*a]\n? [x]: y\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Parse("testdata/f.yaml", []byte(text), env(map[string]string{"STAGE": "x", "MIRROR_PROFILE": "y"}))
		if err == nil {
			if len(c.Mirrors) == 0 || c.Mirrors[0].Source.Registry == "" || len(c.Mirrors[0].Names) == 0 || c.Listen == "" {
				t.Fatalf("accepted: %+v", c)
			}
			return
		}
		var e *config.Error
		if !errors.As(err, &e) || len(e.Problems) == 0 || c != nil {
			t.Fatalf("%v is no list of problems", err)
		}
		for _, p := range e.Problems {
			if p.Line < 1 || p.Text == "" {
				t.Fatalf("problem without a place: %+v", p)
			}
		}
	})
}
