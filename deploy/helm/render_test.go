package helm

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/ecr-mirror/ecr-mirror/cmd/ecr-mirror/programs"
)

var update = flag.Bool("update", false, "write the golden files")

// Every case is linted, and what it renders to is the file under testdata, but for the alerts, which have their own home.
func TestRendered(t *testing.T) {
	t.Parallel()
	programs.Need(t, "helm")
	for name, values := range cases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, nil, "helm", "lint", "--strict", chart, "--values", values)
			got := run(t, nil, "helm", "template", "mirror", chart, "--namespace", "mirrors", "--values", values, "--set", "monitoring.alerts=false")
			golden := filepath.Join("testdata", name+".yaml")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Errorf("(-update writes it)\n%s", d)
			}
		})
	}
}

// The binary accepts what the chart gives it: the configuration, and the arguments of every container.
func TestAccepted(t *testing.T) {
	t.Parallel()
	for name, values := range cases(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			all := render(t, "--values", values)
			dir := t.TempDir()
			containers := 0
			for _, o := range all {
				if o.text("kind") == "ConfigMap" {
					for file, text := range o.child("data") {
						if err := os.WriteFile(filepath.Join(dir, file), []byte(text.(string)), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					run(t, []string{"QUEUE=q", "HOST_IP=192.0.2.1"}, binary(t), "check", "--config", filepath.Join(dir, "config.yaml"))
				}
				for _, c := range o.template().list("spec", "containers") {
					containers++
					run(t, nil, binary(t), append(c.strings("args"), "--help")...)
				}
			}
			if containers == 0 {
				t.Error("no container")
			}
		})
	}
}

// The configuration may be the text of the file, which stays as it is, comments and the zeros of 1.10 and of an account included.
func TestConfigurationAsText(t *testing.T) {
	t.Parallel()
	const text = "auth: {none: true} # on a private network\nmirrors:\n- source: {registry: 'http://r.example.com', type: ecr, account: 012345678901, region: us-east-1, insecure: true}\n" +
		"  destination: {registry: b.example.com}\n  replication: {rules: [{repositories: [team/app], tags: [1.10]}]}\n"
	dir := t.TempDir()
	rendered := func(text string) string {
		t.Helper()
		file := filepath.Join(dir, "ecr-mirror.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		all := render(t, "--set-json", `image={"repository":"r.example.com/ecr-mirror","tag":"v1"}`, "--set-file", "config="+file)
		return find(t, all, "ConfigMap/mirror-ecr-mirror").text("data", "config.yaml")
	}
	if got, want := rendered(text), text+"admin: 0.0.0.0:5001\ncache:\n  path: /var/lib/ecr-mirror\n  size: 81920MiB\nlisten: 0.0.0.0:5000\n"; got != want {
		t.Errorf("%s", cmp.Diff(want, got))
	}
	more := "listen: 0.0.0.0:443\n" + text + "cache: {size: 1GiB}\n"
	got := rendered(more)
	if want := more + "admin: 0.0.0.0:5001\n"; got != want {
		t.Errorf("%s", cmp.Diff(want, got))
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(got), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := run(t, nil, binary(t), "check", "--config", config, "--image", "team/app:1.10"); !strings.Contains(said, "copied") || strings.Contains(said, "not copied") {
		t.Errorf("check: %s", said)
	}
}

// The nodes are told of the registries that the binary would tell them of by the same configuration.
func TestNodesToldAsByTheBinary(t *testing.T) {
	t.Parallel()
	all := render(t, "--values", cases(t)["daemonset"], "--set-json", `config.mirrors=[{"source":{"registry":"https://A.example.com:5000/"}},{"names":["b.example.com"],"source":{"registry":"c.example.com"}}]`)
	config := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(config, []byte(find(t, all, "ConfigMap/mirror-ecr-mirror").text("data", "config.yaml")), 0o600); err != nil {
		t.Fatal(err)
	}
	want := run(t, nil, binary(t), "client-config", "containerd", "--config", config)
	args := find(t, all, "DaemonSet/mirror-ecr-mirror-nodes").template().list("spec", "containers")[0].strings("args")
	args = slices.DeleteFunc(args, func(a string) bool { return a == "--install" || a == "--hold" || strings.HasPrefix(a, "--root") })
	if d := cmp.Diff(want, run(t, nil, binary(t), args...)); d != "" {
		t.Error(d)
	}
}

// What cannot be meant is refused with the value that is wrong.
func TestRefused(t *testing.T) {
	t.Parallel()
	programs.Need(t, "helm")
	const (
		mirror = `config.mirrors=[{"source":{"registry":"a.example.com"}}]`
		queue  = `config.mirrors=[{"source":{"registry":"a.example.com"},"destination":{"registry":"b.example.com"},"events":{"sqs":"https://sqs.example.com/q"}}]`
		timed  = `config.mirrors=[{"source":{"registry":"a.example.com"},"destination":{"registry":"b.example.com"},"replication":{"sweep":"1h"}}]`
		image  = `image={"repository":"r.example.com/ecr-mirror","tag":"v1"}`
		open   = `config.auth={"none":true}`
	)
	for want, set := range map[string][]string{
		"image.repository":                     {mirror, open},
		"image: give a tag":                    {`image.repository="r.example.com/m"`, mirror, open},
		"config.mirrors: at least one":         {image, open},
		"0.0.0.0:5000 is not loopback":         {image, mirror},
		"config.listen: 127.0.0.1:5000 is":     {image, mirror, `config.listen="127.0.0.1:5000"`},
		"config.admin: localhost:5001 is":      {image, mirror, open, `config.admin="localhost:5001"`},
		"config.mirrors[0].events: several":    {image, queue, open},
		"config.mirrors[0].replication.sweep":  {image, timed, open},
		"config: error converting YAML":        {image, `config="auth: {none: ["`},
		"networkPolicy.monitoring":             {image, mirror, open, `monitoring.enabled=true`},
		"line by line":                         {image, `config="{auth: {none: true}, mirrors: [{source: {registry: a.example.com}}]}"`},
		"config.role":                          {image, mirror, open, `config.role="front"`},
		"by this queue the workers":            {image, timed, open, `workers.replicas=1`},
		"nodes.mirror: say how":                {image, `shape="nodes"`},
		"nodes.registries":                     {image, `shape="nodes"`, `nodes.mirror="https://m.example.com"`},
		"sweep.enabled: shape: nodes":          {image, mirror, `shape="nodes"`, `nodes.mirror="https://m.example.com"`, `sweep.enabled=true`},
		"workers.replicas: a mirror on":        {image, mirror, `shape="daemonset"`, `workers.replicas=1`},
		"nodes.mirror":                         {image, mirror, open, `nodes.enabled=true`},
		"config.mirrors[0].destination":        {image, timed, `shape="daemonset"`},
		"config.mirrors[0].events.sqs":         {image, `config.mirrors=[{"source":{"registry":"a.example.com"},"events":{"sqs":"https://sqs.example.com/q"}}]`, `shape="daemonset"`},
		"sweep.enabled: a mirror on":           {image, mirror, `shape="daemonset"`, `sweep.enabled=true`},
		"monitoring.enabled":                   {image, mirror, `shape="daemonset"`, `monitoring.enabled=true`},
		"config.cache.size":                    {image, mirror, `shape="daemonset"`, `cache.hostPath="/var/cache/ecr-mirror"`},
		"files: config.yaml":                   {image, mirror, open, `files={"config.yaml":"x"}`},
		"additional properties 'colour'":       {image, mirror, open, `nodes.colour="red"`},
		"additional properties 'replicaCount'": {image, mirror, open, `replicaCount=3`},
		"'/cache/size'":                        {image, mirror, open, `cache.size="10GB"`},
		"'/shape'":                             {image, mirror, open, `shape="deamonset"`},
		"'/serviceAccount/roleArn'":            {image, mirror, open, `serviceAccount.roleArn="ecr-mirror"`},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			args := []string{"template", "mirror", chart}
			for _, s := range set {
				args = append(args, "--set-json", s)
			}
			if out, err := try(t, nil, "helm", args...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}

// Every value has its place in the schema with a default in values.yaml, and a comment there unless its name says it all.
func TestValuesAndSchema(t *testing.T) {
	t.Parallel()
	var values map[string]any
	var schema struct{ Properties map[string]any }
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &values)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err == nil {
		err = json.Unmarshal(text, &schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	delete(schema.Properties, "global") // helm's own
	compareKeys(t, "", values, schema.Properties)
}

func compareKeys(t *testing.T, path string, values, properties map[string]any) {
	t.Helper()
	for key := range properties {
		if _, ok := values[key]; !ok {
			t.Errorf("%s%s has no default in values.yaml", path, key)
		}
	}
	for key, value := range values {
		property, ok := properties[key].(map[string]any)
		if !ok {
			t.Errorf("%s%s is not in the schema", path, key)
			continue
		}
		if inner, ok := property["properties"].(map[string]any); ok && reflect.TypeOf(value) == reflect.TypeOf(inner) {
			compareKeys(t, path+key+".", value.(map[string]any), inner)
		}
	}
}

// kubernetes are keys that say what they are to whoever knows Kubernetes.
var kubernetes = []string{"enabled", "priorityClassName", "nodeSelector", "affinity", "tolerations", "podAnnotations", "roleArn", "annotations"}

// Every value has a comment, but for those above.
func TestValuesHaveComments(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	var check func(path string, n *yaml.Node, depth int)
	check = func(path string, n *yaml.Node, depth int) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			if key.HeadComment == "" && !slices.Contains(kubernetes, key.Value) {
				t.Errorf("%s%s has no comment", path, key.Value)
			}
			if value.Kind == yaml.MappingNode && value.Style&yaml.FlowStyle == 0 && depth < 3 && !slices.Contains(kubernetes, key.Value) && key.Value != "resources" {
				check(path+key.Value+".", value, depth+1)
			}
		}
	}
	check("", document.Content[0], 1)
}

// The alerts are those of deploy/monitoring, by a symbolic link: helm takes what is behind it into the chart.
func TestAlerts(t *testing.T) {
	t.Parallel()
	want, err := os.ReadFile(filepath.Join("..", "monitoring", "alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	rule := find(t, render(t, "--values", cases(t)["regional"]), "PrometheusRule/images")
	var groups object
	if err := yaml.Unmarshal(want, &groups); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(groups, rule.child("spec")); d != "" {
		t.Error(d)
	}
}

// A changed configuration or file makes new pods; what else changes does not.
func TestChecksum(t *testing.T) {
	t.Parallel()
	sum := func(set ...string) string {
		args := []string{"--values", cases(t)["deployment"]}
		for _, s := range set {
			args = append(args, "--set", s)
		}
		return find(t, render(t, args...), "StatefulSet/mirror-ecr-mirror").template().text("metadata", "annotations", "checksum/config")
	}
	was := sum()
	if was == "" || sum("config.log.level=debug") == was || sum(`files.replication\.json=x`) == was || sum("service.port=80") != was {
		t.Errorf("%q", was)
	}
}
